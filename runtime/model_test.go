package runtime_test

import (
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/internal/fake"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// Weights are read whole for any number of samples.
func TestWork(t *testing.T) {
	k := runtime.Kernel{FLOPs: 6400, Bytes: 1000 + 320, FixedBytes: 1000}
	for n, want := range map[int][2]int64{32: {6400, 1320}, 8: {1600, 1080}, 1: {200, 1010}} {
		if flops, bytes := k.Work(n, 32); flops != want[0] || bytes != want[1] {
			t.Errorf("%d samples: %d FLOPs and %d bytes, want %v", n, flops, bytes, want)
		}
	}
}

func TestInitDistributions(t *testing.T) {
	const n = 100000
	for _, c := range []struct {
		init                 runtime.Init
		mean, deviation, end float64 // end: no value is beyond ±end
	}{
		{runtime.Init{Kind: "zeros"}, 0, 0, 0},
		{runtime.Init{Kind: "ones"}, 1, 0, 1},
		{runtime.Init{Kind: "constant", A: -0.25}, -0.25, 0, 0.25},
		{runtime.Init{Kind: "normal", A: 2}, 0, 2, math.Inf(1)},
		{runtime.Init{Kind: "uniform", A: 3}, 0, 3 / math.Sqrt(3), 3},
		{runtime.Init{Kind: "pytorch", FanIn: 25}, 0, 0.2 / math.Sqrt(3), 0.2},
		// Truncated at ±2σ the deviation is 0.8796σ; at ±0.1σ it is uniform.
		{runtime.Init{Kind: "trunc_normal", A: 0.02, B: 0.04}, 0, 0.8796 * 0.02, 0.04},
		{runtime.Init{Kind: "trunc_normal", A: 1, B: 0.1}, 0, 0.1 / math.Sqrt(3), 0.1},
		{runtime.Init{Kind: "trunc_normal", A: 0.02, B: 2}, 0, 0.02, 2}, // timm: σ far inside
		{runtime.Init{Kind: "trunc_normal", A: 0, B: 2}, 0, 0, 0},
	} {
		v := make([]float32, n)
		c.init.Fill(v, 1, "x")
		var sum, sq float64
		for _, x := range v {
			sum += float64(x)
			sq += (float64(x) - c.mean) * (float64(x) - c.mean)
			if math.Abs(float64(x)) > c.end*(1+1e-7) {
				t.Fatalf("%+v: %g is beyond ±%g", c.init, x, c.end)
			}
		}
		if math.Abs(sum/n-c.mean) > 5*c.deviation/math.Sqrt(n) {
			t.Errorf("%+v: mean %g, want %g", c.init, sum/n, c.mean)
		}
		if got := math.Sqrt(sq / n); math.Abs(got-c.deviation) > 0.01*c.deviation {
			t.Errorf("%+v: deviation %g, want %g", c.init, got, c.deviation)
		}
	}
}

// TestInitIsKeyedByName: a parameter's start depends on nothing but its name,
// shape and the seed.
func TestInitIsKeyedByName(t *testing.T) {
	m := fake.New(image, classes, 4, runtime.Train{})
	m.Params[1].Init = runtime.Init{Kind: "normal", A: 1}
	first := open(t, m, runtime.Options{Seed: 3})
	other := fake.New(image, classes, 4, runtime.Train{})
	other.Params[1].Init = m.Params[1].Init
	slices.Reverse(other.Params)
	other.Params[1].Name = "renamed"
	second := open(t, other, runtime.Options{Seed: 3})
	get := func(s *runtime.Session, name string) []float32 {
		v, err := s.Param(name)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if !slices.Equal(get(first, "head.bias"), get(second, "head.bias")) {
		t.Error("another order changes a parameter")
	}
	if slices.Equal(get(first, "head.weight"), get(second, "renamed")) {
		t.Error("another name has the same start")
	}
	if err := second.Init(4); err != nil {
		t.Fatal(err)
	}
	if slices.Equal(get(first, "head.bias"), get(second, "head.bias")) {
		t.Error("another seed has the same start")
	}
}

func TestSchedule(t *testing.T) {
	half := math.Sqrt(0.5)
	for _, c := range []struct {
		name            string
		schedule        runtime.Schedule
		perEpoch, total int
		want            []float64 // of updates 1, 2, … with lr 1
	}{
		{"constant", runtime.Schedule{Kind: "constant"}, 0, 0, []float64{1, 1, 1}},
		{"none", runtime.Schedule{}, 0, 0, []float64{1, 1}},
		{"linear warm-up", runtime.Schedule{Kind: "linear_warmup", WarmupSteps: 4}, 0, 0, []float64{0.25, 0.5, 0.75, 1, 1, 1}},
		{"cosine", runtime.Schedule{Kind: "cosine", TotalSteps: 4}, 0, 99, []float64{1, (1 + half) / 2, 0.5, (1 - half) / 2, 0, 0}},
		{"cosine to the run's end", runtime.Schedule{Kind: "cosine"}, 0, 4, []float64{1, (1 + half) / 2, 0.5}},
		{"cosine after warm-up, to a floor", runtime.Schedule{Kind: "cosine", WarmupSteps: 2, TotalSteps: 4, FinalLR: 0.2}, 0, 0,
			[]float64{0.5, 1, 1, 0.6, 0.2, 0.2}},
		{"cosine all warm-up", runtime.Schedule{Kind: "cosine", WarmupSteps: 3, TotalSteps: 2, FinalLR: 0.1}, 0, 0,
			[]float64{1. / 3, 2. / 3, 1, 0.1}},
		{"step", runtime.Schedule{Kind: "step", Every: 2, EveryUnit: "steps", Gamma: 0.5}, 0, 0, []float64{1, 1, 0.5, 0.5, 0.25}},
		{"step after warm-up", runtime.Schedule{Kind: "step", WarmupSteps: 1, Every: 1, EveryUnit: "steps", Gamma: 0.1}, 0, 0, []float64{1, 1, 0.1, 0.01}},
		{"step by epochs", runtime.Schedule{Kind: "step", Every: 1, EveryUnit: "epochs", Gamma: 0.5}, 3, 0, []float64{1, 1, 1, 0.5, 0.5, 0.5, 0.25}},
	} {
		train := runtime.Train{Optimizer: runtime.Optimizer{LR: 1}, Schedule: c.schedule}
		for i, want := range c.want {
			got, err := train.LR(i+1, c.perEpoch, c.total)
			if err != nil || math.Abs(got-want) > 1e-12 {
				t.Errorf("%s: update %d has %g (%v), want %g", c.name, i+1, got, err, want)
			}
		}
	}
	for want, s := range map[string]runtime.Schedule{
		"SetSteps":          {Kind: "cosine"},
		"counts epochs":     {Kind: "step", Every: 1, EveryUnit: "epochs", Gamma: 1},
		"positive interval": {Kind: "step", EveryUnit: "steps", Gamma: 1},
		`"warp"`:            {Kind: "warp"},
	} {
		if _, err := (&runtime.Train{Schedule: s}).LR(1, 0, 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want one with %q", s, err, want)
		}
	}
}

func TestSaveAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.safetensors")
	train := runtime.Train{Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.1, Momentum: 0.9}}
	a := open(t, fake.New(image, classes, 4, train), runtime.Options{Seed: 1})
	x, y := batch(4, 1)
	if _, _, err := a.Step(x, y); err != nil {
		t.Fatal(err)
	}
	if err := a.Save(path); err != nil {
		t.Fatal(err)
	}
	b := open(t, fake.New(image, classes, 4, train), runtime.Options{Seed: 2})
	if _, _, err := b.Step(x, y); err != nil {
		t.Fatal(err)
	}
	if err := b.Load(path); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(params(t, a), params(t, b)) {
		t.Error("the parameters changed on the way")
	}
	momentum, err := b.StateOf("momentum_buffer", "head.weight")
	if err != nil {
		t.Fatal(err)
	}
	if b.Updates() != 0 || slices.ContainsFunc(momentum, func(v float32) bool { return v != 0 }) {
		t.Error("loading does not start training anew")
	}
}

