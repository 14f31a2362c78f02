package trainer

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
)

func TestBound(t *testing.T) {
	r := &roofs{GFLOPS: 100, Memory: []memoryRoof{{1000, 50}, {4000, 20}, {16000, 10}}}
	for bytes, want := range map[int64]float64{0: 50, 999: 50, 1000: 50, 3999: 50, 4000: 20, 15999: 20, 16000: 10, 1 << 40: 10} {
		if got := r.bandwidth(bytes); got != want {
			t.Errorf("%d bytes move at %g GB/s, want %g", bytes, got, want)
		}
	}
	for _, c := range []struct {
		flops, bytes int64
		ms           float64
		what         string
	}{
		{1e9, 1000, 10, "compute"},
		{1e6, 1e7, 1, "memory"}, // computing takes 0.01 ms
		{0, 1e6, 0.1, "memory"},
		{0, 2000, 2000 / 50e6, "memory"},
	} {
		if ms, what := r.bound(c.flops, c.bytes); math.Abs(ms-c.ms) > 1e-12 || what != c.what {
			t.Errorf("%d FLOPs and %d bytes: %g ms, %s; want %g, %s", c.flops, c.bytes, ms, what, c.ms, c.what)
		}
	}
}

func TestMeasureRoofs(t *testing.T) {
	r, err := measureRoofs(2, "plain")
	if err != nil {
		t.Fatal(err)
	}
	if r.ISA != "plain" || r.Threads != 2 || !(r.GFLOPS > 0.01) || len(r.Memory) != len(roofSizes) {
		t.Errorf("%+v", r)
	}
	for i, m := range r.Memory {
		if m.Bytes != 2*int64(roofSizes[i]) || !(m.GBps > 0.01) {
			t.Errorf("%+v", m)
		}
	}
	for _, none := range []struct {
		threads int
		isa     string
	}{{0, ""}, {2, "go"}} {
		if r, err := measureRoofs(none.threads, none.isa); r != nil || err != nil {
			t.Errorf("%+v: %+v, %v", none, r, err)
		}
	}
}

// TestBenchRoofs: bench compares kernels and update with the roofs, where there
// are some for what the kernels are compiled for.
func TestBenchRoofs(t *testing.T) {
	m := digits(32, runtime.Train{Accumulate: 2, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.1}})
	bench := func() (text string, b benchResult) {
		t.Helper()
		text = mustRun(t, m, "bench", "--steps", "1", "--warmup", "0", "--data", "none", "--threads", "2", "--json")
		if err := json.Unmarshal([]byte(text), &b); err != nil {
			t.Fatal(err)
		}
		return text, b
	}
	if text, b := bench(); b.Roofs != nil || strings.Contains(text, "bound") {
		t.Errorf("bounds for kernels in Go:\n%s", text)
	}

	m.CPU[0].ISA = "plain"
	_, b := bench()
	if b.Roofs == nil || b.Roofs.Threads != 2 {
		t.Fatalf("%+v", b)
	}
	total := 0.0
	for _, k := range b.Kernels {
		if !(k.BoundMS > 0) || k.Bound != "compute" && k.Bound != "memory" || !near(k.OfBound, k.BoundMS/k.MS) {
			t.Errorf("%+v", k)
		}
		switch k.Name {
		case "k03_sgd": // once for both micro-batches
			total += k.BoundMS
		default:
			total += 2 * k.BoundMS
		}
		// Work over its bound is the roof's own speed.
		flops, bytes := k.GFLOPS*k.MS/k.BoundMS, k.GBps*k.MS/k.BoundMS
		if k.Bound == "compute" && !near(flops, b.Roofs.GFLOPS) || k.Bound == "memory" && !near(bytes, b.Roofs.Memory[0].GBps) {
			t.Errorf("%+v with %+v", k, b.Roofs)
		}
	}
	if !near(b.BoundMS, total) || !near(b.OfBound, total/b.StepMS) {
		t.Errorf("the update is bound to %g ms, %g of it; its kernels to %g of %g ms", b.BoundMS, b.OfBound, total, b.StepMS)
	}

	// A quarter of the batch reads all of the weights.
	k := &m.Kernels[6]
	k.FixedBytes = 1 << 30
	k.Bytes += k.FixedBytes
	b = benchResult{}
	if err := json.Unmarshal([]byte(mustRun(t, m, "bench", "--forward", "--batch", "8", "--steps", "1", "--warmup", "0", "--threads", "2", "--json")), &b); err != nil {
		t.Fatal(err)
	}
	last := b.Roofs.Memory[len(b.Roofs.Memory)-1].GBps
	if want := float64(1<<30+(k.Bytes-1<<30)/4) / last / 1e6; len(b.Kernels) != 1 || b.Kernels[0].Bound != "memory" || !near(b.Kernels[0].BoundMS, want) || !near(b.BoundMS, want) {
		t.Errorf("%+v, want a bound of %g ms", b, want)
	}

	text := mustRun(t, m, "bench", "--steps", "1", "--warmup", "0", "--data", "none")
	for _, want := range []string{"bound of its kernels: ", " GFLOP/s and ", "% of bound", "compute ", "  k02_linear_grad  fake.yaml:3:5  head"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
