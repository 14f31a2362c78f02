package passes

import (
	"fmt"

	"github.com/vitgen/vitgen/ir"
)

// RecomputeThreshold is the largest number of operations per element that
// Recompute spends to have one element less to keep from the forward to the
// backward pass. The store and the load that it saves, 8 bytes in f32, would
// pay for more where memory is the limit. But the reader is usually a matrix
// product: bound by arithmetic, and loading an element several times. Chains
// of relu, add, mul and scale come below the threshold; gelu by erf and a
// dropout draw by Philox do not.
const RecomputeThreshold = 4

// recomputeCost is the cost table: operations per element of the pointwise ops
// that may be recomputed. An op that is absent is never recomputed.
var recomputeCost = map[ir.Op]int{
	ir.OpAdd:      1,
	ir.OpMul:      1,
	ir.OpScale:    1,
	ir.OpRelu:     1,
	ir.OpDropPath: 2,  // one draw serves a whole sample
	ir.OpDropout:  14, // Philox4x32-10: about 110 integer operations for 8 draws
	ir.OpSilu:     20, // an exponential and a division
	ir.OpGelu:     30, // erf or tanh
}

// Decision is what Recompute found for a forward value that the backward pass
// reads and that it knows how to recompute.
type Decision struct {
	Layer     string
	Op        ir.Op
	Cost      int    // operations per element, with those of recomputed operands
	Bytes     int64  // what storing it takes, at full batch
	Recompute bool   // else it is kept
	Reason    string // why it is kept; "" where it is recomputed
}

func (d Decision) String() string {
	if d.Recompute {
		return fmt.Sprintf("recompute %s of %s: %d operations per element, frees %d bytes", d.Op, d.Layer, d.Cost, d.Bytes)
	}
	return fmt.Sprintf("keep %s of %s (%d bytes): %s", d.Op, d.Layer, d.Bytes, d.Reason)
}

// Recompute decides for cheap pointwise values of the forward pass that the
// backward pass reads: keep them until then, or compute them again. Recomputed
// ones get a clone in front of each backward reader, where fusion makes it part
// of the reader.
//
//	%3 = mul %1, %2 : f32[4|37,8]
//	%4 = linear %3, %w : f32[4|37,8]
//	%7 = linear_dw %5, %3 : f32[8,8]
//	%8 = mul %6, %1 : f32[4|37,8]
//
// becomes
//
//	%3 = mul %1, %2 : f32[4|37,8]
//	%4 = linear %3, %w : f32[4|37,8]
//	%9 = mul %1, %2 : f32[4|37,8]
//	%7 = linear_dw %5, %9 : f32[8,8]
//	%8 = mul %6, %1 : f32[4|37,8]
//
// and %3 can be freed after %4. A value is recomputed if it costs at most
// threshold operations per element, if its operands are kept anyway (they are
// parameters or inputs, the backward pass reads them, or they are recomputed
// themselves), and if every backward reader can absorb it: a pointwise op, or
// the x of linear_dw. Contractions and rows are never computed twice.
func Recompute(g *ir.Graph, threshold int) ([]Decision, error) {
	r := &recomputer{uses: g.Uses(), backward: backwardNodes(g), threshold: threshold,
		returned: map[*ir.Value]bool{}, cost: map[*ir.Value]int{}}
	for _, o := range g.Outputs {
		r.returned[o.Value] = true
	}
	var ds []Decision
	found := false
	for _, n := range g.Nodes {
		if _, known := recomputeCost[n.Op]; !known || r.backward[n] {
			continue
		}
		d := r.decide(n)
		if d.Recompute {
			r.cost[n.Out()] = d.Cost
		}
		if r.readBackward(n.Out()) {
			ds = append(ds, d)
			found = found || d.Recompute
		}
	}
	if found {
		r.clone(g)
	}
	return ds, nil
}

// backwardNodes are those that depend on inv_n, the seed of the gradient.
func backwardNodes(g *ir.Graph) map[*ir.Node]bool {
	back := map[*ir.Node]bool{}
	for _, n := range g.Nodes {
		b := n.Op == ir.OpScalar && n.Str("name") == "inv_n"
		for _, a := range n.Args {
			b = b || back[a.Def]
		}
		back[n] = b
	}
	return back
}

