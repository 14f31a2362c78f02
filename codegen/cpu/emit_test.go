package cpu

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/vitgen/vitgen/codegen/kernels"
	"github.com/vitgen/vitgen/codegen/plan"
	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/ir/interp"
	"github.com/vitgen/vitgen/ir/irtest"
	"github.com/vitgen/vitgen/passes"
)

// emitted is one model of the test: its plan, and what the interpreter says.
type emitted struct {
	name string
	plan *plan.Plan
	env  interp.Env
	want map[string]interp.Tensor
}

// train runs the passes of the grad program over a forward graph.
func train(g *ir.Graph) (*ir.Graph, error) {
	c, _ := g.Clone()
	for _, pass := range []func(*ir.Graph) error{
		passes.Canonicalize, passes.CSE, passes.DCE, passes.Prune, passes.Autodiff,
		passes.Canonicalize, passes.CSE, passes.DCE,
		func(g *ir.Graph) error { _, err := passes.Recompute(g, passes.RecomputeThreshold); return err },
		passes.Fuse, passes.Schedule, passes.PlanMemory, passes.CheckPlaces,
	} {
		if err := pass(c); err != nil {
			return nil, err
		}
		if err := ir.Verify(c); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func newEmitted(t *testing.T, name string, forward *ir.Graph, n int) *emitted {
	t.Helper()
	whole, _ := forward.Clone()
	if err := passes.Autodiff(whole); err != nil {
		t.Fatal(err)
	}
	e := &emitted{name: name, env: irtest.NewEnv(forward, 77, n)}
	e.env.Dropout, e.env.MicroStep = true, 5
	var err error
	if e.want, err = interp.Eval(whole, e.env); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	g, err := train(forward)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var params []plan.Param
	for _, node := range forward.Nodes {
		if node.Op == ir.OpParam {
			params = append(params, plan.Param{Name: node.Str("name"), Shape: node.Out().Type.Shape})
		}
	}
	e.plan, err = plan.Build(plan.Input{Name: "test", File: "test.yaml", Batch: irtest.Batch(forward),
		Params: params, Programs: []*ir.Graph{g}, Names: []string{"grad"}})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return e
}

// outputBytes is the length of the block that the host reads.
func (e *emitted) outputBytes() int64 {
	return e.plan.Outputs["correct"].Offset + 4*int64(e.plan.Batch)
}

var regionIndex = map[plan.Region]int{plan.Params: 0, plan.Grads: 1, plan.State0: 2, plan.State1: 3,
	plan.Arena: 4, plan.Image: 5, plan.Label: 6, plan.Const: 7, plan.Imm: 8}

// testSource prints all models into one file. Kernels get numbers that are
// unique in it; a text that occurs again is shared, so that the compiler sees
// the cases' common parts once.
func testSource(models []*emitted) []byte {
	var w bytes.Buffer
	fmt.Fprint(&w, "#ifndef VG_ISA\n#define VG_ISA 0\n#endif\n#include \"vg_cpu.h\"\n\nVG_BEGIN\n")
	var table []string
	number := map[string]int{}
	for _, m := range models {
		for _, k := range m.plan.Kernels {
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
		for _, l := range m.plan.Programs[0].Launches {
			launches = append(launches, fmt.Sprintf("{%d, %d, %d}", l.Kernel.Index, len(l.Args), len(refs)))
			for _, a := range l.Args {
				refs = append(refs, fmt.Sprintf("{%d, %d}", regionIndex[a.Region], a.Offset))
			}
		}
		fmt.Fprintf(&w, "// %s\nstatic const vg_launch launches%d[] = {%s};\nstatic const Ref refs%d[] = {%s};\n",
			m.name, i, strings.Join(launches, ", "), i, strings.Join(refs, ", "))
	}
	fmt.Fprint(&w, "int main(int, char** argv) {\n  FILE* in = fopen(argv[1], \"rb\");\n  FILE* out = fopen(argv[2], \"wb\");\n")
	for i, m := range models {
		fmt.Fprintf(&w, "  run_model(Model{launches%d, sizeof launches%d / sizeof *launches%d, refs%d, sizeof refs%d / sizeof *refs%d, %d}, vg::table, atoi(argv[3]), in, out);\n",
			i, i, i, i, i, i, m.outputBytes())
	}
	fmt.Fprint(&w, "  return fclose(out);\n}\n")
	return w.Bytes()
}

// input writes what the harness reads for one model.
func (e *emitted) input(w *bytes.Buffer) {
	p := e.plan
	params := make([]float32, p.Layout.Elems)
	for _, q := range p.Layout.Params {
		for i, x := range e.env.Params[q.Name].Data {
			params[q.Offset+i] = float32(x)
		}
	}
	var image []float32
	for _, x := range e.env.Inputs["image"].Data {
		image = append(image, float32(x))
	}
	var label []int32
	for _, x := range e.env.Inputs["label"].Data {
		label = append(label, int32(x))
	}
	arena := uint64(len(params)) * 4
	binary.Write(w, binary.LittleEndian, []uint64{arena, arena, 0, 0, uint64(p.ArenaBytes), uint64(len(image)) * 4,
		uint64(len(label)) * 4, uint64(len(p.Const)) * 4, uint64(p.WorkspaceBytes), uint64(e.env.N), e.env.Seed})
	for _, part := range []any{params, image, label, p.Const} {
		binary.Write(w, binary.LittleEndian, part)
	}
}

// check compares one model's part of the output and returns the rest.
func (e *emitted) check(t *testing.T, isa string, out []byte) []byte {
	floats := func(n int64) []float32 {
		v := make([]float32, n/4)
		binary.Read(bytes.NewReader(out[:n]), binary.LittleEndian, v)
		out = out[n:]
		return v
	}
	grads := floats(4 * int64(e.plan.Layout.Elems))
	block := floats(e.outputBytes())
	at := map[string][]float32{}
	for name, ref := range e.plan.Outputs {
		at[name] = block[ref.Offset/4:]
	}
	for _, q := range e.plan.Layout.Params {
		at["grad."+q.Name] = grads[q.Offset:]
	}
	for name, want := range e.want {
		got, ok := at[name]
		if !ok {
			t.Errorf("%s %s: output %s is not in the plan", isa, e.name, name)
			continue
		}
		var diff, norm float64
		for i, x := range want.Data {
			d := float64(got[i]) - x
			diff, norm = diff+d*d, norm+x*x
		}
		// The floor is for gradients that are zero but for cancellation, such
		// as that of a key bias.
		if r := math.Sqrt(diff) / math.Max(math.Sqrt(norm), 0.1); !(r <= 2e-5) {
			t.Errorf("%s %s: %s is off by %.3g", isa, e.name, name, r)
		}
	}
	return out
}

// TestEmittedKernels compiles the training programs of every op's cases and of
// random graphs, runs them and compares outputs and gradients with the
// interpreter's on the graph before any pass: dropout on, with one worker and
// with three, which must agree to the bit.
func TestEmittedKernels(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles C++ for about a minute")
	}
	var models []*emitted
	for i, c := range irtest.OpCases() {
		models = append(models, newEmitted(t, c.Name, c.Graph, 1+i%irtest.Batch(c.Graph)))
	}
	gen := rapid.Custom(irtest.RandomGraph)
	for seed := range 16 {
		g := gen.Example(seed)
		models = append(models, newEmitted(t, fmt.Sprint("random ", seed), g, 1+seed%irtest.Batch(g)))
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
		m.input(&in)
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
				first = m.check(t, isa.Name, first)
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
