package cpu

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/vitgen/vitgen/codegen/emittest"
	"github.com/vitgen/vitgen/codegen/kernels"
	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/ir/irtest"
)

func model(t *testing.T, name string, forward *ir.Graph, n int) *emittest.Model {
	t.Helper()
	m, err := emittest.New(name, forward, n, "")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// testSource prints all models into one file. Kernels get numbers that are
// unique in it; a text that occurs again is shared, so that the compiler sees
// the cases' common parts once.
func testSource(models []*emittest.Model) []byte {
	var w bytes.Buffer
	fmt.Fprint(&w, "#ifndef VG_ISA\n#define VG_ISA 0\n#endif\n#include \"vg_cpu.h\"\n\nVG_BEGIN\n")
	var table []string
	number := map[string]int{}
	for _, m := range models {
		for _, k := range m.Plan.Kernels {
			var text bytes.Buffer
			k.Index, k.Name, k.Uses = 0, "k", nil
			kernel(&text, "test.yaml", k)
			i, seen := number[text.String()]
			if !seen {
				i = len(table)
				number[text.String()] = i
			}
			k.Index, k.Name = i, fmt.Sprintf("k%02d", i)
			if !seen {
				kernel(&w, "test.yaml", k)
				table = append(table, k.Name)
			}
		}
	}
	fmt.Fprintf(&w, "const vg_kernel table[] = {%s};\nVG_END\n#include \"harness.h\"\n", strings.Join(table, ", "))
	for i, m := range models {
		var launches, refs []string
		for _, l := range m.Plan.Programs[0].Launches {
			launches = append(launches, fmt.Sprintf("{%d, %d, %d}", l.Kernel.Index, len(l.Args), len(refs)))
			for _, a := range l.Args {
				refs = append(refs, fmt.Sprintf("{%d, %d}", emittest.RegionIndex[a.Region], a.Offset))
			}
		}
		fmt.Fprintf(&w, "// %s\nstatic const vg_launch launches%d[] = {%s};\nstatic const Ref refs%d[] = {%s};\n",
			m.Name, i, strings.Join(launches, ", "), i, strings.Join(refs, ", "))
	}
	fmt.Fprint(&w, "int main(int, char** argv) {\n  FILE* in = fopen(argv[1], \"rb\");\n  FILE* out = fopen(argv[2], \"wb\");\n")
	for i, m := range models {
		fmt.Fprintf(&w, "  run_model(Model{launches%d, sizeof launches%d / sizeof *launches%d, refs%d, sizeof refs%d / sizeof *refs%d, %d}, vg::table, atoi(argv[3]), in, out);\n",
			i, i, i, i, i, i, m.OutputBytes())
	}
	fmt.Fprint(&w, "  return fclose(out);\n}\n")
	return w.Bytes()
}

// check compares one model's part of the output and returns the rest.
func check(t *testing.T, m *emittest.Model, isa string, out []byte) []byte {
	t.Helper()
	off, rest, err := m.Distances(out)
	if err != nil {
		t.Fatalf("%s %v", isa, err)
	}
	for name, d := range off {
		if !(d <= 2e-5) {
			t.Errorf("%s %s: %s is off by %.3g", isa, m.Name, name, d)
		}
	}
	return rest
}

// TestEmittedKernels compiles the training programs of every op's cases and of
// random graphs, runs them and compares outputs and gradients with the
// interpreter's on the graph before any pass: dropout on, with one worker and
// with three, which must agree to the bit.
func TestEmittedKernels(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles C++ for about a minute")
	}
	var models []*emittest.Model
	for i, c := range irtest.OpCases() {
		models = append(models, model(t, c.Name, c.Graph, 1+i%irtest.Batch(c.Graph)))
	}
	gen := rapid.Custom(irtest.RandomGraph)
	for seed := range 16 {
		g := gen.Example(seed)
		models = append(models, model(t, fmt.Sprint("random ", seed), g, 1+seed%irtest.Batch(g)))
	}
	few := rapid.Custom(irtest.RandomFewQueries)
	for seed := range 4 {
		g := few.Example(seed)
		models = append(models, model(t, fmt.Sprint("few queries ", seed), g, irtest.Batch(g)))
	}
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
	write("vg_cpu.h", kernels.CPUHeader())
	write("emitted.cc", testSource(models))
	harness, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, isa := range kernels.ISAs {
		t.Run(isa.Name, func(t *testing.T) {
			if isa.Target != "" && !hostHas(isa) {
				t.Skipf("this machine has no %s", isa.Name)
			}
			t.Parallel()
			file := filepath.Join(dir, "emitted.cc")
			if isa.Target != "" {
				file = write(isa.Name+".cc", isa.Wrapper("emitted.cc"))
			}
			bin := filepath.Join(dir, isa.Name)
			args := []string{"-O1", "-std=gnu++17", "-fno-exceptions", "-fno-rtti", "-Wall", "-Wextra", "-Werror", "-I", dir, "-I", harness, file, "-o", bin, "-lpthread"}
			if out, err := exec.Command("g++", args...).CombinedOutput(); err != nil {
				t.Fatalf("g++: %v\n%s", err, out)
			}
			var first []byte
			for _, workers := range []string{"1", "3"} {
				output := filepath.Join(dir, isa.Name+workers)
				if out, err := exec.Command(bin, input, output, workers).CombinedOutput(); err != nil {
					t.Fatalf("%s workers: %v\n%s", workers, err, out)
				}
				got, err := os.ReadFile(output)
				if err != nil {
					t.Fatal(err)
				}
				if first == nil {
					first = got
				} else if !bytes.Equal(first, got) {
					t.Errorf("%s workers give other bits than one", workers)
				}
			}
			for _, m := range models {
				first = check(t, m, isa.Name, first)
			}
			if len(first) != 0 {
				t.Errorf("%d bytes left over", len(first))
			}
		})
	}
}

// hostHas asks the compiler's run time whether this machine has an instruction
// set: g++ resolves -march=native to macros.
func hostHas(isa kernels.ISA) bool {
	out, err := exec.Command("g++", "-march=native", "-dM", "-E", "-x", "c++", os.DevNull).Output()
	macro := map[string]string{"avx2": "__AVX2__", "avx512": "__AVX512VL__"}[isa.Name]
	return err == nil && bytes.Contains(out, []byte(macro))
}
