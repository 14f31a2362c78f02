package plan

import (
	"fmt"
	"strings"

	"github.com/vitgen/vitgen/ir"
)

// FunctorKind says how a kernel calls a functor.
type FunctorKind uint8

const (
	Source FunctorKind = iota // yields the element at an index
	Sink                      // receives the element at an index
	BodyFn                    // does all the work at an index
)

// Functor is the pointwise work around (or instead of) an anchor, as straight-
// line code over one element; the printer makes it work on a vector of them.
type Functor struct {
	Name   string // "epilogue"; unique within its kernel
	Kind   FunctorKind
	Space  Space
	Code   []Stmt
	Result Term // of a Source
}

// Stmt computes a temporary, or stores a term.
type Stmt struct {
	Temp  int   // number of the temporary; -1 for a store
	Op    ir.Op // what it computes
	Attrs ir.Attrs
	Args  []Term
	Store *Access // for a store: where; Args[0] is stored

	Site, Thr int // dropout, drop_path: arguments that hold site and threshold
	Rows      int // dropout: rows per sample the index counts
	FirstRow  int
}

// Term is an operand: a temporary, the anchor's result, an element in memory,
// a number the host sets, or a constant.
type Term struct {
	Kind   TermKind
	Temp   int
	Access *Access
	Scalar string
	Value  float64
}

// TermKind tells the kinds of Term apart.
type TermKind uint8

const (
	Temp TermKind = iota
	Acc
	Load
	StepScalar
	Literal
)

// Access says which element of an argument belongs to the functor's index
// (row = sample·T + token, col).
type Access struct {
	Arg  int
	Kind AccessKind
	LD   int64 // elements between rows

	Rows  int // AtRowModulo: rows of the operand. Shifted: tokens per sample of the operand
	Shift int // Shifted: operand token = token + Shift; zero outside 0 … Rows-1
}

// AccessKind tells the kinds of Access apart.
type AccessKind uint8

const (
	AtElement   AccessKind = iota // [row·LD + col]
	AtColumn                      // [col]
	AtToken                       // [token·LD + col]
	AtRowModulo                   // [(row mod Rows)·LD + col]
	AtSample                      // [sample·LD + col]
	Shifted                       // [(sample·Rows + token+Shift)·LD + col], 0 outside
	AtScalar                      // [0]
)

// functorBuilder turns nodes of a group into one functor.
type functorBuilder struct {
	b     *launchBuilder
	f     *Functor
	temps map[*ir.Value]Term
	next  int // number of the next temporary
}

func (b *launchBuilder) newFunctor(name string, kind FunctorKind, space Space) *functorBuilder {
	f := &Functor{Name: name, Kind: kind, Space: space}
	b.functors = append(b.functors, f)
	return &functorBuilder{b: b, f: f, temps: map[*ir.Value]Term{}}
}

// add emits a node, and a store of its result if somebody outside reads it.
func (fb *functorBuilder) add(n *ir.Node) {
	st := Stmt{Temp: fb.next, Op: n.Op, Attrs: n.Attrs, Site: -1, Thr: -1}
	switch n.Op {
	case ir.OpDropout:
		st.Rows, st.FirstRow = n.Int("rows"), n.Int("first_row")
		fallthrough
	case ir.OpDropPath:
		st.Site = fb.b.imm(n.Op.String()+"_site", int64(n.Int("site")))
		st.Thr = fb.b.imm(n.Op.String()+"_thr", int64(Threshold(n.Float("p"))))
		st.Attrs = nil // what differs between layers is an argument
		st.Args = []Term{fb.term(n.Args[0])}
	case ir.OpPadTokens:
		st.Op, st.Attrs = opMove, nil
		st.Args = []Term{fb.shifted(n.Args[0], -n.Int("before"))}
	case ir.OpSliceTokens:
		st.Op, st.Attrs = opMove, nil
		st.Args = []Term{fb.shifted(n.Args[0], n.Int("from"))}
	case ir.OpPrependToken:
		st.Attrs = nil
		tok := fb.term(n.Args[1])
		st.Args = []Term{fb.shifted(n.Args[0], -1), tok}
	case ir.OpRepeatTokens:
		st.Op, st.Attrs = opMove, nil
		s := fb.b.slots[n.Args[0]]
		st.Args = []Term{{Kind: Load, Access: &Access{Arg: fb.b.in(n.Args[0]), Kind: AtSample, LD: s.Stride}}}
	case ir.OpBroadcastBatch:
		st.Op, st.Attrs = opMove, nil
		st.Args = []Term{fb.term(n.Args[0])}
	default:
		for _, a := range n.Args {
			st.Args = append(st.Args, fb.term(a))
		}
	}
	fb.next++
	fb.f.Code = append(fb.f.Code, st)
	fb.define(n.Out(), Term{Kind: Temp, Temp: st.Temp})
}

