package passes

import (
	"slices"

	"github.com/vitgen/vitgen/ir"
)

// Absorb moves the projections of keys and values to the side of the queries
// where there are few of these, as pruning leaves them in the last block: the
// weight absorption of multi-head latent attention (DeepSeek-AI 2024, DeepSeek-V2,
// section 2.1.2). A matrix product is associative: with k_j = W_k·x_j and
// v_j = W_v·x_j, head h has
//
//	score_j = q_h·(W_k,h·x_j) = (W_k,hᵀ·q_h)·x_j
//	o_h     = Σ_j p_j·W_v,h·x_j = W_v,h·(Σ_j p_j·x_j)
//
// so that no key or value need be formed. W_k,hᵀ·q_h is as wide as x, and all heads
// attend to x itself.
//
//	%4 = concat_first %2, %3 : f32[16,8]
//	%5 = linear %0, %4 : f32[4|37,16]
//	%6 = slice_last %5 {from=0, to=8} : f32[4|37,8]
//	%7 = slice_last %5 {from=8, to=16} : f32[4|37,8]
//	%8, %9 = attention %1, %6, %7 {heads=2, …} : f32[4|1,8], f32[4|2,1]
//
// becomes
//
//	%4 = head_linear_t %1, %2 {heads=2} : f32[4|1,16]
//	%5, %6 = latent_attention %4, %0 {heads=2, …} : f32[4|1,16], f32[4|2,1]
//	%7 = head_linear %5, %3 {heads=2} : f32[4|1,8]
//
// For one query row of T tokens of D channels that is 2·D² + 2·T·heads·D
// multiplications instead of 2·T·D² + 2·T·D, and the gradient, which autodiff
// makes of the result, saves as much in proportion. Results differ by rounding.
//
// Biases: that of the keys adds q_h·b_h to all scores of a row, which softmax does
// not see; it goes, and its gradient is zero, as it was but for rounding. That of
// the values is added to o, for the weights of a row sum up to one. After dropout
// they do not; then their sums come along behind o, one a head, and multiply it:
//
//	%5, %6 = latent_attention %4, %0 {heads=2, …, sums=true} : f32[4|1,18], f32[4|2,1]
//	%7 = slice_last %5 {from=0, to=16} : f32[4|1,16]
//	%8 = head_linear %7, %3 {heads=2} : f32[4|1,8]
//	%9 = slice_last %5 {from=16, to=18} : f32[4|1,2]
//	%11 = reshape %10 {shape=(8,1)} : f32[8,1]
//	%12 = head_linear %9, %11 {heads=2} : f32[4|1,8]
//	%13 = add %8, %12 : f32[4|1,8]
//
// Dropout draws for the same weights at the same indices as before.
func Absorb(g *ir.Graph) error { return absorbWhere(g, absorptionPays) }

// absorbWhere absorbs where it is possible and pays, which is asked with the types of
// queries and tokens and the number of heads.
func absorbWhere(g *ir.Graph, pays func(q, x ir.Type, heads int) bool) error {
	a := absorber{uses: g.Uses(), returned: map[*ir.Value]bool{}}
	chosen := map[*ir.Value]bool{} // by the attention's output
	for _, o := range g.Outputs {
		a.returned[o.Value] = true
	}
	for _, n := range g.Nodes {
		if x := a.tokens(n); x != nil && pays(n.Args[0].Type, x.Type, n.Int("heads")) {
			chosen[n.Out()] = true
		}
	}
	if len(chosen) == 0 {
		return nil
	}
	rebuild(g, func(h *ir.Graph, n *ir.Node, args []*ir.Value) []*ir.Value {
		if chosen[n.Out()] {
			return absorb(simplifier{h, n.Pos, n.Layer}, n, args)
		}
		return copyNode(h, n, args)
	})
	return DCE(g) // the projections
}

type absorber struct {
	uses     map[*ir.Value][]*ir.Node
	returned map[*ir.Value]bool // the values that the graph returns
}

