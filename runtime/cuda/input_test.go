//go:build cuda

package cuda

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
)

// TestResident: batches gathered on the device are bit for bit those that the
// host makes.
func TestResident(t *testing.T) {
	needDevice(t)
	d := newNoise(150)
	m := model("fp32", runtime.Train{Optimizer: optimizers["momentum"], Accumulate: 2})
	host, device := openOn(t, m, "cuda", 9), openOn(t, m, "cuda", 9)
	if host.CanUpload() != true || openOn(t, m, "cpu", 9).CanUpload() {
		t.Error("who can upload?")
	}
	if _, err := device.Submit(runtime.Samples{Index: []int32{0}}, 1); err == nil || !strings.Contains(err.Error(), "holds 0") {
		t.Errorf("before Upload: %v", err)
	}
	for round := range 2 { // the second data set replaces the first
		if err := device.Upload(d, table); err != nil {
			t.Fatal(err)
		}
		for k, n := range []int{64, 40, 3, 64} {
			index := numbers(11*k, n)
			for lo := 0; lo < n; lo += 32 {
				part := index[lo:min(lo+32, n)]
				a := must[runtime.Pending](t)(host.Submit(d.samples(part...), n))
				b := must[runtime.Pending](t)(device.Submit(runtime.Samples{Index: part}, n))
				la, ca, err := a.Wait()
				if err != nil {
					t.Fatal(err)
				}
				lb, cb, err := b.Wait()
				if err != nil || la != lb || ca != cb {
					t.Errorf("round %d, step %d: %v %d %v, from the host %v %d", round, k, lb, cb, err, la, ca)
				}
			}
		}
		all := d.samples(numbers(0, 150)...)
		la, ca, err := host.EvalSamples(all)
		if err != nil {
			t.Fatal(err)
		}
		lb, cb, err := device.EvalSamples(runtime.Samples{Index: numbers(0, 150)})
		if err != nil || la != lb || ca != cb {
			t.Errorf("eval: %v %d %v, from the host %v %d", lb, cb, err, la, ca)
		}
		// Images from the host still go before what was gathered.
		la, _, err = device.EvalSamples(d.samples(5, 6, 7))
		if lb, _, _ = host.EvalSamples(d.samples(5, 6, 7)); err != nil || la != lb {
			t.Errorf("images from the host after others: %v %v, want %v", la, err, lb)
		}
		if !slices.Equal(arena(t, host), arena(t, device)) {
			t.Error("other parameters")
		}
		d = newNoise(170)
	}
	if _, err := device.Submit(runtime.Samples{Index: []int32{170}}, 1); err == nil {
		t.Error("an index beyond the data set is accepted")
	}
	d.labels[3] = 10
	if err := device.Upload(d, table); err == nil || !strings.Contains(err.Error(), "label 10 of image 3") {
		t.Errorf("bad label: %v", err)
	}
}

func TestNoRoom(t *testing.T) {
	needSimulation(t)
	if !inChild(t, "VITGEN_SIM_MEMORY=200M") {
		return
	}
	s := openOn(t, model("fp32", runtime.Train{}), "cuda", 1)
	err := s.Upload(newNoise(10), table)
	if _, ok := err.(*runtime.ErrNoRoom); !ok {
		t.Errorf("error %v", err)
	}
}

// TestHalf: the bf16 copy follows every way of changing parameters.
func TestHalf(t *testing.T) {
	needDevice(t)
	d := newNoise(64)
	m := model("bf16", runtime.Train{Optimizer: optimizers["sgd"]})
	gpu, cpu := openOn(t, m, "cuda", 3), openOn(t, m, "cpu", 3)
	if gpu.Precision() != "bf16" || cpu.Precision() != "fp32" {
		t.Errorf("precisions %s and %s", gpu.Precision(), cpu.Precision())
	}
	b := d.samples(numbers(0, 32)...)
	check := func(what string) {
		t.Helper()
		got := must[[]float32](t)(gpu.Forward(b.Images, 32))
		w := must[[]float32](t)(gpu.Param("head.weight"))
		for i, x := range w {
			w[i] = roundBF16(x)
		}
		if err := cpu.SetParam("head.weight", w); err != nil {
			t.Fatal(err)
		}
		if err := cpu.SetParam("head.bias", must[[]float32](t)(gpu.Param("head.bias"))); err != nil {
			t.Fatal(err)
		}
		near(t, what, got, must[[]float32](t)(cpu.Forward(b.Images, 32)), 1e-6)
	}
	check("at the start")
	if _, _, err := gpu.Step(b.Images, b.Labels); err != nil {
		t.Fatal(err)
	}
	check("after a step")
	w := make([]float32, 640)
	for i := range w {
		w[i] = float32(i)/640 - 0.3
	}
	if err := gpu.SetParam("head.weight", w); err != nil {
		t.Fatal(err)
	}
	check("after SetParam")
	if err := gpu.Init(8); err != nil {
		t.Fatal(err)
	}
	check("after Init")
}

// roundBF16 rounds to nearest, ties to even.
func roundBF16(x float32) float32 {
	b := math.Float32bits(x)
	return math.Float32frombits((b + 0x7fff + b>>16&1) &^ 0xffff)
}
