package e2e

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/vitgen/vitgen/internal/cudaenv"
	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/runtime/safetensors"
	"github.com/vitgen/vitgen/sim"
	"github.com/vitgen/vitgen/spec"
)

// These tests run trainers built with -tags cuda as they are, Go glue, launches,
// memory plan, graphs and kernels, on the simulated driver: no GPU is needed, and
// none is used.

// driver is the folder of the simulated libcuda.so.1.
var driver = sync.OnceValues(func() (string, error) {
	so, err := sim.BuildDriver(filepath.Join(binaries, "driver"))
	return filepath.Dir(so), err
})

// cudaBuild is what cgo needs to build with -tags cuda without CUDA.
var cudaBuild = sync.OnceValues(func() ([]string, error) {
	return cudaenv.Env(filepath.Join(binaries, "cudaenv"))
})

// simulatorBuild compiles emitted kernels for the simulator.
func simulatorBuild(cu string) (string, error) { return sim.BuildKernels(cu, sim.Options{}) }

// onGPU is the environment in which a trainer finds a simulated GPU.
func onGPU(t testing.TB, m *model, more ...string) []string {
	t.Helper()
	dir, err := driver()
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{"LD_LIBRARY_PATH=" + dir, "VITGEN_CUDA_IMAGE=" + m.kernels}, more...)
}

// inPrecision is a spec read by its path, in another precision.
func inPrecision(t testing.TB, path, precision string) *spec.Spec {
	t.Helper()
	s := readSpec(t, path)
	s.Train.Precision = precision
	return s
}

// Every small golden is reproduced on a CUDA device, in every precision, under
// several schedules of blocks and threads; and those of two examples, so that
// what generated/ shows has also been run.
func TestGoldensOnCUDA(t *testing.T) {
	for name := range goldens(t) {
		path := "golden/specs/" + name + ".yaml"
		precisions, seeds := []string{"fp32", "tf32", "bf16"}, []string{"0", "1", "2"}
		switch {
		case name == "vit_tiny":
			path, precisions = "examples/vit_tiny.yaml", precisions[:1]
		case name == "vit": // tiles and splits of real shapes
			path, precisions, seeds = "examples/vit.yaml", precisions[2:], seeds[1:2]
		case !small(name):
			continue
		}
		for _, precision := range precisions {
			t.Run(name+"/"+precision, func(t *testing.T) {
				t.Parallel()
				s := inPrecision(t, path, precision)
				m := compile(t, s, passes.Options{}, onlyCUDA)
				golden := goldenFile(t, name)
				if precision != "fp32" {
					golden = withoutHash(t, golden)
				}
				for _, seed := range seeds {
					m.verify(t, golden, onGPU(t, m, "VITGEN_SIM_SEED="+seed), "--device", "cuda")
				}
			})
		}
	}
}

// The masks that CUDA kernels draw are the interpreter's bit for bit, and
// nothing is different for a partial batch. Both show in a golden with dropout
// on: one wrong element misses the tolerances by orders of magnitude.
func TestDropoutOnCUDA(t *testing.T) {
	for _, path := range []string{"golden/specs/vit_small.yaml", "golden/specs/timm_small.yaml"} {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			t.Parallel()
			s := inPrecision(t, path, "fp32")
			m := compile(t, s, passes.Options{}, onlyCUDA)
			rng := rand.New(rand.NewPCG(11, 11))
			for _, n := range []int{1, s.Train.Batch*s.Train.Accumulate - 1} {
				g := newReference(t, s, randomInputs(s, n, rng)).golden(t, 2, true, 99)
				m.verify(t, writeGolden(t, s, g), onGPU(t, m), "--device", "cuda")
			}
		})
	}
}

