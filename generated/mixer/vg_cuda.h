#ifndef VITGEN_CUDA_TYPES_CUH
#define VITGEN_CUDA_TYPES_CUH

// Element types, and integers that NVRTC does not have (size_t it has).
#ifdef __CUDACC_RTC__
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef unsigned long long uintptr_t;
#else
#include <stddef.h>
#include <stdint.h>
#endif

// A bfloat16 in memory: the upper half of a float. All arithmetic is on floats;
// call.cuh has the loads and stores that convert.
struct vg_bf16 {
  uint16_t bits;
};

// Vectors in memory, aligned to their size: what one instruction moves.
struct alignas(16) vg_float4 {
  float x, y, z, w;
};
struct alignas(16) vg_uint4 {
  uint32_t x, y, z, w;
};

struct alignas(8) vg_float2 {
  float x, y;
};
struct alignas(8) vg_uint2 {
  uint32_t x, y;
};

// What a matrix product multiplies in. Accumulators are always float.
enum class vg_math { fp32, tf32, bf16 };

// The element of an operand in shared memory: bf16, else float (for tf32, one
// that is rounded before it is multiplied).
template <vg_math MATH>
struct vg_operand {
  using type = float;
};
template <>
struct vg_operand<vg_math::bf16> {
  using type = vg_bf16;
};

#endif  // VITGEN_CUDA_TYPES_CUH

#ifndef VITGEN_CUDA_DEVICE_CUH
#define VITGEN_CUDA_DEVICE_CUH

// The words every CUDA kernel of this library is written in: how a function is
// declared, who a thread is, barriers, shuffles, and all PTX. Kernels use no
// CUDA keyword and no inline assembly beside these, so that the same text
// compiles with nvcc, with NVRTC, and with g++ for the kernel simulator, which
// puts its own models (vg_sim.h) in the place of this file's second half.
//
// Written for sm_80 and newer: mma.sync, ldmatrix and cp.async, which every
// later chip runs.

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

#endif  // VITGEN_CUDA_DEVICE_CUH

#ifndef VITGEN_COMMON_ABI_H
#define VITGEN_COMMON_ABI_H

// The contract between the host and a generated kernel library on the CPU.
//
// The host (Go) lays out one program as an array of launches and calls
// vg_run once per worker; the workers walk the launches together, with a
// barrier between two launches, so a whole training step costs one call per
// worker. Everything here is plain C and is mirrored by runtime/cpu.
#ifndef __CUDACC_RTC__  // which has its own, see cuda/types.cuh
#include <stddef.h>
#include <stdint.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

// What changes from step to step. Kernels read it through a pointer, so that
// a recorded program never has to be rewritten. Mirrored by runtime.StepScalars.
typedef struct vg_step {
  float lr;             // learning rate of this update
  float inv_n;          // 1 / samples of the effective batch
  float bias_corr1;     // AdamW: 1 / (1 - beta1^k), k = 1 for the first update
  float bias_corr2;     // AdamW: 1 / (1 - beta2^k)
  uint32_t seed_lo;     // Philox key
  uint32_t seed_hi;
  uint32_t micro_step;  // counts forward+backward passes since the start of training
  uint32_t dropout_on;  // 0: dropout and drop path are the identity
  float ema_weight;     // of the new parameters in their average: 1 - decay of this update
} vg_step;

typedef struct vg_launch {
  uint32_t kernel;     // index into the library's kernel table
  uint32_t arg_count;
  uint64_t first_arg;  // index into vg_program.args
} vg_launch;

// One barrier for all workers of a team; zero-initialized by the host, on a
// cache line of its own.
typedef struct vg_barrier {
  uint32_t arrived;
  uint32_t pad0[15];
  uint32_t phase;
  uint32_t pad1[15];
} vg_barrier;

typedef struct vg_program {
  const vg_launch* launches;
  void* const* args;         // every argument is a pointer
  const vg_step* step;
  char* workspace;           // shared by the workers, free for use within one launch; 64-byte aligned
  vg_barrier* barrier;
  uint64_t* launch_ns;       // NULL, or one slot a launch: nanoseconds, written by worker 0
  int32_t launch_count;
  int32_t batch;             // samples in this call, 1 .. the compiled batch
} vg_program;

// Private memory of one worker.
typedef struct vg_worker {
  int32_t index, count;
  char* scratch;             // 64-byte aligned, VG_SCRATCH_BYTES
} vg_worker;

#define VG_SCRATCH_BYTES (4u << 20)

#ifdef __cplusplus
}
#endif

#endif  // VITGEN_COMMON_ABI_H

#ifndef VITGEN_CUDA_CALL_CUH
#define VITGEN_CUDA_CALL_CUH

// One launch as a kernel sees it, where an element stands, and the ready-made
// functors. The counterpart of cpu/call.h: functors are written once, for a
// value type V, which is float here.
//
// A kernel computes every element by steps that depend on shapes and on the
// grid it was compiled for, never on which block or thread comes first: results
// are bitwise the same in every run.
// First device.cuh, which has the integers that abi.h takes.


// What changes from run to run, in device memory, so that one recorded graph
// serves every step and every batch. Mirrored by runtime/cuda.
struct vg_state {
  vg_step step;
  int32_t batch;  // samples in this run, 1 .. the compiled batch
  int32_t pad[6];
};

// One kernel's part of a launch. Several kernels that wait for nothing of each
// other may share a launch: block and blocks count within the part.
struct vg_call {
  const vg_state* state;
  char* workspace;     // of this part, free for use within the launch; 256-byte aligned
  uint32_t* counters;  // of this part, for vg_arrive_last; all zero between launches
  int block, blocks;

  VG_FN const vg_step& step() const { return state->step; }
  VG_FN int batch() const { return state->batch; }
};

// Where an element stands. row = sample*T + token for rows that run over a
// batch of sequences. n, the number of elements, is 1 here: a thread works on
// one element at a time.
struct vg_at {
  int64_t row;
  int32_t sample, token;
  int32_t col, n;
};

template <int T>
VG_FN vg_at vg_at_row(int64_t row) {
  return {row, (int32_t)(row / T), (int32_t)(row % T), 0, 1};
}

VG_CONST int64_t vg_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
VG_CONST int64_t vg_round_up(int64_t a, int64_t b) { return vg_ceil_div(a, b) * b; }
VG_CONST int64_t vg_min64(int64_t a, int64_t b) { return a < b ? a : b; }
VG_CONST int64_t vg_max64(int64_t a, int64_t b) { return a > b ? a : b; }
// The same in 32 bits, for extents of a tile.
VG_CONST int vg_ceil_div32(int a, int b) { return (a + b - 1) / b; }
VG_CONST int vg_round_up32(int a, int b) { return vg_ceil_div32(a, b) * b; }
VG_CONST int vg_min32(int a, int b) { return a < b ? a : b; }
VG_CONST int vg_max32(int a, int b) { return a > b ? a : b; }

// Element access for functors. A bf16 is widened as it is loaded and rounded to
// nearest even as it is stored.
template <class V>
VG_FN V vg_load(const float* p, int) { return *p; }
template <class V>
VG_FN V vg_load(const vg_bf16* p, int) { return vg_from_bits((uint32_t)p->bits << 16); }
VG_FN void vg_store(float* p, float x, int) { *p = x; }
VG_FN void vg_store(vg_bf16* p, float x, int) { p->bits = (uint16_t)vg_pack_bf16(x, 0.0f); }

// Source: the matrix at p, ld elements from row to row.
template <class E>
struct vg_matrix {
  const E* p;
  int64_t ld;
  template <class V>
  VG_FN V operator()(vg_at at) const { return vg_load<V>(p + at.row * ld + at.col, at.n); }
};
template <class E>
vg_matrix(const E*, int) -> vg_matrix<E>;

// Sink: stores to the matrix at p.
template <class E>
struct vg_store_matrix {
  E* p;
  int64_t ld;
  template <class V>
  VG_FN void operator()(V x, vg_at at) const { vg_store(p + at.row * ld + at.col, x, at.n); }
};
template <class E>
vg_store_matrix(E*, int) -> vg_store_matrix<E>;

// Sink of an output that nobody wants: the kernel does not compute it.
struct vg_none {
  template <class V>
  VG_FN void operator()(V, vg_at) const {}
};
template <class S>
constexpr bool vg_wanted = true;
template <>
constexpr bool vg_wanted<vg_none> = false;

// A source read without a template at each place of use.
template <class S>
VG_FN float vg_value(const S& s, vg_at at) { return s.template operator()<float>(at); }

// A source that lies in memory as a plain matrix of E, which a kernel may copy
// without asking the functor for each element.
template <class S>
struct vg_plain_matrix {
  static constexpr bool value = false;
};
template <class E>
struct vg_plain_matrix<vg_matrix<E>> {
  static constexpr bool value = true;
};

#endif  // VITGEN_CUDA_CALL_CUH

#ifndef VITGEN_CUDA_MATH_CUH
#define VITGEN_CUDA_MATH_CUH

// Activations on float: the CUDA counterparts of cpu/math.h, same formulas.

VG_FN float vg_abs(float x) { return vg_from_bits(vg_bits(x) & 0x7fffffffu); }
VG_FN float vg_sigmoid(float x) { return 1.0f / (1.0f + vg_exp(-x)); }

// The larger (smaller) value; b if either is NaN.
VG_FN float vg_max(float a, float b) { return a > b ? a : b; }
VG_FN float vg_min(float a, float b) { return a < b ? a : b; }

// max(x, 0), and NaN for NaN; its gradient is dy where x > 0 and 0 elsewhere,
// as PyTorch has it.
VG_FN float vg_relu(float x) { return vg_max(0.0f, x); }
VG_FN float vg_relu_grad(float dy, float x) { return x <= 0.0f ? 0.0f : dy; }

// x Phi(x), Phi the normal distribution: x (1 + erf(x / sqrt 2)) / 2.
VG_FN float vg_gelu(float x) {
  const float half = 0.5f * x;
  return vg_fma(half, vg_erf(x * 0.707106781f), half);
}
// Its slope, Phi(x) + x phi(x), phi(x) = exp(-x^2 / 2) / sqrt(2 pi).
VG_FN float vg_gelu_slope(float x) {
  const float cdf = vg_fma(0.5f, vg_erf(x * 0.707106781f), 0.5f);
  const float pdf = 0.398942280f * vg_exp(-0.5f * x * x);
  return vg_fma(x, pdf, cdf);
}

// x (1 + tanh u) / 2, u = sqrt(2/pi) (x + 0.044715 x^3).
VG_FN float vg_gelu_tanh_arg(float x) { return 0.797884561f * vg_fma(0.044715f * x * x, x, x); }
VG_FN float vg_gelu_tanh(float x) {
  const float half = 0.5f * x;
  return vg_fma(half, vg_tanh(vg_gelu_tanh_arg(x)), half);
}
VG_FN float vg_gelu_tanh_slope(float x) {
  const float t = vg_tanh(vg_gelu_tanh_arg(x));
  const float du = 0.797884561f * vg_fma(3 * 0.044715f * x, x, 1.0f);
  // Where tanh has saturated its slope is zero, however large x^3 is.
  const float slope = vg_abs(x) > 10.0f ? 0.0f : (1.0f - t * t) * du;
  return vg_fma(0.5f * x, slope, vg_fma(0.5f, t, 0.5f));
}

// x sigmoid(x).
VG_FN float vg_silu(float x) { return x / (1.0f + vg_exp(-x)); }
VG_FN float vg_silu_grad(float dy, float x) {
  const float s = vg_sigmoid(x);
  return dy * s * vg_fma(x, 1.0f - s, 1.0f);
}

// Sum and maximum over the lanes of a warp, always by the same tree.
VG_FN float vg_warp_sum(float x) {
  VG_UNROLL for (int s = 16; s > 0; s /= 2) x += vg_shfl_xor(x, s);
  return x;
}
VG_FN float vg_warp_max(float x) {
  VG_UNROLL for (int s = 16; s > 0; s /= 2) x = vg_max(x, vg_shfl_xor(x, s));
  return x;
}

#endif  // VITGEN_CUDA_MATH_CUH

#ifndef VITGEN_CUDA_ATTENTION_TILE_CUH
#define VITGEN_CUDA_ATTENTION_TILE_CUH

// What the attention kernels are built from: rows of a head in shared memory,
// and products of a warp's 16 rows, in each vg_math.
//
// Every product leaves its result in one layout, whatever it multiplies in:
// acc[j] holds columns 8j .. 8j+7 of the 16 rows as mma's accumulator does, so
// that a thread with g = lane/4, t = lane%4 has
//   acc[j][0], acc[j][1]: row g,   columns 8j+2t, 8j+2t+1
//   acc[j][2], acc[j][3]: row g+8, the same columns.
// Softmax, masks and stores are therefore written once. Columns are computed in
// groups of 16, that is pairs of acc.

// The padded row of an operand, in elements. Rows are 16-byte aligned, and off a
// multiple of 128 bytes by what keeps the accesses below free of bank conflicts:
// 8 rows of 16 bytes (ldmatrix), 4 rows of 8 floats (tf32), 8 rows of 4 floats
// (fp32).
template <vg_math MATH>
VG_CONST int vg_padded(int columns) { return columns + (MATH == vg_math::fp32 ? 4 : 8); }

template <int N>
VG_FN void vg_zero(float (&acc)[N][4]) {
  VG_UNROLL for (int j = 0; j < N; j++)
    VG_UNROLL for (int e = 0; e < 4; e++) acc[j][e] = 0.0f;
}

// ---- one step of a product along its depth
//
// vg_warp_step<MATH>::nt: acc += A B^T for 16 rows of A and the rows of B, at a
// depth of 16 (bf16), 8 (tf32) or 4 (fp32) from where a and b point.
// tn: acc += A^T B, A[depth, 16] and B[depth, columns]; lda, LD: their rows.
// nn: acc += P B for P in registers (pairs of acc) and B[16, columns].
// Only the first `groups` groups of columns are computed.

template <vg_math MATH>
struct vg_warp_step;

template <>
struct vg_warp_step<vg_math::bf16> {
  static constexpr int depth = 16;

  template <int LD, int N>
  VG_FN static void nt(float (&acc)[N][4], const vg_bf16* a, const vg_bf16* b, int groups) {
    const int lane = vg_lane();
    uint32_t fa[4], fb[4];
    vg_ldmatrix4(fa, a + (lane & 15) * LD + (lane >> 4) * 8);
    const vg_bf16* from = b + ((lane & 7) + (lane >> 4) * 8) * LD + (lane & 8);
    VG_UNROLL for (int j = 0; j < N / 2; j++)
      if (j < groups) {
        vg_ldmatrix4(fb, from + 16 * j * LD);
        vg_mma_bf16(acc[2 * j], fa, fb);
        vg_mma_bf16(acc[2 * j + 1], fa, fb + 2);
      }
  }
  template <int LD, int N>
  VG_FN static void columns(float (&acc)[N][4], const uint32_t fa[4], const vg_bf16* b) {
    const int lane = vg_lane();
    const vg_bf16* from = b + (lane & 15) * LD + (lane >> 4) * 8;
    uint32_t fb[4];
    VG_UNROLL for (int j = 0; j < N / 2; j++) {
      vg_ldmatrix4_t(fb, from + 16 * j);
      vg_mma_bf16(acc[2 * j], fa, fb);
      vg_mma_bf16(acc[2 * j + 1], fa, fb + 2);
    }
  }
  template <int LDA, int LD, int N>
  VG_FN static void tn(float (&acc)[N][4], const vg_bf16* a, const vg_bf16* b) {
    const int lane = vg_lane();
    uint32_t fa[4];
    vg_ldmatrix4_t(fa, a + ((lane & 7) + (lane >> 4) * 8) * LDA + (lane & 8));
    columns<LD>(acc, fa, b);
  }
  // An accumulator's layout is that of the operand, but for the rounding.
  template <int LD, int N>
  VG_FN static void nn(float (&acc)[N][4], const float (&p0)[4], const float (&p1)[4], const vg_bf16* b) {
    const uint32_t fa[4] = {vg_pack_bf16(p0[0], p0[1]), vg_pack_bf16(p0[2], p0[3]), vg_pack_bf16(p1[0], p1[1]),
                            vg_pack_bf16(p1[2], p1[3])};
    columns<LD>(acc, fa, b);
  }
};

template <>
struct vg_warp_step<vg_math::tf32> {
  static constexpr int depth = 8;

  // The order of the depth is free, if A and B agree: here slots t and t+4 of the
  // instruction are the neighbours 2t and 2t+1, which one access loads.
  template <int LD, int N>
  VG_FN static void nt(float (&acc)[N][4], const float* a, const float* b, int groups) {
    const int g = vg_lane() >> 2, t = vg_lane() & 3;
    const vg_float2 low = *(const vg_float2*)(a + g * LD + 2 * t), high = *(const vg_float2*)(a + (g + 8) * LD + 2 * t);
    const uint32_t fa[4] = {vg_bits(low.x), vg_bits(high.x), vg_bits(low.y), vg_bits(high.y)};
    VG_UNROLL for (int j = 0; j < N; j++)
      if (j / 2 < groups) {
        const vg_float2 y = *(const vg_float2*)(b + (8 * j + g) * LD + 2 * t);
        const uint32_t fb[2] = {vg_bits(y.x), vg_bits(y.y)};
        vg_mma_tf32(acc[j], fa, fb);
      }
  }
  // row0, row1: the rows of B in this thread's slots t and t+4.
  template <int LD, int N>
  VG_FN static void columns(float (&acc)[N][4], const uint32_t fa[4], const float* b, int row0, int row1) {
    const int g = vg_lane() >> 2;
    VG_UNROLL for (int j = 0; j < N; j++) {
      const uint32_t fb[2] = {vg_bits(b[row0 * LD + 8 * j + g]), vg_bits(b[row1 * LD + 8 * j + g])};
      vg_mma_tf32(acc[j], fa, fb);
    }
  }
  template <int LDA, int LD, int N>
  VG_FN static void tn(float (&acc)[N][4], const float* a, const float* b) {
    const int g = vg_lane() >> 2, t = vg_lane() & 3;
    const uint32_t fa[4] = {vg_bits(a[t * LDA + g]), vg_bits(a[t * LDA + g + 8]), vg_bits(a[(t + 4) * LDA + g]),
                            vg_bits(a[(t + 4) * LDA + g + 8])};
    columns<LD>(acc, fa, b, t, t + 4);
  }
  // A thread has columns 2t and 2t+1 of P, so these are its slots; which is first
  // depends on t, so that the four rows of B it is read beside lie in four banks.
  template <int LD, int N>
  VG_FN static void nn(float (&acc)[N][4], const float (&p0)[4], const float (&p1)[4], const float* b) {
    const int t = vg_lane() & 3, odd = t >> 1;
    half<LD>(acc, p0, b, 2 * t + odd, 2 * t + 1 - odd, odd);
    half<LD>(acc, p1, b + 8 * LD, 2 * t + odd, 2 * t + 1 - odd, odd);
  }
  template <int LD, int N>
  VG_FN static void half(float (&acc)[N][4], const float (&p)[4], const float* b, int row0, int row1, int odd) {
    const uint32_t fa[4] = {vg_tf32(odd ? p[1] : p[0]), vg_tf32(odd ? p[3] : p[2]), vg_tf32(odd ? p[0] : p[1]),
                            vg_tf32(odd ? p[2] : p[3])};
    columns<LD>(acc, fa, b, row0, row1);
  }
};

template <>
struct vg_warp_step<vg_math::fp32> {
  static constexpr int depth = 4;

  VG_FN static float dot(const vg_float4& x, const vg_float4& y, float sum) {
    return vg_fma(x.w, y.w, vg_fma(x.z, y.z, vg_fma(x.y, y.y, vg_fma(x.x, y.x, sum))));
  }
  template <int LD, int N>
  VG_FN static void nt(float (&acc)[N][4], const float* a, const float* b, int groups) {
    const int g = vg_lane() >> 2, t = vg_lane() & 3;
    const vg_float4 low = *(const vg_float4*)(a + g * LD), high = *(const vg_float4*)(a + (g + 8) * LD);
    VG_UNROLL for (int j = 0; j < N; j++)
      if (j / 2 < groups) {
        const vg_float4 y0 = *(const vg_float4*)(b + (8 * j + 2 * t) * LD), y1 = *(const vg_float4*)(b + (8 * j + 2 * t + 1) * LD);
        acc[j][0] = dot(low, y0, acc[j][0]), acc[j][1] = dot(low, y1, acc[j][1]);
        acc[j][2] = dot(high, y0, acc[j][2]), acc[j][3] = dot(high, y1, acc[j][3]);
      }
  }
  // One row of B, times an element of each of the two rows.
  template <int N>
  VG_FN static void row(float (&acc)[N][4], float low, float high, const float* b) {
    const int t = vg_lane() & 3;
    VG_UNROLL for (int j = 0; j < N; j++) {
      const vg_float2 y = *(const vg_float2*)(b + 8 * j + 2 * t);
      acc[j][0] = vg_fma(low, y.x, acc[j][0]), acc[j][1] = vg_fma(low, y.y, acc[j][1]);
      acc[j][2] = vg_fma(high, y.x, acc[j][2]), acc[j][3] = vg_fma(high, y.y, acc[j][3]);
    }
  }
  template <int LDA, int LD, int N>
  VG_FN static void tn(float (&acc)[N][4], const float* a, const float* b) {
    const int g = vg_lane() >> 2;
    VG_UNROLL for (int k = 0; k < depth; k++) row(acc, a[k * LDA + g], a[k * LDA + g + 8], b + k * LD);
  }
  template <int LD, int N>
  VG_FN static void nn(float (&acc)[N][4], const float (&p0)[4], const float (&p1)[4], const float* b) {
    half<LD>(acc, p0, b);
    half<LD>(acc, p1, b + 8 * LD);
  }
  // Columns 2s and 2s+1 of P are with the s-th of the four threads of a row.
  template <int LD, int N>
  VG_FN static void half(float (&acc)[N][4], const float (&p)[4], const float* b) {
    VG_UNROLL for (int k = 0; k < 8; k++) {
      const int from = (vg_lane() & ~3) | (k >> 1);
      row(acc, vg_shfl(p[k & 1], from), vg_shfl(p[2 + (k & 1)], from), b + k * LD);
    }
  }
};

