// Package roof measures what bounds any kernel on this machine's CPU: how fast its
// cores multiply and add with all operands in registers, and how fast they move
// data to and from memory of some size. The loops are C++, compiled for the same
// instruction sets as kernels are.
package roof

import (
	"fmt"
	"time"

	"github.com/vitgen/vitgen/runtime/cpu"
	"github.com/vitgen/vitgen/runtime/cpu/isa"
	"github.com/vitgen/vitgen/runtime/rng"
)

// Op is what a loop does.
type Op int

// FMA computes; the others move data.
const (
	FMA Op = iota
	Read
	Write
	Copy // of one half of a thread's bytes to the other
)

func (o Op) String() string { return [...]string{"fma", "read", "write", "copy"}[o] }

// Bench is a loop on some threads.
type Bench struct {
	set     isa.Set
	op      Op
	threads int
	memory  uintptr
	bytes   int // of each thread
	rounds  uint64
}

// NewFMA makes a loop of fused multiply-adds (on plain: of products and sums).
func NewFMA(set isa.Set, threads int) *Bench {
	return &Bench{set: set, op: FMA, threads: threads, rounds: 1}
}

// unit is what the bytes of a thread are a multiple of: whole turns of the loops.
const unit = 1024

// NewStream makes a loop over the beginning of the memory, of which each thread
// has so many bytes for itself, rounded down to a KiB.
func NewStream(set isa.Set, op Op, threads, bytes int, memory *cpu.Memory) *Bench {
	bytes = bytes / unit * unit
	if bytes <= 0 || bytes*threads > len(memory.Bytes()) {
		panic(fmt.Sprintf("BUG: %d threads with %d bytes each of %d", threads, bytes, len(memory.Bytes())))
	}
	return &Bench{set: set, op: op, threads: threads, memory: memory.Address(), bytes: bytes, rounds: 1}
}

// Alloc allocates memory for streams: random numbers, never zeros.
func Alloc(bytes int64, threads int) (*cpu.Memory, error) {
	m, err := cpu.Alloc(bytes, threads)
	if err != nil {
		return nil, err
	}
	data := m.Float32s()
	random := rng.New(1, "roof")
	first := data[:min(len(data), 1<<16)]
	for i := range first {
		first[i] = float32(random.Normal())
	}
	for done := len(first); done < len(data); done += len(first) {
		copy(data[done:], first)
	}
	return m, nil
}

// result is that of a run: its time, the shortest time of a thread, and the work
// of all, in FLOPs or bytes.
type result struct{ seconds, least, work float64 }

// Rate runs the loop for about that long and gives FLOP/s or bytes/s of all
// threads. How many rounds that takes it finds out by trying, once.
func (b *Bench) Rate(during time.Duration) (float64, error) {
	for {
		r, err := run(b.set, b.op, b.threads, b.memory, b.bytes, b.rounds)
		if err != nil {
			return 0, err
		}
		if want := during.Seconds() / max(r.least, 1e-9); want > 1.5 {
			b.rounds = max(b.rounds+1, uint64(float64(b.rounds)*min(want, 10)))
			continue
		}
		return r.work / r.seconds, nil
	}
}
