package passes

import (
	"fmt"
	"math"

	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/spec"
)

// This file says what each kind of layer is in the op set: one function each.

// buildLayer adds the nodes of one layer and gives its result.
func (b *builder) buildLayer(l spec.Layer, x *ir.Value) *ir.Value {
	b.at(l.Common())
	switch l := l.(type) {
	case *spec.PatchEmbed:
		return b.patchEmbed(l, x)
	case *spec.ClsToken:
		return b.clsToken(l, x)
	case *spec.PosEmbed:
		return b.posEmbed(l, x)
	case *spec.Dropout:
		return b.dropout(l, x)
	case *spec.DropPath:
		return b.dropPath(l, x)
	case *spec.LayerNorm:
		return b.layerNorm(l, x)
	case *spec.Attention:
		return b.attention(l, x)
	case *spec.Linear:
		return b.linear(l, x)
	case *spec.GELU:
		return b.add(ir.OpGelu, ir.A("tanh", l.Approx == "tanh"), x)
	case *spec.ReLU:
		return b.add(ir.OpRelu, nil, x)
	case *spec.SiLU:
		return b.add(ir.OpSilu, nil, x)
	case *spec.LayerScale:
		return b.add(ir.OpMul, nil, x, b.params(l)())
	case *spec.Residual:
		return b.residual(l, x)
	case *spec.Select:
		return b.selectToken(l, x)
	case *spec.MeanPool:
		return b.meanPool(l, x)
	case *spec.Transpose:
		return b.add(ir.OpTranspose, nil, x)
	case *spec.Flatten:
		return b.reshape(x, ir.Product(x.Type.Sample()))
	}
	panic(fmt.Sprintf("BUG: no graph for layer %T", l))
}

// patchEmbed writes a convolution with kernel = stride as a linear layer over
// patches; its weight [D,C,p,p] seen as [D,C·p·p] needs no copy.
func (b *builder) patchEmbed(l *spec.PatchEmbed, x *ir.Value) *ir.Value {
	next := b.params(l)
	w := next()
	patches := b.add(ir.OpPatchify, ir.A("patch", l.Patch), x)
	y := b.add(ir.OpLinear, nil, patches, b.reshape(w, l.Out, patches.Type.Last()))
	if l.Bias {
		y = b.add(ir.OpAdd, nil, y, next())
	}
	return y
}

func (b *builder) clsToken(l *spec.ClsToken, x *ir.Value) *ir.Value {
	token := b.reshape(b.params(l)(), x.Type.Last())
	return b.add(ir.OpPrependToken, nil, x, token)
}

func (b *builder) posEmbed(l *spec.PosEmbed, x *ir.Value) *ir.Value {
	T, D := x.Type.Sample()[0], x.Type.Last()
	if l.Type == "sincos" {
		return b.add(ir.OpAdd, nil, x, b.add(ir.OpSinCos, ir.A("type", ir.Tensor(ir.F32, T, D))))
	}
	table := b.reshape(b.params(l)(), l.MaxLen, D)
	if l.MaxLen > T {
		table = b.add(ir.OpSliceFirst, ir.A("from", 0, "to", T), table)
	}
	return b.add(ir.OpAdd, nil, x, table)
}

func (b *builder) dropout(l *spec.Dropout, x *ir.Value) *ir.Value {
	site := b.site()
	if !b.train {
		return x
	}
	return b.add(ir.OpDropout, ir.A("p", l.P, "site", site, "rows", x.Type.Rows(), "first_row", 0), x)
}

func (b *builder) dropPath(l *spec.DropPath, x *ir.Value) *ir.Value {
	site := b.site()
	if !b.train {
		return x
	}
	return b.add(ir.OpDropPath, ir.A("p", l.P, "site", site), x)
}

// layerNorm covers both ranges: the weight's shape, [D] or [T,D], says which.
func (b *builder) layerNorm(l *spec.LayerNorm, x *ir.Value) *ir.Value {
	next := b.params(l)
	gamma, beta := next(), next()
	return b.add(ir.OpLayerNorm, ir.A("eps", l.Eps), x, gamma, beta)
}

// attention computes queries, keys and values in one product whatever way the
// parameters are stored, and cuts it into the three.
func (b *builder) attention(l *spec.Attention, x *ir.Value) *ir.Value {
	T, D := x.Type.Sample()[0], x.Type.Last()
	next := b.params(l)
	w, bias := b.qkvParams(l, next)
	qkv := b.add(ir.OpLinear, nil, x, w)
	if l.QKVBias {
		qkv = b.add(ir.OpAdd, nil, qkv, bias)
	}
	part := func(i int) *ir.Value {
		return b.add(ir.OpSliceLast, ir.A("from", i*D, "to", (i+1)*D), qkv)
	}
	q, k, v := part(0), part(1), part(2)
	p, site := l.Dropout, b.site()
	if !b.train {
		p = 0
	}
	y := b.add(ir.OpAttention, ir.A("heads", l.Heads, "scale", 1/math.Sqrt(float64(D/l.Heads)), "causal", l.Causal,
		"p", p, "site", site, "q_first", 0, "q_total", T), q, k, v)
	y = b.add(ir.OpLinear, nil, y, next())
	if l.OutBias {
		y = b.add(ir.OpAdd, nil, y, next())
	}
	return y
}

// qkvParams gives the weight [3D,D] and, if there is one, the bias [3D] of the
// joint projection: one parameter each, or three stacked.
func (b *builder) qkvParams(l *spec.Attention, next func() *ir.Value) (w, bias *ir.Value) {
	if l.QKV == "fused" {
		w = next()
		if l.QKVBias {
			bias = next()
		}
		return w, bias
	}
	var ws, bs []*ir.Value
	for range 3 {
		ws = append(ws, next())
		if l.QKVBias {
			bs = append(bs, next())
		}
	}
	w = b.add(ir.OpConcatFirst, nil, ws...)
	if l.QKVBias {
		bias = b.add(ir.OpConcatFirst, nil, bs...)
	}
	return w, bias
}

func (b *builder) linear(l *spec.Linear, x *ir.Value) *ir.Value {
	next := b.params(l)
	y := b.add(ir.OpLinear, nil, x, next())
	if l.Bias {
		y = b.add(ir.OpAdd, nil, y, next())
	}
	return y
}

// residual puts the skip connection first: its gradient then arrives first and
// is what the body's gradient is added to.
func (b *builder) residual(l *spec.Residual, x *ir.Value) *ir.Value {
	y := b.layers(l.Body, x)
	b.at(l.Common())
	return b.add(ir.OpAdd, nil, x, y)
}

func (b *builder) selectToken(l *spec.Select, x *ir.Value) *ir.Value {
	row := b.add(ir.OpSliceTokens, ir.A("from", l.Token, "to", l.Token+1), x)
	return b.reshape(row, x.Type.Last())
}

func (b *builder) meanPool(l *spec.MeanPool, x *ir.Value) *ir.Value {
	T := x.Type.Sample()[0]
	if l.Skip > 0 {
		x = b.add(ir.OpSliceTokens, ir.A("from", l.Skip, "to", T), x)
	}
	return b.add(ir.OpScale, ir.A("by", 1/float64(T-l.Skip)), b.add(ir.OpSumTokens, nil, x))
}
