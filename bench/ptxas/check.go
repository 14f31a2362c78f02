package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vitgen/vitgen/internal/nvcc"
)

// example is a generated package, compiled.
type example struct {
	name    string
	kernels []kernel
	faults  []string
	took    time.Duration
	cached  bool
}

// kernel is what one kernel takes on each chip.
type kernel struct {
	nvcc.Kernel
	uses []use // in the order of the chips
}

type use struct {
	nvcc.Resources
	shared    int // bytes, static and dynamic
	blocks    int // resident on a multiprocessor
	occupancy float64
}

// compile makes machine code of a package's kernels and checks it.
func compile(ctx context.Context, dir string, archs []string, compiler *nvcc.Compiler) (example, error) {
	e := example{name: filepath.Base(dir)}
	p, err := nvcc.ReadPackage(dir)
	if err != nil {
		return e, err
	}
	_, report, err := nvcc.Compile(ctx, nvcc.Input{
		Source: p.Source, Headers: p.Headers, Archs: archs, Cubin: true, Compiler: compiler, Cache: nvcc.OpenCache(),
	})
	if err != nil {
		return e, err
	}
	e.took, e.cached = report.Took, report.Cached()
	e.add(nvcc.Kernels(p.Source), report.Archs)
	return e, nil
}

// add joins what the source says of kernels with what ptxas says, and notes
// every fault.
func (e *example) add(kernels []nvcc.Kernel, archs []nvcc.ArchReport) {
	known := map[string]int{}
	for _, k := range kernels {
		if k.Launched {
			known[k.Name] = len(e.kernels)
			e.kernels = append(e.kernels, kernel{Kernel: k, uses: make([]use, len(archs))})
			e.checkLaunch(k)
		}
	}
	for i, a := range archs {
		seen := map[string]bool{}
		for _, f := range a.Functions {
			e.checkFunction(a.Arch, f)
			if at, ok := known[f.Function]; ok {
				seen[f.Function] = true
				e.kernels[at].uses[i] = e.occupy(a.Arch, e.kernels[at].Kernel, f)
			} else if f.Entry {
				e.fault(a.Arch, f.Function, "is no kernel of the source as internal/nvcc reads it")
			}
		}
		for _, k := range e.kernels {
			if !seen[k.Name] {
				e.fault(a.Arch, k.Name, "ptxas does not mention it")
			}
		}
		for _, r := range a.Remarks {
			e.faults = append(e.faults, fmt.Sprintf("%s, %s: %s", e.name, a.Arch, r))
		}
	}
}

func (e *example) fault(arch, kernel, format string, args ...any) {
	e.faults = append(e.faults, fmt.Sprintf("%s, %s, %s: %s", e.name, arch, kernel, fmt.Sprintf(format, args...)))
}

// checkLaunch holds the comment about the launch to the code.
func (e *example) checkLaunch(k nvcc.Kernel) {
	switch bound, err := strconv.Atoi(k.Bound); {
	case k.Block == 0:
		e.fault("source", k.Name, `no comment "grid …, block …, shared … bytes" above it`)
	case err == nil && bound != k.Block:
		e.fault("source", k.Name, "compiled for blocks of %d threads, launched with %d", bound, k.Block)
	}
}

// checkFunction is for kernels and for functions that are not inlined.
func (e *example) checkFunction(arch string, f nvcc.Resources) {
	if f.SpillStores > 0 || f.SpillLoads > 0 {
		e.fault(arch, f.Function, "spills registers: %d bytes stored, %d loaded", f.SpillStores, f.SpillLoads)
	}
}

// occupy works out how many blocks of a kernel a multiprocessor holds.
func (e *example) occupy(arch string, k nvcc.Kernel, f nvcc.Resources) use {
	l, _ := nvcc.LimitsOf(arch) // checked with the flags
	u := use{Resources: f, shared: k.Shared + f.Shared}
	if k.Block == 0 {
		return u
	}
	u.blocks = l.BlocksPerSM(k.Block, f.Registers, u.shared)
	u.occupancy = l.Occupancy(u.blocks, k.Block)
	switch {
	case u.shared > l.BlockShared:
		e.fault(arch, k.Name, "takes %d bytes of shared memory; a block can have %d", u.shared, l.BlockShared)
	case u.blocks == 0:
		e.fault(arch, k.Name, "cannot be launched: %d threads of %d registers", k.Block, f.Registers)
	}
	return u
}

// summary is one line for the console.
func (e *example) summary() string {
	registers, spilled := 0, 0
	for _, k := range e.kernels {
		for _, u := range k.uses {
			registers = max(registers, u.Registers)
			spilled += u.SpillStores + u.SpillLoads
		}
	}
	took := fmt.Sprintf("%.1f s", e.took.Seconds())
	if e.cached {
		took = "cached"
	}
	return strings.TrimSpace(fmt.Sprintf("%-12s %3d kernels, at most %d registers, %d bytes spilled (%s)", e.name, len(e.kernels), registers, spilled, took))
}
