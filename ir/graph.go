// Package ir is the compiler's intermediate representation: a typed SSA graph
// with static shapes, the table of its ops, its text form and its verifier.
//
// A graph is straight-line code: nodes in a topological order, each producing
// one or more values. There is no control flow and no aliasing; a view is an
// op like any other until the memory plan gives it a place. The package knows
// nothing of specs, passes or targets, and imports only the standard library.
package ir

import (
	"fmt"
	"slices"
)

// Pos is a place in the spec, 1-based; the zero Pos is unknown.
type Pos struct{ Line, Col int }

// Value is one SSA value.
type Value struct {
	ID   int // unique within its graph; printed as %ID
	Type Type
	Def  *Node // the node that produces it
	Out  int   // which of Def.Outs it is

	// Narrow is the element type it has in memory, if that is not Type's: a
	// kernel computes in Type, rounds as it stores and widens as it loads. Set
	// by the storage pass on the roots of memory; views have their root's.
	Narrow DType
}

// MemoryBytes is the size of the value in memory, at full batch.
func (v *Value) MemoryBytes() int64 { return int64(v.Type.Elems()) * int64(v.MemoryType().Size()) }

// MemoryType is the element type in memory.
func (v *Value) MemoryType() DType {
	if v.Narrow != Invalid {
		return v.Narrow
	}
	return v.Type.DType
}

func (v *Value) String() string { return fmt.Sprintf("%%%d", v.ID) }

// Node is one application of an op.
type Node struct {
	Op    Op
	Args  []*Value
	Attrs Attrs
	Outs  []*Value
	Pos   Pos    // the spec line it comes from; reaches the kernel and every run-time error
	Layer string // the layer's full name, "blks.0.mlp.dense1"
}

// Out is the node's first result.
func (n *Node) Out() *Value { return n.Outs[0] }

// Output names a value that leaves the graph.
//
// Names are "logits", "loss" (per sample), "correct" (per sample),
// "grad.NAME", "param.NAME" (updated) and "state0.NAME", "state1.NAME".
type Output struct {
	Name  string
	Value *Value
}

// Stage says how far a graph has come; the verifier grows stricter with it.
type Stage uint8

const (
	StageForward Stage = iota // as built from the spec
	StageTrain                // gradients added
	StageFused                // nodes grouped into kernels
	StagePlanned              // every stored value has a place in memory
)

var stageNames = [...]string{"forward", "train", "fused", "planned"}

func (s Stage) String() string { return stageNames[s] }

// Graph is one program: forward, eval, grad or update.
type Graph struct {
	Name    string // "vit.grad"
	File    string // base name of the spec, for messages
	Stage   Stage
	Nodes   []*Node // topological order
	Outputs []Output
	Groups  []*Group         // from StageFused on: a partition of Nodes, in launch order
	Places  map[*Value]Place // at StagePlanned
	Arena   int64            // bytes the plan needs
	nextID  int
}

// Group is the work of one kernel: an anchor that gives it its loop structure,
// and pointwise nodes before and after it. Views form groups without a kernel.
type Group struct {
	Family Family
	Anchor *Node   // nil for a pointwise group or a view
	Nodes  []*Node // topological order, anchor included

	// Joined: the group shares the launch of the kernel before it. Neither
	// reads what the other writes.
	Joined bool
}

// LaunchOf gives, for every group, the number of the launch it is part of. A
// group without a kernel has the number of the launch that comes next.
func (g *Graph) LaunchOf() []int {
	of := make([]int, len(g.Groups))
	next := 0
	for i, gr := range g.Groups {
		of[i] = next
		if gr.Family == FamilyNone {
			continue
		}
		if gr.Joined {
			of[i] = next - 1
		} else {
			next++
		}
	}
	return of
}

// Family is the kind of kernel a group becomes.
type Family uint8

const (
	FamilyNone Family = iota // sources and views: no code
	FamilyGemm
	FamilyAttention
	FamilyRow
	FamilyPointwise
	FamilyReduce
	FamilyOptimizer
)

var familyNames = [...]string{"none", "gemm", "attention", "row", "pointwise", "reduce", "optimizer"}

func (f Family) String() string { return familyNames[f] }

// Place is where a planned value lives: bytes from the start of the arena.
type Place struct{ Offset, Size int64 }

// NewGraph makes an empty graph.
func NewGraph(name, file string) *Graph { return &Graph{Name: name, File: file} }

// Add appends a node, infers its result types and returns it.
// It returns an error if the op's shape rule refuses the arguments.
func (g *Graph) Add(op Op, pos Pos, layer string, attrs Attrs, args ...*Value) (*Node, error) {
	n := &Node{Op: op, Args: args, Attrs: attrs, Pos: pos, Layer: layer}
	if err := g.infer(n); err != nil {
		return nil, err
	}
	g.Nodes = append(g.Nodes, n)
	return n, nil
}

