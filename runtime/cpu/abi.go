// Package cpu runs compiled programs on the CPU: memory outside the Go heap,
// the Go mirror of the kernel library's C structures, and a team of workers.
// It knows addresses and launches; what a model is, is the parent's business.
package cpu

// The types below mirror codegen/kernels/common/abi.h byte for byte on 64-bit
// machines; TestLayout compares them with what the C++ compiler says.

// Step is vg_step: what changes from one run of a program to the next.
type Step struct {
	LR        float32 // learning rate of this update
	InvN      float32 // 1 / samples of the effective batch
	BiasCorr1 float32 // AdamW: 1 / (1 - beta1^k), k = 1 for the first update
	BiasCorr2 float32 // AdamW: 1 / (1 - beta2^k)
	SeedLo    uint32  // Philox key
	SeedHi    uint32
	MicroStep uint32  // forward+backward passes since the start of training
	DropoutOn uint32  // 0: dropout and drop path are the identity
	EMAWeight float32 // of the new parameters in their average: 1 - decay of this update
}

// VGLaunch is vg_launch.
type VGLaunch struct {
	Kernel   uint32 // index into the library's kernel table
	ArgCount uint32
	FirstArg uint64 // index into VGProgram.Args
}

// VGBarrier is vg_barrier; it wants cache lines of its own.
type VGBarrier struct {
	Arrived uint32
	_       [15]uint32
	Phase   uint32
	_       [15]uint32
}

// VGProgram is vg_program. Every address in it leads outside the Go heap.
type VGProgram struct {
	Launches    uintptr // []VGLaunch
	Args        uintptr // []uintptr
	Step        uintptr // *Step
	Workspace   uintptr
	Barrier     uintptr // *VGBarrier
	LaunchNS    uintptr // []int64, or 0
	LaunchCount int32
	Batch       int32
}

// VGWorker is vg_worker.
type VGWorker struct {
	Index, Count int32
	Scratch      uintptr // ScratchBytes
}

// ScratchBytes is VG_SCRATCH_BYTES, the private memory of one worker.
const ScratchBytes = 4 << 20
