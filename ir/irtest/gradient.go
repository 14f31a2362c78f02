package irtest

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/ir/interp"
)

// CheckGradients compares the outputs grad.NAME of a training graph with
// finite differences of the forward graph's loss, Σ loss · inv_n, over every
// parameter of the forward graph. It takes one difference per element, or, for
// a tensor of more than perTensor elements, along perTensor random directions.
//
// Both graphs are evaluated by the interpreter, in float64, so the tolerance
// is tight: 1e-6 of the derivative, or 1e-9.
func CheckGradients(forward, train *ir.Graph, env interp.Env, perTensor int) error {
	outs, err := interp.Eval(train, env)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(env.Params)) {
		grad, ok := outs["grad."+name]
		if !ok {
			return fmt.Errorf("the training graph has no output grad.%s", name)
		}
		if !slices.Equal(grad.Shape, env.Params[name].Shape) {
			return fmt.Errorf("grad.%s has shape %v, its parameter %v", name, grad.Shape, env.Params[name].Shape)
		}
		for i, dir := range directions(len(grad.Data), perTensor, env.Seed) {
			want := 0.0
			for k, u := range dir {
				want += u * grad.Data[k]
			}
			if err := difference(forward, env, name, dir, want); err != nil {
				return fmt.Errorf("grad.%s, direction %d: %w", name, i, err)
			}
		}
	}
	return nil
}

// directions lists the unit vectors of n dimensions, or limit random ones of
// about that length.
func directions(n, limit int, seed uint64) [][]float64 {
	var dirs [][]float64
	if n <= limit {
		for k := range n {
			dir := make([]float64, n)
			dir[k] = 1
			dirs = append(dirs, dir)
		}
		return dirs
	}
	from := stream(seed, "direction", "")
	for range limit {
		dir := make([]float64, n)
		for k := range n {
			dir[k] = from.NormFloat64() / math.Sqrt(float64(n))
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

// difference compares a directional derivative with the five-point stencil
// (f(−2h) − 8f(−h) + 8f(h) − f(2h)) / 12h, whose error is of order h⁴. A step
// may cross the kink of a relu: then a smaller one does not.
func difference(g *ir.Graph, env interp.Env, name string, dir []float64, want float64) error {
	var got float64
	for _, h := range []float64{1e-3, 1e-4, 1e-5, 1e-6} {
		got = 0
		for _, p := range []struct{ at, weight float64 }{{-2, 1}, {-1, -8}, {1, 8}, {2, -1}} {
			loss, err := lossAt(g, env, name, dir, p.at*h)
			if err != nil {
				return err
			}
			got += p.weight * loss / (12 * h)
		}
		if math.Abs(got-want) <= max(1e-9, 1e-6*math.Abs(want)) {
			return nil
		}
	}
	return fmt.Errorf("derivative is %.12g, finite differences give %.12g", want, got)
}

// lossAt is the loss with one parameter moved along a direction.
func lossAt(g *ir.Graph, env interp.Env, name string, dir []float64, by float64) (float64, error) {
	p := env.Params[name]
	moved := interp.Tensor{Shape: p.Shape, Data: slices.Clone(p.Data)}
	for k, u := range dir {
		moved.Data[k] += by * u
	}
	env.Params = maps.Clone(env.Params)
	env.Params[name] = moved
	outs, err := interp.Eval(g, env)
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for _, l := range outs["loss"].Data {
		sum += l * env.Scalars["inv_n"]
	}
	return sum, nil
}
