package passes

import (
	"slices"

	"github.com/vitgen/vitgen/ir"
)

// The rules of ops that move tokens or sum over them.

// A slice of all tokens; of a slice; of padding's inside; of what prepend_token
// put behind its token; of equal tokens.
func simplifySliceTokens(s simplifier, n *ir.Node) *ir.Value {
	x, from, to := n.Args[0], n.Int("from"), n.Int("to")
	if x.Type.Equal(n.Out().Type) {
		return x
	}
	slice := func(v *ir.Value, shift int) *ir.Value {
		return s.make(ir.OpSliceTokens, ir.A("from", from+shift, "to", to+shift), v)
	}
	switch d := x.Def; d.Op {
	case ir.OpSliceTokens:
		return slice(d.Args[0], d.Int("from"))
	case ir.OpPadTokens:
		before := d.Int("before")
		if inner := d.Args[0]; from >= before && to <= before+inner.Type.Sample()[0] {
			return slice(inner, -before)
		}
	case ir.OpPrependToken:
		if from >= 1 {
			return slice(d.Args[0], -1)
		}
	case ir.OpRepeatTokens:
		return s.make(ir.OpRepeatTokens, ir.A("tokens", to-from), d.Args[0])
	}
	return nil
}

// Padding by nothing; padding of padding.
func simplifyPadTokens(s simplifier, n *ir.Node) *ir.Value {
	x, before, after := n.Args[0], n.Int("before"), n.Int("after")
	if before == 0 && after == 0 {
		return x
	}
	if d := x.Def; d.Op == ir.OpPadTokens {
		return s.make(ir.OpPadTokens, ir.A("before", before+d.Int("before"), "after", after+d.Int("after")), d.Args[0])
	}
	return nil
}

// One token is a view.
func simplifyRepeatTokens(s simplifier, n *ir.Node) *ir.Value {
	if n.Int("tokens") == 1 {
		return s.make(ir.OpReshape, ir.A("shape", n.Out().Type.Sample()), n.Args[0])
	}
	return nil
}

// Transposing twice; transposing a row or a column is a view.
func simplifyTranspose(s simplifier, n *ir.Node) *ir.Value {
	x := n.Args[0]
	if x.Def.Op == ir.OpTranspose {
		return x.Def.Args[0]
	}
	if slices.Contains(x.Type.Sample(), 1) {
		return s.make(ir.OpReshape, ir.A("shape", n.Out().Type.Sample()), x)
	}
	return nil
}

// The sum over one token is a view; over T equal ones it is T times one;
// padding adds nothing.
func simplifySumTokens(s simplifier, n *ir.Node) *ir.Value {
	x := n.Args[0]
	T := x.Type.Sample()[0]
	switch d := x.Def; {
	case T == 1:
		return s.make(ir.OpReshape, ir.A("shape", n.Out().Type.Sample()), x)
	case d.Op == ir.OpRepeatTokens:
		return s.make(ir.OpScale, ir.A("by", float64(T)), d.Args[0])
	case d.Op == ir.OpPadTokens:
		return s.make(ir.OpSumTokens, nil, d.Args[0])
	}
	return nil
}

// A sum over leading dimensions does not care how they are divided, nor for
// padding among them.
func simplifySumLeading(s simplifier, n *ir.Node) *ir.Value {
	x, shape := n.Args[0], n.Ints("shape")
	switch d := x.Def; {
	case d.Op == ir.OpPadTokens && len(shape) <= 1:
		return s.make(ir.OpSumLeading, n.Attrs, d.Args[0])
	case d.Op == ir.OpReshape && d.Args[0].Type.Batched:
		inner := d.Args[0].Type.Sample()
		if k := len(inner) - len(shape); k >= 0 && slices.Equal(inner[k:], shape) {
			return s.make(ir.OpSumLeading, n.Attrs, d.Args[0])
		}
	}
	return nil
}
