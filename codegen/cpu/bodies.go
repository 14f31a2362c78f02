package cpu

import (
	"fmt"
	"io"

	"github.com/vitgen/vitgen/codegen/cxx"
	"github.com/vitgen/vitgen/codegen/plan"
	"github.com/vitgen/vitgen/ir"
)

// emitter prints one kernel's function: its arguments and functors as named
// locals, then the call of the library. It implements cxx.Args.
type emitter struct {
	k *plan.Kernel
}

func (e *emitter) Pointer(i int, _ plan.ArgType) string { return e.k.Args[i].Name }
func (e *emitter) Int(i int) string                     { return e.k.Args[i].Name }
func (e *emitter) Step(field string) string             { return "c.step()." + field }
func (e *emitter) StepRef() string                      { return "c.step()" }

// arguments gives every argument its name.
func (e *emitter) arguments(w io.Writer) {
	for i, a := range e.k.Args {
		switch a.Type {
		case plan.In:
			fmt.Fprintf(w, "  const float* %s = c.arg<float>(%d);\n", a.Name, i)
		case plan.InI32:
			fmt.Fprintf(w, "  const int32_t* %s = c.arg<int32_t>(%d);\n", a.Name, i)
		case plan.Int:
			fmt.Fprintf(w, "  const uint32_t %s = uint32_t(uintptr_t(c.arg<char>(%d)));\n", a.Name, i)
		default:
			fmt.Fprintf(w, "  float* %s = c.arg<float>(%d);\n", a.Name, i)
		}
	}
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

// row is the sink that stores one vector.
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
	return fmt.Sprintf("int64_t(c.batch()) * %d", s.T)
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
		fmt.Fprintf(w, "  vg_layernorm<%d>(c, %s, %d, %s, %s, %s, %s, %s, %s, %s);\n", b.Space.T, rows(b.Space), b.Space.Cols,
			e.source(b.X), e.ptr(b.Gamma), e.ptr(b.Beta), cxx.Float(b.Eps), e.ptr(b.Mean), e.ptr(b.Rstd), e.sink(b.Y))
	case *plan.LayerNormGrad:
		fmt.Fprintf(w, "  vg_layernorm_grad<%d>(c, %s, %d, %s, %s, %s, %s, %s, %s, %s, %s);\n", b.Space.T, rows(b.Space), b.Space.Cols,
			e.source(b.DY), e.source(b.X), e.ptr(b.Mean), e.ptr(b.Rstd), e.ptr(b.Gamma), e.sink(b.DX), e.row(b.DGamma), e.row(b.DBeta))
	case *plan.CrossEntropy:
		fmt.Fprintf(w, "  vg_cross_entropy(c, %d, %s, %s, %s, %s, %s, %s);\n", b.Classes, e.source(b.Logits), e.ptr(b.Label),
			cxx.Float(b.Smoothing), e.ptr(b.Loss), e.ptr(b.Correct), e.sink(b.DLogits))
	case *plan.Pointwise:
		fmt.Fprintf(w, "  vg_pointwise<%d>(c, %s, %d, %s);\n", b.Space.T, rows(b.Space), b.Space.Cols, e.sink(b.Fn))
	case *plan.Patchify:
		fmt.Fprintf(w, "  vg_patchify(c, %d, %d, %d, %d, %s, %s);\n", b.C, b.H, b.W, b.P, e.ptr(b.X), e.sink(b.Y))
	case *plan.Transpose:
		fmt.Fprintf(w, "  vg_transpose(c, c.batch(), %d, %d, %s, %s);\n", b.T, b.C, e.ptr(b.X), e.sink(b.Y))
	case *plan.SumTokens:
		fmt.Fprintf(w, "  vg_token_sum<%d>(c, c.batch(), %d, %s, %s);\n", b.Space.T, b.Space.Cols, e.source(b.X), e.sink(b.Y))
	case *plan.ColumnSum:
		fmt.Fprintf(w, "  vg_column_sum<%d>(c, %s, %d, %s, %s);\n", b.Space.T, rows(b.Space), b.Space.Cols, e.source(b.X), e.row(b.Y))
	case *plan.SumSquares:
		fmt.Fprintf(w, "  vg_sumsq(c, %d, %s, %s);\n", b.N, e.ptr(b.X), e.ptr(b.Y))
	case *plan.ClipScale:
		fmt.Fprintf(w, "  vg_clip_scale(c, %s, %s, %s);\n", e.ptr(b.X), cxx.Float(b.Norm), e.ptr(b.Y))
	case *plan.Optimizer:
		e.optimizer(w, b)
	default:
		panic(fmt.Sprintf("BUG: no CPU text for %T", b))
	}
}

