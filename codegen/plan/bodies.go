package plan

import (
	"fmt"

	"github.com/vitgen/vitgen/ir"
)

// body chooses the loop structure for the launch's group.
func (b *launchBuilder) body() (Body, error) {
	n := b.gr.Anchor
	if b.gr.Family == ir.FamilyOptimizer {
		return b.optimizer()
	}
	if n == nil {
		return b.pointwise(), nil
	}
	switch n.Op {
	case ir.OpLinear, ir.OpLinearDX:
		return b.gemm(n), nil
	case ir.OpLinearDW:
		return b.weightGrad(n), nil
	case ir.OpHeadLinear, ir.OpHeadLinearT, ir.OpHeadLinearDW:
		return b.headProduct(n), nil
	case ir.OpAttention:
		return b.attention(n), nil
	case ir.OpAttentionGrad:
		return b.attentionGrad(n), nil
	case ir.OpLatentAttention:
		return b.latentAttention(n), nil
	case ir.OpLatentAttentionGrad:
		return b.latentAttentionGrad(n), nil
	case ir.OpLayerNorm:
		return b.layerNorm(n), nil
	case ir.OpLayerNormGrad:
		return b.layerNormGrad(n), nil
	case ir.OpCrossEntropy, ir.OpMixedCrossEntropy:
		return b.crossEntropy(n)
	case ir.OpPatchify:
		s := n.Args[0].Type.Sample()
		x := b.in(n.Args[0])
		sp := SpaceOf(n.Out().Type)
		return &Patchify{C: s[0], H: s[1], W: s[2], P: n.Int("patch"), X: x, Y: b.epilogue("epilogue", n.Out(), sp), Space: sp}, nil
	case ir.OpTranspose:
		s := n.Args[0].Type.Sample()
		x := b.in(n.Args[0])
		return &Transpose{T: s[0], C: s[1], X: x, Y: b.epilogue("epilogue", n.Out(), SpaceOf(n.Out().Type))}, nil
	case ir.OpSumTokens:
		x := b.operand(n.Args[0], "source")
		return &SumTokens{Space: SpaceOf(n.Args[0].Type), X: x, Y: b.epilogue("epilogue", n.Out(), SpaceOf(n.Out().Type))}, nil
	case ir.OpSumLeading:
		return b.columnSum(n), nil
	case ir.OpSumBatch:
		return &ColumnSum{Space: SpaceOf(n.Args[0].Type), X: b.operand(n.Args[0], "source"), Y: b.out(n.Out())}, nil
	case ir.OpSumSquares:
		return b.sumSquares(n)
	case ir.OpClipScale:
		return &ClipScale{X: b.in(n.Args[0]), Y: b.out(n.Out()), Norm: n.Float("norm")}, nil
	}
	return nil, fmt.Errorf("BUG: no kernel for %s", n.Op)
}

func (b *launchBuilder) pointwise() Body {
	sp := SpaceOf(b.gr.Nodes[len(b.gr.Nodes)-1].Out().Type)
	fb := b.newFunctor("body", BodyFn, sp)
	for _, n := range b.gr.Nodes {
		fb.add(n)
	}
	return &Pointwise{Space: sp, Fn: fb.f}
}

// gemm covers y = x·wᵀ and dx = dy·w.
func (b *launchBuilder) gemm(n *ir.Node) Body {
	x, w := n.Args[0], n.Args[1]
	sp := SpaceOf(x.Type)
	out := SpaceOf(n.Out().Type)
	g := &Gemm{Kind: "nt", Space: sp, M: sp.Rows, N: out.Cols, K: sp.Cols}
	if n.Op == ir.OpLinearDX {
		g.Kind = "nn"
	}
	g.A = b.operand(x, "a")
	if g.Packed = b.packs; g.Packed {
		g.B = Operand{Arg: b.packed(w, g.N, g.K)}
	} else {
		g.B = Operand{Arg: b.weight(w), LD: b.slots[w].Stride}
	}
	g.Epilogue = b.epilogue("epilogue", n.Out(), out)
	return g
}

