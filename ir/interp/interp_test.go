package interp

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/vitgen/vitgen/ir"
)

// operand is an argument of the op under test.
type operand struct {
	t ir.Type
	x []float64
}

// vals lists numbers.
func vals(x ...float64) []float64 { return x }

// b is a batched operand: the first extent is the batch.
func b(x []float64, shape ...int) operand {
	return operand{ir.BatchOf(ir.F32, shape[0], shape[1:]...), x}
}

// u is an operand without batch.
func u(x []float64, shape ...int) operand { return operand{ir.Tensor(ir.F32, shape...), x} }

func classLabels(x ...float64) operand { return operand{ir.BatchOf(ir.I32, len(x)), x} }

// upTo is 1, 2, … n.
func upTo(n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = float64(i + 1)
	}
	return x
}

// apply evaluates one op with dropout on, seed 0, micro step 0.
func apply(op ir.Op, attrs ir.Attrs, args []operand) ([]Tensor, error) {
	g := ir.NewGraph("one", "one.yaml")
	env := Env{Inputs: map[string]Tensor{}, Params: map[string]Tensor{}, Dropout: true}
	var in []*ir.Value
	for i, a := range args {
		name, source, into := fmt.Sprint("a", i), ir.OpParam, env.Params
		if a.t.Batched {
			source, into = ir.OpInput, env.Inputs
		}
		into[name] = Tensor{a.t.Shape, a.x}
		in = append(in, g.MustAdd(source, ir.Pos{}, "", ir.A("name", name, "type", a.t)).Out())
	}
	n, err := g.Add(op, ir.Pos{}, "", attrs, in...)
	if err != nil {
		return nil, err
	}
	all, err := EvalValues(g, env)
	if err != nil {
		return nil, err
	}
	var out []Tensor
	for _, o := range n.Outs {
		if !slices.Equal(all[o].Shape, o.Type.Shape) {
			return nil, fmt.Errorf("result has shape %v, wants %v", all[o].Shape, o.Type.Shape)
		}
		out = append(out, all[o])
	}
	return out, nil
}

// site makes the attributes of a dropout that draws at counter 0, whose bits
// are known, and keeps a draw of c000 or more.
func site(rows, first int) ir.Attrs {
	return ir.A("p", 0.75, "site", 0, "rows", rows, "first_row", first)
}

func attn(heads int, causal bool, p float64, first, total int) ir.Attrs {
	return ir.A("heads", heads, "scale", 1.0, "causal", causal, "p", p, "site", 0, "q_first", first, "q_total", total)
}

var ln3 = math.Log(3)

