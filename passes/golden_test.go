package passes_test

import (
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/ir/interp"
	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/golden"
	"github.com/vitgen/vitgen/spec"
)

// What is asked of the interpreter, in relative norm. Both sides compute in
// float64 from the same float32 inputs; what differs is the order of sums,
// which optimizer steps amplify, and that goldens store parameters after a
// step rounded to float32.
const (
	goldenTolerance = 1e-9
	float32Rounding = 0x1p-24
)

// specOf finds and reads the spec a golden file was made from.
func specOf(t *testing.T, goldenFile string) *spec.Spec {
	t.Helper()
	name := strings.TrimSuffix(filepath.Base(goldenFile), ".safetensors") + ".yaml"
	for _, dir := range []string{"../golden/specs", "../examples"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return readSpec(t, filepath.Join(dir, name))
		}
	}
	t.Fatalf("%s has no spec %s in golden/specs or examples", goldenFile, name)
	return nil
}

func readSpec(t testing.TB, path string) *spec.Spec {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := spec.Parse(filepath.Base(path), src)
	if err != nil {
		t.Fatalf("%s:\n%v", path, err)
	}
	return s
}

// Every golden, computed by PyTorch in float64, agrees with the interpreter's
// values of the compiled graphs: logits, loss, gradients and training steps.
// The small ones do so too without each of the optional passes, and when the
// nodes' order is shuffled before every pass. What is too big for an
// interpreter runs only when VITGEN_BIG_GOLDENS is set.
func TestGoldens(t *testing.T) {
	files, err := filepath.Glob("../golden/*.safetensors")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".safetensors")
		s := specOf(t, file)
		fullSize := s.Train.Batch > 16
		t.Run(name, func(t *testing.T) {
			if fullSize && testing.Short() {
				t.Skip("a full-size model takes the interpreter some seconds")
			}
			if n := elems(s); n > maxInterpreted && os.Getenv("VITGEN_BIG_GOLDENS") == "" {
				t.Skipf("%d million parameters take the interpreter ten minutes; the trainer's verify does check this golden. VITGEN_BIG_GOLDENS=1 and -timeout 1h run it here", n/1e6)
			}
			replay(t, s, file, passes.Options{})
		})
		if fullSize {
			continue
		}
		for _, p := range passes.Passes() {
			if p.Optional {
				t.Run(name+"/without "+p.Name, func(t *testing.T) {
					replay(t, s, file, passes.Options{Disable: []string{p.Name}})
				})
			}
		}
		t.Run(name+"/shuffled", func(t *testing.T) { replay(t, s, file, passes.Options{Seed: 1}) })
	}
}

// maxInterpreted is how many parameters the interpreter, which is plain loops
// in float64, is asked to train without being told to.
const maxInterpreted = 20_000_000

func elems(s *spec.Spec) int {
	n := 0
	for _, p := range s.Params() {
		n += golden.ParamInfo{Name: p.Name, Shape: p.Shape}.Elems()
	}
	return n
}

// replay does what the golden's makers did.
func replay(t *testing.T, s *spec.Spec, file string, o passes.Options) {
	model := golden.Model{Image: [3]int{s.Input.Channels, s.Input.Height, s.Input.Width}, Classes: s.Input.Classes}
	for _, p := range s.Params() {
		model.Params = append(model.Params, golden.ParamInfo{Name: p.Name, Shape: p.Shape})
	}
	gold, err := golden.Load(file, model)
	if err != nil {
		t.Fatal(err)
	}
	programs, err := passes.Compile(s, o)
	if err != nil {
		t.Fatal(err)
	}
	tr := newTrainer(s, gold)
	check := gold.NewChecker("fp32")

	outs := tr.eval(t, programs.Forward)
	check.Logits(outs["logits"].Data)
	outs = tr.eval(t, programs.Eval)
	check.Loss(mean(outs["loss"].Data))
	outs = tr.grad(t, programs.Grad)
	for _, p := range s.Params() {
		check.Grad(p.Name, outs["grad."+p.Name].Data)
	}
	for k := 1; k <= len(gold.Steps); k++ {
		if k > 1 { // the first step's gradients are those at the start
			outs = tr.grad(t, programs.Grad)
		}
		check.StepLoss(k, mean(outs["loss"].Data))
		tr.update(t, programs.Update, k, outs)
		for _, p := range s.Params() {
			check.StepParam(k, p.Name, tr.env.Params[p.Name].Data)
		}
	}
	rows := check.Rows()
	for i := range rows {
		rows[i].Tol = goldenTolerance
		if strings.HasPrefix(rows[i].Name, "step") && strings.Contains(rows[i].Name, ".param") {
			rows[i].Tol = float32Rounding
		}
		if rows[i].RelNorm > rows[i].Tol {
			rows[i].OK, rows[i].Reason = false, "is further off than float64 explains"
		}
	}
	if !golden.AllOK(rows) {
		var b strings.Builder
		_ = golden.WriteTable(&b, rows)
		t.Error(b.String())
	}
}

