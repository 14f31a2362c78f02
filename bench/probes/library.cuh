// Probes of what the library builds from the words: how operands lie in shared
// memory and come out as fragments, whole products of whole numbers, and dropout.
#pragma once
#include "probe.cuh"

// ---- swizzled tiles

constexpr int probe_tile_mn = 32;  // rows of A, columns of B

// Fills a tile with its own coordinates, chunk by chunk through Layout::at, and
// reads every fragment of it.
template <class Layout, vg_math MATH, int BK, bool IS_A>
VG_FN uint32_t* probe_fragments(uint32_t* out) {
  constexpr int elements = Layout::rows * Layout::cols;
  for (int i = vg_thread(); i < elements; i += vg_threads()) {
    const int row = i / Layout::cols, col = i % Layout::cols;
    char* to = vg_shared() + Layout::at(row, col / Layout::chunk);
    if (MATH == vg_math::bf16)
      ((uint16_t*)to)[col % Layout::chunk] = (uint16_t)i;
    else
      ((float*)to)[col % Layout::chunk] = (float)i;
  }
  vg_sync();
  constexpr int steps = BK / (MATH == vg_math::bf16 ? 16 : 8);
  const vg_gemm_fragments<Layout, MATH, IS_A> fragments(0);
  for (int group = 0; group < probe_tile_mn / 16; group++)
    for (int step = 0; step < steps; step++) {
      uint32_t r[4];
      fragments.load(r, vg_shared(), group, step);
      for (int q = 0; q < 4; q++) out[vg_lane() * 4 + q] = MATH == vg_math::bf16 ? r[q] : (uint32_t)vg_from_bits(r[q]);
      out += 128;
    }
  vg_sync();
  return out;
}

template <vg_math MATH, int BK>
VG_FN void probe_all_fragments(uint32_t* out) {
  using nt = vg_gemm_tile<vg_nt, MATH, probe_tile_mn, probe_tile_mn, BK, 2, 2, 1, 1>;
  using nn = vg_gemm_tile<vg_nn, MATH, probe_tile_mn, probe_tile_mn, BK, 2, 2, 1, 1>;
  using tn = vg_gemm_tile<vg_tn, MATH, probe_tile_mn, probe_tile_mn, BK, 2, 2, 1, 1>;
  out = probe_fragments<vg_gemm_layout_a<nt>, MATH, BK, true>(out);
  out = probe_fragments<vg_gemm_layout_b<nt>, MATH, BK, false>(out);
  out = probe_fragments<vg_gemm_layout_b<nn>, MATH, BK, false>(out);
  probe_fragments<vg_gemm_layout_a<tn>, MATH, BK, true>(out);
}

PROBE(32, probe_fragments_bf16) { probe_all_fragments<vg_math::bf16, 32>(out); }
VG_EXPORT(probe_fragments_bf16)
PROBE(32, probe_fragments_tf32) { probe_all_fragments<vg_math::tf32, 16>(out); }
VG_EXPORT(probe_fragments_tf32)

// ---- whole products

// Sink: whole numbers, as such.
struct probe_sink {
  uint32_t* to;
  int64_t ld;
  template <class V>
  VG_FN void operator()(V x, vg_at at) const { to[at.row * ld + at.col] = (uint32_t)(int32_t)x; }
};

// 37 x 28 elements from 50 of k: edges on every side, and rows that are not
// aligned for the widest copies. Column sums follow in tn.
constexpr int probe_m = 37, probe_n = 28, probe_k = 50;
constexpr int probe_gemm_words = probe_m * probe_n + probe_m;

template <vg_kind KIND, vg_math MATH, int SPLITS>
using probe_tile = vg_gemm_tile<KIND, MATH, 32, 32, MATH == vg_math::bf16 ? 32 : 16, 3, 2, 1, SPLITS>;

template <class E>
struct probe_operands;
template <>
struct probe_operands<float> {
  static VG_FN const float* in(const uint32_t* in) { return probe_float_in(in); }
};
template <>
struct probe_operands<vg_bf16> {
  static VG_FN const vg_bf16* in(const uint32_t* in) { return probe_half_in(in); }
};

template <vg_kind KIND, vg_math MATH, int SPLITS, class E>
VG_FN void probe_gemm(const uint32_t* in, uint32_t* out, char* scratch) {
  const vg_call c{nullptr, scratch, (uint32_t*)(scratch + probe_scratch_bytes / 2), vg_block_index(), vg_block_count()};
  const E* x = probe_operands<E>::in(in);
  const vg_matrix<E> a{x, KIND == vg_tn ? probe_m : probe_k}, b{x + 4096, KIND == vg_nt ? probe_k : probe_n};
  const probe_sink y{out, probe_n};
  if constexpr (KIND == vg_tn)
    vg_gemm<probe_tile<KIND, MATH, SPLITS>, 1>(c, probe_m, probe_n, probe_k, a, b, y, probe_sink{out + probe_m * probe_n, 0});
  else
    vg_gemm<probe_tile<KIND, MATH, SPLITS>, 1>(c, probe_m, probe_n, probe_k, a, b, y, vg_none{});
}

#define PROBE_GEMM(name, kind, math, splits, element) \
  PROBE(64, name) { probe_gemm<kind, vg_math::math, splits, element>(in, out, scratch); } \
  VG_EXPORT(name)
PROBE_GEMM(probe_gemm_nt_fp32, vg_nt, fp32, 1, float)
PROBE_GEMM(probe_gemm_nn_fp32, vg_nn, fp32, 1, float)
PROBE_GEMM(probe_gemm_tn_fp32, vg_tn, fp32, 3, float)
PROBE_GEMM(probe_gemm_nt_tf32, vg_nt, tf32, 1, float)
PROBE_GEMM(probe_gemm_nn_tf32, vg_nn, tf32, 1, float)
PROBE_GEMM(probe_gemm_tn_tf32, vg_tn, tf32, 3, float)
PROBE_GEMM(probe_gemm_nt_bf16, vg_nt, bf16, 1, vg_bf16)
PROBE_GEMM(probe_gemm_nn_bf16, vg_nn, bf16, 1, vg_bf16)
PROBE_GEMM(probe_gemm_tn_bf16, vg_tn, bf16, 2, vg_bf16)
PROBE_GEMM(probe_gemm_nt_mixed, vg_nt, bf16, 1, float)

// ---- dropout

PROBE(64, probe_dropout) {
  vg_step step = {};
  step.seed_lo = 0x01234567u, step.seed_hi = 0x89abcdefu, step.micro_step = 11, step.dropout_on = 1;
  uint32_t x[4] = {(uint32_t)vg_thread(), 1, 2, 3};
  vg_philox4x32(x, in[0], in[1]);
  for (int i = 0; i < 4; i++) out[vg_thread() * 4 + i] = x[i];
  // 16 lanes share a run of 128 columns, as kernels do.
  vg_dropout drop(step, 5, 6554);
  for (int i = 0; i < 8; i++) {
    const int at = vg_thread() / 16 * 128 + vg_thread() % 16 + 16 * i;
    out[256 + at] = vg_bits(drop.scale<float>(at, 1));
  }
  out[768 + vg_thread()] = vg_bits(vg_drop_path_scale(step, 9, 19661, vg_thread()));
}
VG_EXPORT(probe_dropout)
