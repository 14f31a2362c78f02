//go:build cgo

#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#define VG_ISA 2
#include "roof.cc"
