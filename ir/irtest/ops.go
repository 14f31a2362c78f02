package irtest

import (
	"strings"

	"github.com/vitgen/vitgen/ir"
)

// OpCase is a small forward graph around one op, with outputs logits, loss and
// correct, and with parameters before and after the op.
type OpCase struct {
	Name  string
	Op    ir.Op
	Graph *ir.Graph
}

// OpCases returns at least one graph for every op that has a gradient, and
// more where an op has several forms (broadcasts, attributes).
func OpCases() []OpCase {
	cases := make([]OpCase, 0, len(opCases))
	for _, c := range opCases {
		b := newBuilder(c.name)
		image := b.input("image", ir.BatchOf(ir.F32, 3, 2, 4, 4))
		b.begin("stem")
		x := b.linear(b.add(ir.OpPatchify, ir.A("patch", 2), image), caseWidth, true)
		b.begin(c.op.String())
		y := c.make(b, x)
		smoothing := 0.0
		if strings.HasSuffix(c.name, "cross_entropy/smoothing") {
			smoothing = 0.1
		}
		cases = append(cases, OpCase{c.name, c.op, b.classify(y, 3, smoothing, c.op == ir.OpMixedCrossEntropy)})
	}
	return cases
}

// Every case gets x [3|caseTokens,caseWidth].
const caseTokens, caseWidth = 4, 6

