package passes

import (
	"slices"

	"github.com/vitgen/vitgen/ir"
)

// gradient contributes to the adjoints of a node's operands, given the adjoint
// of its first result. Further results (statistics kept for the backward pass,
// the count of correct answers) have none.
type gradient func(t *tape, n *ir.Node, dy *ir.Value)

// gradients has a row for every op whose table row has no NoGrad. It is filled
// by init because the rules refer to the tape, which refers to the table.
var gradients map[ir.Op]gradient

func init() {
	gradients = map[ir.Op]gradient{
		ir.OpReshape:     gradReshape,
		ir.OpSliceLast:   gradSliceLast,
		ir.OpConcatLast:  gradConcatLast,
		ir.OpSliceFirst:  gradSliceFirst,
		ir.OpConcatFirst: gradConcatFirst,

		ir.OpAdd:            gradAdd,
		ir.OpMul:            gradMul,
		ir.OpScale:          gradSelf,
		ir.OpGelu:           gradGelu,
		ir.OpRelu:           gradRelu,
		ir.OpSilu:           gradActivation(ir.OpSiluGrad),
		ir.OpDropout:        gradSelf,
		ir.OpDropPath:       gradSelf,
		ir.OpRepeatTokens:   gradRepeatTokens,
		ir.OpPadTokens:      gradPadTokens,
		ir.OpBroadcastBatch: gradBroadcastBatch,

		ir.OpLinear:       gradLinear,
		ir.OpHeadLinear:   gradHeadLinear,
		ir.OpHeadLinearT:  gradHeadLinearT,
		ir.OpAttention:    gradAttention,
		ir.OpLayerNorm:    gradLayerNorm,
		ir.OpCrossEntropy: gradCrossEntropy(ir.OpCrossEntropyGrad),

		ir.OpLatentAttention:   gradLatentAttention,
		ir.OpMixedCrossEntropy: gradCrossEntropy(ir.OpMixedCrossEntropyGrad),

		ir.OpPrependToken: gradPrependToken,
		ir.OpSliceTokens:  gradSliceTokens,
		ir.OpTranspose:    gradSelf,
		ir.OpSumTokens:    gradSumTokens,
		ir.OpSumBatch:     gradSumBatch,
	}
}

// gradSelf is for linear maps that are their own transpose: scale, a dropout
// mask, transposition.
func gradSelf(t *tape, n *ir.Node, dy *ir.Value) {
	t.give(n.Args[0], t.add(n.Op, n.Attrs, dy))
}

func gradReshape(t *tape, n *ir.Node, dy *ir.Value) {
	t.give(n.Args[0], t.reshape(dy, n.Args[0].Type.Sample()...))
}

func gradSliceLast(t *tape, n *ir.Node, dy *ir.Value) {
	t.givePart(n.Args[0], true, n.Int("from"), n.Int("to"), dy)
}

func gradSliceFirst(t *tape, n *ir.Node, dy *ir.Value) {
	t.givePart(n.Args[0], false, n.Int("from"), n.Int("to"), dy)
}

func gradConcatLast(t *tape, n *ir.Node, dy *ir.Value) {
	at := 0
	for _, a := range n.Args {
		w := a.Type.Last()
		if t.active[a] {
			t.give(a, t.add(ir.OpSliceLast, ir.A("from", at, "to", at+w), dy))
		}
		at += w
	}
}

func gradConcatFirst(t *tape, n *ir.Node, dy *ir.Value) {
	at := 0
	for _, a := range n.Args {
		rows := a.Type.Shape[0]
		if t.active[a] {
			t.give(a, t.add(ir.OpSliceFirst, ir.A("from", at, "to", at+rows), dy))
		}
		at += rows
	}
}

// reduceTo sums dy over everything that v was broadcast over.
func reduceTo(t *tape, v, dy *ir.Value) *ir.Value {
	if dy.Type.Equal(v.Type) {
		return dy
	}
	return t.add(ir.OpSumLeading, ir.A("shape", v.Type.Sample()), dy)
}

// z = x + y: dx = dz, dy = Σ dz over the broadcast.
func gradAdd(t *tape, n *ir.Node, dz *ir.Value) {
	x, y := n.Args[0], n.Args[1]
	t.give(x, dz)
	if t.active[y] {
		t.give(y, reduceTo(t, y, dz))
	}
}

// z = x·y: dx = dz·y, dy = Σ dz·x over the broadcast.
func gradMul(t *tape, n *ir.Node, dz *ir.Value) {
	x, y := n.Args[0], n.Args[1]
	if t.active[x] {
		t.give(x, t.add(ir.OpMul, nil, dz, y))
	}
	if t.active[y] {
		t.give(y, reduceTo(t, y, t.add(ir.OpMul, nil, dz, x)))
	}
}

func gradActivation(op ir.Op) gradient {
	return func(t *tape, n *ir.Node, dy *ir.Value) {
		t.give(n.Args[0], t.add(op, n.Attrs, dy, n.Args[0]))
	}
}

// The slope is a value of its own, so that it is computed where y is: there the two
// share an exponential, and the backward pass, which is left with a multiplication,
// reads it instead of x.
func gradGelu(t *tape, n *ir.Node, dy *ir.Value) {
	t.give(n.Args[0], t.add(ir.OpMul, nil, dy, t.add(ir.OpGeluSlope, n.Attrs, n.Args[0])))
}

