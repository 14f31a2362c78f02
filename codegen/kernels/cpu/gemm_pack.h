// What products are made of besides tiles: their shape, which says where packed
// operands lie and what workspace that takes, and the packing of A and B.
//
// Packing is a loop around a source functor, so it is a template; what it gives the
// loops of gemm.h is the same struct for every source.
#pragma once
#include "tile.h"

VG_BEGIN

constexpr int64_t kSharedRows = 512;
constexpr int64_t kOwnPanels = 4;                // row panels of an A that every worker packs for itself
constexpr int64_t kTurnRows = 129;               // fewer would fill few columns of a tile
constexpr int64_t kSlabRows = 256;               // fewer make too few panels for the workers
constexpr int64_t kPrivateColumns = 60000;       // beyond, one panel's rows of C would not fit the scratch
constexpr int64_t kRowPanels = 16;               // most row panels in a block
constexpr int64_t kBlockBytes = 5 << 18;         // C of a row block, kept between k-blocks: about L2
constexpr int64_t kSlab = 2 * kKC;               // depth packed at a time where K is long
constexpr int64_t kRowsAhead = 2;                // how far ahead of packing rows are fetched: whole ones,
constexpr int64_t kPiecesAhead = 8;              // and those of which a block's columns are read
constexpr int64_t kColPanel = kKC * kMR + kLanes;  // a packed panel of A^T, with room for the last vector's overhang
static_assert(kColPanel <= kMR * kLDA, "both layouts of A use the workspace formula of the larger");

struct vg_gemm_shape {
  int64_t m, n, k;
  VG_FN int64_t row_panels() const { return vg_ceil_div(m, kMR); }
  VG_FN int64_t col_panels() const { return vg_ceil_div(n, kNR); }
  VG_FN int64_t k_blocks() const { return vg_ceil_div(k, kKC); }
  VG_FN int64_t depth(int64_t kb) const { return vg_min64(kKC, k - kb * kKC); }
  // Row panels in a block whose C is kept in scratch between k-blocks.
  VG_FN int64_t block_panels() const {
    if (k_blocks() == 1) return kRowPanels;
    return vg_max64(1, vg_min64(kRowPanels, kBlockBytes / (n * kMR * (int64_t)sizeof(float))));
  }
  VG_FN bool shares_a() const { return m <= kSharedRows || n > kPrivateColumns; }
  // Packed B: k-block kb, column panel p.
  VG_FN int64_t b_at(int64_t kb, int64_t p) const { return kb * kKC * width() + p * kNR * depth(kb); }
  VG_FN int64_t width() const { return col_panels() * kNR; }
  VG_FN int64_t b_size() const { return k * width(); }
  VG_FN bool owns_a() const { return row_panels() <= kOwnPanels && row_panels() * k_blocks() <= kRowPanels; }
  // Packed A of few rows: k-block kb, row panel p of `panel` elements. In the
  // workspace it lies behind B, even where B lies elsewhere.
  VG_FN int64_t a_at(int64_t kb, int64_t p, int64_t panel) const { return (kb * row_panels() + p) * panel; }
  VG_FN int64_t a_begin() const { return vg_round_up(b_size(), 16); }
  // What a product with all of B packed needs of the workspace, in floats.
  VG_FN int64_t packed_size() const {
    return shares_a() ? a_begin() + a_at(k_blocks(), 0, kMR * kLDA) : b_size();
  }
  // In slabs: one slab of B, then C, then the sums of A's columns.
  VG_FN int64_t slab_c_at() const { return kSlab * width(); }
  VG_FN int64_t slab_c_ld() const { return width() + 16; }
  VG_FN int64_t slab_sum_at() const { return slab_c_at() + row_panels() * kMR * slab_c_ld(); }
  VG_FN int64_t slab_size() const { return slab_sum_at() + row_panels() * kLanes; }
  VG_FN bool in_slabs() const { return m >= kSlabRows && slab_size() < packed_size(); }
  // tn of a few rows, all of A^T, and many columns: better computed as C^T.
  VG_FN bool turns() const { return m >= kTurnRows && m <= kSharedRows && n >= 2 * m; }
  VG_FN vg_gemm_shape turned() const { return {n, m, k}; }
  // Bytes of workspace; tn alone turns and goes by slabs. Over all instruction sets
  // kernels.GemmWorkspaceBytes bounds it, and WeightGradWorkspaceBytes that of tn.
  VG_FN int64_t workspace_bytes(bool tn) const {
    const vg_gemm_shape s = tn && turns() ? turned() : *this;
    return (int64_t)sizeof(float) * (tn && s.in_slabs() ? s.slab_size() : s.packed_size());
  }
};