// Twenty steps of training on a CUDA device follow the CPU's loss curve, with
// dropout on and a last batch that is smaller, and repeat bitwise under another
// schedule.
func TestTrainingOnCUDA(t *testing.T) {
	t.Parallel()
	s := inPrecision(t, "golden/specs/vit_small.yaml", "fp32")
	m := compile(t, s, passes.Options{}, withCUDA)
	train := func(name string, env []string, args ...string) ([]float64, []byte) {
		dir := filepath.Join(t.TempDir(), name)
		args = append([]string{"train", "--out", dir, "--data", "synthetic", "--steps", "20", "--every", "1"}, args...)
		if out, status := m.run(t, env, args...); status != 0 {
			t.Fatalf("train: exit status %d\n%s", status, out)
		}
		weights, err := os.ReadFile(filepath.Join(dir, "last.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		return losses(t, dir), weights
	}
	cpu, _ := train("cpu", nil, "--device", "cpu")
	gpu, weights := train("gpu", onGPU(t, m, "VITGEN_SIM_SEED=1"), "--device", "cuda")
	_, again := train("again", onGPU(t, m, "VITGEN_SIM_SEED=2"), "--device", "cuda")
	if len(cpu) != len(gpu) || len(cpu) == 0 {
		t.Fatalf("%d losses on the CPU, %d on CUDA", len(cpu), len(gpu))
	}
	for i := range cpu {
		if d := (gpu[i] - cpu[i]) / cpu[i]; !(d < 1e-4 && d > -1e-4) {
			t.Errorf("loss %d is %v on the CPU, %v on CUDA", i, cpu[i], gpu[i])
		}
	}
	if string(weights) != string(again) {
		t.Error("another schedule of blocks and threads gives other weights")
	}
}

// losses reads the training losses of a run.
func losses(t *testing.T, dir string) []float64 {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var all []float64
	for line := range strings.Lines(string(data)) {
		var row map[string]any
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		if x, ok := row["train_loss"].(float64); ok {
			all = append(all, x)
		}
	}
	return all
}

// A training step of vit.yaml is few launches: a graph's kernels cost over a
// microsecond each, however little they do.
func TestStepLaunches(t *testing.T) {
	p, err := passes.Compile(readSpec(t, "examples/vit.yaml"), passes.Options{Target: passes.CUDA})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, gr := range append(p.Grad.Groups, p.Update.Groups...) {
		if gr.Family != ir.FamilyNone && !gr.Joined {
			n++
		}
	}
	if n > 45 {
		t.Errorf("a step is %d launches, more than 45", n)
	}
}

// Every function of emitted kernels has a name of its own, that of kernels which
// are launched alone in one place and with others in another too. (nvcc would
// take them for overloads.)
func TestKernelNames(t *testing.T) {
	function := regexp.MustCompile(`(?m)^(?:VG_FN void|VG_KERNEL\([^)]*\)) (\w+)\(`)
	both := 0
	for name, s := range examples(t) {
		for _, s.Train.Precision = range []string{"fp32", "tf32", "bf16"} {
			for _, f := range generate(t, s, passes.Options{}, module+"/x") {
				if f.Name != "kernels.cu" {
					continue
				}
				seen := map[string]bool{}
				for _, m := range function.FindAllStringSubmatch(string(f.Data), -1) {
					if seen[m[1]] {
						t.Errorf("%s, %s: there are two functions %s", name, s.Train.Precision, m[1])
					}
					seen[m[1]] = true
				}
				for k := range seen {
					if seen[k+"_part"] {
						both++
					}
				}
			}
		}
	}
	if both == 0 {
		t.Error("no example has a kernel that is launched both alone and with others; this test shows nothing")
	}
}

// withoutHash copies a golden without the hash of the spec it was made for, so
// that a spec which differs in nothing but its precision can be held to it.
func withoutHash(t testing.TB, golden string) string {
	t.Helper()
	f, err := safetensors.Read(golden)
	if err != nil {
		t.Fatal(err)
	}
	delete(f.Metadata, "spec_sha256")
	path := filepath.Join(t.TempDir(), filepath.Base(golden))
	if err := safetensors.Write(path, f); err != nil {
		t.Fatal(err)
	}
	return path
}
