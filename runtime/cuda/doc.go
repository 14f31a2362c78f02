// Package cuda runs a model's programs on an NVIDIA GPU, through
// github.com/mumax/3/cuda/cu and a few functions of the driver that cu lacks.
// It is built with -tags cuda; a generated package then imports it and the
// device kind "cuda" is there. Importing it has no other effect.
//
// What it takes from the compiler is runtime.CUDACode. Kernels come as PTX or
// cubins, embedded in the program (image.go). Programs are recorded as CUDA
// graphs when they first run; a training step of one micro-batch is one graph
// (program.go). Everything goes through one stream, in order, and the host
// waits only when it wants a result: inputs are copied from pinned buffers, and
// results are fetched into others behind each run (input.go, slot.go).
//
// Environment:
//
//	VITGEN_CUDA_IMAGE=file  kernels to load instead of the embedded ones
//	VITGEN_CUDA_SYNC=1      waits for every launch, so that a failed one is named
package cuda
