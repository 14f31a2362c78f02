package cuda

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

// train runs the passes of the grad program over a forward graph, as they run
// for CUDA devices.
func train(g *ir.Graph, precision string) (*ir.Graph, error) {
	c, _ := g.Clone()
	for _, pass := range []func(*ir.Graph) error{
		passes.Canonicalize, passes.CSE, passes.DCE, passes.Prune, passes.Autodiff,
		passes.Canonicalize, passes.CSE, passes.DCE,
		func(g *ir.Graph) error { _, err := passes.Recompute(g, passes.RecomputeThreshold); return err },
		passes.Fuse, func(g *ir.Graph) error { return passes.Storage(g, precision) },
		passes.Schedule, passes.Join, passes.PlanMemory, passes.CheckPlaces,
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

func newEmitted(t *testing.T, name string, forward *ir.Graph, n int, precision string) *emitted {
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
	g, err := train(forward, precision)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var params []plan.Param
	for _, node := range forward.Nodes {
		if node.Op == ir.OpParam {
			params = append(params, plan.Param{Name: node.Str("name"), Shape: node.Out().Type.Shape})
		}
	}
	e.plan, err = plan.Build(plan.Input{Name: "test", File: "test.yaml", Batch: irtest.Batch(forward), Image: [3]int{1, 1, 1},
		Params: params, Programs: []*ir.Graph{g}, Names: []string{"grad"}, Math: precision})
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
	plan.Arena: 4, plan.Image: 5, plan.Label: 6, plan.Const: 7, plan.Half: 8, plan.Imm: 9}

// testSource prints all models into one file. Kernels get numbers that are
// unique in it.
func testSource(models []*emitted) []byte {
	var w bytes.Buffer
	fmt.Fprint(&w, "#include \"vg_cuda.h\"\n")
	number := 0
	for _, m := range models {
		for _, k := range m.plan.Kernels {
			k.Name = strings.Replace(k.Name, fmt.Sprintf("k%02d_", k.Index), fmt.Sprintf("k%d_", number), 1)
			k.Index = number
			number++
		}
		for i, k := range m.plan.Device.Kernels {
			k.Name = fmt.Sprintf("d%d_%d", number, i)
		}
		programs(&w, m.plan)
	}
	fmt.Fprint(&w, "#include \"harness.h\"\n")
	for i, m := range models {
		var launches, refs []string
		for _, l := range m.plan.Device.Programs[0].Launches {
			k := l.Kernel
			launches = append(launches, fmt.Sprintf("{%q, %d, %d, %d, %d, %d}", k.Name, k.Grid, k.Threads, k.Shared, len(refs), len(l.Args)))
			for _, a := range l.Args {
				refs = append(refs, fmt.Sprintf("{%d, %d}", regionIndex[a.Region], a.Offset))
			}
		}
		fmt.Fprintf(&w, "static const Launch launches%d[] = {%s};\nstatic const Ref refs%d[] = {%s};\n",
			i, strings.Join(launches, ", "), i, strings.Join(refs, ", "))
	}
	fmt.Fprint(&w, "int main(int, char** argv) {\n  FILE* in = fopen(argv[1], \"rb\");\n  FILE* out = fopen(argv[2], \"wb\");\n")
	for i, m := range models {
		fmt.Fprintf(&w, "  run_model(Model{%q, launches%d, sizeof launches%d / sizeof *launches%d, refs%d, %d}, strtoull(argv[3], 0, 10), in, out);\n",
			m.name, i, i, i, i, m.outputBytes())
	}
	fmt.Fprint(&w, "  return fclose(out);\n}\n")
	return w.Bytes()
}

// input writes what the harness reads for one model.
func (e *emitted) input(w *bytes.Buffer) {
	p := e.plan
	params, half := make([]float32, p.Layout.Elems), make([]uint16, p.Layout.Elems)
	for _, q := range p.Layout.Params {
		for i, x := range e.env.Params[q.Name].Data {
			params[q.Offset+i] = float32(x)
			bits := math.Float32bits(float32(x))
			half[q.Offset+i] = uint16((bits + 0x7fff + bits>>16&1) >> 16)
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
		uint64(len(label)) * 4, uint64(len(p.Const)) * 4, arena / 2, uint64(p.Device.WorkspaceBytes), uint64(p.Device.Counters) * 4,
		uint64(e.env.N), e.env.Seed})
	for _, part := range []any{params, image, label, p.Const, half} {
		binary.Write(w, binary.LittleEndian, part)
	}
}

// distances compares one model's part of the output and returns the rest.
func (e *emitted) distances(out []byte) (off map[string]float64, rest []byte, err error) {
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
	off = map[string]float64{}
	for name, want := range e.want {
		got, ok := at[name]
		if !ok {
			return nil, nil, fmt.Errorf("%s: output %s is not in the plan", e.name, name)
		}
		var diff, norm float64
		for i, x := range want.Data {
			d := float64(got[i]) - x
			diff, norm = diff+d*d, norm+x*x
		}
		// The floor is for gradients that are zero but for cancellation, such
		// as that of a key bias.
		off[name] = math.Sqrt(diff) / math.Max(math.Sqrt(norm), 0.1)
	}
	return off, out, nil
}

// simulate compiles the models' kernels for the simulator and runs them under
// several schedules, which must agree to the bit. It returns what they wrote.
func simulate(t *testing.T, models []*emitted, flags ...string) []byte {
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
		m.input(&in)
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
			var models []*emitted
			flags := []string{"-O1", "-g1", "-fsanitize=thread,alignment"}
			if precision == "fp32" {
				for i, c := range irtest.OpCases() {
					models = append(models, newEmitted(t, c.Name, c.Graph, 1+i%irtest.Batch(c.Graph), precision))
				}
			}
			for seed := range 6 {
				g := gen.Example(seed)
				models = append(models, newEmitted(t, fmt.Sprint("random ", seed), g, 1+seed%irtest.Batch(g), precision))
			}
			out := simulate(t, models, flags...)
			for _, m := range models {
				off, rest, err := m.distances(out)
				if err != nil {
					t.Fatal(err)
				}
				out = rest
				for name, d := range off {
					if !(d <= tolerances[precision]) {
						t.Errorf("%s: %s is off by %.3g", m.name, name, d)
					}
				}
			}
			if len(out) != 0 {
				t.Errorf("%d bytes left over", len(out))
			}
		})
	}
}

// tolerances are relative norms. The coarser precisions are held to their own by
// the goldens; random graphs, with norms over three channels, magnify roundings.
var tolerances = map[string]float64{"fp32": 2e-5, "tf32": 0.05, "bf16": 0.5}
