// A B^T and A B, a linear layer and its gradient to the input: as gemm.h has it,
// or, with a small weight, without its detours.
//
// A tile of a narrow layer takes a few hundred cycles, so that copying its rows of
// A, and waiting for others to pack B, would cost a quarter of it. Rows of A are
// read where they lie if a matrix in memory is their source. So is B[K,N]; of a
// B[N,K], every worker packs what it needs for itself. The result has the bits
// that gemm.h's way would give it.
#pragma once
#include "gemm.h"

VG_BEGIN

constexpr int64_t kSmallB = 1 << 14;  // elements of a small weight
static_assert(kSmallB * sizeof(float) <= VG_SCRATCH_BYTES / 2, "packed in scratch");

// Where a panel of an operand lies: rows of A, or steps of B, ld apart.
struct vg_panel {
  const float* p;
  int64_t ld;
};

// A: a matrix in memory, or NULL, and what packs it.
struct vg_small_a {
  const vg_matrix* matrix;
  vg_row_packer packer;

  // Row panel p, packed into `packed` if need be, as the last one is if it lacks rows.
  VG_FN vg_panel panel(const vg_gemm_shape& s, int64_t p, float* packed) const {
    if (matrix && (p + 1) * kMR <= s.m) return {matrix->p + p * kMR * matrix->ld, matrix->ld};
    packer.pack(s, p, 1, 0, packed);
    return {packed, kLDA};
  }
};

// B: a matrix in memory, [K,N] or transposed [N,K], or all of it packed.
struct vg_small_b {
  const float* b;
  int64_t ldb;
  bool transposed, packed;

  VG_FN explicit vg_small_b(const vg_weight_packer& w) : b(w.b), ldb(w.ldb), transposed(w.transposed), packed(false) {}
  VG_FN explicit vg_small_b(const vg_packed_weight& w) : b(w.b), ldb(0), transposed(false), packed(true) {}

  VG_FN bool in_place(const vg_gemm_shape& s, int64_t q) const { return !transposed && (q + 1) * kNR <= s.n; }
  // Packs column panels qs, as far as they are not read where they lie.
  VG_FN void pack(const vg_gemm_shape& s, vg_range qs, float* out) const {
    for (int64_t q = qs.begin; q < qs.end && !packed; q++, out += kNR * s.k) {
      const int cols = (int)vg_min64(kNR, s.n - q * kNR);
      if (transposed)
        vg_pack_panel_nt(b + q * kNR * ldb, ldb, cols, s.k, out);
      else if (!in_place(s, q))
        vg_pack_panel_nn(b + q * kNR, ldb, cols, s.k, out);
    }
  }
  // Column panel q, where pack put it, or where it was.
  VG_FN vg_panel panel(const vg_gemm_shape& s, vg_range qs, int64_t q, const float* out) const {
    if (packed) return {b + s.b_at(0, q), kNR};
    if (in_place(s, q)) return {b + q * kNR, ldb};
    return {out + (q - qs.begin) * kNR * s.k, kNR};
  }
};

// Few rows are divided by columns too, so that all workers have some: not if that
// would have a source called more than once for an element.
VG_NOINLINE void vg_gemm_small(const vg_call& call, const vg_gemm_shape& s, const vg_small_a& a, const vg_small_b& b,
                               const vg_panel_sink& epilogue) {
  const bool by_columns = a.matrix && s.m <= kSharedRows;
  const int64_t grid_rows = by_columns ? vg_grid_rows(s, call.count()) : call.count();
  const int64_t grid_cols = call.count() / grid_rows;
  const vg_range ps = vg_share(s.row_panels(), call.index() / grid_cols, grid_rows);
  const vg_range qs = vg_share(s.col_panels(), call.index() % grid_cols, grid_cols);
  constexpr int64_t ldc = kColumnPanels * kNR + 16;
  float *packed_a = (float*)call.scratch(), *c = packed_a + kMR * kLDA, *packed_b = c + kMR * ldc;
  b.pack(s, qs, packed_b);
  for (int64_t p = ps.begin; p < ps.end; p++) {
    const vg_panel ap = a.panel(s, p, packed_a);
    for (int64_t q0 = qs.begin; q0 < qs.end; q0 += kColumnPanels) {
      const int64_t q1 = vg_min64(q0 + kColumnPanels, qs.end);
      for (int64_t q = q0; q < q1; q++) {
        const vg_panel bq = b.panel(s, qs, q, packed_b);
        vg_tile<0>(s.k, ap.p, ap.ld, bq.p, bq.ld, c + (q - q0) * kNR, ldc, false, c);
      }
      epilogue.panels(s, c, ldc, p, 1, q0, q1 - q0);
    }
  }
}

template <int T, class A, class W, class E>
VG_FN void vg_gemm_rows(const vg_call& call, const vg_gemm_shape& s, const A& a, const W& weight, const E& epilogue) {
  vg_row_packer pack_a = {&a, vg_pack_rows<T, A>};
  if (s.k <= kKC && s.b_size() <= kSmallB) {
    const vg_matrix* matrix = nullptr;
    if constexpr (vg_same<A, vg_matrix>) matrix = &a;
    vg_gemm_small(call, s, {matrix, pack_a}, vg_small_b(weight), vg_panels_to<T>(epilogue));
  } else {
    vg_gemm(call, s, pack_a, weight, vg_panels_to<T>(epilogue));
  }
}

// a: source over (m, k), rows of T tokens; B[N,K] with ldb elements from row to
// row; epilogue: sink over (m, n).
template <int T, class A, class E>
VG_FN void vg_gemm_nt(const vg_call& call, int64_t M, int64_t N, int64_t K, const A& a, const float* B, int64_t ldb,
                      const E& epilogue) {
  vg_gemm_rows<T>(call, vg_gemm_shape{M, N, K}, a, vg_weight_packer{B, ldb, true}, epilogue);
}

// The same with B[K,N].
template <int T, class A, class E>
VG_FN void vg_gemm_nn(const vg_call& call, int64_t M, int64_t N, int64_t K, const A& a, const float* B, int64_t ldb,
                      const E& epilogue) {
  vg_gemm_rows<T>(call, vg_gemm_shape{M, N, K}, a, vg_weight_packer{B, ldb, false}, epilogue);
}

// vg_gemm_nt with B as vg_pack_weight left it, and the same bits.
template <int T, class A, class E>
VG_FN void vg_gemm_packed(const vg_call& call, int64_t M, int64_t N, int64_t K, const A& a, const float* B,
                          const E& epilogue) {
  vg_gemm_rows<T>(call, vg_gemm_shape{M, N, K}, a, vg_packed_weight{B}, epilogue);
}

VG_END
