package plan

import (
	"strings"

	"github.com/vitgen/vitgen/codegen/kernels"
	"github.com/vitgen/vitgen/ir"
)

// Products multiply with weights in packed form. A training step packs each
// weight where it is used, since the next step has other ones; in inference,
// that would be most of the work of a small batch. So on the CPU the programs
// that only read the parameters find their weights packed: by a program of its
// own, Plan.Pack, which need run only when parameters have changed.
//
// Packed weights lie in the arena, behind all that those programs have there. A
// training step has its activations in the same place, and so undoes them; but it
// changes the parameters, so they would have to be packed anew anyway.

// Pack packs the weight of a linear layer for any number of products.
type Pack struct {
	N, K int     // the weight is [N,K]
	W    Operand // plain memory
	Out  int     // argument
}

func (*Pack) body() {}

// packing collects the weights to pack.
type packing struct {
	next   int64 // where the next one lies in the arena
	places map[packedWeight]Ref
	order  []packedWeight
	uses   map[packedWeight]Launch // first use: layer and position
}

// packedWeight is a matrix in memory that products read packed.
type packedWeight struct {
	at   Ref
	name string
	n, k int
	ld   int64
}

// newPacking puts the packed weights behind what the inference programs have in
// the arena.
func newPacking(programs []*ir.Graph) *packing {
	p := &packing{places: map[packedWeight]Ref{}, uses: map[packedWeight]Launch{}}
	for _, g := range programs {
		if inference(g) {
			p.next = max(p.next, (g.Arena+63)/64*64)
		}
	}
	return p
}

// inference reports a program that computes logits and no gradients.
func inference(g *ir.Graph) bool {
	for _, o := range g.Outputs {
		if strings.HasPrefix(o.Name, "grad.") {
			return false
		}
	}
	return g.Output("logits") != nil
}

// packed is the argument of a weight in packed form, which the pack program
// shall put there.
func (b *launchBuilder) packed(w *ir.Value, n, k int) int {
	s := b.slots[w]
	key := packedWeight{b.ref(w), valueName(s, w, "in"), n, k, s.Stride}
	p := b.packing
	if _, ok := p.places[key]; !ok {
		p.places[key] = Ref{Arena, p.next}
		p.next += kernels.PackedWeightBytes(n, k)
		p.order = append(p.order, key)
		p.uses[key] = Launch{Layer: b.gr.Anchor.Layer, Pos: b.gr.Anchor.Pos}
	}
	return b.arg(key.name+"_packed", In, p.places[key])
}

// packProgram lists a launch for each weight to pack.
func (b *builder) packProgram() *Program {
	prog := &Program{Name: "pack"}
	for _, w := range b.packing.order {
		use := b.packing.uses[w]
		k := &Kernel{
			Family: ir.FamilyPointwise,
			Args:   []Arg{{Name: w.name, Type: In}, {Name: w.name + "_packed", Type: Out}},
			Body:   &Pack{N: w.n, K: w.k, W: Operand{Arg: 0, LD: w.ld}, Out: 1},
			Doc:    "pack a weight   " + matrixText(ir.Tensor(ir.F32, w.n, w.k)),
			Bytes:  fixedTraffic(4*int64(w.n)*int64(w.k) + kernels.PackedWeightBytes(w.n, w.k)),
		}
		use.Kernel, use.Args = b.kernel(k, "pack_weight", Use{use.Layer, use.Pos}), []Ref{w.at, b.packing.places[w]}
		prog.Launches = append(prog.Launches, use)
	}
	b.plan.ArenaBytes = max(b.plan.ArenaBytes, b.packing.next)
	return prog
}