type recomputer struct {
	uses      map[*ir.Value][]*ir.Node
	backward  map[*ir.Node]bool
	returned  map[*ir.Value]bool
	threshold int
	// cost of the values that are not kept and can be recomputed: those that
	// the backward pass reads, and those it does not read but would need on the
	// way to one.
	cost map[*ir.Value]int
}

// decide looks at one node; its operands have been decided on.
func (r *recomputer) decide(n *ir.Node) Decision {
	v := n.Out()
	d := Decision{Layer: n.Layer, Op: n.Op, Cost: recomputeCost[n.Op], Bytes: v.Type.Bytes()}
	for _, a := range n.Args {
		d.Cost += r.cost[a]
	}
	switch {
	case r.returned[v]:
		d.Reason = "it is an output"
	case d.Cost > r.threshold:
		d.Reason = fmt.Sprintf("%d operations per element are more than %d", d.Cost, r.threshold)
	case !r.operandsKept(n):
		d.Reason = "its operands are not kept"
	case !r.absorbed(v):
		d.Reason = "a backward kernel wants it in memory"
	default:
		d.Recompute = true
	}
	return d
}

func (r *recomputer) readBackward(v *ir.Value) bool {
	for _, u := range r.uses[v] {
		if r.backward[u] {
			return true
		}
	}
	return false
}

// operandsKept reports whether everything the node reads is at hand in the
// backward pass whatever is decided about the node.
func (r *recomputer) operandsKept(n *ir.Node) bool {
	for _, a := range n.Args {
		_, recomputed := r.cost[a]
		source := a.Def.Op.Info().Class == ir.ClassSource
		if !source && !recomputed && !r.returned[a] && !r.readBackward(a) && !viewOfSource(a) {
			return false
		}
	}
	return true
}

// viewOfSource: a position table cut to length, biases stacked.
func viewOfSource(v *ir.Value) bool {
	if v.Def.Op.Info().Class != ir.ClassView {
		return false
	}
	for _, a := range v.Def.Args {
		if a.Def.Op.Info().Class != ir.ClassSource && !viewOfSource(a) {
			return false
		}
	}
	return true
}

// absorbed reports whether every backward reader can compute v as it goes.
func (r *recomputer) absorbed(v *ir.Value) bool {
	for _, u := range r.uses[v] {
		if r.backward[u] && !absorbs(u, v) {
			return false
		}
	}
	return true
}

// absorbs: a pointwise op reads the element it needs, and linear_dw loads its
// x through a prologue. dy is loaded as it is.
func absorbs(u *ir.Node, v *ir.Value) bool {
	if u.Op == ir.OpLinearDW {
		return u.Args[0] != v
	}
	return u.Op.Info().Class == ir.ClassPointwise && u.Op != ir.OpPadTokens && u.Op != ir.OpRepeatTokens
}

// clone puts the recomputation in front of each backward reader.
func (r *recomputer) clone(g *ir.Graph) {
	cheap := map[*ir.Value]bool{} // values of the new graph to compute again
	rebuild(g, func(h *ir.Graph, n *ir.Node, args []*ir.Value) []*ir.Value {
		if r.backward[n] {
			c := cloner{h, cheap, map[*ir.Value]*ir.Value{}}
			for i, a := range args {
				args[i] = c.value(a)
			}
		}
		outs := copyNode(h, n, args)
		if _, ok := r.cost[n.Out()]; ok {
			cheap[outs[0]] = true
		}
		return outs
	})
}

// cloner computes values again for one reader, each of them once.
type cloner struct {
	g     *ir.Graph
	cheap map[*ir.Value]bool
	again map[*ir.Value]*ir.Value
}

// value gives v or, if it is to be computed again, a clone of it with operands
// likewise.
func (c cloner) value(v *ir.Value) *ir.Value {
	if !c.cheap[v] {
		return v
	}
	if c.again[v] == nil {
		args := make([]*ir.Value, len(v.Def.Args))
		for i, a := range v.Def.Args {
			args[i] = c.value(a)
		}
		c.again[v] = copyNode(c.g, v.Def, args)[0]
	}
	return c.again[v]
}
