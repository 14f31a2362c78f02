package passes

import (
	"fmt"
	"slices"

	"github.com/vitgen/vitgen/ir"
)

// Autodiff appends the gradient of the mean loss with respect to every
// parameter, as outputs grad.NAME in the order of the parameters' nodes.
//
//	%0 = param {name="w", type=f32[10,8]} : f32[10,8]
//	%1 = linear %x, %0 : f32[4|10]
//	%2, %3 = cross_entropy %1, %label {smoothing=0.0} : f32[4|], f32[4|]
//
// becomes, below these,
//
//	%4 = scalar {name="inv_n"} : f32[]
//	%5 = broadcast_batch %4 {batch=4} : f32[4|]
//	%6 = cross_entropy_grad %1, %label, %5 {smoothing=0.0} : f32[4|10]
//	%7 = linear_dw %6, %x : f32[10,8]
//	return …, grad.w=%7
//
// The seed is inv_n, one over the samples of the effective batch: what is
// differentiated is the sum of this micro-batch's losses times inv_n.
//
// Reverse mode: nodes are visited last to first, and each turns the adjoints
// of its results into contributions to its operands' (the table gradients).
// Contributions to one value are added in the order in which they arise, so
// the last reader's comes first. Only values that depend on a parameter get an
// adjoint. A parameter that the loss does not depend on has gradient zero.
func Autodiff(g *ir.Graph) error {
	loss := g.Output("loss")
	if loss == nil || !loss.Type.Batched || len(loss.Type.Shape) != 1 {
		return fmt.Errorf("the graph has no output loss with a value per sample")
	}
	if g.Stage != ir.StageForward {
		return fmt.Errorf("the graph is at stage %v: it has gradients already", g.Stage)
	}
	t := &tape{builder: builder{g: g}, active: dependOnParams(g), adjoints: map[*ir.Value]*adjoint{}}
	forward := slices.Clone(g.Nodes)
	g.Stage = ir.StageTrain

	t.at(loss.Def)
	invN := t.add(ir.OpScalar, ir.A("name", "inv_n"))
	t.give(loss, t.add(ir.OpBroadcastBatch, ir.A("batch", loss.Type.Shape[0]), invN))

	grads := map[*ir.Node]*ir.Value{}
	for _, n := range slices.Backward(forward) {
		t.at(n)
		if n.Op == ir.OpParam {
			grads[n] = t.paramGrad(n.Out())
			continue
		}
		if err := t.visit(n); err != nil {
			return err
		}
	}
	for _, n := range forward {
		if dw := grads[n]; dw != nil {
			g.Return("grad."+n.Str("name"), dw)
		}
	}
	return nil
}

// dependOnParams marks the values that a parameter reaches.
func dependOnParams(g *ir.Graph) map[*ir.Value]bool {
	active := map[*ir.Value]bool{}
	for _, n := range g.Nodes {
		on := n.Op == ir.OpParam || slices.ContainsFunc(n.Args, func(a *ir.Value) bool { return active[a] })
		for _, o := range n.Outs {
			active[o] = on
		}
	}
	return active
}

// tape collects adjoints while the graph is walked backward.
type tape struct {
	builder
	active   map[*ir.Value]bool // a parameter reaches it: its adjoint is wanted
	adjoints map[*ir.Value]*adjoint
}

// at makes the gradient nodes carry the position and layer of the forward node.
func (t *tape) at(n *ir.Node) {
	t.pos, t.layer = n.Pos, n.Layer
}

// visit turns the adjoints of a node's results into its operands'.
func (t *tape) visit(n *ir.Node) error {
	if !slices.ContainsFunc(n.Args, func(a *ir.Value) bool { return t.active[a] }) {
		return nil
	}
	dys := make([]*ir.Value, len(n.Outs))
	reached := false
	for i, o := range n.Outs {
		dys[i] = t.resolve(o)
		reached = reached || dys[i] != nil
	}
	if !reached {
		return nil
	}
	rule := gradients[n.Op]
	if rule == nil {
		return fmt.Errorf("%s of layer %q at %d:%d has no gradient: %s", n.Op, n.Layer, n.Pos.Line, n.Pos.Col, n.Op.Info().NoGrad)
	}
	for i, dy := range dys[1:] {
		if dy != nil {
			return fmt.Errorf("the %s of %s in layer %q is not differentiable", n.Op.Info().Results[i+1], n.Op, n.Layer)
		}
	}
	if dys[0] != nil {
		rule(t, n, dys[0])
	}
	return nil
}

