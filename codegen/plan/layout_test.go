package plan

import (
	"strings"
	"testing"

	"github.com/vitgen/vitgen/ir"
)

// stacked makes a graph that stacks the named [4,8] parameters.
func stacked(t *testing.T, stacks ...[]string) *ir.Graph {
	t.Helper()
	g := ir.NewGraph("g", "test.yaml")
	params := map[string]*ir.Value{}
	for _, names := range stacks {
		var args []*ir.Value
		for _, name := range names {
			if params[name] == nil {
				params[name] = g.MustAdd(ir.OpParam, ir.Pos{}, "", ir.A("name", name, "type", ir.Tensor(ir.F32, 4, 8))).Out()
			}
			args = append(args, params[name])
		}
		g.MustAdd(ir.OpConcatFirst, ir.Pos{}, "", nil, args...)
	}
	return g
}

func declared(names string, decay bool) []Param {
	var out []Param
	for name := range strings.FieldsSeq(names) {
		out = append(out, Param{Name: name, Shape: []int{4, 8}, Decay: decay})
	}
	return out
}

// TestLayoutKeepsNeighbours declares q, k and v apart and expects them
// together, behind each other, with what decays before what does not.
func TestLayoutKeepsNeighbours(t *testing.T) {
	params := append(declared("bias", false), declared("q other k v", true)...)
	l, err := layoutParams(params, []*ir.Graph{stacked(t, []string{"q", "k", "v"}, []string{"k", "v"})})
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]int{}
	for _, p := range l.Params {
		at[p.Name] = p.Offset
		if inDecay := p.Offset < l.DecayElems; inDecay != p.Decay {
			t.Errorf("%s at %d is on the wrong side of %d", p.Name, p.Offset, l.DecayElems)
		}
	}
	if at["k"] != at["q"]+32 || at["v"] != at["k"]+32 {
		t.Errorf("q, k, v are no neighbours: %v", at)
	}
	if l.Params[0].Name != "bias" {
		t.Errorf("the declared order changed: %v", l.Params)
	}
	if l.Elems%paramAlign != 0 || l.Elems < 5*32 {
		t.Errorf("arena of %d elements", l.Elems)
	}
}

// TestLayoutRefusesContradictions asks for two different successors.
func TestLayoutRefusesContradictions(t *testing.T) {
	g := stacked(t, []string{"a", "b"}, []string{"a", "c"})
	if _, err := layoutParams(declared("a b c", true), []*ir.Graph{g}); err == nil || !strings.Contains(err.Error(), "cannot stand before both") {
		t.Errorf("got %v", err)
	}
}

// TestLastPart checks that a parameter's name cannot become anything but a
// variable of its own in C++.
func TestLastPart(t *testing.T) {
	for name, want := range map[string]string{
		"blks.0.ln1.weight": "weight", "cls_token": "cls_token", "a.class": "param_class", "x.float": "param_float",
		"x.7": "param_7", "at": "param_at", "v3": "param_v3", "epilogue": "param_epilogue", "x.size_t": "param_size_t",
		"a-b": "a_b", "__x": "param_x", "W": "param_W", "add_in2": "param_add_in2",
	} {
		if got := lastPart(name); got != want {
			t.Errorf("lastPart(%q) = %q, want %q", name, got, want)
		}
	}
}
