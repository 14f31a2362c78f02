package runtime

import "io/fs"

// CUDACode is what a generated package brings for CUDA devices: compiled
// kernels, the launches of every program, and the memory they need.
//
// Every kernel is called with pointers to the vg_state of the run (call.cuh),
// to the workspace and to the counters, then with the launch's own arguments,
// 8 bytes each. Grids and blocks have one dimension.
type CUDACode struct {
	Precision string       // what products multiply in: fp32, tf32, bf16
	Kernels   []CUDAKernel // Launch.Kernel is an index into it
	Programs  [NumPrograms]Program
	Outputs   Outputs // zero: those of the Model

	ArenaBytes     int64 // activations of the largest program
	WorkspaceBytes int64 // shared scratch of the most demanding launch
	Counters       int   // uint32 counters, zero between launches
	HalfElems      int   // bf16 copy of the parameters (region Half); 0: not used

	// Kernels that the runtime launches, as indices into Kernels; -1: none.
	//
	// Gather makes a batch out of a data set that lies on the device:
	// (images, labels, index, table, image out, label out), see data.cuh.
	// Halve refreshes Half after the host has written parameters:
	// (parameters, half).
	Gather, Halve int

	// Images holds the kernels: kernels.cu, and what it was compiled to, such
	// as kernels.sm_80.ptx and kernels.sm_90a.cubin. Nil in a program built
	// without -tags cuda.
	Images func() fs.FS
}

// CUDAKernel is one __global__ function and how it is launched.
type CUDAKernel struct {
	Kernel
	Grid   int // blocks
	Block  int // threads of a block
	Shared int // bytes of dynamic shared memory of a block
}
