package ir

import (
	"fmt"
	"slices"
	"strings"
)

// Verify checks a graph against every rule of its stage and returns the first
// violation, which names the node, its layer and its place in the spec. Every
// violation is a fault of the pass that ran last.
//
// At every stage: operands are defined by an earlier node of the graph; value
// IDs are unique and below those still to be given; results have the types
// their op's shape rule infers; all batches are equal; outputs are values of
// the graph under unique names. In a forward graph no op stands that only the
// backward pass or the update uses. From the fused stage on, groups partition
// the nodes in their order, and every kernel has the anchor its family asks
// for; groups that share a launch have kernels and do not read one another. Only
// the root of a memory in the arena may be stored narrower than its type, f32 as
// bf16, and only if everything in it is f32. In a planned graph every value that one kernel hands to another, or to
// the host, has a place in the arena: its own, or that of the value it is a
// view of (see Layout). That places do not overlap in time is checked apart.
func Verify(g *Graph) error {
	v := &verifier{g: g, defined: make(map[*Value]bool)}
	for _, check := range []func() error{v.nodes, v.outputs, v.groups, v.places} {
		if err := check(); err != nil {
			return fmt.Errorf("%s (%s): %w", g.Name, g.Stage, err)
		}
	}
	return nil
}

// PlaceAlign is what offsets in the arena are multiples of, in bytes: a cache
// line, and the widest vector load.
const PlaceAlign = 64

type verifier struct {
	g       *Graph
	defined map[*Value]bool
	batch   int
}

// complain makes an error about a node.
func (v *verifier) complain(n *Node, format string, args ...any) error {
	var b strings.Builder
	for i, o := range n.Outs {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%v", o)
	}
	if len(n.Outs) > 0 {
		b.WriteString(" = ")
	}
	b.WriteString(n.Op.String())
	if n.Layer != "" {
		fmt.Fprintf(&b, " of layer %q", n.Layer)
	}
	if n.Pos != (Pos{}) {
		fmt.Fprintf(&b, " at %s:%d:%d", v.g.File, n.Pos.Line, n.Pos.Col)
	}
	return fmt.Errorf("%s: %s", &b, fmt.Sprintf(format, args...))
}

func (v *verifier) nodes() error {
	ids := make(map[int]bool)
	seen := make(map[*Node]bool)
	for i, n := range v.g.Nodes {
		if n == nil || int(n.Op) >= len(table) {
			return fmt.Errorf("node %d is nil or has an unknown op", i)
		}
		if seen[n] {
			return v.complain(n, "stands in the graph twice")
		}
		seen[n] = true
		for _, a := range n.Args {
			if !v.defined[a] {
				return v.complain(n, "reads %v, which no earlier node defines", a)
			}
		}
		if err := v.results(n, ids); err != nil {
			return err
		}
		if v.g.Stage == StageForward && n.Op.TrainOnly() {
			return v.complain(n, "stands in a forward graph")
		}
	}
	return nil
}

// results checks what a node defines, and marks it as defined.
func (v *verifier) results(n *Node, ids map[int]bool) error {
	types, err := InferTypes(n)
	if err != nil {
		return v.complain(n, "%v", err)
	}
	if len(types) != len(n.Outs) {
		return v.complain(n, "has %d results, its op gives %d", len(n.Outs), len(types))
	}
	for i, o := range n.Outs {
		switch {
		case o == nil || o.Def != n || o.Out != i:
			return v.complain(n, "result %d does not point back to its node", i)
		case ids[o.ID]:
			return v.complain(n, "%v is defined twice", o)
		case o.ID < 0 || o.ID >= v.g.nextID:
			return v.complain(n, "%v may be given again: the next new value is %%%d", o, v.g.nextID)
		case !o.Type.Equal(types[i]):
			return v.complain(n, "%v is %v, its op infers %v", o, o.Type, types[i])
		}
		if o.Type.Batched {
			if v.batch == 0 {
				v.batch = o.Type.Shape[0]
			}
			if o.Type.Shape[0] != v.batch {
				return v.complain(n, "a batch of %d in a graph whose batch is %d", o.Type.Shape[0], v.batch)
			}
		}
		ids[o.ID] = true
		v.defined[o] = true
	}
	return nil
}

func (v *verifier) outputs() error {
	names := make(map[string]bool)
	for _, o := range v.g.Outputs {
		switch {
		case o.Name == "":
			return fmt.Errorf("an output has no name")
		case names[o.Name]:
			return fmt.Errorf("output %q is declared twice", o.Name)
		case !v.defined[o.Value]:
			return fmt.Errorf("output %q is %v, which no node defines", o.Name, o.Value)
		}
		names[o.Name] = true
	}
	return nil
}

func (v *verifier) groups() error {
	if v.g.Stage < StageFused {
		if v.g.Groups != nil {
			return fmt.Errorf("has groups before it is fused")
		}
		return nil
	}
	rest := v.g.Nodes
	for i, gr := range v.g.Groups {
		switch k := len(gr.Nodes); {
		case k == 0:
			return fmt.Errorf("group %d (%s) is empty", i, gr.Family)
		case k > len(rest):
			return fmt.Errorf("group %d (%s) holds more nodes than the graph has left", i, gr.Family)
		case !slices.Equal(gr.Nodes, rest[:k]):
			return v.complain(rest[0], "group %d (%s) does not continue the graph's order from here", i, gr.Family)
		}
		rest = rest[len(gr.Nodes):]
		if err := v.group(gr); err != nil {
			return err
		}
	}
	if len(rest) > 0 {
		return v.complain(rest[0], "is in no group")
	}
	if err := v.joined(); err != nil {
		return err
	}
	return v.narrow()
}

