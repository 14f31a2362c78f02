package cuda

import (
	"fmt"
	"io"

	"github.com/vitgen/vitgen/codegen/cxx"
	"github.com/vitgen/vitgen/codegen/plan"
)

// emitter prints the body of one kernel: the call of the library.
type emitter struct {
	cxx.Names
	math  string
	types []string // declarations the body needs before the function

	// resident is how many blocks should fit on a multiprocessor, as the
	// library says; empty: as the plan says.
	resident string
}

func newEmitter(k *plan.Kernel, math string) *emitter {
	return &emitter{Names: cxx.Names{K: k, Integer: "uint32_t(%s)"}, math: math}
}

// params are the kernel's parameters, each of eight bytes. Of a __global__
// function they are restricted: what a launch writes lies apart from what it
// reads, and a compiler that knows moves loads past stores.
func (e *emitter) params(prefix string, restrict bool) []string {
	var out []string
	for _, a := range e.K.Args {
		typ := "uint64_t"
		if a.Type != plan.Int {
			typ = cxx.PointerType(a)
			if restrict && !a.Aliased {
				typ += " __restrict__"
			}
		}
		out = append(out, typ+" "+prefix+a.Name)
	}
	return out
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
	name := fmt.Sprintf("k%02d_%s", e.K.Index, word)
	e.types = append(e.types, fmt.Sprintf("using %s = %s;", name, typ))
	return name
}

// elem is the element type of an argument.
func (e *emitter) elem(i int) string {
	if e.K.Args[i].Narrow {
		return "vg_bf16"
	}
	return "float"
}

func (e *emitter) body(w io.Writer) {
	switch b := e.K.Body.(type) {
	case *plan.Gemm:
		e.gemm(w, b)
	case *plan.Attention:
		e.attention(w, b)
	case *plan.AttentionGrad:
		e.attentionGrad(w, b)
	case *plan.LayerNorm:
		fmt.Fprintf(w, "  vg_layernorm<%d, %d>(c, %s, %s, %s, %s, %s, %s, %s, %s);\n", b.Space.T, b.Space.Cols, rows(b.Space),
			e.Source(b.X), e.Ptr(b.Gamma), e.Ptr(b.Beta), cxx.Float(b.Eps), e.Ptr(b.Mean), e.Ptr(b.Rstd), e.Sink(b.Y))
	case *plan.LayerNormGrad:
		fmt.Fprintf(w, "  vg_layernorm_grad<%d, %d>(c, %s, %s, %s, %s, %s, %s, %s, %s, %s);\n", b.Space.T, b.Space.Cols, rows(b.Space),
			e.Source(b.DY), e.Source(b.X), e.Ptr(b.Mean), e.Ptr(b.Rstd), e.Ptr(b.Gamma), e.Sink(b.DX), e.Row(b.DGamma), e.Row(b.DBeta))
	case *plan.CrossEntropy:
		fmt.Fprintf(w, "  vg_cross_entropy<%d>(c, %s, %s, %s, %s, %s, %s);\n", b.Classes, e.Source(b.Logits), e.Labels(b),
			cxx.Float(b.Smoothing), e.Ptr(b.Loss), e.Ptr(b.Correct), e.Sink(b.DLogits))
	case *plan.Pointwise:
		fmt.Fprintf(w, "  vg_pointwise<%d, %d>(c, %s, %s);\n", b.Space.T, b.Space.Cols, rows(b.Space), e.Sink(b.Fn))
	case *plan.Patchify:
		fmt.Fprintf(w, "  vg_patchify<%d, %d, %d, %d>(c, %s, %s);\n", b.C, b.H, b.W, b.P, e.Ptr(b.X), e.Sink(b.Y))
	case *plan.Transpose:
		fmt.Fprintf(w, "  vg_transpose<%d, %d>(c, %s, %s);\n", b.T, b.C, e.Ptr(b.X), e.Sink(b.Y))
	case *plan.SumTokens:
		fmt.Fprintf(w, "  vg_token_sum<%d, %d>(c, %s, %s);\n", b.Space.T, b.Space.Cols, e.Source(b.X), e.Sink(b.Y))
	case *plan.ColumnSum:
		fmt.Fprintf(w, "  vg_column_sum<%d, %d>(c, %s, %s, %s);\n", b.Space.T, b.Space.Cols, rows(b.Space), e.Source(b.X), e.Row(b.Y))
	case *plan.SumSquares:
		fmt.Fprintf(w, "  vg_sumsq(c, %d, %s, %s);\n", b.N, e.Ptr(b.X), e.Ptr(b.Y))
	case *plan.ClipScale:
		fmt.Fprintf(w, "  vg_clip_scale(c, %s, %s, %s);\n", e.Ptr(b.X), cxx.Float(b.Norm), e.Ptr(b.Y))
	case *plan.Optimizer:
		e.Optimizer(w, b, b.Half)
	default:
		panic(fmt.Sprintf("BUG: no CUDA text for %T", b))
	}
}

func (e *emitter) gemm(w io.Writer, b *plan.Gemm) {
	t := e.K.Part.Tile
	tile := e.declare("tile", t.CXX(b.Kind, e.math))
	m, k := rows(b.Space), fmt.Sprint(b.K)
	if b.Kind == "tn" {
		m, k = fmt.Sprint(b.M), m
	}
	fmt.Fprintf(w, "  vg_gemm<%s, %d>(c, %s, %d, %s,\n      %s,\n      %s,\n      %s, %s);\n", tile, b.Space.T, m, b.N, k,
		e.Source(b.A), e.Source(b.B), e.Sink(b.Epilogue), e.Sink(b.RowSum))
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
		fmt.Fprintf(w, "  a.%s = %s, a.ld%s = %d;\n", o.name, e.Ptr(o.op.Arg), o.name, o.op.LD)
	}
}

func (e *emitter) settings(w io.Writer, s plan.AttentionShape, lse, site, thr int) {
	fmt.Fprintf(w, "  a.lse = %s, a.scale = %s, a.drop_site = %s, a.drop_thr = %s;\n",
		e.Ptr(lse), cxx.Float(s.Scale), e.IntOr0(site), e.IntOr0(thr))
}
