// Package sim builds the simulated device: a libcuda.so.1 that runs kernels on
// the CPU, and kernel objects for it. A trainer built with -tags cuda runs on it
// unchanged, so that everything but speed can be tested where there is no GPU:
//
//	LD_LIBRARY_PATH=… VITGEN_CUDA_IMAGE=kernels.so bin/vit_tiny train --device cuda
//
// The parts, in C++:
//
//	include   what a kernel file is compiled with in place of CUDA's own words,
//	          and the simulator's interface to its host
//	runtime   the kernel simulator: threads, barriers, memory and their faults
//	driver    the CUDA driver API on top of it
//
// What is asynchronous runs as late as possible, when the host waits for it, and
// what is not ordered runs in random order; a program that forgets to wait finds
// wrong numbers, not luck. Pinned memory may not change while a copy from it is
// pending, and holds NaN while one to it is. A fault of a kernel is printed and
// makes every later call fail, as on a device. The environment chooses:
//
//	VITGEN_SIM_DEVICE      h100 (default), h200, b200, a100, rtx4090 or v100
//	VITGEN_SIM_DEVICES     how many there are, default 1
//	VITGEN_SIM_MEMORY      bytes of each, with K, M or G; default what the chip has
//	VITGEN_SIM_SEED        the order of all that has none, of threads too, default 1;
//	                       0: as submitted; 0xffffffffffffffff: backwards
//	VITGEN_SIM_FAULTS=0    instrumented kernels are not checked
//	VITGEN_SIM_HOST_CHECK=0  pinned memory is neither checked nor spoiled
//	VITGEN_SIM_STATS       a file for statistics, written as JSON whenever the host
//	                       waits, a context is destroyed or the process ends
//	VITGEN_SIM_TRACE       a file for a line per call and per operation that runs
//	VITGEN_SIM_VERBOSE=1   failed calls are printed with the reason
//	VITGEN_SIM_QUEUE       operations that may be pending, default 4096
//	VITGEN_SIM_DRIVER      what cuDriverGetVersion says, default 13000
//	VITGEN_SIM_INIT        an error number that cuInit returns
//	CUDA_LAUNCH_BLOCKING=1 a launch runs before the call returns
package sim
