package passes

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"

	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/spec"
)

// Pass is a row of the pass table.
type Pass struct {
	Name     string
	Doc      string
	Optional bool      // can be disabled: programs are right without it
	Programs []Program // those it runs on
	Target   Target    // the only target it runs for; empty: all
	After    []Order   // passes that must come earlier

	when func(*spec.Spec) bool // nil: for every spec
	run  func(c *compilation, g *ir.Graph) error
	off  func(c *compilation, g *ir.Graph) error // runs instead where the pass is disabled; nil: nothing does
}

// Order is a constraint on the order of passes, with its reason.
type Order struct{ Pass, Reason string }

// Passes gives the pass table in the order in which the passes run.
func Passes() []Pass { return slices.Clone(passTable) }

// PassNames lists the passes in order.
func PassNames() []string {
	names := make([]string, len(passTable))
	for i, p := range passTable {
		names[i] = p.Name
	}
	return names
}

// simple wraps a pass that needs nothing but the graph.
func simple(f func(*ir.Graph) error) func(*compilation, *ir.Graph) error {
	return func(_ *compilation, g *ir.Graph) error { return f(g) }
}

var (
	allPrograms   = []Program{Forward, Eval, Grad, Update}
	modelPrograms = []Program{Forward, Eval, Grad}
	gradProgram   = []Program{Grad}
)

var passTable = []Pass{
	{
		Name: "frontend", Programs: allPrograms,
		Doc: "builds the graph from the spec",
		run: func(c *compilation, g *ir.Graph) error {
			*g = *Frontend(c.spec, c.program)
			return nil
		},
	},
	{
		Name: "canonicalize", Optional: true, Programs: allPrograms, run: simple(Canonicalize),
		Doc:   "simplifies nodes and folds constants",
		After: []Order{{"frontend", "it makes the graph"}},
	},
	{
		Name: "cse", Optional: true, Programs: allPrograms, run: simple(CSE),
		Doc:   "computes equal values once",
		After: []Order{{"canonicalize", "equal values are then written alike"}},
	},
	{
		Name: "dce", Optional: true, Programs: allPrograms, run: simple(DCE),
		Doc:   "removes what no output depends on",
		After: []Order{{"canonicalize", "simplification leaves unread nodes behind"}, {"cse", "so does sharing"}},
	},
	{
		Name: "prune", Optional: true, Programs: modelPrograms, run: simple(Prune),
		Doc: "computes only the tokens that are read",
		After: []Order{
			{"canonicalize", "slices of slices and one-way reshapes would hide what is read"},
			{"cse", "two equal slices would count as two readers"},
		},
	},
	{
		Name: "absorb", Optional: true, Programs: modelPrograms, Target: CPU, run: simple(Absorb),
		Doc:   "few query rows attend to the tokens themselves, and no keys or values are formed",
		After: []Order{{"prune", "it leaves few query rows, and knows no other attention"}},
	},
	{
		Name: "autodiff", Programs: gradProgram, run: simple(Autodiff),
		Doc: "adds the gradients",
		After: []Order{
			{"prune", "rows that are not computed have no gradient to compute; pruning knows forward ops only"},
			{"absorb", "it knows forward ops only; the gradient then follows from what it wrote"},
		},
	},
	{
		Name: "accumulate", Programs: gradProgram, run: simple(Accumulate),
		Doc:   "adds the gradients of micro-batches up",
		After: []Order{{"autodiff", "it makes the gradients"}},
		when:  func(s *spec.Spec) bool { return s.Train.Accumulate > 1 },
	},
	{
		Name: "canonicalize-late", Optional: true, Programs: modelPrograms, run: simple(Canonicalize),
		Doc:   "canonicalize, for what the passes since wrote",
		After: []Order{{"autodiff", "gradients are written without a look at their neighbours"}},
	},
	{
		Name: "cse-late", Optional: true, Programs: modelPrograms, run: simple(CSE),
		Doc:   "cse, for what the passes since wrote",
		After: []Order{{"canonicalize-late", "equal values are then written alike"}},
	},
	{
		Name: "dce-late", Optional: true, Programs: modelPrograms, run: simple(DCE),
		Doc:   "dce, for what the passes since wrote",
		After: []Order{{"canonicalize-late", "simplification leaves unread nodes behind"}, {"cse-late", "so does sharing"}},
	},
	{
		Name: "precision", Programs: allPrograms,
		Doc: "checks that every value is computed in f32",
		run: func(_ *compilation, g *ir.Graph) error { return Precision(g) },
		After: []Order{
			{"autodiff", "gradients have element types as well"},
			{"cse-late", "casts would hide equal values"},
		},
	},
	{
		Name: "recompute", Optional: true, Programs: gradProgram,
		Doc: "recomputes cheap values in the backward pass instead of keeping them",
		run: func(c *compilation, g *ir.Graph) error {
			decisions, err := Recompute(g, RecomputeThreshold)
			for _, d := range decisions {
				c.report("recompute", d.String())
			}
			return err
		},
		After: []Order{
			{"autodiff", "there is nothing to keep before"},
			{"cse-late", "it would undo the recomputation"},
		},
	},
	{
		Name: "fuse", Optional: true, Programs: allPrograms, run: simple(Fuse),
		off: func(_ *compilation, g *ir.Graph) error { return fuse(g, false) },
		Doc: "groups nodes into kernels; disabled: a kernel for each node",
		After: []Order{
			{"canonicalize-late", "it would undo the copies that make views and outputs possible"},
			{"dce-late", "an unread node would become a kernel"},
			{"recompute", "what is recomputed becomes part of its readers' kernels"},
		},
	},
	{
		Name: "storage", Programs: modelPrograms, Target: CUDA,
		run:   func(c *compilation, g *ir.Graph) error { return Storage(g, c.spec.Train.Precision) },
		Doc:   "chooses the element type of what kernels hand to each other",
		After: []Order{{"fuse", "only what goes from one kernel to another is in memory"}},
	},
	{
		Name: "schedule", Optional: true, Programs: allPrograms, run: simple(Schedule),
		Doc:   "orders kernels so that less memory is alive at once",
		After: []Order{{"fuse", "kernels are what is ordered"}, {"storage", "it weighs values by their bytes in memory"}},
	},
	{
		Name: "join", Optional: true, Programs: allPrograms, Target: CUDA, run: simple(Join),
		Doc:   "lets independent kernels share a launch",
		After: []Order{{"schedule", "it moves kernels only a little, and the schedule would tear them apart"}},
	},
	{
		Name: "memory", Optional: true, Programs: allPrograms, run: simple(PlanMemory),
		off:   func(_ *compilation, g *ir.Graph) error { return planMemory(g, false) },
		Doc:   "places every stored value in one arena; disabled: none shares its place",
		After: []Order{{"schedule", "lifetimes follow from the order"}, {"join", "kernels of one launch run at the same time"}},
	},
}

