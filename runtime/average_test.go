package runtime_test

import (
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/internal/fake"
)

// averaged is all of the average, by way of SwapAverage.
func averaged(t *testing.T, s *runtime.Session) []float32 {
	t.Helper()
	swap(t, s)
	defer swap(t, s)
	return params(t, s)
}

func swap(t *testing.T, s *runtime.Session) {
	t.Helper()
	if err := s.SwapAverage(); err != nil {
		t.Fatal(err)
	}
}

func step(t *testing.T, s *runtime.Session) {
	t.Helper()
	x, y := batch(4, uint64(s.Updates()))
	if _, _, err := s.Step(x, y); err != nil {
		t.Fatal(err)
	}
}

// TestAverage: the average is the one that the formula of runtime.EMA gives for
// the parameters of every update.
func TestAverage(t *testing.T) {
	for _, c := range []struct {
		ema   runtime.EMA
		decay func(k int) float64
	}{
		{runtime.EMA{Decay: 0.7}, func(int) float64 { return 0.7 }},
		{runtime.EMA{Decay: 0.35, Warmup: true}, func(k int) float64 {
			return []float64{0, 2. / 11, 3. / 12, 4. / 13, 0.35, 0.35, 0.35, 0.35, 0.35}[k]
		}},
	} {
		m := fake.New(image, classes, 4, runtime.Train{EMA: c.ema, Optimizer: runtime.Optimizer{Kind: "adamw", LR: 0.1, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}})
		s := open(t, m, runtime.Options{Threads: 2, Seed: 3})
		if !s.Average() {
			t.Fatal("no average is kept")
		}
		want := make([]float64, 28)
		for i, x := range params(t, s) {
			want[i] = float64(x)
		}
		for k := 1; k <= 8; k++ {
			step(t, s)
			now := params(t, s)
			for i, got := range averaged(t, s) {
				d := c.decay(k)
				want[i] = d*want[i] + (1-d)*float64(now[i])
				if math.Abs(float64(got)-want[i]) > 1e-6 {
					t.Fatalf("%+v: after update %d element %d is %g, want %g", c.ema, k, i, got, want[i])
				}
			}
			if !slices.Equal(params(t, s), now) {
				t.Fatal("exchanging twice changes the parameters")
			}
		}
	}
}

