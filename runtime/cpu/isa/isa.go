// Package isa names the instruction sets that CPU kernels are compiled for, and
// says which of them this machine has.
package isa

import (
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/cpu"
)

// Set is an instruction set.
type Set int

// The sets, the plainest first: each machine has all up to one of them.
const (
	Plain  Set = iota // what any processor of the architecture has
	AVX2              // with FMA
	AVX512            // F, DQ, BW and VL
)

var names = [...]string{"plain", "avx2", "avx512"}

func (s Set) String() string { return names[s] }

// Tag is the Go build tag under which generated packages have the kernels for this
// set, and for others only if theirs are given too.
func (s Set) Tag() string { return "vitgen_" + s.String() }

// Named finds a set by its name.
func Named(name string) (Set, error) {
	if i := slices.Index(names[:], name); i >= 0 {
		return Set(i), nil
	}
	return 0, fmt.Errorf("no instruction set %q", name)
}

// Machine is the best that this machine's processor and system have.
func Machine() Set {
	x := &cpu.X86
	switch {
	case runtime.GOARCH != "amd64" || !x.HasAVX2 || !x.HasFMA:
		return Plain
	case !x.HasAVX512F || !x.HasAVX512DQ || !x.HasAVX512BW || !x.HasAVX512VL:
		return AVX2
	default:
		return AVX512
	}
}

// Best is the best that this machine has and the environment variable VITGEN_ISA
// allows, which may name a lower one.
func Best() Set {
	if most, err := Named(os.Getenv("VITGEN_ISA")); err == nil {
		return min(most, Machine())
	}
	return Machine()
}
