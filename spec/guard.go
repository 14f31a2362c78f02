package spec

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Limits of a spec file. They bound the work that a hostile file can ask for;
// no sensible model comes near.
const (
	maxBytes  = 1 << 20 // size of the file
	maxNodes  = 50_000  // YAML nodes, each alias counted as what it stands for
	maxDepth  = 64      // nesting, aliases included
	maxText   = 512     // bytes of one scalar
	maxRepeat = 10_000  // times of one repeat
	maxLayers = 20_000  // layers once every repeat is expanded
	maxDim    = 1 << 24 // any one size given in the file
	maxElems  = 1 << 40 // elements of one tensor
)

// load turns text into a checked YAML tree: one document, a mapping at the top,
// no tags, no merge keys, no duplicate keys, within the limits. It gives nil
// after reporting what is wrong.
func load(r *reporter, src []byte) *yaml.Node {
	if len(src) > maxBytes {
		r.add(span{Pos{1, 1}, 1}, "", fmt.Sprintf("the file has %d bytes; a spec may have %d", len(src), maxBytes))
		return nil
	}
	if !checkText(r, src) {
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(src))
	doc, err := nextDocument(dec)
	if err == io.EOF || err == nil && (len(doc.Content) == 0 || isNull(doc.Content[0])) {
		r.add(span{Pos{1, 1}, 1}, "a spec starts with vitgen: 1", "the file is empty")
		return nil
	}
	if err != nil {
		reportSyntax(r, err)
		return nil
	}
	next, err := nextDocument(dec)
	if err == nil {
		r.add(span{Pos{next.Line, next.Column}, 1}, "put each model in a file of its own", "a second document: a spec is one")
		return nil
	}
	if err != io.EOF {
		reportSyntax(r, err)
		return nil
	}
	root := doc.Content[0]
	g := guard{reporter: r, counts: map[*yaml.Node]int{}}
	if g.measure(root, 1); g.stop {
		return nil
	}
	if g.walk(root); g.stop {
		return nil
	}
	return root
}

// nextDocument reads one document. The YAML library has panicked on hostile
// input before; to the user that is unreadable YAML like any other.
func nextDocument(dec *yaml.Decoder) (doc *yaml.Node, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("yaml: the text cannot be read (%v)", p)
		}
	}()
	doc = new(yaml.Node)
	err = dec.Decode(doc)
	return doc, err
}

// checkText refuses what would make positions or meaning doubtful before YAML
// sees it.
func checkText(r *reporter, src []byte) bool {
	ok := true
	for i, line := range r.lines {
		indent := true
		col := 0
		for j, c := range line {
			col++
			at := span{Pos{i + 1, col}, 1}
			switch {
			case c == utf8.RuneError && !strings.HasPrefix(line[j:], string(utf8.RuneError)):
				r.errorf(at, "the file is not UTF-8: byte 0x%02x", line[j])
				return false
			case c == '\t' && indent && strings.TrimSpace(line) != "":
				r.add(at, "YAML is indented with spaces", "a tab in the indentation")
				indent, ok = false, false
			case c == '\uFEFF' && i == 0 && col == 1: // a byte order mark
			case c == '\u0085' || c == '\u2028' || c == '\u2029' || c == '\r':
				r.add(at, `end lines with \n`, fmt.Sprintf("an unusual line break, %U", c))
				return false
			case c < ' ' && c != '\t' || c == 0x7f || c == '\uFEFF':
				r.errorf(at, "a control character, %U", c)
				return false
			}
			if c != ' ' && c != '\t' {
				indent = false
			}
		}
	}
	return ok
}

// guard walks the YAML tree before it is decoded.
type guard struct {
	*reporter
	counts map[*yaml.Node]int // nodes below and including; 0 while under way
	stop   bool
}

