package passes

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/vitgen/vitgen/ir"
)

// PlanMemory gives every value that must be stored a place in one arena.
// Places are reused as soon as the last reader has run.
//
// What the host reads (logits, loss, correct) lies at the start of the arena,
// in that order, in every program: see OutputPlaces. The rest is placed
// largest first, each at the lowest offset free for all of its life (first
// fit by size; Pisarchyk & Lee 2020 call it greedy by size).
//
// Before:
//
//	%2 = linear %0, %1 : f32[4|2,8]
//
// After:
//
//	%2 = linear %0, %1 : f32[4|2,8]!0+256
func PlanMemory(g *ir.Graph) error { return planMemory(g, true) }

// planMemory is PlanMemory; without reuse, every value keeps its place to itself.
func planMemory(g *ir.Graph, reuse bool) error {
	slots, err := g.Layout()
	if err != nil {
		return err
	}
	lives := lifetimes(g, slots)
	g.Places = map[*ir.Value]ir.Place{}
	fixed, end := outputPlaces(g, slots)
	for i := range lives {
		if p, ok := fixed[lives[i].root]; ok {
			lives[i].place = p
			lives[i].fixed = true
			lives[i].first, lives[i].last = 0, len(g.Groups)
		}
	}
	if reuse {
		end = max(end, firstFit(lives))
	} else {
		for i := range lives {
			if !lives[i].fixed {
				lives[i].place.Offset = end
				end += lives[i].place.Size
			}
		}
	}
	for _, l := range lives {
		g.Places[l.root] = l.place
	}
	g.Arena = end
	g.Stage = ir.StagePlanned
	return nil
}

// life is the time a root must be kept: from the launch that writes it first
// to the one that reads it last.
type life struct {
	root        *ir.Value
	first, last int
	place       ir.Place
	fixed       bool
}

func alignUp(n int64) int64 { return (n + ir.PlaceAlign - 1) / ir.PlaceAlign * ir.PlaceAlign }

// lifetimes finds the arena roots that are stored at all: those read by
// another group than their own, or by the host.
func lifetimes(g *ir.Graph, slots map[*ir.Value]ir.Slot) []life {
	groupOf, launchOf := map[*ir.Node]int{}, g.LaunchOf()
	for i, gr := range g.Groups {
		for _, n := range gr.Nodes {
			groupOf[n] = i
		}
	}
	byRoot := map[*ir.Value]*life{}
	var order []*ir.Value
	touch := func(v *ir.Value, at int) {
		s := slots[v]
		if s.Home != ir.HomeArena {
			return
		}
		l := byRoot[s.Root]
		if l == nil {
			l = &life{root: s.Root, first: at, last: at, place: ir.Place{Size: alignUp(s.Root.MemoryBytes())}}
			byRoot[s.Root] = l
			order = append(order, s.Root)
		}
		l.first, l.last = min(l.first, at), max(l.last, at)
	}
	for v := range g.Stored() {
		if v.Def.Op.Info().Class != ir.ClassView {
			touch(v, launchOf[groupOf[v.Def]])
		}
	}
	for i, gr := range g.Groups {
		if gr.Family == ir.FamilyNone {
			continue // a view touches nothing; its reader does
		}
		for _, n := range gr.Nodes {
			for _, a := range n.Args {
				if groupOf[a.Def] != i {
					touch(a, launchOf[i])
				}
			}
		}
	}
	for _, o := range g.Outputs {
		touch(o.Value, len(g.Groups))
	}
	slices.SortFunc(order, func(a, b *ir.Value) int { return cmp.Compare(a.ID, b.ID) })
	lives := make([]life, len(order))
	for i, r := range order {
		lives[i] = *byRoot[r]
	}
	return lives
}

// outputPlaces puts logits, loss and correct at the start of the arena; the
// places depend on the batch and the classes only, so Eval and Grad agree.
func outputPlaces(g *ir.Graph, slots map[*ir.Value]ir.Slot) (map[*ir.Value]ir.Place, int64) {
	places := map[*ir.Value]ir.Place{}
	var end int64
	for _, name := range []string{"logits", "loss", "correct"} {
		v := g.Output(name)
		if v == nil {
			continue
		}
		size := alignUp(v.MemoryBytes())
		places[slots[v].Root] = ir.Place{Offset: end, Size: size}
		end += size
	}
	return places, end
}