// ---- whole products

// acc += A B^T over a depth of K. Whole tiles have no branches inside.
template <vg_math MATH, int K, int LD, int N, class X>
VG_FN void vg_warp_nt(float (&acc)[N][4], const X* a, const X* b, int groups) {
  constexpr int step = vg_warp_step<MATH>::depth;
  // In fp32 a step is many FMAs already; unrolled it would only hoist loads into
  // registers that are not there.
  if (groups >= N / 2 && MATH != vg_math::fp32) {
    VG_UNROLL for (int k = 0; k < K; k += step) vg_warp_step<MATH>::template nt<LD>(acc, a + k, b + k, N / 2);
  } else if (groups >= N / 2) {
    VG_NO_UNROLL for (int k = 0; k < K; k += step) vg_warp_step<MATH>::template nt<LD>(acc, a + k, b + k, N / 2);
  } else {
    VG_NO_UNROLL for (int k = 0; k < K; k += step) vg_warp_step<MATH>::template nt<LD>(acc, a + k, b + k, groups);
  }
}

// acc += P B for the first `groups` groups of P's columns, which are B's rows.
template <vg_math MATH, int LD, int N, int M, class X>
VG_FN void vg_warp_nn(float (&acc)[N][4], const float (&p)[M][4], const X* b, int groups) {
  if (groups >= M / 2) {
    VG_UNROLL for (int k = 0; k < M / 2; k++) vg_warp_step<MATH>::template nn<LD>(acc, p[2 * k], p[2 * k + 1], b + 16 * k * LD);
  } else {
    VG_UNROLL for (int k = 0; k < M / 2; k++)
      if (k < groups) vg_warp_step<MATH>::template nn<LD>(acc, p[2 * k], p[2 * k + 1], b + 16 * k * LD);
  }
}

// acc += A^T B over `depth` rows of each, a multiple of 16.
template <vg_math MATH, int LDA, int LD, int N, class X>
VG_FN void vg_warp_tn(float (&acc)[N][4], const X* a, const X* b, int depth) {
  constexpr int step = vg_warp_step<MATH>::depth;
  VG_NO_UNROLL for (int k = 0; k < depth; k += 16)
    VG_UNROLL for (int i = 0; i < 16; i += step)
      vg_warp_step<MATH>::template tn<LDA, LD>(acc, a + (k + i) * LDA, b + (k + i) * LD);
}

// ---- between a product and memory

// Rounds two neighbours of a result and stores them as part of an operand.
VG_FN void vg_store_operand(vg_bf16* to, float x, float y, vg_math) { *(uint32_t*)to = vg_pack_bf16(x, y); }
VG_FN void vg_store_operand(float* to, float x, float y, vg_math math) {
  const bool tf32 = math == vg_math::tf32;
  *(vg_float2*)to = {tf32 ? vg_from_bits(vg_tf32(x)) : x, tf32 ? vg_from_bits(vg_tf32(y)) : y};
}

// Whether rows of `columns` elements can be moved 16 bytes at a time.
template <class E>
VG_FN bool vg_rows_aligned(const E* p, int64_t ld, int columns) {
  return (((uintptr_t)p | (uintptr_t)(ld * (int64_t)sizeof(E)) | (uintptr_t)(columns * (int)sizeof(E))) & 15) == 0;
}

// What a thread stores of acc, in runs of neighbours that fill 32-byte sectors
// together with those of the other threads: calls body(row, column, run). Row g
// is multiplied by low, row g+8 by high. Every lane takes part.
template <int N, class Body>
VG_FN void vg_each_store(const float*, const float (&acc)[N][4], float low, float high, const Body& body) {
  const int g = vg_lane() >> 2, t = vg_lane() & 3;
  VG_UNROLL for (int j = 0; j < N; j++)
    VG_UNROLL for (int h = 0; h < 2; h++) {
      const float by = h ? high : low;
      body(g + 8 * h, 8 * j + 2 * t, vg_float2{acc[j][2 * h] * by, acc[j][2 * h + 1] * by});
    }
}
// Of bf16 a thread has too few: the four threads of a row exchange what they have
// of 16 columns.
template <int N, class Body>
VG_FN void vg_each_store(const vg_bf16*, const float (&acc)[N][4], float low, float high, const Body& body) {
  const int g = vg_lane() >> 2, t = vg_lane() & 3, from = (vg_lane() & ~3) | ((2 * t) & 3);
  VG_UNROLL for (int j = 0; j < N; j += 2)
    VG_UNROLL for (int h = 0; h < 2; h++) {
      const float by = h ? high : low;
      const uint32_t x = vg_pack_bf16(acc[j][2 * h] * by, acc[j][2 * h + 1] * by);
      const uint32_t y = vg_pack_bf16(acc[j + 1][2 * h] * by, acc[j + 1][2 * h + 1] * by);
      const uint32_t x0 = vg_shfl(x, from), x1 = vg_shfl(x, from + 1), y0 = vg_shfl(y, from), y1 = vg_shfl(y, from + 1);
      body(g + 8 * h, 8 * j + 4 * t, vg_uint2{t < 2 ? x0 : y0, t < 2 ? x1 : y1});
    }
}

// Stores a run, or the first n elements of it.
VG_FN void vg_store_run(float* p, vg_float2 run) { *(vg_float2*)p = run; }
VG_FN void vg_store_run(float* p, vg_float2 run, int n) {
  if (n > 0) p[0] = run.x;
  if (n > 1) p[1] = run.y;
}
VG_FN void vg_store_run(vg_bf16* p, vg_uint2 run) { *(vg_uint2*)p = run; }
VG_FN void vg_store_run(vg_bf16* p, vg_uint2 run, int n) {
  VG_UNROLL for (int e = 0; e < 4; e++)
    if (e < n) p[e].bits = (uint16_t)((e < 2 ? run.x : run.y) >> (16 * (e & 1)));
}

// Stores the first `rows` of the 16 rows of acc, columns [0, columns), at `to`.
template <int N, class E>
VG_FN void vg_store_rows(const float (&acc)[N][4], E* to, int64_t ld, int rows, int columns, bool aligned, float low, float high) {
  if (aligned)
    vg_each_store(to, acc, low, high, [&](int row, int col, auto run) {
      if (row < rows && col < columns) vg_store_run(to + row * ld + col, run);
    });
  else
    vg_each_store(to, acc, low, high, [&](int row, int col, auto run) {
      if (row < rows) vg_store_run(to + row * ld + col, run, columns - col);
    });
}

#endif  // VITGEN_CUDA_ATTENTION_TILE_CUH

#ifndef VITGEN_CUDA_ATTENTION_COPY_CUH
#define VITGEN_CUDA_ATTENTION_COPY_CUH

// Rows of a head, from global to shared memory, as operands of a product.
//
// A group of threads copies together: vg_copy_rows starts, the caller closes the
// cp.async group and waits for it, and vg_finish_rows, with the same arguments,
// lets each thread round what it copied itself. After the barrier that follows,
// everybody may read. Padding, in rows and in columns, is zero.

// A 16-byte piece of an operand row, from elements of whatever type.
VG_FN vg_uint4 vg_make_piece(const float*, const float x[8]) {
  return {vg_bits(x[0]), vg_bits(x[1]), vg_bits(x[2]), vg_bits(x[3])};
}
VG_FN vg_uint4 vg_make_piece(const vg_bf16*, const float x[8]) {
  return {vg_pack_bf16(x[0], x[1]), vg_pack_bf16(x[2], x[3]), vg_pack_bf16(x[4], x[5]), vg_pack_bf16(x[6], x[7])};
}
// The elements of 16 aligned bytes in memory.
VG_FN void vg_load_piece(const float* from, float x[4]) {
  const vg_float4 y = *(const vg_float4*)from;
  x[0] = y.x, x[1] = y.y, x[2] = y.z, x[3] = y.w;
}
VG_FN void vg_load_piece(const vg_bf16* from, float x[8]) {
  const vg_uint4 y = *(const vg_uint4*)from;
  const uint32_t words[4] = {y.x, y.y, y.z, y.w};
  VG_UNROLL for (int e = 0; e < 8; e++) x[e] = vg_from_bits(e & 1 ? words[e / 2] & 0xffff0000u : words[e / 2] << 16);
}

// Calls body(row, column) for the 16-byte pieces of rows x columns elements of
// size bytes that are this thread's share.
template <int COLUMNS, int BYTES, class Body>
VG_FN void vg_each_piece(int rows, int thread, int threads, const Body& body) {
  constexpr int per_row = COLUMNS * BYTES / 16, size = 16 / BYTES;
  VG_NO_UNROLL for (int i = thread; i < rows * per_row; i += threads) body(i / per_row, i % per_row * size);
}

// One piece: `size` elements of X at column `col` of a row, of which those from
// DIM on are zero.
template <int DIM, class X, class E>
VG_FN void vg_copy_piece(X* to, const E* from, int col, bool valid, bool aligned) {
  constexpr int size = 16 / (int)sizeof(X);
  if constexpr (sizeof(X) == sizeof(E)) {
    if (aligned) return vg_cp_async16(to, from, valid && col < DIM);
  }
  float x[8] = {};
  if (sizeof(E) == 4 && size == 8 && valid && aligned && col + size <= DIM) {
    vg_load_piece(from, x);
    vg_load_piece(from + 4, x + 4);
  } else if (valid) {
    VG_UNROLL for (int e = 0; e < size; e++)
      if (col + e < DIM) x[e] = vg_load<float>(from + e, 1);
  }
  *(vg_uint4*)to = vg_make_piece(to, x);
}

// to[rows][LD] = `valid` rows of DIM columns at `from`, zeros around them up to
// `rows` and COLUMNS. aligned: vg_rows_aligned(from, ld, DIM).
template <int DIM, int COLUMNS, int LD, class X, class E>
VG_FN void vg_copy_rows(X* to, const E* from, int64_t ld, int valid, int rows, bool aligned, int thread, int threads) {
  vg_each_piece<COLUMNS, sizeof(X)>(rows, thread, threads, [&](int row, int col) {
    vg_copy_piece<DIM>(to + row * LD + col, from + row * ld + col, col, row < valid, aligned);
  });
}

template <vg_math MATH, int COLUMNS, int LD, class X>
VG_FN void vg_finish_rows(X* to, int rows, int thread, int threads) {
  if constexpr (MATH == vg_math::tf32)
    vg_each_piece<COLUMNS, sizeof(X)>(rows, thread, threads, [&](int row, int col) {
      vg_float4* p = (vg_float4*)(to + row * LD + col);
      const vg_float4 x = *p;
      *p = {vg_from_bits(vg_tf32(x.x)), vg_from_bits(vg_tf32(x.y)), vg_from_bits(vg_tf32(x.z)), vg_from_bits(vg_tf32(x.w))};
    });
}

#endif  // VITGEN_CUDA_ATTENTION_COPY_CUH

#ifndef VITGEN_COMMON_PHILOX_H
#define VITGEN_COMMON_PHILOX_H

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

#endif  // VITGEN_COMMON_PHILOX_H

#ifndef VITGEN_CUDA_DROPOUT_CUH
#define VITGEN_CUDA_DROPOUT_CUH

// Dropout and drop path: the multiplier of an element from its index alone, the
// same draws as cpu/dropout.h makes (common/philox.h says which bits an element
// gets).
//
// One Philox evaluation holds the draws of eight elements that stand 16 apart.
// Kernels therefore give a thread the columns c, c+16, … c+112 of a row, in that
// order, and vg_dropout keeps the words it evaluated last.


// What a kept value is multiplied by.
VG_FN float vg_inv_keep(uint32_t thr) { return 65536.0f / (float)(65536 - (int32_t)thr); }

// The multipliers of one dropout site. A functor holds one as a member; every
// thread has its own.
struct vg_dropout {
  VG_FN vg_dropout(const vg_step& s, uint32_t site, uint32_t thr)
      : seed_lo_(s.seed_lo), seed_hi_(s.seed_hi), micro_step_(s.micro_step), site_(site), thr_(thr),
        kept_(thr < 65536 ? vg_inv_keep(thr) : 0.0f), on_(s.dropout_on && thr > 0) {}

  // Multiplier of element `index`. 1 while dropout is off.
  template <class V>
  VG_FN V scale(int64_t index, int) const {
    if (!on_) return 1.0f;
    const uint32_t counter = (uint32_t)(index >> 7) * 16 + (uint32_t)(index & 15);
    // Masked first: where a kernel's columns are aligned the compiler then knows
    // the result, and with it which word below.
    const uint32_t half = (uint32_t)(index & 112) >> 4;
    if (counter != counter_ || !filled_) {
      words_[0] = counter, words_[1] = 0, words_[2] = site_, words_[3] = micro_step_;
      vg_philox4x32(words_, seed_lo_, seed_hi_);
      counter_ = counter, filled_ = true;
    }
    const uint32_t pair = half >> 1;  // selects, not an index: the words stay in registers
    const uint32_t word = pair == 0 ? words_[0] : pair == 1 ? words_[1] : pair == 2 ? words_[2] : words_[3];
    const uint32_t draw = (word >> (16 * (half & 1))) & 0xffffu;
    return draw >= thr_ ? kept_ : 0.0f;
  }

 private:
  uint32_t seed_lo_, seed_hi_, micro_step_, site_, thr_;
  float kept_;
  bool on_;
  mutable bool filled_ = false;
  mutable uint32_t counter_ = 0;
  mutable uint32_t words_[4] = {};
};

// The multiplier of a whole sample.
VG_FN float vg_drop_path_scale(const vg_step& step, uint32_t site, uint32_t thr, int64_t sample) {
  if (!step.dropout_on || thr == 0) return 1.0f;
  const uint32_t draw = vg_dropout_draw(step.seed_lo, step.seed_hi, step.micro_step, site, (uint64_t)sample);
  return draw >= thr ? (thr < 65536 ? vg_inv_keep(thr) : 0.0f) : 0.0f;
}

// The multipliers of one drop path site.
struct vg_drop_path {
  const vg_step& step;
  uint32_t site, thr;
  VG_FN vg_drop_path(const vg_step& s, uint32_t site, uint32_t thr) : step(s), site(site), thr(thr) {}
  template <class V>
  VG_FN V scale(int64_t sample) const { return vg_drop_path_scale(step, site, thr, sample); }
};

#endif  // VITGEN_CUDA_DROPOUT_CUH

#ifndef VITGEN_CUDA_ATTENTION_DROPOUT_CUH
#define VITGEN_CUDA_ATTENTION_DROPOUT_CUH

// The dropout mask of a block of attention weights, as bits in shared memory.
//
// A Philox evaluation holds the draws of the eight elements i, i+16, … i+112 of
// an aligned run of 128 (common/philox.h), so the mask of that run is 16 bytes,
// one evaluation each: element i of the site is bit (i/16)%8 of byte
// (i/128)*16 + i%16. Threads evaluate each byte once and look bits up at the
// elements they hold, which is exact however rows lie across the runs.

// One dropout site in this run. The seed is read where it is needed, which is
// seldom, rather than kept in registers.
struct vg_weight_dropout {
  const vg_step* step;
  uint32_t site, thr;
  bool on;

  VG_FN vg_weight_dropout(const vg_step& s, uint32_t site, uint32_t thr)
      : step(&s), site(site), thr(thr), on(s.dropout_on && thr > 0) {}

  // What a kept weight is multiplied by.
  VG_FN float kept() const { return !on ? 1.0f : thr < 65536 ? vg_inv_keep(thr) : 0.0f; }

  // Byte `counter` of the mask: a set bit is a kept element.
  VG_FN uint32_t byte(uint32_t counter) const {
    uint32_t x[4] = {counter, 0, site, step->micro_step};
    vg_philox4x32(x, step->seed_lo, step->seed_hi);
    uint32_t bits = 0;
    VG_UNROLL for (int half = 0; half < 8; half++)
      bits |= ((x[half >> 1] >> (16 * (half & 1))) & 0xffffu) >= thr ? 1u << half : 0u;
    return bits;
  }
};

// The mask of ROWS rows of weights, each of TK keys of which KEYS, from some key
// on, are held. If those are all, the rows are one range of elements (a run that
// two rows share is evaluated once); otherwise each has runs of its own.
template <int ROWS, int TK, int KEYS>
struct vg_weight_mask {
  static constexpr bool whole = KEYS >= TK;
  // Runs that so many elements can touch, and behind them 16 bytes of zeros
  // that may be read for keys that are not there.
  static constexpr int runs = vg_ceil_div32((whole ? ROWS * TK : KEYS) + 127, 128);
  static constexpr int pitch = 16 * (runs + 2);
  static constexpr int bytes = (whole ? 1 : ROWS) * pitch;

  uint8_t* mask;
  uint32_t first;  // index of the first row's first key that is held, modulo 2^32

  // Where element (row, key) is, as a number for kept() and kept_from().
  VG_FN int place(int row, int key) const {
    if (whole) return (int)(first & 127) + row * TK + key;
    return row * (pitch * 8) + (int)((first + (uint32_t)(row * TK)) & 127) + key;
  }
  VG_FN uint32_t kept(int place) const { return (mask[(place >> 7) * 16 + (place & 15)] >> ((place >> 4) & 7)) & 1; }
  // Bit i: element place + 16i, i < 8.
  VG_FN uint32_t kept_from(int place) const {
    const uint8_t* p = mask + (place >> 7) * 16 + (place & 15);
    return (uint32_t)(p[0] | p[16] << 8) >> ((place >> 4) & 7);
  }

  // Evaluates `keys` keys of `rows` rows, the first of which has index `index`,
  // by a group of threads. To be followed by a barrier.
  VG_FN void fill(const vg_weight_dropout& drop, int64_t index, int rows, int keys, int thread, int threads) {
    first = (uint32_t)index;
    if (whole) return fill_range(drop, mask, index, rows * TK, thread, threads);
    constexpr int per_row = pitch;
    VG_NO_UNROLL for (int i = thread; i < rows * per_row; i += threads) {
      const int row = i / per_row;
      fill_byte(drop, mask + row * pitch, index + (int64_t)row * TK, keys, i % per_row);
    }
  }

 private:
  VG_FN static void fill_range(const vg_weight_dropout& drop, uint8_t* to, int64_t index, int count, int thread, int threads) {
    const int used = (int)((index & 127) + count + 127) / 128 * 16 + 32;
    VG_NO_UNROLL for (int i = thread; i < used; i += threads) fill_byte(drop, to, index, count, i);
  }
  VG_FN static void fill_byte(const vg_weight_dropout& drop, uint8_t* to, int64_t index, int count, int i) {
    const bool past = i / 16 * 128 >= (int)(index & 127) + count;
    to[i] = past ? (uint8_t)0 : (uint8_t)drop.byte((uint32_t)(index >> 7) * 16 + (uint32_t)i);
  }
};

#endif  // VITGEN_CUDA_ATTENTION_DROPOUT_CUH

#ifndef VITGEN_CUDA_ATTENTION_CUH
#define VITGEN_CUDA_ATTENTION_CUH

// Scaled dot-product attention, forward: the CUDA counterpart of cpu/attention.h.
//
//   S = scale Q K^T,  P = softmax(S),  O = dropout(P) V,  lse = log sum exp S
//
// A warp owns 16 query rows of one head of one sample: it keeps their O, and of S
// a tile of up to 64 keys at a time, in registers, with running maximum and sum
// (online softmax). The warps of a group share the keys and values, which come
// through a ring of tiles in shared memory by asynchronous copies. A short
// sequence lies there whole, a long one passes through in two or three tiles.
//
// Geometry. G = ceil(tk/16) groups of 16 keys, R = ceil(tq/16) row strips,
// columns = head_dim rounded up to 16 (32 above 128), ld = columns + 8 (fp32: 4),
// E = bytes of an operand, 2 for bf16 and 4 otherwise.
//   warps w of a group: ceil(R / ceil(R/most)), most = 8, 4, 2 or 1
//   keys of a tile: 16 g, g = min(G, 4), or that halved once or twice
//   slots s of the ring: all tiles T = ceil(G/g); else 3, else 2
//   bytes of a group: (16 w + 2 rows) ld E + w mask, rows = min(16 g s, 16 G),
//     mask = 16 (ceil((16 tk + 127)/128) + 2) if tk <= 512, else
//     256 (ceil((64 g + 127)/128) + 2), and 0 without dropout
// The choice is the first of
//   for floor in 4, 1: for g: for most >= floor: all tiles in <= 80 KB (two blocks
//   on every chip), else 3 (if T > 3), else 2 slots (if T > 2) in <= 99 KB
// (what sm_86 has). A group of one warp shares a block with 3 others, one of two
// with another, if that stays within 80 KB.

// Row of q: b*tq + i, at q + row*ldq + h*head_dim; rows of k and v: b*tk + j;
// lse[(b*heads + h)*tq + i]. Query row i stands at token q_first + i of q_total
// (they differ from i and tq when only some rows are computed): key j is seen if
// !causal or j <= q_first + i, and the dropout index of a weight is
// ((b*heads + h)*q_total + q_first + i)*tk + j. drop_thr 0: no dropout.
template <class E>
struct vg_attention_args {
  const E *q, *k, *v;
  int64_t ldq, ldk, ldv;
  E* o;
  int64_t ldo;
  float* lse;   // may be null
  float scale;  // above 0
  uint32_t drop_site, drop_thr;
};

constexpr int kAttentionFew = 80 << 10;   // shared bytes of which every chip has twice
constexpr int kAttentionMost = 99 << 10;  // shared bytes a block may have on every chip

