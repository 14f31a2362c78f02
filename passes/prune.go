package passes

import (
	"github.com/vitgen/vitgen/ir"
)

// Prune computes only the rows (tokens) that are read. A slice_tokens sinks
// backward through everything that treats rows alike: pointwise ops, linear,
// layernorm over channels, the queries of attention. On the published ViT,
// where the head reads token 0, the last block shrinks to one query row and a
// one-row MLP; only its keys and values remain whole.
//
//	%2 = linear %0, %1 : f32[4|37,8]
//	%4 = add %2, %3 : f32[4|37,8]
//	%5 = dropout %4 {first_row=0, p=0.1, rows=37, site=0} : f32[4|37,8]
//	%6 = slice_tokens %5 {from=0, to=1} : f32[4|1,8]
//
// becomes
//
//	%6 = slice_tokens %0 {from=0, to=1} : f32[4|1,64]
//	%2 = linear %6, %1 : f32[4|1,8]
//	%4 = add %2, %3 : f32[4|1,8]
//	%5 = dropout %4 {first_row=0, p=0.1, rows=37, site=0} : f32[4|1,8]
//
// It is exact: rows that remain go through the same operations on the same
// numbers, and dropout and attention draw by the row's place in the whole
// tensor (first_row, q_first).
//
// First, demand: a walk from the outputs finds for every tokens value the hull
// of the rows that anybody reads. Then each node is rebuilt for the rows
// demanded of it; a reader that wants fewer than are there slices. A value
// read whole by one reader and in part by another is computed once, whole.
// Before that, splitProjections takes joint projections apart whose parts are
// demanded in different rows.
func Prune(g *ir.Graph) error {
	if g.Stage != ir.StageForward {
		panic("BUG: pruning rows of a graph that has gradients")
	}
	if err := DCE(g); err != nil { // unread slices would stand in the way
		return err
	}
	// Each round splits at least one projection into narrower ones whose parts
	// are demanded alike, and those are never split again.
	for splitProjections(g, demand(g)) {
	}
	rebuildDemanded(g, demand(g))
	return nil
}

// rows is a range of tokens, from ≤ t < to; empty if nothing is read.
type rows struct{ from, to int }

func (r rows) empty() bool { return r.from >= r.to }

func (r rows) hull(q rows) rows {
	switch {
	case r.empty():
		return q
	case q.empty():
		return r
	}
	return rows{min(r.from, q.from), max(r.to, q.to)}
}

// allRows is the whole of a value. A value that is no batch of tokens counts
// as one row: read or not.
func allRows(v *ir.Value) rows {
	if isTokens(v.Type) {
		return rows{0, v.Type.Sample()[0]}
	}
	return rows{0, 1}
}

func isTokens(t ir.Type) bool { return t.Batched && len(t.Sample()) == 2 }

// demand finds the rows of each value that some reader needs. Values that
// nothing depends on are absent.
func demand(g *ir.Graph) map[*ir.Value]rows {
	need := map[*ir.Value]rows{}
	for _, o := range g.Outputs {
		need[o.Value] = allRows(o.Value)
	}
	for i := len(g.Nodes) - 1; i >= 0; i-- {
		n := g.Nodes[i]
		want, read := demanded(n, need)
		if !read {
			continue
		}
		for j, r := range sink(n, want) {
			need[n.Args[j]] = need[n.Args[j]].hull(r)
		}
	}
	return need
}

// demanded gives the rows needed of a node's first result, and whether any of
// its results is needed. Statistics and the like need all rows.
func demanded(n *ir.Node, need map[*ir.Value]rows) (want rows, read bool) {
	want, read = need[n.Out()]
	for _, o := range n.Outs[1:] {
		if _, used := need[o]; used {
			return allRows(n.Out()), true
		}
	}
	return want, read
}

// sink says which rows of each operand a node needs to give the wanted rows of
// its first result. This is the one place that knows how ops treat rows.
func sink(n *ir.Node, want rows) []rows {
	args := make([]rows, len(n.Args))
	for i, a := range n.Args {
		args[i] = allRows(a)
	}
	if !isTokens(n.Out().Type) {
		return args
	}
	switch n.Op {
	case ir.OpSliceTokens:
		from := n.Int("from")
		if r := (rows{from + want.from, from + want.to}); worthSinking(r, args[0]) {
			args[0] = r
		}
	case ir.OpPrependToken:
		// At least one row: the op takes no empty tensor.
		args[0] = rows{max(want.from-1, 0), max(want.to-1, 1)}
	case ir.OpLinear, ir.OpSliceLast, ir.OpAttention:
		args[0] = want
	case ir.OpLayerNorm:
		if len(n.Args[1].Type.Shape) == 1 { // over channels only
			args[0] = want
		}
	case ir.OpConcatLast:
		for i := range args {
			args[i] = want
		}
	default:
		if n.Op.Info().Class == ir.ClassPointwise && n.Op != ir.OpPadTokens && n.Op != ir.OpRepeatTokens {
			for i, a := range n.Args {
				if isTokens(a.Type) {
					args[i] = want
				}
			}
		}
	}
	return args
}

// worthSinking asks that a slice drop a quarter of the rows. Dropping a few
// (a mean over all tokens but the first) saves next to nothing, and costs the
// padding of gradients and rows that no longer lie as the kernels like them.
func worthSinking(r, all rows) bool {
	return 4*(r.to-r.from) <= 3*(all.to-all.from)
}

// narrows reports whether a node can be rebuilt for some of its rows: exactly
// if sink passes demands on.
func narrows(n *ir.Node, want rows) bool {
	if want == allRows(n.Out()) {
		return false
	}
	for i, r := range sink(n, want) {
		if r != allRows(n.Args[i]) {
			return true
		}
	}
	return false
}
