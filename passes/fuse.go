package passes

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/vitgen/vitgen/ir"
)

// Fuse groups the nodes into kernels. An anchor (a matrix product, attention,
// a row op, a move or a reduction) gives a group its loops; pointwise nodes
// join it as epilogue where they follow from its result element by element,
// or as prologue where they only feed it. Sources and views stay outside.
//
// Before:
//
//	%2 = linear %0, %1 : f32[4|2,8]
//	%4 = add %2, %3 : f32[4|2,8]
//	%5 = gelu %4 {tanh=false} : f32[4|2,8]
//
// After:
//
//	group gemm {
//	* %2 = linear %0, %1 : f32[4|2,8]
//	  %4 = add %2, %3 : f32[4|2,8]
//	  %5 = gelu %4 {tanh=false} : f32[4|2,8]
//	}
//
// With epilogues off (the pass is disabled), every node is a group of its own;
// only what has no kernel alone is still joined (see anchorGroups).
func Fuse(g *ir.Graph) error { return fuse(g, true) }

// fuse is Fuse; without pointwise fusion if merge is false.
func fuse(g *ir.Graph, merge bool) error {
	if err := LegalizeViews(g); err != nil {
		return err
	}
	f := newFuser(g)
	for _, n := range g.Nodes {
		if f.of[n] == nil { // not taken along by an earlier node
			f.assign(n, merge)
		}
	}
	f.joinRowSums()
	if merge {
		f.prologues()
	}
	order, err := f.order()
	if err != nil {
		return err
	}
	g.Groups, g.Nodes = nil, nil
	for _, gr := range order {
		g.Groups = append(g.Groups, gr.Group)
		g.Nodes = append(g.Nodes, gr.Nodes...)
	}
	g.Stage = ir.StageFused
	return nil
}

// group is a Group while it grows.
type group struct {
	*ir.Group
	id    int      // order of creation
	space *ir.Type // iteration space an epilogue must share; nil: takes none
	dead  bool     // merged into another
}

type fuser struct {
	g      *ir.Graph
	groups []*group
	of     map[*ir.Node]*group
	uses   map[*ir.Value][]*ir.Node
	index  map[*ir.Node]int
}

func newFuser(g *ir.Graph) *fuser {
	f := &fuser{g: g, of: map[*ir.Node]*group{}, uses: g.Uses(), index: map[*ir.Node]int{}}
	for i, n := range g.Nodes {
		f.index[n] = i
	}
	return f
}

func (f *fuser) open(fam ir.Family, anchor *ir.Node, space *ir.Type) *group {
	gr := &group{Group: &ir.Group{Family: fam, Anchor: anchor}, id: len(f.groups), space: space}
	f.groups = append(f.groups, gr)
	return gr
}

func (f *fuser) put(gr *group, n *ir.Node) {
	gr.Nodes = append(gr.Nodes, n)
	f.of[n] = gr
}

// anchors says which family an anchor's kernel belongs to and whether its
// first result may be worked on before it is stored.
var anchors = map[ir.Op]struct {
	family   ir.Family
	epilogue bool
}{
	ir.OpLinear:           {ir.FamilyGemm, true},
	ir.OpLinearDX:         {ir.FamilyGemm, true},
	ir.OpLinearDW:         {ir.FamilyGemm, true},
	ir.OpHeadLinear:       {ir.FamilyGemm, true},
	ir.OpHeadLinearT:      {ir.FamilyGemm, true},
	ir.OpHeadLinearDW:     {ir.FamilyGemm, true},
	ir.OpAttention:        {ir.FamilyAttention, false},
	ir.OpAttentionGrad:    {ir.FamilyAttention, false},
	ir.OpLayerNorm:        {ir.FamilyRow, true},
	ir.OpLayerNormGrad:    {ir.FamilyRow, true},
	ir.OpCrossEntropy:     {ir.FamilyRow, false},
	ir.OpCrossEntropyGrad: {ir.FamilyRow, true},

	ir.OpLatentAttention:     {ir.FamilyAttention, false},
	ir.OpLatentAttentionGrad: {ir.FamilyAttention, false},

	ir.OpMixedCrossEntropy:     {ir.FamilyRow, false},
	ir.OpMixedCrossEntropyGrad: {ir.FamilyRow, true},

	ir.OpPatchify:    {ir.FamilyPointwise, true},
	ir.OpTranspose:   {ir.FamilyPointwise, true},
	ir.OpSumTokens:   {ir.FamilyReduce, true},
	ir.OpSumLeading:  {ir.FamilyReduce, false},
	ir.OpSumBatch:    {ir.FamilyReduce, false},
	ir.OpSumSquares:  {ir.FamilyReduce, false},
	ir.OpClipScale:   {ir.FamilyReduce, false},
	ir.OpSGD:         {ir.FamilyOptimizer, false},
	ir.OpSGDMomentum: {ir.FamilyOptimizer, false},
	ir.OpAdamW:       {ir.FamilyOptimizer, false},
	ir.OpEMA:         {ir.FamilyOptimizer, false},
}

