// The words every CUDA kernel of this library is written in: how a function is
// declared, who a thread is, barriers, shuffles, and all PTX. Kernels use no
// CUDA keyword and no inline assembly beside these, so that the same text
// compiles with nvcc, with NVRTC, and with g++ for the kernel simulator, which
// puts its own models (vg_sim.h) in the place of this file's second half.
//
// Written for sm_80 and newer: mma.sync, ldmatrix and cp.async, which every
// later chip runs.
#pragma once
#include "types.cuh"

#ifdef VG_SIM
#include <vg_sim.h>
#else

#define VG_FN __device__ __forceinline__
// A function of constants, for compile-time numbers as well as for threads.
#define VG_CONST __host__ __device__ __forceinline__ constexpr
// One body, not inlined: for cold paths.
#define VG_NOINLINE static __device__ __noinline__
// A kernel of `threads` threads a block, at least `blocks` of which should fit
// on a multiprocessor. Grids and blocks are one-dimensional.
#define VG_KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
// After a kernel's definition; makes it known to the simulator.
#define VG_EXPORT(kernel)
#define VG_UNROLL _Pragma("unroll")
#define VG_NO_UNROLL _Pragma("unroll 1")

// ---- who and where

// (Told that these are not negative, the compiler divides them by shifting.)
VG_FN int vg_thread() {
  __builtin_assume((int)threadIdx.x >= 0);
  return (int)threadIdx.x;
}
VG_FN int vg_threads() { return (int)blockDim.x; }
VG_FN int vg_lane() { return (int)(threadIdx.x & 31); }
VG_FN int vg_warp() { return (int)(threadIdx.x >> 5); }
VG_FN int vg_block_index() {
  __builtin_assume((int)blockIdx.x >= 0);
  return (int)blockIdx.x;
}
VG_FN int vg_block_count() {
  __builtin_assume((int)gridDim.x > 0);
  return (int)gridDim.x;
}

// The block's dynamic shared memory, 128-byte aligned. There is no static one.
VG_FN char* vg_shared() {
  extern __shared__ __align__(128) char vg_shared_memory[];
  return vg_shared_memory;
}

// ---- barriers and shuffles. All lanes of a warp take part in a shuffle.

VG_FN void vg_sync() { __syncthreads(); }
VG_FN void vg_sync_warp() { __syncwarp(); }
// Barrier `id` (1 .. 15) for `count` of the block's threads, whole warps.
VG_FN void vg_sync_some(int id, int count) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(count) : "memory"); }
template <class X>
VG_FN X vg_shfl_xor(X x, int lanes, uint32_t mask = 0xffffffffu) { return __shfl_xor_sync(mask, x, lanes); }
template <class X>
VG_FN X vg_shfl(X x, int from, uint32_t mask = 0xffffffffu) { return __shfl_sync(mask, x, from); }

// ---- between blocks

// True for the last of `count` blocks that call it on one counter; that block
// sees everything that all of them wrote before. Every thread of the block
// calls it, and all get the same answer. The counter is zero before the first
// call and after the last one. `slot` is four bytes of shared memory for its use.
VG_FN bool vg_arrive_last(uint32_t* counter, uint32_t count, uint32_t* slot) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const uint32_t before = atomicAdd(counter, 1u);
    if (before == count - 1) *counter = 0;
    *slot = before == count - 1;
  }
  __syncthreads();
  const bool last = *slot != 0;
  __syncthreads();
  if (last) __threadfence();
  return last;
}

// ---- asynchronous copies from global to shared memory

VG_FN uint32_t vg_shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

// 16 bytes, both sides 16-byte aligned; zeros where !valid (nothing is read then).
VG_FN void vg_cp_async16(void* to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(vg_shared_address(to)), "l"(from), "r"(bytes) : "memory");
}
// 4 bytes, for rows whose start is not 16-byte aligned.
VG_FN void vg_cp_async4(void* to, const void* from, bool valid) {
  const int bytes = valid ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(vg_shared_address(to)), "l"(from), "r"(bytes) : "memory");
}
// Closes a group of the thread's copies; and waits until at most N groups of
// this thread are still under way. Others see the data after a barrier.
VG_FN void vg_cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
VG_FN void vg_cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// ---- tensor cores. g = lane/4, t = lane%4.

// Four 8x8 matrices of 16-bit elements. Lane l gives the address (16-byte
// aligned) of row l%8 of matrix l/8 and gets of matrix i, in r[i], row g,
// elements 2t and 2t+1 (low half first).
VG_FN void vg_ldmatrix4(uint32_t r[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(vg_shared_address(row)) : "memory");
}
// The same, each matrix transposed: elements (2t, g) and (2t+1, g).
VG_FN void vg_ldmatrix4_t(uint32_t r[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(vg_shared_address(row)) : "memory");
}

// c += A[16x16] B[16x8], bf16 with float accumulators (mma.m16n8k16).
//   a[0]: A[g][2t,2t+1]    a[1]: A[g+8][2t,2t+1]  a[2]: A[g][2t+8,2t+9]  a[3]: A[g+8][2t+8,2t+9]
//   b[0]: B[2t,2t+1][g]    b[1]: B[2t+8,2t+9][g]
//   c[0], c[1]: C[g][2t,2t+1]   c[2], c[3]: C[g+8][2t,2t+1]
VG_FN void vg_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// c += A[16x8] B[8x8], tf32 (mma.m16n8k8); operands made by vg_tf32.
//   a[0]: A[g][t]  a[1]: A[g+8][t]  a[2]: A[g][t+4]  a[3]: A[g+8][t+4]
//   b[0]: B[t][g]  b[1]: B[t+4][g]     c as above
VG_FN void vg_mma_tf32(float c[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// Rounds to tf32: 10 bits of mantissa, to nearest, ties away from zero.
VG_FN uint32_t vg_tf32(float x) {
  uint32_t r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
  return r;
}
// Two floats rounded to bf16 (to nearest even), lo in the low half.
VG_FN uint32_t vg_pack_bf16(float lo, float hi) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}

// ---- arithmetic

VG_FN uint32_t vg_bits(float x) { return __float_as_uint(x); }
VG_FN float vg_from_bits(uint32_t x) { return __uint_as_float(x); }
VG_FN float vg_fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
VG_FN float vg_sqrt(float x) { return __fsqrt_rn(x); }
VG_FN float vg_exp(float x) { return expf(x); }
// 2^x in one instruction, relative error 2^-22; subnormal results are zero.
VG_FN float vg_exp2(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
VG_FN float vg_log(float x) { return logf(x); }
VG_FN float vg_tanh(float x) { return tanhf(x); }
VG_FN float vg_erf(float x) { return erff(x); }
VG_FN float vg_infinity() { return __int_as_float(0x7f800000); }

#endif  // VG_SIM

// A column, 0 .. 2^30 - 1, of which the compiler knows no more than that. Columns
// 16 apart are written as vg_column(first) + 16 * j. Were the low bits of `first`
// known to be clear, the sum would become a bitwise or, which no address absorbs
// as its constant part; were its size not known, the sum might wrap around, with
// the same effect: each column would cost a register pair.
VG_FN int vg_column(int first) {
#ifndef VG_SIM
  asm volatile("" : "+r"(first));
#endif
  return first & 0x3fffffff;
}
