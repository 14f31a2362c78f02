package ir

// FLOPs counts the floating-point operations of a graph's contractions at full
// batch, a multiplication and an addition as two:
//
//	linear, linear_dx, linear_dw   2·rows·N·K
//	attention                      2 products (q·kᵀ, p·v), 2·B·T_q·T_k·D each
//	attention_grad                 5 products (q·kᵀ again, do·vᵀ, pᵀ·do, ds·k, dsᵀ·q)
//	head_linear…                   2·rows·heads·N·K
//	latent_attention…              as attention, over heads of width D: 2·B·T_q·T_k·heads·D
//
// A causal mask does not lower the count. Everything else is a few operations
// per element, bound by memory, and left out.
func FLOPs(g *Graph) int64 {
	var sum int64
	for _, n := range g.Nodes {
		sum += NodeFLOPs(n)
	}
	return sum
}

// NodeFLOPs is the count for one node; 0 for what FLOPs leaves out.
func NodeFLOPs(n *Node) int64 {
	switch n.Op {
	case OpLinear, OpLinearDX, OpHeadLinear, OpHeadLinearT:
		w := n.Args[1].Type
		return 2 * int64(n.Args[0].Type.Elems()/n.Args[0].Type.Last()) * int64(w.Elems())
	case OpLinearDW:
		dy, x := n.Args[0].Type, n.Args[1].Type
		return 2 * int64(dy.Elems()) * int64(x.Last())
	case OpHeadLinearDW:
		dy, x := n.Args[0].Type, n.Args[1].Type
		return 2 * int64(dy.Elems()) * int64(x.Last()/n.Int("heads"))
	case OpAttention, OpLatentAttention:
		return 2 * attentionProduct(n.Args[0].Type, n.Args[1].Type)
	case OpAttentionGrad, OpLatentAttentionGrad:
		return 5 * attentionProduct(n.Args[1].Type, n.Args[2].Type)
	}
	return 0
}

// attentionProduct is the cost of one product of queries and keys: over all
// heads together, the head size sums up to D.
func attentionProduct(q, k Type) int64 {
	return 2 * int64(q.Elems()) * int64(k.Sample()[0])
}
