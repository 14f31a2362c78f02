package ir

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Parse reads the text form that Graph.String prints; white space between the
// words is free. Result types are inferred afresh, and a text that states
// others is refused. An error begins with line:column, 1-based, in characters.
//
// Parse checks what it needs to build the graph (operands are defined before
// use, IDs are unique, types are right); the rest is Verify's.
func Parse(text string) (*Graph, error) {
	p := &parser{text: text, values: make(map[int]*Value)}
	g := p.graph()
	if p.err != nil {
		return nil, p.err
	}
	return g, nil
}

// parser reads by recursive descent, straight from the text. After the first
// error every method returns at once with a zero result, and the loops stop.
type parser struct {
	text   string
	pos    int // byte offset of what is read next
	g      *Graph
	values map[int]*Value // by ID
	err    error
}

// failAt records the first error, with the line and column of a byte offset.
func (p *parser) failAt(pos int, format string, args ...any) {
	if p.err != nil {
		return
	}
	before := p.text[:pos]
	line := strings.Count(before, "\n") + 1
	col := utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
	p.err = fmt.Errorf("%d:%d: %s", line, col, fmt.Sprintf(format, args...))
}

// peek skips white space and returns the next byte, 0 at the end or after an
// error.
func (p *parser) peek() byte {
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.pos]) >= 0 {
		p.pos++
	}
	if p.err != nil || p.pos == len(p.text) {
		return 0
	}
	return p.text[p.pos]
}

// accept reads the byte c if it is next.
func (p *parser) accept(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.pos++
	return true
}

func (p *parser) expect(c byte) {
	if !p.accept(c) {
		p.failAt(p.pos, "want %q, found %s", c, p.found())
	}
}

// found describes what is next, for an error.
func (p *parser) found() string {
	if p.pos == len(p.text) {
		return "the end of the text"
	}
	if w := p.wordAt(p.pos); w != "" {
		return strconv.Quote(w[:min(len(w), 40)])
	}
	r, _ := utf8.DecodeRuneInString(p.text[p.pos:])
	return strconv.QuoteRune(r)
}

// wordAt is the run of letters, digits and ._+- at a byte offset: a name, a
// keyword or a number.
func (p *parser) wordAt(pos int) string {
	rest := p.text[pos:]
	end := strings.IndexFunc(rest, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._+-", r))
	})
	if end < 0 {
		return rest
	}
	return rest[:end]
}

// word reads a word; what says what it stands for.
func (p *parser) word(what string) string {
	p.peek()
	w := p.wordAt(p.pos)
	if p.err != nil || w == "" {
		p.failAt(p.pos, "want %s, found %s", what, p.found())
		return ""
	}
	p.pos += len(w)
	return w
}

func (p *parser) keyword(want string) {
	p.peek()
	at := p.pos
	if w := p.word(strconv.Quote(want)); w != want {
		p.failAt(at, "want %q, found %q", want, w)
	}
}

// oneOf reads a word that is in the list, and returns its index.
func (p *parser) oneOf(what string, list []string) int {
	p.peek()
	at := p.pos
	w := p.word(what)
	i := slices.Index(list, w)
	if i < 0 {
		p.failAt(at, "unknown %s %q", what, w)
		return 0
	}
	return i
}

// integer reads one: an optional minus and digits, nothing else, so that
// 128+64 is two integers with a plus between them.
func (p *parser) integer() int64 {
	p.peek()
	end := p.pos
	for end < len(p.text) && (p.text[end] >= '0' && p.text[end] <= '9' || end == p.pos && p.text[end] == '-') {
		end++
	}
	x, err := strconv.ParseInt(p.text[p.pos:end], 10, 64)
	if p.err != nil || err != nil {
		p.failAt(p.pos, "want an integer, found %s", p.found())
		return 0
	}
	p.pos = end
	return x
}

// quoted reads a Go string literal in double quotes.
func (p *parser) quoted(what string) string {
	if p.peek() != '"' {
		p.failAt(p.pos, "want %s in quotes, found %s", what, p.found())
		return ""
	}
	lit, err := strconv.QuotedPrefix(p.text[p.pos:])
	if err != nil {
		p.failAt(p.pos, "bad string")
		return ""
	}
	p.pos += len(lit)
	s, err := strconv.Unquote(lit)
	if err != nil {
		panic("BUG: " + err.Error()) // QuotedPrefix has accepted it
	}
	return s
}

