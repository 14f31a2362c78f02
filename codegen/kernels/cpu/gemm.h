// Matrix products with fused sources and epilogues.
//
//   nt   C[M,N] = A[M,K] B[N,K]^T   a linear layer: B is its weight
//   nn   C[M,N] = A[M,K] B[K,N]     its gradient to the input
//   tn   C[M,N] = A[K,M]^T B[K,N]   its gradient to the weight
//
// A (and B in tn) come from source functors, C goes to a sink; each is called
// once for every element. Only the loops around functors are templates, the
// innermost: packing, and the epilogue over a piece of C. All others are compiled
// once for a model and call those through pointers, a few times a row panel; the
// arithmetic is tile.h's.
//
// gemm_nt.h and gemm_tn.h have the entries, and do what is narrow in ways of their
// own; this is how the others go.
//
// B is packed into the shared workspace by all workers together; after a
// barrier each worker multiplies its rows. vg_gemm_packed finds it packed
// already, by vg_pack_weight, and does the rest alike:
//   - M large: a worker packs its own rows of A, one k-block of a row block at
//     a time, into private scratch, and multiplies it with all of B. On the last
//     k-block it does so by 128 columns of one row panel, and lets the epilogue
//     run over them at once, in L1: what the epilogue reads and writes in memory
//     is fetched before the multiplication and arrives behind it. A row block is
//     at most 16 panels, fewer when its part of C, kept between k-blocks, would
//     outgrow L2.
//   - M small (kSharedRows): A is packed once into the workspace too, and the
//     workers split both the rows and the columns. Where nobody packs B and A has
//     so few rows that packing them takes no longer than a barrier (kOwnPanels),
//     every worker packs them for itself.
//   - tn over a long K (a large batch): K passes in slabs, so that only a slab of
//     B is packed at a time and stays in cache, and C is kept in the workspace
//     between slabs. Chosen when it needs less memory than all of B.
// Panels and k-blocks lie at fixed places, so neither the split nor the number
// of workers shows in the result.
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

// Lets the epilogue run over a finished piece of C, row by row.
template <int T, class E>
VG_FN void vg_epilogue(const E& epilogue, const float* c, int64_t ldc, vg_range rows, vg_range cols) {
  for (int64_t r = rows.begin; r < rows.end; r++, c += ldc)
    vg_each_vector(vg_at_row<T>(r), cols.begin, cols.end,
                   [&](vg_at at) VG_LAMBDA { epilogue(vg_load_full(c + at.col - cols.begin), at); });
}

// Has what the epilogue will read and write fetched.
template <int T, class E>
VG_NOINLINE void vg_fetch_sink_rows(const void* sink, vg_range rows, vg_range cols) {
  for (int64_t r = rows.begin; r < rows.end; r++)
    vg_fetch_sink(*(const E*)sink, vg_at_row<T>(r), cols.begin, cols.end);
}

// An epilogue whatever its type, by panels of C and without the padding.
struct vg_panel_sink {
  const void* sink;
  void (*run)(const void* sink, const float* c, int64_t ldc, vg_range rows, vg_range cols);
  void (*fetch)(const void* sink, vg_range rows, vg_range cols);

  static VG_FN vg_range part(int64_t all, int64_t size, int64_t first, int64_t count) {
    return {first * size, vg_min64(all, (first + count) * size)};
  }
  // The piece of C at row panel p0 and column panel q0.
  VG_FN void panels(const vg_gemm_shape& s, const float* c, int64_t ldc, int64_t p0, int64_t panels, int64_t q0,
                    int64_t col_panels) const {
    run(sink, c, ldc, part(s.m, kMR, p0, panels), part(s.n, kNR, q0, col_panels));
  }
  VG_FN void fetch_panel(const vg_gemm_shape& s, int64_t p, int64_t q0, int64_t col_panels) const {
    fetch(sink, part(s.m, kMR, p, 1), part(s.n, kNR, q0, col_panels));
  }
};
template <int T, class E>
VG_NOINLINE void vg_run_epilogue(const void* sink, const float* c, int64_t ldc, vg_range rows, vg_range cols) {
  vg_epilogue<T>(*(const E*)sink, c, ldc, rows, cols);
}
template <int T, class E>
VG_FN vg_panel_sink vg_panels_to(const E& sink) {
  return {&sink, vg_run_epilogue<T, E>, vg_fetch_sink_rows<T, E>};
}