// MustAdd is Add for callers whose arguments are right by construction.
func (g *Graph) MustAdd(op Op, pos Pos, layer string, attrs Attrs, args ...*Value) *Node {
	n, err := g.Add(op, pos, layer, attrs, args...)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return n
}

// InsertBefore is MustAdd at the place of node at, for rewrites.
func (g *Graph) InsertBefore(at *Node, op Op, pos Pos, layer string, attrs Attrs, args ...*Value) *Node {
	n := g.MustAdd(op, pos, layer, attrs, args...)
	i := slices.Index(g.Nodes, at)
	if i < 0 {
		panic("BUG: insertion point is not in the graph")
	}
	g.Nodes = slices.Insert(g.Nodes[:len(g.Nodes)-1], i, n)
	return n
}

// infer sets a node's results from its op's shape rule.
func (g *Graph) infer(n *Node) error {
	types, err := InferTypes(n)
	if err != nil {
		return fmt.Errorf("%s: %w", n.Op, err)
	}
	n.Outs = make([]*Value, len(types))
	for i, t := range types {
		n.Outs[i] = &Value{ID: g.nextID, Type: t, Def: n, Out: i}
		g.nextID++
	}
	return nil
}

// Return declares an output.
func (g *Graph) Return(name string, v *Value) {
	g.Outputs = append(g.Outputs, Output{name, v})
}

// Output finds an output by name, or nil.
func (g *Graph) Output(name string) *Value {
	for _, o := range g.Outputs {
		if o.Name == name {
			return o.Value
		}
	}
	return nil
}

// Uses maps every value to the nodes that read it, in node order; a node that
// reads a value twice appears twice. Outputs are not uses.
func (g *Graph) Uses() map[*Value][]*Node {
	uses := make(map[*Value][]*Node, len(g.Nodes))
	for _, n := range g.Nodes {
		for _, a := range n.Args {
			uses[a] = append(uses[a], n)
		}
	}
	return uses
}

// Stored is the set of values of a fused graph that must be in memory: those
// read by another group than their own, directly or through a view, and those
// that leave the graph. Sources are not in it: they have a memory of their own.
func (g *Graph) Stored() map[*Value]bool {
	group := make(map[*Node]*Group, len(g.Nodes))
	for _, gr := range g.Groups {
		for _, n := range gr.Nodes {
			group[n] = gr
		}
	}
	stored := make(map[*Value]bool)
	for _, n := range g.Nodes {
		for _, a := range n.Args {
			if group[a.Def] != group[n] && a.Def.Op.Info().Class != ClassSource {
				stored[a] = true
			}
		}
	}
	for _, o := range g.Outputs {
		stored[o.Value] = true
	}
	return stored
}

// ReplaceAll makes every use of old, outputs included, read new instead.
func (g *Graph) ReplaceAll(old, new *Value) {
	for _, n := range g.Nodes {
		for i, a := range n.Args {
			if a == old {
				n.Args[i] = new
			}
		}
	}
	for i := range g.Outputs {
		if g.Outputs[i].Value == old {
			g.Outputs[i].Value = new
		}
	}
}

// Clone copies the graph deeply; values keep their IDs.
// The second result maps old values to new ones.
func (g *Graph) Clone() (*Graph, map[*Value]*Value) {
	c := &Graph{Name: g.Name, File: g.File, Stage: g.Stage, Arena: g.Arena, nextID: g.nextID}
	vals := make(map[*Value]*Value)
	nodes := make(map[*Node]*Node)
	for _, n := range g.Nodes {
		m := &Node{Op: n.Op, Attrs: n.Attrs, Pos: n.Pos, Layer: n.Layer}
		for _, a := range n.Args {
			m.Args = append(m.Args, vals[a])
		}
		for _, o := range n.Outs {
			v := &Value{ID: o.ID, Type: o.Type, Def: m, Out: o.Out, Narrow: o.Narrow}
			vals[o] = v
			m.Outs = append(m.Outs, v)
		}
		nodes[n] = m
		c.Nodes = append(c.Nodes, m)
	}
	for _, o := range g.Outputs {
		c.Outputs = append(c.Outputs, Output{o.Name, vals[o.Value]})
	}
	for _, gr := range g.Groups {
		h := &Group{Family: gr.Family, Anchor: nodes[gr.Anchor], Joined: gr.Joined}
		for _, n := range gr.Nodes {
			h.Nodes = append(h.Nodes, nodes[n])
		}
		c.Groups = append(c.Groups, h)
	}
	if g.Places != nil {
		c.Places = make(map[*Value]Place, len(g.Places))
		for v, p := range g.Places {
			c.Places[vals[v]] = p
		}
	}
	return c, vals
}