var opCases = []struct {
	name string
	op   ir.Op
	make func(b *builder, x *ir.Value) *ir.Value
}{
	{"reshape", ir.OpReshape, func(b *builder, x *ir.Value) *ir.Value {
		return b.linear(b.reshape(x, 2, 2, 6), 2, true)
	}},
	{"slice_last", ir.OpSliceLast, func(b *builder, x *ir.Value) *ir.Value {
		return b.slice(ir.OpSliceLast, x, 1, 4)
	}},
	{"slice_last/overlapping", ir.OpSliceLast, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpMul, nil, b.slice(ir.OpSliceLast, x, 0, 4), b.slice(ir.OpSliceLast, x, 2, 6))
	}},
	{"slice_last/tiling", ir.OpSliceLast, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpMul, nil, b.slice(ir.OpSliceLast, x, 3, 6), b.slice(ir.OpSliceLast, x, 0, 3))
	}},
	{"slice_last/and whole", ir.OpSliceLast, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpConcatLast, nil, b.slice(ir.OpSliceLast, x, 2, 3), b.add(ir.OpSilu, nil, x))
	}},
	{"concat_last", ir.OpConcatLast, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpConcatLast, nil, b.linear(x, 2, false), b.linear(x, 3, false))
	}},
	{"concat_last/same twice", ir.OpConcatLast, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpConcatLast, nil, x, b.linear(x, 1, false), x)
	}},
	{"slice_first", ir.OpSliceFirst, func(b *builder, x *ir.Value) *ir.Value {
		table := b.param("table", 7, caseWidth)
		return b.add(ir.OpAdd, nil, x, b.slice(ir.OpSliceFirst, table, 2, 2+caseTokens))
	}},
	{"slice_first/tiling", ir.OpSliceFirst, func(b *builder, x *ir.Value) *ir.Value {
		w := b.param("weight", 5, caseWidth)
		y := b.add(ir.OpLinear, nil, x, b.slice(ir.OpSliceFirst, w, 0, 2))
		return b.add(ir.OpConcatLast, nil, b.add(ir.OpLinear, nil, x, b.slice(ir.OpSliceFirst, w, 2, 5)), y)
	}},
	{"concat_first", ir.OpConcatFirst, func(b *builder, x *ir.Value) *ir.Value {
		w := b.add(ir.OpConcatFirst, nil, b.param("a", 2, caseWidth), b.param("b", 1, caseWidth))
		return b.add(ir.OpLinear, nil, x, w)
	}},
	{"concat_first/vectors", ir.OpConcatFirst, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpMul, nil, x, b.add(ir.OpConcatFirst, nil, b.param("a", 2), b.param("b", 4)))
	}},
	{"add/same shape", ir.OpAdd, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpAdd, nil, b.add(ir.OpSilu, nil, x), b.linear(x, caseWidth, false))
	}},
	{"add/twice itself", ir.OpAdd, func(b *builder, x *ir.Value) *ir.Value { return b.add(ir.OpAdd, nil, x, x) }},
	{"add/features", ir.OpAdd, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpSilu, nil, b.add(ir.OpAdd, nil, x, b.param("bias", caseWidth)))
	}},
	{"add/tokens and features", ir.OpAdd, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpSilu, nil, b.add(ir.OpAdd, nil, x, b.param("pos", caseTokens, caseWidth)))
	}},
	{"add/constant", ir.OpAdd, func(b *builder, x *ir.Value) *ir.Value {
		t := b.add(ir.OpSinCos, ir.A("type", ir.Tensor(ir.F32, caseTokens, caseWidth)))
		return b.add(ir.OpSilu, nil, b.add(ir.OpAdd, nil, x, t))
	}},
	{"mul/same shape", ir.OpMul, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpMul, nil, x, b.linear(x, caseWidth, true))
	}},
	{"mul/square", ir.OpMul, func(b *builder, x *ir.Value) *ir.Value { return b.add(ir.OpMul, nil, x, x) }},
	{"mul/features", ir.OpMul, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpMul, nil, x, b.param("gamma", caseWidth))
	}},
	{"mul/tokens and features", ir.OpMul, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpMul, nil, x, b.param("gate", caseTokens, caseWidth))
	}},
	{"scale", ir.OpScale, func(b *builder, x *ir.Value) *ir.Value { return b.add(ir.OpScale, ir.A("by", -1.5), x) }},
	{"gelu", ir.OpGelu, func(b *builder, x *ir.Value) *ir.Value { return b.add(ir.OpGelu, ir.A("tanh", false), x) }},
	{"gelu/tanh", ir.OpGelu, func(b *builder, x *ir.Value) *ir.Value { return b.add(ir.OpGelu, ir.A("tanh", true), x) }},
	{"relu", ir.OpRelu, func(b *builder, x *ir.Value) *ir.Value { return b.add(ir.OpRelu, nil, x) }},
	{"silu", ir.OpSilu, func(b *builder, x *ir.Value) *ir.Value { return b.add(ir.OpSilu, nil, x) }},
	{"dropout", ir.OpDropout, func(b *builder, x *ir.Value) *ir.Value { return b.add(ir.OpSilu, nil, b.dropout(x, 0.3)) }},
	{"dropout/pruned rows", ir.OpDropout, func(b *builder, x *ir.Value) *ir.Value {
		y := b.slice(ir.OpSliceTokens, x, 1, 3)
		return b.add(ir.OpDropout, ir.A("p", 0.3, "site", b.site(), "rows", caseTokens, "first_row", 1), y)
	}},
	{"drop_path", ir.OpDropPath, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpDropPath, ir.A("p", 0.4, "site", b.site()), x)
	}},
	{"repeat_tokens", ir.OpRepeatTokens, func(b *builder, x *ir.Value) *ir.Value {
		y := b.add(ir.OpRepeatTokens, ir.A("tokens", caseTokens), b.add(ir.OpSumTokens, nil, x))
		return b.add(ir.OpMul, nil, y, x)
	}},
	{"pad_tokens", ir.OpPadTokens, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpPadTokens, ir.A("before", 1, "after", 2), x)
	}},
	{"broadcast_batch", ir.OpBroadcastBatch, sumOverBatch},
	{"sum_batch", ir.OpSumBatch, sumOverBatch},
	{"linear", ir.OpLinear, func(b *builder, x *ir.Value) *ir.Value { return b.linear(x, 5, false) }},
	{"linear/vector", ir.OpLinear, func(b *builder, x *ir.Value) *ir.Value {
		return b.linear(b.reshape(x, caseTokens*caseWidth), 3, true)
	}},
	{"linear/shared weight", ir.OpLinear, func(b *builder, x *ir.Value) *ir.Value {
		w := b.param("weight", caseWidth, caseWidth)
		return b.add(ir.OpLinear, nil, b.add(ir.OpSilu, nil, b.add(ir.OpLinear, nil, x, w)), w)
	}},
	{"head_linear", ir.OpHeadLinear, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpHeadLinear, ir.A("heads", 2), x, b.param("weight", 2*4, caseWidth/2))
	}},
	{"head_linear_t", ir.OpHeadLinearT, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpHeadLinearT, ir.A("heads", 3), x, b.param("weight", caseWidth, 5))
	}},
	{"attention", ir.OpAttention, func(b *builder, x *ir.Value) *ir.Value { return b.projected(x, x) }},
	{"attention/heads", ir.OpAttention, func(b *builder, x *ir.Value) *ir.Value { return b.projected(x, x, "heads", 3) }},
	{"attention/causal", ir.OpAttention, func(b *builder, x *ir.Value) *ir.Value {
		return b.projected(x, x, "heads", 2, "causal", true)
	}},
	{"attention/dropout", ir.OpAttention, func(b *builder, x *ir.Value) *ir.Value {
		return b.projected(x, x, "heads", 2, "p", 0.3)
	}},
	{"attention/pruned rows", ir.OpAttention, func(b *builder, x *ir.Value) *ir.Value {
		return b.projected(b.slice(ir.OpSliceTokens, x, 1, 3), x,
			"heads", 2, "p", 0.3, "causal", true, "q_first", 1, "q_total", caseTokens)
	}},
	{"attention/same operand", ir.OpAttention, func(b *builder, x *ir.Value) *ir.Value { return b.attention(x, x, x) }},
	{"latent_attention", ir.OpLatentAttention, func(b *builder, x *ir.Value) *ir.Value { return b.latent(x, x) }},
	{"latent_attention/heads", ir.OpLatentAttention, func(b *builder, x *ir.Value) *ir.Value {
		return b.latent(x, x, "heads", 3, "causal", true, "p", 0.3)
	}},
	{"latent_attention/sums", ir.OpLatentAttention, func(b *builder, x *ir.Value) *ir.Value {
		return b.latent(x, x, "heads", 2, "p", 0.3, "sums", true)
	}},
	{"latent_attention/pruned rows", ir.OpLatentAttention, func(b *builder, x *ir.Value) *ir.Value {
		return b.latent(b.slice(ir.OpSliceTokens, x, 1, 2), x,
			"heads", 2, "p", 0.3, "causal", true, "q_first", 1, "q_total", caseTokens)
	}},
	{"layernorm", ir.OpLayerNorm, func(b *builder, x *ir.Value) *ir.Value { return b.layerNorm(x, caseWidth) }},
	{"layernorm/tokens and features", ir.OpLayerNorm, func(b *builder, x *ir.Value) *ir.Value {
		return b.layerNorm(x, caseTokens, caseWidth)
	}},
	{"cross_entropy", ir.OpCrossEntropy, func(b *builder, x *ir.Value) *ir.Value { return x }},
	{"cross_entropy/smoothing", ir.OpCrossEntropy, func(b *builder, x *ir.Value) *ir.Value { return x }},
	{"mixed_cross_entropy", ir.OpMixedCrossEntropy, func(b *builder, x *ir.Value) *ir.Value { return x }},
	{"mixed_cross_entropy/smoothing", ir.OpMixedCrossEntropy, func(b *builder, x *ir.Value) *ir.Value { return x }},
	{"prepend_token", ir.OpPrependToken, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpSilu, nil, b.add(ir.OpPrependToken, nil, x, b.param("token", caseWidth)))
	}},
	{"slice_tokens", ir.OpSliceTokens, func(b *builder, x *ir.Value) *ir.Value {
		return b.slice(ir.OpSliceTokens, x, 1, 3)
	}},
	{"slice_tokens/and whole", ir.OpSliceTokens, func(b *builder, x *ir.Value) *ir.Value {
		first := b.reshape(b.slice(ir.OpSliceTokens, x, 0, 1), caseWidth)
		return b.add(ir.OpMul, nil, first, b.add(ir.OpSumTokens, nil, x))
	}},
	{"transpose", ir.OpTranspose, func(b *builder, x *ir.Value) *ir.Value {
		return b.linear(b.add(ir.OpTranspose, nil, x), 3, true)
	}},
	{"sum_tokens", ir.OpSumTokens, func(b *builder, x *ir.Value) *ir.Value {
		return b.add(ir.OpSilu, nil, b.add(ir.OpSumTokens, nil, x))
	}},
}

// projected is attention from tokens xq to tokens x, each with its own weights.
func (b *builder) projected(xq, x *ir.Value, attrs ...any) *ir.Value {
	return b.attention(b.linear(xq, caseWidth, true), b.linear(x, caseWidth, true), b.linear(x, caseWidth, true), attrs...)
}

// latent is attention from tokens xq, projected to the width of each head, to
// tokens x.
func (b *builder) latent(xq, x *ir.Value, attrs ...any) *ir.Value {
	a := b.attentionAttrs(xq, append([]any{"sums", false}, attrs...))
	return b.add(ir.OpLatentAttention, a, b.linear(xq, a.Get("heads").(int)*x.Type.Last(), true), x)
}

// sumOverBatch puts the sum of one feature over all samples next to each
// sample's features.
func sumOverBatch(b *builder, x *ir.Value) *ir.Value {
	vec := b.add(ir.OpSumTokens, nil, x)
	first := b.reshape(b.slice(ir.OpSliceLast, vec, 0, 1))
	sum := b.add(ir.OpSumBatch, nil, first)
	all := b.add(ir.OpBroadcastBatch, ir.A("batch", x.Type.Shape[0]), sum)
	return b.add(ir.OpConcatLast, nil, b.reshape(all, 1), vec)
}
