package e2e

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/ir/interp"
	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/golden"
	"github.com/vitgen/vitgen/spec"
)

// inputs are what a golden starts from.
type inputs struct {
	image  []float32 // [n, C, H, W]
	label  []int64   // [n]
	params map[string][]float32

	// For specs that mix samples: the other label, and the weight of the first.
	// Nil: the first alone.
	label2 []int64   // [n]
	mix    []float32 // [n]
}

// randomInputs draws n samples and all parameters, of the size that layers
// expect: products keep about the variance of what they are given.
func randomInputs(s *spec.Spec, n int, rng *rand.Rand) inputs {
	normal := func(n int, mean, deviation float64) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(mean + deviation*rng.NormFloat64())
		}
		return v
	}
	in := inputs{image: normal(n*s.Input.Shape().Elems(), 0, 1), params: map[string][]float32{}}
	for range n {
		in.label = append(in.label, rng.Int64N(int64(s.Input.Classes)))
	}
	for _, p := range s.Params() {
		mean, deviation := 0.0, 0.3
		switch p.Role {
		case spec.RoleWeight:
			deviation = 1 / math.Sqrt(float64(p.Elems()/p.Shape[0]))
		case spec.RoleNorm, spec.RoleScale:
			mean = 0.7
		}
		in.params[p.Name] = normal(p.Elems(), mean, deviation)
	}
	return in
}

// reference trains a spec in the interpreter, on the graphs that are the least
// worked on: gradients are added, and nothing is optimized, pruned or fused.
type reference struct {
	spec     *spec.Spec
	programs *passes.Programs
	in       inputs
	env      interp.Env
	slots    map[string]map[string]interp.Tensor // grad, state0, state1, average by parameter
}

func newReference(t testing.TB, s *spec.Spec, in inputs) *reference {
	t.Helper()
	o := passes.Options{StopAfter: "precision"}
	for _, p := range passes.Passes() {
		if p.Optional {
			o.Disable = append(o.Disable, p.Name)
		}
	}
	programs, err := passes.Compile(s, o)
	if err != nil {
		t.Fatal(err)
	}
	r := &reference{spec: s, programs: programs, in: in}
	r.env.Scalars = map[string]float64{}
	r.env.State = func(name, slot string) interp.Tensor { return r.slots[slot][name] }
	return r
}

// restart goes back to the start of training.
func (r *reference) restart(dropout bool, seed uint64) {
	r.env.Dropout, r.env.Seed, r.env.MicroStep = dropout, seed, 0
	r.env.Params = map[string]interp.Tensor{}
	r.slots = map[string]map[string]interp.Tensor{"grad": {}, "state0": {}, "state1": {}, "average": {}}
	for _, p := range r.spec.Params() {
		r.env.Params[p.Name] = interp.Tensor{Shape: p.Shape, Data: golden.Float64s(r.in.params[p.Name])}
		for _, slot := range r.slots {
			slot[p.Name] = interp.New(p.Shape...)
		}
		r.slots["average"][p.Name] = r.env.Params[p.Name]
	}
}

// give selects samples lo … hi-1.
func (r *reference) give(lo, hi int) {
	in, e := r.spec.Input, r.spec.Input.Shape().Elems()
	image := interp.Tensor{
		Shape: []int{hi - lo, in.Channels, in.Height, in.Width},
		Data:  golden.Float64s(r.in.image[lo*e : hi*e]),
	}
	label, label2, mix := interp.New(hi-lo), interp.New(hi-lo), interp.New(hi-lo)
	for i := range label.Data {
		label.Data[i], mix.Data[i] = float64(r.in.label[lo+i]), 1
		if r.in.mix != nil {
			label2.Data[i], mix.Data[i] = float64(r.in.label2[lo+i]), float64(r.in.mix[lo+i])
		}
	}
	r.env.N = hi - lo
	r.env.Inputs = map[string]interp.Tensor{"image": image, "label": label, "label2": label2, "mix": mix}
	r.env.Scalars["inv_n"] = 1 / float64(len(r.in.label))
}

func (r *reference) eval(t testing.TB, g *ir.Graph) map[string]interp.Tensor {
	t.Helper()
	outs, err := interp.Eval(g, r.env)
	if err != nil {
		t.Fatal(err)
	}
	return outs
}

// grad runs the whole batch forward and backward, in micro-batches, and leaves
// the gradients in their slot.
func (r *reference) grad(t testing.TB) (logits []float64, loss float64) {
	t.Helper()
	n := len(r.in.label)
	for name, g := range r.slots["grad"] {
		r.slots["grad"][name] = interp.New(g.Shape...)
	}
	for lo := 0; lo < n; lo += r.spec.Train.Batch {
		r.give(lo, min(lo+r.spec.Train.Batch, n))
		outs := r.eval(t, r.programs.Grad)
		logits = append(logits, outs["logits"].Data...)
		for _, l := range outs["loss"].Data {
			loss += l / float64(n)
		}
		for _, p := range r.spec.Params() {
			r.slots["grad"][p.Name] = outs["grad."+p.Name]
		}
		r.env.MicroStep++
	}
	return logits, loss
}

