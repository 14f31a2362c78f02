//go:build cuda

package cuda

import (
	"slices"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/internal/fake"
)

// mixing is a model that takes two labels a sample and keeps an average.
func mixing(o runtime.Optimizer) *runtime.Model {
	m := fake.New([3]int{1, 8, 8}, 10, fake.CUDABatch, runtime.Train{Optimizer: o, EMA: runtime.EMA{Decay: 0.8, Warmup: true}})
	fake.Mix(m, 0.2, 0)
	fake.AddCUDA(m, "fp32", nil)
	return m
}

// TestAverageAndTwoLabels: both are as on the CPU, with steps on their way while
// the host goes on; and a snapshot holds the average.
func TestAverageAndTwoLabels(t *testing.T) {
	needDevice(t)
	d := newNoise(200)
	m := mixing(optimizers["adamw"])
	cpu, gpu := openOn(t, m, "cpu", 7), openOn(t, m, "cuda", 7)
	all := func(s *runtime.Session) []float32 {
		t.Helper()
		params := arena(t, s)
		for range 2 {
			if err := s.SwapAverage(); err != nil {
				t.Fatal(err)
			}
			params = append(params, arena(t, s)...)
		}
		return params
	}
	var at runtime.Snapshot
	train := func(from, to int) {
		t.Helper()
		for k := from; k < to; k++ {
			b := d.samples(numbers(k*9, 32-k)...)
			b.Labels2, b.Mix = make([]int32, b.Len()), make([]float32, b.Len())
			for i := range b.Mix {
				b.Labels2[i], b.Mix[i] = int32((i+k)%10), float32(i)/float32(b.Len())
			}
			for _, s := range []*runtime.Session{cpu, gpu} {
				if _, err := s.Submit(b, 0); err != nil {
					t.Fatal(err)
				}
			}
			clear(b.Mix) // Submit has taken what it needs
			clear(b.Labels2)
		}
	}
	train(0, 3)
	if err := gpu.Snapshot(&at); err != nil {
		t.Fatal(err)
	}
	train(3, 6)
	want := all(gpu)
	near(t, "parameters, state and average", want, all(cpu), 1e-5)
	if err := gpu.Restore(&at); err != nil {
		t.Fatal(err)
	}
	train(3, 6)
	if !slices.Equal(all(gpu), want) {
		t.Error("training goes on differently from a snapshot")
	}
}

// TestOneLabelOfTwo: images on the device have one label, and so has a sample
// that names no second; the labels of the step before are forgotten.
func TestOneLabelOfTwo(t *testing.T) {
	needDevice(t)
	d := newNoise(64)
	one, two := openOn(t, model("fp32", runtime.Train{Optimizer: optimizers["momentum"]}), "cuda", 7), openOn(t, mixing(optimizers["momentum"]), "cuda", 7)
	for _, s := range []*runtime.Session{one, two} {
		if err := s.Upload(d, table); err != nil {
			t.Fatal(err)
		}
	}
	index := numbers(0, 32)
	mixed := d.samples(index...)
	mixed.Labels2, mixed.Mix = slices.Repeat([]int32{3}, 32), make([]float32, 32)
	for _, b := range []runtime.Samples{d.samples(index...), {Index: index}} {
		if _, err := two.Submit(mixed, 0); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*runtime.Session{one, two} {
			if err := s.Init(5); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Submit(b, 0); err != nil {
				t.Fatal(err)
			}
		}
		near(t, "parameters", arena(t, two), arena(t, one), 0)
	}
}
