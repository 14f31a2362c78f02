package ir

import (
	"fmt"
	"slices"
)

// Shape functions of the anchors: matrix products, attention, rows, moves,
// reductions and optimizers.

// weight checks for a [N,K] matrix without batch.
func weight(t Type) (N, K int, err error) {
	if t.Batched || len(t.Shape) != 2 {
		return 0, 0, fmt.Errorf("weight is %v, wants [N,K]", t)
	}
	return t.Shape[0], t.Shape[1], nil
}

// replaceLast gives x another last dimension after checking its extent.
func replaceLast(x Type, have, want int) (Type, error) {
	s := slices.Clone(x.Sample())
	if !x.Batched || len(s) == 0 || x.Last() != have {
		return Type{}, fmt.Errorf("operand is %v, wants a batch with last dimension %d", x, have)
	}
	s[len(s)-1] = want
	return x.With(s...), nil
}

func shapeLinear(n *Node) ([]Type, error) {
	N, K, err := weight(n.Args[1].Type)
	if err != nil {
		return nil, err
	}
	t, err := replaceLast(n.Args[0].Type, K, N)
	if err != nil {
		return nil, err
	}
	return floats(n, t)
}

func shapeLinearDX(n *Node) ([]Type, error) {
	N, K, err := weight(n.Args[1].Type)
	if err != nil {
		return nil, err
	}
	t, err := replaceLast(n.Args[0].Type, N, K)
	if err != nil {
		return nil, err
	}
	return floats(n, t)
}

func shapeLinearDW(n *Node) ([]Type, error) {
	dy, x := n.Args[0].Type, n.Args[1].Type
	if !dy.Batched || !x.Batched || len(dy.Shape) != len(x.Shape) || len(dy.Shape) < 2 ||
		!slices.Equal(dy.Shape[:len(dy.Shape)-1], x.Shape[:len(x.Shape)-1]) {
		return nil, fmt.Errorf("operands %v and %v differ before the last dimension", dy, x)
	}
	return floats(n, Tensor(F32, dy.Last(), x.Last()))
}

// perHead gives x another last dimension, heads times want, after checking that
// it has heads times have.
func perHead(n *Node, x Type, have, want int) ([]Type, error) {
	H := n.Int("heads")
	t, err := replaceLast(x, H*have, H*want)
	if err != nil {
		return nil, err
	}
	return floats(n, t)
}

// headWeight checks for a weight of heads times N rows.
func headWeight(n *Node) (N, K int, err error) {
	rows, K, err := weight(n.Args[1].Type)
	if err != nil {
		return 0, 0, err
	}
	H := n.Int("heads")
	if H < 1 || rows%H != 0 {
		return 0, 0, fmt.Errorf("%d heads do not divide the weight's %d rows", H, rows)
	}
	return rows / H, K, nil
}

func shapeHeadLinear(n *Node) ([]Type, error) {
	N, K, err := headWeight(n)
	if err != nil {
		return nil, err
	}
	return perHead(n, n.Args[0].Type, K, N)
}

func shapeHeadLinearT(n *Node) ([]Type, error) {
	N, K, err := headWeight(n)
	if err != nil {
		return nil, err
	}
	return perHead(n, n.Args[0].Type, N, K)
}

func shapeHeadLinearDW(n *Node) ([]Type, error) {
	ts, err := shapeLinearDW(n)
	if err != nil {
		return nil, err
	}
	H, N, K := n.Int("heads"), ts[0].Shape[0], ts[0].Shape[1]
	if H < 1 || N%H != 0 || K%H != 0 {
		return nil, fmt.Errorf("%d heads do not divide %d and %d", H, N, K)
	}
	return floats(n, Tensor(F32, N, K/H))
}

func attentionShapes(n *Node, q, k, v Type) (lse Type, err error) {
	_, D, err := tokens(q)
	if err != nil {
		return lse, err
	}
	if !k.Equal(v) {
		return lse, fmt.Errorf("k is %v but v is %v", k, v)
	}
	if _, Dk, err := tokens(k); err != nil || Dk != D || k.Shape[0] != q.Shape[0] {
		return lse, fmt.Errorf("q is %v but k is %v", q, k)
	}
	if H := n.Int("heads"); H < 1 || D%H != 0 {
		return lse, fmt.Errorf("%d heads do not divide %d", H, D)
	}
	return attentionWeights(n, q, k)
}

// attentionWeights checks the attributes of attention with tokens q over tokens
// k, and gives the type of lse.
func attentionWeights(n *Node, q, k Type) (lse Type, err error) {
	Tq, H := q.Sample()[0], n.Int("heads")
	if first, total := n.Int("q_first"), n.Int("q_total"); first < 0 || first+Tq > total {
		return lse, fmt.Errorf("query rows %d:%d of %d", first, first+Tq, total)
	}
	if err := checkP(n); err != nil {
		return lse, err
	}
	if !fits(MaxDropoutIndex, q.Shape[0], H, n.Int("q_total"), k.Sample()[0]) {
		return lse, fmt.Errorf("too many attention weights for one dropout site")
	}
	return BatchOf(F32, q.Shape[0], H, Tq), nil
}

