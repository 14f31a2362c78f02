package plan

import (
	"fmt"

	"github.com/vitgen/vitgen/codegen/kernels"
)

// device says what the launch's kernel needs on a CUDA device.
func (b *launchBuilder) device(body Body) *Part {
	part := func(l kernels.Launch) *Part { return &Part{Launch: l, Threads: kernels.BlockThreads} }
	batch := b.plan.Batch
	switch body := body.(type) {
	case *Gemm:
		return b.product(body)
	case *Attention:
		return b.attentionPart(body.Shape, body.Q.Arg, body.Site, false)
	case *AttentionGrad:
		return b.attentionPart(body.Shape, body.Q.Arg, body.Site, true)
	case *LayerNorm:
		return part(kernels.RowLaunch(body.Space.Rows, body.Space.Cols))
	case *LayerNormGrad:
		return part(kernels.LayerNormGradLaunch(body.Space.Rows, body.Space.Cols))
	case *CrossEntropy:
		return part(kernels.RowLaunch(batch, body.Classes))
	case *Pointwise:
		return part(kernels.PointwiseLaunch(body.Space.Rows, body.Space.Cols))
	case *Patchify:
		return part(kernels.PatchifyLaunch(batch, body.C, body.H, body.W, body.P))
	case *Transpose:
		return part(kernels.TransposeLaunch(batch, body.T, body.C))
	case *SumTokens:
		return part(kernels.TokenSumLaunch(batch, body.Space.Cols))
	case *ColumnSum:
		return part(kernels.ColumnSumLaunch(body.Space.Rows, body.Space.Cols))
	case *SumSquares:
		return part(kernels.SumsqLaunch(int64(body.N)))
	case *ClipScale:
		return part(kernels.Launch{Blocks: 1})
	case *Optimizer:
		return part(kernels.FlatLaunch(int64(body.N)))
	}
	panic(fmt.Sprintf("BUG: no launch for %T", body))
}

// product chooses the tile of a matrix product.
func (b *launchBuilder) product(g *Gemm) *Part {
	t := chooseTile(g.Kind, b.plan.Math, g.M, g.N, g.K)
	return &Part{
		Launch:  kernels.GemmLaunch(t.BM, t.BN, t.BK, t.Stages, t.Splits, elemBytes(b.plan.Math), g.M, g.N),
		Threads: kernels.BlockThreads, Tile: &t,
		PerSM: t.perSM(b.plan.Math, b.converted(g.A) || b.converted(g.B), g.A.Functor != nil || g.B.Functor != nil),
	}
}

// converted reports an operand in memory that is not of the type the product
// multiplies in.
func (b *launchBuilder) converted(o Operand) bool {
	return o.Functor == nil && b.args[o.Arg].Narrow != (b.plan.Math == "bf16")
}

// elemBytes is the size of an operand's element in shared memory.
func elemBytes(math string) int {
	if math == "bf16" {
		return 2
	}
	return 4
}

// attentionPart sizes an attention kernel; q is the argument of its queries.
func (b *launchBuilder) attentionPart(s AttentionShape, q, site int, backward bool) *Part {
	k := kernels.AttentionShape{Math: b.plan.Math, Heads: s.Heads, HeadDim: s.HeadDim, Tq: s.Tq, Tk: s.Tk,
		Dropout: site >= 0, Narrow: b.args[q].Narrow}
	launch := kernels.AttentionLaunch
	if backward {
		launch = kernels.AttentionGradLaunch
	}
	l, threads := launch(k, b.plan.Batch)
	return &Part{Launch: l, Threads: threads}
}
