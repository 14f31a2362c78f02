package passes

import (
	"slices"

	"github.com/vitgen/vitgen/ir"
)

// splitProjections takes apart linear layers whose result is read in column
// slices that are demanded in different rows, as those of a pruned attention:
//
//	%4 = concat_first %1, %2, %3 : f32[24,8]
//	%5 = linear %0, %4 : f32[4|37,24]
//	%6 = slice_last %5 {from=0, to=8} : f32[4|37,8]      one row read
//	%7 = slice_last %5 {from=8, to=16} : f32[4|37,8]     all rows read
//	%8 = slice_last %5 {from=16, to=24} : f32[4|37,8]    all rows read
//
// becomes
//
//	%6 = linear %0, %1 : f32[4|37,8]
//	%4 = concat_first %2, %3 : f32[16,8]
//	%5 = linear %0, %4 : f32[4|37,16]
//	%7 = slice_last %5 {from=0, to=8} : f32[4|37,8]
//	%8 = slice_last %5 {from=8, to=16} : f32[4|37,8]
//
// Columns that nobody reads go. A bias between product and slices is split
// along. It reports whether it split anything.
func splitProjections(g *ir.Graph, need map[*ir.Value]rows) bool {
	uses := g.Uses()
	returned := map[*ir.Value]bool{}
	for _, o := range g.Outputs {
		returned[o.Value] = true
	}
	of := map[*ir.Value]*projection{} // by the value that is sliced
	for _, n := range g.Nodes {
		if pr := findProjection(n, uses, returned, need); pr != nil {
			of[pr.sliced] = pr
		}
	}
	if len(of) == 0 {
		return false
	}
	rebuild(g, func(h *ir.Graph, n *ir.Node, args []*ir.Value) []*ir.Value {
		s := simplifier{h, n.Pos, n.Layer}
		if pr := of[n.Out()]; pr != nil {
			pr.build(s, n, args)
			return nil
		}
		if n.Op == ir.OpSliceLast {
			if pr := of[n.Args[0]]; pr != nil {
				return []*ir.Value{pr.column(s, n)}
			}
		}
		if slices.Contains(args, nil) {
			panic("BUG: " + n.Op.String() + " reads a projection that was split")
		}
		return copyNode(h, n, args)
	})
	return true
}

// projection is a linear layer to be split.
type projection struct {
	linear *ir.Node
	sliced *ir.Value // its result, or that with the bias added
	bias   *ir.Value // nil: none
	groups []columns
}

// columns is a group of neighbouring column slices demanded in the same rows.
type columns struct {
	from, to int
	rows     rows
	value    *ir.Value // the narrower projection, once built
}

// findProjection recognizes a linear node worth splitting.
func findProjection(n *ir.Node, uses map[*ir.Value][]*ir.Node, returned map[*ir.Value]bool, need map[*ir.Value]rows) *projection {
	if n.Op != ir.OpLinear || !isTokens(n.Out().Type) || returned[n.Out()] {
		return nil
	}
	pr := &projection{linear: n, sliced: n.Out()}
	if us := uses[n.Out()]; len(us) == 1 && us[0].Op == ir.OpAdd && us[0].Args[0] == n.Out() {
		if b := us[0].Args[1]; !b.Type.Batched && len(b.Type.Shape) == 1 {
			pr.sliced, pr.bias = us[0].Out(), b
		}
	}
	if returned[pr.sliced] {
		return nil
	}
	var cols []columns
	for _, u := range uses[pr.sliced] {
		if u.Op != ir.OpSliceLast {
			return nil
		}
		cols = append(cols, columns{from: u.Int("from"), to: u.Int("to"), rows: need[u.Out()]})
	}
	pr.groups = groupColumns(cols)
	if !pr.worthwhile() {
		return nil
	}
	return pr
}

// groupColumns joins neighbours that are demanded alike; nil where slices
// overlap.
func groupColumns(cols []columns) []columns {
	slices.SortStableFunc(cols, func(a, b columns) int {
		if a.from != b.from {
			return a.from - b.from
		}
		return a.to - b.to
	})
	var groups []columns
	for _, c := range cols {
		last := len(groups) - 1
		switch {
		case last >= 0 && c.from < groups[last].to:
			return nil
		case last >= 0 && c.from == groups[last].to && c.rows == groups[last].rows:
			groups[last].to = c.to
		default:
			groups = append(groups, c)
		}
	}
	return groups
}

// worthwhile asks that the parts compute an eighth less than the whole, which
// pays for the additional launches.
func (pr *projection) worthwhile() bool {
	if len(pr.groups) == 0 {
		return false
	}
	var hull rows
	parts := 0
	for _, c := range pr.groups {
		hull = hull.hull(c.rows)
		parts += (c.rows.to - c.rows.from) * (c.to - c.from)
	}
	whole := (hull.to - hull.from) * pr.sliced.Type.Last()
	return 8*parts <= 7*whole
}

// build adds the narrower projections; n is the linear or the add of the bias,
// args its new operands.
func (pr *projection) build(s simplifier, n *ir.Node, args []*ir.Value) {
	x, w := args[0], args[1]
	var bias *ir.Value
	if pr.bias != nil { // n adds the bias to the product that is now unread
		bias = args[1]
		x, w = args[0].Def.Args[0], args[0].Def.Args[1]
	}
	for i := range pr.groups {
		c := &pr.groups[i]
		slice := ir.A("from", c.from, "to", c.to)
		lin := simplifier{s.g, pr.linear.Pos, pr.linear.Layer}
		c.value = lin.make(ir.OpLinear, nil, x, lin.make(ir.OpSliceFirst, slice, w))
		if bias != nil {
			c.value = s.make(ir.OpAdd, nil, c.value, s.make(ir.OpSliceFirst, slice, bias))
		}
	}
}

// column gives what the slice_last node n reads of the narrower projections.
func (pr *projection) column(s simplifier, n *ir.Node) *ir.Value {
	from, to := n.Int("from"), n.Int("to")
	for _, c := range pr.groups {
		if c.from <= from && to <= c.to {
			return s.make(ir.OpSliceLast, ir.A("from", from-c.from, "to", to-c.from), c.value)
		}
	}
	panic("BUG: a column slice lies in no part of its projection")
}