// name reads what quoteName wrote.
func (p *parser) name(what string) string {
	if p.peek() == '"' {
		return p.quoted(what)
	}
	return p.word(what)
}

// list reads items separated by commas until close, which it reads too.
func (p *parser) list(close byte, item func()) {
	if p.accept(close) {
		return
	}
	for p.err == nil {
		item()
		if !p.accept(',') {
			break
		}
	}
	p.expect(close)
}

func (p *parser) ints(close byte) []int {
	xs := []int{}
	p.list(close, func() { xs = append(xs, int(p.integer())) })
	return xs
}

// graph := "graph" name file stage ["arena=" int] "{" body return "}"
func (p *parser) graph() *Graph {
	p.keyword("graph")
	p.g = NewGraph(p.name("the graph's name"), "")
	p.g.File = p.quoted("the spec's file name")
	p.g.Stage = Stage(p.oneOf("stage", stageNames[:]))
	if p.g.Stage == StagePlanned {
		p.g.Places = make(map[*Value]Place)
		p.keyword("arena")
		p.expect('=')
		p.g.Arena = p.integer()
	}
	p.expect('{')
	for p.peek() == '%' || p.peek() == 'g' || p.peek() == 'w' {
		if p.peek() != '%' {
			p.group()
			continue
		}
		if p.g.Groups != nil {
			p.failAt(p.pos, "node outside of a group")
		}
		p.node()
	}
	p.outputs()
	p.expect('}')
	if p.peek(); p.pos < len(p.text) {
		p.failAt(p.pos, "want the end of the text, found %s", p.found())
	}
	return p.g
}

// group := ("group" | "with") family "{" {["*"] node} "}"
func (p *parser) group() {
	if p.g.Groups == nil && len(p.g.Nodes) > 0 {
		p.failAt(p.pos, "group after nodes that are in none")
	}
	joined := p.peek() == 'w'
	if joined {
		p.keyword("with")
	} else {
		p.keyword("group")
	}
	gr := &Group{Family: Family(p.oneOf("family", familyNames[:])), Joined: joined}
	p.g.Groups = append(p.g.Groups, gr)
	p.expect('{')
	for p.peek() == '%' || p.peek() == '*' {
		at := p.pos
		anchor := p.accept('*')
		n := p.node()
		if anchor && gr.Anchor != nil {
			p.failAt(at, "a second anchor in one group")
		}
		if anchor {
			gr.Anchor = n
		}
		gr.Nodes = append(gr.Nodes, n)
	}
	p.expect('}')
}

// outputs := "return" [name "=" value {"," name "=" value}]
func (p *parser) outputs() {
	p.keyword("return")
	if p.peek() == '}' {
		return
	}
	for p.err == nil {
		name := p.name("an output's name")
		p.expect('=')
		p.g.Return(name, p.use())
		if !p.accept(',') {
			return
		}
	}
}

// use reads %ID of a value that is defined.
func (p *parser) use() *Value {
	p.peek()
	at := p.pos
	p.expect('%')
	id := p.integer()
	v := p.values[int(id)]
	if v == nil || v.Type.DType == Invalid { // its own node's result has no type yet
		p.failAt(at, "%%%d is not defined here", id)
	}
	return v
}

// define reads %ID of a new value. It has no type yet.
func (p *parser) define(n *Node) {
	p.peek()
	at := p.pos
	p.expect('%')
	id := p.integer()
	switch {
	case id < 0 || id > MaxElems:
		p.failAt(at, "%%%d is out of range", id)
	case p.values[int(id)] != nil:
		p.failAt(at, "%%%d is defined twice", id)
	}
	v := &Value{ID: int(id), Def: n, Out: len(n.Outs)}
	n.Outs = append(n.Outs, v)
	p.values[v.ID] = v
	p.g.nextID = max(p.g.nextID, v.ID+1)
}

