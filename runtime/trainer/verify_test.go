package trainer

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/golden"
	"github.com/vitgen/vitgen/runtime/internal/fake"
	"github.com/vitgen/vitgen/runtime/rng"
)

var verified = runtime.Train{
	Accumulate: 2, Seed: 11,
	Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.3, Momentum: 0.9, Nesterov: true, WeightDecay: 0.01},
	Schedule:  runtime.Schedule{Kind: "step", WarmupSteps: 1, Every: 2, EveryUnit: "steps", Gamma: 0.5},
}

// reference is a softmax classifier trained in float64, written apart from
// everything the trainer runs: logits = ½(W·x + b).
type reference struct {
	w, m []float64 // weights [3, 4], then biases [3]; momentum
}

func (r *reference) pass(x []float32, y []int64) (logits, grad []float64, loss float64) {
	grad = make([]float64, len(r.w))
	for i, label := range y {
		var z [3]float64
		sum := 0.0
		for k := range z {
			z[k] = r.w[12+k]
			for j := range 4 {
				z[k] += r.w[4*k+j] * float64(x[4*i+j])
			}
			z[k] /= 2
			sum += math.Exp(z[k])
		}
		logits = append(logits, z[:]...)
		loss += (math.Log(sum) - z[label]) / float64(len(y))
		for k := range z {
			d := math.Exp(z[k]) / sum
			if k == int(label) {
				d--
			}
			d /= 2 * float64(len(y))
			grad[12+k] += d
			for j := range 4 {
				grad[4*k+j] += d * float64(x[4*i+j])
			}
		}
	}
	return logits, grad, loss
}

func (r *reference) update(grad []float64, lr float64) {
	for i, g := range grad {
		if i < 12 {
			g += 0.01 * r.w[i]
		}
		r.m[i] = 0.9*r.m[i] + g
		r.w[i] -= lr * (g + 0.9*r.m[i])
	}
}

func split(v []float64) map[string]golden.Expected {
	v = slices.Clone(v)
	return map[string]golden.Expected{"head.weight": {Whole: v[:12]}, "head.bias": {Whole: v[12:]}}
}

func goldenModel(m *runtime.Model) golden.Model {
	g := golden.Model{Image: m.Image, Classes: m.Classes}
	for _, p := range m.Params {
		g.Params = append(g.Params, golden.ParamInfo{Name: p.Name, Shape: p.Shape})
	}
	return g
}

// makeGolden is a golden of five samples, more than a micro-batch.
func makeGolden() (*runtime.Model, *golden.Golden) {
	m := fake.New([3]int{1, 2, 2}, 3, 4, verified)
	s := rng.New(2, "golden")
	g := &golden.Golden{Batch: 5, Image: make([]float32, 20), Label: []int64{0, 2, 1, 1, 0}}
	for i := range g.Image {
		g.Image[i] = float32(s.Normal())
	}
	start := make([]float32, 15)
	r := &reference{w: make([]float64, 15), m: make([]float64, 15)}
	for i := range start {
		start[i] = float32(s.Normal())
		r.w[i] = float64(start[i])
	}
	g.Params = map[string][]float32{"head.weight": start[:12], "head.bias": start[12:]}
	logits, grad, loss := r.pass(g.Image, g.Label)
	g.Logits, g.Loss, g.Grads = logits, &loss, split(grad)
	for _, lr := range []float64{0.3, 0.3, 0.3, 0.15} {
		_, grad, loss := r.pass(g.Image, g.Label)
		r.update(grad, lr)
		g.Steps = append(g.Steps, golden.Step{Loss: &loss, Params: split(r.w)})
	}
	return m, g
}