// What forward and backward kernels of one attention have in common. DROPOUT
// false: drop_thr is 0 in every call.
template <vg_math MATH, int HEADS, int HEAD_DIM, int TQ, int TK, int Q_FIRST, int Q_TOTAL, bool CAUSAL, bool DROPOUT>
struct vg_attention_shape {
  static_assert(HEAD_DIM >= 1 && HEAD_DIM <= 256 && TQ >= 1 && TK >= 1 && TK <= 16384 && Q_FIRST + TQ <= Q_TOTAL);
  static constexpr vg_math math = MATH;
  static constexpr int heads = HEADS, head_dim = HEAD_DIM, tq = TQ, tk = TK, q_first = Q_FIRST, q_total = Q_TOTAL;
  static constexpr bool causal = CAUSAL, dropout = DROPOUT;
  using operand = typename vg_operand<MATH>::type;
  static constexpr int columns = vg_round_up32(HEAD_DIM, HEAD_DIM > 128 ? 32 : 16);
  static constexpr int ld = vg_padded<MATH>(columns);
  static constexpr int row_bytes = ld * (int)sizeof(operand);

  // How many keys query row i sees.
  VG_CONST static int seen(int i) { return CAUSAL ? vg_min32(TK, Q_FIRST + i + 1) : TK; }
  // 2^x is cheaper than e^x, and as good where operands are rounded anyway:
  // exponents come as multiples of log 2 then.
  static constexpr bool base2 = MATH != vg_math::fp32;
  static constexpr float per_unit = base2 ? 1.44269504f : 1.0f;
  VG_FN static float exp(float x) { return base2 ? vg_exp2(x) : vg_exp(x); }
};

// Blocks that should fit on a multiprocessor, for launch bounds: as many as have
// `registers` registers a thread, and shared memory.
VG_CONST int vg_attention_resident(int threads, int shared_bytes, int registers) {
  return vg_max32(1, vg_min32(65536 / (vg_round_up32(threads, 128) * registers), (228 << 10) / (shared_bytes + 1024)));
}

// Which group of its block a thread is in. A launch may have threads beyond them.
template <class Config>
VG_FN int vg_group_id() {
  return Config::groups == 1 ? 0 : vg_thread() / Config::group_threads;
}
// Barrier of one group of a block's threads. Each has a constant number, for
// what a kernel does not name it does not occupy.
template <class Config>
VG_FN void vg_group_sync(int id) {
  constexpr int threads = Config::group_threads;
  static_assert(threads == 32 || Config::groups <= 2);
  if (threads == 32)
    vg_sync_warp();
  else if (Config::groups == 1 || id == 0)
    vg_sync_some(1, threads);
  else
    vg_sync_some(2, threads);
}

struct vg_attention_tile {
  int warps, key_groups, slots;
};

template <vg_math MATH, int HEADS, int HEAD_DIM, int TQ, int TK, int Q_FIRST, int Q_TOTAL, bool CAUSAL, bool DROPOUT = true>
struct vg_attention_config : vg_attention_shape<MATH, HEADS, HEAD_DIM, TQ, TK, Q_FIRST, Q_TOTAL, CAUSAL, DROPOUT> {
  using shape = vg_attention_shape<MATH, HEADS, HEAD_DIM, TQ, TK, Q_FIRST, Q_TOTAL, CAUSAL, DROPOUT>;
  static constexpr int strips = vg_ceil_div32(TQ, 16), all_groups = vg_ceil_div32(TK, 16);

  VG_CONST static int mask_keys_of(int key_groups) { return TK <= 512 ? TK : 64 * key_groups; }
  VG_CONST static int mask_bytes_of(int key_groups) {
    if (!DROPOUT) return 0;
    const int rows = TK <= 512 ? 1 : 16, elements = TK <= 512 ? 16 * TK : 64 * key_groups;
    return rows * 16 * (vg_ceil_div32(elements + 127, 128) + 2);
  }
  VG_CONST static int key_rows_of(vg_attention_tile t) { return 16 * vg_min32(t.key_groups * t.slots, all_groups); }
  VG_CONST static int bytes_of(vg_attention_tile t) {
    return (16 * t.warps + 2 * key_rows_of(t)) * shape::row_bytes + t.warps * mask_bytes_of(t.key_groups);
  }
  VG_CONST static vg_attention_tile choose() {
    for (int floor = 4; floor >= 1; floor -= 3)
      for (int g = vg_min32(4, all_groups); g >= 1; g /= 2)
        for (int most = 8; most >= floor; most /= 2) {
          const int tiles = vg_ceil_div32(all_groups, g);
          vg_attention_tile t = {vg_ceil_div32(strips, vg_ceil_div32(strips, most)), g, tiles};
          if (bytes_of(t) <= kAttentionFew) return t;
          for (t.slots = 3; t.slots >= 2; t.slots--)
            if (t.slots < tiles && bytes_of(t) <= kAttentionMost) return t;
        }
    return {1, 1, 1};  // not reached: see the assertion
  }

  static constexpr vg_attention_tile tile = choose();
  static constexpr int warps = tile.warps, key_groups = tile.key_groups, slots = tile.slots;
  static constexpr int tile_keys = 16 * key_groups, tiles = vg_ceil_div32(TK, tile_keys);
  static constexpr int ahead = slots == tiles ? tiles : slots - 1;  // tiles copied in advance
  static constexpr int query_rows = 16 * warps, query_blocks = vg_ceil_div32(TQ, query_rows);
  static constexpr int group_bytes = bytes_of(tile), group_threads = 32 * warps;
  static constexpr int wish = warps == 1 ? 4 : warps == 2 ? 2 : 1;
  static constexpr int groups = wish * group_bytes <= kAttentionFew ? wish : wish >= 2 && 2 * group_bytes <= kAttentionFew ? 2 : 1;
  static_assert(group_bytes <= kAttentionMost && (slots == tiles || slots >= 2));
  using mask = vg_weight_mask<16, TK, mask_keys_of(key_groups)>;
  static constexpr int mask_bytes = mask_bytes_of(key_groups);
  static_assert(!DROPOUT || mask::bytes == mask_bytes);

  // The launch.
  static constexpr int threads = group_threads * groups, shared_bytes = group_bytes * groups;
  static constexpr int narrow = shape::columns > 128 ? 255 : shape::columns > 64 ? 168 : 128;
  static constexpr int registers = MATH == vg_math::bf16 ? narrow : vg_min32(narrow + 40, 255);  // enough for a thread
  static constexpr int resident = vg_attention_resident(threads, shared_bytes, registers);
  VG_CONST static int64_t blocks(int64_t batch) { return vg_ceil_div(batch * HEADS * query_blocks, groups); }
  VG_CONST static int64_t workspace_bytes(int64_t) { return 0; }
  VG_CONST static int64_t counters(int64_t) { return 0; }
};

// Row `row` of a head, which is b*heads + h, at the head's first column. `tokens`:
// rows of a sample.
template <class Config, class E>
VG_FN E* vg_head_row(E* p, int64_t ld, int head, int tokens, int row) {
  return p + ((int64_t)(head / Config::heads) * tokens + row) * ld + head % Config::heads * Config::head_dim;
}
// Starts the copy of `rows` rows of a head to shared memory, those from `tokens`
// on as zeros, by the threads of a group; and finishes it.
template <class Config, class X, class E>
VG_FN void vg_head_copy(X* to, const E* p, int64_t ld, int head, int tokens, int row, int rows, int thread) {
  const bool aligned = vg_rows_aligned(p, ld, Config::head_dim);
  vg_copy_rows<Config::head_dim, Config::columns, Config::ld>(to, vg_head_row<Config>(p, ld, head, tokens, row), ld, tokens - row,
                                                              rows, aligned, thread, Config::group_threads);
}
template <class Config, class X>
VG_FN void vg_head_finish(X* to, int rows, int thread) {
  vg_finish_rows<Config::math, Config::columns, Config::ld>(to, rows, thread, Config::group_threads);
}

// The rows of a warp while keys pass by: the running maximum of Q K^T, the sum of
// exponentials over the columns this thread has, and O before its division by
// the whole sum.
template <class Config>
struct vg_attention_rows {
  float top[2], sum[2];
  float o[Config::columns / 8][4];
};

// What a group of warps works on.
template <class Config>
struct vg_attention_group {
  using X = typename Config::operand;
  X *q, *k, *v;        // shared: query rows, and the ring of key and value tiles
  uint8_t* mask;       // of this warp
  int id, thread;      // group in the block, thread in the group
  int head, first;     // b*heads + h, and its first query row

  VG_FN int warp() const { return thread >> 5; }
  VG_FN int row() const { return first + 16 * warp(); }  // first row of this warp
  VG_FN void sync() const { vg_group_sync<Config>(id); }
};

// Starts copying keys and values of one tile to its slot; and finishes it.
template <class Config>
VG_FN int vg_attention_slot(int tile) {
  return tile % Config::slots * Config::tile_keys * Config::ld;
}
template <class Config>
VG_FN int vg_attention_key_rows(int tile) {
  return vg_min32(Config::tile_keys, vg_round_up32(Config::tk - tile * Config::tile_keys, 16));
}
template <class Config, class E>
VG_FN void vg_attention_copy_keys(const vg_attention_group<Config>& s, const vg_attention_args<E>& a, int tile) {
  const int row = tile * Config::tile_keys, rows = vg_attention_key_rows<Config>(tile), slot = vg_attention_slot<Config>(tile);
  vg_head_copy<Config>(s.k + slot, a.k, a.ldk, s.head, Config::tk, row, rows, s.thread);
  vg_head_copy<Config>(s.v + slot, a.v, a.ldv, s.head, Config::tk, row, rows, s.thread);
}
template <class Config>
VG_FN void vg_attention_finish_keys(const vg_attention_group<Config>& s, int tile) {
  const int rows = vg_attention_key_rows<Config>(tile), slot = vg_attention_slot<Config>(tile);
  vg_head_finish<Config>(s.k + slot, rows, s.thread);
  vg_head_finish<Config>(s.v + slot, rows, s.thread);
}

// From S of a tile to exponentials, zero where a key is not seen; the running
// maximum and sum follow, and O shrinks as the maximum grows.
template <class Config, int N>
VG_FN void vg_attention_softmax(float (&p)[N][4], vg_attention_rows<Config>& r, float scale, int row, int first_key) {
  const int g = vg_lane() >> 2, t = vg_lane() & 3;
  const float factor = scale * Config::per_unit;
  if (first_key + 8 * N > Config::seen(row)) {
    VG_UNROLL for (int j = 0; j < N; j++)
      VG_UNROLL for (int e = 0; e < 4; e++)
        if (first_key + 8 * j + 2 * t + (e & 1) >= Config::seen(row + g + (e & 2) * 4)) p[j][e] = -vg_infinity();
  }
  VG_UNROLL for (int h = 0; h < 2; h++) {
    float top = r.top[h];
    VG_UNROLL for (int j = 0; j < N; j++)  // in this order: a NaN is passed over, and comes back as a weight
      VG_UNROLL for (int e = 0; e < 2; e++) top = vg_max(p[j][2 * h + e], top);
    top = vg_max(vg_shfl_xor(top, 1), top);
    top = vg_max(vg_shfl_xor(top, 2), top);
    const float base = top == -vg_infinity() ? 0.0f : top * factor;  // no score above -inf yet: no weight is NaN for it
    const float fade = Config::exp(vg_fma(r.top[h], factor, -base));
    r.top[h] = top;
    float sum = 0.0f;
    VG_UNROLL for (int j = 0; j < N; j++)
      VG_UNROLL for (int e = 0; e < 2; e++) sum += p[j][2 * h + e] = Config::exp(vg_fma(p[j][2 * h + e], factor, -base));
    r.sum[h] = vg_fma(r.sum[h], fade, sum);
    VG_UNROLL for (int j = 0; j < Config::columns / 8; j++)
      VG_UNROLL for (int e = 0; e < 2; e++) r.o[j][2 * h + e] *= fade;
  }
}

// Zeros the weights of a tile that are dropped. Columns 16 apart share bits.
template <class Config, int N>
VG_FN void vg_attention_drop(float (&p)[N][4], const typename Config::mask& mask, int rows, int key) {
  const int g = vg_lane() >> 2, t = vg_lane() & 3;
  VG_UNROLL for (int h = 0; h < 2; h++) {
    const int row = vg_min32(g + 8 * h, rows - 1);  // of rows that are not there any bits will do
    VG_UNROLL for (int c = 0; c < 4; c++) {
      const uint32_t kept = mask.kept_from(mask.place(row, key + 2 * t + 8 * (c >> 1) + (c & 1)));
      VG_UNROLL for (int j = 0; j < N / 2; j++) {
        float& x = p[2 * j + (c >> 1)][2 * h + (c & 1)];
        x = kept >> j & 1 ? x : 0.0f;
      }
    }
  }
}

// One tile of keys for the rows of one warp.
template <class Config, class E>
VG_FN void vg_attention_keys(const vg_attention_group<Config>& s, const vg_attention_args<E>& a, const vg_weight_dropout& drop,
                             typename Config::mask& mask, vg_attention_rows<Config>& r, int tile) {
  constexpr int ld = Config::ld, segment = Config::mask::whole ? Config::tiles : 4;
  const int row = s.row(), first_key = tile * Config::tile_keys, rows = vg_min32(16, Config::tq - row);
  const int groups = vg_ceil_div32(Config::seen(row + rows - 1) - first_key, 16), slot = vg_attention_slot<Config>(tile);
  if (groups <= 0) return;
  float p[2 * Config::key_groups][4];
  vg_zero(p);
  vg_warp_nt<Config::math, Config::columns, ld>(p, s.q + 16 * s.warp() * ld, s.k + slot, groups);
  vg_attention_softmax<Config>(p, r, a.scale, row, first_key);
  if (Config::dropout && drop.on) {
    if (tile % segment == 0) {
      vg_sync_warp();
      const int64_t index = ((int64_t)s.head * Config::q_total + Config::q_first + row) * Config::tk + first_key;
      mask.fill(drop, index, rows, vg_min32(Config::tk - first_key, segment * Config::tile_keys), vg_lane(), 32);
      vg_sync_warp();
    }
    vg_attention_drop<Config>(p, mask, rows, tile % segment * Config::tile_keys);
  }
  vg_warp_nn<Config::math, ld>(r.o, p, s.v + slot, groups);
}

// Divides by the sum and stores.
template <class Config, class E>
VG_FN void vg_attention_finish(const vg_attention_group<Config>& s, const vg_attention_args<E>& a, float kept,
                               vg_attention_rows<Config>& r) {
  const int row = s.row(), rows = vg_min32(16, Config::tq - row), g = vg_lane() >> 2, t = vg_lane() & 3;
  VG_UNROLL for (int h = 0; h < 2; h++) {
    r.sum[h] += vg_shfl_xor(r.sum[h], 1);
    r.sum[h] += vg_shfl_xor(r.sum[h], 2);
    if (a.lse && t == 0 && g + 8 * h < rows)
      a.lse[(int64_t)s.head * Config::tq + row + g + 8 * h] = vg_fma(r.top[h], a.scale, vg_log(r.sum[h]));
  }
  vg_store_rows(r.o, vg_head_row<Config>(a.o, a.ldo, s.head, Config::tq, row), a.ldo, rows, Config::head_dim,
                vg_rows_aligned(a.o, a.ldo, Config::head_dim), kept / r.sum[0], kept / r.sum[1]);
}

// The block's share of the group, or a group that starts beyond the batch.
template <class Config>
VG_FN vg_attention_group<Config> vg_attention_my_group(const vg_call& c) {
  using X = typename Config::operand;
  const int id = vg_group_id<Config>(), thread = vg_thread() - id * Config::group_threads;
  const int unit = c.block * Config::groups + id;
  X* q = (X*)(vg_shared() + id * Config::group_bytes);
  X* k = q + Config::query_rows * Config::ld;
  X* v = k + Config::key_rows_of(Config::tile) * Config::ld;
  uint8_t* mask = (uint8_t*)(v + Config::key_rows_of(Config::tile) * Config::ld) + (thread >> 5) * Config::mask_bytes;
  return {q, k, v, mask, id, thread, unit / Config::query_blocks, unit % Config::query_blocks * Config::query_rows};
}

template <class Config, class E>
VG_FN void vg_attention(const vg_call& c, const vg_attention_args<E>& a) {
  const vg_attention_group<Config> s = vg_attention_my_group<Config>(c);
  if (vg_thread() >= Config::threads || s.head >= c.batch() * Config::heads) return;
  const vg_weight_dropout drop(c.step(), a.drop_site, a.drop_thr);
  typename Config::mask mask = {s.mask, 0};
  const int valid = vg_min32(Config::query_rows, Config::tq - s.first);
  const int tiles = vg_ceil_div32(Config::seen(s.first + valid - 1), Config::tile_keys);

  vg_head_copy<Config>(s.q, a.q, a.ldq, s.head, Config::tq, s.first, Config::query_rows, s.thread);
  VG_NO_UNROLL for (int i = 0; i < Config::ahead; i++) {
    if (i < tiles) vg_attention_copy_keys(s, a, i);
    vg_cp_async_commit();
  }
  vg_attention_rows<Config> r = {{-vg_infinity(), -vg_infinity()}, {0.0f, 0.0f}, {}};
  VG_NO_UNROLL for (int i = 0; i < tiles; i++) {
    vg_cp_async_wait<Config::ahead - 1>();
    if (i == 0) vg_head_finish<Config>(s.q, Config::query_rows, s.thread);
    vg_attention_finish_keys(s, i);
    s.sync();  // the tile is there; and all warps have left the one before, whose slot comes next
    if (Config::ahead < Config::tiles && i + Config::ahead < tiles) vg_attention_copy_keys(s, a, i + Config::ahead);
    vg_cp_async_commit();
    if (s.row() < Config::tq) vg_attention_keys(s, a, drop, mask, r, i);
  }
  vg_cp_async_wait<0>();
  if (s.row() < Config::tq) vg_attention_finish(s, a, drop.kept(), r);
}

#endif  // VITGEN_CUDA_ATTENTION_CUH

#ifndef VITGEN_CUDA_ATTENTION_GRAD_CUH
#define VITGEN_CUDA_ATTENTION_GRAD_CUH

// Attention, backward, in one pass: dQ, dK and dV of a head by one group of warps.
// P is recomputed from the saved lse, and with D = rowsum(dO O), m the dropout
// multiplier:
//
//   dV = (m P)^T dO,  dS = scale P (m (dO V^T) - D),  dK = dS^T Q,  dQ = dS K
//
// A warp owns 16 keys. It computes S^T and dP^T for its keys and a tile of up to
// 48 queries, which are then, in registers, the left operands of its dV and dK;
// those stay in registers while the queries pass by. dS^T also goes to shared
// memory, where after a barrier all warps of the group together compute dQ of
// the tile. If all keys do not fit, they come in tiles as well, and dQ is added
// up over them in float, in their order: in dq itself if that holds floats, else
// in the workspace. All sums are in an order that only shapes decide.
//
// Geometry. K = ceil(tk/16) key strips; columns, ld, E as in attention.cuh;
// split = 2 where columns > 128 (two warps share 16 keys, each with half of the
// columns of dK and dV), else 1.
//   warps w of a group: split * strips, strips = ceil(K / n), n key tiles of
//     16 strips keys; strips <= most = 8 / split if columns > 64, else 13 if K <= 13,
//     else 12
//   queries of a tile: q = min(round_up(tq, 16), 48 if tq <= 48 and columns <= 64
//     else 32), or 16
//   slots s of queries: 2, or 1
//   bytes of a group: 2 (16 strips + s q) ld E + 16 strips (q + 8) E
//     + 8 (round_up(tq, q) if tq <= 1024, else q)
//     + mask, which is 0 without dropout, else 16 (ceil((q tk + 127)/128) + 2) if
//     n = 1, else 16 q (ceil((16 strips + 127)/128) + 2)
// The choice is the first that stays within 99 KB of
//   for n from ceil(K / most) on: for q, larger first: s = 2 if tq > q, s = 1
// A group of one warp shares a block with 3 others, one of two with another, if
// that stays within 80 KB. Where there is a workspace, blocks loop over heads.

// Rows as in vg_attention_args; those of dout and o are query rows, as is dq;
// dk and dv have key rows. All are written in full.
template <class E>
struct vg_attention_grad_args {
  const E *q, *k, *v, *o, *dout;
  const float* lse;
  int64_t ldq, ldk, ldv, ldo, lddout;
  E *dq, *dk, *dv;
  int64_t lddq, lddk, lddv;
  float scale;  // above 0
  uint32_t drop_site, drop_thr;
};

constexpr int kAttentionSumBlocks = 256;  // most blocks of a launch that needs a workspace

struct vg_attention_grad_tile {
  int strips, queries, slots;
};

// STORAGE: bytes of an element in memory, sizeof(E).
template <vg_math MATH, int HEADS, int HEAD_DIM, int TQ, int TK, int Q_FIRST, int Q_TOTAL, bool CAUSAL, bool DROPOUT, int STORAGE>
struct vg_attention_grad_config : vg_attention_shape<MATH, HEADS, HEAD_DIM, TQ, TK, Q_FIRST, Q_TOTAL, CAUSAL, DROPOUT> {
  using shape = vg_attention_shape<MATH, HEADS, HEAD_DIM, TQ, TK, Q_FIRST, Q_TOTAL, CAUSAL, DROPOUT>;
  using operand = typename shape::operand;
  static constexpr int all_strips = vg_ceil_div32(TK, 16), split = shape::columns > 128 ? 2 : 1;
  static constexpr int most_strips = shape::columns > 64 ? 8 / split : all_strips <= 13 ? 13 : 12;
  static constexpr int most_queries = vg_min32(vg_round_up32(TQ, 16), TQ <= 48 && shape::columns <= 64 ? 48 : 32);

