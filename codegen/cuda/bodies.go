package cuda

import (
	"fmt"
	"io"

	"github.com/vitgen/vitgen/codegen/cxx"
	"github.com/vitgen/vitgen/codegen/plan"
	"github.com/vitgen/vitgen/ir"
)

// emitter prints the body of one kernel: the call of the library. It
// implements cxx.Args.
type emitter struct {
	k     *plan.Kernel
	math  string
	types []string // declarations the body needs before the function

	// resident is how many blocks should fit on a multiprocessor, as the
	// library says; empty: as the plan says.
	resident string
}

func (e *emitter) Pointer(i int, _ plan.ArgType) string { return e.k.Args[i].Name }
func (e *emitter) Int(i int) string                     { return "uint32_t(" + e.k.Args[i].Name + ")" }
func (e *emitter) Step(field string) string             { return "c.step()." + field }
func (e *emitter) StepRef() string                      { return "c.step()" }

// params are the kernel's parameters, each of eight bytes. Of a __global__
// function they are restricted: what a launch writes lies apart from what it
// reads, and a compiler that knows moves loads past stores.
func (e *emitter) params(prefix string, restrict bool) []string {
	var out []string
	for _, a := range e.k.Args {
		typ := "uint64_t"
		if a.Type != plan.Int {
			typ = cxx.PointerType(a)
			if restrict && !a.Shared {
				typ += " __restrict__"
			}
		}
		out = append(out, typ+" "+prefix+a.Name)
	}
	return out
}

// ptr is argument i as a pointer, or nullptr for -1.
func (e *emitter) ptr(i int) string {
	if i < 0 {
		return "nullptr"
	}
	return e.k.Args[i].Name
}

// integer is argument i as an integer, or 0 for -1.
func (e *emitter) integer(i int) string {
	if i < 0 {
		return "0"
	}
	return e.Int(i)
}

// source is an operand as a source functor.
func (e *emitter) source(o plan.Operand) string {
	if o.Functor != nil {
		return o.Functor.Name
	}
	return fmt.Sprintf("vg_matrix{%s, %d}", e.ptr(o.Arg), o.LD)
}

// sink is a functor, or the sink that takes nothing.
func (e *emitter) sink(f *plan.Functor) string {
	if f == nil {
		return "vg_none{}"
	}
	return f.Name
}

// row is the sink that stores one row.
func (e *emitter) row(i int) string {
	if i < 0 {
		return "vg_none{}"
	}
	return fmt.Sprintf("vg_store_matrix{%s, 0}", e.ptr(i))
}

// rows is the number of rows of a space in this call.
func rows(s plan.Space) string {
	if !s.Batched {
		return fmt.Sprint(s.Rows)
	}
	if s.T == 1 {
		return "c.batch()"
	}
	return fmt.Sprintf("c.batch() * %d", s.T)
}

// declare names a type of the kernel's own.
func (e *emitter) declare(word, typ string) string {
	name := fmt.Sprintf("k%02d_%s", e.k.Index, word)
	e.types = append(e.types, fmt.Sprintf("using %s = %s;", name, typ))
	return name
}

// elem is the element type of an argument.
func (e *emitter) elem(i int) string {
	if e.k.Args[i].Narrow {
		return "vg_bf16"
	}
	return "float"
}

