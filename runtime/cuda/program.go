//go:build cuda

package cuda

import (
	"fmt"
	"strings"
	"time"
	"unsafe"

	"github.com/mumax/3/cuda/cu"

	"github.com/vitgen/vitgen/runtime"
)

// launch is one launch with the addresses its arguments have.
type launch struct {
	kernel   *runtime.CUDAKernel
	function cu.Function
	layer    string
	pos      string
	values   []uint64
	args     []unsafe.Pointer // to the values, as the driver takes them
}

// String names the launch and the line of the spec it comes from.
func (l *launch) String() string {
	var facts []string
	for _, f := range []string{l.pos, l.layer, l.kernel.Doc} {
		if f != "" {
			facts = append(facts, f)
		}
	}
	return fmt.Sprintf("kernel %s (%s)", l.kernel.Name, strings.Join(facts, ", "))
}

// layOut resolves the launches of every program.
func (d *device) layOut() {
	for id, program := range d.cuda.Programs {
		for _, l := range program {
			args := make([]uint64, len(l.Args))
			for i, a := range l.Args {
				args[i] = uint64(a.Offset)
				if a.Region != runtime.Imm {
					args[i] += uint64(d.memory[a.Region].ptr)
				}
			}
			d.programs[id] = append(d.programs[id], d.launchOf(l.Kernel, l.Layer, l.Pos, args...))
		}
	}
	if d.cuda.HalfElems > 0 {
		l := d.launchOf(d.cuda.Halve, "parameters", "", uint64(d.memory[runtime.Params].ptr), uint64(d.memory[runtime.Half].ptr))
		d.halve = &l
	}
}

// launchOf is a launch of a kernel with the arguments given behind those that
// every kernel gets.
func (d *device) launchOf(kernel int, layer, pos string, args ...uint64) launch {
	l := launch{kernel: &d.cuda.Kernels[kernel], function: d.functions[kernel], layer: layer, pos: pos}
	l.values = append([]uint64{uint64(d.control.ptr), uint64(d.workspace.ptr), uint64(d.counters.ptr)}, args...)
	for i := range l.values {
		l.args = append(l.args, unsafe.Pointer(&l.values[i]))
	}
	return l
}

// submit launches l on the stream.
func (d *device) submit(l *launch) {
	d.at = l
	cu.LaunchKernel(l.function, l.kernel.Grid, 1, 1, l.kernel.Block, 1, 1, l.kernel.Shared, d.stream, l.args)
	d.at = nil
}

// submitAndWait launches l and waits for it, so that its failure is its own.
func (d *device) submitAndWait(l *launch) {
	d.submit(l)
	d.at = l
	d.stream.Synchronize()
	d.at = nil
}

// What can be recorded as one graph: each program, and Grad with Update behind
// it; each of them also with gather before it.
const (
	step       = int(runtime.NumPrograms)
	kinds      = int(runtime.NumPrograms) + 1
	recordings = 2 * kinds
)

var kindNames = [kinds]string{"the forward program", "the eval program", "the grad program", "the update program", "a training step (grad, update)"}

// each calls do with the launches of a kind of run, in order.
func (d *device) each(kind int, gathering bool, do func(*launch)) {
	if gathering {
		do(d.gather)
	}
	parts := []runtime.ProgramID{runtime.ProgramID(kind)}
	if kind == step {
		parts = []runtime.ProgramID{runtime.Grad, runtime.Update}
	}
	for _, id := range parts {
		for i := range d.programs[id] {
			do(&d.programs[id][i])
		}
	}
}

// graph is a kind of run as a CUDA graph, recorded the first time.
func (d *device) graph(kind int, gathering bool) graphExec {
	i := kind
	if gathering {
		i += kinds
	}
	if d.graphs[i] == 0 {
		d.graphs[i] = capture(d.stream, func() { d.each(kind, gathering, d.submit) })
	}
	return d.graphs[i]
}

func (d *device) Run(id runtime.ProgramID, n int, s *runtime.StepScalars) (err error) {
	defer d.leave(&err, "running a program")
	d.enter()
	d.run(int(id), n, s)
	return nil
}

// RunStep is Grad and Update in one graph.
func (d *device) RunStep(n int, s *runtime.StepScalars) (err error) {
	defer d.leave(&err, "running a step")
	d.enter()
	d.run(step, n, s)
	return nil
}

func (d *device) run(kind, n int, s *runtime.StepScalars) {
	d.last = kindNames[kind]
	slot := d.begin(n, s)
	gathering := d.gathering
	d.gathering = false
	if d.sync {
		d.each(kind, gathering, d.submitAndWait)
	} else if d.steps(kind) > 0 || gathering {
		d.graph(kind, gathering).launch(d.stream)
	}
	if kind != int(runtime.Eval) && kind != int(runtime.Grad) && kind != step {
		n = 0 // no results
	}
	d.finish(slot, n)
}

// steps counts the launches of a kind of run, without gather.
func (d *device) steps(kind int) int {
	if kind == step {
		return len(d.programs[runtime.Grad]) + len(d.programs[runtime.Update])
	}
	return len(d.programs[kind])
}

// begin sends what kernels read of a run: its scalars, how many samples, and
// which ones, if they are gathered. It brings the bf16 parameters up to date.
func (d *device) begin(n int, s *runtime.StepScalars) *slot {
	slot := d.slot()
	*slot.state = state{step: *s, batch: int32(n)}
	bytes := int64(stateBytes)
	if d.gathering {
		bytes += int64(len(slot.index)) * 4
	}
	cu.MemcpyHtoDAsync(d.control.ptr, slot.memory, bytes, d.stream)
	if d.halfStale {
		d.submit(d.halve)
		d.halfStale = false
	}
	return slot
}

// RunLaunch runs one launch and waits for it.
func (d *device) RunLaunch(id runtime.ProgramID, i, n int, s *runtime.StepScalars) (err error) {
	defer d.leave(&err, "running a launch")
	d.enter()
	d.last = kindNames[id]
	slot := d.begin(n, s)
	if d.gathering {
		d.gathering = false
		d.submitAndWait(d.gather)
	}
	d.submitAndWait(&d.programs[id][i])
	d.finish(slot, 0)
	return nil
}

// Profile is Run without a graph and with an event after each launch.
func (d *device) Profile(id runtime.ProgramID, n int, s *runtime.StepScalars, t []time.Duration) (err error) {
	defer d.leave(&err, "profiling")
	d.enter()
	if !d.fed { // whatever is in memory should be something
		d.memory[runtime.Image].clear(d.stream)
		d.fed = true
	}
	d.last = kindNames[id]
	program := d.programs[id]
	for len(d.events) <= len(program) {
		d.events = append(d.events, newTimedEvent())
	}
	slot := d.begin(n, s)
	if d.gathering {
		d.gathering = false
		d.submit(d.gather)
	}
	d.events[0].record(d.stream)
	for i := range program {
		d.submit(&program[i])
		d.events[i+1].record(d.stream)
	}
	d.finish(slot, 0)
	d.stream.Synchronize()
	for i := range program {
		t[i] = d.events[i+1].since(d.events[i])
	}
	return nil
}
