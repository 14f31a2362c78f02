package onnx

import (
	"cmp"
	"math"
	"slices"

	"github.com/vitgen/vitgen/internal/onnxpb"
	"github.com/vitgen/vitgen/ir"
)

// rules say what each op is in ONNX. An op has a rule, or absent says why no
// forward graph has it. They are filled by init because rules write nodes, which
// are written by the rules.
var rules map[ir.Op]rule

func init() {
	rules = map[ir.Op]rule{
		ir.OpInput:  input,
		ir.OpParam:  func(_ *lowering, n *ir.Node) string { return n.Str("name") },
		ir.OpSinCos: sinCos,

		ir.OpReshape:     reshape,
		ir.OpSliceLast:   sliceLast,
		ir.OpConcatLast:  func(l *lowering, _ *ir.Node) string { return concat(l, -1) },
		ir.OpSliceFirst:  func(l *lowering, n *ir.Node) string { return slice(l, n, 0) },
		ir.OpConcatFirst: func(l *lowering, _ *ir.Node) string { return concat(l, 0) },

		ir.OpAdd:   func(l *lowering, _ *ir.Node) string { return l.emit("Add", []string{l.arg(0), l.arg(1)}) },
		ir.OpMul:   func(l *lowering, _ *ir.Node) string { return l.emit("Mul", []string{l.arg(0), l.arg(1)}) },
		ir.OpScale: scale,
		ir.OpGelu:  gelu,
		ir.OpRelu:  func(l *lowering, _ *ir.Node) string { return l.emit("Relu", []string{l.arg(0)}) },
		ir.OpSilu: func(l *lowering, _ *ir.Node) string {
			return l.emit("Mul", []string{l.arg(0), l.emit("Sigmoid", []string{l.arg(0)})})
		},

		ir.OpLinear:    linear,
		ir.OpAttention: attention,
		ir.OpLayerNorm: func(l *lowering, n *ir.Node) string {
			return l.emit("LayerNormalization", []string{l.arg(0), l.arg(1), l.arg(2)},
				attr{"axis", -len(n.Args[1].Type.Shape)}, attr{"epsilon", float32(n.Float("eps"))})
		},

		ir.OpPatchify:     patchify,
		ir.OpPrependToken: prependToken,
		ir.OpSliceTokens:  func(l *lowering, n *ir.Node) string { return slice(l, n, 1) },
		ir.OpTranspose:    func(l *lowering, _ *ir.Node) string { return l.transpose(l.arg(0), 0, 2, 1) },
		ir.OpSumTokens: func(l *lowering, _ *ir.Node) string {
			return l.emit("ReduceSum", []string{l.arg(0), l.ints(1)}, attr{"keepdims", 0})
		},
	}
}

const (
	trainOnly = "only appears in the backward pass or the update"
	written   = "only autodiff and the update write it"
	lossOnly  = "belongs to the loss, which no forward graph has"
	absorbed  = "only the absorb pass writes it, and exported graphs are as before that"
	dropped   = "forward graphs are built without dropout"
)

// absent says why forward graphs do not have an op.
var absent = map[ir.Op]string{
	ir.OpState:  trainOnly,
	ir.OpScalar: written,
	ir.OpConst:  written,

	ir.OpHeadLinear:      absorbed,
	ir.OpHeadLinearT:     absorbed,
	ir.OpLatentAttention: absorbed,

	ir.OpDropout:        dropped,
	ir.OpDropPath:       dropped,
	ir.OpRepeatTokens:   written,
	ir.OpPadTokens:      written,
	ir.OpBroadcastBatch: written,
	ir.OpSumBatch:       written,

	ir.OpCrossEntropy:      lossOnly,
	ir.OpMixedCrossEntropy: lossOnly,
}

func init() {
	for _, op := range ir.Ops() {
		if op.TrainOnly() {
			absent[op] = trainOnly
		}
	}
}

func input(l *lowering, n *ir.Node) string {
	v := valueInfo{l.unique(n.Str("name")), n.Out().Type}
	l.inputs = append(l.inputs, v)
	return v.name
}