// weightGrad is dw = dyᵀ·x, with the bias gradient if the group holds one.
func (b *launchBuilder) weightGrad(n *ir.Node) Body {
	dy, x := n.Args[0], n.Args[1]
	sp := SpaceOf(dy.Type)
	g := &Gemm{Kind: "tn", Space: sp, M: sp.Cols, N: x.Type.Last(), K: sp.Rows}
	g.A = b.operand(dy, "a")
	g.B = b.operand(x, "b")
	g.Epilogue = b.epilogue("epilogue", n.Out(), SpaceOf(n.Out().Type))
	for _, s := range b.gr.Nodes {
		if s.Op == ir.OpSumLeading {
			g.RowSum = b.epilogue("row_sum", s.Out(), Space{T: 1, Rows: 1, Cols: sp.Cols})
		}
	}
	return g
}

// headProduct covers head_linear, its transpose and its weight gradient.
func (b *launchBuilder) headProduct(n *ir.Node) Body {
	x, w := n.Args[0], n.Args[1]
	weight := w.Type // [heads·N,K]
	if n.Op == ir.OpHeadLinearDW {
		weight = n.Out().Type
	}
	sp := SpaceOf(x.Type)
	h := &HeadProduct{Op: n.Op, Space: sp, Heads: n.Int("heads"), M: sp.Rows, N: weight.Rows() / n.Int("heads"), K: weight.Last()}
	h.A, h.B = b.matrix(x), b.matrix(w)
	h.Epilogue = b.epilogue("epilogue", n.Out(), SpaceOf(n.Out().Type))
	return h
}

func attentionShape(n *ir.Node, q, k *ir.Value) AttentionShape {
	qs, ks := q.Type.Sample(), k.Type.Sample()
	return AttentionShape{
		Heads: n.Int("heads"), HeadDim: qs[1] / n.Int("heads"), Tq: qs[0], Tk: ks[0],
		QFirst: n.Int("q_first"), QTotal: n.Int("q_total"), Scale: n.Float("scale"), Causal: n.Bool("causal"),
	}
}

func (b *launchBuilder) site(n *ir.Node) (site, thr int) {
	if Threshold(n.Float("p")) == 0 {
		return -1, -1
	}
	return b.imm("dropout_site", int64(n.Int("site"))), b.imm("dropout_thr", int64(Threshold(n.Float("p"))))
}

func (b *launchBuilder) matrix(v *ir.Value) Operand {
	return Operand{Arg: b.in(v), LD: b.slots[v].Stride}
}

func (b *launchBuilder) result(v *ir.Value) Operand {
	if !b.stored[v] {
		panic(fmt.Sprintf("BUG: %v of %s is not stored", v, v.Def.Op))
	}
	return Operand{Arg: b.out(v), LD: b.slots[v].Stride}
}

func (b *launchBuilder) attention(n *ir.Node) Body {
	a := &Attention{Batch: b.plan.Batch, Shape: attentionShape(n, n.Args[0], n.Args[1])}
	a.Q, a.K, a.V = b.matrix(n.Args[0]), b.matrix(n.Args[1]), b.matrix(n.Args[2])
	a.O = b.result(n.Outs[0])
	a.LSE = b.outIfStored(n.Outs[1])
	a.Site, a.Thr = b.site(n)
	return a
}

func (b *launchBuilder) attentionGrad(n *ir.Node) Body {
	a := &AttentionGrad{Shape: attentionShape(n, n.Args[1], n.Args[2])}
	a.DO, a.Q, a.K, a.V, a.O = b.matrix(n.Args[0]), b.matrix(n.Args[1]), b.matrix(n.Args[2]), b.matrix(n.Args[3]), b.matrix(n.Args[4])
	a.LSE = b.in(n.Args[5])
	a.DQ, a.DK, a.DV = b.result(n.Outs[0]), b.result(n.Outs[1]), b.result(n.Outs[2])
	a.Site, a.Thr = b.site(n)
	return a
}

// latentShape is that of attention with heads as wide as x.
func latentShape(n *ir.Node, q, x *ir.Value) AttentionShape {
	s := attentionShape(n, q, x)
	s.HeadDim = x.Type.Last()
	return s
}

func (b *launchBuilder) latentAttention(n *ir.Node) Body {
	a := &LatentAttention{Shape: latentShape(n, n.Args[0], n.Args[1]), Sums: n.Bool("sums")}
	a.Q, a.X = b.matrix(n.Args[0]), b.matrix(n.Args[1])
	a.O = b.result(n.Outs[0])
	a.LSE = b.outIfStored(n.Outs[1])
	a.Site, a.Thr = b.site(n)
	return a
}

