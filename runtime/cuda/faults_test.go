//go:build cuda

package cuda

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/internal/fake"
)

// insert puts a launch into the grad program, before position i.
func insert(m *runtime.Model, i int, kernel int, args ...runtime.Ref) {
	p := &m.CUDA.Programs[runtime.Grad]
	*p = slices.Insert(slices.Clone(*p), i, runtime.Launch{Kernel: kernel, Args: args, Layer: "blks.0", Pos: "fake.yaml:9:9"})
}

// TestFailedKernel: a kernel that writes outside its memory ends the session;
// the error names the program, or, asked for, the kernel and its line.
func TestFailedKernel(t *testing.T) {
	needSimulation(t)
	for _, c := range []struct {
		name, sync string
		want       []string
	}{
		{"graph", "", []string{"a kernel of a training step (grad, update), or of what ran before it, failed", "CUDA_ERROR_", "VITGEN_CUDA_SYNC=1"}},
		{"sync", "1", []string{"kernel k08_beyond (fake.yaml:9:9, blks.0) failed", "CUDA_ERROR_"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("VITGEN_CUDA_SYNC", c.sync)
			m := model("fp32", runtime.Train{})
			insert(m, 1, fake.CUDABeyond, runtime.Grads.At(0), runtime.Imm.At(int64(m.ParamElems)))
			s, err := runtime.NewSession(m, runtime.Options{Device: "cuda"})
			if err != nil {
				t.Fatal(err)
			}
			b := newNoise(32).samples(numbers(0, 32)...)
			_, _, err = s.Step(b.Images, b.Labels)
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("no %q in %v", w, err)
				}
			}
			if _, again := s.Param("head.bias"); again == nil || again.Error() != err.Error() {
				t.Errorf("afterwards: %v, want the same error", again)
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

func TestFindNaN(t *testing.T) {
	needDevice(t)
	m := model("fp32", runtime.Train{})
	logits := m.CUDA.Programs[runtime.Grad][0].Args[3]
	insert(m, 1, fake.CUDANaN, logits, runtime.Imm.At(40))
	b := newNoise(32).samples(numbers(0, 5)...)
	s := openOn(t, m, "cuda", 1)
	loss, _, err := s.Step(b.Images, b.Labels)
	if err != nil || !math.IsNaN(loss) {
		t.Fatalf("loss %v, error %v", loss, err)
	}
	find := func(b runtime.Samples) string {
		t.Helper()
		bad, err := s.FindNaN(b, 0)
		if err != nil {
			t.Fatal(err)
		}
		if bad == nil {
			return "nothing"
		}
		return bad.String()
	}
	if got := find(b); !strings.Contains(got, "parameter head.weight (fake.yaml:3:5) has NaN") {
		t.Errorf("after the update: %s", got)
	}
	if err := s.Init(1); err != nil {
		t.Fatal(err)
	}
	if got := find(b); got != "k09_nan (layer blks.0, fake.yaml:9:9: ) is the first of the grad program to write NaN, at element 20 of an output" {
		t.Errorf("in the step: %s", got)
	}
	b.Images[70] = float32(math.Inf(1))
	if got := find(b); !strings.Contains(got, "image 1 of the batch has +Inf at element 6") {
		t.Errorf("in an image: %s", got)
	}

	fine := openOn(t, model("fp32", runtime.Train{}), "cuda", 1)
	if bad, err := fine.FindNaN(newNoise(32).samples(numbers(0, 32)...), 0); bad != nil || err != nil {
		t.Errorf("in a good step: %v %v", bad, err)
	}
}
