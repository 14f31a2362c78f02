package cpu

import (
	"fmt"
	"time"
	"unsafe"
)

// MaxThreads bounds the size of a team; beyond it a thread count is a mistake.
const MaxThreads = 1024

// Entry is a kernel library's way in: it executes a program as one worker. Every
// worker of a team is in it with the same program, and it returns when the
// program is done. program points at a VGProgram and worker at a VGWorker, both
// outside the Go heap. One of the two is set.
type Entry struct {
	C  unsafe.Pointer                // void (*)(const vg_program*, vg_worker*)
	Go func(program, worker uintptr) // the same for kernels written in Go
}

// None says that there are no kernels.
func (e Entry) None() bool { return e.C == nil && e.Go == nil }

// Team runs programs with a fixed number of workers. The caller of Run is
// worker 0; the others live as long as the team and sleep between runs. Each
// calls the kernel library once per run, and inside it they keep step by the
// library's own barrier. A Team serves one caller at a time.
type Team struct {
	crew    crew
	control *Memory // step, barrier, then one worker per cache line
	scratch *Memory
	count   int
}

// A crew is the workers of a team, ready to run.
type crew interface {
	// run returns when every worker has run the program.
	run(program uintptr)
	stop()
}

const (
	cacheLine = 64
	stepAt    = 0
	barrierAt = 128
	workersAt = barrierAt + 128
)

// NewTeam starts threads-1 workers.
func NewTeam(entry Entry, threads int) (*Team, error) {
	if threads < 1 || threads > MaxThreads {
		return nil, fmt.Errorf("%d threads: the number of threads must be in 1 … %d", threads, MaxThreads)
	}
	t := &Team{count: threads}
	if err := t.start(entry); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func (t *Team) start(entry Entry) (err error) {
	if t.control, err = Alloc(int64(workersAt+t.count*cacheLine), 1); err != nil {
		return err
	}
	if t.scratch, err = Alloc(int64(t.count)*ScratchBytes, t.count); err != nil {
		return err
	}
	for i := range t.count {
		*t.worker(i) = VGWorker{Index: int32(i), Count: int32(t.count), Scratch: t.scratch.Address() + uintptr(i)*ScratchBytes}
	}
	if entry.C == nil {
		t.crew = startGoroutines(entry.Go, t.workerAddress, t.count)
		return nil
	}
	t.crew, err = startThreads(entry.C, t.workerAddress(0), t.count)
	return err
}

// Threads is the number of workers.
func (t *Team) Threads() int { return t.count }

// Run runs the program over the first batch samples and returns when every
// worker is done. It allocates nothing.
func (t *Team) Run(p *Program, batch int, s *Step) {
	p.timed(false)
	t.dispatch(p, batch, s)
}

// Profile is Run with the time of each launch, as worker 0 saw it, in d.
func (t *Team) Profile(p *Program, batch int, s *Step, d []time.Duration) {
	if len(d) != len(p.ns) {
		panic(fmt.Sprintf("BUG: Profile of %d launches into %d slots", len(p.ns), len(d)))
	}
	p.timed(true)
	t.dispatch(p, batch, s)
	p.timed(false)
	p.times(d)
}

func (t *Team) dispatch(p *Program, batch int, s *Step) {
	*(*Step)(unsafe.Pointer(&t.control.Bytes()[stepAt])) = *s
	p.head.Batch = int32(batch)
	t.crew.run(p.memory.Address())
}

// Close ends the workers and frees the team's memory. No run may be under
// way, and none may follow.
func (t *Team) Close() {
	if t == nil {
		return
	}
	if t.crew != nil {
		t.crew.stop()
		t.crew = nil
	}
	t.scratch.Free()
	t.control.Free()
}

func (t *Team) worker(i int) *VGWorker {
	return (*VGWorker)(unsafe.Pointer(&t.control.Bytes()[workersAt+i*cacheLine]))
}

func (t *Team) workerAddress(i int) uintptr {
	return t.control.Address() + workersAt + uintptr(i)*cacheLine
}

func (t *Team) stepAddress() uintptr    { return t.control.Address() + stepAt }
func (t *Team) barrierAddress() uintptr { return t.control.Address() + barrierAt }
