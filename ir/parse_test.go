package ir_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitgen/vitgen/ir"
)

// Texts in the exact form String prints: one per stage.
var canonical = map[string]string{
	"forward": `graph "v-1" "dir\tv.yaml" forward {
  %0 = input {name="image", type=f32[4|1,4,4]} : f32[4|1,4,4]
  %1 = input {name="label", type=i32[4|]} : i32[4|]
  %2 = param {name="w", type=f32[3,16]} : f32[3,16] @3:5 "fc"
  %3 = reshape %0 {shape=(16)} : f32[4|16]
  %5 = linear %3, %2 : f32[4|3] @3:5 "fc"
  %6, %7 = cross_entropy %5, %1 {smoothing=0.0} : f32[4|], f32[4|]
  %8 = const {type=f32[], value=-Inf} : f32[]
  %9 = const {type=bf16[2], value=1e-05} : bf16[2]
  return logits=%5, loss=%6, correct=%7, "grad.a-b"=%8
}
`,
	"fused": `graph v "v.yaml" fused {
  group none {
    %0 = input {name="image", type=f32[4|16]} : f32[4|16]
    %1 = param {name="w", type=f32[3,16]} : f32[3,16]
  }
  group gemm {
  * %2 = linear %0, %1 : f32[4|3]
    %3 = relu %2 : f32[4|3]
  }
  return logits=%3
}
`,
	"planned": `graph v "v.yaml" planned arena=128 {
  group none {
    %0 = input {name="image", type=f32[4|16]} : f32[4|16]
  }
  group pointwise {
    %3 = relu %0 : f32[4|16]!0+256
  }
  return
}
`,
	"empty": "graph v \"\" train {\n  return\n}\n",
}

