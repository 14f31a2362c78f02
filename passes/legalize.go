package passes

import (
	"slices"
	"strings"

	"github.com/vitgen/vitgen/ir"
)

// LegalizeViews inserts the copies that let every view and every output share
// memory as ir.Graph.Layout describes. A copy is `scale {by=1.0}`: pointwise,
// so it still fuses with its neighbours.
//
// Before:
//
//	%3 = concat_last %1, %1
//
// After:
//
//	%4 = scale %1 {by=1.0}
//	%3 = concat_last %1, %4
//
// It must run after canonicalization, which would undo it.
func LegalizeViews(g *ir.Graph) error {
	placed := map[*ir.Value]bool{} // lies inside a concatenation
	for _, n := range slices.Clone(g.Nodes) {
		switch {
		case isConcat(n):
			for i, a := range n.Args {
				if ownsMemory(a) || placed[a] {
					n.Args[i] = copyBefore(g, n, a)
				}
				placed[n.Args[i]] = true
			}
		case n.Op == ir.OpReshape:
			a := n.Args[0]
			if n.Out().Type.Last() != a.Type.Last() && strided(a, placed) {
				n.Args[0] = copyBefore(g, n, a)
			}
		case n.Op == ir.OpTranspose || n.Op == ir.OpPatchify || wideRows(n):
			for i, a := range n.Args {
				if a.Type.Batched && strided(a, placed) {
					n.Args[i] = copyBefore(g, n, a)
				}
			}
		}
	}
	return legalizeOutputs(g, placed)
}

// isConcat reports a concatenation that has memory of its own.
func isConcat(n *ir.Node) bool {
	return n.Op == ir.OpConcatLast || n.Op == ir.OpConcatFirst && !ir.OfParams(n)
}

// ownsMemory reports whether a value's place is fixed by something else than
// its reader: a source, or a view into another value.
func ownsMemory(v *ir.Value) bool {
	switch v.Def.Op.Info().Class {
	case ir.ClassSource:
		return true
	case ir.ClassView:
		return !isConcat(v.Def)
	}
	return false
}

// strided reports whether the rows of v may stand apart in memory.
func strided(v *ir.Value, placed map[*ir.Value]bool) bool {
	for {
		if v.Def.Op == ir.OpSliceLast || placed[v] {
			return true
		}
		if v.Def.Op != ir.OpReshape && v.Def.Op != ir.OpSliceFirst {
			return false
		}
		v = v.Def.Args[0]
	}
}

// viewedRoot follows reshapes and slices to the value they look at.
func viewedRoot(v *ir.Value) *ir.Value {
	for v.Def.Op == ir.OpReshape || v.Def.Op == ir.OpSliceFirst || v.Def.Op == ir.OpSliceLast {
		v = v.Def.Args[0]
	}
	return v
}

// legalizeOutputs gives every output memory that nothing else claims.
func legalizeOutputs(g *ir.Graph, placed map[*ir.Value]bool) error {
	type span struct {
		root *ir.Value
		from int
	}
	taken := map[span]bool{}
	for i, o := range g.Outputs {
		v := o.Value
		root := viewedRoot(v)
		sp := span{root, 0}
		if v.Def.Op == ir.OpSliceFirst {
			sp.from = v.Def.Int("from")
		}
		grad := strings.HasPrefix(o.Name, "grad.")
		fixed := grad || o.Name == "logits" || o.Name == "loss" || o.Name == "correct"
		if !fixed {
			continue // updated parameters lie where the optimizer writes them
		}
		sliced := v.Def.Op != ir.OpReshape && root != v && !grad
		if root.Def.Op.Info().Class == ir.ClassSource || taken[sp] || placed[root] || strided(v, placed) || sliced || ir.OfParams(root.Def) {
			n := g.MustAdd(ir.OpScale, v.Def.Pos, v.Def.Layer, ir.A("by", 1.0), v)
			g.Outputs[i].Value = n.Out()
			continue
		}
		taken[sp] = true
	}
	return nil
}

func copyBefore(g *ir.Graph, at *ir.Node, v *ir.Value) *ir.Value {
	return g.InsertBefore(at, ir.OpScale, v.Def.Pos, v.Def.Layer, ir.A("by", 1.0), v).Out()
}
