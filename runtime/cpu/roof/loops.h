// The loops whose speed is a bound, for one instruction set: VG_ISA is 0 (plain),
// 1 (AVX2 and FMA) or 2 (AVX-512), as in the kernels that they stand beside. No
// name is exported, so that several can meet in one program.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifndef VG_ISA
#define VG_ISA 0
#endif

namespace {

#if VG_ISA == 2
constexpr int kRoofBytes = 64, kRoofChains = 24;  // of 32 registers
#elif VG_ISA == 1
constexpr int kRoofBytes = 32, kRoofChains = 12;  // of 16
#else
constexpr int kRoofBytes = 16, kRoofChains = 12;
#endif
constexpr int kRoofLanes = kRoofBytes / (int)sizeof(float);
constexpr int kRoofUnroll = 8;
typedef float roof_vec __attribute__((vector_size(kRoofBytes), may_alias));

// FLOPs of one round of roof_fma.
constexpr double kRoofFlops = 2.0 * kRoofChains * kRoofLanes;

// Multiplies and adds in registers alone, in chains enough to hide the latency of
// each step. The values wander in (-4, 4): never zeros, infinities or denormals,
// on which processors may be faster or slower.
__attribute__((noinline, unused)) float roof_fma(uint64_t rounds) {
  roof_vec acc[kRoofChains], x, y;
  for (int j = 0; j < kRoofLanes; j++) {
    x[j] = -0.71f - 0.013f * (float)j;
    y[j] = 0.37f + 0.019f * (float)j;
  }
#pragma GCC unroll 24
  for (int i = 0; i < kRoofChains; i++) acc[i] = y * (float)(i + 1) * 0.11f;
  for (uint64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 24
    for (int i = 0; i < kRoofChains; i++) acc[i] = acc[i] * x + y;
  }
  float sum = 0;
#pragma GCC unroll 24
  for (int i = 0; i < kRoofChains; i++)
    for (int j = 0; j < kRoofLanes; j++) sum += acc[i][j];
  return sum;
}

// The next three go once over n vectors, a multiple of kRoofUnroll. The empty asm
// keeps the compiler from making calls of memset and memcpy of them.
__attribute__((noinline, unused)) float roof_read(const roof_vec* p, size_t n) {
  roof_vec sum[kRoofUnroll] = {};
  for (size_t i = 0; i < n; i += kRoofUnroll) {
#pragma GCC unroll 8
    for (int j = 0; j < kRoofUnroll; j++) sum[j] += p[i + (size_t)j];
    __asm__ volatile("");
  }
  float s = 0;
  for (int j = 0; j < kRoofUnroll; j++) s += sum[j][0];
  return s;
}

__attribute__((noinline, unused)) void roof_write(roof_vec* p, size_t n, float value) {
  const roof_vec v = roof_vec{} + value;
  for (size_t i = 0; i < n; i += kRoofUnroll) {
#pragma GCC unroll 8
    for (int j = 0; j < kRoofUnroll; j++) p[i + (size_t)j] = v;
    __asm__ volatile("" ::: "memory");
  }
}

__attribute__((noinline, unused)) void roof_copy(const roof_vec* from, roof_vec* to, size_t n) {
  for (size_t i = 0; i < n; i += kRoofUnroll) {
#pragma GCC unroll 8
    for (int j = 0; j < kRoofUnroll; j++) to[i + (size_t)j] = from[i + (size_t)j];
    __asm__ volatile("" ::: "memory");
  }
}

}  // namespace
