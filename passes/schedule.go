package passes

import (
	"cmp"
	"slices"

	"github.com/vitgen/vitgen/ir"
)

// Schedule orders the groups so that less memory is alive at once: among the
// groups that are ready it runs the one that frees most for what it allocates,
// in program order on a tie. The new order is kept only if its peak is lower.
func Schedule(g *ir.Graph) error {
	slots, err := g.Layout()
	if err != nil {
		return err
	}
	before := peak(g, slots)
	old, oldNodes := g.Groups, g.Nodes
	g.Groups = greedyOrder(g, slots)
	g.Nodes = nil
	for _, gr := range g.Groups {
		g.Nodes = append(g.Nodes, gr.Nodes...)
	}
	if peak(g, slots) >= before {
		g.Groups, g.Nodes = old, oldNodes
	}
	return nil
}

// peak is the most bytes alive at once, were memory free of fragmentation.
func peak(g *ir.Graph, slots map[*ir.Value]ir.Slot) int64 {
	delta := make([]int64, len(g.Groups)+2)
	for _, l := range lifetimes(g, slots) {
		delta[l.first] += l.place.Size
		delta[l.last+1] -= l.place.Size
	}
	var now, most int64
	for _, d := range delta {
		now += d
		most = max(most, now)
	}
	return most
}

// scheduler holds what greedyOrder needs to know of every group.
type scheduler struct {
	waits   []int             // groups that must come first and have not run
	next    [][]int           // groups that wait for this one
	roots   [][]*ir.Value     // arena roots a group reads or writes
	left    map[*ir.Value]int // groups that still touch a root
	started map[*ir.Value]bool
}

func greedyOrder(g *ir.Graph, slots map[*ir.Value]ir.Slot) []*ir.Group {
	s := newScheduler(g, slots)
	var ready []int
	for i, w := range s.waits {
		if w == 0 {
			ready = append(ready, i)
		}
	}
	var order []*ir.Group
	for len(ready) > 0 {
		slices.Sort(ready)
		best := slices.MinFunc(ready, func(a, b int) int {
			return cmp.Or(cmp.Compare(s.cost(a), s.cost(b)), cmp.Compare(a, b))
		})
		ready = slices.DeleteFunc(ready, func(i int) bool { return i == best })
		order = append(order, g.Groups[best])
		for _, r := range s.roots[best] {
			s.started[r] = true
			s.left[r]--
		}
		for _, j := range s.next[best] {
			if s.waits[j]--; s.waits[j] == 0 {
				ready = append(ready, j)
			}
		}
	}
	return order
}

func newScheduler(g *ir.Graph, slots map[*ir.Value]ir.Slot) *scheduler {
	s := &scheduler{
		waits: make([]int, len(g.Groups)), next: make([][]int, len(g.Groups)),
		roots: make([][]*ir.Value, len(g.Groups)), left: map[*ir.Value]int{}, started: map[*ir.Value]bool{},
	}
	groupOf := map[*ir.Node]int{}
	for i, gr := range g.Groups {
		for _, n := range gr.Nodes {
			groupOf[n] = i
		}
	}
	stored := g.Stored()
	for i, gr := range g.Groups {
		before := map[int]bool{}
		touched := map[*ir.Value]bool{}
		touch := func(v *ir.Value) {
			if sl := slots[v]; sl.Home == ir.HomeArena && !touched[sl.Root] && gr.Family != ir.FamilyNone {
				touched[sl.Root] = true
				s.roots[i] = append(s.roots[i], sl.Root)
				s.left[sl.Root]++
			}
		}
		for _, n := range gr.Nodes {
			for _, a := range n.Args {
				if j := groupOf[a.Def]; j != i {
					touch(a)
					if !before[j] {
						before[j] = true
						s.waits[i]++
						s.next[j] = append(s.next[j], i)
					}
				}
			}
			for _, o := range n.Outs {
				if stored[o] {
					touch(o)
				}
			}
		}
	}
	for _, o := range g.Outputs {
		s.left[slots[o.Value].Root]++ // the host reads it in the end
	}
	return s
}

// cost is how many bytes more are alive after group i has run. Views and
// sources cost nothing and run at once.
func (s *scheduler) cost(i int) int64 {
	var c int64
	for _, r := range s.roots[i] {
		if !s.started[r] {
			c += alignUp(r.MemoryBytes())
		}
		if s.left[r] == 1 {
			c -= alignUp(r.MemoryBytes())
		}
	}
	return c
}