// check refuses names of passes that do not exist, and disabling one that the
// programs need.
func (o Options) check() error {
	dump := slices.DeleteFunc(slices.Clone(o.DumpPasses), func(s string) bool { return s == "all" })
	for _, name := range slices.Concat(o.Disable, dump) {
		if _, err := passByName(name); err != nil {
			return err
		}
	}
	if o.StopAfter != "" {
		if _, err := passByName(o.StopAfter); err != nil {
			return err
		}
	}
	for _, name := range o.Disable {
		if p, _ := passByName(name); !p.Optional {
			return fmt.Errorf("pass %s cannot be disabled: programs need it; optional are %s", name, strings.Join(optionalPasses(), ", "))
		}
	}
	return nil
}

func optionalPasses() []string {
	var names []string
	for _, p := range passTable {
		if p.Optional {
			names = append(names, p.Name)
		}
	}
	return names
}

// passByName finds a row; the error suggests what may have been meant.
func passByName(name string) (Pass, error) {
	best, distance := "", 1+len(name)/2
	for _, p := range passTable {
		if p.Name == name {
			return p, nil
		}
		if d := levenshtein.ComputeDistance(name, p.Name); d < distance {
			best, distance = p.Name, d
		}
	}
	if best != "" {
		return Pass{}, fmt.Errorf("there is no pass %q; did you mean %q?", name, best)
	}
	return Pass{}, fmt.Errorf("there is no pass %q; there are %s", name, strings.Join(PassNames(), ", "))
}
