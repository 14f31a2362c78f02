//go:build cuda

package cuda

import (
	"fmt"
	"unsafe"

	"github.com/mumax/3/cuda/cu"

	"github.com/vitgen/vitgen/runtime"
)

// slots is how many runs may be on their way before the host waits for the
// first of them, and how many runs back results are kept.
const slots = runtime.MaxTickets

// slot is the pinned memory of one run: what the host tells it, and what comes
// back. The GPU copies both while the host is elsewhere, so a slot is used again
// only when its run is done.
type slot struct {
	number uint64 // of the run
	what   string // which program
	done   event
	memory unsafe.Pointer // of all below
	state  *state
	index  []int32 // for gather
	loss   []float32
	right  []float32 // 1 for each sample classified correctly
	n      int       // samples with results; 0: none
}

// state mirrors vg_state (call.cuh).
type state struct {
	step  runtime.StepScalars
	batch int32
	_     [6]int32
}

// pinned allocates memory of the host that the GPU can copy from and to by
// itself.
func pinned(bytes int64) unsafe.Pointer { return cu.MemAllocHost(bytes) }

// slot is the slot of the next run, free for use.
func (d *device) slot() *slot {
	s := &d.slots[d.next%slots]
	if d.slotHeld {
		return s
	}
	if s.memory == nil {
		s.make(d.model.Batch)
	} else {
		s.done.wait()
	}
	s.number, s.n, s.index = d.next, 0, s.index[:0]
	d.slotHeld = true
	return s
}

func (s *slot) make(batch int) {
	s.memory = pinned(stateBytes + 3*4*int64(batch))
	s.done = newEvent()
	s.state = (*state)(s.memory)
	at := func(i int) unsafe.Pointer { return unsafe.Add(s.memory, stateBytes+i*4*batch) }
	s.index = unsafe.Slice((*int32)(at(0)), batch)
	s.loss = unsafe.Slice((*float32)(at(1)), batch)
	s.right = unsafe.Slice((*float32)(at(2)), batch)
}

// free gives a slot's memory back.
func (s *slot) free(do func(func())) {
	if s.memory != nil {
		do(s.done.destroy)
		do(func() { cu.MemFreeHost(s.memory) })
	}
}

// finish fetches the results of the run that was just submitted, if it has any,
// and marks its end.
func (d *device) finish(s *slot, n int) {
	s.what, s.n = d.last, n
	if n > 0 {
		o := &d.code.Outputs
		d.fetch(s.loss[:n], o.Loss)
		d.fetch(s.right[:n], o.Correct)
		d.ticket = s.number
	}
	s.done.record(d.stream)
	d.next++
	d.slotHeld = false
}

func (d *device) fetch(to []float32, from runtime.Ref) {
	cu.MemcpyDtoHAsync(unsafe.Pointer(&to[0]), d.place(from, len(to)*4), int64(len(to))*4, d.stream)
}

// Ticket names the last run with results.
func (d *device) Ticket() uint64 { return d.ticket }

// Results waits for a run.
func (d *device) Results(ticket uint64, loss, correct []float32) (err error) {
	defer d.leave(&err, "waiting for a step")
	d.enter()
	s := &d.slots[ticket%slots]
	if s.memory == nil || s.number != ticket || s.n < len(loss) || s.n < len(correct) {
		panic(failure{fmt.Errorf("BUG: the results of run %d are no longer kept", ticket)})
	}
	last := d.last
	d.last = s.what
	s.done.wait()
	d.last = last
	copy(loss, s.loss)
	copy(correct, s.right)
	return nil
}