// paramGrad is a parameter's whole gradient, a tensor of zeros if it has none.
func (t *tape) paramGrad(w *ir.Value) *ir.Value {
	if dw := t.resolve(w); dw != nil {
		return dw
	}
	return t.zeros(w.Type)
}

func (t *tape) zeros(ty ir.Type) *ir.Value {
	return t.add(ir.OpConst, ir.A("value", 0.0, "type", ty))
}

// adjoint is what has been contributed to one value so far.
type adjoint struct {
	whole []*ir.Value // each of the value's type
	parts []part      // of slices of the last dimension, or of the first
	last  bool        // parts lie along the last dimension
}

// part is the contribution to the slice from:to.
type part struct {
	from, to int
	grad     *ir.Value
}

func (t *tape) adjoint(v *ir.Value) *adjoint {
	a := t.adjoints[v]
	if a == nil {
		a = &adjoint{}
		t.adjoints[v] = a
	}
	return a
}

// give contributes dv to the adjoint of v.
func (t *tape) give(v, dv *ir.Value) {
	if !t.active[v] {
		return
	}
	if !dv.Type.Equal(v.Type) {
		panic(fmt.Sprintf("BUG: adjoint %v for a value of type %v made by %s", dv.Type, v.Type, v.Def.Op))
	}
	a := t.adjoint(v)
	a.whole = append(a.whole, dv)
}

// givePart contributes dv to the columns (last) or rows from:to of v.
// Where both kinds meet, the earlier parts are put together first.
func (t *tape) givePart(v *ir.Value, last bool, from, to int, dv *ir.Value) {
	if !t.active[v] {
		return
	}
	a := t.adjoint(v)
	if len(a.parts) > 0 && a.last != last {
		t.assemble(v, a)
	}
	a.last = last
	a.parts = append(a.parts, part{from, to, dv})
}

// resolve gives the adjoint of v as one value, or nil where nothing reached it.
func (t *tape) resolve(v *ir.Value) *ir.Value {
	a := t.adjoints[v]
	if a == nil || !t.active[v] {
		return nil
	}
	t.assemble(v, a)
	return t.sum(a.whole)
}

// sum adds contributions from the first to the last.
func (t *tape) sum(vs []*ir.Value) *ir.Value {
	s := vs[0]
	for _, v := range vs[1:] {
		s = t.add(ir.OpAdd, nil, s, v)
	}
	return s
}

// assemble turns the parts collected so far into contributions to the whole:
// one concatenation if they tile the value, with zeros in the gaps; parts that
// overlap go to further ones.
func (t *tape) assemble(v *ir.Value, a *adjoint) {
	extent, concat := v.Type.Last(), ir.OpConcatLast
	if !a.last && len(a.parts) > 0 {
		extent, concat = v.Type.Shape[0], ir.OpConcatFirst
	}
	parts := t.mergeEqual(a.parts)
	a.parts = nil
	for len(parts) > 0 {
		var row []*ir.Value
		var rest []part
		end := 0
		for _, p := range parts {
			if p.from < end {
				rest = append(rest, p)
				continue
			}
			row = append(t.gap(row, v.Type, a.last, p.from-end), p.grad)
			end = p.to
		}
		row = t.gap(row, v.Type, a.last, extent-end)
		if len(row) == 1 {
			a.whole = append(a.whole, row[0])
		} else {
			a.whole = append(a.whole, t.add(concat, nil, row...))
		}
		parts = rest
	}
}

// mergeEqual adds contributions to the same slice and sorts slices by place.
func (t *tape) mergeEqual(parts []part) []part {
	parts = slices.Clone(parts)
	slices.SortStableFunc(parts, func(p, q part) int {
		if p.from != q.from {
			return p.from - q.from
		}
		return p.to - q.to
	})
	var merged []part
	for _, p := range parts {
		if n := len(merged); n > 0 && merged[n-1].from == p.from && merged[n-1].to == p.to {
			merged[n-1].grad = t.add(ir.OpAdd, nil, merged[n-1].grad, p.grad)
		} else {
			merged = append(merged, p)
		}
	}
	return merged
}

// gap appends zeros for width columns or rows of a value of type ty.
func (t *tape) gap(row []*ir.Value, ty ir.Type, last bool, width int) []*ir.Value {
	if width == 0 {
		return row
	}
	shape := slices.Clone(ty.Sample())
	if last {
		shape[len(shape)-1] = width
	} else {
		shape[0] = width
	}
	return append(row, t.zeros(ty.With(shape...)))
}
