package runtime

import (
	"errors"
	"fmt"
	"slices"
)

// Check reports everything about the model that a Session could not run:
// tensors or references outside their memory, launches of missing kernels,
// impossible sizes. A model written by the generator passes.
func (m *Model) Check() error {
	c := checker{model: m}
	c.sizes()
	if len(c.errs) == 0 {
		c.params()
		for _, target := range []string{"cpu", "cuda"} {
			c.programs(target)
		}
	}
	if len(c.errs) == 0 {
		return nil
	}
	return fmt.Errorf("model %s is broken: %w", m.Name, errors.Join(c.errs...))
}

type checker struct {
	model *Model
	errs  []error
}

func (c *checker) failf(format string, args ...any) {
	const enough = 20
	if len(c.errs) < enough {
		c.errs = append(c.errs, fmt.Errorf(format, args...))
	}
}

func (c *checker) sizes() {
	m := c.model
	for _, n := range []struct {
		what string
		n    int
	}{
		{"channels", m.Image[0]}, {"height", m.Image[1]}, {"width", m.Image[2]},
		{"classes", m.Classes}, {"batch", m.Batch}, {"train.accumulate", m.Train.Accumulate},
	} {
		if n.n < 1 {
			c.failf("%s is %d", n.what, n.n)
		}
	}
	states := 0
	switch o := m.Train.Optimizer; {
	case o.Kind == "adamw":
		states = 2
	case o.Kind == "sgd" && o.Momentum != 0:
		states = 1
	case o.Kind != "sgd":
		c.failf("unknown optimizer %q", o.Kind)
	}
	if len(m.StateNames) != states {
		c.failf("optimizer %s has %d state arenas, want %d", m.Train.Optimizer.Kind, len(m.StateNames), states)
	}
	if e := m.Train.EMA.Decay; !(e >= 0 && e < 1) {
		c.failf("train.ema.decay is %g, want 0 … 1", e)
	}
	if m.ArenaBytes < 0 || m.WorkspaceBytes < 0 || m.ParamElems < 0 ||
		m.DecayElems < 0 || m.DecayElems > m.ParamElems {
		c.failf("a memory size is out of range")
	}
}

func (c *checker) params() {
	m := c.model
	owner := map[string]bool{}
	end := map[int]int{} // end of the parameter that starts at an offset
	for i := range m.Params {
		p := &m.Params[i]
		if owner[p.Name] {
			c.failf("%s: parameter %q is there twice", p.Pos, p.Name)
		}
		owner[p.Name] = true
		for _, d := range p.Shape {
			if d < 1 {
				c.failf("%s: parameter %q has shape %v", p.Pos, p.Name, p.Shape)
			}
		}
		if p.Offset < 0 || p.Offset+p.Elems() > m.ParamElems {
			c.failf("%s: parameter %q lies outside the arena", p.Pos, p.Name)
		}
		if end[p.Offset] != 0 {
			c.failf("%s: parameter %q starts where another does", p.Pos, p.Name)
		}
		end[p.Offset] = p.Offset + p.Elems()
		if err := p.Init.check(); err != nil {
			c.failf("%s: parameter %q: %v", p.Pos, p.Name, err)
		}
	}
	for i := range m.Params {
		for j := range m.Params[:i] {
			a, b := &m.Params[i], &m.Params[j]
			if a.Offset < b.Offset+b.Elems() && b.Offset < a.Offset+a.Elems() && a.Offset != b.Offset {
				c.failf("parameters %q and %q overlap", a.Name, b.Name)
			}
		}
	}
}