// joined checks the groups that share a launch.
func (v *verifier) joined() error {
	launch := v.g.LaunchOf()
	at := map[*Node]int{} // launch, of nodes with a kernel
	reach := map[*Value]int{}
	for i, gr := range v.g.Groups {
		if gr.Joined && (gr.Family == FamilyNone || launch[i] < 0) {
			return v.complain(gr.Nodes[0], "group %d (%s) has no launch to share", i, gr.Family)
		}
		in := map[*Node]bool{}
		for _, n := range gr.Nodes {
			in[n] = true
		}
		for _, n := range gr.Nodes {
			after := -1 // the latest launch that n waits for, through views
			for _, a := range n.Args {
				if l, ok := at[a.Def]; ok && !in[a.Def] {
					after = max(after, l)
				} else if !in[a.Def] {
					after = max(after, reach[a])
				}
			}
			if gr.Family == FamilyNone {
				for _, o := range n.Outs {
					reach[o] = after
				}
				continue
			}
			if after >= launch[i] && len(n.Args) > 0 {
				return v.complain(n, "shares launch %d with what it waits for", launch[i])
			}
		}
		if gr.Family != FamilyNone {
			for _, n := range gr.Nodes {
				at[n] = launch[i]
			}
		}
	}
	return nil
}

// narrow checks the values that memory holds in another type than their own.
func (v *verifier) narrow() error {
	slots, err := v.g.Layout()
	for _, n := range v.g.Nodes {
		for _, o := range n.Outs {
			if o.Narrow == Invalid {
				continue
			}
			if err != nil {
				return err
			}
			if o.Narrow != BF16 || o.Type.DType != F32 || slots[o].Root != o || slots[o].Home != HomeArena {
				return v.complain(n, "%v of type %v cannot be stored as %v", o, o.Type, o.Narrow)
			}
		}
	}
	return nil
}

// anchors are the classes of op that may anchor a family's kernel.
var anchors = [...][]Class{
	FamilyNone:      nil,
	FamilyGemm:      {ClassGemm},
	FamilyAttention: {ClassAttention},
	FamilyRow:       {ClassRow},
	FamilyPointwise: {ClassPointwise, ClassMove},
	FamilyReduce:    {ClassReduce},
	FamilyOptimizer: {ClassOptimizer},
}

func (v *verifier) group(gr *Group) error {
	for _, n := range gr.Nodes {
		c := n.Op.Info().Class
		if codeless := c == ClassSource || c == ClassView; codeless != (gr.Family == FamilyNone) {
			return v.complain(n, "a %s stands in a group of family %s", c, gr.Family)
		}
	}
	if gr.Anchor == nil {
		if gr.Family != FamilyNone && gr.Family != FamilyPointwise {
			return v.complain(gr.Nodes[0], "its group, of family %s, has no anchor", gr.Family)
		}
		return nil
	}
	if !slices.Contains(gr.Nodes, gr.Anchor) {
		return v.complain(gr.Anchor, "anchors a group it is not in")
	}
	if c := gr.Anchor.Op.Info().Class; !slices.Contains(anchors[gr.Family], c) {
		return v.complain(gr.Anchor, "a %s cannot anchor a group of family %s", c, gr.Family)
	}
	return nil
}

func (v *verifier) places() error {
	if v.g.Stage < StagePlanned {
		if v.g.Places != nil {
			return fmt.Errorf("has places before it is planned")
		}
		return nil
	}
	slots, err := v.g.Layout()
	if err != nil {
		return err
	}
	stored := v.g.Stored()
	for _, n := range v.g.Nodes {
		for _, o := range n.Outs {
			if root := slots[o].Root; stored[o] && slots[o].Home == HomeArena {
				if _, ok := v.g.Places[root]; !ok {
					return v.complain(n, "%v is read outside of its kernel, and its root %v has no place", o, root)
				}
			}
			if err := v.place(n, o, slots[o]); err != nil {
				return err
			}
		}
	}
	return v.strangers()
}

// place checks the place of one value, if it has one.
func (v *verifier) place(n *Node, o *Value, s Slot) error {
	p, ok := v.g.Places[o]
	switch {
	case !ok:
	case s.Root != o || s.Home != HomeArena:
		return v.complain(n, "%v has a place in the arena but lies in the memory of %v", o, s.Root)
	case p.Offset%PlaceAlign != 0:
		return v.complain(n, "%v is at offset %d, no multiple of %d", o, p.Offset, PlaceAlign)
	case p.Size < o.MemoryBytes():
		return v.complain(n, "%v has %d bytes for %v, which takes %d", o, p.Size, o.Type, o.MemoryBytes())
	case p.Offset < 0 || p.Offset > v.g.Arena || p.Size > v.g.Arena-p.Offset:
		return v.complain(n, "%v is at %d+%d in an arena of %d bytes", o, p.Offset, p.Size, v.g.Arena)
	}
	return nil
}

// strangers looks for a place of a value that is not in the graph.
func (v *verifier) strangers() error {
	n := 0
	for o := range v.g.Places {
		if v.defined[o] {
			n++
		}
	}
	if n != len(v.g.Places) {
		return fmt.Errorf("%d places belong to values that are not in the graph", len(v.g.Places)-n)
	}
	return nil
}
