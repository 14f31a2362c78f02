package runtime_test

import (
	"io/fs"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/internal/fake"
)

// TestSubmit: micro-batches submitted one by one do what Step does.
func TestSubmit(t *testing.T) {
	train := runtime.Train{Accumulate: 3, Optimizer: runtime.Optimizer{Kind: "adamw", LR: 0.01, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}}
	m := fake.New(image, classes, 4, train)
	one, two := open(t, m, runtime.Options{Seed: 1}), open(t, m, runtime.Options{Seed: 1})
	for k, n := range []int{12, 9, 4, 1} {
		x, y := batch(n, uint64(k))
		want, wantRight, err := one.Step(x, y)
		if err != nil {
			t.Fatal(err)
		}
		b := runtime.Samples{Images: x, Labels: y}
		var waiting []runtime.Pending
		for lo := 0; lo < n; lo += 4 {
			if two.Updates() != k {
				t.Errorf("update %d is made before its last micro-batch", k+1)
			}
			p, err := two.Submit(b.Part(lo, min(lo+4, n), 6), n)
			if err != nil {
				t.Fatal(err)
			}
			waiting = append(waiting, p)
		}
		sum, right := 0.0, 0
		for _, p := range waiting {
			l, c, err := p.Wait()
			if err != nil {
				t.Fatal(err)
			}
			sum, right = sum+l, right+c
		}
		if sum/float64(n) != want || right != wantRight || two.Updates() != k+1 {
			t.Errorf("step %d: loss %v, %d right, %d updates; want %v, %d", k+1, sum/float64(n), right, two.Updates(), want, wantRight)
		}
	}
	if !slices.Equal(params(t, one), params(t, two)) {
		t.Error("other parameters")
	}
}

