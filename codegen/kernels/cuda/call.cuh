// One launch as a kernel sees it, where an element stands, and the ready-made
// functors. The counterpart of cpu/call.h: functors are written once, for a
// value type V, which is float here.
//
// A kernel computes every element by steps that depend on shapes and on the
// grid it was compiled for, never on which block or thread comes first: results
// are bitwise the same in every run.
#pragma once
// First device.cuh, which has the integers that abi.h takes.
#include "device.cuh"

#include "../common/abi.h"

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
