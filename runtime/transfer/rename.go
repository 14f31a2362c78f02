package transfer

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/vitgen/vitgen/runtime/safetensors"
)

// Rename replaces every match of a regular expression in a tensor's name. In
// New, $1 … are what the groups matched. A tensor whose name becomes empty is
// left out.
type Rename struct {
	Old      *regexp.Regexp
	New      string
	Optional bool // else it is a mistake if Old matches no name
}

func (r Rename) String() string { return r.Old.String() + "=" + r.New }

// reference is a group in New, in one of Go's two spellings, or $$ for a $.
var reference = regexp.MustCompile(`\$(?:\$|(\w+)|\{(\w+)\})`)

// ParseRename reads OLD=NEW: ^model\.= takes away a prefix, and
// layers\.(\d+)=blocks.$1 renames numbered layers.
func ParseRename(s string) (Rename, error) {
	old, to, ok := strings.Cut(s, "=")
	if !ok || old == "" {
		return Rename{}, fmt.Errorf("%q is not OLD=NEW, such as '^model\\.=' or 'layers\\.(\\d+)=blocks.$1'", s)
	}
	if len(to) > maxNew {
		return Rename{}, fmt.Errorf("%q…: NEW has %d bytes, more than %d", s[:20], len(to), maxNew)
	}
	re, err := regexp.Compile(old)
	if err != nil {
		return Rename{}, fmt.Errorf("%q: %w", s, err)
	}
	if re.MatchString("") && old != "^" { // ^ puts something in front of every name
		return Rename{}, fmt.Errorf("%q: %q matches the empty text, and so in every place of every name", s, old)
	}
	for _, ref := range reference.FindAllStringSubmatch(to, -1) {
		name := ref[1] + ref[2]
		if name == "" {
			continue
		}
		if n, err := strconv.Atoi(name); err == nil && n <= re.NumSubexp() || re.SubexpIndex(name) >= 0 {
			continue
		}
		return Rename{}, fmt.Errorf("%q: %q has no group %s; write ${1} where a letter, digit or _ follows", s, old, name)
	}
	return Rename{Old: re, New: to}, nil
}

// maxRules is the largest file of renames, in bytes.
const maxRules = 1 << 20

// ReadRenames reads a file of renames, one a line, in the order in which they
// are applied. They are optional: such a file is for a family of models. Empty
// lines and lines that start with # are left out.
func ReadRenames(path string) ([]Rename, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxRules {
		return nil, fmt.Errorf("%s is not a text file of OLD=NEW lines", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []Rename
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		r, err := ParseRename(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
		r.Optional = true
		all = append(all, r)
	}
	return all, nil
}

// source is a tensor of the file.
type source struct {
	*safetensors.Tensor
	name string // after renaming
	used bool
}

// maxName bounds a tensor's name, and maxNew what a rule makes of it: rules can
// double a name again and again.
const (
	maxName = 1 << 12
	maxNew  = 1 << 10
)

// rename applies the rules to the tensors of a file, and returns them in its
// order by their new names; those without a name are not among them. A rule
// that fits no tensor, unless it is optional, and two tensors of one name are
// mistakes.
func rename(f *safetensors.File, rules []Rename) (all []*source, byName map[string]*source, wrong []string) {
	hits := make([]int, len(rules))
	byName = map[string]*source{}
	for i := range f.Tensors {
		s := &source{Tensor: &f.Tensors[i], name: f.Tensors[i].Name}
		if len(s.name) > maxName {
			return nil, nil, []string{fmt.Sprintf("a tensor's name has %d bytes: %s…", len(s.name), s.name[:40])}
		}
		for j, r := range rules {
			if r.Old.MatchString(s.name) {
				hits[j]++
				s.name = r.Old.ReplaceAllString(s.name, r.New)
			}
			if len(s.name) > maxName {
				return nil, nil, []string{fmt.Sprintf("--map %s makes a name of %d bytes of %s", r, len(s.name), s.Name)}
			}
		}
		all = append(all, s)
		if s.name == "" {
			continue
		}
		if other := byName[s.name]; other != nil {
			wrong = append(wrong, fmt.Sprintf("%s and %s are both called %s after --map", other.Name, s.Name, s.name))
		}
		byName[s.name] = s
	}
	for j, n := range hits {
		if n == 0 && !rules[j].Optional {
			wrong = append(wrong, fmt.Sprintf("--map %s fits no tensor", rules[j]))
		}
	}
	return all, byName, wrong
}