// sinCos is the table itself.
func sinCos(l *lowering, n *ir.Node) string {
	dims := n.Out().Type.Shape
	return l.constant(constant{"sincos" + list(dims), onnxpb.Float32, dims, floats(ir.SinCos(dims[0], dims[1])...)})
}

// reshape is a Reshape; of one token, cut out, it is a Gather.
func reshape(l *lowering, n *ir.Node) string {
	x, t := n.Args[0], n.Out().Type
	if d := x.Def; d.Op == ir.OpSliceTokens && x.Type.Sample()[0] == 1 && len(t.Sample()) == 1 {
		return l.emit("Gather", []string{l.of(d.Args[0]), l.index(d.Int("from"))}, attr{"axis", 1})
	}
	return l.reshape(l.arg(0), t.Batched, t.Sample()...)
}

func slice(l *lowering, n *ir.Node, axis int) string {
	return l.emit("Slice", []string{l.arg(0), l.ints(n.Int("from")), l.ints(n.Int("to")), l.ints(axis)})
}

// sliceLast is one result of a Split if the slices of x are its whole, one
// beside the other.
func sliceLast(l *lowering, n *ir.Node) string {
	x := n.Args[0]
	if l.parts[x] == nil {
		sizes := tiles(x, l.uses[x])
		if sizes == nil {
			return slice(l, n, -1)
		}
		l.parts[x] = map[int]string{}
		from := 0
		for i, name := range l.emitN("Split", len(sizes), []string{l.arg(0), l.ints(sizes...)}, attr{"axis", -1}) {
			l.parts[x][from] = name
			from += sizes[i]
		}
	}
	return l.parts[x][n.Int("from")]
}

// tiles gives the widths of the slices of x, left to right, if there are at
// least two, they cover its last dimension, and nothing else reads it.
func tiles(x *ir.Value, uses []*ir.Node) []int {
	if len(uses) < 2 || slices.ContainsFunc(uses, func(u *ir.Node) bool { return u.Op != ir.OpSliceLast }) {
		return nil
	}
	uses = slices.SortedFunc(slices.Values(uses), func(a, b *ir.Node) int { return cmp.Compare(a.Int("from"), b.Int("from")) })
	var sizes []int
	at := 0
	for _, u := range uses {
		if u.Int("from") != at {
			return nil
		}
		sizes = append(sizes, u.Int("to")-at)
		at = u.Int("to")
	}
	if at != x.Type.Last() {
		return nil
	}
	return sizes
}

func concat(l *lowering, axis int) string {
	var inputs []string
	for i := range l.at.Args {
		inputs = append(inputs, l.arg(i))
	}
	return l.emit("Concat", inputs, attr{"axis", axis})
}

// scale is a Mul; of a sum over tokens by one over their number, it is a
// ReduceMean.
func scale(l *lowering, n *ir.Node) string {
	x, by := n.Args[0], n.Float("by")
	if d := x.Def; d.Op == ir.OpSumTokens && by == 1/float64(d.Args[0].Type.Sample()[0]) {
		return l.emit("ReduceMean", []string{l.of(d.Args[0])}, attr{"axes", []int{1}}, attr{"keepdims", 0})
	}
	return l.emit("Mul", []string{l.arg(0), l.float(by)})
}

// gelu spells its formula out: the operator Gelu is of operator set 20.
func gelu(l *lowering, n *ir.Node) string {
	x := l.arg(0)
	mul := func(a, b string) string { return l.emit("Mul", []string{a, b}) }
	var inner string
	if n.Bool("tanh") {
		cube := mul(mul(x, x), x)
		sum := l.emit("Add", []string{x, mul(cube, l.float(0.044715))})
		inner = l.emit("Tanh", []string{mul(sum, l.float(math.Sqrt(2/math.Pi)))})
	} else {
		inner = l.emit("Erf", []string{l.emit("Div", []string{x, l.float(math.Sqrt2)})})
	}
	return mul(mul(x, l.emit("Add", []string{inner, l.float(1)})), l.float(0.5))
}