// opMove is a statement that only passes its operand on.
const opMove = ir.OpReshape

// define binds a value to a term and stores it if it must lie in memory.
func (fb *functorBuilder) define(v *ir.Value, t Term) {
	fb.temps[v] = t
	if fb.b.stored[v] {
		s := fb.b.slots[v]
		fb.f.Code = append(fb.f.Code, Stmt{Temp: -1, Args: []Term{t},
			Store: &Access{Arg: fb.b.out(v), Kind: AtElement, LD: s.Stride}})
	}
}

// term finds the operand v at the functor's index.
func (fb *functorBuilder) term(v *ir.Value) Term {
	if t, ok := fb.temps[v]; ok {
		return t
	}
	switch v.Def.Op {
	case ir.OpConst:
		return Term{Kind: Literal, Value: v.Def.Float("value")}
	case ir.OpScalar:
		return Term{Kind: StepScalar, Scalar: v.Def.Str("name")}
	}
	sp, t, s := fb.f.Space, v.Type, fb.b.slots[v]
	acc := &Access{LD: s.Stride}
	switch {
	case len(t.Shape) == 0:
		acc.Kind = AtScalar
	case t.Batched || !sp.Batched && t.Elems() == sp.Rows*sp.Cols:
		if SpaceOf(t) != sp {
			panic(fmt.Sprintf("BUG: %v of type %v read in space %+v", v, t, sp))
		}
		acc.Kind = AtElement
	case t.Elems() == sp.Cols:
		acc.Kind = AtColumn
	case t.Rows() == sp.T:
		acc.Kind = AtToken
	default:
		acc.Kind, acc.Rows = AtRowModulo, t.Rows()
	}
	acc.Arg = fb.b.in(v)
	return Term{Kind: Load, Access: acc}
}

func (fb *functorBuilder) shifted(v *ir.Value, shift int) Term {
	return Term{Kind: Load, Access: &Access{Arg: fb.b.in(v), Kind: Shifted, LD: fb.b.slots[v].Stride,
		Rows: v.Type.Rows(), Shift: shift}}
}

// Threshold quantizes a dropout probability to the 16-bit draws: an element is
// kept if its draw is at least round(65536·p).
func Threshold(p float64) int { return int(p*65536 + 0.5) }

// key describes a functor so that equal ones give equal kernels.
func (f *Functor) key(b *strings.Builder) {
	fmt.Fprintf(b, "%s %d %+v %+v{", f.Name, f.Kind, f.Space, f.Result.key())
	for _, s := range f.Code {
		fmt.Fprintf(b, "%d=%s%v %d %d %d %d(", s.Temp, s.Op, s.Attrs, s.Site, s.Thr, s.Rows, s.FirstRow)
		for _, a := range s.Args {
			b.WriteString(a.key())
			b.WriteByte(' ')
		}
		if s.Store != nil {
			fmt.Fprintf(b, "->%+v", *s.Store)
		}
		b.WriteByte(')')
	}
	b.WriteByte('}')
}

func (t Term) key() string {
	acc := ""
	if t.Access != nil {
		acc = fmt.Sprintf("%+v", *t.Access)
	}
	return fmt.Sprintf("%d,%d,%s,%s,%g", t.Kind, t.Temp, acc, t.Scalar, t.Value)
}
