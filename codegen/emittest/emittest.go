// Package emittest is what the tests of the printers have in common: models of
// every op's cases and of random graphs, planned as the compiler plans them, and
// what the interpreter says of the same graphs before any pass. It is for tests
// only.
package emittest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/vitgen/vitgen/codegen/plan"
	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/ir/interp"
	"github.com/vitgen/vitgen/ir/irtest"
	"github.com/vitgen/vitgen/passes"
)

// Model is one model of a test: the plan of its training program, and what the
// interpreter says.
type Model struct {
	Name string
	Plan *plan.Plan
	Env  interp.Env
	Want map[string]interp.Tensor
}

// train runs the passes of the grad program over a forward graph, as they run
// for the CPU, or with a precision for CUDA devices.
func train(g *ir.Graph, precision string) (*ir.Graph, error) {
	c, _ := g.Clone()
	all := []func(*ir.Graph) error{passes.Canonicalize, passes.CSE, passes.DCE, passes.Prune}
	if precision == "" {
		all = append(all, passes.Absorb)
	}
	all = append(all, passes.Autodiff,
		passes.Canonicalize, passes.CSE, passes.DCE,
		func(g *ir.Graph) error { _, err := passes.Recompute(g, passes.RecomputeThreshold); return err },
		passes.Fuse,
	)
	if precision != "" {
		all = append(all, func(g *ir.Graph) error { return passes.Storage(g, precision) })
	}
	all = append(all, passes.Schedule)
	if precision != "" {
		all = append(all, passes.Join)
	}
	for _, pass := range append(all, passes.PlanMemory, passes.CheckPlaces) {
		if err := pass(c); err != nil {
			return nil, err
		}
		if err := ir.Verify(c); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// New plans the training program of a forward graph for the CPU, or with a
// precision for CUDA devices, and evaluates it for n samples with dropout on.
func New(name string, forward *ir.Graph, n int, precision string) (*Model, error) {
	whole, _ := forward.Clone()
	if err := passes.Autodiff(whole); err != nil {
		return nil, err
	}
	m := &Model{Name: name, Env: irtest.NewEnv(forward, 77, n)}
	m.Env.Dropout, m.Env.MicroStep = true, 5
	var err error
	if m.Want, err = interp.Eval(whole, m.Env); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	g, err := train(forward, precision)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var params []plan.Param
	for _, node := range forward.Nodes {
		if node.Op == ir.OpParam {
			params = append(params, plan.Param{Name: node.Str("name"), Shape: node.Out().Type.Shape})
		}
	}
	m.Plan, err = plan.Build(plan.Input{Name: "test", File: "test.yaml", Batch: irtest.Batch(forward), Image: [3]int{1, 1, 1},
		Params: params, Programs: []*ir.Graph{g}, Names: []string{"grad"}, Math: precision})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// RegionIndex numbers the regions for the harnesses; Imm stands behind them.
var RegionIndex = map[plan.Region]int{plan.Params: 0, plan.Grads: 1, plan.State0: 2, plan.State1: 3,
	plan.Arena: 4, plan.Image: 5, plan.Label: 6, plan.Const: 7, plan.Half: 8, plan.Label2: 9, plan.Mix: 10, plan.Imm: 11}

// OutputBytes is the length of the block that the host reads.
func (m *Model) OutputBytes() int64 {
	return m.Plan.Outputs["correct"].Offset + 4*int64(m.Plan.Batch)
}

// Input writes what the harnesses read for one model: the bytes of the eleven
// regions, of the workspace and of the counters, the samples and the seed, as 15
// uint64, then the contents of params, image, label, const, half, label2 and mix.
func (m *Model) Input(w *bytes.Buffer) {
	p := m.Plan
	params, half := make([]float32, p.Layout.Elems), make([]uint16, p.Layout.Elems)
	for _, q := range p.Layout.Params {
		for i, x := range m.Env.Params[q.Name].Data {
			params[q.Offset+i] = float32(x)
			bits := math.Float32bits(float32(x))
			half[q.Offset+i] = uint16((bits + 0x7fff + bits>>16&1) >> 16)
		}
	}
	image, mix := input[float32](m, "image"), input[float32](m, "mix")
	label, label2 := input[int32](m, "label"), input[int32](m, "label2")
	workspace, counters := p.WorkspaceBytes, 0
	if p.Device != nil {
		workspace, counters = p.Device.WorkspaceBytes, p.Device.Counters
	}
	arena := uint64(len(params)) * 4
	binary.Write(w, binary.LittleEndian, []uint64{arena, arena, 0, 0, uint64(p.ArenaBytes), uint64(len(image)) * 4,
		uint64(len(label)) * 4, uint64(len(p.Const)) * 4, arena / 2, uint64(len(label2)) * 4, uint64(len(mix)) * 4,
		uint64(workspace), uint64(counters) * 4, uint64(m.Env.N), m.Env.Seed})
	for _, part := range []any{params, image, label, p.Const, half, label2, mix} {
		binary.Write(w, binary.LittleEndian, part)
	}
}

// input is what the environment has under a name; nothing if the model takes no
// such input.
func input[T float32 | int32](m *Model, name string) (v []T) {
	for _, x := range m.Env.Inputs[name].Data {
		v = append(v, T(x))
	}
	return v
}

// Distances compares one model's part of what a harness wrote, the gradient
// arena and the outputs, with the interpreter's. It returns the relative norm of
// every difference, by output, and the rest.
func (m *Model) Distances(out []byte) (off map[string]float64, rest []byte, err error) {
	floats := func(n int64) []float32 {
		v := make([]float32, n/4)
		binary.Read(bytes.NewReader(out[:n]), binary.LittleEndian, v)
		out = out[n:]
		return v
	}
	grads := floats(4 * int64(m.Plan.Layout.Elems))
	block := floats(m.OutputBytes())
	at := map[string][]float32{}
	for name, ref := range m.Plan.Outputs {
		at[name] = block[ref.Offset/4:]
	}
	for _, q := range m.Plan.Layout.Params {
		at["grad."+q.Name] = grads[q.Offset:]
	}
	off = map[string]float64{}
	for name, want := range m.Want {
		got, ok := at[name]
		if !ok {
			return nil, nil, fmt.Errorf("%s: output %s is not in the plan", m.Name, name)
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
