// Package interp evaluates a graph in float64, one short function per op: it
// is the definition of what every op computes. It is no back end: it shares no
// code with the kernels it judges, and is written to be read, not to be fast.
package interp

import (
	"fmt"
	"slices"

	"github.com/vitgen/vitgen/ir"
)

// Tensor is a row-major array. Integer values, such as labels, are kept as
// float64 too. No function of this package writes to a tensor it was given.
type Tensor struct {
	Shape []int
	Data  []float64
}

// New makes a tensor of zeros.
func New(shape ...int) Tensor {
	return Tensor{slices.Clone(shape), make([]float64, ir.Product(shape))}
}

// Env is what a graph reads from outside.
type Env struct {
	Inputs  map[string]Tensor // by name, [N, …]: image and label, and what else the graph has
	Params  map[string]Tensor // by state_dict name, of the declared shape
	Scalars map[string]float64

	// State returns what is kept for a parameter in a slot: grad, state0, state1
	// or average. It may be nil if the graph reads no state.
	State func(name, slot string) Tensor

	// N is how many samples the micro-batch holds, at most the graph's batch;
	// 0 stands for a full one.
	N int

	// Dropout switches the dropout, drop_path and attention-dropout sites on.
	// They draw from the stream of Seed and MicroStep; see DropMultiplier.
	Dropout   bool
	Seed      uint64
	MicroStep uint32
}

// Eval evaluates the graph and returns its outputs by name. An error says what
// env lacks or has in another shape than the graph declares.
func Eval(g *ir.Graph, env Env) (map[string]Tensor, error) {
	outs := make(map[string]Tensor, len(g.Outputs))
	err := run(g, env, func(v *ir.Value, t Tensor) {
		for _, o := range g.Outputs {
			if o.Value == v {
				outs[o.Name] = t
			}
		}
	}, lastReads(g))
	if err != nil {
		return nil, err
	}
	return outs, nil
}

// EvalValues evaluates the graph and returns every value in it, for finding
// the first one that is wrong.
func EvalValues(g *ir.Graph, env Env) (map[*ir.Value]Tensor, error) {
	vals := make(map[*ir.Value]Tensor)
	if err := run(g, env, func(v *ir.Value, t Tensor) { vals[v] = t }, nil); err != nil {
		return nil, err
	}
	return vals, nil
}

// lastReads lists, by node, the values no later node reads, so that a graph of
// a real model fits in memory.
func lastReads(g *ir.Graph) map[*ir.Node][]*ir.Value {
	last := make(map[*ir.Value]*ir.Node)
	for _, n := range g.Nodes {
		for _, a := range n.Args {
			last[a] = n
		}
	}
	dead := make(map[*ir.Node][]*ir.Value)
	for v, n := range last {
		dead[n] = append(dead[n], v)
	}
	return dead
}

// run evaluates the nodes in order and shows every result to visit. Values in
// dead[n] are forgotten after node n.
func run(g *ir.Graph, env Env, visit func(*ir.Value, Tensor), dead map[*ir.Node][]*ir.Value) error {
	n, err := samples(g, env.N)
	if err != nil {
		return err
	}
	vals := make(map[*ir.Value]Tensor)
	read := reader(g)
	for _, node := range g.Nodes {
		c := &call{node: node, env: &env}
		for _, a := range node.Args {
			t, ok := vals[a]
			if !ok {
				panic(fmt.Sprintf("BUG: %s reads %v before it is defined", node.Op, a))
			}
			c.in = append(c.in, read(node, a, t))
		}
		for _, o := range node.Outs {
			c.out = append(c.out, New(shapeOf(o.Type, n)...))
		}
		eval := functions[node.Op]
		if eval == nil {
			panic(fmt.Sprintf("BUG: the interpreter has no function for %s", node.Op))
		}
		if eval(c); c.err != nil {
			return fmt.Errorf("%s: %w", g.Name, c.err)
		}
		for i, o := range node.Outs {
			vals[o] = c.out[i]
			visit(o, c.out[i])
		}
		for _, v := range dead[node] {
			delete(vals, v)
		}
	}
	return nil
}