func (e *emitter) body(w io.Writer) {
	switch b := e.k.Body.(type) {
	case *plan.Gemm:
		e.gemm(w, b)
	case *plan.Attention:
		e.attention(w, b)
	case *plan.AttentionGrad:
		e.attentionGrad(w, b)
	case *plan.LayerNorm:
		fmt.Fprintf(w, "  vg_layernorm<%d, %d>(c, %s, %s, %s, %s, %s, %s, %s, %s);\n", b.Space.T, b.Space.Cols, rows(b.Space),
			e.source(b.X), e.ptr(b.Gamma), e.ptr(b.Beta), cxx.Float(b.Eps), e.ptr(b.Mean), e.ptr(b.Rstd), e.sink(b.Y))
	case *plan.LayerNormGrad:
		fmt.Fprintf(w, "  vg_layernorm_grad<%d, %d>(c, %s, %s, %s, %s, %s, %s, %s, %s, %s);\n", b.Space.T, b.Space.Cols, rows(b.Space),
			e.source(b.DY), e.source(b.X), e.ptr(b.Mean), e.ptr(b.Rstd), e.ptr(b.Gamma), e.sink(b.DX), e.row(b.DGamma), e.row(b.DBeta))
	case *plan.CrossEntropy:
		fmt.Fprintf(w, "  vg_cross_entropy<%d>(c, %s, %s, %s, %s, %s, %s);\n", b.Classes, e.source(b.Logits), e.ptr(b.Label),
			cxx.Float(b.Smoothing), e.ptr(b.Loss), e.ptr(b.Correct), e.sink(b.DLogits))
	case *plan.Pointwise:
		fmt.Fprintf(w, "  vg_pointwise<%d, %d>(c, %s, %s);\n", b.Space.T, b.Space.Cols, rows(b.Space), e.sink(b.Fn))
	case *plan.Patchify:
		fmt.Fprintf(w, "  vg_patchify<%d, %d, %d, %d>(c, %s, %s);\n", b.C, b.H, b.W, b.P, e.ptr(b.X), e.sink(b.Y))
	case *plan.Transpose:
		fmt.Fprintf(w, "  vg_transpose<%d, %d>(c, %s, %s);\n", b.T, b.C, e.ptr(b.X), e.sink(b.Y))
	case *plan.SumTokens:
		fmt.Fprintf(w, "  vg_token_sum<%d, %d>(c, %s, %s);\n", b.Space.T, b.Space.Cols, e.source(b.X), e.sink(b.Y))
	case *plan.ColumnSum:
		fmt.Fprintf(w, "  vg_column_sum<%d, %d>(c, %s, %s, %s);\n", b.Space.T, b.Space.Cols, rows(b.Space), e.source(b.X), e.row(b.Y))
	case *plan.SumSquares:
		fmt.Fprintf(w, "  vg_sumsq(c, %d, %s, %s);\n", b.N, e.ptr(b.X), e.ptr(b.Y))
	case *plan.ClipScale:
		fmt.Fprintf(w, "  vg_clip_scale(c, %s, %s, %s);\n", e.ptr(b.X), cxx.Float(b.Norm), e.ptr(b.Y))
	case *plan.Optimizer:
		e.optimizer(w, b)
	default:
		panic(fmt.Sprintf("BUG: no CUDA text for %T", b))
	}
}

func (e *emitter) gemm(w io.Writer, b *plan.Gemm) {
	t := e.k.Part.Tile
	tile := e.declare("tile", t.CXX(b.Kind, e.math))
	m, k := rows(b.Space), fmt.Sprint(b.K)
	if b.Kind == "tn" {
		m, k = fmt.Sprint(b.M), m
	}
	fmt.Fprintf(w, "  vg_gemm<%s, %d>(c, %s, %d, %s,\n      %s,\n      %s,\n      %s, %s);\n", tile, b.Space.T, m, b.N, k,
		e.source(b.A), e.source(b.B), e.sink(b.Epilogue), e.sink(b.RowSum))
}

// config names the compile-time numbers of an attention kernel. They include how
// many of its blocks should fit on a multiprocessor.
func (e *emitter) config(template string, s plan.AttentionShape, site int, more string) string {
	name := e.declare("config", fmt.Sprintf("%s<vg_math::%s, %d, %d, %d, %d, %d, %d, %v, %v%s>",
		template, e.math, s.Heads, s.HeadDim, s.Tq, s.Tk, s.QFirst, s.QTotal, s.Causal, site >= 0, more))
	e.resident = name + "::resident"
	return name
}

