package passes

import (
	"cmp"
	"slices"

	"github.com/vitgen/vitgen/ir"
)

// Join lets kernels that wait for nothing of each other share a launch (also
// called horizontal fusion): the gradients of a layer's weight and of its
// input, both from dy; the projections of a pruned query and of the keys and
// values. A launch costs over a microsecond even inside a graph, and the blocks
// of one kernel fill the multiprocessors that the last wave of another leaves
// idle.
//
// Before:
//
//	group gemm {
//	* %7 = linear_dw %5, %1 : f32[8,4]
//	}
//	group gemm {
//	* %8 = linear_dx %5, %2 : f32[4|2,4]
//	}
//
// After:
//
//	group gemm {
//	* %7 = linear_dw %5, %1 : f32[8,4]
//	}
//	with gemm {
//	* %8 = linear_dx %5, %2 : f32[4|2,4]
//	}
//
// A kernel joins the earliest launch that comes after everything it reads, if
// that is not further away than joinReach launches: what it writes would stay in
// memory for longer.
func Join(g *ir.Graph) error {
	j := joiner{key: map[*ir.Node]int{}}
	for _, gr := range g.Groups {
		j.place(gr)
	}
	// A kernel of launch l has key 2l, a view of what it writes 2l+1.
	slices.SortStableFunc(g.Groups, func(a, b *ir.Group) int {
		return cmp.Compare(j.key[a.Nodes[0]], j.key[b.Nodes[0]])
	})
	g.Nodes = nil
	last := -1
	for _, gr := range g.Groups {
		g.Nodes = append(g.Nodes, gr.Nodes...)
		if k := j.key[gr.Nodes[0]]; gr.Family != ir.FamilyNone {
			gr.Joined, last = k == last, k
		}
	}
	return nil
}

// joinReach is how many launches back a kernel may move.
const joinReach = 3

// maxJoined bounds the kernels of one launch: each adds code and registers to
// the kernel that holds them all.
const maxJoined = 4

// joins are the families whose kernels may share a launch: they have the same
// number of threads, which attention and the optimizer choose for themselves.
var joins = map[ir.Family]bool{ir.FamilyGemm: true, ir.FamilyRow: true, ir.FamilyReduce: true, ir.FamilyPointwise: true}

type joiner struct {
	launches []*launchSet
	key      map[*ir.Node]int
}

type launchSet struct {
	size int
	open bool // others may join
}

func (j *joiner) place(gr *ir.Group) {
	after := -1 // key of the latest thing gr waits for
	for _, n := range gr.Nodes {
		for _, a := range n.Args {
			if k, ok := j.key[a.Def]; ok && !slices.Contains(gr.Nodes, a.Def) {
				after = max(after, k)
			}
		}
	}
	key := after | 1 // a view stands behind what it is of
	if gr.Family != ir.FamilyNone {
		key = 2 * j.launch(gr, (after+2)/2)
	}
	for _, n := range gr.Nodes {
		j.key[n] = key
	}
}

// launch finds the launch for a group that may be in number first or later.
func (j *joiner) launch(gr *ir.Group, first int) int {
	if joins[gr.Family] {
		for l := max(first, len(j.launches)-joinReach); l < len(j.launches); l++ {
			if s := j.launches[l]; s.open && s.size < maxJoined {
				s.size++
				return l
			}
		}
	}
	j.launches = append(j.launches, &launchSet{1, joins[gr.Family]})
	return len(j.launches) - 1
}
