// The instruction set of one build of the kernels, and the words every other
// header is written in.
//
// The emitted file is compiled once for each instruction set: as it is
// (VG_ISA 0: any CPU), and through two short files that set
// `#pragma GCC target` and VG_ISA 1 (AVX2+FMA) or 2 (AVX-512 F, DQ, BW, VL).
// All objects meet in one binary, beside those of other models. Hence the two
// rules that keep AVX code out of a plain build's call graph: everything lives
// in an unnamed namespace (no symbol that a linker could merge), and nothing
// is taken from the C++ standard library, whose templates it would merge.
#pragma once
// On x86-64 the plain build is for processors without AVX2 alone. Less of the
// optimizer leaves its products as fast, and takes a third off its compile time.
#if defined(__x86_64__) && (!defined(VG_ISA) || VG_ISA == 0) && defined(__OPTIMIZE__) && !defined(__clang__)
#pragma GCC optimize("O1")
#endif
#include <stddef.h>
#include <stdint.h>

#ifndef VG_ISA
#define VG_ISA 0
#endif

#if VG_ISA == 2
#define VG_ISA_NAME avx512
#define VG_VECTOR_BYTES 64
#elif VG_ISA == 1
#define VG_ISA_NAME avx2
#define VG_VECTOR_BYTES 32
#elif VG_ISA == 0
#define VG_ISA_NAME plain
#define VG_VECTOR_BYTES 16
#else
#error "VG_ISA is 0 (plain), 1 (AVX2) or 2 (AVX-512)"
#endif

#if VG_ISA > 0
#include <immintrin.h>
#elif defined(__x86_64__)
#include <emmintrin.h>  // a fraction of immintrin.h's compile time
#endif

// The named layer only serves to tell the builds apart in profiles and traces.
#define VG_BEGIN namespace vg { inline namespace VG_ISA_NAME { namespace {
#define VG_END } } }

#define VG_CAT_(a, b) a##b
#define VG_CAT(a, b) VG_CAT_(a, b)

// VG_FN: inlined into every caller; VG_NOINLINE: one body, never cloned for a
// constant argument (a clone of the micro-kernel would cost compile time and
// instruction cache, and win nothing).
#define VG_FN inline __attribute__((always_inline))
#define VG_NOINLINE __attribute__((noinline, noclone, unused))
#define VG_UNUSED __attribute__((unused))
#define VG_LAMBDA __attribute__((always_inline))