func (b *launchBuilder) latentAttentionGrad(n *ir.Node) Body {
	a := &LatentAttentionGrad{Shape: latentShape(n, n.Args[1], n.Args[2]), Sums: n.Bool("sums")}
	a.DO, a.Q, a.X, a.O = b.matrix(n.Args[0]), b.matrix(n.Args[1]), b.matrix(n.Args[2]), b.matrix(n.Args[3])
	a.LSE = b.in(n.Args[4])
	a.DQ, a.DX = b.result(n.Outs[0]), b.result(n.Outs[1])
	a.Site, a.Thr = b.site(n)
	return a
}

// normSpace is the space of a normalization: rows as long as gamma.
func normSpace(x, gamma ir.Type) Space {
	cols := gamma.Elems()
	T := ir.Product(x.Sample()) / cols
	return Space{Batched: true, T: T, Rows: T * x.Shape[0], Cols: cols}
}

// normOperand reads a normalization's row operand; rows over several
// dimensions are contiguous (see the fusion pass).
func (b *launchBuilder) normOperand(v *ir.Value, gamma ir.Type, name string) Operand {
	op := b.operand(v, name)
	if len(gamma.Shape) > 1 {
		if op.Functor != nil {
			panic("BUG: prologue on a normalization over several dimensions")
		}
		op.LD = int64(gamma.Elems())
	}
	return op
}

// normResult makes the sink of a normalization.
func (b *launchBuilder) normResult(v *ir.Value, gamma ir.Type, sp Space) *Functor {
	f := b.epilogue("epilogue", v, sp)
	if len(gamma.Shape) > 1 {
		for i := range f.Code {
			if st := f.Code[i].Store; st != nil {
				st.LD = int64(sp.Cols)
			}
		}
	}
	return f
}

func (b *launchBuilder) layerNorm(n *ir.Node) Body {
	x, gamma := n.Args[0], n.Args[1]
	l := &LayerNorm{Space: normSpace(x.Type, gamma.Type), Eps: n.Float("eps")}
	l.X = b.normOperand(x, gamma.Type, "source")
	l.Gamma, l.Beta = b.in(gamma), b.in(n.Args[2])
	l.Mean, l.Rstd = b.outIfStored(n.Outs[1]), b.outIfStored(n.Outs[2])
	l.Y = b.normResult(n.Outs[0], gamma.Type, l.Space)
	return l
}

func (b *launchBuilder) layerNormGrad(n *ir.Node) Body {
	dy, x, gamma := n.Args[0], n.Args[1], n.Args[2]
	l := &LayerNormGrad{Space: normSpace(x.Type, gamma.Type)}
	l.DY = b.normOperand(dy, gamma.Type, "dy")
	l.X = b.normOperand(x, gamma.Type, "x")
	l.Gamma, l.Mean, l.Rstd = b.in(gamma), b.in(n.Args[3]), b.in(n.Args[4])
	if f := b.normResult(n.Outs[0], gamma.Type, l.Space); len(f.Code) > 0 {
		l.DX = f
	} else {
		b.functors = b.functors[:len(b.functors)-1]
	}
	l.DGamma, l.DBeta = b.outIfStored(n.Outs[1]), b.outIfStored(n.Outs[2])
	return l
}

// crossEntropy covers the loss and, in the same group, its gradient.
func (b *launchBuilder) crossEntropy(n *ir.Node) (Body, error) {
	c := &CrossEntropy{Classes: n.Args[0].Type.Last(), Label2: -1, Mix: -1, Smoothing: n.Float("smoothing")}
	c.Logits = b.operand(n.Args[0], "logits")
	c.Label = b.in(n.Args[1])
	if n.Op == ir.OpMixedCrossEntropy {
		c.Label2, c.Mix = b.in(n.Args[2]), b.in(n.Args[3])
	}
	c.Loss, c.Correct = b.outIfStored(n.Outs[0]), b.outIfStored(n.Outs[1])
	for _, d := range b.gr.Nodes {
		if d.Op != ir.OpCrossEntropyGrad && d.Op != ir.OpMixedCrossEntropyGrad {
			continue
		}
		seed := d.Args[len(d.Args)-1].Def
		if seed.Op != ir.OpBroadcastBatch || seed.Args[0].Def.Op != ir.OpScalar || seed.Args[0].Def.Str("name") != "inv_n" {
			return nil, fmt.Errorf("the loss gradient must be seeded with inv_n, the mean over the batch; got %s", seed.Op)
		}
		c.DLogits = b.epilogue("epilogue", d.Out(), SpaceOf(d.Out().Type))
	}
	return c, nil
}

