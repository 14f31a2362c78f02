//go:build cuda

package cuda

import (
	"io/fs"
	"math"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/rng"
)

// ptxOnly are embedded kernels that the simulated driver does not take.
func ptxOnly() fs.FS {
	return fstest.MapFS{"kernels.cu": {}, "kernels.sm_80.ptx": {Data: []byte(".version 8.0\n.target sm_80\n")}}
}

var optimizers = map[string]runtime.Optimizer{
	"sgd":      {Kind: "sgd", LR: 0.1, WeightDecay: 0.01},
	"momentum": {Kind: "sgd", LR: 0.05, Momentum: 0.9, Nesterov: true},
	"adamw":    {Kind: "adamw", LR: 0.01, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, WeightDecay: 0.1},
}

// noise is a data set of random pixels.
type noise struct {
	pixels []uint8
	labels []int
}

func newNoise(n int) *noise {
	s, d := rng.New(3, "noise"), &noise{}
	for range n * 64 {
		d.pixels = append(d.pixels, uint8(s.Intn(256)))
	}
	for range n {
		d.labels = append(d.labels, s.Intn(10))
	}
	return d
}

func (d *noise) Len() int      { return len(d.labels) }
func (d *noise) Shape() [3]int { return [3]int{1, 8, 8} }
func (d *noise) Sample(i int, pixels []uint8) (int, error) {
	copy(pixels, d.pixels[i*64:][:64])
	return d.labels[i], nil
}

// table is what a pixel becomes.
var table = func() []float32 {
	t := make([]float32, 256)
	for v := range t {
		t[v] = (float32(v)/255 - 0.5) / 0.3
	}
	return t
}()

// samples are images from the host, as normalized by table.
func (d *noise) samples(index ...int32) runtime.Samples {
	var b runtime.Samples
	for _, i := range index {
		for _, v := range d.pixels[i*64:][:64] {
			b.Images = append(b.Images, table[v])
		}
		b.Labels = append(b.Labels, int32(d.labels[i]))
	}
	return b
}

// numbers from … from+n-1, in a scattered order.
func numbers(from, n int) []int32 {
	index := make([]int32, n)
	for i := range index {
		index[i] = int32(from + (7*i+3)%n)
	}
	return index
}

// arena is all parameters and optimizer state.
func arena(t *testing.T, s *runtime.Session) (all []float32) {
	t.Helper()
	m := s.Model()
	for _, p := range m.Params {
		v, err := s.Param(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v...)
		for _, name := range m.StateNames {
			if v, err = s.StateOf(name, p.Name); err != nil {
				t.Fatal(err)
			}
			all = append(all, v...)
		}
	}
	return all
}

func near(t *testing.T, what string, got, want []float32, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d numbers, want %d", what, len(got), len(want))
	}
	for i := range got {
		if d := math.Abs(float64(got[i] - want[i])); !(d <= tol*(1+math.Abs(float64(want[i])))) {
			t.Fatalf("%s: element %d is %g, want %g", what, i, got[i], want[i])
		}
	}
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestAgainstCPU does on the GPU all that a session can do, and compares with
// the same on the CPU.
func TestAgainstCPU(t *testing.T) {
	needDevice(t)
	d := newNoise(200)
	for name, o := range optimizers {
		for _, accumulate := range []int{1, 3} {
			m := model("fp32", runtime.Train{Optimizer: o, Accumulate: accumulate})
			cpu, gpu := openOn(t, m, "cpu", 7), openOn(t, m, "cuda", 7)
			for _, s := range []*runtime.Session{cpu, gpu} {
				s.SetSteps(5, 20)
			}
			all := d.samples(numbers(0, 71)...)
			near(t, "logits", must[[]float32](t)(gpu.Forward(all.Images, 71)), must[[]float32](t)(cpu.Forward(all.Images, 71)), 1e-6)
			for _, n := range []int{1, 32, 71} {
				a, right, err := gpu.Eval(all.Images, all.Labels, n)
				if err != nil {
					t.Fatal(err)
				}
				b, wantRight, _ := cpu.Eval(all.Images, all.Labels, n)
				if math.Abs(a-b) > 1e-5*b || right != wantRight {
					t.Errorf("%s: loss %g and %d right of %d, want %g and %d", name, a, right, n, b, wantRight)
				}
			}
			for k, n := range []int{32 * accumulate, 5, 32*accumulate - 3} {
				b := d.samples(numbers(10*k, n)...)
				loss, right, err := gpu.Step(b.Images, b.Labels)
				if err != nil {
					t.Fatal(err)
				}
				want, wantRight, _ := cpu.Step(b.Images, b.Labels)
				if math.Abs(loss-want) > 1e-5*want || right != wantRight {
					t.Errorf("%s, accumulate %d, step %d: loss %g and %d right, want %g and %d", name, accumulate, k+1, loss, right, want, wantRight)
				}
			}
			near(t, name+" after steps", arena(t, gpu), arena(t, cpu), 1e-5)
			b := d.samples(numbers(100, 20)...)
			for _, s := range []*runtime.Session{cpu, gpu} {
				if _, _, err := s.GradAll(b.Images, b.Labels, 20); err != nil {
					t.Fatal(err)
				}
			}
			near(t, "gradient", must[[]float32](t)(gpu.GradOf("head.weight")), must[[]float32](t)(cpu.GradOf("head.weight")), 1e-5)
			near(t, "logits of the last batch", must[[]float32](t)(gpu.Logits(20)), must[[]float32](t)(cpu.Logits(20)), 1e-5)
		}
	}
}