  VG_CONST static int stat_rows_of(vg_attention_grad_tile t) { return TQ <= 1024 ? vg_round_up32(TQ, t.queries) : t.queries; }
  VG_CONST static int mask_bytes_of(vg_attention_grad_tile t) {
    if (!DROPOUT) return 0;
    const int keys = 16 * t.strips, rows = keys >= TK ? 1 : t.queries, elements = keys >= TK ? t.queries * TK : keys;
    return rows * 16 * (vg_ceil_div32(elements + 127, 128) + 2);
  }
  VG_CONST static int bytes_of(vg_attention_grad_tile t) {
    return 2 * (16 * t.strips + t.slots * t.queries) * shape::row_bytes + 16 * t.strips * (t.queries + 8) * (int)sizeof(operand) +
           8 * stat_rows_of(t) + mask_bytes_of(t);
  }
  VG_CONST static vg_attention_grad_tile choose() {
    for (int n = vg_ceil_div32(all_strips, most_strips); n <= all_strips; n++)
      for (int q = most_queries; q >= 16; q = q > 16 ? 16 : 0)
        for (int slots = TQ > q ? 2 : 1; slots >= 1; slots--) {
          const vg_attention_grad_tile t = {vg_ceil_div32(all_strips, n), q, slots};
          if (bytes_of(t) <= kAttentionMost) return t;
        }
    return {1, 16, 1};  // not reached: see the assertion
  }

  static constexpr vg_attention_grad_tile tile = choose();
  static constexpr int strips = tile.strips, queries = tile.queries, slots = tile.slots, warps = strips * split;
  static constexpr int tile_keys = 16 * strips, key_tiles = vg_ceil_div32(TK, tile_keys), query_tiles = vg_ceil_div32(TQ, queries);
  static constexpr int share = shape::columns / split;  // columns of dK and dV that a warp has
  // Queries whose weights are in registers at a time: of those, threads of many
  // warps have few.
  static constexpr int chunk = warps > (key_tiles > 1 ? 8 : 12) ? 16 : queries;
  static constexpr int ds_ld = queries + 8, stat_rows = stat_rows_of(tile);
  static constexpr bool all_stats = stat_rows >= TQ;
  static constexpr int group_bytes = bytes_of(tile), group_threads = 32 * warps;
  static constexpr int wish = warps == 1 ? 4 : warps == 2 ? 2 : 1;
  static constexpr int groups = wish * group_bytes <= kAttentionFew ? wish : wish >= 2 && 2 * group_bytes <= kAttentionFew ? 2 : 1;
  static_assert(group_bytes <= kAttentionMost);
  using mask = vg_weight_mask<queries, TK, tile_keys>;
  static_assert(!DROPOUT || mask::bytes == mask_bytes_of(tile));

  // The pieces of dQ that warps take turns at have 16 rows and so many columns:
  // what makes the fewest columns of work for the busiest warp.
  VG_CONST static int rounds(int width) { return vg_ceil_div32(queries / 16 * (shape::columns / width), warps) * width; }
  VG_CONST static int choose_width() {
    int best = 16;
    for (int width = 32; width <= 64; width += 16)
      if (shape::columns % width == 0 && rounds(width) <= rounds(best)) best = width;
    return best;
  }
  static constexpr int dq_width = choose_width(), dq_pieces = queries / 16 * (shape::columns / dq_width);

  // The launch.
  static constexpr int threads = group_threads * groups, shared_bytes = group_bytes * groups;
  static constexpr int registers = shape::columns > 64 ? 255 : (shape::columns > 32 ? 168 : 128);
  static constexpr int resident = vg_attention_resident(threads, shared_bytes, registers);
  static constexpr bool sums = key_tiles > 1 && STORAGE != 4;  // dQ is added up in the workspace
  VG_CONST static int64_t blocks(int64_t batch) {
    const int64_t n = vg_ceil_div(batch * HEADS, groups);
    return sums ? vg_min64(n, kAttentionSumBlocks) : n;
  }
  VG_CONST static int64_t workspace_bytes(int64_t batch) {
    return sums ? blocks(batch) * groups * TQ * shape::columns * (int64_t)sizeof(float) : 0;
  }
  VG_CONST static int64_t counters(int64_t) { return 0; }
};

// What a group of warps works on.
template <class Config>
struct vg_attention_grad_group {
  using X = typename Config::operand;
  static constexpr int slot = Config::queries * Config::ld;

  X *k, *v, *q, *dout, *ds;  // shared: a tile of keys and values, the slots of queries, dS^T
  float *lse, *delta;        // shared: of query rows; lse times Config::per_unit
  typename Config::mask mask;
  float* sums;               // workspace, tq rows of `columns` floats
  int id, thread;            // group in the block, thread in the group
  int head;                  // b*heads + h

  VG_FN int warp() const { return thread >> 5; }
  VG_FN int strip() const { return warp() / Config::split; }  // which 16 keys
  VG_FN int part() const { return warp() % Config::split; }   // which columns of dK and dV
  VG_FN void sync() const { vg_group_sync<Config>(id); }
  template <class E>
  VG_FN E* query(E* p, int64_t ld, int row) const { return vg_head_row<Config>(p, ld, head, Config::tq, row); }
  template <class E>
  VG_FN E* key(E* p, int64_t ld, int row) const { return vg_head_row<Config>(p, ld, head, Config::tk, row); }
};

template <class Config, class E>
VG_FN void vg_attention_copy_queries(const vg_attention_grad_group<Config>& s, const vg_attention_grad_args<E>& a, int tile) {
  const int row = tile * Config::queries, to = tile % Config::slots * s.slot;
  vg_head_copy<Config>(s.q + to, a.q, a.ldq, s.head, Config::tq, row, Config::queries, s.thread);
  vg_head_copy<Config>(s.dout + to, a.dout, a.lddout, s.head, Config::tq, row, Config::queries, s.thread);
  vg_cp_async_commit();
}

// The part of a dot product over head_dim that one of eight threads has.
template <class Config, class E>
VG_FN float vg_attention_dot(const E* x, const E* y, int lane, bool aligned) {
  constexpr int size = 16 / (int)sizeof(E);
  float sum = 0.0f;
  if (aligned) {
    VG_UNROLL for (int d = 0; d < Config::head_dim; d += 8 * size)
      if (d + lane * size < Config::head_dim) {
        float a[size], b[size];
        vg_load_piece(x + d + lane * size, a);
        vg_load_piece(y + d + lane * size, b);
        VG_UNROLL for (int e = 0; e < size; e++) sum = vg_fma(a[e], b[e], sum);
      }
  } else {
    VG_NO_UNROLL for (int d = lane; d < Config::head_dim; d += 8)
      sum = vg_fma(vg_load<float>(x + d, 1), vg_load<float>(y + d, 1), sum);
  }
  return sum;
}

// lse and delta of `rows` query rows, eight threads a row. Rows that are not
// there get an lse of infinity, which makes their weights zero.
template <class Config, class E>
VG_FN void vg_attention_stats(const vg_attention_grad_group<Config>& s, const vg_attention_grad_args<E>& a, int first, int rows) {
  const int lane = vg_lane() & 7;
  const bool aligned = vg_rows_aligned(a.o, a.ldo, Config::head_dim) && vg_rows_aligned(a.dout, a.lddout, Config::head_dim);
  VG_NO_UNROLL for (int r = 4 * s.warp() + (vg_lane() >> 3); r < rows; r += 4 * Config::warps) {
    const bool valid = first + r < Config::tq;
    const int row = valid ? first + r : 0;
    float sum = vg_attention_dot<Config>(s.query(a.o, a.ldo, row), s.query(a.dout, a.lddout, row), lane, aligned);
    VG_UNROLL for (int step = 4; step > 0; step /= 2) sum += vg_shfl_xor(sum, step);
    if (lane != 0) continue;
    s.delta[r] = valid ? sum : 0.0f;
    s.lse[r] = valid ? a.lse[(int64_t)s.head * Config::tq + row] * Config::per_unit : vg_infinity();
  }
}

// From S^T and dP^T of 16 keys to dropout(P)^T and dS^T; zero where a query does
// not see a key. The keys stand at `strip` of a tile from first_key on, the
// queries at `chunk` of a tile from `query` on, of which there are `rows`.
template <class Config, int N>
VG_FN void vg_attention_weights_grad(const vg_attention_grad_group<Config>& s, const vg_weight_dropout& drop, float scale,
                                     int first_key, int strip, int query, int chunk, int rows, float (&p)[N][4],
                                     float (&ds)[N][4]) {
  const int g = vg_lane() >> 2, t = vg_lane() & 3, stats = (Config::all_stats ? query : 0) + chunk;
  const float factor = scale * Config::per_unit, kept = drop.kept();
  const bool masked = first_key + strip + 16 > Config::seen(query + chunk), dropped = Config::dropout && drop.on;
  VG_UNROLL for (int j = 0; j < N; j++) {
    const int stat = stats + 8 * j + 2 * t;
    const vg_float2 lse = *(const vg_float2*)(s.lse + stat), delta = *(const vg_float2*)(s.delta + stat);
    VG_UNROLL for (int e = 0; e < 4; e++) {
      const int key = strip + g + 8 * (e >> 1), row = chunk + 8 * j + 2 * t + (e & 1);
      float m = 1.0f;
      if (dropped) m = s.mask.kept(s.mask.place(vg_min32(row, rows - 1), key)) ? kept : 0.0f;
      const float weight = Config::exp(vg_fma(p[j][e], factor, e & 1 ? -lse.y : -lse.x));
      const float grad = scale * weight * vg_fma(ds[j][e], m, e & 1 ? -delta.y : -delta.x);
      const bool zero = masked && first_key + key >= Config::seen(query + row);
      p[j][e] = zero ? 0.0f : weight * m;
      ds[j][e] = zero ? 0.0f : grad;
    }
  }
}

// dK and dV of a warp's keys, while queries pass by.
template <class Config>
struct vg_attention_key_grads {
  float dk[Config::share / 8][4], dv[Config::share / 8][4];
};

// One tile of queries for the keys of one warp, a chunk of them at a time.
template <class Config>
VG_FN void vg_attention_queries(const vg_attention_grad_group<Config>& s, const vg_weight_dropout& drop, float scale, int key_tile,
                                int query_tile, vg_attention_key_grads<Config>& r) {
  constexpr int ld = Config::ld, N = Config::chunk / 8;
  const int first_key = key_tile * Config::tile_keys, strip = 16 * s.strip(), query = query_tile * Config::queries;
  const int rows = vg_min32(Config::queries, Config::tq - query), slot = query_tile % Config::slots * s.slot;
  if (first_key + strip >= Config::seen(query + rows - 1)) return;
  VG_NO_UNROLL for (int i = 0; i < rows; i += Config::chunk) {
    const int groups = vg_ceil_div32(rows - i, 16);
    const typename Config::operand *q = s.q + slot + i * ld, *dout = s.dout + slot + i * ld;
    float p[N][4], ds[N][4];
    vg_zero(p);
    vg_zero(ds);
    vg_warp_nt<Config::math, Config::columns, ld>(p, s.k + strip * ld, q, groups);
    vg_warp_nt<Config::math, Config::columns, ld>(ds, s.v + strip * ld, dout, groups);
    vg_attention_weights_grad(s, drop, scale, first_key, strip, query, i, rows, p, ds);
    if (s.part() == 0) {
      typename Config::operand* to = s.ds + (strip + (vg_lane() >> 2)) * Config::ds_ld + i + 2 * (vg_lane() & 3);
      VG_UNROLL for (int j = 0; j < N; j++)
        VG_UNROLL for (int h = 0; h < 2; h++)
          vg_store_operand(to + 8 * h * Config::ds_ld + 8 * j, ds[j][2 * h], ds[j][2 * h + 1], Config::math);
    }
    vg_warp_nn<Config::math, ld>(r.dv, p, dout + s.part() * Config::share, groups);
    vg_warp_nn<Config::math, ld>(r.dk, ds, q + s.part() * Config::share, groups);
  }
}

// acc += what 16 rows of dQ have so far.
template <int N>
VG_FN void vg_attention_add_sums(float (&acc)[N][4], const float* from, int64_t ld, int rows, int columns) {
  const int g = vg_lane() >> 2, t = vg_lane() & 3;
  VG_UNROLL for (int j = 0; j < N; j++)
    VG_UNROLL for (int e = 0; e < 4; e++) {
      const int row = g + 8 * (e >> 1), col = 8 * j + 2 * t + (e & 1);
      if (row < rows && col < columns) acc[j][e] += from[row * ld + col];
    }
}

// dQ of a tile of queries: what the keys of one tile add to it. A thread meets
// the same elements for every tile of keys.
template <class Config, class E>
VG_FN void vg_attention_query_grads(const vg_attention_grad_group<Config>& s, const vg_attention_grad_args<E>& a, int key_tile,
                                    int query_tile) {
  constexpr int width = Config::dq_width, per_row = Config::columns / width;
  const int query = query_tile * Config::queries, last = vg_min32(query + Config::queries, Config::tq) - 1;
  const int keys = vg_min32(Config::tile_keys, Config::seen(last) - key_tile * Config::tile_keys);
  const bool aligned = vg_rows_aligned(a.dq, a.lddq, Config::head_dim);
  VG_NO_UNROLL for (int i = s.warp(); i < Config::dq_pieces; i += Config::warps) {
    const int first = 16 * (i / per_row), row = query + first, col = i % per_row * width, rows = vg_min32(16, Config::tq - row);
    if (rows <= 0) break;
    float acc[width / 8][4];
    vg_zero(acc);
    vg_warp_tn<Config::math, Config::ds_ld, Config::ld>(acc, s.ds + first, s.k + col, vg_round_up32(keys, 16));
    E* dq = s.query(a.dq, a.lddq, row) + col;
    const int columns = Config::head_dim - col;
    if constexpr (Config::key_tiles > 1 && sizeof(E) == 4) {
      if (key_tile > 0) vg_attention_add_sums(acc, dq, a.lddq, rows, columns);
    }
    if constexpr (Config::sums) {
      float* sums = s.sums + row * Config::columns + col;
      if (key_tile > 0) vg_attention_add_sums(acc, sums, Config::columns, rows, columns);
      if ((key_tile + 1) * Config::tile_keys < Config::seen(last)) {
        vg_store_rows(acc, sums, Config::columns, rows, columns, false, 1.0f, 1.0f);
        continue;
      }
    }
    vg_store_rows(acc, dq, a.lddq, rows, columns, aligned, 1.0f, 1.0f);
  }
}

// One tile of keys: all queries that see it pass by.
template <class Config, class E>
VG_FN void vg_attention_key_tile(vg_attention_grad_group<Config>& s, const vg_attention_grad_args<E>& a,
                                 const vg_weight_dropout& drop, int tile) {
  const int first = tile * Config::tile_keys, keys = vg_min32(Config::tile_keys, Config::tk - first);
  const int begin = Config::causal ? vg_max32(0, first - Config::q_first) / Config::queries : 0;
  vg_attention_key_grads<Config> r;
  vg_zero(r.dk);
  vg_zero(r.dv);
  if (begin < Config::query_tiles) {
    vg_head_copy<Config>(s.k, a.k, a.ldk, s.head, Config::tk, first, Config::tile_keys, s.thread);
    vg_head_copy<Config>(s.v, a.v, a.ldv, s.head, Config::tk, first, Config::tile_keys, s.thread);
    vg_attention_copy_queries(s, a, begin);
  }
  if (Config::all_stats && tile == 0) vg_attention_stats(s, a, 0, Config::stat_rows);
  VG_NO_UNROLL for (int i = begin; i < Config::query_tiles; i++) {
    const int query = i * Config::queries, rows = vg_min32(Config::queries, Config::tq - query);
    if (!Config::all_stats) vg_attention_stats(s, a, query, Config::queries);
    if (Config::dropout && drop.on) {
      const int64_t index = ((int64_t)s.head * Config::q_total + Config::q_first + query) * Config::tk + first;
      s.mask.fill(drop, index, rows, keys, s.thread, Config::group_threads);
    }
    vg_cp_async_wait<0>();
    if (i == begin) {
      vg_head_finish<Config>(s.k, Config::tile_keys, s.thread);
      vg_head_finish<Config>(s.v, Config::tile_keys, s.thread);
    }
    vg_head_finish<Config>(s.q + i % Config::slots * s.slot, Config::queries, s.thread);
    vg_head_finish<Config>(s.dout + i % Config::slots * s.slot, Config::queries, s.thread);
    s.sync();  // operands are there; and dS^T of the tile before has been read
    if (Config::slots > 1 && i + 1 < Config::query_tiles) vg_attention_copy_queries(s, a, i + 1);
    vg_attention_queries(s, drop, a.scale, tile, i, r);
    s.sync();  // dS^T is there; queries, mask and statistics have been read
    if (Config::slots == 1 && i + 1 < Config::query_tiles) vg_attention_copy_queries(s, a, i + 1);
    vg_attention_query_grads(s, a, tile, i);
  }
  const int row = first + 16 * s.strip(), col = s.part() * Config::share, rows = vg_min32(16, Config::tk - row);
  if (rows > 0) {
    constexpr int D = Config::head_dim;
    vg_store_rows(r.dk, s.key(a.dk, a.lddk, row) + col, a.lddk, rows, D - col, vg_rows_aligned(a.dk, a.lddk, D), 1.0f, 1.0f);
    vg_store_rows(r.dv, s.key(a.dv, a.lddv, row) + col, a.lddv, rows, D - col, vg_rows_aligned(a.dv, a.lddv, D), 1.0f, 1.0f);
  }
  s.sync();  // keys and statistics have been read
}

// A group's memory; its first head.
template <class Config>
VG_FN vg_attention_grad_group<Config> vg_attention_my_grad_group(const vg_call& c) {
  using X = typename Config::operand;
  constexpr int keys = Config::tile_keys * Config::ld, queries = Config::slots * Config::queries * Config::ld;
  const int id = vg_group_id<Config>(), thread = vg_thread() - id * Config::group_threads;
  const int head = c.block * Config::groups + id;
  X* k = (X*)(vg_shared() + id * Config::group_bytes);
  X *v = k + keys, *q = v + keys, *dout = q + queries, *ds = dout + queries;
  float* lse = (float*)(ds + Config::tile_keys * Config::ds_ld);
  float* delta = lse + Config::stat_rows;
  float* sums = (float*)c.workspace + (int64_t)head * Config::tq * Config::columns;
  return {k, v, q, dout, ds, lse, delta, {(uint8_t*)(delta + Config::stat_rows), 0}, sums, id, thread, head};
}

template <class Config, class E>
VG_FN void vg_attention_grad(const vg_call& c, const vg_attention_grad_args<E>& a) {
  static_assert(!Config::sums == (Config::key_tiles == 1 || sizeof(E) == 4), "STORAGE is not that of E");
  vg_attention_grad_group<Config> s = vg_attention_my_grad_group<Config>(c);
  if (vg_thread() >= Config::threads) return;
  const vg_weight_dropout drop(c.step(), a.drop_site, a.drop_thr);
  const int heads = c.batch() * Config::heads, stride = c.blocks * Config::groups;
  VG_NO_UNROLL for (; s.head < heads; s.head += stride)
    VG_NO_UNROLL for (int i = 0; i < Config::key_tiles; i++) vg_attention_key_tile(s, a, drop, i);
}

#endif  // VITGEN_CUDA_ATTENTION_GRAD_CUH

#ifndef VITGEN_CUDA_POINTWISE_CUH
#define VITGEN_CUDA_POINTWISE_CUH

// What no other family has taken in: a body run over every element of a
// matrix, and the transposition of two axes.

// The threads of a block, in every kernel but the matrix products and attention.
constexpr int kBlockThreads = 256;
// Columns that share Philox evaluations (dropout.cuh): 16 threads take such a
// run together, each the columns c, c+16, .. c+112 of it.
constexpr int kRun = 128;
// Blocks beyond this many walk on instead.
constexpr int kMaxBlocks = 2048;

VG_CONST int vg_runs(int cols) { return (cols + kRun - 1) / kRun; }
// Elements of a run that a thread takes; rows shorter than a run need fewer.
VG_CONST int vg_run_steps(int cols) { return cols < kRun ? (cols + 15) / 16 : kRun / 16; }

// Blocks for rows x cols: 16 runs a block.
VG_CONST int64_t vg_pointwise_blocks(int64_t rows, int cols) {
  return vg_max64(1, vg_min64(vg_ceil_div(rows * vg_runs(cols), kBlockThreads / 16), kMaxBlocks));
}

// Runs f(at) over rows x COLS, rows of T tokens. Runs are counted in 32 bits.
template <int T, int COLS, class F>
VG_FN void vg_each_element(const vg_call& c, int64_t rows, const F& f) {
  constexpr uint32_t runs = (uint32_t)vg_runs(COLS), together = kBlockThreads / 16;
  const uint32_t units = (uint32_t)rows * runs, stride = (uint32_t)c.blocks * together;
  const int lane = vg_thread() & 15;
  for (uint32_t u = (uint32_t)c.block * together + (uint32_t)(vg_thread() / 16); u < units; u += stride) {
    const uint32_t row = u / runs;
    vg_at at{(int64_t)row, (int32_t)(row / T), (int32_t)(row % T), 0, 1};
    const int first = vg_column((int)(u % runs) * kRun + lane);
    VG_UNROLL for (int j = 0; j < vg_run_steps(COLS); j++) {
      at.col = first + 16 * j;
      if (COLS % kRun == 0 || at.col < COLS) f(at);
    }
  }
}

// Runs body(at) over rows x COLS, rows of T tokens.
template <int T, int COLS, class F>
VG_FN void vg_pointwise(const vg_call& c, int64_t rows, const F& body) {
  vg_each_element<T, COLS>(c, rows, [&](vg_at at) { body.template operator()<float>(at); });
}

// Transposition in tiles of 16 channels by up to 128 tokens, which pass through
// shared memory: a row of 17 floats for each token.
constexpr int kTransposeChannels = 16;
VG_CONST int vg_transpose_tokens(int T) { return 16 * vg_run_steps(T); }
VG_CONST int vg_transpose_shared(int T) {
  return (int)sizeof(float) * vg_transpose_tokens(T) * (kTransposeChannels + 1);
}
// Blocks for [batch,T,C]: a tile each.
VG_CONST int64_t vg_transpose_blocks(int64_t batch, int T, int C) {
  return vg_max64(1, vg_min64(batch * vg_ceil_div(C, kTransposeChannels) * vg_runs(T), kMaxBlocks));
}