// y > 0 where x > 0: reading y, which the next layer's gradient reads as well,
// leaves x free to be forgotten.
func gradRelu(t *tape, n *ir.Node, dy *ir.Value) {
	t.give(n.Args[0], t.add(ir.OpReluGrad, nil, dy, n.Out()))
}

func gradRepeatTokens(t *tape, n *ir.Node, dy *ir.Value) {
	t.give(n.Args[0], t.add(ir.OpSumTokens, nil, dy))
}

func gradPadTokens(t *tape, n *ir.Node, dy *ir.Value) {
	from := n.Int("before")
	t.give(n.Args[0], t.add(ir.OpSliceTokens, ir.A("from", from, "to", from+n.Args[0].Type.Sample()[0]), dy))
}

func gradBroadcastBatch(t *tape, n *ir.Node, dy *ir.Value) {
	t.give(n.Args[0], t.add(ir.OpSumBatch, nil, dy))
}

func gradSumBatch(t *tape, n *ir.Node, dy *ir.Value) {
	t.give(n.Args[0], t.add(ir.OpBroadcastBatch, ir.A("batch", n.Args[0].Type.Shape[0]), dy))
}

// y = x·wᵀ: dx = dy·w, dw = dyᵀ·x.
func gradLinear(t *tape, n *ir.Node, dy *ir.Value) {
	x, w := n.Args[0], n.Args[1]
	if t.active[x] {
		t.give(x, t.add(ir.OpLinearDX, nil, dy, w))
	}
	if t.active[w] {
		t.give(w, t.add(ir.OpLinearDW, nil, dy, x))
	}
}

// y_h = w_h·x_h: dx_h = w_hᵀ·dy_h, dw_h = dy_h·x_hᵀ.
func gradHeadLinear(t *tape, n *ir.Node, dy *ir.Value) {
	x, w := n.Args[0], n.Args[1]
	if t.active[x] {
		t.give(x, t.add(ir.OpHeadLinearT, n.Attrs, dy, w))
	}
	if t.active[w] {
		t.give(w, t.add(ir.OpHeadLinearDW, n.Attrs, dy, x))
	}
}

// y_h = w_hᵀ·x_h: dx_h = w_h·dy_h, dw_h = x_h·dy_hᵀ.
func gradHeadLinearT(t *tape, n *ir.Node, dy *ir.Value) {
	x, w := n.Args[0], n.Args[1]
	if t.active[x] {
		t.give(x, t.add(ir.OpHeadLinear, n.Attrs, dy, w))
	}
	if t.active[w] {
		t.give(w, t.add(ir.OpHeadLinearDW, n.Attrs, x, dy))
	}
}

func gradAttention(t *tape, n *ir.Node, do *ir.Value) {
	q, k, v := n.Args[0], n.Args[1], n.Args[2]
	d := t.node(ir.OpAttentionGrad, n.Attrs, do, q, k, v, n.Outs[0], n.Outs[1])
	t.give(q, d.Outs[0])
	t.give(k, d.Outs[1])
	t.give(v, d.Outs[2])
}

func gradLatentAttention(t *tape, n *ir.Node, do *ir.Value) {
	q, x := n.Args[0], n.Args[1]
	d := t.node(ir.OpLatentAttentionGrad, n.Attrs, do, q, x, n.Outs[0], n.Outs[1])
	t.give(q, d.Outs[0])
	t.give(x, d.Outs[1])
}

func gradLayerNorm(t *tape, n *ir.Node, dy *ir.Value) {
	x, gamma, beta := n.Args[0], n.Args[1], n.Args[2]
	d := t.node(ir.OpLayerNormGrad, nil, dy, x, gamma, n.Outs[1], n.Outs[2])
	t.give(x, d.Outs[0])
	t.give(gamma, d.Outs[1])
	t.give(beta, d.Outs[2])
}

// The logits alone have a gradient: labels and their shares are given.
func gradCrossEntropy(op ir.Op) gradient {
	return func(t *tape, n *ir.Node, dloss *ir.Value) {
		t.give(n.Args[0], t.add(op, n.Attrs, append(slices.Clone(n.Args), dloss)...))
	}
}

func gradPrependToken(t *tape, n *ir.Node, dy *ir.Value) {
	x, token := n.Args[0], n.Args[1]
	T := n.Out().Type.Sample()[0]
	if t.active[x] {
		t.give(x, t.add(ir.OpSliceTokens, ir.A("from", 1, "to", T), dy))
	}
	if t.active[token] {
		first := t.add(ir.OpSliceTokens, ir.A("from", 0, "to", 1), dy)
		t.give(token, t.add(ir.OpSumLeading, ir.A("shape", token.Type.Shape), first))
	}
}

func gradSliceTokens(t *tape, n *ir.Node, dy *ir.Value) {
	x := n.Args[0]
	after := x.Type.Sample()[0] - n.Int("to")
	t.give(x, t.add(ir.OpPadTokens, ir.A("before", n.Int("from"), "after", after), dy))
}

func gradSumTokens(t *tape, n *ir.Node, dy *ir.Value) {
	t.give(n.Args[0], t.add(ir.OpRepeatTokens, ir.A("tokens", n.Args[0].Type.Sample()[0]), dy))
}
