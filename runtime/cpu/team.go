package cpu

import (
	"fmt"
	"sync"
	"time"
	"unsafe"
)

// MaxThreads bounds the size of a team; beyond it a thread count is a mistake.
const MaxThreads = 1024

// Team runs programs with a fixed number of workers. The caller of Run is
// worker 0; the others are goroutines that live as long as the team and sleep
// between runs. Each calls the kernel library once per run, and inside it they
// keep step by the library's own barrier. A Team serves one caller at a time.
type Team struct {
	run     func(program, worker uintptr)
	control *Memory // step, barrier, then one worker per cache line
	scratch *Memory
	wake    []chan uintptr // of workers 1 …
	done    sync.WaitGroup
	count   int
}

const (
	cacheLine = 64
	stepAt    = 0
	barrierAt = 128
	workersAt = barrierAt + 128
)

// NewTeam starts threads-1 goroutines. run is the kernel library's entry.
func NewTeam(run func(program, worker uintptr), threads int) (*Team, error) {
	if threads < 1 || threads > MaxThreads {
		return nil, fmt.Errorf("%d threads: the number of threads must be in 1 … %d", threads, MaxThreads)
	}
	control, err := Alloc(int64(workersAt+threads*cacheLine), 1)
	if err != nil {
		return nil, err
	}
	scratch, err := Alloc(int64(threads)*ScratchBytes, threads)
	if err != nil {
		control.Free()
		return nil, err
	}
	t := &Team{run: run, control: control, scratch: scratch, count: threads}
	for i := range threads {
		*t.worker(i) = VGWorker{Index: int32(i), Count: int32(threads), Scratch: scratch.Address() + uintptr(i)*ScratchBytes}
	}
	for i := 1; i < threads; i++ {
		wake := make(chan uintptr, 1)
		t.wake = append(t.wake, wake)
		go func() {
			for p := range wake {
				t.run(p, t.workerAddress(i))
				t.done.Done()
			}
		}()
	}
	return t, nil
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
	head := p.memory.Address()
	t.done.Add(len(t.wake))
	for _, wake := range t.wake {
		wake <- head
	}
	t.run(head, t.workerAddress(0))
	t.done.Wait()
}

// Close ends the goroutines and frees the team's memory. No run may be under
// way, and none may follow.
func (t *Team) Close() {
	if t == nil {
		return
	}
	for _, wake := range t.wake {
		close(wake)
	}
	t.wake = nil
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
