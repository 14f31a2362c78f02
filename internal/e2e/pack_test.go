package e2e

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vitgen/vitgen/codegen"
	"github.com/vitgen/vitgen/codegen/kernels"
	"github.com/vitgen/vitgen/codegen/plan"
	"github.com/vitgen/vitgen/generated/mixer"
	"github.com/vitgen/vitgen/generated/vit_tiny"
	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/runtime"
)

// Forward and Eval find the weights of their products packed, Grad packs them as
// it goes: without dropout they leave the same logits, bit for bit, for any number
// of samples, before and after an update.
func TestPackedWeightsGiveTheSameBits(t *testing.T) {
	if testing.Short() {
		t.Skip("builds two models, which takes a minute; not in -short mode")
	}
	for _, m := range []*runtime.Model{vit_tiny.Describe(), mixer.Describe()} {
		s, err := runtime.NewSession(m, runtime.Options{Device: "cpu", Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if len(m.Pack) == 0 {
			t.Fatalf("%s packs no weights", m.Name)
		}
		s.SetDropout(false)
		rng := rand.New(rand.NewPCG(8, 8))
		images, labels := make([]float32, m.Batch*m.ImageElems()), make([]int32, m.Batch)
		for i := range images {
			images[i] = rng.Float32()
		}
		for i := range labels {
			labels[i] = int32(rng.IntN(m.Classes))
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			for _, n := range []int{1, 3, m.Batch} {
				forward, err := s.Forward(images, n)
				must(err)
				loss, correct, err := s.Eval(images, labels, n)
				must(err)
				eval, err := s.Logits(n)
				must(err)
				gradLoss, gradCorrect, err := s.Grad(images, labels, n, n)
				must(err)
				grad, err := s.Logits(n)
				must(err)
				if !slices.Equal(forward, grad) || !slices.Equal(eval, grad) || loss != gradLoss || correct != gradCorrect {
					t.Errorf("%s, %d samples: forward, eval and grad differ: loss %g and %g, %d and %d correct", m.Name, n, loss, gradLoss, correct, gradCorrect)
				}
			}
			_, _, err := s.Step(images, labels)
			must(err)
		}
	}
}

// In every example and golden, each product of forward and eval reads a packed
// weight that the pack program makes once, in a place that neither those programs
// nor another weight has; grad packs its own.
func TestPackedPlaces(t *testing.T) {
	specs := goldens(t)
	maps.Copy(specs, examples(t))
	for name, s := range specs {
		graphs, err := passes.Compile(s, passes.Options{})
		if err != nil {
			t.Fatal(err)
		}
		p, err := codegen.Plan(s, []*ir.Graph{graphs.Forward, graphs.Eval, graphs.Grad, graphs.Update})
		if err != nil {
			t.Fatal(err)
		}
		if p.Pack == nil {
			t.Errorf("%s packs no weights", name)
			continue
		}
		end := max(graphs.Forward.Arena, graphs.Eval.Arena)
		shapes := map[plan.Ref][2]int{}
		sources := map[plan.Ref]bool{}
		for _, l := range p.Pack.Launches {
			b := l.Kernel.Body.(*plan.Pack)
			from, to := l.Args[b.W.Arg], l.Args[b.Out]
			if to.Region != plan.Arena || to.Offset < end || to.Offset%64 != 0 || from.Region != plan.Params || sources[from] {
				t.Errorf("%s: %s packs %v into %v; the arena is free from %d on", name, l.Layer, from, to, end)
			}
			end = to.Offset + kernels.PackedWeightBytes(b.N, b.K)
			shapes[to], sources[from] = [2]int{b.N, b.K}, true
		}
		if end > p.ArenaBytes {
			t.Errorf("%s: packed weights end at %d of an arena of %d bytes", name, end, p.ArenaBytes)
		}
		for _, prog := range p.Programs {
			inference := prog.Name == "forward" || prog.Name == "eval"
			for _, l := range prog.Launches {
				g, ok := l.Kernel.Body.(*plan.Gemm)
				if !ok {
					continue
				}
				if g.Packed != inference || g.Packed && shapes[l.Args[g.B.Arg]] != [2]int{g.N, g.K} {
					t.Errorf("%s: %s, %s: a product [%d×%d] whose weight is packed: %v, as %v", name, prog.Name, l.Layer, g.N, g.K, g.Packed, shapes[l.Args[g.B.Arg]])
				}
			}
		}
	}
}
