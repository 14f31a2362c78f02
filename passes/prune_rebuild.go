package passes

import (
	"fmt"

	"github.com/vitgen/vitgen/ir"
)

// rebuildDemanded rebuilds each node for the rows demanded of it, and leaves
// out what nothing depends on.
func rebuildDemanded(g *ir.Graph, need map[*ir.Value]rows) {
	p := &pruner{have: map[*ir.Value]narrowed{}, slices: map[slicedRows]*ir.Value{}}
	rebuild(g, func(h *ir.Graph, n *ir.Node, _ []*ir.Value) []*ir.Value {
		p.simplifier = simplifier{h, n.Pos, n.Layer}
		want, read := demanded(n, need)
		if !read {
			if n.Op != ir.OpParam && n.Op != ir.OpInput { // the program's signature
				return nil
			}
			want = allRows(n.Out())
		}
		outs, got := p.node(n, want)
		p.have[n.Out()] = narrowed{outs[0], got}
		for i, o := range n.Outs[1:] {
			p.have[o] = narrowed{outs[i+1], allRows(o)}
		}
		return outs
	})
}

// pruner makes the nodes of the pruned graph.
type pruner struct {
	simplifier
	have   map[*ir.Value]narrowed // by value of the old graph
	slices map[slicedRows]*ir.Value
}

// narrowed is a value of the new graph that holds some rows of an old one.
type narrowed struct {
	v    *ir.Value
	rows rows
}

type slicedRows struct {
	v    *ir.Value // of the old graph
	rows rows
}

// fetch gives the wanted rows of an old value.
func (p *pruner) fetch(v *ir.Value, want rows) *ir.Value {
	have := p.have[v]
	if have.rows == want {
		return have.v
	}
	key := slicedRows{v, want}
	if p.slices[key] == nil {
		p.slices[key] = p.slice(have.v, rows{want.from - have.rows.from, want.to - have.rows.from})
	}
	return p.slices[key]
}

func (p *pruner) slice(v *ir.Value, r rows) *ir.Value {
	return p.make(ir.OpSliceTokens, ir.A("from", r.from, "to", r.to), v)
}

// node rebuilds a node for the wanted rows and says which rows it gives.
func (p *pruner) node(n *ir.Node, want rows) ([]*ir.Value, rows) {
	if n.Op == ir.OpSliceTokens {
		from := n.Int("from")
		return []*ir.Value{p.fetch(n.Args[0], rows{from + want.from, from + want.to})}, want
	}
	all := allRows(n.Out())
	if !narrows(n, want) {
		want = all
	}
	args := make([]*ir.Value, len(n.Args))
	for i, r := range sink(n, want) {
		args[i] = p.fetch(n.Args[i], r)
	}
	if want == all {
		return p.g.MustAdd(n.Op, n.Pos, n.Layer, n.Attrs, args...).Outs, all
	}
	return p.narrow(n, want, args), want
}

// narrow adds the node for some rows; args hold the rows that sink asks for.
func (p *pruner) narrow(n *ir.Node, want rows, args []*ir.Value) []*ir.Value {
	attrs := n.Attrs
	switch n.Op {
	case ir.OpLinear, ir.OpSliceLast, ir.OpConcatLast, ir.OpLayerNorm:
	case ir.OpAttention:
		attrs = attrs.With("q_first", n.Int("q_first")+want.from)
	case ir.OpPrependToken:
		return []*ir.Value{p.prepend(n, want, args)}
	case ir.OpDropout:
		attrs = attrs.With("first_row", n.Int("first_row")+want.from)
	default:
		if n.Op.Info().Class != ir.ClassPointwise {
			panic(fmt.Sprintf("BUG: %s does not treat rows alike", n.Op))
		}
		for i, a := range n.Args {
			if !a.Type.Batched && len(a.Type.Shape) == 2 { // a table [T,D] added to or multiplied with tokens
				args[i] = p.make(ir.OpSliceFirst, ir.A("from", want.from, "to", want.to), args[i])
			}
		}
	}
	return p.g.MustAdd(n.Op, n.Pos, n.Layer, attrs, args...).Outs
}

// prepend gives rows of a tensor with a token in front. args[0] holds the rows
// behind it that are wanted, or one row too many where only the token is.
func (p *pruner) prepend(n *ir.Node, want rows, args []*ir.Value) *ir.Value {
	if want.from > 0 {
		return args[0]
	}
	y := p.make(n.Op, nil, args...)
	if y.Type.Sample()[0] > want.to {
		y = p.slice(y, want)
	}
	return y
}