// y[b,c,t] = x[b,t,c] for x [batch,T,C] in memory; y: sink over (row = b*C + c,
// sample = b, token = c, col = t). 16 threads read the channels of a token, and
// write the tokens of a channel.
template <int T, int C, class E, class Y>
VG_FN void vg_transpose(const vg_call& c, const E* x, const Y& y) {
  constexpr int steps = vg_run_steps(T), across = vg_runs(T), down = (C + kTransposeChannels - 1) / kTransposeChannels;
  float* tile = (float*)vg_shared();
  const int lane = vg_thread() & 15, half = vg_thread() / 16;
  const int64_t units = (int64_t)c.batch() * down * across;
  for (int64_t u = c.block; u < units; u += c.blocks) {
    const int64_t b = u / (down * across);
    const int channel = (int)(u / across % down) * kTransposeChannels, first = (int)(u % across) * kRun;
    VG_UNROLL for (int j = 0; j < steps; j++) {
      const int t = 16 * j + half;
      if (first + t < T && channel + lane < C)
        tile[t * (kTransposeChannels + 1) + lane] = vg_load<float>(x + (b * T + first + t) * C + channel + lane, 1);
    }
    vg_sync();
    VG_UNROLL for (int j = 0; j < steps; j++) {
      const int t = 16 * j + lane;
      if (first + t < T && channel + half < C)
        y(tile[t * (kTransposeChannels + 1) + half],
          vg_at{b * C + channel + half, (int32_t)b, channel + half, first + t, 1});
    }
    vg_sync();  // before the next tile
  }
}

#endif  // VITGEN_CUDA_POINTWISE_CUH

#ifndef VITGEN_CUDA_OPTIMIZER_CUH
#define VITGEN_CUDA_OPTIMIZER_CUH

// Optimizer updates over a flat range of the parameter arena, in one pass:
// each element is read and written once. The formulas are PyTorch's
// (torch.optim.SGD with dampening 0, torch.optim.AdamW); learning rate and bias
// corrections come from the step, and clip points to the factor that
// vg_clip_scale computed, or is NULL. half, if not NULL, is a bf16 copy of the
// parameters, refreshed in the same pass. average, if not NULL, is their moving
// average, which takes its share of the new ones in the same pass:
// average += ema_weight (p - average), with the step's ema_weight.

// Blocks for n elements: four a thread.
VG_CONST int64_t vg_flat_blocks(int64_t n) {
  return vg_max64(1, vg_min64(vg_ceil_div(n, 4 * kBlockThreads), kMaxBlocks));
}

// Four neighbours by one access, or one element.
VG_FN void vg_load_flat(float (&x)[4], const float* p) {
  const vg_float4 v = *(const vg_float4*)p;
  x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
}
VG_FN void vg_load_flat(float (&x)[1], const float* p) { x[0] = *p; }
VG_FN void vg_store_flat(float* p, const float (&x)[4]) { *(vg_float4*)p = {x[0], x[1], x[2], x[3]}; }
VG_FN void vg_store_flat(float* p, const float (&x)[1]) { *p = x[0]; }
VG_FN void vg_store_flat(vg_bf16* p, const float (&x)[4]) {
  *(vg_uint2*)p = {vg_pack_bf16(x[0], x[1]), vg_pack_bf16(x[2], x[3])};
}
VG_FN void vg_store_flat(vg_bf16* p, const float (&x)[1]) { vg_store(p, x[0], 1); }

// Whether every fourth element may be reached by one access to it and the next
// three. The parameter arena and what is laid out like it always may.
VG_FN bool vg_flat_aligned(const float* p) { return (uintptr_t)p % 16 == 0; }
VG_FN bool vg_flat_aligned(const vg_bf16* p) { return (uintptr_t)p % 8 == 0; }

// Runs f.operator()<4>(i) and <1>(i) over a flat array of n elements.
template <class F>
VG_FN void vg_flat(const vg_call& c, int64_t n, bool aligned, const F& f) {
  const int64_t me = (int64_t)c.block * kBlockThreads + vg_thread(), stride = (int64_t)c.blocks * kBlockThreads;
  const int64_t vectors = aligned ? n / 4 : 0;
  for (int64_t i = me; i < vectors; i += stride) f.template operator()<4>(4 * i);
  VG_NO_UNROLL for (int64_t i = 4 * vectors + me; i < n; i += stride) f.template operator()<1>(i);
}

template <int N>
VG_FN void vg_average(float* average, const float (&param)[N], float share) {
  float e[N];
  vg_load_flat(e, average);
  VG_UNROLL for (int k = 0; k < N; k++) e[k] = vg_fma(share, param[k] - e[k], e[k]);
  vg_store_flat(average, e);
}

template <bool NESTEROV>
struct vg_sgd_update {
  float* p;
  const float* g;
  float* m;
  vg_bf16* half;
  float* average;
  float lr, factor, momentum, weight_decay, share;

  template <int N>
  VG_FN void operator()(int64_t i) const {
    float param[N], d[N];
    vg_load_flat(param, p + i);
    vg_load_flat(d, g + i);
    VG_UNROLL for (int k = 0; k < N; k++) d[k] = vg_fma(weight_decay, param[k], factor * d[k]);
    if (m) {
      float buf[N];
      vg_load_flat(buf, m + i);
      VG_UNROLL for (int k = 0; k < N; k++) {
        buf[k] = vg_fma(momentum, buf[k], d[k]);
        d[k] = NESTEROV ? vg_fma(momentum, buf[k], d[k]) : buf[k];
      }
      vg_store_flat(m + i, buf);
    }
    VG_UNROLL for (int k = 0; k < N; k++) param[k] -= lr * d[k];
    vg_store_flat(p + i, param);
    if (half) vg_store_flat(half + i, param);
    if (average) vg_average(average + i, param, share);
  }
};

// d = clip g + weight_decay p;  m = momentum m + d;
// p -= lr (NESTEROV ? d + momentum m : m).
// m starts at zero, which gives PyTorch's m = d at the first update. m NULL: no
// momentum, p -= lr d.
template <bool NESTEROV>
VG_FN void vg_sgd(const vg_call& c, int64_t n, float* p, const float* g, float* m, float momentum, float weight_decay,
                  const float* clip, vg_bf16* half, float* average = nullptr) {
  const vg_step& step = c.step();
  const bool aligned = vg_flat_aligned(p) && vg_flat_aligned(g) && vg_flat_aligned(m) && vg_flat_aligned(half) &&
                       vg_flat_aligned(average);
  vg_flat(c, n, aligned,
          vg_sgd_update<NESTEROV>{p, g, m, half, average, step.lr, clip ? *clip : 1.0f, momentum, weight_decay,
                                  step.ema_weight});
}

struct vg_adamw_update {
  float* p;
  const float* g;
  float* m;
  float* v;
  vg_bf16* half;
  float* average;
  float factor, decay, rest1, keep2, rest2, corr2, size, eps, share;

  template <int N>
  VG_FN void operator()(int64_t i) const {
    float param[N], grad[N], m1[N], v1[N];
    vg_load_flat(param, p + i);
    vg_load_flat(grad, g + i);
    vg_load_flat(m1, m + i);
    vg_load_flat(v1, v + i);
    VG_UNROLL for (int k = 0; k < N; k++) {
      const float scaled = factor * grad[k];
      m1[k] = vg_fma(rest1, scaled - m1[k], m1[k]);
      v1[k] = vg_fma(rest2 * scaled, scaled, keep2 * v1[k]);
      const float update = m1[k] / (vg_sqrt(v1[k] * corr2) + eps);
      param[k] = decay * param[k] - size * update;
    }
    vg_store_flat(m + i, m1);
    vg_store_flat(v + i, v1);
    vg_store_flat(p + i, param);
    if (half) vg_store_flat(half + i, param);
    if (average) vg_average(average + i, param, share);
  }
};

// p *= 1 - lr weight_decay;  m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2;
// p -= lr bias_corr1 m / (sqrt(v bias_corr2) + eps), with the bias corrections
// of vg_step: 1 / (1 - beta^k).
// The betas are double because 1 - beta2 would lose its digits in float.
VG_FN void vg_adamw(const vg_call& c, int64_t n, float* p, const float* g, float* m, float* v, double beta1,
                    double beta2, float eps, float weight_decay, const float* clip, vg_bf16* half,
                    float* average = nullptr) {
  const vg_step& step = c.step();
  const bool aligned = vg_flat_aligned(p) && vg_flat_aligned(g) && vg_flat_aligned(m) && vg_flat_aligned(v) &&
                       vg_flat_aligned(half) && vg_flat_aligned(average);
  const float decay = (float)(1.0 - (double)step.lr * (double)weight_decay);
  vg_flat(c, n, aligned,
          vg_adamw_update{p, g, m, v, half, average, clip ? *clip : 1.0f, decay, (float)(1.0 - beta1), (float)beta2,
                          (float)(1.0 - beta2), step.bias_corr2, step.lr * step.bias_corr1, eps, step.ema_weight});
}

#endif  // VITGEN_CUDA_OPTIMIZER_CUH

#ifndef VITGEN_CUDA_DATA_CUH
#define VITGEN_CUDA_DATA_CUH

// What feeds a step: a batch picked from images that lie on the device, and the
// bf16 copy of the parameters.

// Pixels of one channel that a block converts at a time; its share of the table
// lies in shared memory.
constexpr int kGatherPixels = 4096;
constexpr int kGatherShared = 256 * (int)sizeof(float);

VG_CONST int64_t vg_gather_blocks(int64_t batch, int C, int H, int W) {
  return vg_max64(1, vg_min64(batch * C * vg_ceil_div((int64_t)H * W, kGatherPixels), kMaxBlocks));
}

// The images and labels of a batch out of a data set that lies on the device.
//   images      [N,C,H,W] bytes, labels [N], index [batch]: which samples
//   table       [C,256]: what a byte of a channel becomes. The host makes it as it
//               normalizes on the CPU, so that the floats are the same to the bit.
//   image_out   [BATCH,C,H,W]; images beyond the batch are left alone
//   label_out   [BATCH]; labels beyond the batch become -1
// The arrays start at multiples of 16 bytes.
template <int BATCH, int C, int H, int W>
VG_FN void vg_gather(const vg_call& c, const uint8_t* images, const int32_t* labels, const int32_t* index,
                     const float* table, float* image_out, int32_t* label_out) {
  constexpr int plane = H * W, pieces = (plane + kGatherPixels - 1) / kGatherPixels;
  float* lookup = (float*)vg_shared();
  for (int i = c.block * kBlockThreads + vg_thread(); i < BATCH; i += c.blocks * kBlockThreads)
    label_out[i] = i < c.batch() ? labels[index[i]] : -1;

  const int64_t units = (int64_t)c.batch() * C * pieces;
  for (int64_t u = c.block; u < units; u += c.blocks) {
    const int64_t b = u / (C * pieces);
    const int channel = (int)(u / pieces % C), first = (int)(u % pieces) * kGatherPixels;
    const int end = first + kGatherPixels < plane ? first + kGatherPixels : plane;
    vg_sync();  // nobody still looks up in the table of the last channel
    lookup[vg_thread()] = table[channel * 256 + vg_thread()];
    vg_sync();
    const uint8_t* from = images + ((int64_t)index[b] * C + channel) * plane;
    float* to = image_out + (b * C + channel) * plane;
    if (plane % 4 == 0) {
      VG_UNROLL for (int k = 0; k < kGatherPixels / 4 / kBlockThreads; k++) {
        const int i = first + 4 * (k * kBlockThreads + vg_thread());
        if (i < end) {
          const uint32_t four = *(const uint32_t*)(from + i);
          *(vg_float4*)(to + i) = {lookup[four & 255], lookup[four >> 8 & 255], lookup[four >> 16 & 255],
                                   lookup[four >> 24]};
        }
      }
    } else {
      for (int i = first + vg_thread(); i < end; i += kBlockThreads) to[i] = lookup[from[i]];
    }
  }
}

struct vg_halve_copy {
  const float* p;
  vg_bf16* half;
  template <int N>
  VG_FN void operator()(int64_t i) const {
    float x[N];
    vg_load_flat(x, p + i);
    vg_store_flat(half + i, x);
  }
};

// half = p rounded to bf16, n elements.
VG_FN void vg_halve(const vg_call& c, int64_t n, const float* p, vg_bf16* half) {
  vg_flat(c, n, vg_flat_aligned(p) && vg_flat_aligned(half), vg_halve_copy{p, half});
}

#endif  // VITGEN_CUDA_DATA_CUH

#ifndef VITGEN_CUDA_GEMM_TILE_CUH
#define VITGEN_CUDA_GEMM_TILE_CUH

// How one matrix product is cut: what a block computes, what lies in shared
// memory and where.

// The operands of C[m,n]:
//   nt: A[m,k] and B[n,k]    nn: A[m,k] and B[k,n]    tn: A[k,m] and B[k,n]
// Rows counted by the batch are m for nt and nn and k for tn; every other extent
// is a constant of the kernel.
enum vg_kind { vg_nt, vg_nn, vg_tn };

// A block computes BM x BN elements of C, WARPS_M x WARPS_N warps side by side,
// from BK of k at a time; STAGES such slices are in shared memory at once. With
// SPLITS > 1 that many blocks share the k of one tile, each a run of slices, and
// add up what they found in a fixed order.
//
// Launch geometry, mirrored by the planner; m and n are those of the full batch:
//   threads          32 WARPS_M WARPS_N
//   shared_bytes     the larger of STAGES (BM + BN) BK element_bytes and 4 BM (BN + 8)
//   blocks           ceil(m / BM) ceil(n / BN) SPLITS
//   workspace_bytes  0 without splits, else 4 BM (BN + 1) blocks
//   counters         0 without splits, else blocks
template <vg_kind KIND, vg_math MATH, int BM, int BN, int BK, int STAGES, int WARPS_M, int WARPS_N, int SPLITS>
struct vg_gemm_tile {
  static constexpr vg_kind kind = KIND;
  static constexpr vg_math math = MATH;
  static constexpr int bm = BM, bn = BN, bk = BK, stages = STAGES, splits = SPLITS;
  static constexpr int warps_m = WARPS_M, warps_n = WARPS_N;
  using element = typename vg_operand<MATH>::type;

  static constexpr int threads = 32 * WARPS_M * WARPS_N;
  static constexpr int element_bytes = MATH == vg_math::bf16 ? 2 : 4;
  static constexpr int stage_bytes = (BM + BN) * BK * element_bytes;
  // The tile of C in shared memory, after the last slice; 8 columns of padding.
  static constexpr int c_ld = BN + 8, c_bytes = 4 * BM * c_ld;
  static constexpr int shared_bytes = STAGES * stage_bytes > c_bytes ? STAGES * stage_bytes : c_bytes;
  // One block's partial result: the tile, and BM sums of A's columns.
  static constexpr int partial_floats = BM * (BN + 1);

  static VG_CONST int blocks(int m, int n) { return vg_ceil_div32(m, BM) * vg_ceil_div32(n, BN) * SPLITS; }
  static VG_CONST int64_t workspace_bytes(int m, int n) {
    return SPLITS > 1 ? (int64_t)blocks(m, n) * partial_floats * 4 : 0;
  }
  static VG_CONST int counters(int m, int n) { return SPLITS > 1 ? blocks(m, n) : 0; }

  // What a warp computes.
  static constexpr int wm = BM / WARPS_M, wn = BN / WARPS_N;

  static_assert(BM % (16 * WARPS_M) == 0 && BN % (16 * WARPS_N) == 0, "a warp computes multiples of 16 x 16");
  static_assert((BM & (BM - 1)) == 0 && (BN & (BN - 1)) == 0 && BM >= 32 && BN >= 32, "tiles are powers of two from 32");
  static_assert(threads % 64 == 0, "see vg_gemm_epilogue");
  static_assert((BK & (BK - 1)) == 0 && BK >= (MATH == vg_math::bf16 ? 32 : 16), "a slice holds two steps at least");
  static_assert(STAGES >= 2, "one slice is loaded while another is read");
  static_assert(SPLITS >= 1 && SPLITS <= 256, "see vg_gemm_meet");
  static_assert(threads >= BM && threads >= BN, "every row and column has a thread of its own");
};

// Where the operand with MN rows (or columns) of C lies in a stage. The tile is
// stored as in memory, `rows` by `cols`: K_MAJOR [MN, BK], else [BK, MN], in
// chunks of 16 bytes. Chunks are permuted within their row, so that the eight
// rows of an ldmatrix, and the 32 elements of a tf32 fragment read from [BK, MN],
// lie in different banks.
template <class Tile, bool K_MAJOR, int MN>
struct vg_gemm_layout {
  using element = typename Tile::element;
  static constexpr bool k_major = K_MAJOR;
  static constexpr int bk = Tile::bk, rows = K_MAJOR ? MN : bk, cols = K_MAJOR ? bk : MN;
  static constexpr int chunk = 16 / Tile::element_bytes;  // elements
  static constexpr int row_chunks = cols / chunk;
  static constexpr int bytes = rows * cols * Tile::element_bytes;
  static constexpr int threads = Tile::threads;

  // The byte at which a chunk lies.
  static VG_FN int at(int row, int index) { return (row * row_chunks + (index ^ mix(row))) * 16; }

 private:
  static VG_FN int mix(int row) {
    // Four rows by eight floats are read at once: neighbours two chunks apart.
    if (!K_MAJOR && Tile::element_bytes == 4) return row << 1 & 6;
    // Eight rows by one chunk; 128 bytes hold several rows if those are short.
    constexpr int mixed = row_chunks < 8 ? row_chunks : 8;
    return row / (8 / mixed) & (mixed - 1);
  }
};

template <class Tile>
using vg_gemm_layout_a = vg_gemm_layout<Tile, Tile::kind != vg_tn, Tile::bm>;
template <class Tile>
using vg_gemm_layout_b = vg_gemm_layout<Tile, Tile::kind == vg_nt, Tile::bn>;

// What a block does: its tile of C, its part of k.
struct vg_gemm_place {
  int tile, row, col;       // row and column of C where the tile starts
  int split, splits;        // of as many as have something to do
  int first_slice, slices;  // of BK each
};

// Tiles are taken eight rows of tiles at a time, column by column: blocks that
// run together share most of their operands in L2. Splits stand farthest apart,
// since they share nothing.
template <class Tile>
VG_FN vg_gemm_place vg_gemm_find_place(const vg_call& c, int n, int k) {
  constexpr int group = 8;
  const int tiles = c.blocks / Tile::splits, tiles_n = vg_ceil_div32(n, Tile::bn), tiles_m = tiles / tiles_n;
  vg_gemm_place p;
  p.split = Tile::splits > 1 ? c.block / tiles : 0;
  p.tile = c.block - p.split * tiles;
  const int first = p.tile / (group * tiles_n) * group, within = p.tile % (group * tiles_n);
  const int high = tiles_m - first < group ? tiles_m - first : group;
  p.row = (first + within % high) * Tile::bm;
  p.col = within / high * Tile::bn;

  const int all = vg_ceil_div32(k, Tile::bk), each = vg_ceil_div32(all, Tile::splits);
  p.splits = vg_ceil_div32(all, each);
  p.first_slice = p.split * each;
  p.slices = all - p.first_slice < each ? all - p.first_slice : each;
  return p;
}

// vg_at_row for a row that fits 32 bits, where dividing costs less.
template <int T>
VG_FN vg_at vg_gemm_row(int row) {
  const int sample = (int)((uint32_t)row / (uint32_t)T);
  return {row, sample, row - sample * T, 0, 1};
}

#endif  // VITGEN_CUDA_GEMM_TILE_CUH

#ifndef VITGEN_CUDA_GEMM_EPILOGUE_CUH
#define VITGEN_CUDA_GEMM_EPILOGUE_CUH

// After the last slice: the sums of A's columns, the partial results of other
// blocks, and the epilogue.

// Adds up the partial tiles of the blocks that share one, `acc` and `sum` being
// this block's. False: another block goes on with the tile. Blocks meet four at
// a time: the last to come adds the four in their order, whichever is its own,
// and goes on to meet three other such sums. So the result does not depend on
// who comes when, and with many splits no block has to read them all.
template <class Tile, bool SUM, int ROWS, int COLS>
VG_FN bool vg_gemm_meet(const vg_call& c, const vg_gemm_place& at, float (&acc)[ROWS][COLS], float& sum) {
  constexpr int fan = 4, vectors = ROWS * COLS / 4;
  const bool has_sum = SUM && vg_thread() < Tile::bm;
  float* partials = (float*)c.workspace + (int64_t)at.tile * Tile::splits * Tile::partial_floats;
  // Places of the tree that first adds the blocks from split `first` on, `width`
  // apart; counter first + height is no other place's, up to 256 splits.
  int height = 0;
  VG_NO_UNROLL for (int width = 1; width < at.splits; width *= fan, height++) {
    const int first = at.split / (width * fan) * (width * fan);
    const int there = vg_ceil_div32(at.splits - first, width), members = there < fan ? there : fan;
    if (members == 1) continue;
    // A thread reads back what threads of its own index wrote, so elements lie as
    // they do in registers.
    float* own = partials + (int64_t)(at.split / width * width) * Tile::partial_floats;
    VG_UNROLL for (int v = 0; v < vectors; v++) {
      const float* x = acc[v * 4 / COLS] + v * 4 % COLS;
      ((vg_float4*)own)[v * Tile::threads + vg_thread()] = {x[0], x[1], x[2], x[3]};
    }
    if (has_sum) own[Tile::bm * Tile::bn + vg_thread()] = sum;
    if (!vg_arrive_last(c.counters + at.tile * Tile::splits + first + height, (uint32_t)members, (uint32_t*)vg_shared()))
      return false;
    const float* parts = partials + (int64_t)first * Tile::partial_floats;
    const int64_t apart = (int64_t)width * Tile::partial_floats;
    // Eight vectors at a time, which are on their way together.
    VG_UNROLL for (int from = 0; from < vectors; from += 8)
      VG_NO_UNROLL for (int i = 0; i < members; i++)
        VG_UNROLL for (int v = from; v < from + 8 && v < vectors; v++) {
          float* x = acc[v * 4 / COLS] + v * 4 % COLS;
          const vg_float4 y = ((const vg_float4*)(parts + i * apart))[v * Tile::threads + vg_thread()];
          x[0] = i > 0 ? x[0] + y.x : y.x, x[1] = i > 0 ? x[1] + y.y : y.y;
          x[2] = i > 0 ? x[2] + y.z : y.z, x[3] = i > 0 ? x[3] + y.w : y.w;
        }
    if (has_sum) {
      sum = 0;
      for (int i = 0; i < members; i++) sum += parts[i * apart + Tile::bm * Tile::bn + vg_thread()];
    }
  }
  return true;
}

