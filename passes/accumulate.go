package passes

import (
	"strings"

	"github.com/vitgen/vitgen/ir"
)

// Accumulate makes the gradients of a micro-batch add to those of the ones
// before it, for specs whose updates take several micro-batches.
//
//	%4 = linear_dw %3, %0 : f32[10,8]
//	return grad.w=%4
//
// becomes
//
//	%4 = linear_dw %3, %0 : f32[10,8]
//	%5 = state {name="w", slot="grad", type=f32[10,8]} : f32[10,8]
//	%6 = add %5, %4 : f32[10,8]
//	return grad.w=%6
//
// The host clears the gradients before the first micro-batch of an update.
func Accumulate(g *ir.Graph) error {
	for i, o := range g.Outputs {
		name, ok := strings.CutPrefix(o.Name, "grad.")
		if !ok {
			continue
		}
		pos, layer := o.Value.Def.Pos, o.Value.Def.Layer
		sum := g.MustAdd(ir.OpState, pos, layer, ir.A("name", name, "slot", "grad", "type", o.Value.Type)).Out()
		g.Outputs[i].Value = g.MustAdd(ir.OpAdd, pos, layer, nil, sum, o.Value).Out()
	}
	return nil
}
