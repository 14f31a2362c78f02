package runtime_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/internal/fake"
)

// TestPackedWeights: after everything that changes parameters, or the arena, in
// which packed weights lie, Forward and Eval are those of a session that never had
// other parameters; and as long as nothing does, weights are packed once.
func TestPackedWeights(t *testing.T) {
	train := runtime.Train{EMA: runtime.EMA{Decay: 0.5}, Accumulate: 2, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.5}}
	s := open(t, fake.New(image, classes, 4, train), runtime.Options{Threads: 2, Seed: 5})
	fresh := open(t, fake.New(image, classes, 4, train), runtime.Options{Seed: 6})
	x, y := batch(6, 1)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var earlier runtime.Snapshot
	must(s.Snapshot(&earlier))
	saved := filepath.Join(t.TempDir(), "weights.safetensors")
	must(fresh.Save(saved))

	for _, c := range []struct {
		what   string
		do     func() error
		change bool // of the logits
	}{
		{"nothing", func() error { return nil }, true}, // nothing was known before
		{"a step", func() error { _, _, err := s.Step(x, y); return err }, true},
		{"gradients", func() error { _, _, err := s.Grad(x, y, 4, 6); return err }, false},
		{"more gradients", func() error { _, _, err := s.Grad(x[4*6:], y[4:], 2, 6); return err }, false},
		{"the update", s.Update, true},
		{"the average", s.SwapAverage, true},
		{"the parameters again", s.SwapAverage, true},
		{"one parameter", func() error { return s.SetParam("head.bias", []float32{3, 1, 4, 1}) }, true},
		{"one weight", func() error { return s.SetParam("head.weight", slices.Repeat([]float32{0.5, -1}, 12)) }, true},
		{"a snapshot", func() error { return s.Restore(&earlier) }, true},
		{"a submitted step", func() error {
			_, err := s.Submit(runtime.Samples{Images: x[:4*6], Labels: y[:4]}, 4)
			return err
		}, true},
		{"weights", func() error { return s.Load(saved) }, true},
		{"initialization", func() error { return s.Init(9) }, true},
		{"a profile of the update", func() error { _, err := s.Profile(runtime.Update, 4); return err }, false},
		{"a replay of a step", func() error {
			_, err := s.FindNaN(runtime.Samples{Images: x[:4*6], Labels: y[:4]}, 4)
			return err
		}, true},
	} {
		before, err := s.Forward(x, 6)
		must(err)
		if c.what == "nothing" {
			before = nil
		}
		must(c.do())
		packed := fake.Packed.Load()
		sum, correct, err := s.Eval(x, y, 6)
		must(err)
		_, err = s.Profile(runtime.Forward, 4)
		must(err)
		got, err := s.Forward(x, 6)
		must(err)
		if n := fake.Packed.Load() - packed; n > 1 {
			t.Errorf("%s: weights were packed %d times", c.what, n)
		}

		for i := range s.Model().Params {
			name := s.Model().Params[i].Name
			v, err := s.Param(name)
			must(err)
			must(fresh.SetParam(name, v))
		}
		want, err := fresh.Forward(x, 6)
		must(err)
		wantSum, wantCorrect, err := fresh.Eval(x, y, 6)
		must(err)
		if !slices.Equal(got, want) || sum != wantSum || correct != wantCorrect {
			t.Errorf("%s: logits %v, loss %g, %d correct; a fresh session has %v, %g, %d", c.what, got, sum, correct, want, wantSum, wantCorrect)
		}
		if changed := !slices.Equal(before, got); changed != c.change {
			t.Errorf("%s: did the logits change? %v", c.what, changed)
		}
	}
}
