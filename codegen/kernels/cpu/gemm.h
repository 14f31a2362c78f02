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
//     is fetched before the multiplication and arrives behind it, and so does B
//     for the next 128 columns. A row block is at most 16 panels, fewer when its
//     part of C, kept between k-blocks, would outgrow L2.
//   - M small (kSharedRows): A is packed once into the workspace too, and the
//     workers split both the rows and the columns. Where nobody packs B and A has
//     so few rows that packing them takes no longer than a barrier (kOwnPanels),
//     every worker packs them for itself. The tiles of one panel of B have the
//     next one fetched: it is used too little to hide L3 otherwise.
//   - tn over a long K (a large batch): K passes in slabs, so that only a slab of
//     B is packed at a time and stays in cache, and C is kept in the workspace
//     between slabs. Chosen when it needs less memory than all of B.
// Panels and k-blocks lie at fixed places, so neither the split nor the number
// of workers shows in the result.
#pragma once
#include "gemm_pack.h"

VG_BEGIN

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
