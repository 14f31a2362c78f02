package spec

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// exprSchema is a string with a ${…} in it: it may stand for any scalar.
func exprSchema() object { return object{"$ref": "#/$defs/expression"} }

func orExpr(s object) object { return object{"anyOf": []any{s, exprSchema()}} }

// intType is an integer in [min, max]. dst: *int or *uint64.
type intType struct{ min, max int64 }

func (t intType) decode(d *decoder, n *yaml.Node, what string, dst any) bool {
	v, ok := d.scalar(n, what, "an integer")
	if !ok {
		return false
	}
	if v.kind != intVal {
		d.mismatch(n, v, what, "an integer", intVal)
		return false
	}
	if v.i < t.min || v.i > t.max {
		d.errorf(d.extent(deref(n)), "%s must be %s, not %d%s", what, t.rangeText(), v.i, d.from(v))
		return false
	}
	switch p := dst.(type) {
	case *int:
		*p = int(v.i)
	case *uint64:
		*p = uint64(v.i)
	default:
		panic(fmt.Sprintf("BUG: %s: an integer cannot go to %T", what, dst))
	}
	return true
}

func (t intType) rangeText() string {
	switch {
	case t.min == t.max:
		return fmt.Sprint(t.min)
	case t.max == math.MaxInt64:
		return fmt.Sprintf("at least %d", t.min)
	case t.min == -t.max:
		return fmt.Sprintf("between %d and %d", t.min, t.max)
	}
	return fmt.Sprintf("from %d to %d", t.min, t.max)
}

func (t intType) canon(dst any) string {
	if p, ok := dst.(*uint64); ok {
		return fmt.Sprint(*p)
	}
	return fmt.Sprint(*dst.(*int))
}

func (t intType) schema() object {
	return orExpr(object{"type": "integer", "minimum": t.min, "maximum": t.max})
}

func (t intType) describe() string { return "integer, " + t.rangeText() }

// floatType is a finite number between lo and hi, each included or not. dst:
// *float64.
type floatType struct {
	lo, hi     float64
	noLo, noHi bool   // the bound itself is refused
	text       string // the range in words
}

// Usual ranges of numbers.
var (
	anyNumber   = floatType{lo: -math.MaxFloat32, hi: math.MaxFloat32, text: "a number"}
	notNegative = floatType{lo: 0, hi: math.MaxFloat32, text: "0 or more"}
	positive    = floatType{lo: 0, noLo: true, hi: math.MaxFloat32, text: "above 0"}
	fraction    = floatType{lo: 0, hi: 1, noHi: true, text: "at least 0 and below 1"}
)

// minNormal is the least positive normal float32: smaller numbers would vanish
// in the kernels.
const minNormal = 0x1p-126

func (t floatType) decode(d *decoder, n *yaml.Node, what string, dst any) bool {
	v, ok := d.scalar(n, what, "a number")
	if !ok {
		return false
	}
	if v.kind != intVal && v.kind != floatVal {
		d.mismatch(n, v, what, "a number", floatVal)
		return false
	}
	x := v.number()
	at := d.extent(deref(n))
	if x < t.lo || x > t.hi || t.noLo && x == t.lo || t.noHi && x == t.hi {
		msg := t.text
		if math.Abs(x) > math.MaxFloat32 {
			msg = "within the range of a 32-bit float"
		}
		d.errorf(at, "%s must be %s, not %s%s", what, msg, v, d.from(v))
		return false
	}
	if x != 0 && math.Abs(x) < minNormal {
		d.errorf(at, "%s is too close to 0 for a 32-bit float: %s%s", what, v, d.from(v))
		return false
	}
	*dst.(*float64) = x
	return true
}

func (t floatType) canon(dst any) string { return formatFloat(*dst.(*float64)) }

func (t floatType) schema() object {
	s := object{"type": "number"}
	set := func(name string, bound float64, exclusive bool) {
		if math.Abs(bound) == math.MaxFloat32 {
			return
		}
		if exclusive {
			name = "exclusive" + strings.ToUpper(name[:1]) + name[1:]
		}
		s[name] = bound
	}
	set("minimum", t.lo, t.noLo)
	set("maximum", t.hi, t.noHi)
	return orExpr(s)
}

func (t floatType) describe() string {
	if t.text == "a number" {
		return "number"
	}
	return "number, " + t.text
}

// boolType is true or false. dst: *bool, or []*bool to set several at once.
type boolType struct{}

func (boolType) decode(d *decoder, n *yaml.Node, what string, dst any) bool {
	v, ok := d.scalar(n, what, "true or false")
	if ok && v.kind != boolVal {
		d.mismatch(n, v, what, "true or false", boolVal)
		return false
	}
	if !ok {
		return false
	}
	if p, several := dst.([]*bool); several {
		for _, b := range p {
			*b = v.b
		}
	} else {
		*dst.(*bool) = v.b
	}
	return true
}

func (boolType) canon(dst any) string { return fmt.Sprint(*dst.(*bool)) }
func (boolType) schema() object       { return orExpr(object{"type": "boolean"}) }
func (boolType) describe() string     { return "true or false" }

// enumType is one of some words. dst: *string.
type enumType []string

func (t enumType) list() string {
	if len(t) < 2 {
		return strings.Join(t, "")
	}
	return strings.Join(t[:len(t)-1], ", ") + " or " + t[len(t)-1]
}

func (t enumType) decode(d *decoder, n *yaml.Node, what string, dst any) bool {
	v, ok := d.scalar(n, what, t.list())
	if !ok {
		return false
	}
	if v.kind != strVal || !slices.Contains(t, v.s) {
		hint := ""
		if v.kind == strVal {
			hint = didYouMean(v.s, t)
		}
		d.add(d.extent(deref(n)), hint, fmt.Sprintf("%s must be %s, not %s%s", what, t.list(), v, d.from(v)))
		return false
	}
	*dst.(*string) = v.s
	return true
}

func (t enumType) canon(dst any) string { return *dst.(*string) }
func (t enumType) schema() object       { return orExpr(object{"enum": []string(t)}) }
func (t enumType) describe() string     { return t.list() }

// textType is text of a given pattern. dst: *string.
type textType struct {
	pattern *regexp.Regexp
	want    string // in messages
	doc     string
	extra   func(text string) string // "" or why this text will not do
}

func (t textType) decode(d *decoder, n *yaml.Node, what string, dst any) bool {
	v, ok := d.scalar(n, what, t.want)
	if !ok {
		return false
	}
	if v.kind != strVal {
		d.mismatch(n, v, what, t.want, strVal)
		return false
	}
	at := d.extent(deref(n))
	if !t.pattern.MatchString(v.s) || len(v.s) > maxName {
		d.errorf(at, "%s must be %s, not %s%s", what, t.want, v, d.from(v))
		return false
	}
	if t.extra != nil {
		if why := t.extra(v.s); why != "" {
			d.errorf(at, "%s cannot be %q: %s", what, v.s, why)
			return false
		}
	}
	*dst.(*string) = v.s
	return true
}

func (t textType) canon(dst any) string { return `"` + *dst.(*string) + `"` }

func (t textType) schema() object {
	return orExpr(object{"type": "string", "pattern": t.pattern.String(), "maxLength": maxName})
}

func (t textType) describe() string { return t.doc }
