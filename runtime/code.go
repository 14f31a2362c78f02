package runtime

import (
	"fmt"
	"slices"
)

// Code is what the compiler made of a model for one target: what a Session, info
// and bench need to know whatever the target is.
type Code struct {
	Target         string // cpu, cuda
	Precision      string // computed in: fp32, tf32, bf16
	Kernels        []Kernel
	Programs       [NumPrograms]Program
	Pack           Program // see Model.Pack
	Outputs        Outputs
	Regions        [NumRegions]int64 // bytes of each memory
	WorkspaceBytes int64
}

// Code returns the model's code for a target, cpu or cuda.
func (m *Model) Code(target string) (*Code, error) {
	switch {
	case target == "cpu":
		return &Code{
			Target: target, Precision: "fp32", Kernels: m.Kernels, Programs: m.Programs, Pack: m.Pack, Outputs: m.Outputs,
			Regions: m.RegionBytes(), WorkspaceBytes: m.WorkspaceBytes,
		}, nil
	case target != "cuda":
		return nil, fmt.Errorf("unknown target %q: want cpu or cuda", target)
	case m.CUDA == nil:
		return nil, fmt.Errorf("model %s was compiled without CUDA kernels: compile %s with --target cpu,cuda", m.Name, m.SpecFile)
	}
	c := &Code{
		Target: target, Precision: m.CUDA.Precision, Programs: m.CUDA.Programs, Outputs: m.CUDA.Outputs,
		Regions: m.RegionBytes(), WorkspaceBytes: m.CUDA.WorkspaceBytes,
	}
	c.Regions[Arena] = m.CUDA.ArenaBytes
	c.Regions[Half] = int64(m.CUDA.HalfElems) * Half.elemBytes()
	if c.Outputs == (Outputs{}) {
		c.Outputs = m.Outputs
	}
	for i := range m.CUDA.Kernels {
		c.Kernels = append(c.Kernels, m.CUDA.Kernels[i].Kernel)
	}
	return c, nil
}

// FLOPs is the work of a program at full batch, as its kernels tell it.
func (c *Code) FLOPs(id ProgramID) (flops int64) {
	for _, l := range c.Programs[id] {
		flops += c.Kernels[l.Kernel].FLOPs
	}
	return flops
}

// SaysOutputs reports whether kernels say what they write (Kernel.Outs), without
// which FindNaN has nothing to look at.
func (c *Code) SaysOutputs() bool {
	return slices.ContainsFunc(c.Kernels, func(k Kernel) bool { return len(k.Outs) > 0 })
}
