package ir_test

import (
	"slices"
	"testing"

	"github.com/vitgen/vitgen/ir"
)

func TestAttrs(t *testing.T) {
	a := ir.A("b", 1, "a", "x")
	if got := []string{a[0].Key, a[1].Key}; !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("keys are in the order %v", got)
	}
	changed := a.With("b", 2).With("c", true)
	if a.Get("b") != 1 || a.Get("c") != nil {
		t.Errorf("With changed its receiver: %v", a)
	}
	if changed.Get("a") != "x" || changed.Get("b") != 2 || changed.Get("c") != true || len(changed) != 3 {
		t.Errorf("With gives %v", changed)
	}
}

// Rewriting: insert before a node, redirect its readers, count uses.
func TestRewrite(t *testing.T) {
	g := parse(t, sound)
	lin, relu := g.Nodes[2], g.Nodes[3]
	double := g.InsertBefore(relu, ir.OpScale, lin.Pos, lin.Layer, ir.A("by", 2.0), lin.Out())
	if g.Nodes[3] != double || g.Nodes[4] != relu || len(g.Nodes) != 5 {
		t.Fatalf("the node is not before its reader:\n%v", g)
	}
	relu.Args[0] = double.Out()
	g.ReplaceAll(relu.Out(), double.Out())
	if g.Output("logits") != double.Out() {
		t.Errorf("the output is still %v", g.Output("logits"))
	}
	if g.Output("loss") != nil {
		t.Error("an output that was never declared is found")
	}
	if uses := g.Uses()[double.Out()]; !slices.Equal(uses, []*ir.Node{relu}) {
		t.Errorf("uses are %v", uses)
	}
	if err := ir.Verify(g); err != nil {
		t.Error(err)
	}
}

// A clone shares nothing that a pass changes.
func TestClone(t *testing.T) {
	g := parse(t, soundPlanned)
	c, vals := g.Clone()
	before := g.String()
	for _, n := range c.Nodes {
		n.Layer = "changed"
	}
	c.Nodes[2].Args[0] = c.Nodes[3].Out()
	c.Places[c.Nodes[2].Out()] = ir.Place{Offset: 1}
	c.Groups[0].Family = ir.FamilyRow
	c.Outputs[0].Name = "changed"
	if g.String() != before {
		t.Errorf("the original changed to\n%v", g)
	}
	for v, w := range vals {
		if v == w || v.ID != w.ID {
			t.Errorf("%v is cloned as %v", v, w)
		}
	}
}

// A refused node leaves the graph as it was.
func TestAddRefused(t *testing.T) {
	g := parse(t, sound)
	before := g.String()
	if n, err := g.Add(ir.OpRelu, ir.Pos{}, "", nil); err == nil {
		t.Errorf("relu without operands is accepted as %v", n.Out())
	}
	defer func() {
		if recover() == nil {
			t.Error("MustAdd does not panic")
		}
		if g.String() != before {
			t.Errorf("the graph changed to\n%v", g)
		}
	}()
	g.MustAdd(ir.OpRelu, ir.Pos{}, "", nil)
}
