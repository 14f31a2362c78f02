package passes

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/spec"
)

// Options are the compiler's debug switches. The zero Options compile with
// every pass and say nothing.
type Options struct {
	Target Target // what the programs will run on; empty: CPU

	Disable   []string // passes to leave out; only optional ones can be
	StopAfter string   // the last pass to run; the programs are returned as they are then

	// DumpTo gets each graph after the passes named in DumpPasses ("all": every
	// pass), to print; it must not change it.
	DumpPasses []string
	DumpTo     func(pass string, g *ir.Graph)

	Timing func(pass, program string, d time.Duration) // gets what each pass took
	Report func(pass, program, text string)            // gets what passes have to say about their decisions

	// Seed, if not 0, puts the nodes into another topological order before
	// every pass: results may differ by rounding, anything more is a pass that
	// relies on an order nobody promised.
	Seed uint64
}

// Target is a kind of machine that programs are compiled for.
type Target string

const (
	CPU  Target = "cpu"
	CUDA Target = "cuda"
)

// Programs are the compiled graphs of a spec.
type Programs struct {
	Forward, Eval, Grad, Update *ir.Graph

	Precision string // what the spec asks for: fp32, tf32 or bf16 (see the precision pass)
}

// Of gives one program's graph.
func (p *Programs) Of(id Program) *ir.Graph {
	return [...]*ir.Graph{p.Forward, p.Eval, p.Grad, p.Update}[id]
}

// Compile runs all passes over all programs of a checked spec.
//
// An error is either a mistake in the options, or an internal error that names
// the pass: a spec that Parse accepts compiles.
func Compile(s *spec.Spec, o Options) (*Programs, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	var graphs [numPrograms]*ir.Graph
	for id := range numPrograms {
		c := &compilation{spec: s, program: id, options: o}
		g, err := c.run()
		if err != nil {
			return nil, err
		}
		graphs[id] = g
	}
	return &Programs{Forward: graphs[Forward], Eval: graphs[Eval], Grad: graphs[Grad], Update: graphs[Update],
		Precision: s.Train.Precision}, nil
}

// Inference gives the forward graph of a checked spec as it is exported:
// simplified, but with every token computed and every node by itself.
func Inference(s *spec.Spec) (*ir.Graph, error) {
	c := &compilation{spec: s, program: Forward, options: Options{StopAfter: "dce"}}
	return c.run()
}

// compilation is one program on its way through the passes.
type compilation struct {
	spec    *spec.Spec
	program Program
	options Options
}

// run makes the program's graph.
func (c *compilation) run() (*ir.Graph, error) {
	g := ir.NewGraph("", "")
	rng := rand.New(rand.NewPCG(c.options.Seed, uint64(c.program)))
	for _, p := range passTable {
		if run := c.runs(p); run != nil {
			if c.options.Seed != 0 && g.Stage < ir.StageFused {
				shuffle(g, rng)
			}
			if err := c.pass(p.Name, g, run); err != nil {
				return nil, err
			}
		}
		if p.Name == c.options.StopAfter {
			break
		}
	}
	return g, nil
}

// runs gives what a pass does here; nil: nothing.
func (c *compilation) runs(p Pass) func(*compilation, *ir.Graph) error {
	switch {
	case !slices.Contains(p.Programs, c.program) || p.when != nil && !p.when(c.spec),
		p.Target != "" && p.Target != cmp.Or(c.options.Target, CPU):
		return nil
	case slices.Contains(c.options.Disable, p.Name):
		return p.off
	}
	return p.run
}

// pass runs and verifies one pass.
func (c *compilation) pass(name string, g *ir.Graph, run func(*compilation, *ir.Graph) error) error {
	start := time.Now()
	err := protect(func() error { return run(c, g) })
	if err == nil && c.options.Timing != nil {
		c.options.Timing(name, c.program.String(), time.Since(start))
	}
	if err == nil {
		err = protect(func() error { return ir.Verify(g) })
	}
	if err != nil {
		return fmt.Errorf("%s: internal error in pass %s of program %s: %w", c.spec.File, name, c.program, err)
	}
	if o := c.options; o.DumpTo != nil && (slices.Contains(o.DumpPasses, name) || slices.Contains(o.DumpPasses, "all")) {
		o.DumpTo(name, g)
	}
	return nil
}

// report hands a decision to whoever listens.
func (c *compilation) report(pass, text string) {
	if c.options.Report != nil {
		c.options.Report(pass, c.program.String(), text)
	}
}

// protect turns a panic into an error: a fault of the compiler should name the
// pass it happened in, not only a line of Go.
func protect(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v\n%s", r, debug.Stack())
		}
	}()
	return f()
}

// shuffle puts the nodes into a random topological order.
func shuffle(g *ir.Graph, rng *rand.Rand) {
	waits := map[*ir.Node]int{}
	readers := map[*ir.Node][]*ir.Node{}
	var ready []*ir.Node
	for _, n := range g.Nodes {
		waits[n] = len(n.Args)
		for _, a := range n.Args {
			readers[a.Def] = append(readers[a.Def], n)
		}
		if len(n.Args) == 0 {
			ready = append(ready, n)
		}
	}
	order := make([]*ir.Node, 0, len(g.Nodes))
	for len(ready) > 0 {
		i := rng.IntN(len(ready))
		n := ready[i]
		ready = slices.Delete(ready, i, i+1)
		order = append(order, n)
		for _, r := range readers[n] {
			if waits[r]--; waits[r] == 0 {
				ready = append(ready, r)
			}
		}
	}
	g.Nodes = order
}