// A sink of sums, whatever its type; none: nobody wants them.
struct vg_sum_sink {
  const void* sink;
  void (*add)(const void* sink, const vf* sum, vg_at at);
  VG_FN bool wanted() const { return add != nullptr; }
  VG_FN void operator()(const vf& sum, vg_at at) const { add(sink, &sum, at); }
};
template <class S>
VG_NOINLINE void vg_sum_to(const void* sink, const vf* sum, vg_at at) {
  (*(const S*)sink)(*sum, at);
}
template <class S>
VG_FN vg_sum_sink vg_sums_to(const S& sink) {
  if constexpr (vg_wanted<S>)
    return {&sink, vg_sum_to<S>};
  else
    return {nullptr, nullptr};
}

// Packs row panels of A[M,K] read through a source. Layout RS = kLDA.
struct vg_row_packer {
  static constexpr int rs = kLDA;
  static constexpr int64_t panel = kMR * kLDA, ks = 1;
  const void* a;
  void (*rows)(const void* a, const vg_gemm_shape& s, int64_t panel0, int64_t panels, int64_t kb, float* out);

  VG_FN void begin(int64_t) const {}
  VG_FN void pack(const vg_gemm_shape& s, int64_t panel0, int64_t panels, int64_t kb, float* out) const {
    rows(a, s, panel0, panels, kb, out);
  }
  VG_FN void end(const vg_gemm_shape&, int64_t, int64_t) const {}
};

template <int T, class A>
VG_NOINLINE void vg_pack_rows(const void* source, const vg_gemm_shape& s, int64_t panel0, int64_t panels, int64_t kb,
                              float* out) {
  const A& a = *(const A*)source;
  const int64_t first = panel0 * kMR, last = first + panels * kMR, k0 = kb * kKC;
  for (int64_t r = first; r < last; r++, out += kLDA) {
    if (r + kRowsAhead < s.m) vg_fetch_source(a, vg_at_row<T>(r + kRowsAhead), k0, k0 + s.depth(kb));
    if (r < s.m)
      vg_each_vector(vg_at_row<T>(r), k0, k0 + s.depth(kb),
                     [&](vg_at at) VG_LAMBDA { vg_store_full(out + at.col - k0, vg_value(a, at)); });
    else
      __builtin_memset(out, 0, sizeof(float) * (size_t)s.depth(kb));
  }
}

// Packs row panels of A^T, A[K,M] read through a source: a vector of kMR
// columns becomes one step of a panel. Layout RS = 1. On the way it sums each
// row of A^T, block by block of k, so that the sum's error grows with the block
// and not with K.
struct vg_col_packer {
  static constexpr int rs = 1;
  static constexpr int64_t panel = kColPanel, ks = kMR;
  const void* a;
  void (*columns)(const void* a, const vg_gemm_shape& s, int64_t panel0, int64_t panels, int64_t kb, float* out,
                  vf* sum);
  vg_sum_sink row_sum;
  vf sum[kRowPanels];

  VG_FN void begin(int64_t panels) {
    for (int64_t p = 0; p < panels; p++) sum[p] = vf(0.0f);
  }
  VG_FN void pack(const vg_gemm_shape& s, int64_t panel0, int64_t panels, int64_t kb, float* out) {
    columns(a, s, panel0, panels, kb, out, sum);
  }
  // Adds what earlier slabs summed, and leaves the sum for the next.
  VG_FN void carry(float* kept, int64_t panels, bool add) {
    if (!row_sum.wanted()) return;
    for (int64_t p = 0; p < panels; p++) {
      if (add) sum[p] += vg_load_full(kept + p * kLanes);
      vg_store_full(kept + p * kLanes, sum[p]);
    }
  }
  VG_FN void end(const vg_gemm_shape& s, int64_t panel0, int64_t panels) const {
    if (!row_sum.wanted()) return;
    for (int64_t p = 0; p < panels; p++) {
      const int64_t col = (panel0 + p) * kMR;
      row_sum(sum[p], vg_at{0, 0, 0, (int32_t)col, (int32_t)vg_min64(kMR, s.m - col)});
    }
  }
};

template <int T, class A, bool Sum>
VG_NOINLINE void vg_pack_columns(const void* source, const vg_gemm_shape& s, int64_t panel0, int64_t panels,
                                 int64_t kb, float* out, vf* sum) {
  const A& a = *(const A*)source;
  vf part[Sum ? kRowPanels : 1];
  if (Sum)
    for (int64_t p = 0; p < panels; p++) part[p] = vf(0.0f);
  for (int64_t k = 0; k < s.depth(kb); k++) {
    vg_at at = vg_at_row<T>(kb * kKC + k);
    if (kb * kKC + k + kPiecesAhead < s.k)
      vg_fetch_source(a, vg_at_row<T>(kb * kKC + k + kPiecesAhead), panel0 * kMR,
                      vg_min64(s.m, (panel0 + panels) * kMR));
    for (int64_t p = 0; p < panels; p++) {
      at.col = (int32_t)((panel0 + p) * kMR);
      at.n = (int)vg_min64(kMR, s.m - at.col);
      const vf x = vg_value(a, at);
      // Lanes beyond kMR fall into the next step, which overwrites them.
      vg_store_full(out + p * kColPanel + k * kMR, x);
      if (Sum) part[p] += x;
    }
  }
  if (Sum)
    for (int64_t p = 0; p < panels; p++) sum[p] += part[p];
}
template <int T, class A, class S>
VG_FN vg_col_packer vg_columns_of(const A& a, const S& row_sum) {
  return {&a, vg_pack_columns<T, A, vg_wanted<S>>, vg_sums_to(row_sum), {}};
}

