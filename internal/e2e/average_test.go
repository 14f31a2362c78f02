package e2e

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/internal/e2e/steps"
	"github.com/vitgen/vitgen/internal/python"
	"github.com/vitgen/vitgen/ir/interp"
	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/golden"
	"github.com/vitgen/vitgen/spec"
)

// averageSpec mixes samples and keeps an average, on top of everything else that
// an update can have.
func averageSpec(t *testing.T, optimizer, precision string) *spec.Spec {
	return mustParse(t, "average.yaml", []byte(strings.NewReplacer("OPTIMIZER", optimizer, "PRECISION", precision).Replace(`vitgen: 1
name: average
input: {image: [2, 6, 4], classes: 7}
model:
  - patch_embed: {name: stem, patch: 2, out: 12}
  - residual:
      - layernorm: {name: ln}
      - attention: {name: attention, heads: 2, dropout: 0.1}
      - dropout: 0.2
  - mean_pool
  - linear: {name: head, out: 7}
loss: {cross_entropy: {label_smoothing: 0.1}}
train:
  batch: 3
  accumulate: 2
  epochs: 1
  precision: PRECISION
  clip_norm: 0.5
  optimizer: {OPTIMIZER}
  schedule: {linear_warmup: {warmup_steps: 2}}
  ema: {decay: 0.3, warmup: true}
data: {synthetic: {train: 16, val: 8, augment: {mixup: 0.2, cutmix: 1.0}}}
`)))
}

const (
	momentum = "sgd: {lr: 0.2, momentum: 0.9, weight_decay: 0.01}"
	adam     = "adamw: {lr: 0.01, eps: 0.01, weight_decay: 0.1}"
)

// Losses of two labels, and the average that is kept of the parameters, are those
// of the interpreter over several updates: dropout on, micro-batches, the last
// one partial, warm-up of the decay until it has its value.
func TestAverageAndMixing(t *testing.T) {
	for what, optimizer := range map[string]string{"momentum": momentum, "adamw": adam} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := averageSpec(t, optimizer, "fp32")
			m := compile(t, s, passes.Options{}, stepping)
			q, want := trainAverage(t, s, true)
			for _, threads := range []string{"1", "3"} {
				compareSteps(t, m.steps(t, []string{"GOMAXPROCS=" + threads}, q), want, 2e-5)
			}
		})
	}
}

// The same on a CUDA device: in bf16 the average's own bf16 copy is what products
// read while it stands in the parameters' place.
func TestAverageAndMixingOnCUDA(t *testing.T) {
	for precision, tolerance := range map[string]float64{"fp32": 2e-5, "bf16": 0.03} {
		t.Run(precision, func(t *testing.T) {
			t.Parallel()
			s := averageSpec(t, adam, precision)
			m := compile(t, s, passes.Options{}, steppingCUDA)
			q, want := trainAverage(t, s, true)
			q.Device = "cuda"
			for _, seed := range []string{"0", "1"} {
				compareSteps(t, m.steps(t, onGPU(t, m, "VITGEN_SIM_SEED="+seed), q), want, tolerance)
			}
		})
	}
}

// What the interpreter makes of an average and of two labels is what PyTorch
// makes of them: AveragedModel with get_ema_multi_avg_fn, and cross_entropy of
// mixed one-hot targets with label smoothing.
func TestAverageAndMixingInPyTorch(t *testing.T) {
	py := python.Find(t, "torch")
	for what, optimizer := range map[string]struct {
		spec  string
		torch map[string]any
	}{
		"sgd":   {"sgd: {lr: 0.2, momentum: 0.9, weight_decay: 0.01, decay: all}", map[string]any{"kind": "SGD", "lr": 0.2, "momentum": 0.9, "weight_decay": 0.01}},
		"adamw": {"adamw: {lr: 0.01, eps: 0.01, weight_decay: 0.1, decay: all}", map[string]any{"kind": "AdamW", "lr": 0.01, "eps": 0.01, "weight_decay": 0.1}},
	} {
		t.Run(what, func(t *testing.T) {
			s := mustParse(t, "torch.yaml", []byte(strings.Replace(`vitgen: 1
name: torch
input: {image: [2, 3, 4], classes: 7}
model: [flatten, {linear: {name: hidden, out: 9}}, gelu, {linear: {name: head, out: 7}}]
loss: {cross_entropy: {label_smoothing: 0.1}}
train:
  batch: 5
  epochs: 1
  optimizer: {OPTIMIZER}
  ema: {decay: 0.8}
data: {synthetic: {train: 16, val: 8, augment: {mixup: 0.2}}}
`, "OPTIMIZER", optimizer.spec, 1)))
			q, want := trainAverage(t, s, false)
			file := writeJSON(t, map[string]any{"classes": s.Input.Classes, "smoothing": s.Loss.LabelSmoothing, "decay": s.Train.EMA.Decay,
				"optimizer": optimizer.torch, "Params": q.Params, "Batches": q.Batches})
			out, err := exec.Command(py, "testdata/average.py", file).Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, stderrOf(err))
			}
			var got struct {
				Losses          []float64
				Params, Average map[string][]float64
			}
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatal(err)
			}
			near(t, "loss", want.losses, got.Losses, 1e-12)
			for name, p := range got.Params {
				near(t, "parameter "+name, want.params[name].Data, p, 1e-12)
				near(t, "average of "+name, want.average[name].Data, got.Average[name], 1e-12)
			}
		})
	}
}

