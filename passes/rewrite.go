package passes

import "github.com/vitgen/vitgen/ir"

// rebuild makes a graph anew: fn is called for each node in order, its
// operands already replaced, adds what it wants to h and gives the values that
// stand for the node's results. Values are numbered afresh.
//
// A pass written this way goes through the graph once, so it ends.
func rebuild(g *ir.Graph, fn func(h *ir.Graph, n *ir.Node, args []*ir.Value) []*ir.Value) {
	if g.Groups != nil {
		panic("BUG: rewriting a fused graph")
	}
	h := ir.NewGraph(g.Name, g.File)
	h.Stage = g.Stage
	vals := make(map[*ir.Value]*ir.Value)
	for _, n := range g.Nodes {
		args := make([]*ir.Value, len(n.Args))
		for i, a := range n.Args {
			args[i] = vals[a]
		}
		for i, v := range fn(h, n, args) {
			vals[n.Outs[i]] = v
		}
	}
	for _, o := range g.Outputs {
		h.Return(o.Name, vals[o.Value])
	}
	*g = *h
}

// copyNode adds the same node to h.
func copyNode(h *ir.Graph, n *ir.Node, args []*ir.Value) []*ir.Value {
	return h.MustAdd(n.Op, n.Pos, n.Layer, n.Attrs, args...).Outs
}