func TestLoadListsEveryDifference(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.safetensors")
	err := safetensors.Write(path, &safetensors.File{Tensors: []safetensors.Tensor{
		safetensors.FromFloat32s("head.weight", []int{6, 4}, make([]float32, 24)),
		safetensors.FromFloat32s("zeta", []int{2}, make([]float32, 2)),
		safetensors.FromInt64s("alpha", []int{1}, []int64{1}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, fake.New(image, classes, 4, runtime.Train{}), runtime.Options{})
	before := params(t, s)
	err = s.Load(path)
	want := path + `: the tensors do not fit model fake (fake.yaml):
  head.weight has shape [6 4], the model wants [4 6]
  missing head.bias [4]
  unknown alpha [1]
  unknown zeta [2]`
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want\n%s", err, want)
	}
	if !slices.Equal(before, params(t, s)) {
		t.Error("a refused file changed parameters")
	}
	f64 := safetensors.FromFloat64s("head.bias", []int{4}, []float64{1, 2, 3, 4})
	integers := safetensors.FromInt64s("head.weight", []int{4, 6}, make([]int64, 24))
	if err := safetensors.Write(path, &safetensors.File{Tensors: []safetensors.Tensor{f64, integers}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Load(path); err == nil || !strings.Contains(err.Error(), "head.weight is I64") {
		t.Errorf("error %v", err)
	}
	weights := safetensors.FromFloat64s("head.weight", []int{4, 6}, make([]float64, 24))
	if err := safetensors.Write(path, &safetensors.File{Tensors: []safetensors.Tensor{f64, weights}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Load(path); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Param("head.bias"); err != nil || !slices.Equal(got, []float32{1, 2, 3, 4}) {
		t.Errorf("head.bias is %v (%v)", got, err)
	}
}
