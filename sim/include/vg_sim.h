// The words of device.cuh for the kernel simulator: takes the place of that
// header's second half when a kernel file is compiled by g++ with -DVG_SIM.
//
// Every word that lets threads meet, and every one that touches memory in a way
// of its own, asks the runtime through a table of functions (vg_sim_abi.h). The
// rest is done here.
#pragma once
#include <math.h>
#include <string.h>
#include <utility>
#include "vg_sim_abi.h"

#define VG_SIM_HIDDEN __attribute__((visibility("hidden")))
// Functions of this header are no part of the kernel: they are not instrumented.
#ifdef __SANITIZE_THREAD__
#define VG_SIM_FN inline VG_SIM_HIDDEN __attribute__((no_sanitize("thread"), noinline))
#else
#define VG_SIM_FN inline VG_SIM_HIDDEN
#endif
// Where a word stands in the kernel's source: default arguments of the words.
#define VG_SIM_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

#define VG_FN inline VG_SIM_HIDDEN
#define VG_CONST inline constexpr
#define VG_NOINLINE static __attribute__((noinline))
#define VG_UNROLL
#define VG_NO_UNROLL

// ---- this kernel object: its runtime and its kernels

inline VG_SIM_HIDDEN const vg_sim_api* vg_sim_runtime = nullptr;
inline VG_SIM_HIDDEN vg_sim_thread* const* vg_sim_current = nullptr;
inline VG_SIM_HIDDEN vg_sim_kernel* vg_sim_kernels = nullptr;

extern "C" __attribute__((weak, visibility("default"), no_sanitize("thread"))) const vg_sim_module* vg_sim_module_init(
    const vg_sim_api* runtime) {
#ifdef __SANITIZE_THREAD__
  static const vg_sim_module module = {VG_SIM_ABI_VERSION, 1, &vg_sim_kernels};
#else
  static const vg_sim_module module = {VG_SIM_ABI_VERSION, 0, &vg_sim_kernels};
#endif
  vg_sim_runtime = runtime;
  vg_sim_current = runtime->current;
  return &module;
}

// Launch bounds of the VG_KERNEL whose VG_EXPORT has yet to come.
struct vg_sim_bounds {
  int threads, blocks;
};
inline VG_SIM_HIDDEN vg_sim_bounds vg_sim_pending = {0, 0};

struct vg_sim_new_kernel {
  VG_SIM_FN vg_sim_new_kernel(int threads, int blocks) {
    if (vg_sim_pending.threads) __builtin_trap();  // the VG_KERNEL before this one has no VG_EXPORT
    vg_sim_pending = {threads, blocks};
  }
};

template <auto Kernel>
struct vg_sim_trampoline;
template <class... A, void (*Kernel)(A...)>
struct vg_sim_trampoline<Kernel> {
  static constexpr int params = sizeof...(A);
  static_assert(((sizeof(A) == 8) && ... && true), "every argument of a kernel is 8 bytes");
  VG_SIM_FN static void run(void** params) { call(params, std::index_sequence_for<A...>()); }

 private:
  template <size_t... I>
  VG_SIM_FN static void call(void** params, std::index_sequence<I...>) {
    Kernel(*static_cast<A*>(params[I])...);
  }
};

struct vg_sim_export {
  vg_sim_kernel kernel;
  VG_SIM_FN vg_sim_export(const char* name, void (*run)(void**), int params) {
    if (!vg_sim_pending.threads) __builtin_trap();  // VG_EXPORT does not follow its VG_KERNEL
    kernel = {name, run, params, vg_sim_pending.threads, vg_sim_pending.blocks, vg_sim_kernels};
    vg_sim_kernels = &kernel;
    vg_sim_pending = {0, 0};
  }
};

#define VG_SIM_JOIN2(a, b) a##b
#define VG_SIM_JOIN(a, b) VG_SIM_JOIN2(a, b)
#define VG_KERNEL(threads, blocks) \
  static const vg_sim_new_kernel VG_SIM_JOIN(vg_sim_new_, __COUNTER__){threads, blocks}; \
  extern "C" void
#define VG_EXPORT(kernel) \
  static vg_sim_export vg_sim_export_##kernel{#kernel, vg_sim_trampoline<&kernel>::run, vg_sim_trampoline<&kernel>::params};

// ---- who and where

VG_SIM_FN int vg_thread() { return (*vg_sim_current)->thread; }
VG_SIM_FN int vg_threads() { return (*vg_sim_current)->threads; }
VG_SIM_FN int vg_lane() { return (*vg_sim_current)->thread & 31; }
VG_SIM_FN int vg_warp() { return (*vg_sim_current)->thread >> 5; }
VG_SIM_FN int vg_block_index() { return (*vg_sim_current)->block; }
VG_SIM_FN int vg_block_count() { return (*vg_sim_current)->blocks; }
VG_SIM_FN char* vg_shared() { return (*vg_sim_current)->shared; }