// TestSwapAverage: what is looked at in between is the average, and training
// waits until it is put back.
func TestSwapAverage(t *testing.T) {
	dir := t.TempDir()
	m := fake.New(image, classes, 4, runtime.Train{EMA: runtime.EMA{Decay: 0.5}})
	s := open(t, m, runtime.Options{Threads: 2, Seed: 3})
	step(t, s)
	average := averaged(t, s)
	x, y := batch(4, 9)
	swap(t, s)
	sum, _, err := s.Eval(x, y, 4)
	if err != nil {
		t.Fatal(err)
	}
	if want := lossOf(average, x, y); math.Abs(sum/4-want) > 1e-6 {
		t.Errorf("loss %g, that of the average is %g", sum/4, want)
	}
	if err := s.Save(filepath.Join(dir, "average.safetensors")); err != nil {
		t.Fatal(err)
	}
	_, gradErr := s.Submit(runtime.Samples{Images: x, Labels: y}, 0)
	_, _, stepErr := s.Grad(x, y, 4, 0)
	for _, err := range []error{gradErr, stepErr} {
		if err == nil || !strings.Contains(err.Error(), "call SwapAverage") {
			t.Errorf("training in between: %v", err)
		}
	}
	if s.Updates() != 1 {
		t.Errorf("%d updates", s.Updates())
	}
	swap(t, s)
	step(t, s)

	// A new start, of whatever kind, has an average that is its parameters.
	for what, start := range map[string]func() error{
		"init":    func() error { return s.Init(7) },
		"load":    func() error { return s.Load(filepath.Join(dir, "average.safetensors")) },
		"restart": func() error { return s.Restart(7) },
	} {
		step(t, s)
		swap(t, s)
		if err := start(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(params(t, s), averaged(t, s)) {
			t.Errorf("%s: the average is not what the parameters are", what)
		}
		if what == "load" && !slices.Equal(params(t, s), average) {
			t.Error("the saved average is another")
		}
		step(t, s)
		if slices.Equal(params(t, s), averaged(t, s)) {
			t.Errorf("%s: the average follows at once", what)
		}
	}

	none := open(t, fake.New(image, classes, 4, runtime.Train{}), runtime.Options{})
	if err := none.SwapAverage(); none.Average() || err == nil || !strings.Contains(err.Error(), "no train.ema") {
		t.Errorf("a model without an average: %v", err)
	}
}

// TestSnapshotAverage: a snapshot holds the average, whichever lies where.
func TestSnapshotAverage(t *testing.T) {
	m := fake.New(image, classes, 4, runtime.Train{EMA: runtime.EMA{Decay: 0.9, Warmup: true},
		Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.1, Momentum: 0.9}})
	s := open(t, m, runtime.Options{Seed: 3})
	for range 3 {
		step(t, s)
	}
	var plain, swapped runtime.Snapshot
	if err := s.Snapshot(&plain); err != nil {
		t.Fatal(err)
	}
	swap(t, s)
	if err := s.Snapshot(&swapped); err != nil {
		t.Fatal(err)
	}
	swap(t, s)
	for range 3 {
		step(t, s)
	}
	want, wantAverage := params(t, s), averaged(t, s)
	for what, at := range map[string]*runtime.Snapshot{"plain": &plain, "swapped": &swapped} {
		other := open(t, m, runtime.Options{Seed: 99})
		swap(t, other)
		if err := other.Restore(at); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			step(t, other)
		}
		if !slices.Equal(params(t, other), want) || !slices.Equal(averaged(t, other), wantAverage) {
			t.Errorf("%s: training goes on differently", what)
		}
	}
}

// TestSkip: a step that is skipped changes nothing but the count of updates.
func TestSkip(t *testing.T) {
	train := runtime.Train{EMA: runtime.EMA{Decay: 0.9}, Accumulate: 2,
		Optimizer: runtime.Optimizer{Kind: "adamw", LR: 0.1, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8},
		Schedule:  runtime.Schedule{Kind: "step", Every: 1, EveryUnit: "steps", Gamma: 0.5}}
	s := open(t, fake.New(image, classes, 4, train), runtime.Options{Seed: 3})
	step(t, s)
	before, average := params(t, s), averaged(t, s)
	x, y := batch(4, 5)
	if _, _, err := s.Grad(x, y, 4, 8); err != nil {
		t.Fatal(err)
	}
	if err := s.Skip(); err != nil {
		t.Fatal(err)
	}
	if lr, err := s.LR(); s.Updates() != 2 || lr != 0.1/4 || err != nil {
		t.Errorf("%d updates, learning rate %g (%v)", s.Updates(), lr, err)
	}
	if !slices.Equal(params(t, s), before) || !slices.Equal(averaged(t, s), average) {
		t.Error("parameters or average have changed")
	}
	if err := s.Update(); err == nil || !strings.Contains(err.Error(), "no gradients") {
		t.Errorf("gradients are left: %v", err)
	}
	// What follows is what follows a step of the same micro-batches elsewhere.
	if _, _, err := s.Grad(x, y, 4, 4); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(); err != nil || s.Updates() != 3 {
		t.Errorf("%d updates (%v)", s.Updates(), err)
	}
}

