package irtest

import (
	"hash/fnv"
	"math"
	"math/rand/v2"

	"pgregory.net/rapid"

	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/ir/interp"
)

// RandomEnv draws an environment for a graph and for whatever passes make of
// it: inputs, parameters, state and scalars, a whole or partial batch, dropout
// on or off.
func RandomEnv(t *rapid.T, g *ir.Graph) interp.Env {
	n := rapid.IntRange(1, Batch(g)).Draw(t, "samples")
	env := NewEnv(g, rapid.Uint64().Draw(t, "seed"), n)
	env.Dropout = rapid.Bool().Draw(t, "dropout on")
	env.MicroStep = rapid.Uint32().Draw(t, "micro step")
	return env
}

// Batch is the full batch of a graph, 1 if nothing in it is batched.
func Batch(g *ir.Graph) int {
	for _, n := range g.Nodes {
		for _, o := range n.Outs {
			if o.Type.Batched {
				return o.Type.Shape[0]
			}
		}
	}
	return 1
}

// NewEnv makes the environment of a graph for n samples from a seed, dropout
// off. Every tensor depends on its own name and the seed only, so two graphs
// over the same parameters see the same ones. All numbers are float32 values,
// so that a kernel can be given the very same.
//
// Labels are classes of the graph's loss, or -1 once in a while. Where two labels
// share a sample, the second is always a class.
func NewEnv(g *ir.Graph, seed uint64, n int) interp.Env {
	env := interp.Env{
		Inputs: map[string]interp.Tensor{},
		Params: map[string]interp.Tensor{},
		Scalars: map[string]float64{
			"lr": single(0.05), "inv_n": single(1 / float64(n)),
			"bias_corr1": single(1 / (1 - 0.9*0.9)), "bias_corr2": single(1 / (1 - 0.999*0.999)),
			"ema_weight": single(0.1),
		},
		Seed: seed,
		N:    n,
	}
	shapes := map[string][]int{}
	for _, node := range g.Nodes {
		switch node.Op {
		case ir.OpParam:
			name, s := node.Str("name"), node.Out().Type.Shape
			shapes[name] = s
			env.Params[name] = normal(s, stream(seed, "param", name), 0.6)
		case ir.OpState:
			shapes[node.Str("name")] = node.Out().Type.Shape
		case ir.OpInput:
			name, t := node.Str("name"), node.Out().Type
			s := append([]int{n}, t.Sample()...)
			switch {
			case t.DType == ir.I32:
				env.Inputs[name] = labels(s, stream(seed, "input", name), classes(g), name == "label")
			case name == "mix":
				env.Inputs[name] = shares(s, stream(seed, "input", name))
			default:
				env.Inputs[name] = normal(s, stream(seed, "input", name), 1)
			}
		}
	}
	env.State = func(name, slot string) interp.Tensor {
		t := normal(shapes[name], stream(seed, slot, name), 0.1)
		if slot == "state1" { // a second moment
			for i, x := range t.Data {
				t.Data[i] = single(x * x)
			}
		}
		return t
	}
	return env
}

// single rounds to float32.
func single(x float64) float64 { return float64(float32(x)) }

// stream makes a random stream of its own for every name.
func stream(seed uint64, kind, name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(kind + "\x00" + name))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

func normal(shape []int, from *rand.Rand, deviation float64) interp.Tensor {
	t := interp.New(shape...)
	for i := range t.Data {
		t.Data[i] = single(from.NormFloat64() * deviation)
	}
	return t
}

func labels(shape []int, from *rand.Rand, classes int, absent bool) interp.Tensor {
	t := interp.New(shape...)
	for i := range t.Data {
		t.Data[i] = float64(from.IntN(classes))
		if from.IntN(8) == 0 && absent {
			t.Data[i] = -1
		}
	}
	return t
}

// shares are numbers from 0 to 1, both of which they are now and then.
func shares(shape []int, from *rand.Rand) interp.Tensor {
	t := interp.New(shape...)
	for i := range t.Data {
		t.Data[i] = max(0, min(1, single(1.4*from.Float64()-0.2)))
	}
	return t
}

// classes is how many logits the graph's loss reads.
func classes(g *ir.Graph) int {
	for _, n := range g.Nodes {
		if n.Op == ir.OpCrossEntropy || n.Op == ir.OpMixedCrossEntropy {
			return n.Args[0].Type.Last()
		}
	}
	return 2
}

// Distance is how far two tensors are apart: ‖a − b‖ / max(‖b‖, floor).
// It is infinite if they differ in shape or hold a NaN.
func Distance(a, b interp.Tensor, floor float64) float64 {
	if len(a.Data) != len(b.Data) {
		return math.Inf(1)
	}
	diff, norm := 0.0, 0.0
	for i := range a.Data {
		diff += (a.Data[i] - b.Data[i]) * (a.Data[i] - b.Data[i])
		norm += b.Data[i] * b.Data[i]
	}
	d := math.Sqrt(diff) / max(math.Sqrt(norm), floor)
	if math.IsNaN(d) {
		return math.Inf(1)
	}
	return d
}
