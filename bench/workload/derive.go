package workload

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Derive returns the text of a spec with some of its scalars changed: the keys of
// set are paths such as train.precision. A key of a section that the spec does
// not have is added at the section's beginning. Everything else stays, line for
// line up to what is added, so that positions in the model mean the same.
func Derive(src []byte, set map[string]string) ([]byte, error) {
	for _, path := range slices.Sorted(maps.Keys(set)) {
		var doc yaml.Node
		if err := yaml.Unmarshal(src, &doc); err != nil {
			return nil, err
		}
		if len(doc.Content) != 1 {
			return nil, fmt.Errorf("not one YAML document")
		}
		var err error
		if src, err = change(src, doc.Content[0], strings.Split(path, "."), set[path]); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return src, nil
}

func change(src []byte, at *yaml.Node, path []string, value string) ([]byte, error) {
	if at.Kind != yaml.MappingNode || len(at.Content) == 0 {
		return nil, fmt.Errorf("line %d is no map with keys", at.Line)
	}
	lines := bytes.SplitAfter(src, []byte("\n"))
	for i := 0; i < len(at.Content); i += 2 {
		key, v := at.Content[i], at.Content[i+1]
		if key.Value != path[0] {
			continue
		}
		if len(path) > 1 {
			return change(src, v, path[1:], value)
		}
		if v.Kind != yaml.ScalarNode || v.Style != 0 {
			return nil, fmt.Errorf("line %d is no plain scalar", v.Line)
		}
		line, col := lines[v.Line-1], v.Column-1
		if !bytes.HasPrefix(line[col:], []byte(v.Value)) {
			return nil, fmt.Errorf("line %d does not have %q at column %d", v.Line, v.Value, v.Column)
		}
		lines[v.Line-1] = slices.Concat(line[:col], []byte(value), line[col+len(v.Value):])
		return bytes.Join(lines, nil), nil
	}
	first := at.Content[0]
	if len(path) > 1 || at.Style&yaml.FlowStyle != 0 {
		return nil, fmt.Errorf("line %d has no key %q", first.Line, path[0])
	}
	added := strings.Repeat(" ", first.Column-1) + path[0] + ": " + value + "\n"
	return bytes.Join(slices.Insert(lines, first.Line-1, []byte(added)), nil), nil
}
