package runtime

import (
	"fmt"
	"os"
	"strings"

	"github.com/vitgen/vitgen/runtime/cpu"
	"github.com/vitgen/vitgen/runtime/cpu/isa"
)

// CPUEntry is where a worker enters kernels.
type CPUEntry = cpu.Entry

// CPUCode is a generated package's compiled CPU kernels: once for each
// instruction set that is built in.
type CPUCode []CPUKernels

// CPUKernels are the kernels for one instruction set.
type CPUKernels struct {
	ISA   string // "plain", "avx2" or "avx512"; what is none of them runs anywhere
	Entry CPUEntry
}

// ISAs names the instruction sets that are built in.
func (c CPUCode) ISAs() []string {
	var names []string
	for _, k := range c {
		names = append(names, k.ISA)
	}
	return names
}

// Best are the kernels for the best instruction set that this machine has and
// the environment variable VITGEN_ISA allows.
func (c CPUCode) Best() (CPUKernels, error) { return c.best(isa.Best(), isa.Machine()) }

// best is Best on a given machine, where sets above `allowed` are not to be used.
func (c CPUCode) best(allowed, machine isa.Set) (CPUKernels, error) {
	var best CPUKernels
	at := isa.Set(-1)
	for _, k := range c {
		set, err := isa.Named(k.ISA)
		if err != nil {
			set = isa.Plain
		}
		if set > at && set <= allowed {
			best, at = k, set
		}
	}
	if at >= 0 {
		return best, nil
	}
	lack := "this machine's processor does not have that"
	if allowed < machine {
		lack = "VITGEN_ISA=" + os.Getenv("VITGEN_ISA") + " does not allow that"
	}
	return best, fmt.Errorf("this binary has kernels for %s only, and %s: build it for all, with vitgen build and no --isa or with go build and no -tags vitgen_…",
		strings.Join(c.ISAs(), " and "), lack)
}
