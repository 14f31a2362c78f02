//go:build cgo

#pragma GCC target("avx2,fma")
#define VG_ISA 1
#include "roof.cc"
