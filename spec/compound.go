package spec

import (
	"fmt"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// listType is a list of a fixed number of values, or with n = 0 of one or more.
// dst: a slice of n pointers for the elements, or *[]float64.
type listType struct {
	n    int
	elem valueType
}

func (t listType) decode(d *decoder, n *yaml.Node, what string, dst any) bool {
	n = deref(n)
	want := fmt.Sprintf("a list of %d values", t.n)
	if t.n == 0 {
		want = "a list"
	}
	if n.Kind != yaml.SequenceNode {
		d.errorf(d.extent(n), "%s must be %s, not %s", what, want, describe(n))
		return false
	}
	if t.n != 0 && len(n.Content) != t.n || len(n.Content) == 0 {
		d.errorf(d.extent(n), "%s must be %s, not of %d", what, want, len(n.Content))
		return false
	}
	ok := true
	var grown []float64
	for i, child := range n.Content {
		var to any
		switch p := dst.(type) {
		case []*int:
			to = p[i]
		case []*float64:
			to = p[i]
		case *[]float64:
			grown = append(grown, 0)
			to = &grown[i]
		default:
			panic(fmt.Sprintf("BUG: %s: a list cannot go to %T", what, dst))
		}
		if !t.elem.decode(d, child, fmt.Sprintf("%s[%d]", what, i), to) {
			ok = false
		}
	}
	if p, grows := dst.(*[]float64); grows && ok {
		*p = grown
	}
	return ok
}

func (t listType) canon(dst any) string {
	var parts []string
	switch p := dst.(type) {
	case []*int:
		for _, e := range p {
			parts = append(parts, t.elem.canon(e))
		}
	case []*float64:
		for _, e := range p {
			parts = append(parts, t.elem.canon(e))
		}
	case *[]float64:
		for i := range *p {
			parts = append(parts, t.elem.canon(&(*p)[i]))
		}
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func (t listType) schema() object {
	s := object{"type": "array", "items": t.elem.schema(), "minItems": max(1, t.n)}
	if t.n > 0 {
		s["maxItems"] = t.n
	}
	return s
}

func (t listType) describe() string {
	if t.n == 0 {
		return "list; each " + t.elem.describe()
	}
	return fmt.Sprintf("list of %d; each %s", t.n, t.elem.describe())
}

// groupType is a nested map whose keys belong to the same object.
type groupType struct{ rows []*field }

func (t groupType) decode(d *decoder, n *yaml.Node, what string, dst any) bool {
	n = deref(n)
	if n.Kind != yaml.MappingNode {
		d.errorf(d.extent(n), "%s must be a map of %s, not %s", what, strings.Join(fieldKeys(t.rows), ", "), describe(n))
		return false
	}
	return d.fields(t.rows, n, what, dst, d.key)
}

func (t groupType) canon(dst any) string { return "{" + canonFields(t.rows, dst) + "}" }
func (t groupType) schema() object       { return fieldsSchema(t.rows) }

func (t groupType) describe() string {
	return "map of " + strings.Join(fieldKeys(t.rows), ", ")
}

// optionType is a map that turns something on which is off, all zero, without
// it. It may have short forms.
type optionType struct {
	groupType
	short    string        // the key that a value in place of the map fills; "": none
	bare     bool          // the key may stand without a value: all defaults
	defaults func(obj any) // sets what keys left out have; nil: zeros
}

func (t optionType) decode(d *decoder, n *yaml.Node, what string, dst any) bool {
	n = deref(n)
	if t.defaults != nil {
		t.defaults(dst)
	}
	switch {
	case t.bare && nothing(n):
		return true
	case n.Kind == yaml.ScalarNode && n.Style == 0 && plain(n.Value).kind == boolVal:
		hint := fmt.Sprintf("write %s: %s", what, t.example())
		if n.Value == "false" {
			hint = "leave " + what + " out: it is off unless given"
		}
		d.add(d.extent(n), hint, fmt.Sprintf("%s must be a %s, not %s", what, t.groupType.describe(), n.Value))
		return false
	case n.Kind == yaml.MappingNode || t.short == "":
		return t.groupType.decode(d, n, what, dst)
	}
	f := findField(t.rows, t.short)
	mark(dst, f.key, d.extent(n))
	return f.typ.decode(d, n, what, f.dst(dst))
}

// example is a form that could stand, with what must be filled in left open.
func (t optionType) example() string {
	if t.bare {
		return "{}"
	}
	return "{" + t.rows[0].key + ": …}"
}

func (t optionType) schema() object {
	forms := []any{t.groupType.schema()}
	if t.short != "" {
		forms = append(forms, findField(t.rows, t.short).typ.schema())
	}
	if t.bare {
		forms = append(forms, object{"type": "null"})
	}
	if len(forms) == 1 {
		return t.groupType.schema()
	}
	return object{"anyOf": forms}
}

func (t optionType) describe() string {
	text := t.groupType.describe()
	if t.short != "" {
		text += "; or " + t.short + " alone"
	}
	if t.bare {
		text += "; or nothing"
	}
	return text
}

// nothing reports that no value is written at all.
func nothing(n *yaml.Node) bool { return isNull(n) && n.Value == "" }

// choiceType is a union whose variants all make a *T. dst: *T.
type choiceType[T any] struct {
	*union
	word  func(*T) string // which variant a value is
	place func(*T, span)  // tells the value where its word stands; may be nil
	ref   string          // the schema's definition, if several places share it
}

func (t choiceType[T]) decode(d *decoder, n *yaml.Node, what string, dst any) bool {
	_, obj, at := t.union.decode(d, n, what)
	if obj == nil {
		return false
	}
	*dst.(*T) = *obj.(*T)
	if t.place != nil {
		t.place(dst.(*T), at)
	}
	return true
}

func (t choiceType[T]) canon(dst any) string {
	return canonVariant(t.find(t.word(dst.(*T))), dst)
}

func (t choiceType[T]) schema() object {
	if t.ref != "" {
		return object{"$ref": "#/$defs/" + t.ref}
	}
	return t.union.schema()
}

func (t choiceType[T]) describe() string {
	switch t.ref {
	case "init":
		return "an [initializer](#initializers)"
	case "plain_init":
		return "an [initializer](#initializers), but not `pytorch`"
	}
	return "one of " + strings.Join(t.words(), ", ")
}

// layersType is a list of layers. dst: **yaml.Node, for the names and loop
// variables of the layers depend on what stands around them; expand reads it.
type layersType struct{}

func (layersType) decode(d *decoder, n *yaml.Node, what string, dst any) bool {
	n = deref(n)
	if n.Kind != yaml.SequenceNode {
		d.add(d.extent(n), "begin each layer with a dash", fmt.Sprintf("%s must be a list of layers, not %s", what, describe(n)))
		return false
	}
	if len(n.Content) == 0 {
		d.errorf(d.extent(n), "%s must have at least one layer", what)
		return false
	}
	*dst.(**yaml.Node) = n
	return true
}

func (layersType) canon(any) string { panic("BUG: layers are written by canonLayers") }
func (layersType) schema() object   { return object{"$ref": "#/$defs/layers"} }
func (layersType) describe() string { return "list of layers" }

// constantsType is the define section. dst: *scope.
type constantsType struct{}

var constantName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (constantsType) decode(d *decoder, n *yaml.Node, what string, dst any) bool {
	n = deref(n)
	if n.Kind != yaml.MappingNode {
		d.errorf(d.extent(n), "%s must be a map from names to values, not %s", what, describe(n))
		return false
	}
	ok := true
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if !constantName.MatchString(k.Value) || len(k.Value) > maxName {
			d.errorf(d.extent(k), "a constant's name must be letters, digits and _, not %q", k.Value)
			ok = false
			continue
		}
		v, good := d.scalar(n.Content[i+1], k.Value, "a number, true, false or text")
		if !good { // defined all the same, so that its uses are no mistakes
			ok = false
			v = value{kind: badVal}
		}
		v.expr, v.quoted = "", false
		dst.(*scope).define(k.Value, v)
	}
	return ok
}

func (constantsType) canon(any) string { panic("BUG: constants have no canonical form") }

func (constantsType) schema() object {
	return object{"type": "object", "propertyNames": object{"pattern": constantName.String()},
		"additionalProperties": object{"type": []string{"number", "string", "boolean"}}}
}

func (constantsType) describe() string { return "map from names to values" }
