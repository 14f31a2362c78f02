// Package irtest makes graphs, environments and checks for the tests of other
// packages: random forward graphs, a small graph around every differentiable
// op, random parameters and inputs, and a finite-difference gradient check.
// Nothing but tests may import it.
package irtest

import (
	"fmt"

	"github.com/vitgen/vitgen/ir"
)

// builder adds nodes to a forward graph. Every layer gets a spec line and a
// name of its own, and every random op its own site, as the front end does.
type builder struct {
	g     *ir.Graph
	pos   ir.Pos
	layer string
	sites int
	made  int // layers and parameters so far, for names
}

func newBuilder(name string) *builder {
	return &builder{g: ir.NewGraph(name, name+".yaml"), pos: ir.Pos{Line: 1, Col: 5}}
}

// begin starts a layer.
func (b *builder) begin(kind string) {
	b.made++
	b.pos.Line++
	b.layer = fmt.Sprintf("l%d.%s", b.made, kind)
}

func (b *builder) add(op ir.Op, attrs ir.Attrs, args ...*ir.Value) *ir.Value {
	return b.g.MustAdd(op, b.pos, b.layer, attrs, args...).Out()
}

func (b *builder) input(name string, t ir.Type) *ir.Value {
	return b.add(ir.OpInput, ir.A("name", name, "type", t))
}

// param makes a parameter called after the layer.
func (b *builder) param(suffix string, shape ...int) *ir.Value {
	b.made++
	name := fmt.Sprintf("%s.p%d.%s", b.layer, b.made, suffix)
	return b.add(ir.OpParam, ir.A("name", name, "type", ir.Tensor(ir.F32, shape...)))
}

func (b *builder) reshape(x *ir.Value, shape ...int) *ir.Value {
	return b.add(ir.OpReshape, ir.A("shape", append([]int{}, shape...)), x)
}

func (b *builder) slice(op ir.Op, x *ir.Value, from, to int) *ir.Value {
	return b.add(op, ir.A("from", from, "to", to), x)
}

// linear makes a fully connected layer to out features.
func (b *builder) linear(x *ir.Value, out int, bias bool) *ir.Value {
	y := b.add(ir.OpLinear, nil, x, b.param("weight", out, x.Type.Last()))
	if bias {
		y = b.add(ir.OpAdd, nil, y, b.param("bias", out))
	}
	return y
}

func (b *builder) layerNorm(x *ir.Value, shape ...int) *ir.Value {
	return b.add(ir.OpLayerNorm, ir.A("eps", 1e-5), x, b.param("weight", shape...), b.param("bias", shape...))
}

func (b *builder) site() int {
	b.sites++
	return b.sites - 1
}

func (b *builder) dropout(x *ir.Value, p float64) *ir.Value {
	return b.add(ir.OpDropout, ir.A("p", p, "site", b.site(), "rows", x.Type.Rows(), "first_row", 0), x)
}

func (b *builder) attention(q, k, v *ir.Value, attrs ...any) *ir.Value {
	return b.add(ir.OpAttention, b.attentionAttrs(q, attrs), q, k, v)
}

// attentionAttrs are those of one head without dropout, but for the given ones.
func (b *builder) attentionAttrs(q *ir.Value, attrs []any) ir.Attrs {
	a := ir.A("heads", 1, "scale", 0.5, "causal", false, "p", 0.0, "site", b.site(),
		"q_first", 0, "q_total", q.Type.Sample()[0])
	for i := 0; i < len(attrs); i += 2 {
		a = a.With(attrs[i].(string), attrs[i+1])
	}
	return a
}

// classify ends the graph: a linear head over the flattened x, the loss of one
// label or of two, and the outputs logits, loss and correct.
func (b *builder) classify(x *ir.Value, classes int, smoothing float64, mixed bool) *ir.Graph {
	b.begin("head")
	if n := x.Type.Elems() / x.Type.Shape[0]; len(x.Type.Sample()) != 1 {
		x = b.reshape(x, n)
	}
	logits := b.linear(x, classes, true)
	b.begin("loss")
	batch := logits.Type.Shape[0]
	op, args := ir.OpCrossEntropy, []*ir.Value{logits, b.input("label", ir.BatchOf(ir.I32, batch))}
	if mixed {
		op = ir.OpMixedCrossEntropy
		args = append(args, b.input("label2", ir.BatchOf(ir.I32, batch)), b.input("mix", ir.BatchOf(ir.F32, batch)))
	}
	ce := b.g.MustAdd(op, b.pos, b.layer, ir.A("smoothing", smoothing), args...)
	b.g.Return("logits", logits)
	b.g.Return("loss", ce.Outs[0])
	b.g.Return("correct", ce.Outs[1])
	return b.g
}
