package onnx

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/internal/python"
	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/ir/interp"
	"github.com/vitgen/vitgen/ir/irtest"
	"github.com/vitgen/vitgen/runtime/golden"
	"github.com/vitgen/vitgen/runtime/onnx"
	"github.com/vitgen/vitgen/spec"
)

// batches are the runs: one sample, a whole small batch, and one between.
func batches(samples int) []int { return slices.Compact([]int{1, min(3, samples), samples}) }

// What ONNX Runtime makes of a spec's graph with a golden's weights is what
// PyTorch computed, whatever the batch.
func TestGoldens(t *testing.T) {
	var cases []python.ONNX
	var goldens []*golden.Golden
	for _, s := range specs(t) {
		if s.Name == "vit_b16" && os.Getenv("VITGEN_BIG_GOLDENS") == "" {
			continue // 350 MB of weights; its layers are those of timm_small, in larger
		}
		gold := loadGolden(t, s)
		var weights []onnx.Tensor
		for _, p := range s.Params() {
			weights = append(weights, onnx.Tensor{Name: p.Name, Shape: p.Shape, Data: gold.Params[p.Name]})
		}
		file := filepath.Join(t.TempDir(), s.Name+".onnx")
		if _, err := onnx.Write(file, skeletonOf(t, s), nil, weights); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, python.ONNX{Model: file, Image: gold.Image, Batches: batches(gold.Batch)})
		goldens = append(goldens, gold)
	}
	for i, runs := range python.RunONNX(t, cases) {
		gold := goldens[i]
		for j, n := range cases[i].Batches {
			want := gold.Logits[:n*len(gold.Logits)/gold.Batch]
			row := golden.Compare("logits", runs[j], want, gold.Tolerance("logits", "fp32"))
			t.Logf("%s, %d samples: %.1e", filepath.Base(cases[i].Model), n, row.RelNorm)
			if !row.OK {
				t.Errorf("%s, %d samples: %s by %.2e, allowed is %.1e", filepath.Base(cases[i].Model), n, row.Reason, row.RelNorm, row.Tol)
			}
		}
	}
}

func loadGolden(t *testing.T, s *spec.Spec) *golden.Golden {
	t.Helper()
	name := strings.TrimSuffix(filepath.Base(s.File), ".yaml")
	m := golden.Model{Image: [3]int{s.Input.Channels, s.Input.Height, s.Input.Width}, Classes: s.Input.Classes}
	for _, p := range s.Params() {
		m.Params = append(m.Params, golden.ParamInfo{Name: p.Name, Shape: p.Shape})
	}
	gold, err := golden.Load("../../golden/"+name+".safetensors", m)
	if err != nil {
		t.Fatal(err)
	}
	return gold
}

// opTolerance is for what ONNX Runtime computes in float32 in a small graph.
const opTolerance = 3e-6

// Every op alone, in each of its forms, against the interpreter, which computes
// what an op is in float64.
func TestOps(t *testing.T) {
	const samples = 3 // what the graphs of irtest are for
	var cases []python.ONNX
	var names []string
	var want []interp.Tensor
	seen := map[ir.Op]bool{ir.OpInput: true, ir.OpParam: true}
	for i, c := range irtest.OpCases() {
		if absent[c.Op] != "" {
			continue
		}
		seen[c.Op] = true
		for _, n := range c.Graph.Nodes {
			seen[n.Op] = seen[n.Op] || n.Op == ir.OpSinCos || n.Op == ir.OpPatchify
		}
		env := irtest.NewEnv(c.Graph, 1, samples)
		outs, err := interp.Eval(c.Graph, env)
		if err != nil {
			t.Fatal(err)
		}
		skeleton, err := Skeleton(Input{Graph: c.Graph, Name: "case"})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), strconv.Itoa(i)+".onnx")
		if _, err := onnx.Write(file, skeleton, nil, weightsOf(env)); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, python.ONNX{Model: file, Image: float32s(env.Inputs["image"].Data), Batches: batches(samples)})
		names, want = append(names, c.Name), append(want, outs["logits"])
	}
	for op := range rules {
		if !seen[op] {
			t.Errorf("no case has %s", op)
		}
	}
	for i, runs := range python.RunONNX(t, cases) {
		for j, n := range cases[i].Batches {
			row := golden.Compare("logits", runs[j], want[i].Data[:n*want[i].Shape[1]], opTolerance)
			if !row.OK {
				t.Errorf("%s, %d samples: %s by %.2e", names[i], n, row.Reason, row.RelNorm)
			}
		}
	}
}

func weightsOf(env interp.Env) []onnx.Tensor {
	var out []onnx.Tensor
	for _, name := range slices.Sorted(maps.Keys(env.Params)) {
		p := env.Params[name]
		out = append(out, onnx.Tensor{Name: name, Shape: p.Shape, Data: float32s(p.Data)})
	}
	return out
}

func float32s(v []float64) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(x)
	}
	return out
}