// Each worker's rows of A are its own. One row block: row panels p0 on.
template <class P>
VG_NOINLINE void vg_gemm_row_block(const vg_call& call, const vg_gemm_shape& s, P& packer, const float* b,
                                   const vg_panel_sink& epilogue, int64_t p0, int64_t panels) {
  float* a = (float*)call.scratch();
  float* c = a + kRowPanels * kMR * kLDA;
  const int64_t last = s.k_blocks() - 1, q_all = s.col_panels();
  const int64_t ldc = (last > 0 ? q_all : kColumnPanels) * kNR + 16;
  packer.begin(panels);
  for (int64_t kb = 0; kb < last; kb++) {
    packer.pack(s, p0, panels, kb, a);
    vg_tiles<P::rs>(panels, q_all, s.depth(kb), a, P::panel, P::ks, b + s.b_at(kb, 0), c, ldc, kb > 0, nullptr);
  }
  packer.pack(s, p0, panels, last, a);
  for (int64_t q0 = 0; q0 < q_all; q0 += kColumnPanels) {
    const int64_t q = vg_min64(kColumnPanels, q_all - q0);
    for (int64_t i = 0; i < panels; i++) {
      float* ci = last > 0 ? c + i * kMR * ldc + q0 * kNR : c;
      epilogue.fetch_panel(s, p0 + i, q0, q);
      vg_row_tiles<P::rs>(q, s.depth(last), a + i * P::panel, P::ks, b + s.b_at(last, q0), ci, ldc, last > 0,
                          vg_ahead(i, s.depth(last), b + s.b_at(last, q0 + q)));
      epilogue.panels(s, ci, ldc, p0 + i, 1, q0, q);
    }
  }
  packer.end(s, p0, panels);
}

// Calls f(first panel, panels) for blocks of at most `most` of this worker's row
// panels.
template <class F>
VG_FN void vg_each_row_block(const vg_call& call, const vg_gemm_shape& s, int64_t most, const F& f) {
  const vg_range mine = call.share(s.row_panels());
  const int64_t blocks = vg_ceil_div(mine.end - mine.begin, most);
  for (int64_t i = 0; i < blocks; i++) {
    const vg_range part = vg_share(mine.end - mine.begin, i, blocks);
    f(mine.begin + part.begin, part.end - part.begin);
  }
}

// K in slabs: B is packed a slab at a time; a worker's rows of C and the sums of
// its columns of A wait in the workspace.
VG_NOINLINE void vg_gemm_by_slabs(const vg_call& call, const vg_gemm_shape& s, vg_col_packer& pack_a,
                                  const vg_source_packer& pack_b, const vg_panel_sink& epilogue) {
  using PA = vg_col_packer;
  float* b = (float*)call.workspace();
  float *c = b + s.slab_c_at(), *sums = b + s.slab_sum_at(), *a = (float*)call.scratch();
  const int64_t ldc = s.slab_c_ld();
  for (int64_t from = 0; from < s.k; from += kSlab) {
    const int64_t to = vg_min64(s.k, from + kSlab);
    if (from > 0) call.barrier();  // nobody reads the last slab any more
    pack_b.pack(call, s, from, to, b);
    call.barrier();
    pack_b.packed(call, s, from, to, b, sums);
    vg_each_row_block(call, s, kRowPanels, [&](int64_t p, int64_t panels) {
      const int64_t kb0 = from / kKC, kbs = vg_ceil_div(to - from, kKC), q_all = s.col_panels();
      pack_a.begin(panels);
      for (int64_t i = 0; i < kbs; i++) pack_a.pack(s, p, panels, kb0 + i, a + i * kRowPanels * PA::panel);
      // Some columns at a time: their part of C stays in L2 through the slab.
      for (int64_t q0 = 0; q0 < q_all; q0 += kColumnPanels) {
        const int64_t q = vg_min64(kColumnPanels, q_all - q0);
        float* cq = c + p * kMR * ldc + q0 * kNR;
        for (int64_t i = 0; i < kbs; i++) {
          const float* bq = b + i * kKC * s.width() + q0 * kNR * s.depth(kb0 + i);
          vg_tiles<PA::rs>(panels, q, s.depth(kb0 + i), a + i * kRowPanels * PA::panel, PA::panel, PA::ks, bq, cq, ldc,
                           kb0 + i > 0, bq + q * kNR * s.depth(kb0 + i));
        }
        if (to == s.k) epilogue.panels(s, cq, ldc, p, panels, q0, q);
      }
      pack_a.carry(sums + p * kLanes, panels, from > 0);
      if (to == s.k) pack_a.end(s, p, panels);
    });
  }
}