// measure counts nodes as if each alias were written out, without writing it
// out, and sees to it that they are few, not too deep, and without cycles.
func (g *guard) measure(n *yaml.Node, depth int) int {
	if g.stop {
		return 0
	}
	if depth > maxDepth {
		g.fail(n, "nested more than %d deep", maxDepth)
		return 0
	}
	// A finished count says nothing about depth; shared parts are walked again
	// only while the total is small, which the limit on nodes ensures.
	total := 1
	if n.Kind == yaml.AliasNode {
		if c, begun := g.counts[n.Alias]; begun && c == 0 {
			g.fail(n, "the alias *%s is inside of what it stands for", n.Value)
			return 0
		}
		total += g.measure(n.Alias, depth+1)
	} else {
		g.counts[n] = 0
		for _, child := range n.Content {
			total += g.measure(child, depth+1)
			if total > maxNodes {
				g.fail(n, "more than %d YAML nodes, aliases written out", maxNodes)
				return 0
			}
		}
	}
	g.counts[n] = total
	return total
}

func (g *guard) fail(n *yaml.Node, format string, args ...any) {
	if !g.stop {
		g.errorf(span{Pos{n.Line, n.Column}, 1}, format, args...)
	}
	g.stop = true
}

// walk reports tags, merge keys, keys that are no scalars, duplicates, and
// unquoted text over several lines, which is always a slip of indentation.
// Aliases are not followed: what they stand for is walked where it stands.
func (g *guard) walk(n *yaml.Node) {
	if n.Style&yaml.TaggedStyle != 0 {
		g.add(g.extent(n), "leave the tag out", fmt.Sprintf("tags such as %s are not part of the language", n.Tag))
	}
	if n.Kind == yaml.ScalarNode && len(n.Value) > maxText {
		g.fail(n, "a value of more than %d bytes", maxText)
	}
	if n.Kind == yaml.ScalarNode && n.Style == 0 && n.Value != "" && !g.onOneLine(n) {
		g.add(span{Pos{n.Line, n.Column}, utf8.RuneCountInString(g.line(n.Line))},
			"check the indentation of the next line", "the text goes on over several lines")
		g.stop = true // what the lines are part of is doubtful, and so are other mistakes
	}
	if n.Kind == yaml.MappingNode {
		first := map[string]*yaml.Node{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			switch {
			case k.Kind != yaml.ScalarNode:
				g.errorf(g.extent(k), "a key must be a plain word")
			case isMerge(k):
				g.add(g.extent(k), "write the keys out, or use repeat and define", "merge keys are not part of the language")
			case first[k.Value] != nil:
				g.addNote(g.extent(k), "", fmt.Sprintf("the key %q is given twice", k.Value),
					g.note(g.extent(first[k.Value]), "first given here"))
			default:
				first[k.Value] = k
			}
		}
	}
	for _, child := range n.Content {
		g.walk(child)
	}
}

// onOneLine reports whether an unquoted scalar ends in the line it begins in.
func (r *reporter) onOneLine(n *yaml.Node) bool {
	text := []rune(r.line(n.Line))
	return n.Column <= len(text) && strings.HasPrefix(string(text[n.Column-1:]), n.Value)
}

// extent is the span of a scalar, or the first character of anything else.
func (r *reporter) extent(n *yaml.Node) span {
	at := span{Pos{n.Line, n.Column}, 1}
	if n.Kind == yaml.AliasNode {
		at.Len = 1 + utf8.RuneCountInString(n.Value)
		return at
	}
	if n.Kind != yaml.ScalarNode {
		return at
	}
	text := []rune(r.line(n.Line))
	if n.Column < 1 || n.Column > len(text) {
		return at
	}
	rest := text[n.Column-1:]
	quote := rest[0]
	if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) == 0 || quote != '"' && quote != '\'' {
		if v := utf8.RuneCountInString(n.Value); v > 0 && strings.HasPrefix(string(rest), n.Value) {
			at.Len = v
		}
		return at
	}
	for i := 1; i < len(rest); i++ {
		switch {
		case quote == '"' && rest[i] == '\\':
			i++
		case rest[i] == quote:
			at.Len = i + 1
			return at
		}
	}
	return at
}

// isMerge reports YAML 1.1's merge key.
func isMerge(k *yaml.Node) bool {
	return k.Kind == yaml.ScalarNode && k.Style == 0 && k.Value == "<<"
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Style == 0 && (n.Value == "" || n.Value == "~" || n.Value == "null")
}
