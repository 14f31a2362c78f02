package passes

import (
	"fmt"

	"github.com/vitgen/vitgen/ir"
)

// Canonicalize simplifies every node by the rules of its op (the table
// simplifications) and folds constants. What it leaves unread, DCE removes.
//
//	%1 = scale %0 {by=2.0} : f32[4|8]
//	%2 = scale %1 {by=0.5} : f32[4|8]
//	%3 = reshape %2 {shape=(2,4)} : f32[4|2,4]
//	%4 = reshape %3 {shape=(4,2)} : f32[4|4,2]
//
// becomes, unread nodes left out,
//
//	%4 = reshape %0 {shape=(4,2)} : f32[4|4,2]
//
// The graph is rebuilt node by node, and a rule sees a node whose operands are
// simplified already. What a rule makes goes through the rules again. This
// ends: a rule builds its result from the node's operands and what they are
// made of, and removes at least one op on the way from the sources, or turns
// an op into a simpler one (mul to scale; transpose, sum_tokens, repeat_tokens
// to reshape) that never turns back.
func Canonicalize(g *ir.Graph) error {
	rebuild(g, func(h *ir.Graph, n *ir.Node, args []*ir.Value) []*ir.Value {
		if len(n.Outs) > 1 {
			return copyNode(h, n, args)
		}
		s := simplifier{h, n.Pos, n.Layer}
		return []*ir.Value{s.make(n.Op, n.Attrs, args...)}
	})
	return nil
}

// simplifier makes nodes in their simplest form.
type simplifier struct {
	g     *ir.Graph
	pos   ir.Pos
	layer string
}

// make gives a value equal to that of the node described. Its ops have one
// result each.
func (s simplifier) make(op ir.Op, attrs ir.Attrs, args ...*ir.Value) *ir.Value {
	n := &ir.Node{Op: op, Attrs: attrs, Args: args}
	types, err := ir.InferTypes(n)
	if err != nil {
		panic(fmt.Sprintf("BUG: simplifying %s: %v", op, err))
	}
	n.Outs = []*ir.Value{{Type: types[0], Def: n}} // for the rules to look at; not in the graph
	v := s.fold(n)
	if rule := simplifications[op]; v == nil && rule != nil {
		v = rule(s, n)
	}
	if v == nil {
		v = s.g.MustAdd(op, s.pos, s.layer, attrs, args...).Out()
	}
	if !v.Type.Equal(types[0]) {
		panic(fmt.Sprintf("BUG: simplifying %s changed its type from %v to %v", op, types[0], v.Type))
	}
	return v
}

// constant reads a tensor whose elements are known and equal.
func constant(v *ir.Value) (c float64, ok bool) {
	if v.Def.Op != ir.OpConst {
		return 0, false
	}
	return v.Def.Float("value"), true
}

func (s simplifier) constant(c float64, t ir.Type) *ir.Value {
	return s.g.MustAdd(ir.OpConst, s.pos, s.layer, ir.A("value", c, "type", t)).Out()
}

// fold computes nodes whose operands are all constants, where the result is
// constant as well. Functions that targets compute in their own way, such as
// gelu, are left alone.
func (s simplifier) fold(n *ir.Node) *ir.Value {
	if len(n.Args) == 0 {
		return nil
	}
	cs := make([]float64, len(n.Args))
	for i, a := range n.Args {
		c, ok := constant(a)
		if !ok {
			return nil
		}
		cs[i] = c
	}
	c := cs[0]
	switch n.Op {
	case ir.OpReshape, ir.OpSliceFirst, ir.OpSliceLast, ir.OpSliceTokens, ir.OpTranspose, ir.OpRepeatTokens, ir.OpBroadcastBatch:
	case ir.OpConcatFirst, ir.OpConcatLast, ir.OpPrependToken:
		for _, d := range cs[1:] {
			if d != c {
				return nil
			}
		}
	case ir.OpPadTokens:
		if c != 0 {
			return nil
		}
	case ir.OpAdd:
		c += cs[1]
	case ir.OpMul:
		c *= cs[1]
	case ir.OpScale:
		c *= n.Float("by")
	case ir.OpRelu:
		c = max(c, 0)
	default:
		return nil
	}
	return s.constant(c, n.Out().Type)
}