// node := ids "=" op [operands] ["{" attrs "}"] ":" results ["@" line ":" col] [layer]
func (p *parser) node() *Node {
	at := p.pos
	n := &Node{}
	for p.err == nil {
		p.define(n)
		if !p.accept(',') {
			break
		}
	}
	p.expect('=')
	n.Op = p.op()
	for p.peek() == '%' {
		n.Args = append(n.Args, p.use())
		if !p.accept(',') {
			break
		}
	}
	if p.accept('{') {
		n.Attrs = p.attrs()
	}
	p.results(n, at)
	if p.accept('@') {
		n.Pos.Line = int(p.integer())
		p.expect(':')
		n.Pos.Col = int(p.integer())
	}
	if p.peek() == '"' {
		n.Layer = p.quoted("the layer")
	}
	p.g.Nodes = append(p.g.Nodes, n)
	return n
}

func (p *parser) op() Op {
	p.peek()
	at := p.pos
	name := p.word("an op")
	op, ok := OpByName(name)
	if !ok {
		p.failAt(at, "unknown op %q", name)
	}
	return op
}

func (p *parser) attrs() Attrs {
	var kv []any
	seen := make(map[string]bool)
	p.list('}', func() {
		p.peek()
		at := p.pos
		key := p.word("an attribute")
		if seen[key] {
			p.failAt(at, "attribute %s is given twice", key)
		}
		seen[key] = true
		p.expect('=')
		kv = append(kv, key, p.attrValue())
	})
	if p.err != nil {
		return nil
	}
	return A(kv...)
}

// attrValue reads what attrText wrote; the kind can be told from the text.
func (p *parser) attrValue() any {
	switch p.peek() {
	case '"':
		return p.quoted("a string")
	case '(':
		p.pos++
		return p.ints(')')
	}
	at := p.pos
	if w := p.wordAt(at); strings.HasPrefix(p.text[at+len(w):], "[") {
		return p.typ()
	}
	w := p.word("a value")
	if w == "true" || w == "false" {
		return w == "true"
	}
	if i, err := strconv.Atoi(w); err == nil {
		return i
	}
	f, err := strconv.ParseFloat(w, 64)
	if err != nil || !strings.ContainsAny(w, ".eIN") {
		p.failAt(at, "want a value, found %q", w)
	}
	return f
}

// typ reads a type: f32[512,64], or f32[128|37,512].
func (p *parser) typ() Type {
	t := Type{DType: DType(p.oneOf("element type", dtypeNames[:]))}
	p.expect('[')
	p.list(']', func() {
		t.Shape = append(t.Shape, int(p.integer()))
		if len(t.Shape) == 1 && p.accept('|') {
			t.Batched = true
			if p.peek() != ']' {
				t.Shape = append(t.Shape, int(p.integer()))
			}
		}
	})
	return t
}

// results := ":" type ["as" dtype] ["!" offset "+" size] {"," …}, against the inferred ones.
func (p *parser) results(n *Node, at int) {
	p.expect(':')
	var types []Type
	if p.err == nil {
		var err error
		if types, err = InferTypes(n); err != nil {
			p.failAt(at, "%s: %v", n.Op, err)
		} else if len(types) != len(n.Outs) {
			p.failAt(at, "%s has %d results, not %d", n.Op, len(types), len(n.Outs))
		}
	}
	for i, o := range n.Outs {
		if i > 0 {
			p.expect(',')
		}
		p.peek()
		at := p.pos
		o.Type = p.typ()
		if p.err == nil && !o.Type.Equal(types[i]) {
			p.failAt(at, "%v is %v, not %v", o, types[i], o.Type)
		}
		if p.peek() == 'a' {
			p.keyword("as")
			o.Narrow = DType(p.oneOf("element type", dtypeNames[:]))
		}
		if p.peek() == '!' {
			p.place(o)
		}
	}
}

func (p *parser) place(o *Value) {
	if p.g.Places == nil {
		p.failAt(p.pos, "place in a graph that is not planned")
		return
	}
	p.expect('!')
	offset := p.integer()
	p.expect('+')
	p.g.Places[o] = Place{Offset: offset, Size: p.integer()}
}