func TestSubmitErrors(t *testing.T) {
	m := fake.New(image, classes, 4, runtime.Train{Schedule: runtime.Schedule{Kind: "cosine"}})
	s := open(t, m, runtime.Options{Threads: 1})
	x, y := batch(8, 1)
	before := params(t, s)
	submit := func(n, total int) error {
		_, err := s.Submit(runtime.Samples{Images: x, Labels: y[:n]}, total)
		return err
	}
	if err := submit(4, 4); err == nil || !strings.Contains(err.Error(), "SetSteps") {
		t.Errorf("a schedule of unknown length: %v", err)
	}
	s.SetSteps(0, 100)
	for _, c := range []struct {
		err  error
		want string
	}{
		{submit(8, 8), "up to 4"},
		{submit(0, 0), "at least one"},
		{submit(4, 3), "effective batch of 3"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", c.err, c.want)
		}
	}
	if s.Updates() != 0 || !slices.Equal(before, params(t, s)) {
		t.Error("a refused step has changed something")
	}
	p, err := s.Submit(runtime.Samples{Images: x, Labels: y[:4]}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 15 {
		if err := submit(4, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := p.Wait(); err != nil {
		t.Errorf("a late Wait: %v", err)
	}
	if err := submit(4, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Wait(); err == nil || !strings.Contains(err.Error(), "no longer kept") {
		t.Errorf("a very late Wait: %v", err)
	}
	if _, err := s.Submit(runtime.Samples{Index: []int32{0}}, 0); err == nil || !strings.Contains(err.Error(), "it holds 0") {
		t.Errorf("an index without Upload: %v", err)
	}
	if s.CanUpload() || s.Pipelined() {
		t.Error("the CPU neither keeps data sets nor works by itself")
	}
}

func TestSnapshot(t *testing.T) {
	m := fake.New(image, classes, 4, runtime.Train{Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.1, Momentum: 0.9}})
	s := open(t, m, runtime.Options{Seed: 3})
	x, y := batch(4, 1)
	steps := func() []float32 {
		for range 3 {
			if _, _, err := s.Step(x, y); err != nil {
				t.Fatal(err)
			}
		}
		return params(t, s)
	}
	steps()
	var at runtime.Snapshot
	for range 2 { // it may be filled again
		if err := s.Snapshot(&at); err != nil {
			t.Fatal(err)
		}
	}
	want := steps()
	other := open(t, m, runtime.Options{Seed: 99})
	for _, s = range []*runtime.Session{s, other} {
		if err := s.Restore(&at); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(steps(), want) || s.Updates() != 6 {
			t.Error("training goes on differently")
		}
	}
}

func TestFindNaN(t *testing.T) {
	m := fake.New(image, classes, 4, runtime.Train{Accumulate: 2, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 1e38}})
	s := open(t, m, runtime.Options{Seed: 3})
	x, y := batch(8, 1)
	find := func(n, total int) string {
		t.Helper()
		bad, err := s.FindNaN(runtime.Samples{Images: x, Labels: y[:n]}, total)
		if err != nil {
			t.Fatal(err)
		}
		if bad == nil {
			return "nothing"
		}
		return bad.String()
	}
	if got := find(4, 8); got != "nothing" {
		t.Errorf("in the first micro-batch: %s", got)
	}
	// The update overflows: a first one makes weights of 1e37, a second one
	// weights that are infinite or none.
	if got := find(4, 4); got != "nothing" {
		t.Errorf("in the first update: %s", got)
	}
	if err := s.SetParam("head.bias", []float32{-3e38, -3e38, -3e38, -3e38}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetParam("head.weight", make([]float32, 24)); err != nil {
		t.Fatal(err)
	}
	s.SetDropout(false)
	x[3] = 1e38
	got := find(4, 4)
	if !strings.Contains(got, "k03_sgd") && !strings.Contains(got, "k02_linear_grad") {
		t.Errorf("in an update that overflows: %s", got)
	}
	x[9] = float32(math.NaN())
	if got := find(4, 4); !strings.Contains(got, "before the step") && !strings.Contains(got, "image 1 of the batch has NaN at element 3") {
		t.Errorf("in an image: %s", got)
	}
}

// TestCheckCUDA: what Check says of the code for CUDA.
func TestCheckCUDA(t *testing.T) {
	for what, c := range map[string]struct {
		breakIt func(c *runtime.CUDACode)
		want    string
	}{
		"good":        {func(c *runtime.CUDACode) {}, ""},
		"no outputs":  {func(c *runtime.CUDACode) { c.Outputs = runtime.Outputs{} }, ""}, // the model's
		"kernel":      {func(c *runtime.CUDACode) { c.Programs[2][0].Kernel = 99 }, "kernel 99"},
		"ref":         {func(c *runtime.CUDACode) { c.Programs[2][0].Args[1].Offset = 1400 }, "outside region half of 1300"},
		"odd":         {func(c *runtime.CUDACode) { c.Programs[2][0].Args[1].Offset = 1 }, "outside region half"},
		"arena":       {func(c *runtime.CUDACode) { c.ArenaBytes = 100 }, "region arena of 100"},
		"block":       {func(c *runtime.CUDACode) { c.Kernels[0].Block = 48 }, "48 threads"},
		"big block":   {func(c *runtime.CUDACode) { c.Kernels[0].Block = 2048 }, "2048 threads"},
		"grid":        {func(c *runtime.CUDACode) { c.Kernels[0].Grid = 0 }, "0 blocks"},
		"gather":      {func(c *runtime.CUDACode) { c.Gather = 99 }, "kernel 99 to gather"},
		"halve":       {func(c *runtime.CUDACode) { c.Halve = -1 }, "kernel -1 to make it"},
		"counters":    {func(c *runtime.CUDACode) { c.Counters = -1 }, "out of range"},
		"output":      {func(c *runtime.CUDACode) { c.Kernels[2].Outs[0].Arg = 7 }, "7"},
		"output size": {func(c *runtime.CUDACode) { c.Kernels[2].Outs[0].Elems = 1 << 20 }, "outside its region"},
	} {
		m := fake.New([3]int{1, 8, 8}, 10, fake.CUDABatch, runtime.Train{})
		fake.AddCUDA(m, "bf16", func() fs.FS { return nil })
		c.breakIt(m.CUDA)
		err := m.Check()
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", what, err, c.want)
		}
	}
}

// TestPredictTimes: a kernel is held up by arithmetic or by memory.
func TestPredictTimes(t *testing.T) {
	chip, err := runtime.ChipByKey("a100")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		family, precision string
		flops, bytes      int64
		want              float64 // µs
	}{
		{"gemm", "bf16", 312e6, 0, 1},
		{"gemm", "tf32", 312e6, 0, 2},
		{"gemm", "fp32", 195e6, 0, 10},
		{"attention", "bf16", 312e6, 0, 1},
		{"row", "bf16", 195e6, 0, 10},
		{"row", "bf16", 0, 204e6, 100},
		{"gemm", "bf16", 312e6, 204e6, 100},
	} {
		k := runtime.Kernel{Family: c.family, FLOPs: c.flops, Bytes: c.bytes}
		if got := chip.Predict(&k, c.precision).Seconds() * 1e6; math.Abs(got-c.want) > 0.01*c.want {
			t.Errorf("%+v: %g µs", c, got)
		}
	}
	if _, err := runtime.ChipByKey(runtime.DefaultChip); err != nil {
		t.Error(err)
	}
}
