package spec

import "gopkg.in/yaml.v3"

// Parse reads the text of a spec file; file is its name for messages. The
// error is Diagnostics: every mistake found, in the order of the file.
func Parse(file string, src []byte) (*Spec, error) {
	r := newReporter(file, src)
	root := load(r, src)
	if root == nil {
		return nil, r.err()
	}
	top := span{Pos{root.Line, root.Column}, 1}
	if root.Kind != yaml.MappingNode {
		r.add(top, "a spec starts with vitgen: 1", "a spec must be a map of sections, not "+describe(root))
		return nil, r.err()
	}
	d := &decoder{reporter: r}
	doc := newDocument(d)
	d.env = &doc.constants
	if !d.version(root) {
		return nil, r.err()
	}
	d.fields(rootFields, root, "the spec", doc, top)

	s := &doc.Spec
	s.File, s.Source = file, src
	s.Input.Pos, s.Train.Pos = doc.At("input"), doc.At("train")
	if doc.model != nil {
		s.Model = d.expand(doc.model, "", "")
		check(r, s)
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// version looks at the language version before all else: in a file written for
// another one, other mistakes are none.
func (d *decoder) version(root *yaml.Node) bool {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value != "vitgen" {
			continue
		}
		n := deref(root.Content[i+1])
		if v := plain(n.Value); n.Kind == yaml.ScalarNode && n.Style == 0 && v.kind == intVal && v.i != languageVersion {
			d.errorf(d.extent(n), "language version %d is not known; this vitgen reads version %d", v.i, languageVersion)
			return false
		}
	}
	return true
}

// check does what needs the whole spec. Sections with mistakes of their own are
// taken as unknown.
func check(r *reporter, s *Spec) {
	c := &checker{reporter: r, batch: max(1, s.Train.Batch)}
	var in Shape
	if s.Input.Channels > 0 && s.Input.Height > 0 && s.Input.Width > 0 {
		in = s.Input.Shape()
	}
	out := c.layers(s.Model, in)
	if s.Input.Classes > 0 {
		c.output(s, out)
	}
	c.checkTrain(&s.Train)
	if in.Kind != Unknown {
		c.params(s)
		if s.Input.Classes > 0 && s.Data.Name != "" {
			c.checkData(s)
		}
	}
}
