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
	case "lr", "inv_n", "bias_corr1", "bias_corr2", "ema_weight":
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
