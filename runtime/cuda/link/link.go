// Package link holds what a trainer with CUDA kernels is compiled and linked
// with: a header of the driver's functions and the source of a library that
// loads the driver when the first of them is called. With the two, such a
// trainer is built where no CUDA is installed, and starts where no driver is.
//
// Package internal/cudaenv writes them to a folder and makes the library.
package link

import _ "embed"

// Header is include/cuda.h.
//
//go:embed include/cuda.h
var Header []byte

// Stub is the source of libcuda.a, C11 for POSIX systems.
//
//go:embed stub/driver.c
var Stub []byte