func TestParsePrints(t *testing.T) {
	for name, text := range canonical {
		t.Run(name, func(t *testing.T) {
			g, err := ir.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(text, g.String()); diff != "" {
				t.Errorf("printed text differs (-want +got):\n%s", diff)
			}
			clone, _ := g.Clone()
			if diff := cmp.Diff(text, clone.String()); diff != "" {
				t.Errorf("the clone's text differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseFreshIDs(t *testing.T) {
	g, err := ir.Parse(canonical["forward"])
	if err != nil {
		t.Fatal(err)
	}
	n := g.MustAdd(ir.OpRelu, ir.Pos{}, "", nil, g.Output("logits"))
	if n.Out().ID != 10 {
		t.Errorf("a new value is %v, wants %%10: IDs in the text go up to 9", n.Out())
	}
}

func TestParseErrors(t *testing.T) {
	const head = "graph v \"f\" forward {\n"
	tests := []struct{ name, text, want string }{
		{"empty", "", `1:1: want "graph", found the end of the text`},
		{"not a graph", "model x", `1:1: want "graph", found "model"`},
		{"file not quoted", "graph v f forward {}", `1:9: want the spec's file name in quotes, found "f"`},
		{"bad string", `graph v "f`, `1:9: bad string`},
		{"stage", `graph v "f" raw {}`, `1:13: unknown stage "raw"`},
		{"no arena", `graph v "f" planned {`, `1:21: want "arena", found '{'`},
		{"cut off", head + "  return", `2:9: want an output's name, found the end of the text`},
		{"trailing text", head + "return } x", `2:10: want the end of the text, found "x"`},
		{"trailing zero", head + "return }\x00", `2:9: want the end of the text, found '\x00'`},
		{"op", head + "%0 = conv : f32[1]", `2:6: unknown op "conv"`},
		{"not defined", head + "  %1 = relu %0 : f32[1]", `2:13: %0 is not defined here`},
		{"reads itself", head + "  %0 = relu %0 : f32[1]", `2:13: %0 is not defined here`},
		{"defined twice", head + "%0 = scalar {name=\"lr\"} : f32[]\n%0 = scalar {name=\"lr\"} : f32[]", `3:1: %0 is defined twice`},
		{"twice in a node", head + "%0, %0 = relu", `2:5: %0 is defined twice`},
		{"negative id", head + "%-1 = relu", `2:1: %-1 is out of range`},
		{"huge id", head + "%99999999999999999999 = relu", `2:2: want an integer, found "99999999999999999999"`},
		{"operand count", head + "%0 = relu : f32[1]", `2:1: relu: has 0 operands, wants 1`},
		{"stated type", head + "%0 = const {type=f32[2], value=0.0} : f32[3]", `2:39: %0 is f32[2], not f32[3]`},
		{"result count", head + "%0, %1 = scalar {name=\"lr\"} : f32[], f32[]", `2:1: scalar has 1 results, not 2`},
		{"element type", head + "%0 = const {type=f64[2], value=0.0} : f64[2]", `2:18: unknown element type "f64"`},
		{"invalid type", head + "%0 = const {type=invalid[2], value=0.0} : f32[2]", `2:1: const: type invalid[2] is invalid`},
		{"empty dimension", head + "%0 = const {type=f32[0], value=0.0} : f32[0]", `2:1: const: type f32[0] has an empty dimension`},
		{"huge type", head + "%0 = const {type=f32[1048576,1048577], value=0.0} : f32[1]", `2:1: const: result f32[1048576,1048577] has more than 2^40 elements`},
		{"huge dimension", head + "%0 = const {type=f32[4611686018427387904], value=0.0} : f32[1]", `2:1: const: attribute type is out of range: 4611686018427387904`},
		{"attribute kind", head + "%0 = const {type=f32[2], value=1} : f32[2]", `2:1: const: attribute value is 1, wants float`},
		{"attribute twice", head + "%0 = const {value=1.0, value=2.0} : f32[2]", `2:24: attribute value is given twice`},
		{"attribute text", head + "%0 = const {value=1.0.0} : f32[2]", `2:19: want a value, found "1.0.0"`},
		{"attribute range", head + "%0 = const {value=99999999999999999999} : f32[2]", `2:19: want a value, found "99999999999999999999"`},
		{"dangling comma", head + "%0 = reshape {shape=(1,)} : f32[2]", `2:24: want an integer, found ')'`},
		{"characters, not bytes", head + "\"α\" %0", `2:1: want "return", found '"'`},
		{"column", head + `%0 = param {name="αβ", type=f32[0]} : f32[1`, `2:1: param: type f32[0] has an empty dimension`},
		{"place too early", head + "%0 = scalar {name=\"lr\"} : f32[]!0+64", `2:32: place in a graph that is not planned`},
		{"mixed", head + "group none { }\n%0 = scalar", `3:1: node outside of a group`},
		{"mixed after", head + "%0 = scalar {name=\"lr\"} : f32[] group none { }", `2:33: group after nodes that are in none`},
		{"family", head + "group conv { }", `2:7: unknown family "conv"`},
		{"two anchors", head + "group gemm { * %0 = scalar {name=\"lr\"} : f32[]\n* %1 = scalar {name=\"lr\"} : f32[] }", `3:1: a second anchor in one group`},
		{"output", head + "return x=%0 }", `2:10: %0 is not defined here`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g, err := ir.Parse(tt.text)
			if err == nil {
				t.Fatalf("parsed as\n%v", g)
			}
			if err.Error() != tt.want {
				t.Errorf("got  %v\nwant %v", err, tt.want)
			}
		})
	}
}

// Whatever Parse accepts prints to a text that reads back as itself.
func FuzzParse(f *testing.F) {
	for _, text := range canonical {
		f.Add(text)
		f.Add(strings.Replace(text, "4|", "4|9,", 1))
	}
	f.Add("graph v \"f\" forward {\n%0 = reshape %1 {shape=(9223372036854775807,2)} : f32[1|1]")
	f.Fuzz(func(t *testing.T, text string) {
		g, err := ir.Parse(text)
		if err != nil {
			return
		}
		printed := g.String()
		again, err := ir.Parse(printed)
		if err != nil {
			t.Fatalf("the printed form is refused: %v\n%s", err, printed)
		}
		if again.String() != printed {
			t.Fatalf("the text changed:\n%s\nto\n%s", printed, again)
		}
		_ = ir.Verify(g) // any error will do, but no panic
	})
}