func (e *emitter) attention(w io.Writer, b *plan.Attention) {
	config := e.config("vg_attention_config", b.Shape, b.Site, "")
	fmt.Fprintf(w, "  vg_attention_args<%s> a{};\n", e.elem(b.Q.Arg))
	e.operands(w, []operand{{"q", b.Q}, {"k", b.K}, {"v", b.V}, {"o", b.O}})
	e.settings(w, b.Shape, b.LSE, b.Site, b.Thr)
	fmt.Fprintf(w, "  vg_attention<%s>(c, a);\n", config)
}

func (e *emitter) attentionGrad(w io.Writer, b *plan.AttentionGrad) {
	config := e.config("vg_attention_grad_config", b.Shape, b.Site, fmt.Sprintf(", sizeof(%s)", e.elem(b.Q.Arg)))
	fmt.Fprintf(w, "  vg_attention_grad_args<%s> a{};\n", e.elem(b.Q.Arg))
	e.operands(w, []operand{{"q", b.Q}, {"k", b.K}, {"v", b.V}, {"o", b.O}, {"dout", b.DO}, {"dq", b.DQ}, {"dk", b.DK}, {"dv", b.DV}})
	e.settings(w, b.Shape, b.LSE, b.Site, b.Thr)
	fmt.Fprintf(w, "  vg_attention_grad<%s>(c, a);\n", config)
}

type operand struct {
	name string
	op   plan.Operand
}

func (e *emitter) operands(w io.Writer, ops []operand) {
	for _, o := range ops {
		fmt.Fprintf(w, "  a.%s = %s, a.ld%s = %d;\n", o.name, e.ptr(o.op.Arg), o.name, o.op.LD)
	}
}

func (e *emitter) settings(w io.Writer, s plan.AttentionShape, lse, site, thr int) {
	fmt.Fprintf(w, "  a.lse = %s, a.scale = %s, a.drop_site = %s, a.drop_thr = %s;\n",
		e.ptr(lse), cxx.Float(s.Scale), e.integer(site), e.integer(thr))
}

// optimizer updates the decaying range and the rest, in one launch.
func (e *emitter) optimizer(w io.Writer, b *plan.Optimizer) {
	span := func(from, n int, decay float64) {
		if n == 0 {
			return
		}
		at := func(i int) string {
			if i < 0 || from == 0 {
				return e.ptr(i)
			}
			return fmt.Sprintf("%s + %d", e.ptr(i), from)
		}
		clip, half := e.ptr(b.Clip), at(b.Half)
		f := func(key string) string { return cxx.Float(b.Attrs.Get(key).(float64)) }
		d := func(key string) string { return cxx.Double(b.Attrs.Get(key).(float64)) }
		switch b.Op {
		case ir.OpSGD:
			fmt.Fprintf(w, "  vg_sgd<false>(c, %d, %s, %s, nullptr, 0.0f, %s, %s, %s);\n", n, at(b.P), at(b.G), cxx.Float(decay), clip, half)
		case ir.OpSGDMomentum:
			fmt.Fprintf(w, "  vg_sgd<%v>(c, %d, %s, %s, %s, %s, %s, %s, %s);\n", b.Attrs.Get("nesterov"), n,
				at(b.P), at(b.G), at(b.S0), f("momentum"), cxx.Float(decay), clip, half)
		case ir.OpAdamW:
			fmt.Fprintf(w, "  vg_adamw(c, %d, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s);\n", n,
				at(b.P), at(b.G), at(b.S0), at(b.S1), d("beta1"), d("beta2"), f("eps"), cxx.Float(decay), clip, half)
		default:
			panic("BUG: no optimizer text for " + b.Op.String())
		}
	}
	if b.WeightDecay == 0 || b.Decay == b.N {
		span(0, b.N, b.WeightDecay)
		return
	}
	span(0, b.Decay, b.WeightDecay)
	span(b.Decay, b.N-b.Decay, 0)
}
