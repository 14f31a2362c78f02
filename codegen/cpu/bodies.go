package cpu

import (
	"fmt"
	"io"

	"github.com/vitgen/vitgen/codegen/cxx"
	"github.com/vitgen/vitgen/codegen/plan"
	"github.com/vitgen/vitgen/ir"
)

// emitter prints one kernel's function: its arguments and functors as named
// locals, then the call of the library.
type emitter struct {
	cxx.Names
}

// arguments gives every argument its name.
func (e *emitter) arguments(w io.Writer) {
	for i, a := range e.K.Args {
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
	switch b := e.K.Body.(type) {
	case *plan.Gemm:
		e.gemm(w, b)
	case *plan.HeadProduct:
		e.headProduct(w, b)
	case *plan.Attention:
		e.attention(w, b)
	case *plan.AttentionGrad:
		e.attentionGrad(w, b)
	case *plan.LatentAttention:
		e.latentAttention(w, b)
	case *plan.LatentAttentionGrad:
		e.latentAttentionGrad(w, b)
	case *plan.LayerNorm:
		fmt.Fprintf(w, "  vg_layernorm<%d>(c, %s, %d, %s, %s, %s, %s, %s, %s, %s);\n", b.Space.T, rows(b.Space), b.Space.Cols,
			e.Source(b.X), e.Ptr(b.Gamma), e.Ptr(b.Beta), cxx.Float(b.Eps), e.Ptr(b.Mean), e.Ptr(b.Rstd), e.Sink(b.Y))
	case *plan.LayerNormGrad:
		fmt.Fprintf(w, "  vg_layernorm_grad<%d>(c, %s, %d, %s, %s, %s, %s, %s, %s, %s, %s);\n", b.Space.T, rows(b.Space), b.Space.Cols,
			e.Source(b.DY), e.Source(b.X), e.Ptr(b.Mean), e.Ptr(b.Rstd), e.Ptr(b.Gamma), e.Sink(b.DX), e.Row(b.DGamma), e.Row(b.DBeta))
	case *plan.CrossEntropy:
		fmt.Fprintf(w, "  vg_cross_entropy(c, %d, %s, %s, %s, %s, %s, %s);\n", b.Classes, e.Source(b.Logits), e.Labels(b),
			cxx.Float(b.Smoothing), e.Ptr(b.Loss), e.Ptr(b.Correct), e.Sink(b.DLogits))
	case *plan.Pointwise:
		fmt.Fprintf(w, "  vg_pointwise<%d>(c, %s, %d, %s);\n", b.Space.T, rows(b.Space), b.Space.Cols, e.Sink(b.Fn))
	case *plan.Patchify:
		fmt.Fprintf(w, "  vg_patchify(c, %d, %d, %d, %d, %s, %s);\n", b.C, b.H, b.W, b.P, e.Ptr(b.X), e.Sink(b.Y))
	case *plan.Transpose:
		fmt.Fprintf(w, "  vg_transpose(c, c.batch(), %d, %d, %s, %s);\n", b.T, b.C, e.Ptr(b.X), e.Sink(b.Y))
	case *plan.SumTokens:
		fmt.Fprintf(w, "  vg_token_sum<%d>(c, c.batch(), %d, %s, %s);\n", b.Space.T, b.Space.Cols, e.Source(b.X), e.Sink(b.Y))
	case *plan.ColumnSum:
		fmt.Fprintf(w, "  vg_column_sum<%d>(c, %s, %d, %s, %s);\n", b.Space.T, rows(b.Space), b.Space.Cols, e.Source(b.X), e.Row(b.Y))
	case *plan.SumSquares:
		fmt.Fprintf(w, "  vg_sumsq(c, %d, %s, %s);\n", b.N, e.Ptr(b.X), e.Ptr(b.Y))
	case *plan.ClipScale:
		fmt.Fprintf(w, "  vg_clip_scale(c, %s, %s, %s);\n", e.Ptr(b.X), cxx.Float(b.Norm), e.Ptr(b.Y))
	case *plan.Optimizer:
		e.Optimizer(w, b)
	case *plan.Pack:
		fmt.Fprintf(w, "  vg_pack_weight(c, %d, %d, %s, %d, %s);\n", b.N, b.K, e.Ptr(b.W.Arg), b.W.LD, e.Ptr(b.Out))
	default:
		panic(fmt.Sprintf("BUG: no CPU text for %T", b))
	}
}

func (e *emitter) gemm(w io.Writer, b *plan.Gemm) {
	if b.Kind == "tn" {
		fmt.Fprintf(w, "  vg_gemm_tn<%d>(c, %d, %d, %s,\n      %s,\n      %s,\n      %s, %s);\n", b.Space.T, b.M, b.N, rows(b.Space),
			e.Source(b.A), e.Source(b.B), e.Sink(b.Epilogue), e.Sink(b.RowSum))
		return
	}
	if b.Packed {
		fmt.Fprintf(w, "  vg_gemm_packed<%d>(c, %s, %d, %d,\n      %s,\n      %s,\n      %s);\n", b.Space.T, rows(b.Space), b.N, b.K,
			e.Source(b.A), e.Ptr(b.B.Arg), e.Sink(b.Epilogue))
		return
	}
	fmt.Fprintf(w, "  vg_gemm_%s<%d>(c, %s, %d, %d,\n      %s,\n      %s, %d,\n      %s);\n", b.Kind, b.Space.T, rows(b.Space), b.N, b.K,
		e.Source(b.A), e.Ptr(b.B.Arg), b.B.LD, e.Sink(b.Epilogue))
}

func (e *emitter) headProduct(w io.Writer, b *plan.HeadProduct) {
	name, second := fmt.Sprintf("vg_%s<%d>", b.Op, b.Space.T), fmt.Sprintf("%s, %d", e.Ptr(b.B.Arg), b.B.LD)
	if b.Op == ir.OpHeadLinearDW {
		name, second = "vg_"+b.Op.String(), e.Source(b.B)
	}
	fmt.Fprintf(w, "  %s(c, %d, %s, %d, %d,\n      %s,\n      %s,\n      %s);\n", name, b.Heads, rows(b.Space), b.N, b.K,
		e.Source(b.A), second, e.Sink(b.Epilogue))
}

// shapeInit sets the fields that all attention structs share.
func (e *emitter) shapeInit(w io.Writer, s plan.AttentionShape, site, thr int) {
	fmt.Fprintf(w, "  a.heads = %d, a.head_dim = %d, a.tq = %d, a.tk = %d, a.q_first = %d, a.q_total = %d;\n",
		s.Heads, s.HeadDim, s.Tq, s.Tk, s.QFirst, s.QTotal)
	fmt.Fprintf(w, "  a.scale = %s, a.causal = %v, a.drop_site = %s, a.drop_thr = %s;\n",
		cxx.Float(s.Scale), s.Causal, e.IntOr0(site), e.IntOr0(thr))
}

func (e *emitter) attention(w io.Writer, b *plan.Attention) {
	fmt.Fprint(w, "  vg_attention_args a{};\n")
	e.fields(w, field{"q", b.Q}, field{"k", b.K}, field{"v", b.V})
	fmt.Fprintf(w, "  a.o = %s, a.ldo = %d, a.lse = %s;\n", e.Ptr(b.O.Arg), b.O.LD, e.Ptr(b.LSE))
	e.shapeInit(w, b.Shape, b.Site, b.Thr)
	fmt.Fprint(w, "  vg_attention(c, a);\n")
}

// field is a matrix among a kernel's arguments.
type field struct {
	name string
	op   plan.Operand
}

func (e *emitter) fields(w io.Writer, fields ...field) {
	for _, f := range fields {
		fmt.Fprintf(w, "  a.%s = %s, a.ld%s = %d;\n", f.name, e.Ptr(f.op.Arg), f.name, f.op.LD)
	}
}

func (e *emitter) attentionGrad(w io.Writer, b *plan.AttentionGrad) {
	fmt.Fprint(w, "  vg_attention_grad_args a{};\n")
	e.fields(w, field{"q", b.Q}, field{"k", b.K}, field{"v", b.V}, field{"o", b.O}, field{"dout", b.DO},
		field{"dq", b.DQ}, field{"dk", b.DK}, field{"dv", b.DV})
	fmt.Fprintf(w, "  a.lse = %s;\n", e.Ptr(b.LSE))
	e.shapeInit(w, b.Shape, b.Site, b.Thr)
	fmt.Fprint(w, "  vg_attention_grad(c, a);\n")
}

func (e *emitter) latentAttention(w io.Writer, b *plan.LatentAttention) {
	fmt.Fprint(w, "  vg_latent_args a{};\n")
	e.fields(w, field{"q", b.Q}, field{"x", b.X}, field{"o", b.O})
	fmt.Fprintf(w, "  a.lse = %s, a.sums = %v;\n", e.Ptr(b.LSE), b.Sums)
	e.shapeInit(w, b.Shape, b.Site, b.Thr)
	fmt.Fprint(w, "  vg_latent_attention(c, a);\n")
}

func (e *emitter) latentAttentionGrad(w io.Writer, b *plan.LatentAttentionGrad) {
	fmt.Fprint(w, "  vg_latent_grad_args a{};\n")
	e.fields(w, field{"q", b.Q}, field{"x", b.X}, field{"o", b.O}, field{"dout", b.DO}, field{"dq", b.DQ}, field{"dx", b.DX})
	fmt.Fprintf(w, "  a.lse = %s, a.sums = %v;\n", e.Ptr(b.LSE), b.Sums)
	e.shapeInit(w, b.Shape, b.Site, b.Thr)
	fmt.Fprint(w, "  vg_latent_attention_grad(c, a);\n")
}