// The sum of column vg_thread() of A, for the first BM threads, from what all
// threads summed.
template <class Tile, class LoadA>
VG_FN float vg_gemm_column_sum(const LoadA& a) {
  float* groups = (float*)vg_shared();
  a.put_sums(groups);
  vg_sync();
  float sum = 0;
  if (vg_thread() < Tile::bm)
    for (int g = 0; g < LoadA::sum_groups; g++) sum += groups[g * Tile::bm + vg_thread()];
  vg_sync();
  return sum;
}

// Calls y for the elements of one row that this thread has: 16 lanes share the
// row, each takes every sixteenth column. The sink is copied for every row, so
// that the compiler sees when a dropout has to draw and keeps its members in
// registers.
template <class Tile, class Y>
VG_FN void vg_gemm_epilogue_row(const Y& y, const float* x, vg_at at, int col, int n) {
  const int lane = vg_thread() % 16;
  const Y sink = y;
  VG_UNROLL for (int j = 0; j < Tile::bn; j += 16) {
    at.col = col + lane + j;
    if (n % Tile::bn == 0 || at.col < n) sink(x[lane + j], at);
  }
}

// Lets the epilogue run over the block's tile of C. All of it goes through shared
// memory, so that the registers it was in are free for the epilogue.
template <class Tile, int T, class Products, class Y>
VG_FN void vg_gemm_epilogue(const Products& products, const vg_gemm_place& place, int m, int n, const Y& y) {
  float* tile = (float*)vg_shared();
  products.put(tile);
  vg_sync();
  // Half-warps of a warp read two rows apart, from different banks.
  const int half = vg_thread() / 16, first = (half & ~3) | (half & 1) << 1 | (half >> 1 & 1);
  VG_NO_UNROLL for (int i = first; i < Tile::bm && place.row + i < m; i += Tile::threads / 16)
    vg_gemm_epilogue_row<Tile>(y, tile + i * Tile::c_ld, vg_gemm_row<T>(place.row + i), place.col, n);
}

#endif  // VITGEN_CUDA_GEMM_EPILOGUE_CUH

#ifndef VITGEN_CUDA_GEMM_FP32_CUH
#define VITGEN_CUDA_GEMM_FP32_CUH

// Products in fp32: every product and sum is a fused multiply-add of floats, in
// order of k. A warp is 8 x 4 lanes; a lane has wm/8 x wn/4 elements of C.

// Which rows (columns) of a warp's tile a lane has, of `across` lanes in that
// direction, and how it reads them. Where k is contiguous a lane reads four
// steps of k of one row at a time, and neighbouring lanes have neighbouring
// rows; else it reads `wide` neighbouring rows of one k at a time.
template <class L, int COUNT, int ACROSS>
struct vg_gemm_lane_rows {
  static constexpr int wide = L::k_major ? 1 : COUNT < 4 ? COUNT : 4;
  static VG_FN int row(int i, int lane) { return (i / wide * ACROSS + lane) * wide + i % wide; }
  // Rows i .. i+wide-1, steps k .. k+3 to x[step][i].
  template <int N>
  static VG_FN void load(float (&x)[4][N], int at, const char* tile, int first, int i, int lane, int k) {
    const int r = first + row(i, lane);
    if constexpr (L::k_major) {
      const vg_float4 v = *(const vg_float4*)(tile + L::at(r, k / 4));
      x[0][at] = v.x, x[1][at] = v.y, x[2][at] = v.z, x[3][at] = v.w;
    } else {
      VG_UNROLL for (int s = 0; s < 4; s++) {
        const char* p = tile + L::at(k + s, r / 4) + r % 4 * 4;
        if constexpr (wide == 4) {
          const vg_float4 v = *(const vg_float4*)p;
          x[s][at] = v.x, x[s][at + 1] = v.y, x[s][at + 2] = v.z, x[s][at + 3] = v.w;
        } else {
          const vg_float2 v = *(const vg_float2*)p;
          x[s][at] = v.x, x[s][at + 1] = v.y;
        }
      }
    }
  }
};

template <class Tile>
struct vg_gemm_fp32 {
  using LA = vg_gemm_layout_a<Tile>;
  using LB = vg_gemm_layout_b<Tile>;
  static constexpr int rows = Tile::wm / 8, cols = Tile::wn / 4;
  using RA = vg_gemm_lane_rows<LA, rows, 8>;
  using RB = vg_gemm_lane_rows<LB, cols, 4>;

  float acc[rows][cols];

  VG_FN vg_gemm_fp32() {
    VG_UNROLL for (int i = 0; i < rows; i++)
      VG_UNROLL for (int j = 0; j < cols; j++) acc[i][j] = 0;
  }

  template <class Pipeline>
  VG_FN void run(Pipeline& p) {
    VG_NO_UNROLL for (; p.more(); ) {
      p.begin();
      VG_UNROLL for (int k = 0; k < Tile::bk; k += 4) multiply(p.stage(), k);
      p.next();
    }
  }

  // Writes this thread's part of C to c[BM][c_ld].
  VG_FN void put(float* c) const {
    c += warp_m() * Tile::wm * Tile::c_ld + warp_n() * Tile::wn;
    VG_UNROLL for (int i = 0; i < rows; i++)
      VG_UNROLL for (int j = 0; j < cols; j++) c[RA::row(i, lane_m()) * Tile::c_ld + RB::row(j, lane_n())] = acc[i][j];
  }

 private:
  static VG_FN int warp_m() { return vg_warp() / Tile::warps_n; }
  static VG_FN int warp_n() { return vg_warp() % Tile::warps_n; }
  static VG_FN int lane_m() { return vg_lane() / 4; }
  static VG_FN int lane_n() { return vg_lane() % 4; }

  VG_FN void multiply(const char* stage, int k) {
    float b[4][cols];
    VG_UNROLL for (int j = 0; j < cols; j += RB::wide)
      RB::load(b, j, stage + LA::bytes, warp_n() * Tile::wn, j, lane_n(), k);
    VG_UNROLL for (int i = 0; i < rows; i += RA::wide) {
      float a[4][RA::wide];
      RA::load(a, 0, stage, warp_m() * Tile::wm, i, lane_m(), k);
      VG_UNROLL for (int s = 0; s < 4; s++)
        VG_UNROLL for (int q = 0; q < RA::wide; q++)
          VG_UNROLL for (int j = 0; j < cols; j++) acc[i + q][j] = vg_fma(a[s][q], b[s][j], acc[i + q][j]);
    }
  }
};

#endif  // VITGEN_CUDA_GEMM_FP32_CUH

#ifndef VITGEN_CUDA_GEMM_LOAD_CUH
#define VITGEN_CUDA_GEMM_LOAD_CUH

// From global to shared memory: the slices of one operand, in one of three ways.
//
//   vg_by_copy     a matrix of what the product multiplies in: cp.async, several
//                  slices ahead
//   vg_by_convert  a matrix of another type: through registers, one slice ahead
//   vg_by_value    any source: element by element through registers
//
// All have the same members:
//   begin(stage)   starts to load the next slice (stage: where it will lie; used
//                  by vg_by_copy alone)
//   end(stage)     stores to shared memory what begin left in registers
//   sum(stage)     adds to the sums of the columns a slice that has arrived
//   put_sums(to)   writes this thread's sums to to[group][column]
// Rows and columns beyond the matrix become zeros and are not read.

enum vg_gemm_way { vg_by_copy, vg_by_convert, vg_by_value };

template <class S, class Source>
struct vg_gemm_way_of {
  static constexpr vg_gemm_way value = vg_by_value;
};
template <class S, class E>
struct vg_gemm_way_of<S, vg_matrix<E>> {
  static constexpr vg_gemm_way value = vg_by_convert;
};
template <class S>
struct vg_gemm_way_of<S, vg_matrix<S>> {
  static constexpr vg_gemm_way value = vg_by_copy;
};

// Where the next slice stands in an operand of `rows` by `cols`.
template <class L>
struct vg_gemm_window {
  int row, col, rows, cols;
  VG_FN void next() {
    if (L::k_major)
      col += L::bk;
    else
      row += L::bk;
  }
};

// Which chunks of a slice a thread has: one column of them, row_step rows apart.
template <class L>
struct vg_gemm_chunks {
  static constexpr int all = L::rows * L::row_chunks, each = (all + L::threads - 1) / L::threads;
  static constexpr int row_step = L::threads / L::row_chunks;
  static_assert(L::threads % L::row_chunks == 0, "a thread keeps to one column of chunks");
  static VG_FN int row(int i) { return vg_thread() / L::row_chunks + i * row_step; }
  static VG_FN int index() { return vg_thread() % L::row_chunks; }
  static VG_FN bool has(int i) { return all % L::threads == 0 || row(i) < L::rows; }
};

// A chunk as four words, element by element.
template <class S>
struct vg_gemm_chunk;
template <>
struct vg_gemm_chunk<float> {
  static VG_FN float value(const vg_uint4& c, int i) {
    return vg_from_bits(i == 0 ? c.x : i == 1 ? c.y : i == 2 ? c.z : c.w);
  }
  template <class Get>
  static VG_FN vg_uint4 make(const Get& x) {
    return {vg_bits(x[0]), vg_bits(x[1]), vg_bits(x[2]), vg_bits(x[3])};
  }
};
template <>
struct vg_gemm_chunk<vg_bf16> {
  static VG_FN float value(const vg_uint4& c, int i) {
    const uint32_t pair = i < 2 ? c.x : i < 4 ? c.y : i < 6 ? c.z : c.w;
    return vg_from_bits(i % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
  }
  template <class Get>
  static VG_FN vg_uint4 make(const Get& x) {
    return {vg_pack_bf16(x[0], x[1]), vg_pack_bf16(x[2], x[3]), vg_pack_bf16(x[4], x[5]), vg_pack_bf16(x[6], x[7])};
  }
};

// The sums of a thread's chunk column: the columns of A over k, in tn.
template <class L, bool SUM>
struct vg_gemm_chunk_sums {
  static constexpr int sum_groups = vg_gemm_chunks<L>::row_step;
  float sums[SUM ? L::chunk : 1] = {};
  VG_FN void put_sums(float* to) const {
    using C = vg_gemm_chunks<L>;
    VG_UNROLL for (int e = 0; e < L::chunk; e++) to[C::row(0) * L::cols + C::index() * L::chunk + e] = sums[e];
  }
};

template <vg_gemm_way WAY, class L, int T, class Source, bool SUM>
struct vg_gemm_loader;

template <class L, int T, class Source, bool SUM>
struct vg_gemm_loader<vg_by_copy, L, T, Source, SUM> : vg_gemm_chunk_sums<L, SUM> {
  using S = typename L::element;
  using C = vg_gemm_chunks<L>;
  static constexpr bool copies = true;
  const vg_matrix<S>& m;
  vg_gemm_window<L> at;  // of this thread's first chunk
  const S* from;         // that chunk in the next slice
  bool whole, even;      // can be copied 16 (4) bytes at a time

  VG_FN vg_gemm_loader(const vg_matrix<S>& s, vg_gemm_window<L> first) : m(s), at(first) {
    whole = s.ld % L::chunk == 0 && at.cols % L::chunk == 0 && (uintptr_t)s.p % 16 == 0;
    even = sizeof(S) == 4 || (s.ld % 2 == 0 && at.cols % 2 == 0 && (uintptr_t)s.p % 4 == 0);
    at.row += C::row(0), at.col += C::index() * L::chunk;
    from = s.p + at.row * s.ld + at.col;
  }
  VG_FN void begin(char* stage) {
    if (whole) {
      VG_UNROLL for (int i = 0; i < C::each; i++)
        if (C::has(i)) vg_cp_async16(stage + L::at(C::row(i), C::index()), from + i * C::row_step * m.ld, row_in(i) && at.col < at.cols);
    } else {
      VG_NO_UNROLL for (int i = 0; i < C::each; i++)
        if (C::has(i)) piecewise((S*)(stage + L::at(C::row(i), C::index())), i);
    }
    at.next();
    from += L::k_major ? L::bk : L::bk * m.ld;
  }
  VG_FN void end(char*) {}
  VG_FN void sum(const char* stage) {
    VG_UNROLL for (int i = 0; i < C::each; i++) {
      if (!C::has(i)) continue;
      const vg_uint4 x = *(const vg_uint4*)(stage + L::at(C::row(i), C::index()));
      VG_UNROLL for (int e = 0; e < L::chunk; e++) this->sums[e] += vg_gemm_chunk<S>::value(x, e);
    }
  }

 private:
  VG_FN bool row_in(int i) const { return at.row + i * C::row_step < at.rows; }
  VG_FN void piecewise(S* to, int i) const {
    const S* row = m.p + (at.row + i * C::row_step) * m.ld;
    const int end = row_in(i) ? at.cols : 0;
    constexpr int step = 4 / sizeof(S);
    if (even) {
      VG_NO_UNROLL for (int e = 0; e < L::chunk; e += step) vg_cp_async4(to + e, row + at.col + e, at.col + e < end);
    } else {
      VG_NO_UNROLL for (int e = 0; e < L::chunk; e++) to[e] = at.col + e < end ? row[at.col + e] : S{};
    }
  }
};

// A chunk's elements as they come from memory; converted when stored, so that
// nothing waits for them before.
template <class E, int N>
struct vg_gemm_raw;
template <int N>
struct vg_gemm_raw<float, N> {
  float x[N];
  VG_FN float operator[](int i) const { return x[i]; }
  VG_FN void clear() {
    VG_UNROLL for (int i = 0; i < N; i++) x[i] = 0;
  }
  VG_FN void set(int i, const float* p) { x[i] = *p; }
  VG_FN void load(const float* p) {
    VG_UNROLL for (int i = 0; i < N; i += 4) {
      const vg_float4 v = *(const vg_float4*)(p + i);
      x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
    }
  }
};
struct alignas(8) vg_gemm_bf16x4 {
  uint32_t lo, hi;
};
template <>
struct vg_gemm_raw<vg_bf16, 4> {
  uint32_t x[2];
  VG_FN float operator[](int i) const { return vg_from_bits(i % 2 == 0 ? x[i / 2] << 16 : x[i / 2] & 0xffff0000u); }
  VG_FN void clear() { x[0] = x[1] = 0; }
  VG_FN void set(int i, const vg_bf16* p) { x[i / 2] |= (uint32_t)p->bits << 16 * (i % 2); }
  VG_FN void load(const vg_bf16* p) {
    const vg_gemm_bf16x4 v = *(const vg_gemm_bf16x4*)p;
    x[0] = v.lo, x[1] = v.hi;
  }
};

template <class L, int T, class E, bool SUM>
struct vg_gemm_loader<vg_by_convert, L, T, vg_matrix<E>, SUM> : vg_gemm_chunk_sums<L, SUM> {
  using S = typename L::element;
  using C = vg_gemm_chunks<L>;
  static constexpr bool copies = false;
  const E* from;
  int64_t ld;
  vg_gemm_window<L> at;
  bool whole;
  vg_gemm_raw<E, L::chunk> raw[C::each];

  VG_FN vg_gemm_loader(const vg_matrix<E>& s, vg_gemm_window<L> first) : ld(s.ld), at(first) {
    constexpr int align = L::chunk * sizeof(E) < 16 ? L::chunk * sizeof(E) : 16;
    whole = s.ld % L::chunk == 0 && at.cols % L::chunk == 0 && (uintptr_t)s.p % align == 0;
    at.row += C::row(0), at.col += C::index() * L::chunk;
    from = s.p + at.row * ld + at.col;
  }
  VG_FN void begin(char*) {
    VG_UNROLL for (int i = 0; i < C::each; i++) {
      raw[i].clear();
      const E* p = from + i * C::row_step * ld;
      if (!C::has(i) || at.row + i * C::row_step >= at.rows) continue;
      if (whole) {
        if (at.col < at.cols) raw[i].load(p);
      } else {
        VG_UNROLL for (int e = 0; e < L::chunk; e++)
          if (at.col + e < at.cols) raw[i].set(e, p + e);
      }
    }
    at.next();
    from += L::k_major ? L::bk : L::bk * ld;
  }
  // The sums are of the values in memory, not of what they are rounded to.
  VG_FN void end(char* stage) {
    VG_UNROLL for (int i = 0; i < C::each; i++) {
      if (C::has(i)) *(vg_uint4*)(stage + L::at(C::row(i), C::index())) = vg_gemm_chunk<S>::make(raw[i]);
      if (SUM) {
        VG_UNROLL for (int e = 0; e < L::chunk; e++) this->sums[e] += raw[i][e];
      }
    }
  }
  VG_FN void sum(const char*) {}
};

// A source's values on their way to shared memory, rounded to what lies there.
template <class S, int N>
struct vg_gemm_values;
template <int N>
struct vg_gemm_values<float, N> {
  float x[N];
  VG_FN void set(const float (&v)[N]) {
    VG_UNROLL for (int i = 0; i < N; i++) x[i] = v[i];
  }
  VG_FN float operator[](int i) const { return x[i]; }
};
template <int N>
struct vg_gemm_values<vg_bf16, N> {
  uint32_t x[N / 2];
  VG_FN void set(const float (&v)[N]) {
    VG_UNROLL for (int i = 0; i < N; i += 2) x[i / 2] = vg_pack_bf16(v[i], v[i + 1]);
  }
  VG_FN vg_bf16 operator[](int i) const { return {(uint16_t)(x[i / 2] >> 16 * (i % 2))}; }
};

// Sixteen lanes have a row, each every sixteenth column (see dropout.cuh).
template <class L, int T, class Source, bool SUM>
struct vg_gemm_loader<vg_by_value, L, T, Source, SUM> {
  using S = typename L::element;
  static constexpr bool copies = false;
  static constexpr int row_step = L::threads / 16, each_row = (L::rows + row_step - 1) / row_step, each = L::cols / 16;
  static constexpr int sum_groups = row_step;
  const Source& source;
  vg_gemm_window<L> at;
  vg_gemm_values<S, each> x[each_row];
  float sums[SUM ? each : 1] = {};

  VG_FN vg_gemm_loader(const Source& s, vg_gemm_window<L> first) : source(s), at(first) {}
  VG_FN void begin(char*) {
    VG_UNROLL for (int i = 0; i < each_row; i++) {
      // Beyond the edge the last row is read again and its values are dropped:
      // no branch keeps the loads of several elements apart. The copy of the
      // source is new for every row, so that the compiler sees when a dropout
      // has to draw.
      const int row = at.row + row_of(i);
      const bool row_in = row < at.rows;
      const vg_at here = vg_gemm_row<T>(row_in ? row : at.rows - 1);
      const Source s = source;
      float v[each];
      VG_UNROLL for (int j = 0; j < each; j++) {
        v[j] = value(s, here, col_of(j), row_in);
        if (SUM && has(i)) sums[j] += v[j];
      }
      x[i].set(v);
    }
    at.next();
  }
  VG_FN void end(char* stage) {
    VG_UNROLL for (int i = 0; i < each_row; i++)
      VG_UNROLL for (int j = 0; j < each; j++)
        if (has(i)) ((S*)(stage + L::at(row_of(i), col_of(j) / L::chunk)))[col_of(j) % L::chunk] = x[i][j];
  }
  VG_FN void sum(const char*) {}
  VG_FN void put_sums(float* to) const {
    VG_UNROLL for (int j = 0; j < each; j++) to[row_of(0) * L::cols + col_of(j)] = sums[j];
  }

 private:
  static VG_FN int row_of(int i) { return vg_thread() / 16 + i * row_step; }
  static VG_FN int col_of(int j) { return vg_thread() % 16 + 16 * j; }
  static VG_FN bool has(int i) { return L::rows % row_step == 0 || row_of(i) < L::rows; }
  VG_FN float value(const Source& s, vg_at here, int col, bool row_in) const {
    col += at.col;
    const bool col_in = at.cols % L::cols == 0 || col < at.cols;
    here.col = col_in ? col : at.cols - 1;
    const float v = vg_value(s, here);
    return row_in && col_in ? v : 0.0f;
  }
};

template <class L, int T, class Source, bool SUM>
using vg_gemm_load = vg_gemm_loader<vg_gemm_way_of<typename L::element, Source>::value, L, T, Source, SUM>;

#endif  // VITGEN_CUDA_GEMM_LOAD_CUH

#ifndef VITGEN_CUDA_GEMM_MMA_CUH
#define VITGEN_CUDA_GEMM_MMA_CUH

// Products on tensor cores: bf16 (m16n8k16) and tf32 (m16n8k8), both with float
// accumulators. A step of either covers two 16-byte chunks of k, so that one
// ldmatrix pattern serves both where k is contiguous.

// Fragments of one operand for 16 rows of C (A), or for 16 columns, twice an mma's
// width (B): four 8x8 matrices, of which register i holds the half `mn` of the rows
// or columns and the half `k` of the step. The layout's permutation is an exclusive
// or, and what changes from group to group and from step to step stands in other
// bits than what is the lane's: so one offset a lane serves them all.
template <class L, vg_math MATH, bool IS_A>
struct vg_gemm_fragments {
  static constexpr int row_bytes = L::row_chunks * 16;
  static constexpr bool transposed = !L::k_major && MATH == vg_math::bf16, single = !L::k_major && !transposed;
  int lane_at;