// Elementwise reports whether a node computes one result element from
// elements it can load by index: pointwise ops and moves that only shift
// tokens.
func Elementwise(n *ir.Node) bool {
	switch n.Op {
	case ir.OpPrependToken, ir.OpSliceTokens:
		return true
	}
	return n.Op.Info().Class == ir.ClassPointwise
}

// byIndex reports whether operand i of an elementwise node is read at another
// index than the result's, so that it must come from memory.
func byIndex(n *ir.Node, i int) bool {
	switch n.Op {
	case ir.OpPrependToken, ir.OpSliceTokens, ir.OpPadTokens, ir.OpRepeatTokens, ir.OpBroadcastBatch:
		return true
	}
	return !n.Args[i].Type.Equal(n.Out().Type)
}

// assign puts a node into a group.
func (f *fuser) assign(n *ir.Node, merge bool) {
	switch class := n.Op.Info().Class; {
	case class == ir.ClassSource || class == ir.ClassView:
		f.put(f.open(ir.FamilyNone, nil, nil), n)
	case class == ir.ClassOptimizer:
		f.assignOptimizer(n)
	case Elementwise(n):
		f.assignElementwise(n, merge)
	default:
		f.assignAnchor(n)
	}
}

func (f *fuser) assignAnchor(n *ir.Node) {
	if lossGrad(n.Op) {
		if gr := f.lossGroup(n); gr != nil {
			f.put(gr, n)
			return
		}
	}
	a, ok := anchors[n.Op]
	if !ok {
		panic(fmt.Sprintf("BUG: no kernel family for %s", n.Op))
	}
	var space *ir.Type
	if a.epilogue && !wideRows(n) {
		space = &n.Out().Type
	}
	f.put(f.open(a.family, n, space), n)
}

// wideRows reports an op whose kernel sees rows over several dimensions of its
// operand, so that element functors of the operand's own shape do not fit it.
func wideRows(n *ir.Node) bool {
	switch n.Op {
	case ir.OpLayerNorm:
		return len(n.Args[1].Type.Shape) > 1
	case ir.OpLayerNormGrad:
		return len(n.Args[2].Type.Shape) > 1
	case ir.OpSumLeading:
		return len(n.Ints("shape")) != 1
	}
	return false
}

// lossGroup finds the group of the cross_entropy over the same logits, which
// computes the gradient in the same pass. Neither reads the other, so the loss
// may come later; it is then assigned now.
func (f *fuser) lossGroup(grad *ir.Node) *group {
	last := len(grad.Args) - 1
	for _, n := range f.uses[grad.Args[0]] {
		if lossOf[n.Op] == grad.Op && slices.Equal(n.Args, grad.Args[:last]) {
			if f.of[n] == nil {
				f.assignAnchor(n)
			}
			if gr := f.of[n]; !f.reaches(gr, grad.Args[last].Def) {
				return gr
			}
		}
	}
	return nil
}

// lossOf gives a loss the op of its gradient.
var lossOf = map[ir.Op]ir.Op{ir.OpCrossEntropy: ir.OpCrossEntropyGrad, ir.OpMixedCrossEntropy: ir.OpMixedCrossEntropyGrad}

// lossGrad reports the gradient of a loss.
func lossGrad(op ir.Op) bool { return op == ir.OpCrossEntropyGrad || op == ir.OpMixedCrossEntropyGrad }

// assignOptimizer gathers all updates in one group: one launch over the flat
// arenas.
func (f *fuser) assignOptimizer(n *ir.Node) {
	for _, gr := range f.groups {
		if gr.Family == ir.FamilyOptimizer {
			if gr.Anchor == nil { // opened by a clipped gradient
				gr.Anchor = n
			}
			f.put(gr, n)
			return
		}
	}
	f.put(f.open(ir.FamilyOptimizer, n, nil), n)
}

func (f *fuser) assignElementwise(n *ir.Node, merge bool) {
	if gr := f.optimizerScale(n); gr != nil {
		f.put(gr, n)
		return
	}
	if merge && !f.feedsReduction(n) {
		if gr := f.epilogueGroup(n); gr != nil {
			f.put(gr, n)
			return
		}
	}
	t := n.Out().Type
	f.put(f.open(ir.FamilyPointwise, nil, &t), n)
}

// optimizerScale gives the group of clipped gradients: mul(g, clip_scale),
// which the optimizer does itself.
func (f *fuser) optimizerScale(n *ir.Node) *group {
	if n.Op != ir.OpMul || n.Args[1].Def.Op != ir.OpClipScale {
		return nil
	}
	for _, gr := range f.groups {
		if gr.Family == ir.FamilyOptimizer {
			return gr
		}
	}
	return f.open(ir.FamilyOptimizer, nil, nil)
}

