package irtest

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/ir/interp"
)

// Random graphs are sound, read back from their text, and evaluate to numbers.
func TestRandomGraph(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := RandomGraph(t)
		if err := ir.Verify(g); err != nil {
			t.Fatalf("%v\n%v", err, g)
		}
		text := g.String()
		again, err := ir.Parse(text)
		if err != nil {
			t.Fatalf("%v\n%v", err, text)
		}
		if again.String() != text {
			t.Fatalf("text changed:\n%v\nto\n%v", text, again)
		}
		env := RandomEnv(t, g)
		outs, err := interp.Eval(g, env)
		if err != nil {
			t.Fatalf("%v\n%v", err, g)
		}
		same, err := interp.Eval(again, env)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range g.Outputs {
			got := outs[o.Name]
			if want := append([]int{env.N}, o.Value.Type.Sample()...); !slices.Equal(got.Shape, want) {
				t.Fatalf("%s has shape %v, wants %v", o.Name, got.Shape, want)
			}
			for _, x := range got.Data {
				if math.IsNaN(x) || math.IsInf(x, 0) {
					t.Fatalf("%s holds %v\n%v", o.Name, x, g)
				}
			}
			if !slices.Equal(got.Data, same[o.Name].Data) {
				t.Fatalf("%s: the graph that was read back gives another answer", o.Name)
			}
		}
	})
}

// What RandomGraph is for: it draws every op that layers are made of.
func TestRandomGraphVariety(t *testing.T) {
	missing := map[ir.Op]bool{}
	for _, op := range []ir.Op{
		ir.OpParam, ir.OpSinCos, ir.OpReshape, ir.OpSliceLast, ir.OpSliceFirst, ir.OpConcatFirst,
		ir.OpAdd, ir.OpMul, ir.OpScale, ir.OpGelu, ir.OpRelu, ir.OpSilu, ir.OpDropout, ir.OpDropPath,
		ir.OpLinear, ir.OpAttention, ir.OpLayerNorm, ir.OpCrossEntropy, ir.OpMixedCrossEntropy, ir.OpPatchify,
		ir.OpPrependToken, ir.OpSliceTokens, ir.OpTranspose, ir.OpSumTokens,
	} {
		missing[op] = true
	}
	for seed := range 500 {
		for _, n := range rapid.Custom(RandomGraph).Example(seed).Nodes {
			delete(missing, n.Op)
		}
	}
	for op := range missing {
		t.Errorf("500 random graphs hold no %s", op)
	}
}

func TestOpCases(t *testing.T) {
	covered := map[ir.Op]bool{}
	for _, c := range OpCases() {
		covered[c.Op] = true
		if err := ir.Verify(c.Graph); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		if !slices.ContainsFunc(c.Graph.Nodes, func(n *ir.Node) bool { return n.Op == c.Op }) {
			t.Errorf("%s: its graph has no %s", c.Name, c.Op)
		}
	}
	for _, op := range ir.Ops() {
		if op.Info().NoGrad == "" && !covered[op] {
			t.Errorf("%s has a gradient but no case", op)
		}
	}
}

// loss = Σ over samples and classes of a fixed function of one weight, whose
// gradient is known: CheckGradients accepts it and nothing else.
func TestCheckGradients(t *testing.T) {
	const forward = `graph f "f" forward {
  %0 = input {name="label", type=i32[2|]} : i32[2|]
  %1 = input {name="image", type=f32[2|1]} : f32[2|1]
  %2 = param {name="w", type=f32[1,1]} : f32[1,1]
  %3 = linear %1, %2 : f32[2|1]
  %4 = mul %3, %3 : f32[2|1]
  %5 = reshape %4 {shape=()} : f32[2|]
  return loss=%5
}
`
	// d(w²x²)/dw = 2·(w·x)·x.
	train := func(by string) string {
		return `graph t "f" train {
  %1 = input {name="image", type=f32[2|1]} : f32[2|1]
  %2 = param {name="w", type=f32[1,1]} : f32[1,1]
  %3 = linear %1, %2 : f32[2|1]
  %4 = scalar {name="inv_n"} : f32[]
  %5 = mul %3, %4 : f32[2|1]
  %6 = scale %5 {by=` + by + `} : f32[2|1]
  %7 = linear_dw %6, %1 : f32[1,1]
  return grad.w=%7
}
`
	}
	parse := func(text string) *ir.Graph {
		g, err := ir.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	f := parse(forward)
	env := NewEnv(f, 1, 2)
	if err := CheckGradients(f, parse(train("2.0")), env, 8); err != nil {
		t.Error(err)
	}
	if err := CheckGradients(f, parse(train("2.00001")), env, 8); err == nil {
		t.Error("a gradient that is wrong by 5e-6 passes")
	}
	if err := CheckGradients(f, f, env, 8); err == nil {
		t.Error("a graph without gradients passes")
	}
}

func TestNewEnv(t *testing.T) {
	g := rapid.Custom(RandomGraph).Example(3)
	a, b, c := NewEnv(g, 7, 1), NewEnv(g, 7, 1), NewEnv(g, 8, 1)
	for name, p := range a.Params {
		if !slices.Equal(p.Data, b.Params[name].Data) {
			t.Errorf("%s: the same seed gives another tensor", name)
		}
		if slices.Equal(p.Data, c.Params[name].Data) {
			t.Errorf("%s: another seed gives the same tensor", name)
		}
		if !slices.Equal(a.State(name, "state0").Data, b.State(name, "state0").Data) {
			t.Errorf("%s: the same seed gives another state", name)
		}
		for _, x := range append(p.Data, a.State(name, "state1").Data...) {
			if x != float64(float32(x)) {
				t.Fatalf("%s holds %v, no float32", name, x)
			}
		}
	}
}
