package onnx

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/internal/onnxpb"
	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/spec"
)

// specs are all specs of the repository that PyTorch has a golden of.
func specs(t testing.TB) []*spec.Spec {
	t.Helper()
	var out []*spec.Spec
	for _, pattern := range []string{"../../golden/specs/*.yaml", "../../examples/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no specs %s: %v", pattern, err)
		}
		for _, f := range files {
			src, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			s, err := spec.Parse(f, src)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, s)
		}
	}
	return out
}

// skeletonOf compiles a spec as far as its ONNX graph.
func skeletonOf(t testing.TB, s *spec.Spec) []byte {
	t.Helper()
	g, err := passes.Inference(s)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Skeleton(Input{Graph: g, Name: s.Name, SpecHash: s.Hash(), Generator: "test", Mean: s.Data.Mean, Std: s.Data.Std})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Every op is either written or has a reason not to be.
func TestOpTable(t *testing.T) {
	for _, op := range ir.Ops() {
		if (rules[op] == nil) == (absent[op] == "") {
			t.Errorf("%s: rule %v, reason for none %q; want one of them", op, rules[op] != nil, absent[op])
		}
	}
}

// What every graph must be, seen in the bytes: names are defined before they
// are read, and once; all parameters are read; nothing else is left open.
func TestStructure(t *testing.T) {
	for _, s := range specs(t) {
		t.Run(s.Name, func(t *testing.T) {
			g := decodeGraph(t, skeletonOf(t, s))
			defined, read := map[string]bool{}, map[string]bool{}
			define := func(name string) {
				if name == "" || defined[name] {
					t.Errorf("%q is defined twice, or nameless", name)
				}
				defined[name] = true
			}
			for _, p := range s.Params() {
				define(p.Name)
			}
			for _, c := range g.messages(t, onnxpb.GraphInitializer) {
				define(c.string(onnxpb.TensorName))
			}
			in, out := g.message(t, onnxpb.GraphInput), g.message(t, onnxpb.GraphOutput)
			define(in.string(onnxpb.ValueName))
			names := map[string]bool{}
			place := regexp.MustCompile(fmt.Sprintf(`^%s:\d+:\d+$`, regexp.QuoteMeta(filepath.Base(s.File))))
			for _, n := range g.messages(t, onnxpb.GraphNode) {
				name := n.string(onnxpb.NodeName)
				if names[name] || !strings.HasSuffix(strings.TrimRight(name, "_0123456789"), "/"+n.string(onnxpb.NodeOpType)) {
					t.Errorf("node %q: not of its own, or not of operator %s", name, n.string(onnxpb.NodeOpType))
				}
				names[name] = true
				for _, x := range n.strings(onnxpb.NodeInput) {
					if !defined[x] {
						t.Errorf("node %s reads %s before it is defined", name, x)
					}
					read[x] = true
				}
				for _, y := range n.strings(onnxpb.NodeOutput) {
					define(y)
				}
				if doc := n.string(onnxpb.NodeDoc); !place.MatchString(doc) {
					t.Errorf("node %s comes from %q", name, doc)
				}
			}
			read[out.string(onnxpb.ValueName)] = true
			for name := range defined {
				if !read[name] {
					t.Errorf("%s is read by nothing", name)
				}
			}
			for _, v := range g.messages(t, onnxpb.GraphValueInfo) {
				if name := v.string(onnxpb.ValueName); !defined[name] {
					t.Errorf("a type is given for %s, which there is not", name)
				}
			}
			image := fmt.Sprintf("f32[batch,%d,%d,%d]", s.Input.Channels, s.Input.Height, s.Input.Width)
			if got := in.string(onnxpb.ValueName) + " " + typeOf(t, in); got != "image "+image {
				t.Errorf("input %s, want image %s", got, image)
			}
			if got, want := out.string(onnxpb.ValueName)+" "+typeOf(t, out), fmt.Sprintf("logits f32[batch,%d]", s.Input.Classes); got != want {
				t.Errorf("output %s, want %s", got, want)
			}
		})
	}
}

// A layer in ONNX, to the letter.
func TestText(t *testing.T) {
	src := `vitgen: 1
name: small
input: {image: [3, 4, 8], classes: 5}
model:
  - patch_embed: {name: patch, patch: 4, out: 6, bias: false}
  - pos_embed: {name: logits, max_len: 3}
  - residual:
    - attention: {name: attn, heads: 2, qkv: separate, causal: true, out_bias: false}
  - gelu: {approx: tanh}
  - select: {token: 1}
  - linear: {name: head, out: 5}
train: {batch: 2, epochs: 1, optimizer: {sgd: {lr: 0.1}}}
data: {synthetic: {train: 4, val: 2, normalize: {mean: [0.5, 0.25, 0], std: [1, 2, 3]}}}
`
	s, err := spec.Parse("small.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	skeleton := skeletonOf(t, s)
	var got bytes.Buffer
	model := decode(t, skeleton)
	for _, e := range model.messages(t, onnxpb.ModelMetadata) {
		fmt.Fprintf(&got, "%s = %s\n", e.string(onnxpb.EntryKey), e.string(onnxpb.EntryValue))
	}
	g := decodeGraph(t, skeleton)
	value := map[string]string{}
	for _, c := range g.messages(t, onnxpb.GraphInitializer) {
		if c.ints(onnxpb.TensorDataType)[0] == onnxpb.Int64 {
			value[c.string(onnxpb.TensorName)] = fmt.Sprint(integers(c))
		}
	}
	typ := map[string]string{}
	for _, v := range slices.Concat(g.messages(t, onnxpb.GraphValueInfo), g.messages(t, onnxpb.GraphOutput)) {
		typ[v.string(onnxpb.ValueName)] = " : " + typeOf(t, v)
	}
	for _, n := range g.messages(t, onnxpb.GraphNode) {
		outs, ins := n.strings(onnxpb.NodeOutput), n.strings(onnxpb.NodeInput)
		for i, x := range ins {
			if v, ok := value[x]; ok {
				ins[i] = v
			}
		}
		fmt.Fprintf(&got, "%s = %s(%s)%s\n", strings.Join(outs, " "), n.string(onnxpb.NodeOpType), strings.Join(ins, ", "), typ[outs[0]])
	}
	const file = "testdata/small.txt"
	if os.Getenv("VITGEN_UPDATE") == "1" {
		if err := os.WriteFile(file, got.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got.Bytes(), want)
	}
}
