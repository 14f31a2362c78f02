package passes

import (
	"math"
	"slices"

	"github.com/vitgen/vitgen/ir"
)

// simplification gives a simpler value equal to the node's result, or nil.
// The node is not in the graph; its operands are, in simplest form.
type simplification func(s simplifier, n *ir.Node) *ir.Value

// simplifications are the rules by op. It is filled by init because the rules
// make nodes, which are simplified by the rules.
var simplifications map[ir.Op]simplification

func init() {
	simplifications = map[ir.Op]simplification{
		ir.OpAdd:         simplifyAdd,
		ir.OpMul:         simplifyMul,
		ir.OpScale:       simplifyScale,
		ir.OpRelu:        simplifyRelu,
		ir.OpDropout:     simplifyDraw,
		ir.OpDropPath:    simplifyDraw,
		ir.OpReshape:     simplifyReshape,
		ir.OpSliceLast:   simplifySlice,
		ir.OpSliceFirst:  simplifySlice,
		ir.OpConcatLast:  simplifyConcat,
		ir.OpConcatFirst: simplifyConcat,

		ir.OpSliceTokens:  simplifySliceTokens,
		ir.OpPadTokens:    simplifyPadTokens,
		ir.OpRepeatTokens: simplifyRepeatTokens,
		ir.OpTranspose:    simplifyTranspose,
		ir.OpSumTokens:    simplifySumTokens,
		ir.OpSumLeading:   simplifySumLeading,
	}
}

// x + 0 = x.
func simplifyAdd(_ simplifier, n *ir.Node) *ir.Value {
	x, y := n.Args[0], n.Args[1]
	if c, ok := constant(y); ok && c == 0 {
		return x
	}
	if c, ok := constant(x); ok && c == 0 && y.Type.Equal(x.Type) {
		return y
	}
	return nil
}

// x · c = scale(x, c) for a constant c of any shape.
func simplifyMul(s simplifier, n *ir.Node) *ir.Value {
	x, y := n.Args[0], n.Args[1]
	if c, ok := constant(y); ok {
		return s.make(ir.OpScale, ir.A("by", c), x)
	}
	if c, ok := constant(x); ok && y.Type.Equal(x.Type) {
		return s.make(ir.OpScale, ir.A("by", c), y)
	}
	return nil
}

// 1·x = x; a·(b·x) = (ab)·x.
func simplifyScale(s simplifier, n *ir.Node) *ir.Value {
	x, by := n.Args[0], n.Float("by")
	if by == 1 {
		return x
	}
	if x.Def.Op == ir.OpScale {
		return s.make(ir.OpScale, ir.A("by", by*x.Def.Float("by")), x.Def.Args[0])
	}
	return nil
}

// relu(relu(x)) = relu(x).
func simplifyRelu(_ simplifier, n *ir.Node) *ir.Value {
	if x := n.Args[0]; x.Def.Op == ir.OpRelu {
		return x
	}
	return nil
}

// Dropout and drop path that never drop: p̂ = round(65536p)/65536 is 0.
func simplifyDraw(_ simplifier, n *ir.Node) *ir.Value {
	if math.Round(65536*n.Float("p")) == 0 {
		return n.Args[0]
	}
	return nil
}

// A reshape to the shape it has; a reshape of a reshape.
func simplifyReshape(s simplifier, n *ir.Node) *ir.Value {
	x := n.Args[0]
	if x.Type.Equal(n.Out().Type) {
		return x
	}
	if x.Def.Op == ir.OpReshape {
		return s.make(ir.OpReshape, n.Attrs, x.Def.Args[0])
	}
	return nil
}

// along is the extent of x in the dimension that a slice or concatenation op
// works on.
func along(op ir.Op, x ir.Type) int {
	if op == ir.OpSliceLast || op == ir.OpConcatLast {
		return x.Last()
	}
	return x.Sample()[0]
}

// A slice of everything; a slice of a slice; a slice of a concatenation that
// lies within one operand, or begins and ends at operands' borders.
func simplifySlice(s simplifier, n *ir.Node) *ir.Value {
	x, from, to := n.Args[0], n.Int("from"), n.Int("to")
	if x.Type.Equal(n.Out().Type) {
		return x
	}
	if x.Def.Op == n.Op {
		base := x.Def.Int("from")
		return s.make(n.Op, ir.A("from", base+from, "to", base+to), x.Def.Args[0])
	}
	concat := ir.OpConcatLast
	if n.Op == ir.OpSliceFirst {
		concat = ir.OpConcatFirst
	}
	if x.Def.Op != concat {
		return nil
	}
	var inside []*ir.Value
	at, covered := 0, 0
	for _, a := range x.Def.Args {
		end := at + along(concat, a.Type)
		if at <= from && to <= end {
			return s.make(n.Op, ir.A("from", from-at, "to", to-at), a)
		}
		if from <= at && end <= to {
			inside, covered = append(inside, a), covered+end-at
		}
		at = end
	}
	if covered != to-from {
		return nil
	}
	return s.make(concat, nil, inside...)
}

// A concatenation of one thing; neighbouring slices of one value, or equal
// constants, become one operand.
func simplifyConcat(s simplifier, n *ir.Node) *ir.Value {
	if len(n.Args) == 1 {
		return n.Args[0]
	}
	for i := range n.Args[1:] {
		if joined := s.join(n.Op, n.Args[i], n.Args[i+1]); joined != nil {
			args := slices.Replace(slices.Clone(n.Args), i, i+2, joined)
			return s.make(n.Op, nil, args...)
		}
	}
	return nil
}

// join gives the concatenation of two values as one that needs none, or nil.
func (s simplifier) join(concat ir.Op, a, b *ir.Value) *ir.Value {
	slice := ir.OpSliceLast
	if concat == ir.OpConcatFirst {
		slice = ir.OpSliceFirst
	}
	x, y := a.Def, b.Def
	if x.Op == slice && y.Op == slice && x.Args[0] == y.Args[0] && x.Int("to") == y.Int("from") {
		return s.make(slice, ir.A("from", x.Int("from"), "to", y.Int("to")), x.Args[0])
	}
	c, ok1 := constant(a)
	d, ok2 := constant(b)
	if !ok1 || !ok2 || c != d {
		return nil
	}
	shape := slices.Clone(a.Type.Sample())
	if concat == ir.OpConcatLast {
		shape[len(shape)-1] += b.Type.Last()
	} else {
		shape[0] += b.Type.Shape[0]
	}
	return s.constant(c, a.Type.With(shape...))
}