func shapeAttention(n *Node) ([]Type, error) {
	q := n.Args[0].Type
	lse, err := attentionShapes(n, q, n.Args[1].Type, n.Args[2].Type)
	if err != nil {
		return nil, err
	}
	return floats(n, q, lse)
}

func shapeAttentionGrad(n *Node) ([]Type, error) {
	do, q, k, v := n.Args[0].Type, n.Args[1].Type, n.Args[2].Type, n.Args[3].Type
	lse, err := attentionShapes(n, q, k, v)
	if err != nil {
		return nil, err
	}
	if !do.Equal(q) || !n.Args[4].Type.Equal(q) || !n.Args[5].Type.Equal(lse) {
		return nil, fmt.Errorf("do, o or lse has another type than q asks for")
	}
	return floats(n, q, k, v)
}

func latentShapes(n *Node, q, x Type) (o, lse Type, err error) {
	Tq, width, err := tokens(q)
	if err != nil {
		return o, lse, err
	}
	H := n.Int("heads")
	if _, D, err := tokens(x); err != nil || H < 1 || width != H*D || x.Shape[0] != q.Shape[0] {
		return o, lse, fmt.Errorf("q is %v but x is %v, with %d heads", q, x, H)
	}
	if n.Bool("sums") {
		width += H
	}
	lse, err = attentionWeights(n, q, x)
	return q.With(Tq, width), lse, err
}

func shapeLatentAttention(n *Node) ([]Type, error) {
	o, lse, err := latentShapes(n, n.Args[0].Type, n.Args[1].Type)
	if err != nil {
		return nil, err
	}
	return floats(n, o, lse)
}

func shapeLatentAttentionGrad(n *Node) ([]Type, error) {
	do, q, x := n.Args[0].Type, n.Args[1].Type, n.Args[2].Type
	o, lse, err := latentShapes(n, q, x)
	if err != nil {
		return nil, err
	}
	if !do.Equal(o) || !n.Args[3].Type.Equal(o) || !n.Args[4].Type.Equal(lse) {
		return nil, fmt.Errorf("do, o or lse has another type than q and x ask for")
	}
	return floats(n, q, x)
}

func normStats(x, gamma Type) (Type, error) {
	s := x.Sample()
	if !x.Batched || gamma.Batched || len(gamma.Shape) == 0 || !hasSuffix(s, gamma.Shape) {
		return Type{}, fmt.Errorf("gamma %v is no suffix of %v", gamma, x)
	}
	st := x.With(s[:len(s)-len(gamma.Shape)]...)
	st.DType = F32
	return st, nil
}

func shapeLayerNorm(n *Node) ([]Type, error) {
	x, gamma, beta := n.Args[0].Type, n.Args[1].Type, n.Args[2].Type
	st, err := normStats(x, gamma)
	if err != nil {
		return nil, err
	}
	if !beta.Equal(gamma) || !(n.Float("eps") >= 0) {
		return nil, fmt.Errorf("beta is %v, eps %v", beta, n.Float("eps"))
	}
	return floats(n, x, st, st)
}

func shapeLayerNormGrad(n *Node) ([]Type, error) {
	dy, x, gamma := n.Args[0].Type, n.Args[1].Type, n.Args[2].Type
	st, err := normStats(x, gamma)
	if err != nil {
		return nil, err
	}
	if !dy.Equal(x) || !n.Args[3].Type.Equal(st) || !n.Args[4].Type.Equal(st) {
		return nil, fmt.Errorf("dy, mean or rstd has another type than x asks for")
	}
	return floats(n, x, gamma, gamma)
}

func lossShape(n *Node) (Type, error) {
	x, label := n.Args[0].Type, n.Args[1].Type
	if !x.Batched || len(x.Sample()) != 1 {
		return Type{}, fmt.Errorf("logits are %v, want [n|C]", x)
	}
	if !label.Equal(BatchOf(I32, x.Shape[0])) {
		return Type{}, fmt.Errorf("label is %v", label)
	}
	if x.DType != F32 && x.DType != BF16 {
		return Type{}, fmt.Errorf("logits are %v, want floats", x)
	}
	if s := n.Float("smoothing"); !(s >= 0 && s < 1) {
		return Type{}, fmt.Errorf("smoothing %v", s)
	}
	return BatchOf(F32, x.Shape[0]), nil
}

func shapeCrossEntropy(n *Node) ([]Type, error) {
	t, err := lossShape(n)
	return []Type{t, t}, err
}