// firstFit places the lives that are not fixed and returns the arena's size.
func firstFit(lives []life) int64 {
	order := make([]*life, 0, len(lives))
	var placed []*life
	var end int64
	for i := range lives {
		if lives[i].fixed {
			placed = append(placed, &lives[i])
			end = max(end, lives[i].place.Offset+lives[i].place.Size)
		} else {
			order = append(order, &lives[i])
		}
	}
	slices.SortStableFunc(order, func(a, b *life) int { return cmp.Compare(b.place.Size, a.place.Size) })
	for _, l := range order {
		l.place.Offset = lowestGap(l, placed)
		placed = append(placed, l)
		end = max(end, l.place.Offset+l.place.Size)
	}
	return end
}

// lowestGap is the lowest offset at which l meets no placed life of the same time.
func lowestGap(l *life, placed []*life) int64 {
	var busy []ir.Place
	for _, p := range placed {
		if p.first <= l.last && l.first <= p.last {
			busy = append(busy, p.place)
		}
	}
	slices.SortFunc(busy, func(a, b ir.Place) int { return cmp.Compare(a.Offset, b.Offset) })
	at := int64(0)
	for _, b := range busy {
		if b.Offset-at >= l.place.Size {
			break
		}
		at = max(at, b.Offset+b.Size)
	}
	return at
}

// CheckPlaces is the memory plan's independent check: it replays the groups
// and fails if a kernel reads bytes that another value has overwritten since,
// or writes over bytes still to be read. It shares no code with the planner:
// it tracks, for every 64-byte line of the arena, which root wrote it last.
func CheckPlaces(g *ir.Graph) error {
	slots, err := g.Layout()
	if err != nil {
		return err
	}
	owner := make([]*ir.Value, g.Arena/ir.PlaceAlign)
	lines := func(r *ir.Value) ([]*ir.Value, error) {
		p, ok := g.Places[r]
		if !ok {
			return nil, fmt.Errorf("%v has no place", r)
		}
		need := (r.MemoryBytes() + ir.PlaceAlign - 1) / ir.PlaceAlign
		if p.Offset%ir.PlaceAlign != 0 || p.Offset < 0 || p.Offset/ir.PlaceAlign+need > int64(len(owner)) {
			return nil, fmt.Errorf("%v does not fit the arena at %d", r, p.Offset)
		}
		return owner[p.Offset/ir.PlaceAlign : p.Offset/ir.PlaceAlign+need], nil
	}
	expect := func(v *ir.Value, who string) error {
		if slots[v].Home != ir.HomeArena {
			return nil
		}
		root := slots[v].Root
		ls, err := lines(root)
		if err != nil {
			return err
		}
		for _, o := range ls {
			if o != root {
				return fmt.Errorf("%s reads %v after %v was written over it", who, v, o)
			}
		}
		return nil
	}
	stored := g.Stored()
	for at := 0; at < len(g.Groups); {
		// The kernels of one launch: they run at the same time.
		end := at + 1
		for end < len(g.Groups) && (g.Groups[end].Joined || g.Groups[end].Family == ir.FamilyNone) {
			end++
		}
		launch := g.Groups[at:end]
		at = end
		// Writes first: a kernel may write any output before another, or it
		// itself, has read its last input, so an input must survive the outputs.
		for _, gr := range launch {
			for _, n := range gr.Nodes {
				for _, o := range n.Outs {
					if gr.Family == ir.FamilyNone || !stored[o] || slots[o].Home != ir.HomeArena {
						continue
					}
					root := slots[o].Root
					ls, err := lines(root)
					if err != nil {
						return err
					}
					for i := range ls {
						ls[i] = root
					}
				}
			}
		}
		for _, gr := range launch {
			in := map[*ir.Node]bool{}
			for _, n := range gr.Nodes {
				in[n] = true
			}
			for _, n := range gr.Nodes {
				for _, a := range n.Args {
					if gr.Family != ir.FamilyNone && !in[a.Def] {
						if err := expect(a, n.Op.String()); err != nil {
							return err
						}
					}
				}
			}
		}
	}
	for _, o := range g.Outputs {
		if err := expect(o.Value, "output "+o.Name); err != nil {
			return err
		}
	}
	return nil
}
