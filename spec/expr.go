package spec

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf8"
)

// valueKind tells the scalar types of the language apart.
type valueKind int

const (
	intVal valueKind = iota
	floatVal
	boolVal
	strVal
	badVal // of a constant whose definition is wrong: its uses are not reported
)

// value is a scalar: a literal of the file or what an expression gives.
type value struct {
	kind   valueKind
	i      int64
	f      float64
	b      bool
	s      string
	quoted bool   // written in quotes, without an expression
	expr   string // the text it was computed from, or ""
}

// String shows the value as it would be written.
func (v value) String() string {
	switch v.kind {
	case intVal:
		return strconv.FormatInt(v.i, 10)
	case floatVal:
		s := formatFloat(v.f)
		if !strings.ContainsAny(s, ".e") {
			s += ".0"
		}
		return s
	case boolVal:
		return strconv.FormatBool(v.b)
	default:
		if utf8.RuneCountInString(v.s) > 40 {
			return strconv.Quote(string([]rune(v.s)[:40]) + "…")
		}
		return strconv.Quote(v.s)
	}
}

func (v value) number() float64 {
	if v.kind == intVal {
		return float64(v.i)
	}
	return v.f
}

// formatFloat writes the shortest text that reads back as the same number.
func formatFloat(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

// scope holds what names stand for: constants of define at the bottom, loop
// variables of repeat above.
type scope struct {
	parent *scope
	names  []string
	values map[string]value
	loop   bool
}

func (s *scope) lookup(name string) (value, bool) {
	for ; s != nil; s = s.parent {
		if v, ok := s.values[name]; ok {
			return v, true
		}
	}
	return value{}, false
}

// known gives names to suggest from: all that a sensible file has.
func (s *scope) known() []string {
	const enough = 200
	var names []string
	for ; s != nil && len(names) < enough; s = s.parent {
		names = append(names, s.names[:min(len(s.names), enough)]...)
	}
	return names
}

func (s *scope) define(name string, v value) {
	if s.values == nil {
		s.values = map[string]value{}
	}
	s.names = append(s.names, name)
	s.values[name] = v
}

// exprError is a mistake at an offset, in bytes, of the expression's text. An
// empty msg is one that has been reported elsewhere.
type exprError struct {
	off, len  int
	msg, hint string
}

// maxExprDepth bounds parentheses and signs.
const maxExprDepth = 50

// evaluator is a recursive-descent parser that computes as it goes:
//
//	sum     = product {("+" | "-") product}
//	product = factor {("*" | "/") factor}
//	factor  = ["-" | "+"] factor | number | name | "(" sum ")"
//
// Two integers give an integer; a quotient of integers must be exact. As soon
// as a float takes part the result is a float.
type evaluator struct {
	text  string
	pos   int
	depth int
	env   *scope
}

// evaluate computes the text between "${" and "}".
func evaluate(text string, env *scope) (v value, err *exprError) {
	defer func() {
		if p := recover(); p != nil {
			e, ok := p.(*exprError)
			if !ok {
				panic(p)
			}
			err = e
		}
	}()
	e := &evaluator{text: text, env: env}
	v = e.sum()
	e.space()
	if e.pos < len(text) {
		e.fail(e.pos, 1, "", "unexpected %q", firstRune(text[e.pos:]))
	}
	return v, nil
}

func (e *evaluator) fail(off, n int, hint, format string, args ...any) {
	panic(&exprError{off: off, len: n, hint: hint, msg: fmt.Sprintf(format, args...)})
}

func (e *evaluator) space() {
	for e.pos < len(e.text) && (e.text[e.pos] == ' ' || e.text[e.pos] == '\t') {
		e.pos++
	}
}

// take consumes one of the given operators, if it comes next.
func (e *evaluator) take(ops string) (op byte, at int) {
	e.space()
	if e.pos < len(e.text) && strings.IndexByte(ops, e.text[e.pos]) >= 0 {
		e.pos++
		return e.text[e.pos-1], e.pos - 1
	}
	return 0, 0
}

func (e *evaluator) sum() value {
	v := e.product()
	for {
		op, at := e.take("+-")
		if op == 0 {
			return v
		}
		v = e.apply(op, at, v, e.product())
	}
}

func (e *evaluator) product() value {
	v := e.factor()
	for {
		op, at := e.take("*/")
		if op == 0 {
			return v
		}
		v = e.apply(op, at, v, e.factor())
	}
}

func (e *evaluator) factor() value {
	if e.depth++; e.depth > maxExprDepth {
		e.fail(e.pos, 1, "", "the expression is nested more than %d deep", maxExprDepth)
	}
	defer func() { e.depth-- }()
	if op, at := e.take("+-"); op != 0 {
		v := e.factor()
		if op == '+' {
			return e.numeric(at, v)
		}
		return e.apply('-', at, value{kind: intVal}, v)
	}
	if op, at := e.take("("); op != 0 {
		v := e.sum()
		if op, _ := e.take(")"); op == 0 {
			e.fail(at, 1, "", "this ( is never closed")
		}
		return v
	}
	return e.atom()
}

func (e *evaluator) atom() value {
	e.space()
	start := e.pos
	for e.pos < len(e.text) && (isWordByte(e.text[e.pos]) || e.text[e.pos] == '.' || e.exponentSign(start)) {
		e.pos++
	}
	word := e.text[start:e.pos]
	switch {
	case word == "" && e.pos == len(e.text):
		e.fail(e.pos, 1, "", "a number or a name is missing here")
	case word == "":
		e.fail(e.pos, 1, "expressions have + - * / ( ), numbers and names", "unexpected %q", firstRune(e.text[e.pos:]))
	case word[0] >= '0' && word[0] <= '9' || word[0] == '.':
		v := plain(word)
		if v.kind == strVal {
			e.fail(start, len(word), numberHint(word), "%s is not a number", word)
		}
		return v
	}
	v, ok := e.env.lookup(word)
	if !ok {
		hint := didYouMean(word, e.env.known())
		if hint == "" {
			hint = "constants are given under define, before their use"
		}
		e.fail(start, len(word), hint, "%s is not defined", word)
	}
	return v
}

// exponentSign reports whether the next byte is the sign in 1e-4.
func (e *evaluator) exponentSign(start int) bool {
	c, word := e.text[e.pos], e.text[start:e.pos]
	return (c == '-' || c == '+') && len(word) > 1 && word[0] <= '9' && (word[len(word)-1]|0x20) == 'e'
}

func (e *evaluator) numeric(at int, v value) value {
	if v.kind == badVal {
		panic(&exprError{}) // its definition is what was reported
	}
	if v.kind != intVal && v.kind != floatVal {
		e.fail(at, 1, "", "arithmetic on %s, which is no number", v)
	}
	return v
}

func (e *evaluator) apply(op byte, at int, a, b value) value {
	e.numeric(at, a)
	e.numeric(at, b)
	if a.kind == intVal && b.kind == intVal {
		return value{kind: intVal, i: e.applyInt(op, at, a.i, b.i)}
	}
	x, y := a.number(), b.number()
	var z float64
	switch op {
	case '+':
		z = x + y
	case '-':
		z = x - y
	case '*':
		z = x * y
	case '/':
		if y == 0 {
			e.fail(at, 1, "", "division by zero")
		}
		z = x / y
	}
	if math.IsInf(z, 0) || math.IsNaN(z) {
		e.fail(at, 1, "", "%s %c %s is too large", a, op, b)
	}
	return value{kind: floatVal, f: z}
}

func (e *evaluator) applyInt(op byte, at int, a, b int64) int64 {
	overflow := false
	var z int64
	switch op {
	case '+':
		z = a + b
		overflow = (a >= 0) == (b >= 0) && (z >= 0) != (a >= 0)
	case '-':
		z = a - b
		overflow = (a >= 0) != (b >= 0) && (z >= 0) != (a >= 0)
	case '*':
		hi, lo := bits.Mul64(magnitude(a), magnitude(b))
		z = a * b
		overflow = hi != 0 || lo > math.MaxInt64
	case '/':
		if b == 0 {
			e.fail(at, 1, "", "division by zero")
		}
		if a%b != 0 {
			e.fail(at, 1, fmt.Sprintf("write %d.0 / %d where a float is meant", a, b), "%d / %d is not a whole number", a, b)
		}
		z = a / b
		overflow = a == math.MinInt64 && b == -1
	}
	if overflow {
		e.fail(at, 1, "", "%d %c %d is too large for a 64-bit integer", a, op, b)
	}
	return z
}

func magnitude(a int64) uint64 {
	if a < 0 {
		return -uint64(a)
	}
	return uint64(a)
}

func isWordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func firstRune(s string) string {
	r, _ := utf8.DecodeRuneInString(s)
	return string(r)
}
