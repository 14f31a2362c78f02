package onnx

import (
	"fmt"
	"slices"

	"github.com/vitgen/vitgen/ir"
)

// lowering writes a graph as ONNX, from its output backward: a node is written
// when another asks for its result, so that a rule which reads past a node, and
// says both as one operator, leaves nothing unread behind.
type lowering struct {
	graph
	src   *ir.Graph
	uses  map[*ir.Value][]*ir.Node
	names map[*ir.Value]string
	parts map[*ir.Value]map[int]string // of values cut by a Split: results by where they start
	at    *ir.Node                     // the node being written
}

// rule writes a node and gives the name of its first result. Further results,
// such as the statistics of layernorm, are for the backward pass.
type rule func(l *lowering, n *ir.Node) string

func newLowering(src *ir.Graph) *lowering {
	return &lowering{
		graph: graph{taken: map[string]bool{}},
		src:   src,
		uses:  src.Uses(),
		names: map[*ir.Value]string{},
		parts: map[*ir.Value]map[int]string{},
	}
}

// run writes all that the logits depend on.
func (l *lowering) run() error {
	for _, n := range l.src.Nodes {
		if n.Op == ir.OpParam {
			l.taken[n.Str("name")] = true // before all others: files have these names
		}
	}
	logits := l.src.Output("logits")
	if logits == nil {
		return fmt.Errorf("BUG: %s has no logits", l.src.Name)
	}
	out := valueInfo{l.unique("logits"), logits.Type}
	l.rename(l.of(logits), out.name)
	l.outputs = []valueInfo{out}
	return nil
}

// of gives the ONNX name of a value, and writes its node if that is to be done.
func (l *lowering) of(v *ir.Value) string {
	if name, ok := l.names[v]; ok {
		return name
	}
	n := v.Def
	lower := rules[n.Op]
	switch {
	case lower == nil:
		panic(fmt.Sprintf("BUG: %s in a graph for ONNX: %s", n.Op, absent[n.Op]))
	case v != n.Out():
		panic(fmt.Sprintf("BUG: result %d of %s is read, which has no ONNX form", v.Out, n.Op))
	}
	outer := l.at
	l.at = n
	name := lower(l, n)
	l.at = outer
	l.names[v] = name
	if v.Type.Batched && n.Op != ir.OpInput {
		l.values = append(l.values, valueInfo{name, v.Type})
	}
	return name
}

// arg is the ONNX name of an operand of the node being written.
func (l *lowering) arg(i int) string { return l.of(l.at.Args[i]) }

// emit adds an operator of the layer being written and gives its result.
func (l *lowering) emit(op string, inputs []string, attrs ...attr) string {
	return l.emitN(op, 1, inputs, attrs...)[0]
}

// emitN adds an operator with n results.
func (l *lowering) emitN(op string, n int, inputs []string, attrs ...attr) []string {
	name := l.unique(l.at.Layer + "/" + op)
	outputs := []string{name}
	if n > 1 {
		outputs = outputs[:0]
		for i := range n {
			outputs = append(outputs, l.unique(fmt.Sprintf("%s.%d", name, i)))
		}
	}
	doc := ""
	if p := l.at.Pos; p != (ir.Pos{}) {
		doc = fmt.Sprintf("%s:%d:%d", l.src.File, p.Line, p.Col)
	}
	l.nodes = append(l.nodes, node{op: op, name: name, doc: doc, inputs: inputs, outputs: slices.Clone(outputs), attrs: attrs})
	return outputs
}

// reshape gives the value x another shape per sample; without a batch, another
// shape. ONNX takes 0 for "as it is", which leaves the batch open.
func (l *lowering) reshape(x string, batched bool, shape ...int) string {
	if batched {
		shape = append([]int{0}, shape...)
	}
	return l.emit("Reshape", []string{x, l.ints(shape...)})
}

func (l *lowering) transpose(x string, perm ...int) string {
	return l.emit("Transpose", []string{x}, attr{"perm", perm})
}
