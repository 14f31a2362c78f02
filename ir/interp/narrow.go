package interp

import (
	"math"

	"github.com/vitgen/vitgen/ir"
)

// reader returns how a node sees an operand: as it was computed, or, if another
// kernel left it in memory in a narrower type, as it was stored.
func reader(g *ir.Graph) func(n *ir.Node, a *ir.Value, t Tensor) Tensor {
	narrow := map[*ir.Value]bool{} // values that memory holds as bf16
	if slots, err := g.Layout(); err == nil {
		for v, s := range slots {
			if s.Root.Narrow == ir.BF16 {
				narrow[v] = true
			}
		}
	}
	if len(narrow) == 0 {
		return func(_ *ir.Node, _ *ir.Value, t Tensor) Tensor { return t }
	}
	group := map[*ir.Node]*ir.Group{}
	for _, gr := range g.Groups {
		for _, n := range gr.Nodes {
			group[n] = gr
		}
	}
	return func(n *ir.Node, a *ir.Value, t Tensor) Tensor {
		if !narrow[a] || group[a.Def] == group[n] {
			return t
		}
		stored := New(t.Shape...)
		for i, x := range t.Data {
			stored.Data[i] = roundBF16(x)
		}
		return stored
	}
}

// roundBF16 rounds to the nearest bfloat16, ties to even, by way of float32 as
// kernels do.
func roundBF16(x float64) float64 {
	bits := math.Float32bits(float32(x))
	if x != x {
		return x
	}
	bits += 0x7fff + bits>>16&1
	return float64(math.Float32frombits(bits &^ 0xffff))
}