func (e *emitter) gemm(w io.Writer, b *plan.Gemm) {
	if b.Kind == "tn" {
		fmt.Fprintf(w, "  vg_gemm_tn<%d>(c, %d, %d, %s,\n      %s,\n      %s,\n      %s, %s);\n", b.Space.T, b.M, b.N, rows(b.Space),
			e.source(b.A), e.source(b.B), e.sink(b.Epilogue), e.sink(b.RowSum))
		return
	}
	fmt.Fprintf(w, "  vg_gemm_%s<%d>(c, %s, %d, %d,\n      %s,\n      %s, %d,\n      %s);\n", b.Kind, b.Space.T, rows(b.Space), b.N, b.K,
		e.source(b.A), e.ptr(b.B.Arg), b.B.LD, e.sink(b.Epilogue))
}

// shapeInit sets the fields both attention structs share.
func (e *emitter) shapeInit(w io.Writer, s plan.AttentionShape, site, thr int) {
	fmt.Fprintf(w, "  a.heads = %d, a.head_dim = %d, a.tq = %d, a.tk = %d, a.q_first = %d, a.q_total = %d;\n",
		s.Heads, s.HeadDim, s.Tq, s.Tk, s.QFirst, s.QTotal)
	fmt.Fprintf(w, "  a.scale = %s, a.causal = %v, a.drop_site = %s, a.drop_thr = %s;\n",
		cxx.Float(s.Scale), s.Causal, e.integer(site), e.integer(thr))
}

func (e *emitter) attention(w io.Writer, b *plan.Attention) {
	fmt.Fprint(w, "  vg_attention_args a{};\n")
	fmt.Fprintf(w, "  a.q = %s, a.ldq = %d;\n", e.ptr(b.Q.Arg), b.Q.LD)
	fmt.Fprintf(w, "  a.k = %s, a.ldk = %d;\n", e.ptr(b.K.Arg), b.K.LD)
	fmt.Fprintf(w, "  a.v = %s, a.ldv = %d;\n", e.ptr(b.V.Arg), b.V.LD)
	fmt.Fprintf(w, "  a.o = %s, a.ldo = %d, a.lse = %s;\n", e.ptr(b.O.Arg), b.O.LD, e.ptr(b.LSE))
	e.shapeInit(w, b.Shape, b.Site, b.Thr)
	fmt.Fprint(w, "  vg_attention(c, a);\n")
}

func (e *emitter) attentionGrad(w io.Writer, b *plan.AttentionGrad) {
	fmt.Fprint(w, "  vg_attention_grad_args a{};\n")
	for _, m := range []struct {
		name string
		op   plan.Operand
	}{{"q", b.Q}, {"k", b.K}, {"v", b.V}, {"o", b.O}, {"dout", b.DO}, {"dq", b.DQ}, {"dk", b.DK}, {"dv", b.DV}} {
		fmt.Fprintf(w, "  a.%s = %s, a.ld%s = %d;\n", m.name, e.ptr(m.op.Arg), m.name, m.op.LD)
	}
	fmt.Fprintf(w, "  a.lse = %s;\n", e.ptr(b.LSE))
	e.shapeInit(w, b.Shape, b.Site, b.Thr)
	fmt.Fprint(w, "  vg_attention_grad(c, a);\n")
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
		clip := e.ptr(b.Clip)
		f := func(key string) string { return cxx.Float(b.Attrs.Get(key).(float64)) }
		switch b.Op {
		case ir.OpSGD:
			fmt.Fprintf(w, "  vg_sgd<false>(c, %d, %s, %s, nullptr, 0.0f, %s, %s);\n", n, at(b.P), at(b.G), cxx.Float(decay), clip)
		case ir.OpSGDMomentum:
			fmt.Fprintf(w, "  vg_sgd<%v>(c, %d, %s, %s, %s, %s, %s, %s);\n", b.Attrs.Get("nesterov"), n,
				at(b.P), at(b.G), at(b.S0), f("momentum"), cxx.Float(decay), clip)
		case ir.OpAdamW:
			fmt.Fprintf(w, "  vg_adamw(c, %d, %s, %s, %s, %s, %s, %s, %s, %s, %s);\n", n,
				at(b.P), at(b.G), at(b.S0), at(b.S1), cxx.Double(b.Attrs.Get("beta1").(float64)), cxx.Double(b.Attrs.Get("beta2").(float64)), f("eps"), cxx.Float(decay), clip)
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
