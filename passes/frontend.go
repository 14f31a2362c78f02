package passes

import (
	"fmt"
	"path/filepath"

	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/spec"
)

// Program names one of the graphs that a spec is compiled to.
type Program uint8

// The programs, with their outputs. B is the batch, C the classes.
const (
	Forward Program = iota // logits [B|C]
	Eval                   // logits, loss [B|], correct [B|]
	Grad                   // logits, loss, correct, grad.NAME shaped as the parameter
	Update                 // param.NAME, state0.NAME and state1.NAME as the optimizer needs, average.NAME if one is kept
	numPrograms
)

var programNames = [...]string{"forward", "eval", "grad", "update"}

func (p Program) String() string { return programNames[p] }

// Frontend builds a program's graph from the spec, one node or a few for each
// layer. It decides nothing and optimizes nothing; a Grad graph is built
// without its gradients, which Autodiff adds.
//
//   - layernorm: {name: ln}
//   - linear: {name: head, out: 10}
//
// becomes
//
//	%1 = param {name="ln.weight", type=f32[8]} : f32[8] @1:5 "ln"
//	%2 = param {name="ln.bias", type=f32[8]} : f32[8] @1:5 "ln"
//	%3, %4, %5 = layernorm %0, %1, %2 {eps=1e-05} : f32[4|8], f32[4|], f32[4|] @1:5 "ln"
//	%6 = param {name="head.weight", type=f32[10,8]} : f32[10,8] @2:5 "head"
//	%7 = linear %3, %6 : f32[4|10] @2:5 "head"
//	%8 = param {name="head.bias", type=f32[10]} : f32[10] @2:5 "head"
//	%9 = add %7, %8 : f32[4|10] @2:5 "head"
//
// Forward and Eval leave dropout and drop path out. The sites of the random
// stream are numbered in layer order over every layer that could draw, whether
// or not this program has it: a site is the same in all programs and whatever
// other layers' probabilities are.
func Frontend(s *spec.Spec, p Program) *ir.Graph {
	g := ir.NewGraph(s.Name+"."+p.String(), filepath.Base(s.File))
	if p == Update {
		buildUpdate(g, s)
		return g
	}
	b := &builder{g: g, train: p == Grad}
	shape := s.Input.Shape().Dims
	b.at(&spec.Base{Name: "input", Pos: s.Input.Pos})
	x := b.add(ir.OpInput, ir.A("name", "image", "type", ir.BatchOf(ir.F32, s.Train.Batch, shape...)))
	logits := b.layers(s.Model, x)
	g.Return("logits", logits)
	if p == Forward {
		return g
	}
	b.at(&spec.Base{Name: "loss", Pos: s.Loss.Pos})
	ce := b.loss(s, logits)
	g.Return("loss", ce.Outs[0])
	g.Return("correct", ce.Outs[1])
	return g
}

// loss adds the criterion: of one label, or in training, where the spec mixes
// samples, of two.
func (b *builder) loss(s *spec.Spec, logits *ir.Value) *ir.Node {
	input := func(name string, t ir.DType) *ir.Value {
		return b.add(ir.OpInput, ir.A("name", name, "type", ir.BatchOf(t, s.Train.Batch)))
	}
	smoothing := ir.A("smoothing", s.Loss.LabelSmoothing)
	label := input("label", ir.I32)
	if b.train && s.Data.Augment.Mixes() {
		return b.node(ir.OpMixedCrossEntropy, smoothing, logits, label, input("label2", ir.I32), input("mix", ir.F32))
	}
	return b.node(ir.OpCrossEntropy, smoothing, logits, label)
}

// builder appends nodes for one layer after the other.
type builder struct {
	g     *ir.Graph
	train bool // with dropout and drop path
	sites int  // random sites numbered so far
	pos   ir.Pos
	layer string // full name of the layer being built
}

// at sets the layer that the next nodes come from.
func (b *builder) at(l *spec.Base) {
	b.pos, b.layer = ir.Pos{Line: l.Pos.Line, Col: l.Pos.Col}, l.Name
}

func (b *builder) node(op ir.Op, attrs ir.Attrs, args ...*ir.Value) *ir.Node {
	return b.g.MustAdd(op, b.pos, b.layer, attrs, args...)
}

func (b *builder) add(op ir.Op, attrs ir.Attrs, args ...*ir.Value) *ir.Value {
	return b.node(op, attrs, args...).Out()
}

// site numbers the next place that could draw random numbers.
func (b *builder) site() int {
	b.sites++
	return b.sites - 1
}

// reshape views x under another shape per sample.
func (b *builder) reshape(x *ir.Value, shape ...int) *ir.Value {
	return b.add(ir.OpReshape, ir.A("shape", shape), x)
}

// params declares a layer's parameters and hands them out one by one, in the
// order of spec.Params.
func (b *builder) params(l spec.Layer) func() *ir.Value {
	ps := spec.Params(l)
	return func() *ir.Value {
		if len(ps) == 0 {
			panic(fmt.Sprintf("BUG: layer %s has no further parameter", l.Common().Name))
		}
		p := ps[0]
		ps = ps[1:]
		return b.add(ir.OpParam, ir.A("name", p.Name, "type", ir.Tensor(ir.F32, p.Shape...)))
	}
}

// layers builds a list of layers, each on the result of the one before.
func (b *builder) layers(list []spec.Layer, x *ir.Value) *ir.Value {
	for _, l := range list {
		x = b.buildLayer(l, x)
	}
	return x
}