// update makes update k from the gradients.
func (r *reference) update(t testing.TB, k int) {
	t.Helper()
	o, sched := r.spec.Train.Optimizer, r.spec.Train.Schedule
	train := runtime.Train{Optimizer: runtime.Optimizer{LR: o.LR}, Schedule: runtime.Schedule{
		Kind: sched.Kind, WarmupSteps: sched.WarmupSteps, TotalSteps: sched.TotalSteps, FinalLR: sched.FinalLR,
		Every: sched.Every, EveryUnit: sched.EveryUnit, Gamma: sched.Gamma}}
	lr, err := train.LR(k, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	r.env.Scalars["lr"] = lr
	r.env.Scalars["bias_corr1"] = 1 / (1 - math.Pow(o.Beta1, float64(k)))
	r.env.Scalars["bias_corr2"] = 1 / (1 - math.Pow(o.Beta2, float64(k)))
	decay := r.spec.Train.EMA.Decay
	if r.spec.Train.EMA.Warmup {
		decay = math.Min(decay, float64(1+k)/float64(10+k))
	}
	r.env.Scalars["ema_weight"] = 1 - decay
	outs := r.eval(t, r.programs.Update)
	for _, p := range r.spec.Params() {
		r.env.Params[p.Name] = outs["param."+p.Name]
		for _, slot := range []string{"state0", "state1", "average"} {
			if v, ok := outs[slot+"."+p.Name]; ok {
				r.slots[slot][p.Name] = v
			}
		}
	}
}

// golden computes everything a golden file can hold: what Forward gives, or
// training with dropout on, and the given number of steps.
func (r *reference) golden(t testing.TB, steps int, dropout bool, seed uint64) *golden.Golden {
	t.Helper()
	n := len(r.in.label)
	g := &golden.Golden{Batch: n, Image: r.in.image, Label: r.in.label, Params: r.in.params, Dropout: dropout, Seed: seed}
	r.restart(dropout, seed)
	logits, loss := r.grad(t)
	g.Logits, g.Loss, g.Grads = logits, &loss, r.whole(r.slots["grad"])
	r.restart(dropout, seed)
	for k := 1; k <= steps; k++ {
		_, loss := r.grad(t)
		r.update(t, k)
		g.Steps = append(g.Steps, golden.Step{Loss: &loss, Params: r.whole(r.env.Params)})
	}
	g.Tolerances = lossTolerances(g)
	return g
}

// lossTolerances are relative for losses near 1, absolute for those near 0: a
// loss is the difference of numbers as large as the logits, and keeps their
// rounding when they cancel.
func lossTolerances(g *golden.Golden) map[string]float64 {
	const absolute = golden.ForwardTolerance / 10
	tolerance := func(loss float64) float64 { return min(1, max(golden.ForwardTolerance, absolute/loss)) }
	all := map[string]float64{"loss": tolerance(*g.Loss)}
	for i, s := range g.Steps {
		all[fmt.Sprintf("step%d.loss", i+1)] = tolerance(*s.Loss)
	}
	return all
}

// zeroGradient is below what a float64 sum of terms near 1 is rounded to. A
// gradient that is zero in exact arithmetic, such as that of a key bias, is
// compared as zero: relative to noise, float32 would be off by any factor.
const zeroGradient = 1e-13

// whole takes tensors over as references.
func (r *reference) whole(of map[string]interp.Tensor) map[string]golden.Expected {
	out := map[string]golden.Expected{}
	for name, v := range of {
		data := append([]float64{}, v.Data...)
		largest := 0.0
		for _, x := range data {
			largest = max(largest, math.Abs(x))
		}
		if largest < zeroGradient {
			clear(data)
		}
		out[name] = golden.Expected{Whole: data}
	}
	return out
}

// writeGolden saves a golden for a spec in a folder of the test's.
func writeGolden(t testing.TB, s *spec.Spec, g *golden.Golden) string {
	t.Helper()
	m := golden.Model{Image: [3]int{s.Input.Channels, s.Input.Height, s.Input.Width}, Classes: s.Input.Classes}
	for _, p := range s.Params() {
		m.Params = append(m.Params, golden.ParamInfo{Name: p.Name, Shape: p.Shape})
	}
	path := filepath.Join(t.TempDir(), "made.safetensors")
	if err := golden.Write(path, g, m); err != nil {
		t.Fatal(err)
	}
	return path
}
