package ir

import (
	"fmt"
	"strings"
)

// Home is the memory a value's root lives in.
type Home uint8

const (
	HomeArena  Home = iota // planned activations
	HomeInput              // image, label
	HomeParam              // the parameter arena, under Slot.Name
	HomeGrad               // the gradient arena
	HomeState0             // the optimizer state arenas
	HomeState1
	HomeAverage // the arena of the parameters' averages
	HomeConst   // a table computed at compile time
	HomeNone    // no memory: scalars the host sets, splat constants
)

// Slot says where a value's elements are: Offset elements into the memory of
// Root, rows of length Type.Last() standing Stride elements apart.
type Slot struct {
	Root   *Value
	Home   Home
	Name   string // parameter name, for HomeParam, HomeGrad, HomeState and HomeAverage
	Offset int64
	Stride int64
}

// Contiguous reports whether the rows of v follow each other without a gap.
func (s Slot) Contiguous(v *Value) bool {
	return s.Stride == int64(v.Type.Last()) || v.Type.Rows() == 1 && !v.Type.Batched
}

// Layout resolves the views of a graph: which values share memory.
//
// A reshape or slice lies in its operand. The operands of a concatenation lie
// in its result, so their producers write into it directly; a concatenation of
// parameters lies in the first one, and the parameter arena must keep them
// neighbours. Outputs grad.NAME, param.NAME, stateN.NAME and average.NAME lie in
// the arenas of gradients, parameters, states and averages at NAME.
//
// It returns an error where sharing is impossible (LegalizeViews in passes
// inserts the copies that make it possible).
func (g *Graph) Layout() (map[*Value]Slot, error) {
	l := layouter{within: map[*Value]concatPart{}, slots: map[*Value]Slot{}}
	for _, n := range g.Nodes {
		if err := l.noteConcat(n); err != nil {
			return nil, err
		}
	}
	for _, n := range g.Nodes {
		for _, v := range n.Outs {
			if _, err := l.slot(v); err != nil {
				return nil, err
			}
		}
	}
	if err := l.bindOutputs(g); err != nil {
		return nil, err
	}
	return l.slots, nil
}

// concatPart is where an operand lies in a concatenation's result.
type concatPart struct {
	whole *Value
	at    int64 // elements
}

type layouter struct {
	within map[*Value]concatPart
	slots  map[*Value]Slot
}

// OfParams reports whether every operand of a concatenation is a parameter (or
// a state tensor), stacked where it lies.
func OfParams(n *Node) bool {
	if n.Op != OpConcatFirst {
		return false
	}
	for _, a := range n.Args {
		if a.Def.Op != OpParam && a.Def.Op != OpState {
			return false
		}
	}
	return true
}

func (l *layouter) noteConcat(n *Node) error {
	if n.Op != OpConcatLast && n.Op != OpConcatFirst || OfParams(n) {
		return nil
	}
	at := int64(0)
	for _, a := range n.Args {
		if c := a.Def.Op.Info().Class; c == ClassSource || c == ClassView && !concatResult(a.Def) {
			return fmt.Errorf("%v of %s cannot be placed inside %v: it has memory of its own", a, a.Def.Op, n.Out())
		}
		if _, dup := l.within[a]; dup {
			return fmt.Errorf("%v lies in two concatenations", a)
		}
		l.within[a] = concatPart{n.Out(), at}
		if n.Op == OpConcatLast {
			at += int64(a.Type.Last())
		} else {
			at += int64(a.Type.Elems())
		}
	}
	return nil
}

func concatResult(n *Node) bool {
	return n.Op == OpConcatLast || n.Op == OpConcatFirst && !OfParams(n)
}

func (l *layouter) slot(v *Value) (Slot, error) {
	if s, ok := l.slots[v]; ok {
		return s, nil
	}
	s, err := l.resolve(v)
	if err != nil {
		return s, err
	}
	l.slots[v] = s
	return s, nil
}

func (l *layouter) resolve(v *Value) (Slot, error) {
	if p, ok := l.within[v]; ok {
		s, err := l.slot(p.whole)
		s.Offset += p.at
		if p.whole.Def.Op == OpConcatFirst {
			s.Stride = int64(v.Type.Last())
		}
		return s, err
	}
	n := v.Def
	switch n.Op {
	case OpReshape:
		s, err := l.slot(n.Args[0])
		if err == nil && v.Type.Last() != n.Args[0].Type.Last() {
			if !s.Contiguous(n.Args[0]) {
				return s, fmt.Errorf("reshape of %v, whose rows are not contiguous", n.Args[0])
			}
			s.Stride = int64(v.Type.Last())
		}
		return s, err
	case OpSliceLast:
		s, err := l.slot(n.Args[0])
		s.Offset += int64(n.Int("from"))
		return s, err
	case OpSliceFirst:
		s, err := l.slot(n.Args[0])
		x := n.Args[0].Type
		s.Offset += int64(n.Int("from")) * int64(x.Elems()/x.Shape[0])
		return s, err
	case OpConcatFirst:
		if OfParams(n) {
			s, err := l.slot(n.Args[0])
			s.Stride = int64(v.Type.Last())
			return s, err
		}
	}
	home, name := sourceHome(n)
	return Slot{Root: v, Home: home, Name: name, Stride: int64(v.Type.Last())}, nil
}

func sourceHome(n *Node) (Home, string) {
	switch n.Op {
	case OpInput:
		return HomeInput, n.Str("name")
	case OpParam:
		return HomeParam, n.Str("name")
	case OpState:
		switch n.Str("slot") {
		case "grad":
			return HomeGrad, n.Str("name")
		case "state0":
			return HomeState0, n.Str("name")
		case "average":
			return HomeAverage, n.Str("name")
		}
		return HomeState1, n.Str("name")
	case OpSinCos:
		return HomeConst, ""
	case OpScalar, OpConst:
		return HomeNone, ""
	}
	return HomeArena, ""
}

// outputHome says where an output must lie by its name: gradients, updated
// parameters and states in their arenas.
func outputHome(output string) (h Home, param string, ok bool) {
	for _, k := range []struct {
		prefix string
		home   Home
	}{{"grad.", HomeGrad}, {"param.", HomeParam}, {"state0.", HomeState0}, {"state1.", HomeState1}, {"average.", HomeAverage}} {
		if name, ok := strings.CutPrefix(output, k.prefix); ok {
			return k.home, name, true
		}
	}
	return 0, "", false
}

// bindOutputs moves the roots of gradients and updates into their arenas.
func (l *layouter) bindOutputs(g *Graph) error {
	type home struct {
		home Home
		name string
		off  int64
	}
	bound := map[*Value]home{}
	for _, o := range g.Outputs {
		at, name, ok := outputHome(o.Name)
		if !ok {
			continue
		}
		s := l.slots[o.Value]
		if s.Home != HomeArena || !s.Contiguous(o.Value) {
			return fmt.Errorf("output %s is %v, which has memory of its own", o.Name, o.Value)
		}
		if h, dup := bound[s.Root]; dup && h.off == s.Offset {
			return fmt.Errorf("outputs %s and that of %s share %v", o.Name, h.name, o.Value)
		} else if !dup || s.Offset < h.off {
			bound[s.Root] = home{at, name, s.Offset}
		}
	}
	for v, s := range l.slots {
		if h, ok := bound[s.Root]; ok {
			s.Home, s.Name = h.home, h.name
			s.Offset -= h.off
			l.slots[v] = s
		}
	}
	return nil
}