// Results worked out by hand from each op's formula.
var cases = []struct {
	op    ir.Op
	attrs ir.Attrs
	args  []operand
	want  [][]float64
}{
	{ir.OpConst, ir.A("value", 2.5, "type", ir.Tensor(ir.F32, 2)), nil, [][]float64{vals(2.5, 2.5)}},
	{ir.OpSinCos, ir.A("type", ir.Tensor(ir.F32, 2, 4)), nil,
		[][]float64{vals(0, 1, 0, 1, math.Sin(1), math.Cos(1), math.Sin(0.01), math.Cos(0.01))}},
	{ir.OpSinCos, ir.A("type", ir.Tensor(ir.F32, 3, 1)), nil, [][]float64{vals(0, math.Sin(1), math.Sin(2))}},

	{ir.OpReshape, ir.A("shape", []int{3, 2}), []operand{b(upTo(6), 1, 2, 3)}, [][]float64{upTo(6)}},
	{ir.OpSliceLast, ir.A("from", 1, "to", 3), []operand{b(upTo(6), 2, 3)}, [][]float64{vals(2, 3, 5, 6)}},
	{ir.OpConcatLast, nil, []operand{b(upTo(4), 2, 2), b(vals(9, 8), 2, 1)}, [][]float64{vals(1, 2, 9, 3, 4, 8)}},
	{ir.OpSliceFirst, ir.A("from", 1, "to", 2), []operand{u(upTo(6), 3, 2)}, [][]float64{vals(3, 4)}},
	{ir.OpConcatFirst, nil, []operand{u(vals(9, 8), 1, 2), u(upTo(4), 2, 2)}, [][]float64{vals(9, 8, 1, 2, 3, 4)}},

	{ir.OpAdd, nil, []operand{b(upTo(4), 2, 2), u(vals(10, 20), 2)}, [][]float64{vals(11, 22, 13, 24)}},
	{ir.OpAdd, nil, []operand{b(upTo(4), 2, 2), b(vals(5, 6, 7, 8), 2, 2)}, [][]float64{vals(6, 8, 10, 12)}},
	{ir.OpMul, nil, []operand{b(upTo(4), 1, 2, 2), u(vals(3))}, [][]float64{vals(3, 6, 9, 12)}},
	{ir.OpMul, nil, []operand{b(upTo(8), 2, 2, 2), u(upTo(4), 2, 2)}, [][]float64{vals(1, 4, 9, 16, 5, 12, 21, 32)}},
	{ir.OpScale, ir.A("by", -2.0), []operand{u(vals(1, -3), 2)}, [][]float64{vals(-2, 6)}},
	// Φ(1) and Φ(−2) from a table of the normal distribution.
	{ir.OpGelu, ir.A("tanh", false), []operand{u(vals(0, 1, -2), 3)},
		[][]float64{vals(0, 0.841344746068543, -2*0.0227501319481792)}},
	{ir.OpGelu, ir.A("tanh", true), []operand{u(vals(0, 1, -2), 3)},
		[][]float64{vals(0, 0.841191990608277, -0.0454023059122249)}},
	{ir.OpGeluSlope, ir.A("tanh", false), []operand{u(vals(0, 1), 2)},
		[][]float64{vals(0.5, 0.841344746068543+0.241970724519143)}},
	{ir.OpGeluSlope, ir.A("tanh", true), []operand{u(vals(0, 1), 2)},
		[][]float64{vals(0.5, 1.08296408384578)}},
	{ir.OpRelu, nil, []operand{u(vals(-1, 0, 2), 3)}, [][]float64{vals(0, 0, 2)}},
	{ir.OpReluGrad, nil, []operand{u(vals(5, 6, 7), 3), u(vals(-1, 0, 2), 3)}, [][]float64{vals(0, 0, 7)}},
	{ir.OpSilu, nil, []operand{u(vals(ln3, -ln3), 2)}, [][]float64{vals(0.75*ln3, -0.25*ln3)}}, // σ(log 3) = 3/4
	{ir.OpSiluGrad, nil, []operand{u(vals(2, 1), 2), u(vals(ln3, 0), 2)}, [][]float64{vals(1.5*(1+ln3/4), 0.5)}},
	{ir.OpDropout, site(2, 0), []operand{b(vals(5), 1, 1, 1)}, [][]float64{vals(20)}},    // index 0 draws e8d5
	{ir.OpDropout, site(113, 112), []operand{b(vals(5), 1, 1, 1)}, [][]float64{vals(0)}}, // index 112 draws 9b00
	{ir.OpDropout, site(113, 96), []operand{b(vals(5), 1, 1, 1)}, [][]float64{vals(20)}}, // index 96 draws dbd8
	{ir.OpRepeatTokens, ir.A("tokens", 2), []operand{b(upTo(4), 2, 2)}, [][]float64{vals(1, 2, 1, 2, 3, 4, 3, 4)}},
	{ir.OpPadTokens, ir.A("before", 1, "after", 2), []operand{b(vals(5, 6), 2, 1, 1)},
		[][]float64{vals(0, 5, 0, 0, 0, 6, 0, 0)}},
	{ir.OpBroadcastBatch, ir.A("batch", 3), []operand{u(vals(7))}, [][]float64{vals(7, 7, 7)}},

	{ir.OpLinear, nil, []operand{b(vals(1, 2, 3, 4), 1, 2, 2), u(vals(1, 0, 0, 1, 1, 1), 3, 2)},
		[][]float64{vals(1, 2, 3, 3, 4, 7)}},
	{ir.OpLinearDX, nil, []operand{b(upTo(3), 1, 3), u(vals(1, 0, 0, 1, 1, 1), 3, 2)}, [][]float64{vals(4, 5)}},
	{ir.OpLinearDW, nil, []operand{b(vals(1, 0, 2, 1), 2, 2), b(vals(3, 4, 5, 6), 2, 2)},
		[][]float64{vals(13, 16, 5, 6)}},
	// Two heads: the first has w's first row, the second the second.
	{ir.OpHeadLinear, ir.A("heads", 2), []operand{b(upTo(4), 1, 4), u(vals(1, 1, 2, 3), 2, 2)}, [][]float64{vals(3, 18)}},
	{ir.OpHeadLinear, ir.A("heads", 1), []operand{b(vals(1, 2), 1, 2), u(vals(1, 1, 2, 3), 2, 2)}, [][]float64{vals(3, 8)}},
	{ir.OpHeadLinearT, ir.A("heads", 2), []operand{b(vals(5, 7), 1, 2), u(vals(1, 1, 2, 3), 2, 2)}, [][]float64{vals(5, 5, 14, 21)}},
	{ir.OpHeadLinearT, ir.A("heads", 1), []operand{b(vals(5, 7), 1, 2), u(vals(1, 1, 2, 3), 2, 2)}, [][]float64{vals(19, 26)}},
	{ir.OpHeadLinearDW, ir.A("heads", 2), []operand{b(vals(1, 2, 3, 4), 2, 2), b(vals(1, 0, 0, 1, 2, 2, 3, 3), 2, 4)},
		[][]float64{vals(7, 6, 12, 14)}},

	// One head of one feature: scores 0 and log 3, so weights 1/4 and 3/4.
	{ir.OpAttention, attn(1, false, 0, 0, 1), []operand{b(vals(1), 1, 1, 1), b(vals(0, ln3), 1, 2, 1), b(vals(4, 8), 1, 2, 1)},
		[][]float64{vals(7), vals(math.Log(4))}},
	// Two heads; causal: the first query sees one key.
	{ir.OpAttention, attn(2, true, 0, 0, 2),
		[]operand{b(vals(1, 1, 1, 0), 1, 2, 2), b(vals(0, 0, ln3, 0), 1, 2, 2), b(vals(4, 1, 8, 3), 1, 2, 2)},
		[][]float64{vals(4, 1, 7, 2), vals(0, math.Log(4), 0, math.Log(2))}},
	// The last query row alone, causal: it sees both keys.
	{ir.OpAttention, attn(1, true, 0, 1, 2), []operand{b(vals(1), 1, 1, 1), b(vals(0, ln3), 1, 2, 1), b(vals(4, 8), 1, 2, 1)},
		[][]float64{vals(7), vals(math.Log(4))}},
	// Dropout of the weight at index 0 (kept, times 4) and 16 (dropped).
	{ir.OpAttention, attn(1, false, 0.75, 0, 17), []operand{b(vals(1), 1, 1, 1), b(vals(2), 1, 1, 1), b(vals(3), 1, 1, 1)},
		[][]float64{vals(12), vals(2)}},
	{ir.OpAttention, attn(1, false, 0.75, 16, 17), []operand{b(vals(1), 1, 1, 1), b(vals(2), 1, 1, 1), b(vals(3), 1, 1, 1)},
		[][]float64{vals(0), vals(2)}},
	// ds = p∘(dp − 7·do) = ∓3/4.
	{ir.OpAttentionGrad, attn(1, false, 0, 0, 1),
		[]operand{b(vals(1), 1, 1, 1), b(vals(2), 1, 1, 1), b(vals(0, ln3/2), 1, 2, 1), b(vals(4, 8), 1, 2, 1),
			b(vals(7), 1, 1, 1), b(vals(math.Log(4)), 1, 1, 1)},
		[][]float64{vals(0.375 * ln3), vals(-1.5, 1.5), vals(0.25, 0.75)}},
	// A single key: its weight is 1, so only v has a gradient; kept times 4, or dropped.
	{ir.OpAttentionGrad, attn(1, true, 0.75, 0, 17),
		[]operand{b(vals(5), 1, 1, 1), b(vals(1), 1, 1, 1), b(vals(2), 1, 1, 1), b(vals(3), 1, 1, 1), b(vals(12), 1, 1, 1), b(vals(2), 1, 1, 1)},
		[][]float64{vals(0), vals(0), vals(20)}},
	{ir.OpAttentionGrad, attn(1, true, 0.75, 16, 17),
		[]operand{b(vals(5), 1, 1, 1), b(vals(1), 1, 1, 1), b(vals(2), 1, 1, 1), b(vals(3), 1, 1, 1), b(vals(0), 1, 1, 1), b(vals(2), 1, 1, 1)},
		[][]float64{vals(0), vals(0), vals(0)}},
	// Two heads of the width of x, 0 and log 3: weights 1/4 and 3/4, and 3/4 and 1/4.
	{ir.OpLatentAttention, attn(2, false, 0, 0, 1).With("sums", false), []operand{b(vals(1, -1), 1, 1, 2), b(vals(0, ln3), 1, 2, 1)},
		[][]float64{vals(0.75*ln3, 0.25*ln3), vals(math.Log(4), math.Log(4.0/3))}},
	{ir.OpLatentAttention, attn(1, true, 0.75, 0, 17).With("sums", true), []operand{b(vals(1), 1, 1, 1), b(vals(2, 5), 1, 2, 1)},
		[][]float64{vals(8, 4), vals(2)}},
	// Scores 0 and log 3 again, with dsum = 8 for a sum that is 1: it changes nothing.
	{ir.OpLatentAttentionGrad, attn(1, false, 0, 0, 1).With("sums", true),
		[]operand{b(vals(1, 8), 1, 1, 2), b(vals(1), 1, 1, 1), b(vals(0, ln3), 1, 2, 1), b(vals(0.75*ln3, 1), 1, 1, 2), b(vals(math.Log(4)), 1, 1, 1)},
		[][]float64{vals(3 * ln3 * ln3 / 16), vals(0.25-3*ln3/16, 0.75+3*ln3/16)}},
	// The same weights: o = log 3 · 3/4 and 1/4, do = 1 and 2. ds = p∘(do·x − do·o) is
	// ∓3/16·log 3 and ∓3/8·log 3; dx = Σ p·do + ds·q.
	{ir.OpLatentAttentionGrad, attn(2, false, 0, 0, 1).With("sums", false),
		[]operand{b(vals(1, 2), 1, 1, 2), b(vals(1, -1), 1, 1, 2), b(vals(0, ln3), 1, 2, 1), b(vals(0.75*ln3, 0.25*ln3), 1, 1, 2),
			b(vals(math.Log(4), math.Log(4.0/3)), 1, 2, 1)},
		[][]float64{vals(3*ln3*ln3/16, 3*ln3*ln3/8), vals(1.75+3*ln3/16, 1.25-3*ln3/16)}},

	// Mean 2, variance 1; with eps 3 the deviation is 2.
	{ir.OpLayerNorm, ir.A("eps", 3.0), []operand{b(vals(1, 3), 1, 2), u(vals(2, 3), 2), u(vals(10, 20), 2)},
		[][]float64{vals(9, 21.5), vals(2), vals(0.5)}},
	// Over tokens and features together.
	{ir.OpLayerNorm, ir.A("eps", 3.0), []operand{b(vals(1, 3, 1, 3), 1, 2, 2), u(upTo(4), 2, 2), u(vals(0, 0, 0, 1), 2, 2)},
		[][]float64{vals(-0.5, 1, -1.5, 3), vals(2), vals(0.5)}},
	// x̂ = ∓1/2, g = 2, 6, mean(g) = 4, mean(g·x̂) = 1.
	{ir.OpLayerNormGrad, nil,
		[]operand{b(vals(1, 2), 1, 2), b(vals(1, 3), 1, 2), u(vals(2, 3), 2), b(vals(2), 1), b(vals(0.5), 1)},
		[][]float64{vals(-0.75, 0.75), vals(-0.5, 1), vals(1, 2)}},
	// Softmax 1/4, 3/4; a row without a sample; a tie, where the first wins; a label that is no class.
	{ir.OpCrossEntropy, ir.A("smoothing", 0.0),
		[]operand{b(vals(0, ln3, 5, 6, 1, 1, 1, 1, 0, 0), 5, 2), classLabels(1, -1, 1, 0, 2)},
		[][]float64{vals(math.Log(4.0/3), 0, math.Log(2), math.Log(2), math.NaN()), vals(1, 0, 0, 1, 0)}},
	{ir.OpCrossEntropy, ir.A("smoothing", 0.5), []operand{b(vals(0, ln3), 1, 2), classLabels(0)},
		[][]float64{vals(0.75*math.Log(4) + 0.25*math.Log(4.0/3)), vals(0)}},
	{ir.OpCrossEntropyGrad, ir.A("smoothing", 0.0),
		[]operand{b(vals(0, ln3, 5, 6, 0, 0), 3, 2), classLabels(1, -1, 2), b(vals(2, 5, 1), 3)},
		[][]float64{vals(0.5, -0.5, 0, 0, math.NaN(), math.NaN())}},
	{ir.OpCrossEntropyGrad, ir.A("smoothing", 0.5), []operand{b(vals(0, ln3), 1, 2), classLabels(0), b(vals(2), 1)},
		[][]float64{vals(-1, 1)}},

	// A half of each label; three quarters of the second; a row without a sample; a
	// second label that does not count, and one that does but is no class.
	{ir.OpMixedCrossEntropy, ir.A("smoothing", 0.0),
		[]operand{b(vals(0, ln3, 0, ln3, 5, 6, 0, ln3, 0, 0), 5, 2), classLabels(1, 1, -1, 1, 0), classLabels(0, 0, -1, -1, -1), b(vals(0.5, 0.25, 0.5, 1, 0.5), 5)},
		[][]float64{vals(math.Log(4)-ln3/2, math.Log(4)-ln3/4, 0, math.Log(4.0/3), math.NaN()), vals(1, 1, 0, 1, 1)}},
	{ir.OpMixedCrossEntropy, ir.A("smoothing", 0.5),
		[]operand{b(vals(0, ln3), 1, 2), classLabels(0), classLabels(1), b(vals(0.5), 1)},
		[][]float64{vals(math.Log(4) - ln3/2), vals(0)}},
	{ir.OpMixedCrossEntropyGrad, ir.A("smoothing", 0.0),
		[]operand{b(vals(0, ln3, 5, 6, 0, ln3, 0, 0), 4, 2), classLabels(1, -1, 1, 0), classLabels(0, 0, -1, 2), b(vals(0.5, 0.5, 1, 0.5), 4), b(vals(4, 5, 2, 1), 4)},
		[][]float64{vals(-1, 1, 0, 0, 0.5, -0.5, math.NaN(), math.NaN())}},
	{ir.OpMixedCrossEntropyGrad, ir.A("smoothing", 0.5),
		[]operand{b(vals(0, ln3), 1, 2), classLabels(0), classLabels(1), b(vals(0.75), 1), b(vals(4), 1)},
		[][]float64{vals(1-4*0.625, 3-4*0.375)}},

	{ir.OpPatchify, ir.A("patch", 2), []operand{b(upTo(8), 1, 1, 2, 4)}, [][]float64{vals(1, 2, 5, 6, 3, 4, 7, 8)}},
	{ir.OpPatchify, ir.A("patch", 1), []operand{b(upTo(4), 1, 2, 2, 1)}, [][]float64{vals(1, 3, 2, 4)}},
	{ir.OpPrependToken, nil, []operand{b(upTo(4), 2, 1, 2), u(vals(9, 8), 2)}, [][]float64{vals(9, 8, 1, 2, 9, 8, 3, 4)}},
	{ir.OpSliceTokens, ir.A("from", 1, "to", 3), []operand{b(upTo(6), 2, 3, 1)}, [][]float64{vals(2, 3, 5, 6)}},
	{ir.OpTranspose, nil, []operand{b(upTo(12), 2, 2, 3)}, [][]float64{vals(1, 4, 2, 5, 3, 6, 7, 10, 8, 11, 9, 12)}},

	{ir.OpSumTokens, nil, []operand{b(upTo(8), 2, 2, 2)}, [][]float64{vals(4, 6, 12, 14)}},
	{ir.OpSumLeading, ir.A("shape", []int{2}), []operand{b(upTo(8), 2, 2, 2)}, [][]float64{vals(16, 20)}},
	{ir.OpSumLeading, ir.A("shape", []int{2, 2}), []operand{b(upTo(8), 2, 2, 2)}, [][]float64{vals(6, 8, 10, 12)}},
	{ir.OpSumBatch, nil, []operand{b(vals(1, 2, 4), 3)}, [][]float64{vals(7)}},
	{ir.OpSumSquares, nil, []operand{u(vals(1, 2), 2), u(vals(3), 1)}, [][]float64{vals(14)}},
	{ir.OpClipScale, ir.A("norm", 2.0), []operand{u(vals(25))}, [][]float64{vals(0.4)}},
	{ir.OpClipScale, ir.A("norm", 2.0), []operand{u(vals(4))}, [][]float64{vals(1)}},

	{ir.OpSGD, ir.A("weight_decay", 0.1), []operand{u(vals(1), 1), u(vals(2), 1), u(vals(0.5))}, [][]float64{vals(-0.05)}},
	{ir.OpSGDMomentum, ir.A("weight_decay", 0.1, "momentum", 0.5, "nesterov", false),
		[]operand{u(vals(1), 1), u(vals(2), 1), u(vals(3), 1), u(vals(0.5))}, [][]float64{vals(-0.8), vals(3.6)}},
	{ir.OpSGDMomentum, ir.A("weight_decay", 0.1, "momentum", 0.5, "nesterov", true),
		[]operand{u(vals(1), 1), u(vals(2), 1), u(vals(3), 1), u(vals(0.5))}, [][]float64{vals(-0.95), vals(3.6)}},
	{ir.OpAdamW, ir.A("weight_decay", 0.1, "beta1", 0.5, "beta2", 0.75, "eps", 1.0),
		[]operand{u(vals(1), 1), u(vals(2), 1), u(vals(3), 1), u(vals(4), 1), u(vals(0.1)), u(vals(2)), u(vals(4))},
		[][]float64{vals(0.99 - 0.1*5/(4+1)), vals(2.5), vals(4)}},
	{ir.OpEMA, nil, []operand{u(vals(1, -2), 2), u(vals(5, 2), 2), u(vals(0.25))}, [][]float64{vals(2, -1)}},
}