// columnSum sums to a suffix of the operand's shape.
func (b *launchBuilder) columnSum(n *ir.Node) Body {
	x := n.Args[0]
	sp := SpaceOf(x.Type)
	c := &ColumnSum{Space: sp, X: b.operand(x, "source")}
	if cols := ir.Product(n.Ints("shape")); cols != sp.Cols {
		if c.X.Functor != nil {
			panic("BUG: prologue on a sum over several dimensions")
		}
		T := sp.T * sp.Cols / cols
		c.Space = Space{Batched: true, T: T, Rows: T * x.Type.Shape[0], Cols: cols}
		c.X.LD = int64(cols)
	}
	c.Y = b.out(n.Out())
	return c
}

// wholeArena checks that a set of values covers every parameter once.
func (b *launchBuilder) wholeArena(names map[string]bool) error {
	if len(names) != len(b.plan.Layout.Params) {
		return fmt.Errorf("BUG: the update covers %d of %d parameters", len(names), len(b.plan.Layout.Params))
	}
	return nil
}

func (b *launchBuilder) sumSquares(n *ir.Node) (Body, error) {
	names := map[string]bool{}
	for _, a := range n.Args {
		s := b.slots[a]
		if s.Home != ir.HomeGrad {
			return nil, fmt.Errorf("BUG: sum_squares of %v, which is no gradient", a)
		}
		names[s.Name] = true
	}
	if err := b.wholeArena(names); err != nil {
		return nil, err
	}
	x := b.arg("grads", In, Ref{Grads, 0})
	return &SumSquares{N: b.plan.Layout.Elems, X: x, Y: b.out(n.Out())}, nil
}

// optimizer covers all updates in one launch. Parameters with and without
// weight decay stand apart in the arena, so two ranges suffice.
func (b *launchBuilder) optimizer() (Body, error) {
	o := &Optimizer{N: b.plan.Layout.Elems, Decay: b.plan.Layout.DecayElems, S0: -1, S1: -1, Clip: -1, Half: -1, Average: -1}
	names, averages := map[string]bool{}, map[string]bool{}
	var first *ir.Node
	for _, n := range b.gr.Nodes {
		switch n.Op {
		case ir.OpMul:
			continue
		case ir.OpEMA:
			averages[b.slots[n.Args[0]].Name] = true
			continue
		}
		if first == nil {
			first = n
		}
		if n.Op != first.Op {
			return nil, fmt.Errorf("BUG: two optimizers in one update")
		}
		names[b.slots[n.Args[0]].Name] = true
		if wd := n.Float("weight_decay"); wd != 0 {
			o.WeightDecay = wd
		}
	}
	if err := b.wholeArena(names); err != nil {
		return nil, err
	}
	o.Op, o.Attrs = first.Op, first.Attrs.With("weight_decay", o.WeightDecay)
	o.P = b.arg("params", InOut, Ref{Params, 0})
	o.G = b.arg("grads", In, Ref{Grads, 0})
	if first.Op != ir.OpSGD {
		o.S0 = b.arg("state0", InOut, Ref{State0, 0})
	}
	if first.Op == ir.OpAdamW {
		o.S1 = b.arg("state1", InOut, Ref{State1, 0})
	}
	if g := first.Args[1].Def; g.Op == ir.OpMul {
		o.Clip = b.in(g.Args[1])
	}
	if b.plan.Math == "bf16" {
		o.Half = b.arg("half", Out, Ref{Half, 0})
		b.args[o.Half].Narrow = true
	}
	if len(averages) > 0 {
		if err := b.wholeArena(averages); err != nil {
			return nil, err
		}
		o.Average = b.arg("average", InOut, Ref{Average, 0})
	}
	return o, nil
}
