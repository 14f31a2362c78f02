package spec

import (
	"fmt"
	"strconv"

	"gopkg.in/yaml.v3"
)

// broken stands for a layer with a mistake of its own, so that what follows is
// not blamed for it. It never leaves Parse.
type broken struct{ Base }

func (*broken) Kind() string                { return "broken" }
func (*broken) shape(*checker, Shape) Shape { return Shape{} }
func (*repeatGroup) Kind() string           { return "repeat" }
func (*blockGroup) Kind() string            { return "block" }

// expand decodes a list of layers, writing out repeats and blocks. Layers are
// named prefix + their name, or without one prefix + path + their index: prefix
// ends at the nearest named group, path is the indices from there.
func (d *decoder) expand(list *yaml.Node, prefix, path string) []Layer {
	var out []Layer
	for i, n := range list.Content {
		if d.layers++; d.layers > maxLayers {
			if !d.full {
				d.errorf(d.extent(deref(n)), "more than %d layers, repeats written out", maxLayers)
			}
			d.full = true
			return append(out, &broken{})
		}
		_, obj, at := layerUnion.decode(d, n, "this")
		if obj == nil {
			out = append(out, &broken{})
			continue
		}
		b := obj.(Layer).Common()
		named := b.Name != ""
		if !named {
			b.Name = path + strconv.Itoa(i)
		}
		rel := b.Name
		b.Name = prefix + b.Name
		b.Pos, b.word = at.Pos, at
		if len(b.Name) > maxName {
			d.errorf(at, "the full name of this layer has more than %d characters", maxName)
			out = append(out, &broken{})
			continue
		}
		switch l := obj.(type) {
		case *repeatGroup:
			out = append(out, d.copies(l)...)
		case *blockGroup:
			out = append(out, d.expand(l.body, b.Name+".", "")...)
		case *Residual:
			if named {
				l.Body = d.expand(l.body, b.Name+".", "")
			} else {
				l.Body = d.expand(l.body, prefix, rel+".")
			}
			l.body = nil
			out = append(out, l)
		default:
			out = append(out, obj.(Layer))
		}
	}
	return out
}

// copies writes a repeat out. After a copy with mistakes it stops: the others
// would mostly have the same.
func (d *decoder) copies(l *repeatGroup) []Layer {
	outer := d.env
	defer func() { d.env = outer }()
	if v, ok := constant(outer, l.index); ok {
		d.add(d.indexSpan(l), "name the loop variable otherwise, by index: …",
			fmt.Sprintf("the loop variable %s would hide the constant %s = %s", l.index, l.index, v))
		return []Layer{&broken{}}
	}
	var out []Layer
	for i := range l.times {
		d.env = &scope{parent: outer, loop: true}
		d.env.define(l.index, value{kind: intVal, i: int64(i)})
		before := len(d.found)
		out = append(out, d.expand(l.body, fmt.Sprintf("%s.%d.", l.Name, i), "")...)
		if len(d.found) > before || d.full {
			return append(out, &broken{})
		}
	}
	return out
}

func (d *decoder) indexSpan(l *repeatGroup) span {
	if l.has("index") {
		return l.at["index"]
	}
	return l.word
}

// constant looks a name up among the constants only: an inner loop may hide the
// variable of an outer one.
func constant(s *scope, name string) (value, bool) {
	for s != nil && s.loop {
		s = s.parent
	}
	return s.lookup(name)
}
