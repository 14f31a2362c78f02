package passes

import (
	"github.com/vitgen/vitgen/ir"
)

// Storage chooses the element type in which kernels hand values to each other.
// It runs for targets that compute in the precision asked for, and changes
// nothing but for bf16. There, as in PyTorch's autocast,
//
//   - what a matrix product or attention reads is stored as bf16: that is the
//     precision it multiplies in anyway, and half the traffic;
//   - so is every other activation and its gradient, except sums of two
//     activations: the residual stream is added to in every block, and stays f32;
//   - statistics, logits, losses and the gradients of logits and parameters
//     stay f32.
//
// Arithmetic stays f32 within a kernel, whatever the storage.
//
// Before:
//
//	%3 = add %1, %2 : f32[4|2,8]
//
// After:
//
//	%3 = add %1, %2 : f32[4|2,8] as bf16
func Storage(g *ir.Graph, precision string) error {
	if precision != "bf16" {
		return nil
	}
	slots, err := g.Layout()
	if err != nil {
		return err
	}
	multiplied := map[*ir.Value]bool{} // roots that a product or attention reads
	wide := map[*ir.Value]bool{}       // roots that must keep their type
	for _, n := range g.Nodes {
		for _, a := range n.Args {
			if c := n.Op.Info().Class; c == ir.ClassGemm || c == ir.ClassAttention {
				multiplied[slots[a].Root] = true
			}
		}
		for _, v := range n.Outs {
			if keepsType(v) {
				wide[slots[v].Root] = true
			}
		}
	}
	for _, o := range g.Outputs {
		wide[slots[o.Value].Root] = true
	}
	for v := range g.Stored() {
		s := slots[v]
		if s.Home == ir.HomeArena && !wide[s.Root] && (multiplied[s.Root] || !residual(v)) {
			s.Root.Narrow = ir.BF16
		}
	}
	return nil
}

// keepsType reports a value that bf16 is too coarse for, or not for: numbers of
// a row or a sample, and what is close to the loss.
func keepsType(v *ir.Value) bool {
	if v.Type.DType != ir.F32 || !v.Type.Batched || len(v.Type.Sample()) == 0 {
		return true
	}
	switch v.Def.Op {
	case ir.OpLayerNorm, ir.OpAttention:
		return v.Out > 0 // mean and rstd, log-sum-exp
	}
	return lossGrad(v.Def.Op)
}

// residual reports a sum of two activations, or of two gradients.
func residual(v *ir.Value) bool {
	n := v.Def
	for n.Op == ir.OpReshape || n.Op == ir.OpSliceLast {
		n = n.Args[0].Def
	}
	return n.Op == ir.OpAdd && n.Args[1].Type.Batched
}