func TestSetLR(t *testing.T) {
	s := open(t, fake.New(image, classes, 4, runtime.Train{Schedule: runtime.Schedule{Kind: "cosine"}}), runtime.Options{Seed: 3})
	x, y := batch(4, 1)
	s.SetLR(0.25)
	if lr, err := s.LR(); lr != 0.25 || err != nil {
		t.Errorf("learning rate %g (%v)", lr, err)
	}
	s.SetDropout(false)
	before := params(t, s)
	if _, _, err := s.Grad(x, y, 4, 0); err != nil {
		t.Fatal(err)
	}
	g, err := s.GradOf("head.weight")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(); err != nil {
		t.Fatal(err)
	}
	if got, want := params(t, s)[0], before[0]-0.25*g[0]; math.Abs(float64(got-want)) > 1e-6 {
		t.Errorf("the update gives %g, want %g", got, want)
	}
	s.SetLR(0)
	if _, err := s.LR(); err == nil {
		t.Error("the schedule is not back")
	}
}

// TestTwoLabels: the loss and the gradient are the weighted sums of those of
// each label, in whatever way the samples come.
func TestTwoLabels(t *testing.T) {
	m := fake.Mix(fake.New(image, classes, 4, runtime.Train{Accumulate: 3}), 0.2, 0)
	s := open(t, m, runtime.Options{Threads: 2, Seed: 3})
	s.SetDropout(false)
	const n = 10
	x, y := batch(n, 1)
	_, other := batch(n, 2)
	mix := make([]float32, n)
	want := 0.0
	for i := range mix {
		mix[i] = float32(i) / (n - 1)
		a, b := lossOf(params(t, s), x[i*6:i*6+6], y[i:i+1]), lossOf(params(t, s), x[i*6:i*6+6], other[i:i+1])
		want += (float64(mix[i])*a + (1-float64(mix[i]))*b) / n
	}
	both := runtime.Samples{Images: x, Labels: y, Labels2: other, Mix: mix}
	loss, _, err := s.StepSamples(both)
	if err != nil || math.Abs(loss-want) > 1e-6 {
		t.Errorf("loss %g (%v), want %g", loss, err, want)
	}
	// Without second labels, and with those that do not count, a model of two
	// labels trains as one of one label.
	plain := open(t, fake.New(image, classes, 4, runtime.Train{Accumulate: 3}), runtime.Options{Seed: 3})
	ones := slices.Repeat([]float32{1}, n)
	for _, b := range []runtime.Samples{{Images: x, Labels: y}, {Images: x, Labels: y, Labels2: other, Mix: ones}} {
		for _, s := range []*runtime.Session{s, plain} {
			if err := s.Init(5); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := s.StepSamples(both); err != nil { // leaves its labels behind
			t.Fatal(err)
		}
		if err := s.Init(5); err != nil {
			t.Fatal(err)
		}
		plain.SetDropout(false)
		if _, _, err := s.StepSamples(b); err != nil {
			t.Fatal(err)
		}
		if _, _, err := plain.Step(x, y); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(params(t, s), params(t, plain)) {
			t.Error("one label of two trains otherwise than one")
		}
	}
	// Micro-batches one by one.
	if err := s.Init(5); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.StepSamples(both); err != nil {
		t.Fatal(err)
	}
	whole := params(t, s)
	for _, how := range []string{"submit", "grad"} {
		if err := s.Init(5); err != nil {
			t.Fatal(err)
		}
		for lo := 0; lo < n; lo += 4 {
			part := both.Part(lo, min(lo+4, n), 6)
			if how == "submit" {
				_, err = s.Submit(part, n)
			} else {
				_, _, err = s.GradSamples(part, n)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if how == "grad" {
			if err := s.Update(); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(params(t, s), whole) {
			t.Errorf("%s: other parameters", how)
		}
	}
	if bad, err := s.FindNaN(both.Part(0, 4, 6), n); err != nil || bad != nil {
		t.Errorf("FindNaN: %v %v", bad, err)
	}
}

func TestTwoLabelsErrors(t *testing.T) {
	s := open(t, fake.Mix(fake.New(image, classes, 4, runtime.Train{}), 0, 1), runtime.Options{Seed: 3})
	one := open(t, fake.New(image, classes, 4, runtime.Train{}), runtime.Options{Seed: 3})
	x, y := batch(2, 1)
	good := runtime.Samples{Images: x, Labels: y, Labels2: y, Mix: []float32{0, 1}}
	with := func(change func(*runtime.Samples)) runtime.Samples {
		b := good
		change(&b)
		return b
	}
	for _, c := range []struct {
		s    *runtime.Session
		b    runtime.Samples
		want string
	}{
		{one, good, "neither mixup nor cutmix"},
		{s, with(func(b *runtime.Samples) { b.Mix = nil }), "as many of each"},
		{s, with(func(b *runtime.Samples) { b.Labels2 = nil }), "as many of each"},
		{s, with(func(b *runtime.Samples) { b.Labels2 = y[:1] }), "as many of each"},
		{s, with(func(b *runtime.Samples) { b.Labels2 = []int32{0, classes} }), "label 4 of sample 1"},
		{s, with(func(b *runtime.Samples) { b.Labels2 = []int32{-1, 0} }), "label -1 of sample 0"},
		{s, with(func(b *runtime.Samples) { b.Mix = []float32{0, 1.5} }), "weight 1.5 of the label of sample 1"},
		{s, with(func(b *runtime.Samples) { b.Mix = []float32{float32(math.NaN()), 1} }), "weight NaN"},
		{s, with(func(b *runtime.Samples) { b.Index = []int32{0, 1} }), "one label each"},
	} {
		before := params(t, c.s)
		_, _, gradErr := c.s.GradSamples(c.b, 0)
		_, _, stepErr := c.s.StepSamples(c.b)
		_, submitErr := c.s.Submit(c.b, 0)
		for _, err := range []error{gradErr, stepErr, submitErr} {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		}
		if c.s.Updates() != 0 || !slices.Equal(before, params(t, c.s)) {
			t.Error("refused samples have changed something")
		}
	}
	if _, _, err := s.StepSamples(good); err != nil {
		t.Error(err)
	}
}

// TestCheckPrograms: a model whose programs do not use what it keeps is broken.
func TestCheckPrograms(t *testing.T) {
	m := fake.New(image, classes, 4, runtime.Train{})
	m.Train.EMA.Decay = 0.9
	m.Data.Augment.CutMix = 1
	err := m.Check()
	for _, want := range []string{"the update program for cpu does not use region average", "grad program for cpu does not use region label2", "region mix"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	for _, decay := range []float64{1, -0.5, math.NaN()} {
		m.Train.EMA.Decay = decay
		if err := m.Check(); err == nil || !strings.Contains(err.Error(), "train.ema.decay") {
			t.Errorf("decay %g: %v", decay, err)
		}
	}
	m = fake.Mix(fake.New(image, classes, 4, runtime.Train{EMA: runtime.EMA{Decay: 0.9}}), 0.2, 1)
	if err := m.Check(); err != nil {
		t.Error(err)
	}
	b := m.RegionBytes()
	if b[runtime.Average] != 4*28 || b[runtime.Label2] != 16 || b[runtime.Mix] != 16 {
		t.Errorf("regions of %v bytes", b)
	}
}

// TestSwapLargeAverage: parameters that are exchanged in several parts.
func TestSwapLargeAverage(t *testing.T) {
	const classes = 3000 // of 41×41 pixels: 20 MB
	m := fake.New([3]int{1, 41, 41}, classes, 1, runtime.Train{EMA: runtime.EMA{Decay: 0.9}})
	s := open(t, m, runtime.Options{Seed: 1})
	average := params(t, s)
	other := make([]float32, classes*41*41)
	for i := range other {
		other[i] = float32(i)
	}
	if err := s.SetParam("head.weight", other); err != nil {
		t.Fatal(err)
	}
	now := params(t, s)
	if !slices.Equal(averaged(t, s), average) || !slices.Equal(params(t, s), now) {
		t.Error("other numbers after exchanging")
	}
}