func writeGolden(t *testing.T, m *runtime.Model, g *golden.Golden) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "g.safetensors")
	if err := golden.Write(path, g, goldenModel(m)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVerify(t *testing.T) {
	m, g := makeGolden()
	file := writeGolden(t, m, g)
	for _, threads := range []string{"1", "3"} {
		out := mustRun(t, m, "verify", "--golden", file, file, "--threads", threads)
		if strings.Count(out, "16 tensors, all within tolerance") != 2 {
			t.Errorf("not two goldens of 16 tensors\n%s", out)
		}
	}
	// Inference alone, without labels.
	part := &golden.Golden{Batch: g.Batch, Image: g.Image, Params: g.Params, Logits: g.Logits}
	if out := mustRun(t, m, "verify", "--golden", writeGolden(t, m, part)); !strings.Contains(out, "1 tensors, all") {
		t.Errorf("%s", out)
	}
}

// TestVerifySees changes one number of each kind of tensor.
func TestVerifySees(t *testing.T) {
	for _, c := range []struct {
		name    string
		corrupt func(g *golden.Golden)
	}{
		{"logits", func(g *golden.Golden) { g.Logits[7] += 0.01 }},
		{"loss", func(g *golden.Golden) { *g.Loss += 1e-3 }},
		{"grad.head.weight", func(g *golden.Golden) { g.Grads["head.weight"].Whole[3] += 1e-3 }},
		{"grad.head.bias", func(g *golden.Golden) { g.Grads["head.bias"].Whole[0] *= 1.01 }},
		{"step1.loss", func(g *golden.Golden) { *g.Steps[0].Loss *= 1.001 }},
		{"step4.loss", func(g *golden.Golden) { *g.Steps[3].Loss *= 1.001 }},
		{"step1.param.head.weight", func(g *golden.Golden) { g.Steps[0].Params["head.weight"].Whole[11] += 0.01 }},
		{"step3.param.head.bias", func(g *golden.Golden) { g.Steps[2].Params["head.bias"].Whole[1] -= 0.01 }},
	} {
		m, g := makeGolden()
		c.corrupt(g)
		status, out, stderr := run(t, context.Background(), m, "verify", "--golden", writeGolden(t, m, g))
		if status != 1 || !strings.HasSuffix(stderr, ": "+c.name+"\n") {
			t.Errorf("%s: exit %d\n%s%s", c.name, status, out, stderr)
		}
		if !strings.Contains(lineWith(t, out, c.name+" "), "FAIL") {
			t.Errorf("%s: its row does not fail\n%s", c.name, out)
		}
	}
	// A changed input changes what follows from it.
	for name, corrupt := range map[string]func(g *golden.Golden){
		"image": func(g *golden.Golden) { g.Image[1] += 0.1 },
		"label": func(g *golden.Golden) { g.Label[4] = 1 },
		"param": func(g *golden.Golden) { g.Params["head.bias"][2] += 0.1 },
	} {
		m, g := makeGolden()
		corrupt(g)
		if status, out, _ := run(t, context.Background(), m, "verify", "--golden", writeGolden(t, m, g)); status != 1 {
			t.Errorf("%s: exit %d\n%s", name, status, out)
		}
	}
}

// TestVerifySeesTheProgram breaks the model instead of the golden.
func TestVerifySeesTheProgram(t *testing.T) {
	for what, c := range map[string]struct {
		breakIt func(m *runtime.Model)
		want    string
	}{
		"learning rate": {func(m *runtime.Model) { m.Train.Optimizer.LR = 0.31 }, ": step1.param.head.weight, step1.param.head.bias, step2.loss,"},
		"schedule":      {func(m *runtime.Model) { m.Train.Schedule.Gamma = 0.6 }, ": step4.param.head.weight, step4.param.head.bias\n"},
		"gradient": {func(m *runtime.Model) {
			launch := &m.Programs[runtime.Grad][2]
			launch.Args[3] = runtime.Grads.At(0) // the bias gradient lands in the weight's
		}, ": grad.head.weight, grad.head.bias,"},
		"constant":  {func(m *runtime.Model) { m.ConstData = func() []float32 { return []float32{0.25} } }, ": logits, loss, grad"},
		"batch":     {func(m *runtime.Model) { m.Train.Accumulate = 1 }, "its batch of 5 is more than the model's 4"},
		"name":      {func(m *runtime.Model) { m.Params[1].Name = "head.b" }, "head.b"},
		"NaN":       {func(m *runtime.Model) { m.ConstData = func() []float32 { return []float32{float32(math.NaN())} } }, ": logits, loss"},
		"no update": {func(m *runtime.Model) { m.Programs[runtime.Update] = nil }, ": step1.param.head.weight"},
	} {
		m, g := makeGolden()
		file := writeGolden(t, m, g)
		c.breakIt(m)
		if status, out, stderr := run(t, context.Background(), m, "verify", "--golden", file); status != 1 || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit %d, want %q\n%s%s", what, status, c.want, out, stderr)
		}
	}
}

// TestVerifyDropout replays a golden computed with dropout on: micro-steps
// count from 0 at the start and again for the steps.
func TestVerifyDropout(t *testing.T) {
	m, g := makeGolden()
	s, err := runtime.NewSession(m, runtime.Options{Device: "cpu", Seed: 77})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, v := range g.Params {
		if err := s.SetParam(name, v); err != nil {
			t.Fatal(err)
		}
	}
	g.Dropout, g.Seed, g.Logits, g.Loss = true, 77, nil, nil
	label := []int32{0, 2, 1, 1, 0}
	if _, _, err := s.GradAll(g.Image, label, 5); err != nil {
		t.Fatal(err)
	}
	read := func(get func(string) ([]float32, error)) map[string]golden.Expected {
		all := map[string]golden.Expected{}
		for _, p := range m.Params {
			v, err := get(p.Name)
			if err != nil {
				t.Fatal(err)
			}
			all[p.Name] = golden.Expected{Whole: golden.Float64s(v)}
		}
		return all
	}
	g.Grads = read(s.GradOf)
	if err := s.Restart(77); err != nil {
		t.Fatal(err)
	}
	for k := range g.Steps {
		loss, _, err := s.Step(g.Image, label)
		if err != nil {
			t.Fatal(err)
		}
		g.Steps[k] = golden.Step{Loss: &loss, Params: read(s.Param)}
	}
	mustRun(t, m, "verify", "--golden", writeGolden(t, m, g))
	g.Seed = 78
	if status, out, stderr := run(t, context.Background(), m, "verify", "--golden", writeGolden(t, m, g)); status != 1 {
		t.Errorf("another seed: exit %d\n%s%s", status, out, stderr)
	}
	g.Dropout = false
	if status, _, _ := run(t, context.Background(), m, "verify", "--golden", writeGolden(t, m, g)); status != 1 {
		t.Error("dropout off passes")
	}
}
