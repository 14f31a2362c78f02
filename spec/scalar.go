package spec

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

var (
	intText   = regexp.MustCompile(`^[+-]?(0|[1-9][0-9]*)$`)
	floatText = regexp.MustCompile(`^[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][+-]?[0-9]+)?$`)
	octalText = regexp.MustCompile(`^[+-]?0[0-9_]+$`)
)

// plain gives an unquoted scalar its type. It follows YAML 1.2's core schema
// without its octal and hexadecimal integers, infinities and NaN: those stay
// text, and numberHint explains them where a number belongs.
func plain(text string) value {
	switch {
	case text == "true" || text == "false":
		return value{kind: boolVal, b: text == "true"}
	case intText.MatchString(text):
		if i, err := strconv.ParseInt(text, 10, 64); err == nil {
			return value{kind: intVal, i: i}
		}
	case octalText.MatchString(text): // 010 is 8 to YAML 1.1 and 10 to YAML 1.2
	case floatText.MatchString(text):
		if f, err := strconv.ParseFloat(text, 64); err == nil && !math.IsInf(f, 0) {
			return value{kind: floatVal, f: f}
		}
	}
	return value{kind: strVal, s: text}
}

// numberHint says why a text that may have been meant as a number is none.
func numberHint(text string) string {
	lower := strings.ToLower(strings.TrimLeft(text, "+-"))
	switch {
	case octalText.MatchString(text):
		return "a leading 0 means octal to some readers; write " + decimal(lower) + " without it"
	case strings.HasPrefix(lower, "0x"), strings.HasPrefix(lower, "0o"), strings.HasPrefix(lower, "0b"):
		return "write the number in decimal"
	case lower == ".inf" || lower == ".nan" || lower == "inf" || lower == "nan":
		return "numbers must be finite"
	case strings.Contains(text, "_") && plain(strings.ReplaceAll(text, "_", "")).kind != strVal:
		return "write " + strings.ReplaceAll(text, "_", "") + ", without _"
	case intText.MatchString(text):
		return "the number does not fit 64 bits"
	case floatText.MatchString(text):
		return "the number is too large"
	}
	return ""
}

func decimal(text string) string {
	if t := strings.TrimLeft(strings.ReplaceAll(text, "_", ""), "0"); t != "" {
		return t
	}
	return "0"
}

// decoder reads the checked YAML tree.
type decoder struct {
	*reporter
	env    *scope
	init   initDefaults
	key    span // of the map's key whose value is being read
	layers int  // decoded so far, copies counted
	full   bool // maxLayers was reached and reported
}

// deref gives what an alias stands for.
func deref(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// describe names a node's form in messages.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	}
	if isNull(n) {
		return "nothing"
	}
	return "a single value"
}

// scalar reads a scalar and computes the expressions in it. want names what
// belongs there, for messages.
func (d *decoder) scalar(n *yaml.Node, what, want string) (value, bool) {
	n = deref(n)
	if n.Kind != yaml.ScalarNode || isNull(n) {
		d.errorf(d.extent(n), "%s must be %s, not %s", what, want, describe(n))
		return value{}, false
	}
	if strings.Contains(n.Value, "${") {
		return d.interpolate(n)
	}
	if n.Style != 0 {
		return value{kind: strVal, s: n.Value, quoted: true}, true
	}
	return plain(n.Value), true
}

// interpolate computes the ${…} of a scalar. One that is nothing but a single
// ${…} keeps the type of its value; otherwise the pieces are joined as text.
func (d *decoder) interpolate(n *yaml.Node) (value, bool) {
	text := n.Value
	var joined strings.Builder
	for rest := 0; ; {
		open := strings.Index(text[rest:], "${")
		if open < 0 {
			joined.WriteString(text[rest:])
			return value{kind: strVal, s: joined.String(), expr: text}, true
		}
		open += rest
		length := strings.IndexByte(text[open:], '}')
		if length < 0 {
			d.errorf(d.within(n, open, 2), "this ${ is never closed")
			return value{}, false
		}
		end := open + length
		v, err := evaluate(text[open+2:end], d.env)
		if err != nil && err.msg == "" || err == nil && v.kind == badVal {
			return value{}, false
		}
		if err != nil {
			d.add(d.within(n, open+2+err.off, err.len), err.hint, err.msg)
			return value{}, false
		}
		if open == 0 && end == len(text)-1 {
			v.expr = text
			v.quoted = false
			return v, true
		}
		joined.WriteString(text[rest:open])
		if v.kind == strVal {
			joined.WriteString(v.s)
		} else {
			joined.WriteString(v.String())
		}
		rest = end + 1
	}
}

// within is the span of n bytes of a scalar from byte off on, or the whole
// scalar where escapes or line breaks make that unclear.
func (d *decoder) within(n *yaml.Node, off, length int) span {
	whole := d.extent(n)
	text := []rune(d.line(n.Line))
	start := n.Column - 1
	if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		start++
	}
	if start < 0 || start > len(text) || !strings.HasPrefix(string(text[start:]), n.Value) {
		return whole
	}
	off = min(off, len(n.Value))
	end := min(off+length, len(n.Value))
	col := start + 1 + utf8.RuneCountInString(n.Value[:off])
	return span{Pos{n.Line, col}, max(1, utf8.RuneCountInString(n.Value[off:end]))}
}

// from explains a computed value: where it came from and the loop variables.
func (d *decoder) from(v value) string {
	if v.expr == "" {
		return ""
	}
	s := " (" + v.expr
	sep := " with "
	for e := d.env; e != nil; e = e.parent {
		if e.loop {
			s += fmt.Sprintf("%s%s = %s", sep, e.names[0], e.values[e.names[0]])
			sep = ", "
		}
	}
	return s + ")"
}

// mismatch reports a scalar of the wrong type.
func (d *decoder) mismatch(n *yaml.Node, v value, what, want string, wantKind valueKind) {
	hint := ""
	numeric := wantKind == intVal || wantKind == floatVal
	switch {
	case v.kind == strVal && v.quoted && numeric && plain(v.s).kind <= floatVal:
		hint = "leave the quotes out: in quotes it is text"
	case v.kind == strVal && v.expr == "" && numeric:
		hint = numberHint(v.s)
		if hint == "" && !v.quoted {
			if _, known := d.env.lookup(v.s); known {
				hint = fmt.Sprintf(`write "${%s}" for the constant`, v.s)
			}
		}
	case v.kind == floatVal && wantKind == intVal && v.f == math.Trunc(v.f) && math.Abs(v.f) < 1<<53:
		hint = fmt.Sprintf("write %d", int64(v.f))
		if v.expr != "" {
			hint = "an expression with a float in it gives a float"
		}
	case v.kind == strVal && wantKind == boolVal:
		switch strings.ToLower(v.s) {
		case "yes", "on", "y", "true":
			hint = "write true"
		case "no", "off", "n", "false":
			hint = "write false"
		}
	case v.kind != strVal && wantKind == strVal:
		hint = fmt.Sprintf("write \"%s\" in quotes if the text is meant", v)
	}
	d.add(d.extent(deref(n)), hint, fmt.Sprintf("%s must be %s, not %s%s", what, want, v, d.from(v)))
}
