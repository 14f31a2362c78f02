package cpu

import (
	"time"
	"unsafe"
)

// Launch is one kernel with the absolute addresses of its arguments.
type Launch struct {
	Kernel int
	Args   []uintptr
}

// Program is a list of launches laid out for the kernel library, once; running
// it changes nothing but the batch and the timing slots.
type Program struct {
	memory *Memory
	head   *VGProgram
	ns     []int64 // one per launch, outside the Go heap
}

// NewProgram lays launches out. The program reads step when it runs and uses
// workspace (any length, 64-byte aligned) within each launch.
func NewProgram(t *Team, launches []Launch, workspace *Memory) (*Program, error) {
	args := 0
	for _, l := range launches {
		args += len(l.Args)
	}
	const headBytes = int(unsafe.Sizeof(VGProgram{}))
	launchAt := roundUp(headBytes, 64)
	argAt := roundUp(launchAt+len(launches)*int(unsafe.Sizeof(VGLaunch{})), 64)
	nsAt := roundUp(argAt+args*int(unsafe.Sizeof(uintptr(0))), 64)
	mem, err := Alloc(int64(nsAt+len(launches)*8), 1)
	if err != nil {
		return nil, err
	}
	base := unsafe.Pointer(unsafe.SliceData(mem.Bytes()))
	p := &Program{
		memory: mem,
		head:   (*VGProgram)(base),
		ns:     unsafe.Slice((*int64)(unsafe.Add(base, nsAt)), len(launches)),
	}
	laid := unsafe.Slice((*VGLaunch)(unsafe.Add(base, launchAt)), len(launches))
	flat := unsafe.Slice((*uintptr)(unsafe.Add(base, argAt)), args)
	next := 0
	for i, l := range launches {
		laid[i] = VGLaunch{Kernel: uint32(l.Kernel), ArgCount: uint32(len(l.Args)), FirstArg: uint64(next)}
		next += copy(flat[next:], l.Args)
	}
	*p.head = VGProgram{
		Launches:    mem.Address() + uintptr(launchAt),
		Args:        mem.Address() + uintptr(argAt),
		Step:        t.stepAddress(),
		Workspace:   workspace.Address(),
		Barrier:     t.barrierAddress(),
		LaunchCount: int32(len(launches)),
	}
	return p, nil
}

// Free gives the program's memory back.
func (p *Program) Free() {
	if p != nil {
		p.memory.Free()
	}
}

// timed points the program at its timing slots, or away from them.
func (p *Program) timed(on bool) {
	p.head.LaunchNS = 0
	if on {
		clear(p.ns)
		p.head.LaunchNS = uintptr(unsafe.Pointer(unsafe.SliceData(p.ns)))
	}
}

// times copies the timing slots out; d has one element per launch.
func (p *Program) times(d []time.Duration) {
	for i := range d {
		d[i] = time.Duration(p.ns[i])
	}
}