// inputProjection is what a value comes from by a linear layer, of which it may be
// a slice.
type inputProjection struct {
	x, weight, bias *ir.Value // bias: nil if there is none
	from, to        int       // rows of weight and bias
	nodes           []*ir.Node
}

// projectionOf recognizes a value that is nothing but a projection of tokens; nil:
// it is more, or something else.
func projectionOf(v *ir.Value) *inputProjection {
	p := &inputProjection{to: v.Type.Last()}
	n := v.Def
	next := func() {
		p.nodes = append(p.nodes, n)
		n = n.Args[0].Def
	}
	for n.Op == ir.OpSliceLast {
		p.from, p.to = p.from+n.Int("from"), p.to+n.Int("from")
		next()
	}
	if n.Op == ir.OpAdd && !n.Args[1].Type.Batched && len(n.Args[1].Type.Shape) == 1 {
		p.bias = n.Args[1]
		next()
	}
	if n.Op != ir.OpLinear {
		return nil
	}
	p.nodes = append(p.nodes, n)
	p.x, p.weight = n.Args[0], n.Args[1]
	return p
}

// part gives the projection's rows of its weight or bias.
func (p *inputProjection) part(s simplifier, w *ir.Value) *ir.Value {
	return s.make(ir.OpSliceFirst, ir.A("from", p.from, "to", p.to), w)
}

// tokens gives what an attention's keys and values are projections of, if they can
// be absorbed; else nil.
func (a *absorber) tokens(n *ir.Node) *ir.Value {
	if n.Op != ir.OpAttention {
		return nil
	}
	k, v := projectionOf(n.Args[1]), projectionOf(n.Args[2])
	if k == nil || v == nil || k.x != v.x {
		return nil
	}
	if len(a.uses[n.Outs[1]]) > 0 || a.returned[n.Outs[1]] { // lse would be another
		return nil
	}
	// The projections must have no other reader, or they would be computed as well.
	inside := append(slices.Concat(k.nodes, v.nodes), n)
	for _, m := range inside[:len(inside)-1] {
		outside := func(u *ir.Node) bool { return !slices.Contains(inside, u) }
		if a.returned[m.Out()] || slices.ContainsFunc(a.uses[m.Out()], outside) {
			return nil
		}
	}
	return k.x
}

// absorptionPays compares multiplications in a sample, forward: those backward are
// in proportion. In products per head and attention of few rows each takes three to
// five times as long as in the large products they replace, launches included.
func absorptionPays(q, x ir.Type, heads int) bool {
	rows, D := q.Sample()[0], q.Last()
	T, W := x.Sample()[0], x.Last()
	formed := T*W*D + rows*T*D
	absorbed := rows*W*D + rows*T*heads*W
	return 4*absorbed <= formed
}

// absorb makes what stands for the attention n; args are its new operands.
func absorb(s simplifier, n *ir.Node, args []*ir.Value) []*ir.Value {
	k, v := projectionOf(args[1]), projectionOf(args[2])
	heads := ir.A("heads", n.Int("heads"))
	sums := v.bias != nil && n.Float("p") > 0
	u := s.make(ir.OpHeadLinearT, heads, args[0], k.part(s, k.weight))
	o := s.g.MustAdd(ir.OpLatentAttention, n.Pos, n.Layer, n.Attrs.With("sums", sums), u, k.x)
	columns := func(from, to int) *ir.Value {
		return s.make(ir.OpSliceLast, ir.A("from", from, "to", to), o.Out())
	}
	width := u.Type.Last()
	y := s.make(ir.OpHeadLinear, heads, columns(0, width), v.part(s, v.weight))
	if v.bias != nil {
		bias := v.part(s, v.bias)
		if sums {
			column := s.make(ir.OpReshape, ir.A("shape", []int{bias.Type.Last(), 1}), bias)
			bias = s.make(ir.OpHeadLinear, heads, columns(width, o.Out().Type.Last()), column)
		}
		y = s.make(ir.OpAdd, nil, y, bias)
	}
	return []*ir.Value{y, o.Outs[1]}
}