// How `count` workers stand over the tiles: rows of the grid whose largest share is
// smallest. Of two such, the one with more rows if all of A would crowd L2, which
// every column of workers reads for each panel of B.
VG_UNUSED inline int64_t vg_grid_rows(const vg_gemm_shape& s, int64_t count) {
  const bool long_a = s.m * s.k * (int64_t)sizeof(float) > kBlockBytes / 2;
  int64_t best = 1, least = INT64_MAX;
  for (int64_t rows = 1; rows <= count; rows++) {
    if (count % rows != 0) continue;
    const int64_t share = vg_ceil_div(s.row_panels(), rows) * vg_ceil_div(s.col_panels(), count / rows);
    if (share < least || (long_a && share == least)) {
      least = share;
      best = rows;
    }
  }
  return best;
}

// Packs this worker's part of A, all of k.
template <class P>
VG_FN void vg_pack_all(const vg_call& call, const vg_gemm_shape& s, P& packer, float* a) {
  const vg_range mine = call.share(s.row_panels());
  for (int64_t p = mine.begin; p < mine.end; p += kRowPanels) {
    const int64_t panels = vg_min64(kRowPanels, mine.end - p);
    packer.begin(panels);
    for (int64_t kb = 0; kb < s.k_blocks(); kb++) packer.pack(s, p, panels, kb, a + s.a_at(kb, p, P::panel));
    packer.end(s, p, panels);
  }
}

// A lies packed at a; a worker has a rectangle of tiles.
template <class P>
VG_NOINLINE void vg_gemm_by_grid(const vg_call& call, const vg_gemm_shape& s, const float* a, const float* b,
                                 const vg_panel_sink& epilogue) {
  float* c = (float*)call.scratch() + kRowPanels * kMR * kLDA;
  const int64_t grid_rows = vg_grid_rows(s, call.count());
  const int64_t grid_cols = call.count() / grid_rows;
  const vg_range ps = vg_share(s.row_panels(), call.index() / grid_cols, grid_rows);
  const vg_range qs = vg_share(s.col_panels(), call.index() % grid_cols, grid_cols);
  const int64_t ldc = kColumnPanels * kNR + 16;
  for (int64_t p = ps.begin; p < ps.end; p += kRowPanels) {
    const int64_t panels = vg_min64(kRowPanels, ps.end - p), rows = vg_min64(panels * kMR, s.m - p * kMR);
    for (int64_t q0 = qs.begin; q0 < qs.end; q0 += kColumnPanels) {
      const int64_t q = vg_min64(kColumnPanels, qs.end - q0);
      for (int64_t j = 0; j < q; j++)
        for (int64_t kb = 0; kb < s.k_blocks(); kb++) {
          const float* next = b + (kb + 1 < s.k_blocks() ? s.b_at(kb + 1, q0 + j) : s.b_at(0, q0 + j + 1));
          vg_column<P::rs>(rows, s.depth(kb), a + s.a_at(kb, p, P::panel), P::panel, P::ks, b + s.b_at(kb, q0 + j),
                           c + j * kNR, ldc, kb > 0, next);
        }
      epilogue.panels(s, c, ldc, p, panels, q0, q);
    }
  }
}

template <class PA, class PB>
VG_NOINLINE void vg_gemm(const vg_call& call, const vg_gemm_shape& s, PA& pack_a, const PB& pack_b,
                         const vg_panel_sink& epilogue) {
  const float* b = pack_b(call, s, (float*)call.workspace());
  if (s.shares_a()) {
    vg_worker alone = {0, 1, call.scratch()};
    const bool own_a = !PB::packs && s.owns_a();
    float* a = own_a ? (float*)call.scratch() : (float*)call.workspace() + s.a_begin();
    vg_pack_all(own_a ? vg_call{call.prog, call.launch, &alone} : call, s, pack_a, a);
    if (!own_a) call.barrier();
    vg_gemm_by_grid<PA>(call, s, a, b, epilogue);
  } else {
    if (PB::packs) call.barrier();
    vg_each_row_block(call, s, s.block_panels(), [&](int64_t p, int64_t panels) VG_LAMBDA {
      vg_gemm_row_block(call, s, pack_a, b, epilogue, p, panels);
    });
  }
}

// Packs B[N,K] for any number of vg_gemm_packed. out has room for
// vg_gemm_shape::b_size() elements, which kernels.PackedWeightBytes bounds over
// all instruction sets.
VG_FN void vg_pack_weight(const vg_call& call, int64_t N, int64_t K, const float* B, int64_t ldb, float* out) {
  vg_weight_packer{B, ldb, true}(call, vg_gemm_shape{1, N, K}, out);
}

VG_END