// writeJSON leaves a request in a file of the test's.
func writeJSON(t *testing.T, request any) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "request.json")
	text, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o666); err != nil {
		t.Fatal(err)
	}
	return file
}

// stderrOf is what a command that failed had to say.
func stderrOf(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(exit.Stderr)
	}
	return ""
}

// steps runs a trainer that was compiled for stepping.
func (m *model) steps(t *testing.T, env []string, q steps.Request) (r steps.Result) {
	t.Helper()
	out, status := m.run(t, env, writeJSON(t, q))
	if status != 0 {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return r
}

// averageResult is what the interpreter says, in float64.
type averageResult struct {
	losses          []float64
	params, average map[string]interp.Tensor
	logits          []float64
}

// trainAverage makes updates in the interpreter, with batches of five samples, and
// returns the request for the same ones.
func trainAverage(t *testing.T, s *spec.Spec, dropout bool) (steps.Request, averageResult) {
	const updates, seed = 4, 77
	rng := rand.New(rand.NewPCG(3, 14))
	q, want := steps.Request{Device: "cpu", Seed: seed}, averageResult{}
	var r *reference
	for k := 1; k <= updates; k++ {
		in := randomInputs(s, 5, rng)
		b := runtime.Samples{Images: in.image}
		for i := range in.label {
			in.label2 = append(in.label2, rng.Int64N(int64(s.Input.Classes)))
			in.mix = append(in.mix, []float32{1, 0, 0.25, rng.Float32(), rng.Float32()}[i])
			b.Labels, b.Labels2 = append(b.Labels, int32(in.label[i])), append(b.Labels2, int32(in.label2[i]))
		}
		b.Mix = in.mix
		q.Batches = append(q.Batches, b)
		if r == nil {
			q.Params = in.params
			r = newReference(t, s, in)
			r.restart(dropout, seed)
		}
		r.in = in
		_, loss := r.grad(t)
		r.update(t, k)
		want.losses = append(want.losses, loss)
	}
	want.params, want.average = r.env.Params, r.slots["average"]
	r.env.Params, r.env.Dropout = want.average, false
	r.give(0, s.Train.Batch)
	want.logits = r.eval(t, r.programs.Forward)["logits"].Data
	q.Look = r.in.image[:s.Train.Batch*s.Input.Shape().Elems()]
	return q, want
}

func compareSteps(t *testing.T, got steps.Result, want averageResult, tolerance float64) {
	t.Helper()
	near(t, "loss", got.Losses, want.losses, tolerance)
	near(t, "logits of the average", golden.Float64s(got.Logits), want.logits, tolerance)
	if len(got.Params) != len(want.params) || len(got.Average) != len(want.average) {
		t.Fatalf("%d parameters, %d averages, want %d", len(got.Params), len(got.Average), len(want.params))
	}
	for name := range want.params {
		near(t, "parameter "+name, golden.Float64s(got.Params[name]), want.params[name].Data, tolerance)
		near(t, "average of "+name, golden.Float64s(got.Average[name]), want.average[name].Data, tolerance)
	}
}

// near compares in relative norm; tensors that are next to nothing, absolutely.
func near(t *testing.T, what string, got, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s has %d elements, want %d", what, len(got), len(want))
	}
	diff, norm := 0.0, 0.0
	for i := range want {
		diff, norm = diff+(got[i]-want[i])*(got[i]-want[i]), norm+want[i]*want[i]
	}
	if d := math.Sqrt(diff) / max(math.Sqrt(norm), 0.1); !(d <= tolerance) {
		t.Errorf("%s is off by %.3g", what, d)
	}
}