// trainer runs the programs through the interpreter, with the host's part of
// a step: scalars and state.
type trainer struct {
	spec  *spec.Spec
	env   interp.Env
	state map[string]map[string]interp.Tensor // by slot and parameter
}

func newTrainer(s *spec.Spec, gold *golden.Golden) *trainer {
	n := gold.Batch
	env := interp.Env{
		N:       n,
		Inputs:  map[string]interp.Tensor{"image": interp.New(n, s.Input.Channels, s.Input.Height, s.Input.Width), "label": interp.New(n)},
		Params:  map[string]interp.Tensor{},
		Scalars: map[string]float64{"inv_n": 1 / float64(n)},
	}
	tr := &trainer{spec: s, env: env, state: map[string]map[string]interp.Tensor{"state0": {}, "state1": {}, "grad": {}}}
	for i, x := range gold.Image {
		env.Inputs["image"].Data[i] = float64(x)
	}
	for i, c := range gold.Label {
		env.Inputs["label"].Data[i] = float64(c)
	}
	for _, p := range s.Params() {
		env.Params[p.Name] = interp.Tensor{Shape: p.Shape, Data: golden.Float64s(gold.Params[p.Name])}
		tr.state["state0"][p.Name] = interp.New(p.Shape...)
		tr.state["state1"][p.Name] = interp.New(p.Shape...)
	}
	tr.env.State = func(name, slot string) interp.Tensor { return tr.state[slot][name] }
	return tr
}

func (tr *trainer) eval(t *testing.T, g *ir.Graph) map[string]interp.Tensor {
	t.Helper()
	outs, err := interp.Eval(g, tr.env)
	if err != nil {
		t.Fatal(err)
	}
	return outs
}

// grad computes gradients. A golden's batch fits into one micro-batch, so a
// model that accumulates several starts from cleared gradients.
func (tr *trainer) grad(t *testing.T, g *ir.Graph) map[string]interp.Tensor {
	t.Helper()
	if tr.spec.Train.Accumulate > 1 {
		for _, p := range tr.spec.Params() {
			tr.state["grad"][p.Name] = interp.New(p.Shape...)
		}
	}
	return tr.eval(t, g)
}

// update applies update k with the gradients of a Grad run.
func (tr *trainer) update(t *testing.T, g *ir.Graph, k int, grads map[string]interp.Tensor) {
	t.Helper()
	sched, o := tr.spec.Train.Schedule, tr.spec.Train.Optimizer
	train := runtime.Train{Optimizer: runtime.Optimizer{LR: o.LR}, Schedule: runtime.Schedule{Kind: sched.Kind,
		WarmupSteps: sched.WarmupSteps, TotalSteps: sched.TotalSteps, FinalLR: sched.FinalLR,
		Every: sched.Every, EveryUnit: sched.EveryUnit, Gamma: sched.Gamma}}
	lr, err := train.LR(k, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	tr.env.Scalars["lr"] = lr
	tr.env.Scalars["bias_corr1"] = 1 / (1 - math.Pow(o.Beta1, float64(k)))
	tr.env.Scalars["bias_corr2"] = 1 / (1 - math.Pow(o.Beta2, float64(k)))
	names := slices.Sorted(maps.Keys(tr.env.Params))
	for _, name := range names {
		tr.state["grad"][name] = grads["grad."+name]
	}
	outs := tr.eval(t, g)
	for _, name := range names {
		tr.env.Params[name] = outs["param."+name]
		for _, slot := range []string{"state0", "state1"} {
			if s, ok := outs[slot+"."+name]; ok {
				tr.state[slot][name] = s
			}
		}
	}
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}
