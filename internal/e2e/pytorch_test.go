package e2e

import (
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/vitgen/vitgen/generated/vit"
	"github.com/vitgen/vitgen/generated/vit_tiny"
	"github.com/vitgen/vitgen/internal/python"
	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/formula"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// Weights that a trainer saves are a PyTorch state_dict as it stands, and one
// that PyTorch saves is the trainer's, in every floating type: the other side
// loads it strictly and computes the same logits.
func TestPyTorchWeights(t *testing.T) {
	py := python.Find(t, "torch", "safetensors.torch", "numpy")
	dir := t.TempDir()
	at := func(format string, args ...any) string { return filepath.Join(dir, fmt.Sprintf(format, args...)) }

	const n = 3 // images
	describe := map[string]func() *runtime.Model{"vit_tiny": vit_tiny.Describe, "vit": vit.Describe}
	sessions, images := map[string]*runtime.Session{}, map[string][]float32{}
	for name, d := range describe {
		s, err := runtime.NewSession(d(), runtime.Options{Device: "cpu", Seed: 11})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		m := s.Model()
		x := make([]float32, n*m.ImageElems())
		formula.Fill(x, "image", 1, 0)
		s.SetSteps(10, 10)
		for range 2 { // away from where the initializers put them
			if _, _, err := s.Step(x, []int32{1, 2, 3}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Save(at("%s.safetensors", name)); err != nil {
			t.Fatal(err)
		}
		f := &safetensors.File{Tensors: []safetensors.Tensor{
			safetensors.FromFloat32s("images", []int{n, m.Image[0], m.Image[1], m.Image[2]}, x)}}
		if err := safetensors.Write(at("%s.images.safetensors", name), f); err != nil {
			t.Fatal(err)
		}
		sessions[name], images[name] = s, x
	}
	if out, err := exec.Command(py, "testdata/pytorch.py", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, s := range sessions {
		compare := func(what, file string) {
			t.Helper()
			f, err := safetensors.Read(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.Forward(images[name], n)
			if err != nil {
				t.Fatal(err)
			}
			want := f.Tensor("logits").Float64s()
			if rel := distance(got, want); !(rel < 1e-5) {
				t.Errorf("%s, %s: logits are off by %.2g of their norm", name, what, rel)
			}
		}
		compare("saved by the trainer", at("%s.logits.safetensors", name))
		for _, dtype := range []string{"float32", "float16", "bfloat16"} {
			stem := at("%s.%s.torch", name, dtype)
			if err := s.Load(stem + ".safetensors"); err != nil {
				t.Fatal(err)
			}
			compare(dtype+" saved by PyTorch", stem+".logits.safetensors")
		}
	}
}

// distance is the norm of got - want, relative to that of want; NaN if the
// lengths differ.
func distance(got []float32, want []float64) float64 {
	if len(got) != len(want) {
		return math.NaN()
	}
	var off, norm float64
	for i, w := range want {
		off += (float64(got[i]) - w) * (float64(got[i]) - w)
		norm += w * w
	}
	return math.Sqrt(off / norm)
}
