package passes

import "github.com/vitgen/vitgen/ir"

// DCE removes nodes that no output depends on.
//
//	%0 = param {name="w", type=f32[8]} : f32[8]
//	%1 = scale %0 {by=2.0} : f32[8]
//	%2 = relu %0 : f32[8]
//	return y=%2
//
// becomes
//
//	%0 = param {name="w", type=f32[8]} : f32[8]
//	%1 = relu %0 : f32[8]
//	return y=%1
//
// Inputs and parameters stay even when unread: they are the program's
// signature, and a parameter that does not matter still has a gradient, zero.
func DCE(g *ir.Graph) error {
	live := liveNodes(g)
	rebuild(g, func(h *ir.Graph, n *ir.Node, args []*ir.Value) []*ir.Value {
		if !live[n] {
			return nil
		}
		return copyNode(h, n, args)
	})
	return nil
}

func liveNodes(g *ir.Graph) map[*ir.Node]bool {
	live := map[*ir.Node]bool{}
	for _, o := range g.Outputs {
		live[o.Value.Def] = true
	}
	for i := len(g.Nodes) - 1; i >= 0; i-- {
		n := g.Nodes[i]
		if n.Op == ir.OpParam || n.Op == ir.OpInput {
			live[n] = true
		}
		if live[n] {
			for _, a := range n.Args {
				live[a.Def] = true
			}
		}
	}
	return live
}
