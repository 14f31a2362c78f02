package passes

import (
	"fmt"

	"github.com/vitgen/vitgen/ir"
)

// Precision sees to it that every value has the element type that the spec's
// precision asks for on this target. It changes nothing so far:
//
//	fp32        every value is f32, labels i32; this is checked
//	tf32, bf16  the same: the CPU target computes them in f32, which is more
//	            exact than what was asked for. Programs.Precision carries the
//	            request to targets that have such arithmetic.
func Precision(g *ir.Graph, precision string) error {
	switch precision {
	case "fp32", "tf32", "bf16":
	default:
		panic("BUG: unknown precision " + precision)
	}
	for _, n := range g.Nodes {
		for _, v := range n.Outs {
			if d := v.Type.DType; d != ir.F32 && d != ir.I32 {
				return fmt.Errorf("%v = %s of layer %q is %v; precision %s wants f32", v, n.Op, n.Layer, v.Type, precision)
			}
		}
	}
	return nil
}
