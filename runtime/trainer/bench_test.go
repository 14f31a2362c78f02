package trainer

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
)

func TestBench(t *testing.T) {
	m := digits(32, runtime.Train{Accumulate: 2, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.1, Momentum: 0.9}})
	var b benchResult
	if err := json.Unmarshal([]byte(mustRun(t, m, "bench", "--steps", "4", "--warmup", "1", "--json")), &b); err != nil {
		t.Fatal(err)
	}
	if b.Batch != 64 || len(b.StepMSAll) != 4 || b.StepMS <= 0 || b.SamplesPerSec <= 0 || b.PeakBytes < 1<<20 || len(b.Kernels) != 4 {
		t.Errorf("%+v", b)
	}
	percent := 0.0
	for i, k := range b.Kernels {
		percent += k.Percent
		if k.MS <= 0 || k.GFLOPS <= 0 || k.GBps <= 0 || k.Launches != 1 || i > 0 && k.MS > b.Kernels[i-1].MS {
			t.Errorf("%+v", k)
		}
	}
	if math.Abs(percent-100) > 1e-6 {
		t.Errorf("the kernels make %g %%", percent)
	}
	text := mustRun(t, m, "bench", "--steps", "1", "--warmup", "0")
	for _, want := range []string{"update of 64 samples", "samples/s", "k02_linear_grad  fake.yaml:3:5  head", "% of the time: digits, 1 updates of"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestBenchForward(t *testing.T) {
	m := digits(32, runtime.Train{Accumulate: 2, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.1, Momentum: 0.9}})
	// 80 images are two full batches and a half one.
	var b benchResult
	if err := json.Unmarshal([]byte(mustRun(t, m, "bench", "--forward", "--batch", "80", "--steps", "4", "--warmup", "1", "--json")), &b); err != nil {
		t.Fatal(err)
	}
	if b.Pass != "forward" || b.Batch != 80 || len(b.StepMSAll) != 4 || b.StepMS <= 0 || b.SamplesPerSec <= 0 || b.GFLOPS <= 0 || b.PeakBytes < 1<<20 || b.Data != nil {
		t.Errorf("%+v", b)
	}
	k := m.Kernels[m.Programs[runtime.Forward][0].Kernel]
	if b.StepFLOPs != k.FLOPs*80/32 || len(b.Kernels) != 1 || b.Kernels[0].Name != k.Name || math.Abs(b.Kernels[0].Percent-100) > 1e-6 {
		t.Errorf("%d FLOPs, kernels %+v", b.StepFLOPs, b.Kernels)
	}
	if text := mustRun(t, m, "bench", "--forward", "--steps", "1", "--warmup", "0"); !strings.Contains(text, "logits of 32 samples: ") {
		t.Error(text)
	}
}
