package passes

import (
	"slices"

	"github.com/vitgen/vitgen/ir"
)

// rowSumOf reports whether a sum_leading can ride on a linear_dw that reads
// the same dy: the product packs dy anyway and sums its columns on the way
// (the bias gradient costs nothing).
func (f *fuser) rowSumOf(sum *ir.Node) bool { return f.weightGradOf(sum) != nil }

func (f *fuser) weightGradOf(sum *ir.Node) *ir.Node {
	x := sum.Args[0]
	if s := sum.Ints("shape"); len(s) != 1 {
		return nil
	}
	for _, u := range f.uses[x] {
		if u.Op == ir.OpLinearDW && u.Args[0] == x {
			return u
		}
	}
	return nil
}

// joinRowSums moves each such sum_leading into its linear_dw's group. One sum
// a product; a second (its operand would be the same value, so CSE leaves
// none) keeps its own kernel.
func (f *fuser) joinRowSums() {
	taken := map[*group]bool{}
	for _, n := range f.g.Nodes {
		if n.Op != ir.OpSumLeading {
			continue
		}
		dw := f.weightGradOf(n)
		if dw == nil || taken[f.of[dw]] {
			continue
		}
		from, to := f.of[n], f.of[dw]
		if from == to || len(from.Nodes) != 1 || f.reachedBetween(from, to) {
			continue
		}
		from.dead = true
		f.put(to, n)
		taken[to] = true
	}
}

// reachedBetween reports whether merging a and b would close a cycle: a path
// from one to the other through a third group.
func (f *fuser) reachedBetween(a, b *group) bool {
	through := func(x, y *group) bool {
		for _, n := range y.Nodes {
			for _, arg := range n.Args {
				if h := f.of[arg.Def]; h != x && h != y && f.reaches(x, arg.Def) {
					return true
				}
			}
		}
		return false
	}
	return through(a, b) || through(b, a)
}

// light lists the pointwise ops cheap enough to be computed while a matrix
// product packs its operand, which may happen more than once per element.
var light = map[ir.Op]bool{
	ir.OpAdd: true, ir.OpMul: true, ir.OpScale: true, ir.OpRelu: true, ir.OpReluGrad: true,
	ir.OpSliceTokens: true, ir.OpPadTokens: true, ir.OpRepeatTokens: true, ir.OpPrependToken: true,
}

// prologueOperands says which operands of an anchor are read through a source
// functor.
var prologueOperands = map[ir.Op][]int{
	ir.OpLinear:           {0},
	ir.OpLinearDX:         {0},
	ir.OpLinearDW:         {0, 1},
	ir.OpLayerNorm:        {0},
	ir.OpLayerNormGrad:    {0, 1},
	ir.OpSumTokens:        {0},
	ir.OpSumLeading:       {0},
	ir.OpSumBatch:         {0},
	ir.OpCrossEntropy:     {0},
	ir.OpCrossEntropyGrad: {0, 2},

	ir.OpMixedCrossEntropy:     {0},
	ir.OpMixedCrossEntropyGrad: {0, 4},
}

// prologues merges a pointwise group into the only kernel that reads its only
// result, where that kernel reads it through a source functor.
func (f *fuser) prologues() {
	for _, q := range f.groups {
		if q.dead || q.Family != ir.FamilyPointwise || q.Anchor != nil {
			continue
		}
		if into := f.soleReader(q); into != nil {
			q.dead = true
			for _, n := range q.Nodes {
				f.put(into, n)
			}
		}
	}
}

// soleReader finds the group that may absorb the pointwise group q, or nil.
func (f *fuser) soleReader(q *group) *group {
	var result *ir.Value
	for _, n := range q.Nodes {
		outside := f.isOutput(n.Out()) || slices.ContainsFunc(f.uses[n.Out()], func(u *ir.Node) bool { return f.of[u] != q })
		if outside && result != nil {
			return nil
		} else if outside {
			result = n.Out()
		}
	}
	if result == nil || f.isOutput(result) {
		return nil
	}
	var into *group
	for _, u := range f.uses[result] {
		if f.of[u] == q {
			continue
		}
		if into != nil && f.of[u] != into {
			return nil
		}
		into = f.of[u]
		if !f.readsThroughSource(into, u, result) {
			return nil
		}
	}
	if into.Family == ir.FamilyGemm && slices.ContainsFunc(q.Nodes, func(n *ir.Node) bool { return !light[n.Op] }) {
		return nil
	}
	return into
}

// readsThroughSource reports whether node u of group gr reads v only where the
// kernel takes a source functor.
func (f *fuser) readsThroughSource(gr *group, u *ir.Node, v *ir.Value) bool {
	if gr.Anchor == nil || wideRows(u) || u != gr.Anchor && u.Op != ir.OpSumLeading && !lossGrad(u.Op) {
		return false
	}
	for i, a := range u.Args {
		if a == v && !slices.Contains(prologueOperands[u.Op], i) {
			return false
		}
	}
	return true
}