func TestOps(t *testing.T) {
	for i, c := range cases {
		t.Run(fmt.Sprint(i, " ", c.op), func(t *testing.T) {
			got, err := apply(c.op, c.attrs, c.args)
			if err != nil {
				t.Fatal(err)
			}
			for k, want := range c.want {
				if !close(got[k].Data, want) {
					t.Errorf("result %s is %v, want %v", c.op.Info().Results[k], got[k].Data, want)
				}
			}
		})
	}
}

// close compares to 1e-14, relative or absolute; NaN equals NaN.
func close(got, want []float64) bool {
	return slices.EqualFunc(got, want, func(x, y float64) bool {
		return math.IsNaN(x) && math.IsNaN(y) || math.Abs(x-y) <= 1e-14*max(1, math.Abs(y))
	})
}

// Every op has a function, and a result worked out by hand in this package.
func TestEveryOp(t *testing.T) {
	elsewhere := map[ir.Op]string{
		ir.OpInput: "TestSources", ir.OpParam: "TestSources", ir.OpState: "TestSources", ir.OpScalar: "TestSources",
		ir.OpDropPath: "TestDropPath",
	}
	if len(functions) != len(ir.Ops()) {
		t.Errorf("%d functions for %d ops", len(functions), len(ir.Ops()))
	}
	for _, op := range ir.Ops() {
		if functions[op] == nil {
			t.Errorf("%s has no function", op)
		}
		tested := elsewhere[op] != ""
		for _, c := range cases {
			tested = tested || c.op == op
			if c.op == op && len(c.want) != len(op.Info().Results) {
				t.Errorf("a case of %s wants %d of %d results", op, len(c.want), len(op.Info().Results))
			}
		}
		if !tested {
			t.Errorf("%s has no case", op)
		}
	}
}