  // first: of the warp's rows or columns.
  VG_FN explicit vg_gemm_fragments(int first) {
    const int i = vg_lane() / 8, lane = vg_lane() % 8;  // lanes 8i .. 8i+7 give the rows of matrix i
    if (L::k_major)
      lane_at = L::at(first + mn(i) * 8 + lane, k(i));
    else if (transposed)
      lane_at = L::at(k(i) * 8 + lane, first / 8 + mn(i));
    else  // ldmatrix cannot transpose 32-bit elements
      lane_at = L::at(vg_lane() % 4, first / 4 + i / 2) + vg_lane() / 4 % 4 * 4;
  }
  VG_FN void load(uint32_t r[4], const char* tile, int group, int step) const {
    if (L::k_major) vg_ldmatrix4(r, tile + (lane_at ^ step * 32) + group * 16 * row_bytes);
    if (transposed) vg_ldmatrix4_t(r, tile + (lane_at ^ group * 32) + step * 16 * row_bytes);
    if (single) {
      VG_UNROLL for (int q = 0; q < 4; q++)
        r[q] = *(const uint32_t*)(tile + (lane_at ^ (group * 64 + mn(q) * 32)) + (step * 8 + k(q) * 4) * row_bytes);
    }
    if (MATH == vg_math::tf32) {
      VG_UNROLL for (int q = 0; q < 4; q++) r[q] = vg_tf32(vg_from_bits(r[q]));
    }
  }

 private:
  static VG_FN int mn(int i) { return IS_A ? i % 2 : i / 2; }
  static VG_FN int k(int i) { return IS_A ? i / 2 : i % 2; }
};

template <class Tile>
struct vg_gemm_mma {
  using LA = vg_gemm_layout_a<Tile>;
  using LB = vg_gemm_layout_b<Tile>;
  static constexpr int tiles_m = Tile::wm / 16, tiles_n = Tile::wn / 8;
  static constexpr int steps = Tile::bk / (Tile::math == vg_math::bf16 ? 16 : 8);
  // Fragments are loaded one step ahead, across the border of two slices, where
  // that leaves registers for two blocks on a multiprocessor. Two blocks hide each
  // other's loads as well.
  static constexpr bool ahead =
      tiles_m * tiles_n * 4 + 2 * (tiles_m * 4 + tiles_n * 2) <= 65536 / (2 * Tile::threads) - 72;
  static constexpr int sets = ahead ? 2 : 1;
  static_assert(steps % 2 == 0, "steps alternate between two sets of fragments");

  float acc[tiles_m][tiles_n * 4];
  const vg_gemm_fragments<LA, Tile::math, true> a;
  const vg_gemm_fragments<LB, Tile::math, false> b;
  uint32_t fa[sets][tiles_m][4], fb[sets][tiles_n * 2];

  VG_FN vg_gemm_mma() : a(warp_m() * Tile::wm), b(warp_n() * Tile::wn) {
    VG_UNROLL for (int i = 0; i < tiles_m; i++)
      VG_UNROLL for (int j = 0; j < tiles_n * 4; j++) acc[i][j] = 0;
  }
  template <class Pipeline>
  VG_FN void run(Pipeline& p) {
    if (ahead) load(0, p.stage(), 0);
    VG_NO_UNROLL for (; p.more();) {
      p.begin();
      VG_UNROLL for (int s = 0; s < steps; s++) {
        if (!ahead) load(0, p.stage(), s);
        if (s + 1 == steps) p.next();  // the last fragments of this slice are in registers
        if (ahead && (s + 1 < steps || p.more())) load((s + 1) % sets, p.stage(), (s + 1) % steps);
        multiply(s % sets);
      }
    }
  }

  // Writes this thread's part of C to c[BM][c_ld].
  VG_FN void put(float* c) const {
    const int g = vg_lane() / 4, t = vg_lane() % 4;
    c += (warp_m() * Tile::wm + g) * Tile::c_ld + warp_n() * Tile::wn + 2 * t;
    VG_UNROLL for (int i = 0; i < tiles_m; i++)
      VG_UNROLL for (int j = 0; j < tiles_n; j++) {
        const float* x = acc[i] + 4 * j;
        *(vg_float2*)(c + 16 * i * Tile::c_ld + 8 * j) = {x[0], x[1]};
        *(vg_float2*)(c + (16 * i + 8) * Tile::c_ld + 8 * j) = {x[2], x[3]};
      }
  }

 private:
  static VG_FN int warp_m() { return vg_warp() / Tile::warps_n; }
  static VG_FN int warp_n() { return vg_warp() % Tile::warps_n; }
  VG_FN void load(int set, const char* stage, int step) {
    VG_UNROLL for (int i = 0; i < tiles_m; i++) a.load(fa[set][i], stage, i, step);
    VG_UNROLL for (int j = 0; j < tiles_n / 2; j++) b.load(fb[set] + 4 * j, stage + LA::bytes, j, step);
  }
  VG_FN void multiply(int set) {
    VG_UNROLL for (int i = 0; i < tiles_m; i++)
      VG_UNROLL for (int j = 0; j < tiles_n; j++) {
        if (Tile::math == vg_math::bf16)
          vg_mma_bf16(acc[i] + 4 * j, fa[set][i], fb[set] + 2 * j);
        else
          vg_mma_tf32(acc[i] + 4 * j, fa[set][i], fb[set] + 2 * j);
      }
  }
};

#endif  // VITGEN_CUDA_GEMM_MMA_CUH

#ifndef VITGEN_CUDA_GEMM_CUH
#define VITGEN_CUDA_GEMM_CUH

// Matrix products, with what stands around them fused in.
//
// A block computes one tile of C. Slices of A and B pass through a ring of stages
// in shared memory (gemm_load.cuh); products accumulate in registers, on tensor
// cores (gemm_mma.cuh) or in plain fp32 (gemm_fp32.cuh); then the epilogue is
// called once for every element of the tile (gemm_epilogue.cuh).

template <class Tile, vg_math MATH>
struct vg_gemm_products {
  using type = vg_gemm_mma<Tile>;
};
template <class Tile>
struct vg_gemm_products<Tile, vg_math::fp32> {
  using type = vg_gemm_fp32<Tile>;
};

// The ring of stages. While slice i is multiplied, asynchronous copies of slice
// i + stages - 1 and register loads of slice i + 1 are under way.
template <class Tile, class LoadA, class LoadB, bool SUM>
struct vg_gemm_pipeline {
  LoadA& a;
  LoadB& b;
  const int slices;
  const bool sums;  // this block sums the columns of A
  int slice = 0, read = 0, write = Tile::stages - 1;
  static constexpr int b_at = Tile::bm * Tile::bk * Tile::element_bytes;

  VG_FN vg_gemm_pipeline(LoadA& load_a, LoadB& load_b, int count, bool sum) : a(load_a), b(load_b), slices(count), sums(sum) {
    VG_NO_UNROLL for (int i = 0; i < Tile::stages - 1; i++) {
      if (i < slices) copy(i);
      vg_cp_async_commit();
    }
    load(0);
    store(0);
    arrive();
  }
  VG_FN bool more() const { return slice < slices; }
  // The current slice.
  VG_FN const char* stage() const { return place(read); }
  // Starts what is to come. The stage that it will fill was last read before the
  // barrier in next().
  VG_FN void begin() {
    if (slice + Tile::stages - 1 < slices) copy(write);
    vg_cp_async_commit();
    if (slice + 1 < slices) load(after(read));
    if (SUM && sums) a.sum(stage());
  }
  // Nobody in this thread reads the current slice any more; the next one arrives.
  VG_FN void next() {
    write = read;
    read = after(read);
    slice++;
    if (slice < slices) store(read);
    arrive();
  }

