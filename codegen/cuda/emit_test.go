package cuda

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/vitgen/vitgen/codegen/emittest"
	"github.com/vitgen/vitgen/codegen/kernels"
	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/ir/irtest"
)

func model(t *testing.T, name string, forward *ir.Graph, n int, precision string) *emittest.Model {
	t.Helper()
	m, err := emittest.New(name, forward, n, precision)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// testSource prints all models into one file. Kernels get numbers that are
// unique in it.
func testSource(models []*emittest.Model) []byte {
	var w bytes.Buffer
	fmt.Fprint(&w, "#include \"vg_cuda.h\"\n")
	number := 0
	for _, m := range models {
		for _, k := range m.Plan.Kernels {
			k.Name = strings.Replace(k.Name, fmt.Sprintf("k%02d_", k.Index), fmt.Sprintf("k%d_", number), 1)
			k.Index = number
			number++
		}
		for i, k := range m.Plan.Device.Kernels {
			k.Name = fmt.Sprintf("d%d_%d", number, i)
		}
		programs(&w, m.Plan)
	}
	fmt.Fprint(&w, "#include \"harness.h\"\n")
	for i, m := range models {
		var launches, refs []string
		for _, l := range m.Plan.Device.Programs[0].Launches {
			k := l.Kernel
			launches = append(launches, fmt.Sprintf("{%q, %d, %d, %d, %d, %d}", k.Name, k.Grid, k.Threads, k.Shared, len(refs), len(l.Args)))
			for _, a := range l.Args {
				refs = append(refs, fmt.Sprintf("{%d, %d}", emittest.RegionIndex[a.Region], a.Offset))
			}
		}
		fmt.Fprintf(&w, "static const Launch launches%d[] = {%s};\nstatic const Ref refs%d[] = {%s};\n",
			i, strings.Join(launches, ", "), i, strings.Join(refs, ", "))
	}
	fmt.Fprint(&w, "int main(int, char** argv) {\n  FILE* in = fopen(argv[1], \"rb\");\n  FILE* out = fopen(argv[2], \"wb\");\n")
	for i, m := range models {
		fmt.Fprintf(&w, "  run_model(Model{%q, launches%d, sizeof launches%d / sizeof *launches%d, refs%d, %d}, strtoull(argv[3], 0, 10), in, out);\n",
			m.Name, i, i, i, i, m.OutputBytes())
	}
	fmt.Fprint(&w, "  return fclose(out);\n}\n")
	return w.Bytes()
}

// simulate compiles the models' kernels for the simulator and runs them under
// several schedules, which must agree to the bit. It returns what they wrote.
func simulate(t *testing.T, models []*emittest.Model, flags ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var in bytes.Buffer
	for _, m := range models {
		m.Input(&in)
	}
	input := write("in", in.Bytes())
	write("vg_cuda.h", kernels.CUDAHeader())
	source := write("emitted.cc", testSource(models))
	object, bin := filepath.Join(dir, "emitted.o"), filepath.Join(dir, "emitted")
	args := append([]string{"-std=c++17", "-fno-strict-aliasing", "-fvisibility=hidden", "-DVG_SIM", "-Wall", "-Wextra",
		"-I", dir, "-I", "testdata", "-I", "../../sim/include", "-c", source, "-o", object}, flags...)
	if out, err := exec.Command("g++", args...).CombinedOutput(); err != nil {
		t.Fatalf("g++: %v\n%.4000s", err, out)
	}
	runtime, err := filepath.Glob("../../sim/runtime/*.cc")
	if err != nil || len(runtime) == 0 {
		t.Fatalf("no simulator: %v", err)
	}
	link := append([]string{"-std=c++17", "-O2", "-fvisibility=hidden", object, "-o", bin, "-ldl", "-lpthread"}, runtime...)
	if out, err := exec.Command("g++", link...).CombinedOutput(); err != nil {
		t.Fatalf("g++: %v\n%.4000s", err, out)
	}
	var first []byte
	for _, seed := range []string{"0", "1", "2"} {
		output := filepath.Join(dir, "out"+seed)
		if out, err := exec.Command(bin, input, output, seed).CombinedOutput(); err != nil {
			t.Fatalf("schedule %s: %v\n%s", seed, err, out)
		}
		got, err := os.ReadFile(output)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = got
		} else if !bytes.Equal(first, got) {
			t.Errorf("schedule %s gives other bits than schedule 0", seed)
		}
	}
	return first
}

// TestEmittedKernels runs the training programs of every op's cases and of
// random graphs on the simulator, which checks every access, and compares
// outputs and gradients with the interpreter's on the graph before any pass:
// dropout on, partial batches.
func TestEmittedKernels(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles C++ for a minute")
	}
	gen := rapid.Custom(irtest.RandomGraph)
	for _, precision := range []string{"fp32", "tf32", "bf16"} {
		t.Run(precision, func(t *testing.T) {
			t.Parallel()
			var models []*emittest.Model
			flags := []string{"-O1", "-g1", "-fsanitize=thread,alignment"}
			if precision == "fp32" {
				for i, c := range irtest.OpCases() {
					if slices.Contains(onlyCPU, c.Op) {
						continue
					}
					models = append(models, model(t, c.Name, c.Graph, 1+i%irtest.Batch(c.Graph), precision))
				}
			}
			for seed := range 6 {
				g := gen.Example(seed)
				models = append(models, model(t, fmt.Sprint("random ", seed), g, 1+seed%irtest.Batch(g), precision))
			}
			out := simulate(t, models, flags...)
			for _, m := range models {
				off, rest, err := m.Distances(out)
				if err != nil {
					t.Fatal(err)
				}
				out = rest
				for name, d := range off {
					if !(d <= tolerances[precision]) {
						t.Errorf("%s: %s is off by %.3g", m.Name, name, d)
					}
				}
			}
			if len(out) != 0 {
				t.Errorf("%d bytes left over", len(out))
			}
		})
	}
}

// onlyCPU are ops that no graph for a CUDA device has: the absorb pass, which writes
// them, runs for the CPU.
var onlyCPU = []ir.Op{ir.OpHeadLinear, ir.OpHeadLinearT, ir.OpLatentAttention}

// tolerances are relative norms. The coarser precisions are held to their own by
// the goldens; random graphs, with norms over three channels, magnify roundings.
var tolerances = map[string]float64{"fp32": 2e-5, "tf32": 0.05, "bf16": 0.5}