// linear keeps the weight as PyTorch has it, [N,K]: a Gemm of vectors takes it
// so, and for tokens a Transpose of a constant is nothing that remains at run
// time. A product of patches with a filter is the convolution it came from.
func linear(l *lowering, n *ir.Node) string {
	x, w := n.Args[0], n.Args[1]
	if x.Def.Op == ir.OpPatchify && w.Def.Op == ir.OpReshape && len(w.Def.Args[0].Type.Shape) == 4 {
		return convolution(l, x.Def, w.Def.Args[0])
	}
	if len(x.Type.Sample()) == 1 {
		return l.emit("Gemm", []string{l.arg(0), l.arg(1)}, attr{"transB", 1})
	}
	return l.emit("MatMul", []string{l.arg(0), l.transpose(l.arg(1), 1, 0)})
}

// convolution gives tokens [n|T,D] of the image that patches cut up, by filters
// w [D,C,p,p].
func convolution(l *lowering, patches *ir.Node, w *ir.Value) string {
	p := patches.Int("patch")
	y := l.emit("Conv", []string{l.of(patches.Args[0]), l.of(w)}, attr{"kernel_shape", []int{p, p}}, attr{"strides", []int{p, p}})
	y = l.reshape(y, true, w.Type.Shape[0], patches.Out().Type.Sample()[0])
	return l.transpose(y, 0, 2, 1)
}

// attention is softmax(scale·q·kᵀ + mask)·v in every head.
func attention(l *lowering, n *ir.Node) string {
	H := n.Int("heads")
	heads := func(i int, perm ...int) string {
		s := n.Args[i].Type.Sample()
		return l.transpose(l.reshape(l.arg(i), true, s[0], H, s[1]/H), perm...)
	}
	scores := l.emit("MatMul", []string{heads(0, 0, 2, 1, 3), heads(1, 0, 2, 3, 1)})
	scores = l.emit("Mul", []string{scores, l.float(n.Float("scale"))})
	if n.Bool("causal") {
		scores = l.emit("Add", []string{scores, mask(l, n)})
	}
	weights := l.emit("Softmax", []string{scores}, attr{"axis", -1})
	y := l.transpose(l.emit("MatMul", []string{weights, heads(2, 0, 2, 1, 3)}), 0, 2, 1, 3)
	return l.reshape(y, true, n.Out().Type.Sample()...)
}

// mask is [T,Tₖ]: 0 where query row i sees key j, j ≤ q_first+i, else -∞. It is
// written as what computes it, which does not grow with the tokens.
func mask(l *lowering, n *ir.Node) string {
	value := append(onnxpb.Tensor("", onnxpb.Float32, []int{1}, 4), floats(float32(math.Inf(-1)))...)
	all := l.emit("ConstantOfShape", []string{l.ints(n.Args[0].Type.Sample()[0], n.Args[1].Type.Sample()[0])}, attr{"value", value})
	return l.emit("Trilu", []string{all, l.index(n.Int("q_first") + 1)}, attr{"upper", 1})
}

// patchify cuts the image up: [n|C,H,W] → [n|C,H/p,p,W/p,p] → [n|H/p,W/p,C,p,p].
func patchify(l *lowering, n *ir.Node) string {
	s, p := n.Args[0].Type.Sample(), n.Int("patch")
	x := l.reshape(l.arg(0), true, s[0], s[1]/p, p, s[2]/p, p)
	return l.reshape(l.transpose(x, 0, 2, 4, 1, 3, 5), true, n.Out().Type.Sample()...)
}

// prependToken repeats the token for as many samples as there are, and joins.
func prependToken(l *lowering, n *ir.Node) string {
	batch := l.emit("Shape", []string{l.arg(0)}, attr{"start", 0}, attr{"end", 1})
	shape := l.emit("Concat", []string{batch, l.ints(1, n.Args[1].Type.Last())}, attr{"axis", 0})
	tokens := l.emit("Expand", []string{l.arg(1), shape})
	return l.emit("Concat", []string{tokens, l.arg(0)}, attr{"axis", 1})
}
