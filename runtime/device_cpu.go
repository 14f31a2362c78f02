package runtime

import (
	"fmt"
	goruntime "runtime"
	"time"

	"github.com/vitgen/vitgen/runtime/cpu"
)

// cpuDevice holds a model's memory outside the Go heap and runs its compiled
// CPU kernels with a team of workers.
type cpuDevice struct {
	code      *Code
	team      *cpu.Team
	regions   [NumRegions]*cpu.Memory
	workspace *cpu.Memory
	programs  [NumPrograms]*cpu.Program
	pack      *cpu.Program
	packed    bool // pack has run, and nothing since that spoils what it left
	kernels   CPUKernels
}

func openCPU(m *Model, _ int, o Options) (Device, error) {
	if len(m.CPU) == 0 {
		return nil, fmt.Errorf("model %s was compiled without CPU kernels", m.Name)
	}
	threads := o.Threads
	if threads == 0 {
		threads = goruntime.GOMAXPROCS(0) // knows about affinity and CPU quotas
	}
	d := &cpuDevice{}
	var err error
	if d.code, err = m.Code("cpu"); err != nil {
		return nil, err
	}
	if d.kernels, err = m.CPU.Best(); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	if err := d.open(m, threads); err != nil {
		d.Close()
		return nil, fmt.Errorf("cpu: %w", err)
	}
	return d, nil
}

func (d *cpuDevice) open(m *Model, threads int) (err error) {
	if d.team, err = cpu.NewTeam(d.kernels.Entry, threads); err != nil {
		return err
	}
	for r, bytes := range d.code.Regions {
		if d.regions[r], err = cpu.Alloc(bytes, threads); err != nil {
			return fmt.Errorf("%s: %w", Region(r), err)
		}
	}
	if m.ConstData != nil {
		copy(d.regions[Const].Float32s(), m.ConstData())
	}
	if d.workspace, err = cpu.Alloc(m.WorkspaceBytes, threads); err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	for id, program := range m.Programs {
		if d.programs[id], err = d.layOut(program); err != nil {
			return fmt.Errorf("program %s: %w", ProgramID(id), err)
		}
	}
	if d.pack, err = d.layOut(m.Pack); err != nil {
		return fmt.Errorf("program pack: %w", err)
	}
	return nil
}

// layOut makes launches a program, with the addresses their arguments have.
func (d *cpuDevice) layOut(program Program) (*cpu.Program, error) {
	launches := make([]cpu.Launch, len(program))
	for i, l := range program {
		args := make([]uintptr, len(l.Args))
		for j, a := range l.Args {
			if a.Region == Imm {
				args[j] = uintptr(a.Offset)
				continue
			}
			args[j] = d.regions[a.Region].Address() + uintptr(a.Offset)
		}
		launches[i] = cpu.Launch{Kernel: l.Kernel, Args: args}
	}
	return cpu.NewProgram(d.team, launches, d.workspace)
}

func (d *cpuDevice) Name() string {
	s := "s"
	if d.team.Threads() == 1 {
		s = ""
	}
	return fmt.Sprintf("cpu (%d thread%s, %s)", d.team.Threads(), s, d.kernels.ISA)
}

// Cores is for Session.Cores.
func (d *cpuDevice) Cores() (threads int, isa string) { return d.team.Threads(), d.kernels.ISA }

func (d *cpuDevice) Code() *Code { return d.code }

func (d *cpuDevice) Write(dst Ref, src []byte) error {
	b, err := d.span(dst, len(src))
	copy(b, src)
	d.written(dst.Region)
	return err
}

func (d *cpuDevice) Read(dst []byte, src Ref) error {
	b, err := d.span(src, len(dst))
	copy(dst, b)
	return err
}

// span is n bytes of a region.
func (d *cpuDevice) span(r Ref, n int) ([]byte, error) {
	b := d.regions[r.Region].Bytes()
	if r.Offset < 0 || r.Offset > int64(len(b)) || n > len(b)-int(r.Offset) {
		return nil, fmt.Errorf("%d bytes at %d are outside region %s of %d bytes", n, r.Offset, r.Region, len(b))
	}
	return b[r.Offset:][:n], nil
}

func (d *cpuDevice) Clear(r Region) error {
	clear(d.regions[r].Bytes())
	d.written(r)
	return nil
}

// written notes that the host has changed a region.
func (d *cpuDevice) written(r Region) {
	if r == Params || r == Arena {
		d.packed = false
	}
}

// prepare precedes every run of a program: those that read packed weights find
// them packed, and the others are taken to overwrite them.
func (d *cpuDevice) prepare(id ProgramID, n int, s *StepScalars) {
	if id != Forward && id != Eval {
		d.packed = false
		return
	}
	if !d.packed && len(d.code.Pack) > 0 {
		d.team.Run(d.pack, n, s)
	}
	d.packed = true
}

func (d *cpuDevice) Run(id ProgramID, n int, s *StepScalars) error {
	d.prepare(id, n, s)
	d.team.Run(d.programs[id], n, s)
	return nil
}

func (d *cpuDevice) RunLaunch(id ProgramID, launch, n int, s *StepScalars) error {
	p, err := d.layOut(d.code.Programs[id][launch : launch+1])
	if err != nil {
		return err
	}
	defer p.Free()
	d.prepare(id, n, s)
	d.team.Run(p, n, s)
	return nil
}

func (d *cpuDevice) Profile(id ProgramID, n int, s *StepScalars, t []time.Duration) error {
	d.prepare(id, n, s)
	d.team.Profile(d.programs[id], n, s, t)
	return nil
}

func (d *cpuDevice) Close() error {
	d.team.Close()
	for i, m := range d.regions {
		m.Free()
		d.regions[i] = nil
	}
	d.workspace.Free()
	for i, p := range d.programs {
		p.Free()
		d.programs[i] = nil
	}
	d.pack.Free()
	d.team, d.workspace, d.pack = nil, nil, nil
	return nil
}
