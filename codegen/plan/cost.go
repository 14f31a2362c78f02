package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vitgen/vitgen/codegen/kernels"
	"github.com/vitgen/vitgen/ir"
)

// String names the functor, so that two bodies compare by structure.
func (f *Functor) String() string {
	if f == nil {
		return "-"
	}
	return f.Name
}

// bodyKey prints a body's numbers; functors print as their names and are
// compared by their own code.
func bodyKey(b Body) string { return strings.TrimPrefix(fmt.Sprintf("%+v", b), "&") }

// kernelWord is the part of a kernel's name that says what it does.
func kernelWord(body Body, gr *ir.Group) string {
	switch body := body.(type) {
	case *Gemm:
		if body.Packed {
			return "gemm_packed"
		}
		return "gemm_" + body.Kind
	case *Pointwise:
		return gr.Nodes[0].Op.String()
	case *CrossEntropy:
		return "cross_entropy"
	case *Optimizer:
		return body.Op.String()
	}
	return gr.Anchor.Op.String()
}

// describe says in one line what a group computes: its ops in order, and the
// sizes of a matrix product.
func describe(gr *ir.Group) string {
	var ops []string
	count := map[string]int{}
	for _, n := range gr.Nodes {
		name := n.Op.String()
		if count[name]++; count[name] == 1 {
			ops = append(ops, name)
		}
	}
	s := strings.Join(ops, " + ")
	if n := gr.Anchor; n != nil {
		switch n.Op {
		case ir.OpLinear:
			s += fmt.Sprintf("   %s·%sᵀ", matrixText(n.Args[0].Type), matrixText(n.Args[1].Type))
		case ir.OpLinearDX:
			s += fmt.Sprintf("   %s·%s", matrixText(n.Args[0].Type), matrixText(n.Args[1].Type))
		case ir.OpHeadLinear, ir.OpHeadLinearT, ir.OpHeadLinearDW:
			s += fmt.Sprintf("   %d heads: %s, %s", n.Int("heads"), matrixText(n.Args[0].Type), matrixText(n.Args[1].Type))
		case ir.OpLinearDW:
			s += fmt.Sprintf("   %sᵀ·%s", matrixText(n.Args[0].Type), matrixText(n.Args[1].Type))
		}
	}
	return s
}

// matrixText prints a type as the matrix a product sees: [n·37×512].
func matrixText(t ir.Type) string {
	if !t.Batched {
		return fmt.Sprintf("[%d×%d]", t.Rows(), t.Last())
	}
	if t.Rows() == 1 {
		return fmt.Sprintf("[n×%d]", t.Last())
	}
	return fmt.Sprintf("[n·%d×%d]", t.Rows(), t.Last())
}

// groupFLOPs is ir.NodeFLOPs of a group.
func groupFLOPs(gr *ir.Group) int64 {
	var f int64
	for _, n := range gr.Nodes {
		f += ir.NodeFLOPs(n)
	}
	return f
}

// traffic counts every operand from another kernel and every stored result once.
func (b *launchBuilder) traffic() (t Traffic) {
	if b.gr.Family == ir.FamilyOptimizer {
		per := map[ir.Op]int64{ir.OpSGD: 3, ir.OpSGDMomentum: 5, ir.OpAdamW: 7}
		arrays := per[b.gr.Anchor.Op]
		if slices.ContainsFunc(b.gr.Nodes, func(n *ir.Node) bool { return n.Op == ir.OpEMA }) {
			arrays += 2 // the average, read and written
		}
		return fixedTraffic(arrays * 4 * int64(b.plan.Layout.Elems))
	}
	elems := map[*ir.Value]int64{} // of each value in memory that move
	count := func(v *ir.Value, n int) {
		if b.slots[v].Home != ir.HomeNone {
			elems[v] = min(elems[v]+int64(n), int64(v.Type.Elems()))
		}
	}
	for _, n := range b.gr.Nodes {
		for _, a := range n.Args {
			switch {
			case b.inGroup[a.Def]:
			case n.Op == ir.OpSliceTokens: // reads what it takes
				count(a, n.Out().Type.Elems())
			default:
				count(a, a.Type.Elems())
			}
		}
		for _, o := range n.Outs {
			if b.stored[o] {
				count(o, o.Type.Elems())
			}
		}
	}
	for v, n := range elems {
		bytes := n * int64(b.slots[v].Root.MemoryType().Size())
		t.Total += bytes
		if !v.Type.Batched {
			t.Fixed += bytes
		}
	}
	return t
}

// fixedTraffic is that of a launch which does not know of a batch.
func fixedTraffic(bytes int64) Traffic { return Traffic{bytes, bytes} }

// workspace is the shared scratch a launch of the kernel needs, in bytes.
func (k *Kernel) workspace() int64 {
	switch b := k.Body.(type) {
	case *Gemm:
		if b.Kind == "tn" {
			return kernels.WeightGradWorkspaceBytes(b.M, b.N, b.K)
		}
		return kernels.GemmWorkspaceBytes(b.M, b.N, b.K)
	case *LayerNormGrad:
		return kernels.LayerNormGradWorkspaceBytes(b.Space.Rows, b.Space.Cols)
	case *ColumnSum:
		return kernels.ColumnSumWorkspaceBytes(b.Space.Rows, b.Space.Cols)
	case *SumSquares:
		return kernels.SumWorkspaceBytes(int64(b.N))
	}
	return 0
}
