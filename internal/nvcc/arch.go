package nvcc

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

// DefaultArchs are the architectures a model is compiled for unless told
// otherwise: every chip since the A100 runs the code of the first.
var DefaultArchs = []string{"sm_80", "sm_90"}

var archName = regexp.MustCompile(`^sm_(\d{2,3})[af]?$`)

// ParseArchs checks names of architectures and drops repeated ones.
func ParseArchs(names []string) ([]string, error) {
	var archs []string
	for _, name := range names {
		m := archName.FindStringSubmatch(name)
		if m == nil {
			return nil, fmt.Errorf("%q is no GPU architecture; they are written sm_80, sm_90", name)
		}
		if n, _ := strconv.Atoi(m[1]); n < 80 {
			return nil, fmt.Errorf("%s is too old: the kernels use instructions of sm_80 (A100) and newer", name)
		}
		if !slices.Contains(archs, name) {
			archs = append(archs, name)
		}
	}
	if len(archs) == 0 {
		return nil, fmt.Errorf("no GPU architecture given; they are written sm_80, sm_90")
	}
	return archs, nil
}

// Limits is what a multiprocessor of an architecture has to share among blocks,
// by the table "Technical specifications per compute capability" of the CUDA
// programming guide. All have 65,536 registers in four partitions.
type Limits struct {
	Threads     int // resident threads
	Blocks      int // resident blocks
	Shared      int // bytes of shared memory
	BlockShared int // bytes a block can get, by opting in
}

const kib = 1024

var limits = map[string]Limits{
	"sm_80":  {2048, 32, 164 * kib, 163 * kib},
	"sm_86":  {1536, 16, 100 * kib, 99 * kib},
	"sm_89":  {1536, 24, 100 * kib, 99 * kib},
	"sm_90":  {2048, 32, 228 * kib, 227 * kib},
	"sm_100": {2048, 32, 228 * kib, 227 * kib},
	"sm_103": {2048, 32, 228 * kib, 227 * kib},
	"sm_120": {1536, 24, 100 * kib, 99 * kib},
}

// LimitsOf returns the limits of an architecture, and whether they are known.
func LimitsOf(arch string) (Limits, bool) {
	l, ok := limits[arch]
	return l, ok
}

const (
	warpSize        = 32
	registerFile    = 65536
	partitions      = 4   // of a multiprocessor, each with its own registers
	registerUnit    = 256 // registers are given to a warp in these
	sharedUnit      = 128 // bytes, likewise to a block
	sharedReserved  = 1 * kib
	maxBlockThreads = 1024
)

// BlocksPerSM is how many blocks of a kernel are resident on a multiprocessor
// at once: the least of what the blocks, the threads, the registers and the
// shared memory allow. 0 means that the kernel cannot be launched.
//
//	threads:   warps of an SM / warps of a block
//	registers: a warp takes 32·registers, rounded up to 256, from one partition:
//	           4·floor(16384 / that) warps / warps of a block
//	shared:    shared memory of an SM / (bytes + 1024 for the system, rounded up to 128)
func (l Limits) BlocksPerSM(threads, registers, shared int) int {
	if threads < 1 || threads > maxBlockThreads || shared > l.BlockShared {
		return 0
	}
	warps := (threads + warpSize - 1) / warpSize
	warpRegisters := roundUp(max(registers, 1)*warpSize, registerUnit)
	residentWarps := partitions * (registerFile / partitions / warpRegisters)
	return slices.Min([]int{
		l.Blocks,
		l.Threads / warpSize / warps,
		residentWarps / warps,
		l.Shared / roundUp(shared+sharedReserved, sharedUnit),
	})
}

// Occupancy is the share of an SM's warps that blocks of so many threads fill.
func (l Limits) Occupancy(blocks, threads int) float64 {
	warps := (threads + warpSize - 1) / warpSize
	return float64(blocks*warps) / float64(l.Threads/warpSize)
}

func roundUp(n, unit int) int { return (n + unit - 1) / unit * unit }