// samples settles the run-time batch against the graph's.
func samples(g *ir.Graph, n int) (int, error) {
	batch := 0
	for _, node := range g.Nodes {
		for _, o := range node.Outs {
			if o.Type.Batched {
				batch = o.Type.Shape[0]
			}
		}
	}
	switch {
	case batch == 0 || n == 0:
		return batch, nil
	case n < 0 || n > batch:
		return 0, fmt.Errorf("%s: %d samples, want 1 to %d", g.Name, n, batch)
	}
	return n, nil
}

// shapeOf is a type's shape when the batch holds n samples.
func shapeOf(t ir.Type, n int) []int {
	s := slices.Clone(t.Shape)
	if t.Batched {
		s[0] = n
	}
	return s
}

// call is one application of an op: it reads in and fills out, whose tensors
// have their run-time shapes and are zero.
type call struct {
	node *ir.Node
	env  *Env
	in   []Tensor
	out  []Tensor
	err  error
}

func (c *call) fail(format string, args ...any) {
	c.err = fmt.Errorf("%s: "+format, append([]any{c.node.Op}, args...)...)
}

// rows sees a tensor as rows of the given length.
func (t Tensor) rows(length int) [][]float64 {
	return slices.Collect(slices.Chunk(t.Data, length))
}

// last is the extent of the last dimension.
func (t Tensor) last() int { return t.Shape[len(t.Shape)-1] }

// functions is the interpreter: what each op computes.
var functions = [...]func(*call){
	ir.OpInput:  input,
	ir.OpParam:  param,
	ir.OpState:  state,
	ir.OpScalar: scalar,
	ir.OpConst:  constant,
	ir.OpSinCos: sinCos,

	ir.OpReshape:     reshape,
	ir.OpSliceLast:   sliceLast,
	ir.OpConcatLast:  concatLast,
	ir.OpSliceFirst:  sliceFirst,
	ir.OpConcatFirst: concatFirst,

	ir.OpAdd:            add,
	ir.OpMul:            mul,
	ir.OpScale:          scale,
	ir.OpGelu:           gelu,
	ir.OpGeluSlope:      geluSlope,
	ir.OpRelu:           relu,
	ir.OpReluGrad:       reluGrad,
	ir.OpSilu:           silu,
	ir.OpSiluGrad:       siluGrad,
	ir.OpDropout:        dropout,
	ir.OpDropPath:       dropPath,
	ir.OpRepeatTokens:   repeatTokens,
	ir.OpPadTokens:      padTokens,
	ir.OpBroadcastBatch: broadcastBatch,

	ir.OpLinear:   linear,
	ir.OpLinearDX: linearDX,
	ir.OpLinearDW: linearDW,

	ir.OpHeadLinear:   headLinear,
	ir.OpHeadLinearT:  headLinearT,
	ir.OpHeadLinearDW: headLinearDW,

	ir.OpAttention:     attention,
	ir.OpAttentionGrad: attentionGrad,

	ir.OpLatentAttention:     latentAttention,
	ir.OpLatentAttentionGrad: latentAttentionGrad,

	ir.OpLayerNorm:        layerNorm,
	ir.OpLayerNormGrad:    layerNormGrad,
	ir.OpCrossEntropy:     crossEntropy,
	ir.OpCrossEntropyGrad: crossEntropyGrad,

	ir.OpMixedCrossEntropy:     crossEntropy,
	ir.OpMixedCrossEntropyGrad: crossEntropyGrad,

	ir.OpPatchify:     patchify,
	ir.OpPrependToken: prependToken,
	ir.OpSliceTokens:  sliceTokens,
	ir.OpTranspose:    transpose,

	ir.OpSumTokens:  sumTokens,
	ir.OpSumLeading: sumLeading,
	ir.OpSumBatch:   sumBatch,
	ir.OpSumSquares: sumSquares,
	ir.OpClipScale:  clipScale,

	ir.OpSGD:         sgd,
	ir.OpSGDMomentum: sgdMomentum,
	ir.OpAdamW:       adamW,
	ir.OpEMA:         ema,
}