// ---- barriers and shuffles

VG_SIM_FN void vg_sync(VG_SIM_HERE) { vg_sim_runtime->sync(0, 0, file, line); }
VG_SIM_FN void vg_sync_warp(VG_SIM_HERE) { vg_sim_runtime->sync_warp(file, line); }
VG_SIM_FN void vg_sync_some(int id, int count, VG_SIM_HERE) { vg_sim_runtime->sync(id, count, file, line); }
template <class X>
VG_SIM_FN X vg_shfl(X x, int from, uint32_t mask = 0xffffffffu, VG_SIM_HERE) {
  static_assert(sizeof(X) == 4 || sizeof(X) == 8, "a shuffle moves 4 or 8 bytes");
  vg_sim_runtime->shuffle(&x, sizeof(X), from & 31, mask, file, line);
  return x;
}
template <class X>
VG_SIM_FN X vg_shfl_xor(X x, int lanes, uint32_t mask = 0xffffffffu, VG_SIM_HERE) {
  return vg_shfl(x, vg_lane() ^ lanes, mask, file, line);
}

// ---- between blocks

VG_SIM_FN bool vg_arrive_last(uint32_t* counter, uint32_t count, uint32_t* slot, VG_SIM_HERE) {
  return vg_sim_runtime->arrive_last(counter, count, slot, file, line);
}

// ---- asynchronous copies from global to shared memory

// A place in shared memory, as a number of bytes from its start.
VG_SIM_FN uint32_t vg_shared_address(const void* p) { return (uint32_t)((const char*)p - vg_shared()); }
VG_SIM_FN void vg_cp_async16(void* to, const void* from, bool valid, VG_SIM_HERE) {
  vg_sim_runtime->cp_async(to, from, 16, valid, file, line);
}
VG_SIM_FN void vg_cp_async4(void* to, const void* from, bool valid, VG_SIM_HERE) {
  vg_sim_runtime->cp_async(to, from, 4, valid, file, line);
}
VG_SIM_FN void vg_cp_async_commit(VG_SIM_HERE) { vg_sim_runtime->cp_async_commit(file, line); }
template <int N>
VG_SIM_FN void vg_cp_async_wait(VG_SIM_HERE) {
  static_assert(N >= 0, "");
  vg_sim_runtime->cp_async_wait(N, file, line);
}

// ---- tensor cores

VG_SIM_FN void vg_ldmatrix4(uint32_t r[4], const void* row, VG_SIM_HERE) { vg_sim_runtime->ldmatrix(r, row, false, file, line); }
VG_SIM_FN void vg_ldmatrix4_t(uint32_t r[4], const void* row, VG_SIM_HERE) { vg_sim_runtime->ldmatrix(r, row, true, file, line); }
VG_SIM_FN void vg_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2], VG_SIM_HERE) {
  vg_sim_runtime->mma(c, a, b, false, file, line);
}
VG_SIM_FN void vg_mma_tf32(float c[4], const uint32_t a[4], const uint32_t b[2], VG_SIM_HERE) {
  vg_sim_runtime->mma(c, a, b, true, file, line);
}

// ---- arithmetic

VG_SIM_FN uint32_t vg_bits(float x) {
  uint32_t r;
  memcpy(&r, &x, 4);
  return r;
}
VG_SIM_FN float vg_from_bits(uint32_t x) {
  float r;
  memcpy(&r, &x, 4);
  return r;
}
// To nearest, ties away from zero: half of the last place is added to the
// magnitude and the rest cut off. A carry out of the mantissa is right too.
VG_SIM_FN uint32_t vg_tf32(float x) {
  const uint32_t bits = vg_bits(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return bits & 0x7fffffu ? 0x7fffffffu : bits;
  return (bits + 0x1000u) & 0xffffe000u;
}
// To nearest even.
VG_SIM_FN uint32_t vg_sim_bf16(float x) {
  const uint32_t bits = vg_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
  return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}
VG_SIM_FN uint32_t vg_pack_bf16(float lo, float hi) { return vg_sim_bf16(hi) << 16 | vg_sim_bf16(lo); }
VG_SIM_FN float vg_fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
VG_SIM_FN float vg_sqrt(float x) { return __builtin_sqrtf(x); }
VG_SIM_FN float vg_exp(float x) { return expf(x); }
VG_SIM_FN float vg_exp2(float x) { return exp2f(x); }
VG_SIM_FN float vg_log(float x) { return logf(x); }
VG_SIM_FN float vg_tanh(float x) { return tanhf(x); }
VG_SIM_FN float vg_erf(float x) { return erff(x); }
VG_SIM_FN float vg_infinity() { return __builtin_inff(); }

#include "vg_sim_tsan.h"
