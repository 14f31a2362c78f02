//go:build cgo

package roof

/*
#cgo CXXFLAGS: -O3 -std=gnu++17 -fno-exceptions -fno-rtti -Wall -Wextra -Wno-psabi
#cgo LDFLAGS: -lpthread
#include "roof.h"
*/
import "C"

import (
	"errors"

	"github.com/vitgen/vitgen/runtime/cpu/isa"
)

// run does rounds of an op on each of threads threads.
func run(set isa.Set, o Op, threads int, data uintptr, bytes int, rounds uint64) (result, error) {
	r := C.roof_run(C.int(set), C.int(o), C.int(threads), C.uintptr_t(data), C.size_t(bytes), C.uint64_t(rounds))
	if r.seconds <= 0 {
		return result{}, errors.New("roof: a thread cannot be started")
	}
	return result{float64(r.seconds), float64(r.least), float64(r.work)}, nil
}