// What packs B returns where it lies packed. Packs B for nt and nn: a matrix in
// memory.
struct vg_weight_packer {
  static constexpr bool packs = true;
  const float* b;
  int64_t ldb;
  bool transposed;  // B[N,K]

  VG_NOINLINE const float* operator()(const vg_call& call, const vg_gemm_shape& s, float* out) const {
    const int64_t panels = s.col_panels();
    const vg_range mine = call.share(s.k_blocks() * panels);
    for (int64_t u = mine.begin; u < mine.end; u++) {
      const int64_t kb = u / panels, p = u % panels, k = kb * kKC, n = p * kNR;
      const int cols = (int)vg_min64(kNR, s.n - n);
      float* to = out + s.b_at(kb, p);
      if (transposed)
        vg_pack_panel_nt(b + n * ldb + k, ldb, cols, s.depth(kb), to);
      else
        vg_pack_panel_nn(b + k * ldb + n, ldb, cols, s.depth(kb), to);
    }
    return out;
  }
};

// B that lies packed already.
struct vg_packed_weight {
  static constexpr bool packs = false;
  const float* b;
  VG_FN const float* operator()(const vg_call&, const vg_gemm_shape&, float*) const { return b; }
};

// Packs rows of B[K,N] read through a source.
struct vg_source_packer {
  static constexpr bool packs = true;
  const void* b;
  void (*rows)(const void* b, const vg_call& call, const vg_gemm_shape& s, int64_t from, int64_t to, float* out);
  vg_sum_sink col_sum;  // over (0, n) of the sums over k of b

  VG_FN const float* operator()(const vg_call& call, const vg_gemm_shape& s, float* out) const {
    pack(call, s, 0, s.k, out);
    return out;
  }
  // Rows `from` (the first of a k-block) to `to`.
  VG_FN void pack(const vg_call& call, const vg_gemm_shape& s, int64_t from, int64_t to, float* out) const {
    rows(b, call, s, from, to, out);
  }

  // After a barrier: sums what was packed, block by block of k, panels shared among
  // the workers. kept: width() floats for what earlier slabs summed.
  VG_NOINLINE void packed(const vg_call& call, const vg_gemm_shape& s, int64_t from, int64_t to, const float* packed,
                          float* kept) const {
    if (!col_sum.wanted()) return;
    const vg_range mine = call.share(s.col_panels());
    for (int64_t col = mine.begin * kNR; col < mine.end * kNR; col += kLanes) {
      vf sum = from > 0 ? vg_load_full(kept + col) : vf(0.0f);
      for (int64_t k0 = from; k0 < to; k0 += kKC) {
        const int64_t depth = s.depth(k0 / kKC);
        const float* p = packed + (k0 - from) * s.width() + col / kNR * kNR * depth + col % kNR;
        vf part = 0.0f;
        for (int64_t k = 0; k < depth; k++, p += kNR) part += vg_load_full(p);
        sum += part;
      }
      if (to == s.k) {
        if (col < s.n) col_sum(sum, vg_at{0, 0, 0, (int32_t)col, (int32_t)vg_min64(kLanes, s.n - col)});
      } else {
        vg_store_full(kept + col, sum);
      }
    }
  }
};

template <int T, class B>
VG_NOINLINE void vg_pack_source(const void* source, const vg_call& call, const vg_gemm_shape& s, int64_t from,
                                int64_t to_k, float* out) {
  const B& b = *(const B*)source;
  const vg_range mine = call.share(vg_ceil_div(to_k - from, 16));
  const int64_t last = vg_min64(from + mine.end * 16, to_k), width = s.width();
  for (int64_t k = from + mine.begin * 16; k < last; k++) {
    const int64_t kb = k / kKC, step = kNR * s.depth(kb);
    float* to = out + (kb * kKC - from) * width + (k % kKC) * kNR;
    if (k + kRowsAhead < last) vg_fetch_source(b, vg_at_row<T>(k + kRowsAhead), 0, s.n);
    vg_each_vector(vg_at_row<T>(k), 0, s.n, [&](vg_at at) VG_LAMBDA {
      vg_store_full(to + at.col / kNR * step + at.col % kNR, vg_value(b, at));
    });
    for (int64_t col = vg_round_up(s.n, kLanes); col < width; col += kLanes)
      vg_store_full(to + col / kNR * step + col % kNR, vf(0.0f));
  }
}
template <int T, class B, class S>
VG_FN vg_source_packer vg_source_of(const B& b, const S& col_sum) {
  return {&b, vg_pack_source<T, B>, vg_sums_to(col_sum)};
}

VG_END