// programs checks the code for one target, if there is any.
func (c *checker) programs(target string) {
	m := c.model
	if target == "cpu" && len(m.CPU) == 0 && len(m.Kernels) == 0 || target == "cuda" && m.CUDA == nil {
		return
	}
	code, err := m.Code(target)
	if err != nil {
		c.failf("%v", err)
		return
	}
	ref := func(what string, r Ref, bytes int64) {
		switch align := r.Region.elemBytes(); {
		case r.Region == Imm:
		case r.Region >= NumRegions:
			c.failf("%s: region %d does not exist", what, r.Region)
		case r.Offset < 0 || r.Offset%align != 0 || r.Offset+bytes > code.Regions[r.Region]:
			c.failf("%s: %d bytes at %d lie outside region %s of %d bytes", what, bytes, r.Offset, r.Region, code.Regions[r.Region])
		}
	}
	perSample := int64(m.Batch) * 4
	ref("logits", code.Outputs.Logits, perSample*int64(m.Classes))
	ref("loss", code.Outputs.Loss, perSample)
	ref("correct", code.Outputs.Correct, perSample)
	check := func(name string, program Program) {
		for i, l := range program {
			if l.Kernel < 0 || l.Kernel >= len(code.Kernels) {
				c.failf("program %s, launch %d: kernel %d does not exist", name, i, l.Kernel)
				continue
			}
			k := &code.Kernels[l.Kernel]
			for j, a := range l.Args {
				ref(fmt.Sprintf("program %s, launch %d (%s), argument %d", name, i, k.Name, j), a, a.Region.elemBytes())
			}
			c.outs(code, k, l, m.Batch)
		}
	}
	for id, program := range code.Programs {
		check(ProgramID(id).String(), program)
	}
	check("pack", code.Pack)
	c.uses(code, target, Update, Average)
	c.uses(code, target, Grad, Label2)
	c.uses(code, target, Grad, Mix)
	if target == "cuda" {
		c.cuda(m.CUDA)
	}
}

// uses checks that a program looks at a region that the model has for it alone.
func (c *checker) uses(code *Code, target string, id ProgramID, r Region) {
	in := func(l Launch) bool { return slices.ContainsFunc(l.Args, func(a Ref) bool { return a.Region == r }) }
	if code.Regions[r] > 0 && !slices.ContainsFunc(code.Programs[id], in) {
		c.failf("the %s program for %s does not use region %s", id, target, r)
	}
}

// outs checks what a launch is said to write.
func (c *checker) outs(code *Code, k *Kernel, l Launch, batch int) {
	for _, o := range k.Outs {
		if o.Arg < 0 || o.Arg >= len(l.Args) || o.Elems < 1 || o.Rows < 0 || o.Stride < 0 {
			c.failf("kernel %s: it writes %+v of %d arguments", k.Name, o, len(l.Args))
			continue
		}
		a := l.Args[o.Arg]
		if _, _, size := o.extent(batch); a.Region >= Imm || a.Offset+int64(size) > code.Regions[a.Region] {
			c.failf("kernel %s: output %+v of %d bytes lies outside its region", k.Name, o, size)
		}
	}
}

func (c *checker) cuda(code *CUDACode) {
	if code.ArenaBytes < 0 || code.WorkspaceBytes < 0 || code.Counters < 0 || code.HalfElems < 0 {
		c.failf("a memory size of the CUDA code is out of range")
	}
	const warp, most = 32, 1024
	for _, k := range code.Kernels {
		if k.Grid < 1 || k.Block < warp || k.Block > most || k.Block%warp != 0 || k.Shared < 0 {
			c.failf("kernel %s is launched with %d blocks of %d threads and %d bytes of shared memory", k.Name, k.Grid, k.Block, k.Shared)
		}
	}
	for what, i := range map[string]int{"gather": code.Gather, "halve": code.Halve} {
		if i < -1 || i >= len(code.Kernels) {
			c.failf("kernel %d to %s does not exist", i, what)
		}
	}
	if code.HalfElems > 0 && (code.Halve < 0 || code.HalfElems > c.model.ParamElems) {
		c.failf("there is a bf16 copy of %d parameters, and kernel %d to make it", code.HalfElems, code.Halve)
	}
}