 private:
  static VG_FN char* place(int i) { return vg_shared() + i * Tile::stage_bytes; }
  static VG_FN int after(int i) { return i + 1 < Tile::stages ? i + 1 : 0; }
  VG_FN void copy(int i) {
    if (LoadA::copies) a.begin(place(i));
    if (LoadB::copies) b.begin(place(i) + b_at);
  }
  VG_FN void load(int i) {
    if (!LoadA::copies) a.begin(place(i));
    if (!LoadB::copies) b.begin(place(i) + b_at);
  }
  VG_FN void store(int i) {
    a.end(place(i));
    b.end(place(i) + b_at);
  }
  VG_FN void arrive() {
    vg_cp_async_wait<Tile::stages - 2>();
    vg_sync();
  }
};

// C = A B as Tile::kind says (gemm_tile.cuh). a and b: sources over the operands'
// rows and columns, of which those counted by the batch have T to a sample;
// y: sink over (m, n), whose rows have T to a sample in nt and nn; row_sum: in tn
// the sink over (0, m) of the sums over k of A, or vg_none. m, n and k are those
// of this run; the grid is that of the full batch.
template <class Tile, int T, class A, class B, class Y, class R>
VG_FN void vg_gemm(const vg_call& c, int m, int n, int k, const A& a, const B& b, const Y& y, const R& row_sum) {
  constexpr bool tn = Tile::kind == vg_tn, sum = tn && vg_wanted<R>;
  using LA = vg_gemm_layout_a<Tile>;
  using LB = vg_gemm_layout_b<Tile>;
  using LoadA = vg_gemm_load<LA, T, A, sum>;
  using LoadB = vg_gemm_load<LB, tn ? T : 1, B, false>;

  const vg_gemm_place at = vg_gemm_find_place<Tile>(c, n, k);
  if (at.row >= m || at.slices <= 0) return;  // for every block of the tile, or of the split
  const int k0 = at.first_slice * Tile::bk;
  LoadA load_a(a, LA::k_major ? vg_gemm_window<LA>{at.row, k0, m, k} : vg_gemm_window<LA>{k0, at.row, k, m});
  LoadB load_b(b, LB::k_major ? vg_gemm_window<LB>{at.col, k0, n, k} : vg_gemm_window<LB>{k0, at.col, k, n});
  typename vg_gemm_products<Tile, Tile::math>::type products;
  const bool first_column = at.col == 0;
  {
    vg_gemm_pipeline<Tile, LoadA, LoadB, sum> pipeline(load_a, load_b, at.slices, first_column);
    products.run(pipeline);
  }

  float column_sum = 0;
  if (sum && first_column) column_sum = vg_gemm_column_sum<Tile>(load_a);
  if (Tile::splits > 1 && !vg_gemm_meet<Tile, sum>(c, at, products.acc, column_sum)) return;
  if (sum && first_column && vg_thread() < Tile::bm && at.row + vg_thread() < m)
    row_sum(column_sum, vg_at{0, 0, 0, at.row + vg_thread(), 1});
  vg_gemm_epilogue<Tile, tn ? 1 : T>(products, at, m, n, y);
}

#endif  // VITGEN_CUDA_GEMM_CUH

#ifndef VITGEN_CUDA_PATCHIFY_CUH
#define VITGEN_CUDA_PATCHIFY_CUH

// Cuts images into rows of patches, so that a convolution whose kernel equals
// its stride becomes a matrix product.

// Blocks for a batch of images.
VG_CONST int64_t vg_patchify_blocks(int64_t batch, int C, int H, int W, int P) {
  return vg_pointwise_blocks(batch * (H / P) * (W / P), C * P * P);
}

// y over (row = b*T + t, col = (c*P + u)*P + v) of image [batch,C,H,W]: patch t
// = i*(W/P) + j, pixel (c, i*P + u, j*P + v). Neighbouring threads read
// neighbouring pixels, P in a line.
template <int C, int H, int W, int P, class Y>
VG_FN void vg_patchify(const vg_call& c, const float* image, const Y& y) {
  constexpr int across = W / P, tokens = H / P * across, cols = C * P * P;
  vg_each_element<tokens, cols>(c, (int64_t)c.batch() * tokens, [&](vg_at at) {
    const int channel = at.col / (P * P), u = at.col / P % P, v = at.col % P;
    const float* patch = image + ((int64_t)at.sample * (C * H) + at.token / across * P) * W + at.token % across * P;
    y(patch[(channel * H + u) * W + v], at);
  });
}

#endif  // VITGEN_CUDA_PATCHIFY_CUH

#ifndef VITGEN_CUDA_REDUCE_CUH
#define VITGEN_CUDA_REDUCE_CUH

// Reductions in a fixed order: column sums, sums over tokens, and the sum of
// squares of everything. Long sums are cut into chunks at places that depend on
// the extent alone, never on the grid; a block leaves the partial result of a
// chunk in the workspace, and whoever arrives last adds the partials in their
// order. So the result is the same for any number of blocks.

// Rows in chunks of at least `least`, at most `most` of them.
struct vg_chunks {
  int64_t rows, per;
  int count;
  VG_FN vg_chunks(int64_t n, int least, int most)
      : rows(n), per(vg_max64(least, vg_ceil_div(n, most))), count((int)vg_ceil_div(n, per)) {}
  VG_FN int64_t begin(int i) const { return i * per; }
  VG_FN int64_t end(int i) const { return vg_min64(rows, (i + 1) * per); }
};

// Adding up partial rows takes two levels, so that no block reads many of them:
// the last to arrive in a group of 16 chunks adds these, the last group adds
// the groups. A counter for each group and one for all.
constexpr int kPartialGroup = 16;
VG_CONST int vg_partials_counters(int chunks) { return 1 + (chunks + kPartialGroup - 1) / kPartialGroup; }

// The sum of `count` floats, `stride` apart, in order.
VG_FN float vg_add_in_order(const float* p, int count, int64_t stride) {
  float sum = *p;
  VG_NO_UNROLL for (int i = 1; i < count; i += 5) {  // five loads under way
    float x[5];
    VG_UNROLL for (int k = 0; k < 5; k++) x[k] = i + k < count ? p[(i + k) * stride] : 0.0f;
    VG_UNROLL for (int k = 0; k < 5; k++) sum += x[k];
  }
  return sum;
}

// Adds the partial rows of `count` chunks, `width` floats each. Every chunk's
// block calls it when it has written its row; the last one gets out(slot, sum)
// for every slot of a row. Group sums replace the first row of the group.
// vote: four bytes of shared memory.
template <class F>
VG_FN void vg_add_partials(float* partial, int width, int chunk, int count, uint32_t* counters, uint32_t* vote,
                           const F& out) {
  const int group = chunk / kPartialGroup, groups = (count + kPartialGroup - 1) / kPartialGroup;
  const int members = group < groups - 1 ? kPartialGroup : count - group * kPartialGroup;
  float* rows = partial + (int64_t)group * kPartialGroup * width;
  if (!vg_arrive_last(counters + 1 + group, (uint32_t)members, vote)) return;
  for (int s = vg_thread(); s < width; s += kBlockThreads) {
    const float sum = vg_add_in_order(rows + s, members, width);
    if (groups == 1)
      out(s, sum);
    else
      rows[s] = sum;
  }
  if (groups == 1 || !vg_arrive_last(counters, (uint32_t)groups, vote)) return;
  for (int s = vg_thread(); s < width; s += kBlockThreads)
    out(s, vg_add_in_order(partial + s, groups, (int64_t)kPartialGroup * width));
}

// Shared memory of the sums over rows: a partial row for each of the block's 16
// groups of 16 threads, and a vote.
constexpr int kSumShared = (int)sizeof(float) * (kBlockThreads / 16) * kRun + 16;

// Sums rows [begin, end) of x over the run of columns from `first` on; thread i
// < kRun gets the sum of column first + i. The whole block takes part.
template <int T, int COLS, class X>
VG_FN float vg_sum_run(const X& x, int64_t begin, int64_t end, int first, float* shared) {
  constexpr int steps = vg_run_steps(COLS), together = kBlockThreads / 16;
  const int lane = vg_thread() & 15, half = vg_thread() / 16, col = vg_column(first + lane);
  float sum[steps];
  VG_UNROLL for (int j = 0; j < steps; j++) sum[j] = 0.0f;
  for (int64_t r = begin + half; r < end; r += together) {
    vg_at at = vg_at_row<T>(r);
    VG_UNROLL for (int j = 0; j < steps; j++) {
      at.col = col + 16 * j;
      if (COLS % kRun == 0 || at.col < COLS) sum[j] += vg_value(x, at);
    }
  }
  vg_sync();  // nobody still reads what was summed before
  VG_UNROLL for (int j = 0; j < steps; j++) shared[half * kRun + 16 * j + lane] = sum[j];
  vg_sync();
  float total = 0.0f;
  if (vg_thread() < 16 * steps)
    VG_UNROLL for (int i = 0; i < together; i++) total += shared[i * kRun + vg_thread()];
  return total;
}

// Chunks of rows of vg_column_sum: as many as give about 256 blocks with the
// runs that the columns make. Chunks have 16 rows or more.
VG_CONST int vg_column_sum_chunks(int cols) { return (int)vg_max64(1, 256 / vg_runs(cols)); }
VG_CONST int64_t vg_column_sum_workspace(int cols) {
  return (int64_t)sizeof(float) * kRun * vg_runs(cols) * vg_column_sum_chunks(cols);
}
VG_CONST int vg_column_sum_counters(int cols) {
  return vg_runs(cols) * vg_partials_counters(vg_column_sum_chunks(cols));
}
VG_CONST int64_t vg_column_sum_blocks(int64_t rows, int cols) {
  return vg_max64(1, vg_runs(cols) * vg_min64(vg_column_sum_chunks(cols), vg_ceil_div(rows, 16)));
}

// Sums over rows: x is a source over (row, col), rows of T tokens; y a sink over
// (row = 0, col). A unit of work is a chunk of rows by a run of columns.
template <int T, int COLS, class X, class Y>
VG_FN void vg_column_sum(const vg_call& c, int64_t rows, const X& x, const Y& y) {
  constexpr int runs = vg_runs(COLS), most = vg_column_sum_chunks(COLS);
  float* shared = (float*)vg_shared();
  uint32_t* vote = (uint32_t*)(shared + kBlockThreads / 16 * kRun);
  const vg_chunks chunks(rows, 16, most);
  for (int u = c.block; u < runs * chunks.count; u += c.blocks) {
    const int run = u % runs, i = u / runs, first = run * kRun;
    const float sum = vg_sum_run<T, COLS>(x, chunks.begin(i), chunks.end(i), first, shared);
    const auto out = [&](int s, float total) {
      if (first + s < COLS) y(total, vg_at{0, 0, 0, first + s, 1});
    };
    if (chunks.count == 1) {
      if (vg_thread() < kRun) out(vg_thread(), sum);
      continue;
    }
    float* partial = (float*)c.workspace + (int64_t)run * most * kRun;
    if (vg_thread() < kRun) partial[i * kRun + vg_thread()] = sum;
    vg_add_partials(partial, kRun, i, chunks.count, c.counters + run * vg_partials_counters(most), vote, out);
  }
}

// Blocks for a batch: a sample by a run of columns each.
VG_CONST int64_t vg_token_sum_blocks(int64_t batch, int cols) {
  return vg_max64(1, vg_min64(batch * vg_runs(cols), kMaxBlocks));
}

// Sums over the tokens of each sample: x is a source over (row = b*T + t, col),
// y a sink over (row = b, col).
template <int T, int COLS, class X, class Y>
VG_FN void vg_token_sum(const vg_call& c, const X& x, const Y& y) {
  constexpr int runs = vg_runs(COLS);
  float* shared = (float*)vg_shared();
  const int64_t units = (int64_t)c.batch() * runs;
  for (int64_t u = c.block; u < units; u += c.blocks) {
    const int64_t b = u / runs;
    const int first = (int)(u % runs) * kRun, col = first + vg_thread();
    const float sum = vg_sum_run<T, COLS>(x, b * T, b * T + T, first, shared);
    if (vg_thread() < kRun && col < COLS) y(sum, vg_at{b, (int32_t)b, 0, col, 1});
  }
}

// Elements summed in single precision before double takes over.
constexpr int kSumChunk = 16384;
constexpr int kSumsqShared = (int)sizeof(double) * kBlockThreads + 16;
constexpr int kSumsqCounters = 1;
VG_CONST int64_t vg_sumsq_workspace(int64_t n) { return (int64_t)sizeof(double) * vg_ceil_div(n, kSumChunk); }
VG_CONST int64_t vg_sumsq_blocks(int64_t n) { return vg_max64(1, vg_min64(vg_ceil_div(n, kSumChunk), 1024)); }

// The thread's share of the sum of squares of x[0 .. n), n <= kSumChunk.
VG_FN float vg_sumsq_share(const float* x, int n) {
  constexpr int ways = 4;  // independent chains, and loads under way
  float sum[ways] = {};
  const int vectors = (uintptr_t)x % 16 == 0 ? n / 4 : 0;
  for (int i = vg_thread(); i < vectors; i += ways * kBlockThreads)
    VG_UNROLL for (int k = 0; k < ways; k++)
      if (i + k * kBlockThreads < vectors) {
        const vg_float4 v = ((const vg_float4*)x)[i + k * kBlockThreads];
        sum[k] = vg_fma(v.x, v.x, vg_fma(v.y, v.y, vg_fma(v.z, v.z, vg_fma(v.w, v.w, sum[k]))));
      }
  for (int i = 4 * vectors + vg_thread(); i < n; i += kBlockThreads) sum[0] = vg_fma(x[i], x[i], sum[0]);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// The sum of the threads' x, for thread 0: warp by warp, then in double.
VG_FN double vg_block_sum(float x, double* shared) {
  const float sum = vg_warp_sum(x);
  vg_sync();  // nobody still reads what was summed before
  if (vg_lane() == 0) shared[vg_warp()] = (double)sum;
  vg_sync();
  double total = 0;
  if (vg_thread() == 0)
    for (int i = 0; i < kBlockThreads / 32; i++) total += shared[i];
  return total;
}
// The same of doubles, by a tree.
VG_FN double vg_block_sum(double x, double* shared) {
  vg_sync();
  shared[vg_thread()] = x;
  for (int s = kBlockThreads / 2; s > 0; s /= 2) {
    vg_sync();
    if (vg_thread() < s) shared[vg_thread()] += shared[vg_thread() + s];
  }
  return vg_thread() == 0 ? shared[0] : 0.0;
}

// The factor that brings a gradient of squared norm sumsq down to max_norm; 1
// if it is not above. A NaN norm gives 1: the NaN itself must reach the loss.
VG_FN float vg_clip_factor(float sumsq, float max_norm) {
  const float norm = vg_sqrt(sumsq);
  return norm > max_norm ? max_norm / norm : 1.0f;
}

// out = the sum of x[i]^2 over a flat array of any length, and, unless it is
// NULL, clip = the factor for max_norm. A thread sums its share of a chunk in
// single precision; from there on sums are double, in an order that n fixes.
VG_FN void vg_sumsq(const vg_call& c, int64_t n, const float* x, float* out, float max_norm, float* clip) {
  double* shared = (double*)vg_shared();
  double* partial = (double*)c.workspace;
  const int64_t chunks = vg_ceil_div(n, kSumChunk);
  for (int64_t i = c.block; i < chunks; i += c.blocks) {
    const int64_t begin = i * kSumChunk;
    const double sum = vg_block_sum(vg_sumsq_share(x + begin, (int)vg_min64(kSumChunk, n - begin)), shared);
    if (vg_thread() == 0) partial[i] = sum;
  }
  if (!vg_arrive_last(c.counters, (uint32_t)c.blocks, (uint32_t*)(shared + kBlockThreads))) return;
  double sum = 0;
  for (int64_t i = vg_thread(); i < chunks; i += kBlockThreads) sum += partial[i];
  const double total = vg_block_sum(sum, shared);
  if (vg_thread() != 0) return;
  *out = (float)total;
  if (clip) *clip = vg_clip_factor((float)total, max_norm);
}
VG_FN void vg_sumsq(const vg_call& c, int64_t n, const float* x, float* out) { vg_sumsq(c, n, x, out, 0.0f, nullptr); }

// out = the factor for max_norm of a squared norm that lies in memory.
VG_FN void vg_clip_scale(const vg_call& c, const float* sumsq, float max_norm, float* out) {
  if (c.block == 0 && vg_thread() == 0) *out = vg_clip_factor(*sumsq, max_norm);
}

#endif  // VITGEN_CUDA_REDUCE_CUH

#ifndef VITGEN_CUDA_ROW_CUH
#define VITGEN_CUDA_ROW_CUH

// Kernels that see a whole row at once: layer norm and its gradient, and
// cross-entropy with its gradient. A warp works on a row of up to 1024 columns,
// a block of 256 threads on a longer one. Up to 8192 columns the row stays in
// registers, so that its sources are read once; beyond that they are read again
// at each pass.

// How the threads of a block share rows of COLS columns. 16 threads take a run
// of 128 columns (pointwise.cuh), so a warp takes two runs at a time and a block
// 16 of them. `values` places a thread; place j of the row's thread `id` is the
// slot j * lanes + id, and slots beyond the last column stay empty.
template <int COLS>
struct vg_row_shape {
  static constexpr int lanes = COLS <= 1024 ? 32 : kBlockThreads;  // threads on one row
  static constexpr int rows = kBlockThreads / lanes;               // rows under way in a block
  static constexpr int parts = lanes / 16;                         // runs under way in a row
  static constexpr int steps = vg_run_steps(COLS);
  static constexpr int values = steps * ((vg_runs(COLS) + parts - 1) / parts);
  static constexpr int slots = values * lanes;
  static constexpr bool kept = COLS <= 8192;                       // in registers
  static constexpr int places = kept ? values : 1;                 // of a register array
  static constexpr bool full = COLS % (parts * kRun) == 0;         // no slot is empty

  // The thread's number within its row, the row's within the block, and the
  // column of a thread's place j: a sum of what depends on the thread and of what
  // depends on the place, which becomes the constant part of an address.
  VG_FN static int id() { return vg_thread() & (lanes - 1); }
  VG_FN static int row() { return (int)((uint32_t)vg_thread() / lanes); }
  VG_FN static int first(int id) { return vg_column((id >> 4) * kRun + (id & 15)); }
  VG_FN static int offset(int j) { return j / steps * parts * kRun + j % steps * 16; }
};

// Shared memory in which a block adds up a row's sums; none of it is used by
// rows of one warp.
constexpr int kRowSums = 4;  // at once
constexpr int kRowShared = 2 * kRowSums * (kBlockThreads / 32) * (int)sizeof(float);

// Where the thread starts in a row: at its first column.
template <int T, int COLS>
VG_FN vg_at vg_at_place(int64_t row) {
  vg_at at = vg_at_row<T>(row);
  at.col = vg_row_shape<COLS>::first(vg_row_shape<COLS>::id());
  return at;
}

// Blocks for rows of COLS columns.
template <int COLS>
VG_CONST int64_t vg_row_blocks(int64_t rows) {
  return vg_max64(1, vg_min64(vg_ceil_div(rows, vg_row_shape<COLS>::rows), kMaxBlocks));
}

// Runs f(j) for the first of the thread's places in each run.
template <int COLS, class F>
VG_FN void vg_each_run(const F& f) {
  using shape = vg_row_shape<COLS>;
  if constexpr (shape::kept) {
    VG_UNROLL for (int j = 0; j < shape::values; j += shape::steps) f(j);
  } else {
    VG_NO_UNROLL for (int j = 0; j < shape::values; j += shape::steps) f(j);
  }
}
// Runs f(j, at) for the thread's places in the run that begins with place j.
template <int COLS, class F>
VG_FN void vg_each_place(int j, vg_at at, const F& f) {
  using shape = vg_row_shape<COLS>;
  const int first = at.col;
  VG_UNROLL for (int k = 0; k < shape::steps; k++) {
    at.col = first + shape::offset(j + k);
    if (shape::full || at.col < COLS) f(j + k, at);
  }
}
// Runs f(j, at) for all the thread's places in a row.
template <int COLS, class F>
VG_FN void vg_each_place(vg_at at, const F& f) {
  vg_each_run<COLS>([&](int j) { vg_each_place<COLS>(j, at, f); });
}

// Factors or summands of the places in a run, p[col], or `otherwise` where p is
// NULL: loaded together, ahead of the stores that use them.
template <int COLS>
struct vg_run_values {
  float v[vg_row_shape<COLS>::steps];
  VG_FN vg_run_values(const float* p, int j, vg_at at, float otherwise) {
    VG_UNROLL for (int k = 0; k < vg_row_shape<COLS>::steps; k++) v[k] = otherwise;
    if (p) vg_each_place<COLS>(j, at, [&](int i, vg_at place) { v[i - j] = p[place.col]; });
  }
};

// A row that registers hold, or that is computed again where they do not.
template <int COLS>
struct vg_row_values {
  float v[vg_row_shape<COLS>::places] = {};
  VG_FN void set(int j, float x) {
    if constexpr (vg_row_shape<COLS>::kept) v[j] = x;
  }
  template <class F>
  VG_FN float get(int j, const F& again) const {
    if constexpr (vg_row_shape<COLS>::kept) return v[j];
    else return again();
  }
};

// Sums and maxima over the threads of a row; all of them get the result. Two
// areas of shared memory take turns, so that one barrier each is enough.
template <int COLS>
struct vg_row_team {
  static constexpr int warps = vg_row_shape<COLS>::lanes / 32;
  float* shared;
  int turn = 0;

  VG_FN explicit vg_row_team(char* memory) : shared((float*)memory) {}

  template <int N>
  VG_FN void sum(float (&x)[N]) {
    static_assert(N <= kRowSums, "");
    VG_UNROLL for (int i = 0; i < N; i++) x[i] = vg_warp_sum(x[i]);
    if constexpr (warps > 1) {
      const float* all = exchange(x);
      VG_UNROLL for (int i = 0; i < N; i++) {
        x[i] = 0.0f;
        VG_UNROLL for (int w = 0; w < warps; w++) x[i] += all[i * warps + w];
      }
    }
  }
  VG_FN float max(float x) {
    float most[1] = {vg_warp_max(x)};
    if constexpr (warps > 1) {
      const float* all = exchange(most);
      VG_UNROLL for (int w = 0; w < warps; w++) most[0] = vg_max(all[w], most[0]);
    }
    return most[0];
  }

 private:
  template <int N>
  VG_FN const float* exchange(const float (&x)[N]) {
    float* all = shared + turn * kRowSums * warps;
    turn ^= 1;
    if (vg_lane() == 0)
      VG_UNROLL for (int i = 0; i < N; i++) all[i * warps + vg_warp()] = x[i];
    vg_sync();
    return all;
  }
};

// y = (x - mean) / sqrt(var + eps) * gamma + beta over each row, var the biased
// variance about the computed mean. x: source, y: sink over (row, col), rows of
// T tokens. gamma, beta, mean[rows] and rstd[rows] may be NULL.
template <int T, int COLS, class X, class Y>
VG_FN void vg_layernorm(const vg_call& c, int64_t rows, const X& x, const float* gamma, const float* beta, float eps,
                        float* mean, float* rstd, const Y& y) {
  using shape = vg_row_shape<COLS>;
  constexpr float inv = 1.0f / (float)COLS;
  vg_row_team<COLS> team(vg_shared());
  for (int64_t r = (int64_t)c.block * shape::rows + shape::row(); r < rows; r += (int64_t)c.blocks * shape::rows) {
    const vg_at start = vg_at_place<T, COLS>(r);
    vg_row_values<COLS> row;
    float sum[1] = {0.0f}, squares[1] = {0.0f};
    vg_each_place<COLS>(start, [&](int j, vg_at at) {
      const float v = vg_value(x, at);
      row.set(j, v);
      sum[0] += v;
    });
    team.sum(sum);
    const float mu = sum[0] * inv;
    const auto centred = [&](int j, vg_at at) { return row.get(j, [&] { return vg_value(x, at); }) - mu; };
    vg_each_place<COLS>(start, [&](int j, vg_at at) {
      const float d = centred(j, at);
      squares[0] = vg_fma(d, d, squares[0]);
    });
    team.sum(squares);
    const float rs = 1.0f / vg_sqrt(squares[0] * inv + eps);
    if (shape::id() == 0) {
      if (mean) mean[r] = mu;
      if (rstd) rstd[r] = rs;
    }
    vg_each_run<COLS>([&](int j) {
      const vg_run_values<COLS> scale(gamma, j, start, 1.0f), shift(beta, j, start, 0.0f);
      vg_each_place<COLS>(j, start, [&](int i, vg_at at) {
        y(vg_fma(centred(i, at) * rs, scale.v[i - j], shift.v[i - j]), at);
      });
    });
  }
}

// The sums over a chunk of rows that a thread keeps for its columns: in shared
// memory, a row of slots for each row under way, or for the longest rows in the
// chunk's partial row itself. No other thread touches them before finish(). If
// not WANTED there are none.
template <int COLS, bool WANTED>
struct vg_place_sums {
  using shape = vg_row_shape<COLS>;
  static constexpr int shared_floats = shape::kept ? shape::rows * shape::slots : 0;
  float* shared;
  float* partial;
  float* sums;

  VG_FN vg_place_sums(float* all, float* chunk) : shared(all), partial(chunk) {
    sums = (shape::kept ? shared + shape::row() * shape::slots : partial) + shape::id();
    if constexpr (WANTED)
      vg_each_run<COLS>([&](int j) {
        VG_UNROLL for (int k = 0; k < shape::steps; k++) sums[(j + k) * shape::lanes] = 0.0f;
      });
  }
  VG_FN void add(int j, float x) {
    if constexpr (WANTED) sums[j * shape::lanes] += x;
  }
  // Leaves the chunk's sums in its partial row: those of the rows under way, in
  // their order. The block must meet once more before the next chunk, which it
  // does in vg_add_partials.
  VG_FN void finish() const {
    if constexpr (!WANTED || !shape::kept) return;
    vg_sync();
    for (int s = vg_thread(); s < shape::slots; s += kBlockThreads) {
      float sum = shared[s];
      VG_UNROLL for (int i = 1; i < shape::rows; i++) sum += shared[i * shape::slots + s];
      partial[s] = sum;
    }
  }
};

// Rows of vg_layernorm_grad are cut into at most 256 chunks, of which each
// leaves a partial row for gamma and one for beta.
constexpr int kNormChunks = 256;
template <int COLS>
VG_CONST int64_t vg_layernorm_grad_blocks(int64_t rows) {
  return vg_max64(1, vg_min64(vg_ceil_div(rows, vg_row_shape<COLS>::rows), kNormChunks));
}
template <int COLS>
VG_CONST int64_t vg_layernorm_grad_workspace(int64_t rows) {
  return 2 * (int64_t)sizeof(float) * vg_row_shape<COLS>::slots * vg_layernorm_grad_blocks<COLS>(rows);
}
constexpr int kNormCounters = vg_partials_counters(kNormChunks);
template <int COLS>
VG_CONST int vg_layernorm_grad_shared() {
  return kRowShared + 16 + 2 * (int)sizeof(float) * vg_place_sums<COLS, true>::shared_floats;
}

// One row of vg_layernorm_grad: dx, and what it adds to the sums of dgamma and
// dbeta.
template <int COLS, class DY, class X, class DX, class G, class B>
VG_FN void vg_layernorm_grad_row(vg_row_team<COLS>& team, vg_at start, const DY& dy, const X& x, float mu, float rs,
                                 const float* gamma, const DX& dx, G& sum_gamma, B& sum_beta) {
  constexpr float inv = 1.0f / (float)COLS;
  vg_row_values<COLS> h, g;  // x and dy at first, then h and g
  float sums[2] = {0.0f, 0.0f};
  if constexpr (vg_row_shape<COLS>::kept)
    vg_each_place<COLS>(start, [&](int j, vg_at at) {
      g.set(j, vg_value(dy, at));
      h.set(j, vg_value(x, at));
    });
  vg_each_run<COLS>([&](int j) {
    const vg_run_values<COLS> scale(gamma, j, start, 1.0f);
    vg_each_place<COLS>(j, start, [&](int i, vg_at at) {
      const float d = g.get(i, [&] { return vg_value(dy, at); });
      const float hv = (h.get(i, [&] { return vg_value(x, at); }) - mu) * rs, gv = d * scale.v[i - j];
      sums[0] += gv;
      sums[1] = vg_fma(gv, hv, sums[1]);
      sum_gamma.add(i, d * hv);
      sum_beta.add(i, d);
      h.set(i, hv);
      g.set(i, gv);
    });
  });
  if constexpr (!vg_wanted<DX>) return;
  team.sum(sums);
  const float avg_g = sums[0] * inv, avg_gh = sums[1] * inv;
  vg_each_place<COLS>(start, [&](int j, vg_at at) {
    const float hv = h.get(j, [&] { return (vg_value(x, at) - mu) * rs; });
    const float gv = g.get(j, [&] { return gamma ? vg_value(dy, at) * gamma[at.col] : vg_value(dy, at); });
    dx(rs * (gv - avg_g - hv * avg_gh), at);
  });
}

// The gradient of vg_layernorm, with h = (x - mean) rstd and g = dy gamma:
//   dx = rstd (g - avg(g) - h avg(g h)),  dgamma = sum dy h,  dbeta = sum dy.
// dy, x: sources, dx: sink over (row, col); dgamma, dbeta: sinks over (0, col).
// Each sink may be vg_none.
template <int T, int COLS, class DY, class X, class DX, class G, class B>
VG_FN void vg_layernorm_grad(const vg_call& c, int64_t rows, const DY& dy, const X& x, const float* mean,
                             const float* rstd, const float* gamma, const DX& dx, const G& dgamma, const B& dbeta) {
  using shape = vg_row_shape<COLS>;
  constexpr bool want_gamma = vg_wanted<G>, want_beta = vg_wanted<B>;
  constexpr int width = shape::slots * (want_gamma + want_beta);
  vg_row_team<COLS> team(vg_shared());
  uint32_t* vote = (uint32_t*)(vg_shared() + kRowShared);
  float* for_gamma = (float*)(vg_shared() + kRowShared + 16);
  float* for_beta = for_gamma + vg_place_sums<COLS, true>::shared_floats;
  const vg_chunks chunks(rows, shape::rows, kNormChunks);
  for (int i = c.block; i < chunks.count; i += c.blocks) {
    float* partial = (float*)c.workspace + (int64_t)i * width;
    vg_place_sums<COLS, want_gamma> sum_gamma(for_gamma, partial);
    vg_place_sums<COLS, want_beta> sum_beta(for_beta, partial + (want_gamma ? shape::slots : 0));
    for (int64_t r = chunks.begin(i) + shape::row(); r < chunks.end(i); r += shape::rows)
      vg_layernorm_grad_row<COLS>(team, vg_at_place<T, COLS>(r), dy, x, mean[r], rstd[r], gamma, dx, sum_gamma,
                                  sum_beta);
    sum_gamma.finish();
    sum_beta.finish();
    if constexpr (width > 0)
      vg_add_partials((float*)c.workspace, width, i, chunks.count, c.counters, vote, [&](int s, float total) {
        const int slot = s % shape::slots, col = shape::first(slot % shape::lanes) + shape::offset(slot / shape::lanes);
        if (col >= COLS) return;
        if (want_gamma && s < shape::slots)
          dgamma(total, vg_at{0, 0, 0, col, 1});
        else
          dbeta(total, vg_at{0, 0, 0, col, 1});
      });
  }
}

// Two classes share a row: mix is the part of the first. A second class without
// a part is not looked at.
struct vg_mixed_label {
  const int32_t* label;
  const int32_t* label2;
  const float* mix;
};

// What a row is to be: class y, or y and y2 with parts mix and rest, where `two`.
struct vg_target {
  int y, y2;
  float mix, rest;
  bool two;

  VG_FN bool first_valid(int classes) const { return y >= 0 && y < classes; }
  VG_FN bool second_valid(int classes) const { return !two || (y2 >= 0 && y2 < classes); }
};
VG_FN vg_target vg_target_of(const int32_t* label, int64_t r) {
  const int y = label[r];
  return {y, y, 1.0f, 0.0f, false};
}
VG_FN vg_target vg_target_of(const vg_mixed_label& l, int64_t r) {
  const int y = l.label[r], y2 = l.label2[r];
  const float mix = y == y2 ? 1.0f : l.mix[r];
  return {y, y2, mix, 1.0f - mix, mix != 1.0f};
}

// Softmax cross-entropy of batch rows of logits against labels, with PyTorch's
// label smoothing (target (1-s) onehot + s/CLASSES, onehot the mixture of two
// where L is vg_mixed_label instead of a pointer):
//   loss    [batch], not averaged; may be NULL
//   correct [batch], 1 if the lowest index of the largest logit is the (first) label; may be NULL
//   dlogits sink over (row, col): (softmax - target) * step.inv_n; vg_none for none
// Label -1 ignores the row: loss, gradient and correct are 0. Any other label
// out of range is the caller's mistake and yields NaN, never a stray read. A NaN
// among the logits gives NaN and no hit.
template <int CLASSES, class Z, class L, class D>
VG_FN void vg_cross_entropy(const vg_call& c, const Z& logits, const L& label, float smoothing, float* loss,
                            float* correct, const D& dlogits) {
  constexpr bool mixed = sizeof(L) == sizeof(vg_mixed_label);
  using shape = vg_row_shape<CLASSES>;
  const float nan = vg_from_bits(0x7fc00000u), share = smoothing / (float)CLASSES;
  vg_row_team<CLASSES> team(vg_shared());
  for (int64_t r = (int64_t)c.block * shape::rows + shape::row(); r < c.batch(); r += (int64_t)c.blocks * shape::rows) {
    const vg_at start = vg_at_place<1, CLASSES>(r);
    const vg_target to = vg_target_of(label, r);
    const int y = to.y;
    const bool ignored = y == -1, valid = to.first_valid(CLASSES) && to.second_valid(CLASSES);
    vg_row_values<CLASSES> row;
    float most = -vg_infinity();
    vg_each_place<CLASSES>(start, [&](int j, vg_at at) {
      const float z = vg_value(logits, at);
      row.set(j, z);
      most = vg_max(z, most);  // passes a NaN over, which the sum below meets
    });
    most = team.max(most);

    // Of z - max: the label's, the sum of exponentials, the sum, and how many
    // logits before the label are as large as any.
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    vg_each_place<CLASSES>(start, [&](int j, vg_at at) {
      const float d = row.get(j, [&] { return vg_value(logits, at); }) - most, e = vg_exp(d);
      row.set(j, e);
      if (at.col == y) sums[0] = d;
      sums[1] += e;
      sums[2] += d;
      if (at.col < y && d == 0.0f) sums[3] += 1.0f;
    });
    team.sum(sums);
    const float zy = to.first_valid(CLASSES) ? sums[0] : nan, sum = sums[1], log_sum = vg_log(sum);
    float target = zy;
    if constexpr (mixed) {
      float second[1] = {0.0f};
      vg_each_place<CLASSES>(start, [&](int, vg_at at) {
        if (at.col == to.y2) second[0] = vg_value(logits, at) - most;
      });
      team.sum(second);
      if (to.two) target = valid ? to.mix * zy + to.rest * second[0] : nan;
    }
    const float nll = log_sum - target, uniform = log_sum - sums[2] / (float)CLASSES;
    if (shape::id() == 0) {
      // Without smoothing the second term must not meet an infinite logit.
      if (loss) loss[r] = ignored ? 0.0f : smoothing > 0 ? (1 - smoothing) * nll + smoothing * uniform : nll;
      if (correct) correct[r] = sum >= 1.0f && zy == 0.0f && sums[3] == 0.0f ? 1.0f : 0.0f;
    }
    const float scale = ignored ? 0.0f : valid ? c.step().inv_n : nan;
    if constexpr (vg_wanted<D>)
      vg_each_place<CLASSES>(start, [&](int j, vg_at at) {
        const float e = row.get(j, [&] { return vg_exp(vg_value(logits, at) - most); });
        float t = at.col == y ? (1 - smoothing) * to.mix + share : share;
        if (to.two && at.col == to.y2) t = (1 - smoothing) * to.rest + share;
        const float d = (e / sum - t) * scale;
        dlogits(ignored ? 0.0f : d, at);  // not 0 * d: an ignored row may hold NaN
      });
  }
}

#endif  // VITGEN_CUDA_ROW_CUH

#ifndef VITGEN_CUDA_VITGEN_CUH
#define VITGEN_CUDA_VITGEN_CUH

// The whole CUDA kernel library.

#endif  // VITGEN_CUDA_VITGEN_CUH

