package ir

import (
	"fmt"
	"math"
	"slices"
)

// This file holds the shape functions of the op table: the one rule by which
// types are inferred and verified.

func one(t Type) ([]Type, error) { return []Type{t}, nil }

// tokens checks for a [n|T,D] operand.
func tokens(t Type) (T, D int, err error) {
	s := t.Sample()
	if len(s) != 2 || !t.Batched {
		return 0, 0, fmt.Errorf("operand is %v, wants tokens [n|T,D]", t)
	}
	return s[0], s[1], nil
}

// hasSuffix reports whether shape ends with suffix.
func hasSuffix(shape, suffix []int) bool {
	return len(suffix) <= len(shape) && slices.Equal(shape[len(shape)-len(suffix):], suffix)
}

func shapeDeclared(n *Node) ([]Type, error) {
	t := n.TypeAttr("type")
	if t.DType == Invalid || (t.Batched && len(t.Shape) == 0) {
		return nil, fmt.Errorf("type %v is invalid", t)
	}
	for _, d := range t.Shape {
		if d <= 0 {
			return nil, fmt.Errorf("type %v has an empty dimension", t)
		}
	}
	return one(t)
}

func shapeScalar(n *Node) ([]Type, error) {
	switch name := n.Str("name"); name {
	case "lr", "inv_n", "bias_corr1", "bias_corr2":
		return one(Scalar)
	default:
		return nil, fmt.Errorf("unknown scalar %q", name)
	}
}

func shapeSinCos(n *Node) ([]Type, error) {
	t := n.TypeAttr("type")
	if t.DType != F32 || t.Batched || len(t.Shape) != 2 {
		return nil, fmt.Errorf("type is %v, wants f32[T,D]", t)
	}
	return shapeDeclared(n)
}

func shapeReshape(n *Node) ([]Type, error) {
	x := n.Args[0].Type
	s := n.Ints("shape")
	if Product(s) != Product(x.Sample()) || slices.Min(append([]int{1}, s...)) < 1 {
		return nil, fmt.Errorf("cannot reshape %v to %v", x, s)
	}
	return one(x.With(s...))
}

func sliceBounds(n *Node, extent int) (int, error) {
	from, to := n.Int("from"), n.Int("to")
	if from < 0 || to <= from || to > extent {
		return 0, fmt.Errorf("slice %d:%d of extent %d", from, to, extent)
	}
	return to - from, nil
}

func shapeSliceLast(n *Node) ([]Type, error) {
	x := n.Args[0].Type
	s := slices.Clone(x.Sample())
	if len(s) == 0 {
		return nil, fmt.Errorf("operand %v has no last dimension", x)
	}
	w, err := sliceBounds(n, s[len(s)-1])
	if err != nil {
		return nil, err
	}
	s[len(s)-1] = w
	return one(x.With(s...))
}

func shapeConcatLast(n *Node) ([]Type, error) {
	x := n.Args[0].Type
	s := slices.Clone(x.Sample())
	if len(s) == 0 {
		return nil, fmt.Errorf("operand %v has no last dimension", x)
	}
	last := len(s) - 1
	for _, a := range n.Args[1:] {
		u := a.Type
		if u.DType != x.DType || u.Batched != x.Batched || len(u.Shape) != len(x.Shape) ||
			!slices.Equal(u.Shape[:len(u.Shape)-1], x.Shape[:len(x.Shape)-1]) {
			return nil, fmt.Errorf("operands %v and %v differ before the last dimension", x, u)
		}
		s[last] += u.Last()
	}
	return one(x.With(s...))
}

func shapeSliceFirst(n *Node) ([]Type, error) {
	x := n.Args[0].Type
	if x.Batched || len(x.Shape) == 0 {
		return nil, fmt.Errorf("operand %v is batched or scalar", x)
	}
	w, err := sliceBounds(n, x.Shape[0])
	if err != nil {
		return nil, err
	}
	return one(Tensor(x.DType, append([]int{w}, x.Shape[1:]...)...))
}

func shapeConcatFirst(n *Node) ([]Type, error) {
	rows := 0
	x := n.Args[0].Type
	for _, a := range n.Args {
		u := a.Type
		if u.Batched || len(u.Shape) == 0 || u.DType != x.DType || !slices.Equal(u.Shape[1:], x.Shape[1:]) {
			return nil, fmt.Errorf("operands %v and %v cannot be stacked", x, u)
		}
		rows += u.Shape[0]
	}
	return one(Tensor(x.DType, append([]int{rows}, x.Shape[1:]...)...))
}

