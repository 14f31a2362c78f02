package plan

import (
	"fmt"
	"slices"

	"github.com/vitgen/vitgen/ir"
)

// Param is a parameter as the spec declares it.
type Param struct {
	Name   string
	Shape  []int
	Decay  bool
	Offset int // elements; set by layoutParams
}

// Layout is the flat parameter arena. Gradients and optimizer state have the
// same layout.
type Layout struct {
	Params     []Param // in the order given: the spec's
	Elems      int     // whole length, with padding
	DecayElems int     // the first elements decay, the rest does not
	offset     map[string]int
}

// paramAlign starts every run of parameters on a cache line (16 floats).
const paramAlign = 16

// layoutParams places the parameters: those that decay first, otherwise in the
// order given, except that parameters a graph stacks with concat_first stand
// together without a gap.
func layoutParams(params []Param, graphs []*ir.Graph) (Layout, error) {
	l := Layout{Params: slices.Clone(params), offset: map[string]int{}}
	chains, err := stackedParams(graphs)
	if err != nil {
		return l, err
	}
	byName := map[string]*Param{}
	for i := range l.Params {
		byName[l.Params[i].Name] = &l.Params[i]
	}
	at := 0
	place := func(decay bool) {
		for i := range l.Params {
			p := &l.Params[i]
			if _, done := l.offset[p.Name]; done || p.Decay != decay {
				continue
			}
			run := chains.run(p.Name)
			at = (at + paramAlign - 1) / paramAlign * paramAlign
			for _, name := range run {
				q := byName[name]
				q.Offset = at
				l.offset[name] = at
				at += ir.Product(q.Shape)
			}
		}
		at = (at + paramAlign - 1) / paramAlign * paramAlign
	}
	place(true)
	l.DecayElems = at
	place(false)
	l.Elems = at
	return l, l.check(graphs)
}

// chain records which parameter must directly follow which.
type chain struct {
	next, prev map[string]string
}

func stackedParams(graphs []*ir.Graph) (chain, error) {
	c := chain{map[string]string{}, map[string]string{}}
	for _, g := range graphs {
		for _, n := range g.Nodes {
			if !ir.OfParams(n) {
				continue
			}
			for i := 1; i < len(n.Args); i++ {
				a, b := n.Args[i-1].Def.Str("name"), n.Args[i].Def.Str("name")
				if x, ok := c.next[a]; ok && x != b {
					return c, fmt.Errorf("parameter %s cannot stand before both %s and %s", a, x, b)
				}
				if x, ok := c.prev[b]; ok && x != a {
					return c, fmt.Errorf("parameter %s cannot stand after both %s and %s", b, x, a)
				}
				c.next[a], c.prev[b] = b, a
			}
		}
	}
	return c, nil
}

// run is the whole run of neighbours that name belongs to.
func (c chain) run(name string) []string {
	for c.prev[name] != "" {
		name = c.prev[name]
	}
	run := []string{name}
	for c.next[name] != "" {
		name = c.next[name]
		run = append(run, name)
	}
	return run
}

// check confirms that every stack of parameters really is contiguous.
func (l *Layout) check(graphs []*ir.Graph) error {
	for _, g := range graphs {
		for _, n := range g.Nodes {
			if !ir.OfParams(n) {
				continue
			}
			for i := 1; i < len(n.Args); i++ {
				a, b := n.Args[i-1], n.Args[i]
				if l.offset[a.Def.Str("name")]+a.Type.Elems() != l.offset[b.Def.Str("name")] {
					return fmt.Errorf("parameters %s and %s are not neighbours", a.Def.Str("name"), b.Def.Str("name"))
				}
			}
		}
	}
	return nil
}
