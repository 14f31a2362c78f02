package runtime_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/internal/fake"
	"github.com/vitgen/vitgen/runtime/rng"
)

var image = [3]int{1, 3, 2}

const classes = 4

// batch makes n random labelled images.
func batch(n int, seed uint64) ([]float32, []int32) {
	s := rng.New(seed, "batch")
	x, y := make([]float32, n*6), make([]int32, n)
	for i := range x {
		x[i] = float32(s.Normal())
	}
	for i := range y {
		y[i] = int32(s.Intn(classes))
	}
	return x, y
}

func open(t *testing.T, m *runtime.Model, o runtime.Options) *runtime.Session {
	t.Helper()
	o.Device = "cpu"
	s, err := runtime.NewSession(m, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// params is all parameters, one after the other.
func params(t *testing.T, s *runtime.Session) []float32 {
	t.Helper()
	var all []float32
	for _, p := range s.Model().Params {
		v, err := s.Param(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v...)
	}
	return all
}

// lossOf is the mean loss of the classifier, computed here in float64.
func lossOf(w []float32, x []float32, y []int32) float64 {
	var total float64
	for i, label := range y {
		var z [classes]float64
		sum := 0.0
		for k := range z {
			z[k] = float64(w[classes*6+k])
			for j := range 6 {
				z[k] += float64(w[k*6+j]) * float64(x[i*6+j])
			}
			z[k] *= 0.5
			sum += math.Exp(z[k])
		}
		total += math.Log(sum) - z[label]
	}
	return total / float64(len(y))
}

func TestForwardAndEvalAnyCount(t *testing.T) {
	s := open(t, fake.New(image, classes, 4, runtime.Train{}), runtime.Options{Threads: 2, Seed: 5})
	x, y := batch(11, 1)
	logits, err := s.Forward(x, 11)
	if err != nil {
		t.Fatal(err)
	}
	sum, correct, err := s.Eval(x, y, 11)
	if err != nil {
		t.Fatal(err)
	}
	wantCorrect := 0
	for i, label := range y {
		z := logits[i*classes:][:classes]
		if slices.Max(z) == z[label] {
			wantCorrect++
		}
		one, err := s.Forward(x[i*6:], 1)
		if err != nil || !slices.Equal(one, z) {
			t.Errorf("sample %d alone: %v %v, in the batch %v", i, one, err, z)
		}
	}
	if want := lossOf(params(t, s), x, y); math.Abs(sum/11-want) > 1e-6 {
		t.Errorf("mean loss %g, want %g", sum/11, want)
	}
	if correct != wantCorrect {
		t.Errorf("%d correct, want %d", correct, wantCorrect)
	}
}

// TestGrad compares gradients with finite differences of a loss computed
// elsewhere, whole and in micro-batches.
func TestGrad(t *testing.T) {
	for _, accumulate := range []int{1, 3} {
		m := fake.New(image, classes, 4, runtime.Train{Accumulate: accumulate})
		s := open(t, m, runtime.Options{Threads: 3, Seed: 9})
		s.SetDropout(false)
		n := 3
		if accumulate > 1 {
			n = 10 // 4 + 4 + 2
		}
		x, y := batch(n, 2)
		for range 2 { // the second pass must not see the first one's gradients
			sum, _, err := s.GradAll(x, y, n)
			if err != nil {
				t.Fatal(err)
			}
			w := params(t, s)
			if want := lossOf(w, x, y); math.Abs(sum/float64(n)-want) > 1e-6 {
				t.Errorf("accumulate %d: loss %g, want %g", accumulate, sum/float64(n), want)
			}
			gw, err := s.GradOf("head.weight")
			if err != nil {
				t.Fatal(err)
			}
			gb, err := s.GradOf("head.bias")
			if err != nil {
				t.Fatal(err)
			}
			for i, g := range append(gw, gb...) {
				const h = 1e-2
				up, down := slices.Clone(w), slices.Clone(w)
				up[i] += h
				down[i] -= h
				want := (lossOf(up, x, y) - lossOf(down, x, y)) / (float64(up[i]) - float64(down[i]))
				if math.Abs(float64(g)-want) > 1e-4 {
					t.Errorf("accumulate %d: gradient %d is %g, want %g", accumulate, i, g, want)
				}
			}
		}
	}
}

// TestAccumulation: an effective batch in micro-batches updates as a whole one.
func TestAccumulation(t *testing.T) {
	x, y := batch(10, 3)
	train := runtime.Train{Optimizer: runtime.Optimizer{Kind: "adamw", LR: 0.01, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1}}
	whole := open(t, fake.New(image, classes, 10, train), runtime.Options{Seed: 1})
	train.Accumulate = 3
	parts := open(t, fake.New(image, classes, 4, train), runtime.Options{Seed: 1})
	whole.SetDropout(false)
	parts.SetDropout(false)
	for range 3 {
		for _, s := range []*runtime.Session{whole, parts} {
			if _, _, err := s.Step(x, y); err != nil {
				t.Fatal(err)
			}
		}
	}
	a, b := params(t, whole), params(t, parts)
	for i := range a {
		if math.Abs(float64(a[i]-b[i])) > 1e-5 {
			t.Errorf("element %d: %g whole, %g accumulated", i, a[i], b[i])
		}
	}
	if parts.Updates() != 3 {
		t.Errorf("%d updates, want 3", parts.Updates())
	}
}

// TestOptimizers replays SGD and AdamW as PyTorch documents them, in float64.
func TestOptimizers(t *testing.T) {
	for _, o := range []runtime.Optimizer{
		{Kind: "sgd", LR: 0.1, WeightDecay: 0.01},
		{Kind: "sgd", LR: 0.1, Momentum: 0.9},
		{Kind: "sgd", LR: 0.1, Momentum: 0.9, Nesterov: true, WeightDecay: 0.01},
		{Kind: "adamw", LR: 0.01, Beta1: 0.8, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1},
	} {
		m := fake.New(image, classes, 8, runtime.Train{Optimizer: o, Schedule: runtime.Schedule{Kind: "cosine", WarmupSteps: 2, TotalSteps: 6, FinalLR: 1e-3}})
		s := open(t, m, runtime.Options{Seed: 4})
		s.SetDropout(false)
		x, y := batch(8, 4)
		var p, buf, v []float64
		for _, w := range params(t, s) {
			p = append(p, float64(w))
		}
		buf, v = make([]float64, len(p)), make([]float64, len(p))
		for k := 1; k <= 7; k++ {
			if _, _, err := s.GradAll(x, y, 8); err != nil {
				t.Fatal(err)
			}
			gw, _ := s.GradOf("head.weight")
			gb, _ := s.GradOf("head.bias")
			lr, err := s.LR()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Update(); err != nil {
				t.Fatal(err)
			}
			for i, g32 := range append(gw, gb...) {
				g, wd := float64(g32), o.WeightDecay
				if i >= m.DecayElems {
					wd = 0
				}
				if o.Kind == "sgd" {
					g += wd * p[i]
					if o.Momentum != 0 {
						if buf[i] = o.Momentum*buf[i] + g; o.Nesterov {
							g += o.Momentum * buf[i]
						} else {
							g = buf[i]
						}
					}
					p[i] -= lr * g
					continue
				}
				p[i] *= 1 - lr*wd
				buf[i] = o.Beta1*buf[i] + (1-o.Beta1)*g
				v[i] = o.Beta2*v[i] + (1-o.Beta2)*g*g
				c1, c2 := 1-math.Pow(o.Beta1, float64(k)), 1-math.Pow(o.Beta2, float64(k))
				p[i] -= lr / c1 * buf[i] / (math.Sqrt(v[i]/c2) + o.Eps)
			}
		}
		for i, w := range params(t, s) {
			if math.Abs(float64(w)-p[i]) > 2e-5 {
				t.Errorf("%+v: element %d is %g, want %g", o, i, w, p[i])
			}
		}
	}
}

// TestRepeatable: the same seed gives the same bits, for any thread count and
// with dropout on; another seed gives others.
func TestRepeatable(t *testing.T) {
	run := func(threads int, seed uint64, dropout bool) []float32 {
		s := open(t, fake.New(image, classes, 5, runtime.Train{Seed: 3}), runtime.Options{Threads: threads, Seed: seed})
		s.SetDropout(dropout)
		for k := range 5 {
			x, y := batch(5, uint64(k))
			if _, _, err := s.Step(x, y); err != nil {
				t.Fatal(err)
			}
		}
		return params(t, s)
	}
	first := run(1, 0, true)
	for _, threads := range []int{1, 2, 7} {
		if !slices.Equal(first, run(threads, 3, true)) {
			t.Errorf("%d threads give other parameters", threads)
		}
	}
	if slices.Equal(first, run(1, 4, true)) {
		t.Error("the seed has no effect")
	}
	if slices.Equal(first, run(1, 3, false)) {
		t.Error("dropout has no effect")
	}
}

func TestStepDoesNotAllocate(t *testing.T) {
	s := open(t, fake.New(image, classes, 4, runtime.Train{}), runtime.Options{Threads: 2})
	x, y := batch(4, 1)
	n := testing.AllocsPerRun(20, func() {
		if _, _, err := s.Step(x, y); err != nil {
			t.Fatal(err)
		}
	})
	// The fake's kernels allocate one call for each of 4 launches and 2 workers.
	if n > 8 {
		t.Errorf("a step makes %g allocations besides the fake's", n-8)
	}
}

func TestMisuse(t *testing.T) {
	x, y := batch(20, 1)
	m := fake.New(image, classes, 4, runtime.Train{})
	acc := fake.New(image, classes, 4, runtime.Train{Accumulate: 2})
	for _, c := range []struct {
		name  string
		model *runtime.Model
		do    func(s *runtime.Session) error
		want  string
	}{
		{"update without gradients", m, func(s *runtime.Session) error { return s.Update() }, "call Grad first"},
		{"too few images", m, func(s *runtime.Session) error { _, err := s.Forward(x, 21); return err }, "126 numbers"},
		{"no images", m, func(s *runtime.Session) error { _, err := s.Forward(nil, 0); return err }, "at least one"},
		{"negative count", m, func(s *runtime.Session) error { _, err := s.Forward(x, -3); return err }, "at least one"},
		{"huge count", m, func(s *runtime.Session) error { _, err := s.Forward(x, math.MaxInt/2); return err }, "were given"},
		{"too few labels", m, func(s *runtime.Session) error { _, _, err := s.Eval(x, y[:2], 3); return err }, "2 labels"},
		{"label out of range", m, func(s *runtime.Session) error { _, _, err := s.Eval(x, []int32{0, 4}, 2); return err }, "label 4 of sample 1"},
		{"label negative", m, func(s *runtime.Session) error { _, _, err := s.Grad(x, []int32{-1}, 1, 1); return err }, "label -1"},
		{"batch too large", m, func(s *runtime.Session) error { _, _, err := s.Grad(x, y, 5, 5); return err }, "up to 4"},
		{"effective batch too large", acc, func(s *runtime.Session) error { _, _, err := s.Step(x[:54], y[:9]); return err }, "effective batch of 8"},
		{"total too small", m, func(s *runtime.Session) error { _, _, err := s.Grad(x, y, 4, 3); return err }, "effective batch of 3"},
		{"total changes", acc, func(s *runtime.Session) error {
			if _, _, err := s.Grad(x, y, 4, 8); err != nil {
				return err
			}
			_, _, err := s.Grad(x, y, 2, 6)
			return err
		}, "now with 6"},
		{"too many micro-batches", acc, func(s *runtime.Session) error {
			for range 2 {
				if _, _, err := s.Grad(x, y, 2, 20); err != nil {
					return err
				}
			}
			_, _, err := s.Grad(x, y, 2, 20)
			return err
		}, "call Update"},
		{"unknown parameter", m, func(s *runtime.Session) error { _, err := s.Param("head.wait"); return err }, `no parameter "head.wait"`},
		{"unknown state", m, func(s *runtime.Session) error { _, err := s.StateOf("exp_avg", "head.bias"); return err }, "no state"},
		{"wrong length", m, func(s *runtime.Session) error { return s.SetParam("head.bias", make([]float32, 3)) }, "[4], 4 elements; 3"},
		{"closed", m, func(s *runtime.Session) error {
			if err := s.Close(); err != nil {
				return err
			}
			_, _, err := s.Step(x[:24], y[:4])
			return err
		}, "closed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.do(open(t, c.model, runtime.Options{Threads: 1}))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestDevices(t *testing.T) {
	m := fake.New(image, classes, 4, runtime.Train{})
	for device, want := range map[string]string{
		"cuda": "built without CUDA", "cuda:1": "--device cpu", "cuda:x": "want auto",
		"cuda:-1": "want auto", "gpu": "want auto", "cpu:0": "want auto", "auto:1": "want auto", ":": "want auto",
	} {
		s, err := runtime.NewSession(m, runtime.Options{Device: device})
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("device %q: error %v, want one with %q", device, err, want)
		}
	}
	for _, threads := range []int{-1, 100000} {
		if _, err := runtime.NewSession(m, runtime.Options{Threads: threads}); err == nil {
			t.Errorf("%d threads are accepted", threads)
		}
	}
	s, err := runtime.NewSession(m, runtime.Options{Device: "auto", Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Device(); got != "cpu (1 thread, go)" {
		t.Errorf("device is %q", got)
	}
	s.Close()
}

// TestPanicBecomesError: a fault below the boundary does not end the caller.
func TestPanicBecomesError(t *testing.T) {
	m := fake.New(image, classes, 4, runtime.Train{})
	s := open(t, m, runtime.Options{Threads: 1})
	m.Classes = -1
	x, _ := batch(1, 1)
	if _, err := s.Forward(x, 1); err == nil || !strings.Contains(err.Error(), "len out of range") {
		t.Errorf("error %v", err)
	}
}

func TestCheck(t *testing.T) {
	for what, c := range map[string]struct {
		breakIt func(m *runtime.Model)
		want    string
	}{
		"good":         {func(m *runtime.Model) {}, ""},
		"batch":        {func(m *runtime.Model) { m.Batch = 0 }, "batch is 0"},
		"kernel":       {func(m *runtime.Model) { m.Programs[0][0].Kernel = 99 }, "kernel 99"},
		"ref":          {func(m *runtime.Model) { m.Programs[3][0].Args[0].Offset = 1 << 40 }, "outside region params"},
		"misaligned":   {func(m *runtime.Model) { m.Programs[3][0].Args[0].Offset = 2 }, "outside region params"},
		"no state":     {func(m *runtime.Model) { m.Programs[3][0].Args[0].Region = runtime.State1 }, "region state1 of 0"},
		"region":       {func(m *runtime.Model) { m.Programs[2][0].Args[0].Region = 77 }, "region 77"},
		"outputs":      {func(m *runtime.Model) { m.Outputs.Loss.Offset = m.ArenaBytes - 4 }, "loss: 16 bytes"},
		"overlap":      {func(m *runtime.Model) { m.Params[1].Offset = 23 }, "overlap"},
		"outside":      {func(m *runtime.Model) { m.Params[1].Offset = 25 }, "outside the arena"},
		"twice":        {func(m *runtime.Model) { m.Params[1].Name = "head.weight" }, "twice"},
		"initializer":  {func(m *runtime.Model) { m.Params[1].Init.Kind = "xavier" }, `unknown initializer "xavier"`},
		"state arenas": {func(m *runtime.Model) { m.StateNames = []string{"momentum_buffer"} }, "1 state arenas, want 0"},
	} {
		m := fake.New(image, classes, 4, runtime.Train{})
		c.breakIt(m)
		err := m.Check()
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", what, err, c.want)
		}
	}
}
