package runtime

import (
	"errors"
	"fmt"
)

// Check reports everything about the model that a Session could not run:
// tensors or references outside their memory, launches of missing kernels,
// impossible sizes. A model written by the generator passes.
func (m *Model) Check() error {
	c := checker{model: m}
	c.sizes()
	if len(c.errs) == 0 {
		c.params()
		c.programs()
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

func (c *checker) programs() {
	m := c.model
	size := m.RegionBytes()
	ref := func(what string, r Ref, bytes int64) {
		switch {
		case r.Region == Imm:
		case r.Region >= NumRegions:
			c.failf("%s: region %d does not exist", what, r.Region)
		case r.Offset < 0 || r.Offset%4 != 0 || r.Offset+bytes > size[r.Region]:
			c.failf("%s: %d bytes at %d lie outside region %s of %d bytes", what, bytes, r.Offset, r.Region, size[r.Region])
		}
	}
	perSample := int64(m.Batch) * 4
	ref("logits", m.Outputs.Logits, perSample*int64(m.Classes))
	ref("loss", m.Outputs.Loss, perSample)
	ref("correct", m.Outputs.Correct, perSample)
	for id, program := range m.Programs {
		for i, l := range program {
			if l.Kernel < 0 || l.Kernel >= len(m.Kernels) {
				c.failf("program %s, launch %d: kernel %d does not exist", ProgramID(id), i, l.Kernel)
				continue
			}
			for j, a := range l.Args {
				ref(fmt.Sprintf("program %s, launch %d (%s), argument %d", ProgramID(id), i, m.Kernels[l.Kernel].Name, j), a, 4)
			}
		}
	}
}
