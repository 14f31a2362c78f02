// A^T B for matrices of few columns and many rows, as the gradient of a narrow
// layer's weight: both are read where they lie. Columns of A are what the
// micro-kernel wants of an operand with RS = 1, and rows of B are as good as a
// packed panel while they are short. So nothing is packed, and no worker waits
// for another. The bits are those of vg_gemm_tn.
#pragma once
#include "gemm.h"

VG_BEGIN

constexpr int64_t kThinRow = 256;         // longer rows put the steps of a tile on too many pages
constexpr int64_t kThinBytes = 3 << 19;   // A and B: what L2 holds
constexpr int64_t kThinSums = 4;          // vectors of column sums at once: the adder's latency

// Tiles at the lower and right edge begin early enough to end with the matrix.
// They compute rows and columns of their neighbours again, in the same way.
struct vg_thin_tile {
  int64_t row, rows, col, cols;  // of C, the new part
  int64_t from_row, from_col;    // where the tile begins

  VG_FN vg_thin_tile(const vg_gemm_shape& s, int64_t p, int64_t q) : row(p * kMR), col(q * kNR) {
    rows = vg_min64(kMR, s.m - row), cols = vg_min64(kNR, s.n - col);
    from_row = vg_min64(row, s.m - vg_tile_height(rows));
    from_col = vg_min64(col, s.n - vg_round_up(cols, kLanes));
  }
};

template <class A, class B>
constexpr bool vg_same = false;
template <class A>
constexpr bool vg_same<A, A> = true;

VG_FN bool vg_is_thin(const vg_gemm_shape& s, int64_t lda, int64_t ldb) {
  return s.m >= kMR && s.n >= kNR && lda <= kThinRow && ldb <= kThinRow &&
         (s.m + s.n) * s.k * (int64_t)sizeof(float) <= kThinBytes;
}

// Sums of A's columns [cols), k-block by k-block as vg_col_packer makes them.
template <class S>
VG_NOINLINE void vg_thin_sums(const vg_gemm_shape& s, const vg_matrix& a, vg_range cols, const S& row_sum) {
  for (int64_t col = cols.begin; col < cols.end; col += kThinSums * kLanes) {
    vf sum[kThinSums];
    int n[kThinSums];
    for (int i = 0; i < kThinSums; i++) {
      sum[i] = vf(0.0f);
      n[i] = (int)vg_max64(0, vg_min64(kLanes, cols.end - col - i * kLanes));
    }
    for (int64_t kb = 0; kb < s.k_blocks(); kb++) {
      vf part[kThinSums];
      for (int i = 0; i < kThinSums; i++) part[i] = vf(0.0f);
      const float* row = a.p + kb * kKC * a.ld + col;
      for (int64_t k = 0; k < s.depth(kb); k++, row += a.ld)
        for (int i = 0; i < kThinSums; i++)
          if (n[i] > 0) part[i] += vg_load<vf>(row + i * kLanes, n[i]);
      for (int i = 0; i < kThinSums; i++) sum[i] += part[i];
    }
    for (int i = 0; i < kThinSums && n[i] > 0; i++) row_sum(sum[i], vg_at{0, 0, 0, (int32_t)(col + i * kLanes), n[i]});
  }
}

template <class E, class S>
VG_NOINLINE void vg_gemm_thin(const vg_call& call, const vg_gemm_shape& s, const vg_matrix& a, const vg_matrix& b,
                              const E& epilogue, const S& row_sum) {
  float* c = (float*)call.scratch();
  const int64_t grid_rows = vg_grid_rows(s.row_panels(), s.col_panels(), call.count());
  const int64_t grid_cols = call.count() / grid_rows;
  const vg_range ps = vg_share(s.row_panels(), call.index() / grid_cols, grid_rows);
  const vg_range qs = vg_share(s.col_panels(), call.index() % grid_cols, grid_cols);
  for (int64_t p = ps.begin; p < ps.end; p++)
    for (int64_t q = qs.begin; q < qs.end; q++) {
      const vg_thin_tile t(s, p, q);
      vg_edge_tile<1>(t.rows, t.cols, s.k, a.p + t.from_row, a.ld, b.p + t.from_col, b.ld, c, kNR, false);
      vg_epilogue<1>(epilogue, c + (t.row - t.from_row) * kNR + t.col - t.from_col, kNR, vg_range{t.row, t.row + t.rows},
                     vg_range{t.col, t.col + t.cols});
    }
  if (vg_wanted<S> && call.index() % grid_cols == 0)
    vg_thin_sums(s, a, vg_range{ps.begin * kMR, vg_min64(s.m, ps.end * kMR)}, row_sum);
}

// a: source over (k, m), b: source over (k, n), rows of T tokens; epilogue: sink
// over (m, n); row_sum: sink over (0, m) of the sums over k of a, or vg_none.
template <int T, class A, class B, class E, class S>
VG_FN void vg_gemm_tn(const vg_call& call, int64_t M, int64_t N, int64_t K, const A& a, const B& b, const E& epilogue,
                      const S& row_sum) {
  const vg_gemm_shape s = {M, N, K};
  if constexpr (vg_same<A, vg_matrix> && vg_same<B, vg_matrix>)
    if (vg_is_thin(s, a.ld, b.ld)) return vg_gemm_thin(call, s, a, b, epilogue, row_sum);
  const vg_source_packer<T, B> pack_b = {b};
  vg_col_packer<T, A, S> pack_a = {a, row_sum, {}};
  if (s.in_slabs())
    vg_gemm_by_slabs(call, s, pack_a, pack_b, epilogue);
  else
    vg_gemm<1>(call, s, pack_a, pack_b, epilogue);
}

VG_END
