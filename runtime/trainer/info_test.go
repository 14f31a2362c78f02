package trainer

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/internal/fake"
)

func TestInfo(t *testing.T) {
	m := digits(32, runtime.Train{Accumulate: 2, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.1, Momentum: 0.9}})
	var i infoResult
	if err := json.Unmarshal([]byte(mustRun(t, m, "info", "--json")), &i); err != nil {
		t.Fatal(err)
	}
	if i.ParamCount != 650 || i.Memory.Optimizer != 2600 || i.Memory.Parameters != 2600 || i.Step.PrunedPercent != 40 ||
		i.Launches["grad"] != 3 || i.Launches["pack"] != 1 || i.Kernels[6].Launches["forward"] != 1 || i.Memory.Total <= i.Memory.Activations {
		t.Errorf("%+v", i)
	}
	text := mustRun(t, m, "info")
	for _, want := range []string{"head.weight  [10 64]  640", "650", "(40.0 % fewer with it)", "k03_sgd", "fake.yaml:7:3", "batch 32 × 2"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestInfoCountsTheAverage: memory that only some models have is in the list and
// in the total.
func TestInfoCountsTheAverage(t *testing.T) {
	memory := func(m *runtime.Model) (i infoResult, text string) {
		if err := json.Unmarshal([]byte(mustRun(t, m, "info", "--json")), &i); err != nil {
			t.Fatal(err)
		}
		return i, mustRun(t, m, "info")
	}
	image := [3]int{1, 8, 8}
	plain, text := memory(fake.New(image, 10, 32, runtime.Train{}))
	if plain.Memory.Average != 0 || strings.Contains(text, "\n  average ") {
		t.Errorf("a model without an average: %+v", plain.Memory)
	}
	both, text := memory(fake.Mix(fake.New(image, 10, 32, runtime.Train{EMA: runtime.EMA{Decay: 0.9}}), 0.2, 0))
	const params = 650 * 4
	if b, p := both.Memory, plain.Memory; b.Average != params || b.Inputs != p.Inputs+2*32*4 || b.Total != p.Total+params+2*32*4 {
		t.Errorf("%+v, without average and second labels %+v", b, p)
	}
	if !strings.Contains(text, "\n  average ") {
		t.Errorf("no average in\n%s", text)
	}
}

// TestInfoCUDA: what a GPU would be given is told without one.
func TestInfoCUDA(t *testing.T) {
	m := digits(fake.CUDABatch, runtime.Train{Optimizer: runtime.Optimizer{Kind: "adamw", LR: 0.1, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8}})
	if status, _, stderr := run(t, context.Background(), m, "info", "--target", "cuda"); status != 1 || !strings.Contains(stderr, "compile fake.yaml with --target cpu,cuda") {
		t.Errorf("without CUDA code: exit %d, %s", status, stderr)
	}
	fake.AddCUDA(m, "bf16", nil)
	out := mustRun(t, m, "info", "--device", "cuda", "--chip", "h100")
	for _, want := range []string{"NVIDIA H100 SXM in bf16: 4 launches, one CUDA graph", "k01_linear_half", "fake.yaml:3:5", "3 × 64", "launches of grad"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	var r infoResult
	if err := json.Unmarshal([]byte(mustRun(t, m, "info", "--target", "cuda", "--json")), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.CUDA.Launches) != 4 || r.CUDA.Chip != "NVIDIA H200 SXM" || r.Precision != "bf16" || r.Memory.Parameters != 650*6 {
		t.Errorf("%+v", r)
	}
	sum := 0.0
	for _, l := range r.CUDA.Launches {
		sum += l.PredictedUS
	}
	if math.Abs(sum-r.CUDA.PredictedUS) > 1e-9 {
		t.Errorf("launches take %g µs, the step %g", sum, r.CUDA.PredictedUS)
	}
	if status, _, stderr := run(t, context.Background(), m, "info", "--target", "cuda", "--chip", "h9"); status != 2 || !strings.Contains(stderr, "there are h200, h100") {
		t.Errorf("unknown chip: exit %d, %s", status, stderr)
	}
	// A program without -tags cuda says what to do.
	if status, _, stderr := run(t, context.Background(), m, "train", "--device", "cuda"); status != 1 || !strings.Contains(stderr, "vitgen build fake.yaml --target cpu,cuda") {
		t.Errorf("train: exit %d, %s", status, stderr)
	}
}