// TestSubmit: steps on their way, two at a time, leave bit for bit what steps
// one by one leave; so do launches that are waited for.
func TestSubmit(t *testing.T) {
	needDevice(t)
	d := newNoise(300)
	for _, accumulate := range []int{1, 2} {
		for _, sync := range []string{"", "1"} {
			t.Setenv("VITGEN_CUDA_SYNC", "")
			m := model("bf16", runtime.Train{Optimizer: optimizers["adamw"], Accumulate: accumulate})
			one := openOn(t, m, "cuda", 5)
			t.Setenv("VITGEN_CUDA_SYNC", sync)
			two := openOn(t, m, "cuda", 5)
			var want, got []float64
			var waiting []runtime.Pending
			settle := func(keep int) {
				for len(waiting) > keep {
					sum, _, err := waiting[0].Wait()
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, sum)
					waiting = waiting[1:]
				}
			}
			for k := range 12 {
				n := 32 * accumulate
				if k%5 == 4 {
					n -= 7
				}
				b := d.samples(numbers(13*k, n)...)
				loss, _, err := one.Step(b.Images, b.Labels)
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, loss*float64(n))
				for lo := 0; lo < n; lo += 32 {
					p, err := two.Submit(b.Part(lo, min(lo+32, n), 64), n)
					if err != nil {
						t.Fatal(err)
					}
					waiting = append(waiting, p)
				}
				clear(b.Images) // it may be used again at once
				settle(6)       // Submit has long waited for most of them
			}
			settle(0)
			for k := range want {
				sum := 0.0
				for i := range accumulate {
					sum += got[k*accumulate+i]
				}
				if math.Abs(sum-want[k]) > 1e-12*want[k] {
					t.Errorf("accumulate %d: loss %d is %v, want %v", accumulate, k, sum, want[k])
				}
			}
			if !slices.Equal(arena(t, one), arena(t, two)) {
				t.Errorf("accumulate %d, sync %q: other parameters", accumulate, sync)
			}
		}
	}
}

// TestStepAllocatesNothing, on the host.
func TestStepAllocatesNothing(t *testing.T) {
	needDevice(t)
	d := newNoise(100)
	s := openOn(t, model("fp32", runtime.Train{}), "cuda", 1)
	if err := s.Upload(d, table); err != nil {
		t.Fatal(err)
	}
	host, index := d.samples(numbers(0, 32)...), numbers(20, 32)
	var before runtime.Pending
	step := func(b runtime.Samples) {
		now, err := s.Submit(b, 32)
		if err == nil && before.Valid() {
			_, _, err = before.Wait()
		}
		if err != nil {
			t.Fatal(err)
		}
		before = now
	}
	for range 10 {
		step(host)
		step(runtime.Samples{Index: index})
	}
	if n := testing.AllocsPerRun(20, func() { step(host) }); n != 0 {
		t.Errorf("%v allocations in a step from the host", n)
	}
	if n := testing.AllocsPerRun(20, func() { step(runtime.Samples{Index: index}) }); n != 0 {
		t.Errorf("%v allocations in a step on the device", n)
	}
}

func TestProfile(t *testing.T) {
	needDevice(t)
	s := openOn(t, model("bf16", runtime.Train{}), "cuda", 1)
	for range 2 {
		for id := range runtime.NumPrograms {
			times, err := s.Profile(id, 32)
			if err != nil {
				t.Fatal(err)
			}
			if len(times) != len(s.Code().Programs[id]) {
				t.Errorf("%s: %d times", id, len(times))
			}
			for i, d := range times {
				if d <= 0 {
					t.Errorf("%s: launch %d takes %v", id, i, d)
				}
			}
		}
	}
	if n := s.DeviceBytes(); n < 640*4*2 {
		t.Errorf("%d bytes on the device", n)
	}
}

// TestSnapshot: training goes on from a snapshot as it did.
func TestSnapshot(t *testing.T) {
	needDevice(t)
	d := newNoise(64)
	s := openOn(t, model("bf16", runtime.Train{Optimizer: optimizers["adamw"]}), "cuda", 2)
	steps := func() []float32 {
		for k := range 3 {
			b := d.samples(numbers(k, 32)...)
			if _, err := s.Submit(b, 0); err != nil {
				t.Fatal(err)
			}
		}
		return arena(t, s)
	}
	steps()
	var at runtime.Snapshot
	if err := s.Snapshot(&at); err != nil {
		t.Fatal(err)
	}
	want := steps()
	if err := s.Restore(&at); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(steps(), want) || s.Updates() != 6 {
		t.Error("training goes on differently")
	}
}

// TestSideBySide: sessions on one device, each in a goroutine of its own.
func TestSideBySide(t *testing.T) {
	needDevice(t)
	d := newNoise(64)
	results := make([][]float32, 3)
	t.Run("all", func(t *testing.T) {
		for i := range results {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				s := openOn(t, model("fp32", runtime.Train{}), "cuda", 4)
				for k := range 5 {
					b := d.samples(numbers(k, 32)...)
					if _, _, err := s.Step(b.Images, b.Labels); err != nil {
						t.Fatal(err)
					}
				}
				results[i] = arena(t, s)
			})
		}
	})
	if !slices.Equal(results[0], results[1]) || !slices.Equal(results[0], results[2]) {
		t.Error("sessions disturb each other")
	}
}