func shapeCrossEntropyGrad(n *Node) ([]Type, error) {
	t, err := lossShape(n)
	if err == nil && !n.Args[2].Type.Equal(t) {
		err = fmt.Errorf("dloss is %v, wants %v", n.Args[2].Type, t)
	}
	return []Type{n.Args[0].Type}, err
}

// mixShape checks the operands that say how two labels share a sample.
func mixShape(n *Node) (Type, error) {
	t, err := lossShape(n)
	if label2, mix := n.Args[2].Type, n.Args[3].Type; err == nil && (!label2.Equal(n.Args[1].Type) || !mix.Equal(t)) {
		err = fmt.Errorf("label2 is %v, mix %v", label2, mix)
	}
	return t, err
}

func shapeMixedCrossEntropy(n *Node) ([]Type, error) {
	t, err := mixShape(n)
	return []Type{t, t}, err
}

func shapeMixedCrossEntropyGrad(n *Node) ([]Type, error) {
	t, err := mixShape(n)
	if err == nil && !n.Args[4].Type.Equal(t) {
		err = fmt.Errorf("dloss is %v, wants %v", n.Args[4].Type, t)
	}
	return []Type{n.Args[0].Type}, err
}

func shapePatchify(n *Node) ([]Type, error) {
	x, p := n.Args[0].Type, n.Int("patch")
	s := x.Sample()
	if !x.Batched || len(s) != 3 || p < 1 || s[1]%p != 0 || s[2]%p != 0 {
		return nil, fmt.Errorf("cannot cut %v into patches of %d", x, p)
	}
	return floats(n, x.With(s[1]/p*(s[2]/p), s[0]*p*p))
}

func shapePrependToken(n *Node) ([]Type, error) {
	T, D, err := tokens(n.Args[0].Type)
	if err != nil {
		return nil, err
	}
	if tok := n.Args[1].Type; !tok.Equal(Tensor(n.Args[0].Type.DType, D)) {
		return nil, fmt.Errorf("token is %v, wants [%d]", tok, D)
	}
	return floats(n, n.Args[0].Type.With(T+1, D))
}

func shapeSliceTokens(n *Node) ([]Type, error) {
	T, D, err := tokens(n.Args[0].Type)
	if err != nil {
		return nil, err
	}
	w, err := sliceBounds(n, T)
	if err != nil {
		return nil, err
	}
	return floats(n, n.Args[0].Type.With(w, D))
}

func shapeTranspose(n *Node) ([]Type, error) {
	T, D, err := tokens(n.Args[0].Type)
	if err != nil {
		return nil, err
	}
	return floats(n, n.Args[0].Type.With(D, T))
}

func shapeSumTokens(n *Node) ([]Type, error) {
	_, D, err := tokens(n.Args[0].Type)
	if err != nil {
		return nil, err
	}
	return floats(n, n.Args[0].Type.With(D))
}

func shapeSumLeading(n *Node) ([]Type, error) {
	x, s := n.Args[0].Type, n.Ints("shape")
	if !x.Batched || !hasSuffix(x.Sample(), s) {
		return nil, fmt.Errorf("%v is no suffix of %v", s, x)
	}
	return floats(n, Tensor(F32, s...))
}

func shapeSumBatch(n *Node) ([]Type, error) {
	if x := n.Args[0].Type; !x.Batched || len(x.Shape) != 1 {
		return nil, fmt.Errorf("operand is %v, wants [n|]", x)
	}
	return floats(n, Scalar)
}

func shapeClipScale(n *Node) ([]Type, error) {
	if x := n.Args[0].Type; !x.Equal(Scalar) {
		return nil, fmt.Errorf("operand is %v, wants a scalar", x)
	}
	return one(Scalar)
}

func shapeScalarResult(n *Node) ([]Type, error) { return floats(n, Scalar) }

// sameShape checks that the first k operands have one unbatched type and the
// rest are scalars.
func sameShape(n *Node, k int) error {
	p := n.Args[0].Type
	if p.DType != F32 {
		return fmt.Errorf("parameter is %v, wants f32", p)
	}
	for i, a := range n.Args {
		want := Scalar
		if i < k {
			want = p
		}
		if a.Type.Batched || !a.Type.Equal(want) {
			return fmt.Errorf("operand %d is %v, wants %v", i, a.Type, want)
		}
	}
	return nil
}

func shapeSGD(n *Node) ([]Type, error) {
	return []Type{n.Args[0].Type}, sameShape(n, 2)
}

func shapeSGDMomentum(n *Node) ([]Type, error) {
	p := n.Args[0].Type
	return []Type{p, p}, sameShape(n, 3)
}

func shapeAdamW(n *Node) ([]Type, error) {
	p := n.Args[0].Type
	return []Type{p, p, p}, sameShape(n, 4)
}

func shapeEMA(n *Node) ([]Type, error) {
	return []Type{n.Args[0].Type}, sameShape(n, 2)
}
