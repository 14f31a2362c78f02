package e2e

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	codegen "github.com/vitgen/vitgen/codegen/onnx"
	"github.com/vitgen/vitgen/generated/vit_tiny"
	"github.com/vitgen/vitgen/internal/python"
	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/formula"
	"github.com/vitgen/vitgen/runtime/golden"
	"github.com/vitgen/vitgen/runtime/onnx"
)

// What a trainer exports computes what the trainer does: in ONNX Runtime, for
// any batch, and as safetensors to the bit.
func TestExport(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a trainer, which takes seconds; not in -short mode")
	}
	dir := t.TempDir()
	trainer := filepath.Join(dir, "vit_tiny")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", trainer, "./generated/vit_tiny/trainer")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s, err := runtime.NewSession(vit_tiny.Describe(), runtime.Options{Device: "cpu", Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const n = 5
	images := make([]float32, n*s.Model().ImageElems())
	formula.Fill(images, "image", 1, 0)
	s.SetSteps(10, 10)
	for range 2 { // away from where the initializers put them
		if _, _, err := s.Step(images, []int32{1, 2, 3, 4, 5}); err != nil {
			t.Fatal(err)
		}
	}
	weights, model, copied := filepath.Join(dir, "w.safetensors"), filepath.Join(dir, "m.onnx"), filepath.Join(dir, "copy.safetensors")
	if err := s.Save(weights); err != nil {
		t.Fatal(err)
	}
	want, err := s.Forward(images, n)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(trainer, "export", "--weights", weights, "--onnx", model, "--safetensors", copied).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := s.Load(copied); err != nil {
		t.Fatal(err)
	}
	if again, err := s.Forward(images, n); err != nil || !slices.Equal(again, want) {
		t.Errorf("the exported weights give other logits, or %v", err)
	}
	c := python.ONNX{Model: model, Image: images, Batches: []int{1, 3, n}}
	for i, got := range python.RunONNX(t, []python.ONNX{c})[0] {
		compareLogits(t, fmt.Sprintf("%d images", c.Batches[i]), got, golden.Float64s(want[:c.Batches[i]*s.Model().Classes]))
	}
}

// The ONNX graphs of random specs give what the interpreter gives. This
// compiles no C++ and so can try more of them than TestRandomSpecs.
func TestRandomSpecsONNX(t *testing.T) {
	list := seedsOfRun(t)
	for seed := range uint64(12) {
		list = append(list, 100+seed)
	}
	var cases []python.ONNX
	var want [][]float64
	dir := t.TempDir()
	for _, seed := range list {
		s := mustParse(t, "random.yaml", randomSpec(seed))
		g, err := passes.Inference(s)
		if err != nil {
			t.Fatal(err)
		}
		skeleton, err := codegen.Skeleton(codegen.Input{Graph: g, Name: s.Name})
		if err != nil {
			t.Fatal(err)
		}
		n := s.Train.Batch
		in := randomInputs(s, n, rand.New(rand.NewPCG(seed, 0xda7a)))
		var weights []onnx.Tensor
		for _, p := range s.Params() {
			weights = append(weights, onnx.Tensor{Name: p.Name, Shape: p.Shape, Data: in.params[p.Name]})
		}
		file := filepath.Join(dir, fmt.Sprintf("%d.onnx", seed))
		if _, err := onnx.Write(file, skeleton, nil, weights); err != nil {
			t.Fatal(err)
		}
		ref := newReference(t, s, in)
		ref.restart(false, 0)
		ref.give(0, n)
		want = append(want, ref.eval(t, ref.programs.Forward)["logits"].Data)
		cases = append(cases, python.ONNX{Model: file, Image: in.image, Batches: []int{n}})
	}
	for i, runs := range python.RunONNX(t, cases) {
		compareLogits(t, fmt.Sprintf("seed %d", list[i]), runs[0], want[i])
	}
}

func compareLogits(t *testing.T, what string, got, want []float64) {
	t.Helper()
	if row := golden.Compare("logits", got, want, golden.ForwardTolerance); !row.OK {
		t.Errorf("%s: logits: %s by %.2g of their norm, allowed is %.2g", what, row.Reason, row.RelNorm, row.Tol)
	}
}
