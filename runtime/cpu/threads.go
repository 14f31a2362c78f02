package cpu

/*
#cgo CFLAGS: -O2 -std=gnu11 -Wall -Wextra
#cgo LDFLAGS: -lpthread
#include "threads.h"
*/
import "C"

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"
)

// threads are workers whose kernels are C: threads that Go's scheduler knows
// nothing of. It takes the processor away from a goroutine that stays in C, and
// then looks every 20 us whether to do so again, which costs a short step half
// of its time.
type threads struct {
	team *C.vg_threads
}

func startThreads(entry unsafe.Pointer, workers uintptr, count int) (crew, error) {
	var code C.int
	team := C.vg_threads_start(C.vg_entry(entry), C.uintptr_t(workers), cacheLine, C.int(count), &code)
	if team == nil {
		return nil, fmt.Errorf("cannot start %d threads: %w", count-1, syscall.Errno(code))
	}
	return &threads{team}, nil
}

// run gives Go's scheduler a turn first. A goroutine that has not had one for
// 10 ms is taken for stuck, though it has come back from C in between, and from
// then on the scheduler's own thread gets up a few times in every run, on a core
// that a worker wants.
func (t *threads) run(program uintptr) {
	runtime.Gosched()
	C.vg_threads_run(t.team, C.uintptr_t(program))
}

func (t *threads) stop() { C.vg_threads_stop(t.team) }
