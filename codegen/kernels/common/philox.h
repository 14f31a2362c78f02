// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw,
// "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), and how vitgen maps
// one element of one dropout site to 16 of its bits. Plain C, for any host and
// for CUDA; cpu/dropout.h holds the vector form of the same function.
//
// Element i of a site draws from counter (i/128)*16 + i%16 the 16-bit half
// (i/16)%8 of the four output words, low half first. So the 128 elements of an
// aligned block need 16 evaluations, and 16 aligned neighbours share a half:
// sixteen lanes get their bits without moving any between lanes.
// Indices must stay below 2^35.
#pragma once
#ifndef __CUDACC_RTC__  // which has its own, see cuda/types.cuh
#include <stdint.h>
#endif

#ifdef __CUDACC__
#define VG_PORTABLE static __host__ __device__ inline
#else
#define VG_PORTABLE static inline
#endif

#define VG_PHILOX_M0 0xD2511F53u
#define VG_PHILOX_M1 0xCD9E8D57u
#define VG_PHILOX_W0 0x9E3779B9u
#define VG_PHILOX_W1 0xBB67AE85u

// x: the counter in, the four random words out.
VG_PORTABLE void vg_philox4x32(uint32_t x[4], uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; round++) {
    const uint64_t a = (uint64_t)VG_PHILOX_M0 * x[0], b = (uint64_t)VG_PHILOX_M1 * x[2];
    const uint32_t y0 = (uint32_t)(b >> 32) ^ x[1] ^ key0, y2 = (uint32_t)(a >> 32) ^ x[3] ^ key1;
    x[1] = (uint32_t)b;
    x[3] = (uint32_t)a;
    x[0] = y0;
    x[2] = y2;
    key0 += VG_PHILOX_W0;
    key1 += VG_PHILOX_W1;
  }
}

// The draw of one element, 0 .. 65535. It is dropped iff the draw is below
// round(p * 65536).
VG_PORTABLE uint32_t vg_dropout_draw(uint32_t seed_lo, uint32_t seed_hi, uint32_t micro_step, uint32_t site,
                                     uint64_t index) {
  uint32_t x[4] = {(uint32_t)((index >> 7) * 16 + (index & 15)), 0, site, micro_step};
  const uint32_t half = (uint32_t)(index >> 4) & 7;
  vg_philox4x32(x, seed_lo, seed_hi);
  return (x[half >> 1] >> (16 * (half & 1))) & 0xffffu;
}