// feedsReduction reports whether n is only read by one reduction, directly or
// through more such nodes: cheaper to compute again inside it than to store.
func (f *fuser) feedsReduction(n *ir.Node) bool {
	u := f.uses[n.Out()]
	if len(u) != 1 || f.isOutput(n.Out()) {
		return false
	}
	switch u[0].Op {
	case ir.OpSumLeading:
		return !f.rowSumOf(u[0]) && !wideRows(u[0])
	case ir.OpSumTokens, ir.OpSumBatch:
		return true
	}
	return Elementwise(u[0]) && !byIndex(u[0], slices.Index(u[0].Args, n.Out())) && f.feedsReduction(u[0])
}

func (f *fuser) isOutput(v *ir.Value) bool {
	return slices.ContainsFunc(f.g.Outputs, func(o ir.Output) bool { return o.Value == v })
}

// epilogueGroup chooses the group that n can join: the latest one that
// computes an operand element by element in n's own space, if nothing that
// lies between the two would have to come both before and after.
func (f *fuser) epilogueGroup(n *ir.Node) *group {
	var best *group
	for i, a := range n.Args {
		gr := f.of[a.Def]
		if byIndex(n, i) || gr.space == nil || !gr.space.Equal(n.Out().Type) || !f.inSpace(gr, a) {
			continue
		}
		if best != nil && gr.id <= best.id || !f.legal(gr, n) || twin(gr, n) {
			continue
		}
		best = gr
	}
	return best
}

// twin reports whether the group computes the same as n already. Common
// subexpressions are gone by now: n is a copy that the recompute pass made
// for a later reader, and computing it here would keep it in memory after all.
func twin(gr *group, n *ir.Node) bool {
	return slices.ContainsFunc(gr.Nodes, func(m *ir.Node) bool {
		return m.Op == n.Op && slices.Equal(m.Args, n.Args) && reflect.DeepEqual(m.Attrs, n.Attrs)
	})
}

// inSpace reports whether value a is computed element by element in the
// group's space, not a second result such as a mean.
func (f *fuser) inSpace(gr *group, a *ir.Value) bool {
	if a.Def == gr.Anchor || lossGrad(a.Def.Op) {
		return a.Out == 0
	}
	return Elementwise(a.Def)
}

// legal reports whether n can run inside gr: every other operand exists before
// gr, and none is needed at another index while gr still computes it.
func (f *fuser) legal(gr *group, n *ir.Node) bool {
	for i, a := range n.Args {
		if f.of[a.Def] == gr {
			if byIndex(n, i) || !f.inSpace(gr, a) {
				return false
			}
		} else if f.reaches(gr, a.Def) {
			return false
		}
	}
	return true
}

// reaches reports whether node to depends, through other groups, on group from.
func (f *fuser) reaches(from *group, to *ir.Node) bool {
	seen := map[*group]bool{}
	var visit func(gr *group) bool
	visit = func(gr *group) bool {
		if gr == from {
			return true
		}
		if gr == nil || seen[gr] {
			return false
		}
		seen[gr] = true
		for _, n := range gr.Nodes {
			for _, a := range n.Args {
				if f.of[a.Def] != gr && visit(f.of[a.Def]) {
					return true
				}
			}
		}
		return false
	}
	return visit(f.of[to])
}

// order sorts the groups so that each comes after those it reads, otherwise
// by the place of its first node.
func (f *fuser) order() ([]*group, error) {
	var out []*group
	done := map[*group]uint8{} // 1: on the stack, 2: placed
	var visit func(gr *group) error
	visit = func(gr *group) error {
		switch done[gr] {
		case 2:
			return nil
		case 1:
			return fmt.Errorf("fusion made a cycle through group %d", gr.id)
		}
		done[gr] = 1
		slices.SortFunc(gr.Nodes, func(a, b *ir.Node) int { return f.index[a] - f.index[b] })
		for _, n := range gr.Nodes {
			for _, a := range n.Args {
				if h := f.of[a.Def]; h != gr {
					if err := visit(h); err != nil {
						return err
					}
				}
			}
		}
		done[gr] = 2
		out = append(out, gr)
		return nil
	}
	live := slices.DeleteFunc(slices.Clone(f.groups), func(gr *group) bool { return gr.dead })
	slices.SortStableFunc(live, func(a, b *group) int {
		return f.index[slices.MaxFunc(a.Nodes, f.byIndexOf)] - f.index[slices.MaxFunc(b.Nodes, f.byIndexOf)]
	})
	for _, gr := range live {
		if err := visit(gr); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (f *fuser) byIndexOf(a, b *ir.Node) int { return f.index[a] - f.index[b] }
