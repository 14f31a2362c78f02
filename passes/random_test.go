package passes

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/ir/interp"
	"github.com/vitgen/vitgen/ir/irtest"
	"github.com/vitgen/vitgen/spec"
)

// tolerance for rewrites that change the order of float64 sums, relative to
// the tensor's norm, or to 1 where that is smaller.
const tolerance = 1e-12

// sameOutputs evaluates two graphs in one environment; they must agree on
// every output.
func sameOutputs(want map[string]interp.Tensor, g *ir.Graph, env interp.Env) error {
	if err := ir.Verify(g); err != nil {
		return err
	}
	got, err := interp.Eval(g, env)
	if err != nil {
		return err
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d outputs, want %d", len(got), len(want))
	}
	for name, w := range want {
		if d := irtest.Distance(got[name], w, 1); d > tolerance {
			return fmt.Errorf("output %s is off by %g", name, d)
		}
	}
	return nil
}

// mustSame fails the test with both graphs printed.
func mustSame(t *rapid.T, what string, before *ir.Graph, want map[string]interp.Tensor, after *ir.Graph, env interp.Env) {
	t.Helper()
	if err := sameOutputs(want, after, env); err != nil {
		t.Fatalf("%s: %v\nbefore:\n%vafter:\n%v", what, err, before, after)
	}
}

func mustEval(t *rapid.T, g *ir.Graph, env interp.Env) map[string]interp.Tensor {
	t.Helper()
	outs, err := interp.Eval(g, env)
	if err != nil {
		t.Fatal(err)
	}
	return outs
}

// apply runs one pass on a copy of the graph.
func apply(t *rapid.T, name string, g *ir.Graph) *ir.Graph {
	t.Helper()
	c, _ := g.Clone()
	p, err := passByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.run(&compilation{spec: &spec.Spec{Train: spec.Train{Precision: "fp32"}}}, c); err != nil {
		t.Fatalf("%s: %v\n%v", name, err, g)
	}
	return c
}

// runFrom runs the table's passes on the graph, from the first on, and checks
// after each that the outputs are the same.
func runFrom(t *rapid.T, first, last string, g *ir.Graph, env interp.Env) *ir.Graph {
	t.Helper()
	want := mustEval(t, g, env)
	on := false
	target := rapid.SampledFrom([]Target{CPU, CUDA}).Draw(t, "target")
	for _, p := range passTable {
		on = on || p.Name == first
		if on && p.when == nil && (p.Target == "" || p.Target == target) {
			after := apply(t, p.Name, g)
			mustSame(t, p.Name, g, want, after, env)
			g = after
		}
		if p.Name == last {
			return g
		}
	}
	return g
}

func TestForwardPassesKeepRandomGraphs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := irtest.RandomGraph(t)
		env := irtest.RandomEnv(t, g)
		env.Dropout = true // without, every row is treated alike
		want := mustEval(t, g, env)
		for _, name := range []string{"canonicalize", "cse", "dce", "prune", "absorb"} {
			mustSame(t, name+" alone", g, want, apply(t, name, g), env)
		}
		runFrom(t, "canonicalize", "absorb", g, env)
	})
}

// Gradients with and without pruning come from different graphs: they agree
// only if both the pruned forward pass and its gradient are right.
func TestPassesKeepRandomGradients(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := irtest.RandomGraph(t)
		env := irtest.RandomEnv(t, g)
		env.Dropout = true
		plain := apply(t, "autodiff", g)
		want := mustEval(t, plain, env)

		pruned := apply(t, "autodiff", runFrom(t, "canonicalize", "absorb", g, env))
		mustSame(t, "canonicalize … absorb, autodiff", g, want, pruned, env)
		runFrom(t, "canonicalize-late", "", pruned, env)
		planned := runFrom(t, "canonicalize-late", "", plain, env)
		if err := CheckPlaces(planned); err != nil {
			t.Fatalf("%v\n%v", err, planned)
		}

		// Everything that can be recomputed, not only what is worth it.
		all, _ := plain.Clone()
		if _, err := Recompute(all, 1<<20); err != nil {
			t.Fatal(err)
		}
		mustSame(t, "recompute without threshold", plain, want, all, env)
	})
}

// Absorption keeps outputs and gradients, and gets along with the passes after it,
// also where it would not pay.
func TestAbsorbKeepsFewQueries(t *testing.T) {
	absorbed := 0
	rapid.Check(t, func(t *rapid.T) {
		g := irtest.RandomFewQueries(t)
		env := irtest.RandomEnv(t, g)
		env.Dropout = true
		want := mustEval(t, apply(t, "autodiff", g), env)
		pruned := runFrom(t, "canonicalize", "prune", g, env)
		if err := absorbWhere(pruned, func(ir.Type, ir.Type, int) bool { return true }); err != nil {
			t.Fatal(err)
		}
		for _, n := range pruned.Nodes {
			if n.Op == ir.OpLatentAttention {
				absorbed++
			}
		}
		grad := apply(t, "autodiff", pruned)
		mustSame(t, "absorb", g, want, grad, env)
		if err := CheckPlaces(runFrom(t, "canonicalize-late", "", grad, env)); err != nil {
			t.Fatal(err)
		}
	})
	if absorbed == 0 {
		t.Error("nothing was absorbed")
	}
}

// What kernels leave in memory as bf16 is rounded there and nowhere else: half of
// all outputs move by no more than a few roundings. (The rest is not bounded:
// norms over three channels magnify.)
func TestStorageRoundsRandomGraphs(t *testing.T) {
	var off []float64
	rapid.Check(t, func(t *rapid.T) {
		g := irtest.RandomGraph(t)
		env := irtest.RandomEnv(t, g)
		env.Dropout = true
		fused := apply(t, "fuse", apply(t, "autodiff", g))
		want := mustEval(t, fused, env)
		if err := Storage(fused, "bf16"); err != nil {
			t.Fatal(err)
		}
		if err := ir.Verify(fused); err != nil {
			t.Fatalf("%v\n%v", err, fused)
		}
		got := mustEval(t, fused, env)
		for name, w := range want {
			off = append(off, irtest.Distance(got[name], w, 1))
		}
		if err := CheckPlaces(apply(t, "memory", apply(t, "join", fused))); err != nil {
			t.Fatal(err)
		}
	})
	slices.Sort(off)
	if median := off[len(off)/2]; !(median > 0 && median < 0.01) {
		t.Errorf("the median output is off by %g", median)
	}
}

// Accumulated gradients are those already there plus the new ones.
func TestAccumulateAddsToRandomGradients(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := irtest.RandomGraph(t)
		env := irtest.RandomEnv(t, g)
		plain := apply(t, "autodiff", g)
		sum := apply(t, "accumulate", plain)
		want := mustEval(t, plain, env)
		env.State = irtest.NewEnv(sum, 1, env.N).State
		for _, n := range g.Nodes {
			if n.Op != ir.OpParam {
				continue
			}
			grad := want["grad."+n.Str("name")]
			total := interp.New(grad.Shape...)
			for i, before := range env.State(n.Str("name"), "grad").Data {
				total.Data[i] = before + grad.Data[i]
			}
			want["grad."+n.Str("name")] = total
		}
		mustSame(t, "accumulate", plain, want, sum, env)
	})
}
