package ir_test

import (
	"testing"

	"github.com/vitgen/vitgen/ir"
)

// A graph of every stage that breaks no rule; each test below breaks one.
const (
	sound = `graph v "v.yaml" forward {
  %0 = input {name="image", type=f32[4|16]} : f32[4|16]
  %1 = param {name="w", type=f32[3,16]} : f32[3,16]
  %2 = linear %0, %1 : f32[4|3] @3:5 "fc"
  %3 = relu %2 : f32[4|3] @4:5 "act"
  return logits=%3
}
`
	soundPlanned = `graph v "v.yaml" planned arena=256 {
  group none {
    %0 = input {name="image", type=f32[4|16]} : f32[4|16]
    %1 = param {name="w", type=f32[3,16]} : f32[3,16]
  }
  group gemm {
  * %2 = linear %0, %1 : f32[4|3]!64+64 @3:5 "fc"
    %3 = scale %2 {by=2.0} : f32[4|3] @4:5
  }
  group none {
    %4 = reshape %2 {shape=(3,1)} : f32[4|3,1]
  }
  group reduce {
  * %5 = sum_tokens %4 : f32[4|1]!0+64 @5:5
  }
  return logits=%5
}
`
)

func parse(t *testing.T, text string) *ir.Graph {
	t.Helper()
	g, err := ir.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestVerifySound(t *testing.T) {
	for _, text := range []string{sound, soundPlanned} {
		if err := ir.Verify(parse(t, text)); err != nil {
			t.Errorf("%v\nin %s", err, text)
		}
	}
	for name, text := range canonical {
		if name == "planned" {
			continue // its value does not fit its arena
		}
		if err := ir.Verify(parse(t, text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerifyRules(t *testing.T) {
	const fc = `v (forward): %2 = linear of layer "fc" at v.yaml:3:5: `
	const act = `v (forward): %3 = relu of layer "act" at v.yaml:4:5: `
	tests := []struct {
		name string
		harm func(g *ir.Graph)
		want string
	}{
		{"nil node", func(g *ir.Graph) { g.Nodes[1] = nil },
			"v (forward): node 1 is nil or has an unknown op"},
		{"unknown op", func(g *ir.Graph) { g.Nodes[1].Op = 255 },
			"v (forward): node 1 is nil or has an unknown op"},
		{"node twice", func(g *ir.Graph) { g.Nodes = append(g.Nodes, g.Nodes[2]) },
			fc + "stands in the graph twice"},
		{"use before definition", func(g *ir.Graph) { g.Nodes[2], g.Nodes[3] = g.Nodes[3], g.Nodes[2] },
			act + "reads %2, which no earlier node defines"},
		{"operand of another graph", func(g *ir.Graph) {
			c, _ := g.Clone()
			g.Nodes[3].Args[0] = c.Nodes[2].Out()
		}, act + "reads %2, which no earlier node defines"},
		{"nil operand", func(g *ir.Graph) { g.Nodes[3].Args[0] = nil },
			act + "reads <nil>, which no earlier node defines"},
		{"operand count", func(g *ir.Graph) { g.Nodes[3].Args = nil },
			act + "has 0 operands, wants 1"},
		{"attribute unknown to the table", func(g *ir.Graph) { g.Nodes[3].Attrs = ir.A("by", 2.0) },
			act + "has 1 attributes, wants 0"},
		{"attribute kind", func(g *ir.Graph) { g.Nodes[1].Attrs = g.Nodes[1].Attrs.With("name", 7) },
			"v (forward): %1 = param: attribute name is 7, wants string"},
		{"shape rule", func(g *ir.Graph) { g.Nodes[2].Args[1] = g.Nodes[0].Out() },
			fc + "weight is f32[4|16], wants [N,K]"},
		{"result count", func(g *ir.Graph) { g.Nodes[3].Outs = nil },
			`v (forward): relu of layer "act" at v.yaml:4:5: has 0 results, its op gives 1`},
		{"result of another node", func(g *ir.Graph) { g.Nodes[3].Outs = g.Nodes[2].Outs },
			`v (forward): %2 = relu of layer "act" at v.yaml:4:5: result 0 does not point back to its node`},
		{"result index", func(g *ir.Graph) { g.Nodes[3].Out().Out = 1 },
			act + "result 0 does not point back to its node"},
		{"duplicate ID", func(g *ir.Graph) { g.Nodes[3].Out().ID = 1 },
			`v (forward): %1 = relu of layer "act" at v.yaml:4:5: %1 is defined twice`},
		{"ID to come", func(g *ir.Graph) { g.Nodes[3].Out().ID = 4 },
			`v (forward): %4 = relu of layer "act" at v.yaml:4:5: %4 may be given again: the next new value is %4`},
		{"result type", func(g *ir.Graph) { g.Nodes[3].Out().Type = ir.Tensor(ir.F32, 4, 3) },
			act + "%3 is f32[4,3], its op infers f32[4|3]"},
		{"two batches", func(g *ir.Graph) {
			g.MustAdd(ir.OpInput, ir.Pos{}, "", ir.A("name", "label", "type", ir.BatchOf(ir.I32, 5)))
		}, "v (forward): %4 = input: a batch of 5 in a graph whose batch is 4"},
		{"nameless output", func(g *ir.Graph) { g.Return("", g.Nodes[3].Out()) },
			"v (forward): an output has no name"},
		{"output twice", func(g *ir.Graph) { g.Return("logits", g.Nodes[2].Out()) },
			`v (forward): output "logits" is declared twice`},
		{"output of another graph", func(g *ir.Graph) {
			c, _ := g.Clone()
			g.Return("loss", c.Nodes[3].Out())
		}, `v (forward): output "loss" is %3, which no node defines`},
		{"gradient in a forward graph", func(g *ir.Graph) {
			x := g.Nodes[3].Out()
			g.MustAdd(ir.OpReluGrad, ir.Pos{}, "", nil, x, x)
		}, "v (forward): %4 = relu_grad: stands in a forward graph"},
		{"optimizer in a forward graph", func(g *ir.Graph) {
			p := g.Nodes[1].Out()
			lr := g.MustAdd(ir.OpScalar, ir.Pos{}, "", ir.A("name", "lr")).Out()
			g.MustAdd(ir.OpSGD, ir.Pos{}, "", ir.A("weight_decay", 0.0), p, p, lr)
		}, "v (forward): %5 = sgd: stands in a forward graph"},
		{"groups too early", func(g *ir.Graph) { g.Groups = []*ir.Group{} },
			"v (forward): has groups before it is fused"},
		{"places too early", func(g *ir.Graph) { g.Places = map[*ir.Value]ir.Place{} },
			"v (forward): has places before it is planned"},
		{"no groups", func(g *ir.Graph) { g.Stage = ir.StageFused },
			"v (fused): %0 = input: is in no group"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { checkHarm(t, sound, tt.harm, tt.want) })
	}
}

func TestVerifyPlannedRules(t *testing.T) {
	const fc = `v (planned): %2 = linear of layer "fc" at v.yaml:3:5: `
	const sum = `v (planned): %5 = sum_tokens at v.yaml:5:5: `
	place := func(node int, offset, size int64) func(g *ir.Graph) {
		return func(g *ir.Graph) { g.Places[g.Nodes[node].Out()] = ir.Place{Offset: offset, Size: size} }
	}
	tests := []struct {
		name string
		harm func(g *ir.Graph)
		want string
	}{
		{"empty group", func(g *ir.Graph) { g.Groups[2].Nodes = nil },
			"v (planned): group 2 (none) is empty"},
		{"group order", func(g *ir.Graph) { g.Groups[1], g.Groups[2] = g.Groups[2], g.Groups[1] },
			fc + "group 1 (none) does not continue the graph's order from here"},
		{"operand of a later group", func(g *ir.Graph) {
			g.Groups[2], g.Groups[3] = g.Groups[3], g.Groups[2]
			g.Nodes[4], g.Nodes[5] = g.Nodes[5], g.Nodes[4]
		}, sum + "reads %4, which no earlier node defines"},
		{"node in two groups", func(g *ir.Graph) { g.Groups = append(g.Groups, g.Groups[1]) },
			"v (planned): group 4 (gemm) holds more nodes than the graph has left"},
		{"node in no group", func(g *ir.Graph) { g.Groups = g.Groups[:3] },
			sum + "is in no group"},
		{"source in a kernel", func(g *ir.Graph) {
			g.Groups[1].Nodes = g.Nodes[:4]
			g.Groups = g.Groups[1:]
		}, "v (planned): %0 = input: a source stands in a group of family gemm"},
		{"view in a kernel", func(g *ir.Graph) {
			g.Groups[3].Nodes = g.Nodes[4:]
			g.Groups = append(g.Groups[:2], g.Groups[3])
		}, "v (planned): %4 = reshape: a view stands in a group of family reduce"},
		{"kernel without code", func(g *ir.Graph) { g.Groups[3].Family = ir.FamilyNone },
			sum + "a reduce stands in a group of family none"},
		{"no anchor", func(g *ir.Graph) { g.Groups[1].Anchor = nil },
			fc + "its group, of family gemm, has no anchor"},
		{"anchor elsewhere", func(g *ir.Graph) { g.Groups[1].Anchor = g.Nodes[5] },
			sum + "anchors a group it is not in"},
		{"anchor's family", func(g *ir.Graph) { g.Groups[1].Anchor = g.Nodes[3] },
			"v (planned): %3 = scale at v.yaml:4:5: a pointwise cannot anchor a group of family gemm"},
		{"no place", func(g *ir.Graph) { delete(g.Places, g.Nodes[2].Out()) },
			fc + "%2 is read outside of its kernel, and its root %2 has no place"},
		{"output without a place", func(g *ir.Graph) { delete(g.Places, g.Nodes[5].Out()) },
			sum + "%5 is read outside of its kernel, and its root %5 has no place"},
		{"place of a view", place(4, 0, 64), "v (planned): %4 = reshape: %4 has a place in the arena but lies in the memory of %2"},
		{"place of a parameter", place(1, 0, 192), "v (planned): %1 = param: %1 has a place in the arena but lies in the memory of %1"},
		{"no layout", func(g *ir.Graph) { g.Return("grad.w", g.Nodes[1].Out()) },
			"v (planned): output grad.w is %1, which has memory of its own"},
		{"alignment", place(2, 32, 64), fc + "%2 is at offset 32, no multiple of 64"},
		{"too small", place(2, 64, 47), fc + "%2 has 47 bytes for f32[4|3], which takes 48"},
		{"beyond the arena", place(2, 192, 65), fc + "%2 is at 192+65 in an arena of 256 bytes"},
		{"before the arena", place(2, -64, 64), fc + "%2 is at -64+64 in an arena of 256 bytes"},
		{"overflowing size", place(2, 64, 1<<63-1), fc + "%2 is at 64+9223372036854775807 in an arena of 256 bytes"},
		{"stranger's place", func(g *ir.Graph) { g.Places[&ir.Value{}] = ir.Place{} },
			"v (planned): 1 places belong to values that are not in the graph"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { checkHarm(t, soundPlanned, tt.harm, tt.want) })
	}
}

// checkHarm harms a sound graph and wants Verify to say so.
func checkHarm(t *testing.T, text string, harm func(*ir.Graph), want string) {
	t.Helper()
	g := parse(t, text)
	harm(g)
	err := ir.Verify(g)
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