func shapeSame(n *Node) ([]Type, error) { return floats(n, n.Args[0].Type) }

// floats refuses integer operands.
func floats(n *Node, result ...Type) ([]Type, error) {
	for _, a := range n.Args {
		if a.Type.DType != F32 && a.Type.DType != BF16 {
			return nil, fmt.Errorf("operand is %v, wants floats", a.Type)
		}
	}
	return result, nil
}

func shapeBroadcast(n *Node) ([]Type, error) {
	x := n.Args[0].Type
	for _, a := range n.Args[1:] {
		if u := a.Type; !u.Equal(x) && (u.Batched || u.DType != x.DType || !hasSuffix(x.Sample(), u.Shape)) {
			return nil, fmt.Errorf("%v does not broadcast to %v", u, x)
		}
	}
	return floats(n, x)
}

func checkP(n *Node) error {
	if p := n.Float("p"); !(p >= 0 && math.Round(p*65536) < 65536) { // at 16 bits, as it is drawn
		return fmt.Errorf("p = %v, wants 0 ≤ p < 1 − 2⁻¹⁷", p)
	}
	if n.Int("site") < 0 {
		return fmt.Errorf("site %d", n.Int("site"))
	}
	return nil
}

// MaxDropoutIndex bounds the elements one dropout site may number: its Philox
// counter is 32 bits and serves eight elements.
const MaxDropoutIndex = 1 << 35

// fits reports whether the product of the factors, all positive, is at most
// limit; it cannot overflow.
func fits(limit int, factors ...int) bool {
	for _, f := range factors {
		if limit /= f; limit == 0 {
			return false
		}
	}
	return true
}

func shapeDropout(n *Node) ([]Type, error) {
	x := n.Args[0].Type
	if err := checkP(n); err != nil {
		return nil, err
	}
	first, rows := n.Int("first_row"), n.Int("rows")
	if !x.Batched || first < 0 || first+x.Rows() > rows {
		return nil, fmt.Errorf("rows %d:%d of %d for %v", first, first+x.Rows(), rows, x)
	}
	if !fits(MaxDropoutIndex, x.Shape[0], rows, x.Last()) {
		return nil, fmt.Errorf("%v has too many elements for one dropout site", x)
	}
	return floats(n, x)
}

func shapeDropPath(n *Node) ([]Type, error) {
	if err := checkP(n); err != nil {
		return nil, err
	}
	if !n.Args[0].Type.Batched {
		return nil, fmt.Errorf("operand is %v, wants a batch", n.Args[0].Type)
	}
	return shapeSame(n)
}

func shapeRepeatTokens(n *Node) ([]Type, error) {
	x := n.Args[0].Type
	if s := x.Sample(); len(s) != 1 || !x.Batched || n.Int("tokens") < 1 {
		return nil, fmt.Errorf("operand is %v, wants [n|D]", x)
	}
	return floats(n, x.With(n.Int("tokens"), x.Last()))
}

func shapePadTokens(n *Node) ([]Type, error) {
	T, D, err := tokens(n.Args[0].Type)
	if err != nil {
		return nil, err
	}
	b, a := n.Int("before"), n.Int("after")
	if b < 0 || a < 0 {
		return nil, fmt.Errorf("padding %d, %d", b, a)
	}
	return floats(n, n.Args[0].Type.With(b+T+a, D))
}

func shapeBroadcastBatch(n *Node) ([]Type, error) {
	x := n.Args[0].Type
	if x.Batched || len(x.Shape) != 0 || n.Int("batch") < 1 {
		return nil, fmt.Errorf("operand is %v, wants a scalar", x)
	}
	return floats(n, BatchOf(x.DType, n.Int("batch")))
}

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

func attentionShapes(n *Node, q, k, v Type) (lse Type, err error) {
	Tq, D, err := tokens(q)
	if err != nil {
		return lse, err
	}
	if !k.Equal(v) {
		return lse, fmt.Errorf("k is %v but v is %v", k, v)
	}
	if _, Dk, err := tokens(k); err != nil || Dk != D || k.Shape[0] != q.Shape[0] {
		return lse, fmt.Errorf("q is %v but k is %v", q, k)
	}
	H := n.Int("heads")
	if H < 1 || D%H != 0 {
		return lse, fmt.Errorf("%d heads do not divide %d", H, D)
	}
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
