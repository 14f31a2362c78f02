package passes

import (
	"fmt"

	"github.com/vitgen/vitgen/ir"
)

// Precision sees to it that every value is computed in f32 (labels are i32).
// That holds for every precision a spec can ask for: the precision says what
// matrix products multiply in (codegen/plan) and what memory holds (Storage),
// while sums, statistics and master weights are f32 always.
func Precision(g *ir.Graph) error {
	for _, n := range g.Nodes {
		for _, v := range n.Outs {
			if d := v.Type.DType; d != ir.F32 && d != ir.I32 {
				return fmt.Errorf("%v = %s of layer %q is %v; kernels compute in f32", v, n.Op, n.Layer, v.Type)
			}
		}
	}
	return nil
}
