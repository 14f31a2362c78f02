// Products head by head: columns h of the operands by rows h of the weight, [N,K]
// each.
//
//   head_linear      y_h[M,N]  = x_h[M,K] w_h[N,K]^T
//   head_linear_t    y_h[M,K]  = x_h[M,N] w_h[N,K]
//   head_linear_dw   dw_h[N,K] = dy_h[M,N]^T x_h[M,K]
//
// The rows M are few, often one a sample, so workers share heads and columns of the
// result, not rows: each packs what it needs for itself, and nobody waits. head_linear
// reads the weight where it lies, in dot products: turning it to be packed would cost
// more than a few rows take. Results depend neither on how the work is shared nor on
// the number of rows. vg_matrix operands have the columns of all heads; the sink is
// over all of the result.
#pragma once
#include "gemm.h"

VG_BEGIN

constexpr int kDotRows = kLanes < 16 ? 2 : 4, kDotCols = kLanes / kDotRows;
constexpr int64_t kHeadColumns = 2 * kNR;        // columns of a head that a worker takes at a time
constexpr int64_t kHeadLD = kHeadColumns + 16;
constexpr int64_t kHeadRows = kRowPanels * kMR;  // rows of A packed at a time
static_assert(kDotRows * kDotCols == kLanes && kColPanel <= kMR * kLDA, "a tile's results fill a vector; both forms of A fit");

// The products of R rows of A with C rows of B, each of n elements, times factor: R x C
// sums grow over the lanes of vectors, to be folded at the end. Both operands are
// read along their rows, where the micro-kernel of tile.h would have one of them
// turned.
template <int R, int C>
VG_NOINLINE void vg_dot_tile(const float* const* a, const float* const* b, int64_t n, float factor, float* out) {
  vf sum[kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; i++) sum[i] = vf(0.0f);
  vg_each_vector(vg_at{}, 0, n, [&](vg_at at) VG_LAMBDA {
    vf x[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) x[r] = vg_load<vf>(a[r] + at.col, at.n);
#pragma GCC unroll 16
    for (int c = 0; c < C; c++) {
      const vf y = vg_load<vf>(b[c] + at.col, at.n);
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) sum[r * C + c] = vg_fma(x[r], y, sum[r * C + c]);
    }
  });
  vg_store_full(out, vg_sum_rows(sum) * vf(factor));
}

// A tile of C = factor A B^T. At the edges the last row stands for those that are missing.
template <int R, int C>
VG_FN void vg_dot_edge(const float* a, int64_t lda, int64_t rows, const float* b, int64_t ldb, int64_t cols, int64_t n,
                       float factor, float* c, int64_t ldc) {
  const float *ar[R], *br[C];
  float dots[kLanes];
  for (int r = 0; r < R; r++) ar[r] = a + vg_min64(r, rows - 1) * lda;
  for (int j = 0; j < C; j++) br[j] = b + vg_min64(j, cols - 1) * ldb;
  vg_dot_tile<R, C>(ar, br, n, factor, dots);
  const size_t bytes = sizeof(float) * (size_t)vg_min64(C, cols);
  for (int r = 0; r < R && r < rows; r++) __builtin_memcpy(c + r * ldc, dots + r * C, bytes);
}

// C = factor A B^T for few rows of A. Rows of B pass once.
VG_NOINLINE void vg_dots(const float* a, int64_t lda, int64_t rows, const float* b, int64_t ldb, int64_t cols,
                         int64_t n, float factor, float* c, int64_t ldc) {
  if (rows == 1) {
    for (int64_t j = 0; j < cols; j += kLanes)
      vg_dot_edge<1, kLanes>(a, lda, 1, b + j * ldb, ldb, cols - j, n, factor, c + j, ldc);
    return;
  }
  for (int64_t j = 0; j < cols; j += kDotCols)
    for (int64_t i = 0; i < rows; i += kDotRows)
      vg_dot_edge<kDotRows, kDotCols>(a + i * lda, lda, rows - i, b + j * ldb, ldb, cols - j, n, factor,
                                     c + i * ldc + j, ldc);
}

// Columns of a row-major matrix as the micro-kernel reads B: in place, if they are
// whole vectors, else packed.
struct vg_columns {
  const float* p;
  int64_t ld;

  VG_FN vg_columns(const float* b, int64_t ldb, int64_t rows, int64_t cols, float* pack) : p(b), ld(ldb) {
    if (cols % kLanes == 0) return;
    vg_pack_panel_nn(b, ldb, (int)cols, rows, pack);
    p = pack, ld = kNR;
  }
};

// What a worker has in its scratch.
struct vg_head_buffers {
  float *a, *b, *c;
  VG_FN explicit vg_head_buffers(const vg_call& call) {
    a = (float*)call.scratch();
    b = a + kRowPanels * kMR * kLDA;
    c = b + kKC * kHeadColumns;
  }
};

// Calls f(h, columns) for this worker's pieces of `width` columns a head.
template <class F>
VG_FN void vg_each_head_piece(const vg_call& call, int64_t heads, int64_t width, const F& f) {
  const int64_t pieces = vg_ceil_div(width, kHeadColumns);
  const vg_range mine = call.share(heads * pieces);
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t from = u % pieces * kHeadColumns;
    f(u / pieces, vg_range{from, vg_min64(width, from + kHeadColumns)});
  }
}

// C = (add ? C : 0) + A B for packed rows of A and `depth` rows of b.
VG_NOINLINE void vg_head_tiles(const vg_head_buffers& m, int64_t rows, const float* b, int64_t ldb, int64_t cols,
                               int64_t depth, bool add) {
  for (int64_t j = 0; j < cols; j += kNR) {
    const int64_t width = vg_min64(kNR, cols - j);
    const vg_columns panel(b + j, ldb, depth, width, m.b);
    for (int64_t i = 0; i < rows; i += kMR)
      vg_edge_tile<kLDA>(rows - i, width, depth, m.a + i * kLDA, 1, panel.p, panel.ld, m.c + i * kHeadLD + j, kHeadLD, add);
  }
}

// y_h[M,N] = x_h[M,K] b_h, b_h[K,N] the rows h of b.
VG_NOINLINE void vg_head_product(const vg_call& call, int64_t heads, int64_t M, int64_t N, int64_t K, const vg_matrix& x,
                                 const vg_matrix& b, const vg_panel_sink& sink) {
  const vg_head_buffers m(call);
  vg_each_head_piece(call, heads, N, [&](int64_t h, vg_range cols) VG_LAMBDA {
    for (int64_t r = 0; r < M; r += kHeadRows) {
      const int64_t rows = vg_min64(kHeadRows, M - r);
      for (int64_t k = 0; k < K; k += kKC) {
        const vg_matrix piece = {x.p + r * x.ld + h * K + k, x.ld};
        const int64_t depth = vg_min64(kKC, K - k);
        vg_pack_rows<1, vg_matrix>(&piece, vg_gemm_shape{rows, N, depth}, 0, vg_ceil_div(rows, kMR), 0, m.a);
        vg_head_tiles(m, rows, b.p + (h * K + k) * b.ld + cols.begin, b.ld, cols.end - cols.begin, depth, k > 0);
      }
      sink.run(sink.sink, m.c, kHeadLD, vg_range{r, r + rows}, vg_range{h * N + cols.begin, h * N + cols.end});
    }
  });
}

// y_h[M,N] = x_h[M,K] b_h^T, b_h[N,K] the rows h of b.
VG_NOINLINE void vg_head_dots(const vg_call& call, int64_t heads, int64_t M, int64_t N, int64_t K, const vg_matrix& x,
                              const vg_matrix& b, const vg_panel_sink& sink) {
  const vg_head_buffers m(call);
  vg_each_head_piece(call, heads, N, [&](int64_t h, vg_range cols) VG_LAMBDA {
    const float* rows_b = b.p + (h * N + cols.begin) * b.ld;
    for (int64_t r = 0; r < M; r += kHeadRows) {
      const int64_t rows = vg_min64(kHeadRows, M - r);
      vg_dots(x.p + r * x.ld + h * K, x.ld, rows, rows_b, b.ld, cols.end - cols.begin, K, 1.0f, m.c, kHeadLD);
      sink.run(sink.sink, m.c, kHeadLD, vg_range{r, r + rows}, vg_range{h * N + cols.begin, h * N + cols.end});
    }
  });
}

template <int T, class E>
VG_FN void vg_head_linear(const vg_call& call, int64_t heads, int64_t M, int64_t N, int64_t K, const vg_matrix& x,
                          const float* w, int64_t ldw, const E& epilogue) {
  vg_head_dots(call, heads, M, N, K, x, vg_matrix{w, ldw}, vg_panels_to<T>(epilogue));
}

template <int T, class E>
VG_FN void vg_head_linear_t(const vg_call& call, int64_t heads, int64_t M, int64_t N, int64_t K, const vg_matrix& x,
                            const float* w, int64_t ldw, const E& epilogue) {
  vg_head_product(call, heads, M, K, N, x, vg_matrix{w, ldw}, vg_panels_to<T>(epilogue));
}

VG_NOINLINE void vg_head_weight_grad(const vg_call& call, int64_t heads, int64_t M, int64_t N, int64_t K, const vg_matrix& dy,
                                     const vg_matrix& x, const vg_panel_sink& sink) {
  const vg_head_buffers m(call);
  vg_each_head_piece(call, heads, K, [&](int64_t h, vg_range cols) VG_LAMBDA {
    const int64_t width = cols.end - cols.begin;
    for (int64_t n = 0; n < N; n += kHeadRows) {
      const int64_t rows = vg_min64(kHeadRows, N - n), at = h * N + n;
      const vg_gemm_shape s = {rows, width, M};
      const vg_matrix columns = {dy.p + at, dy.ld};
      for (int64_t kb = 0; kb < s.k_blocks(); kb++) {
        const int64_t depth = s.depth(kb);
        const float* b = x.p + kb * kKC * x.ld + h * K + cols.begin;
        vg_pack_columns<1, vg_matrix, false>(&columns, s, 0, s.row_panels(), kb, m.a, nullptr);
        for (int64_t j = 0; j < width; j += kNR) vg_pack_panel_nn(b + j, x.ld, (int)vg_min64(kNR, width - j), depth, m.b + j * depth);
        vg_small_tiles<1>(rows, width, depth, m.a, kColPanel, kMR, m.b, m.c, kHeadLD, kb > 0);
      }
      sink.run(sink.sink, m.c, kHeadLD, vg_range{at, at + rows}, cols);
    }
  });
}

template <class E>
VG_FN void vg_head_linear_dw(const vg_call& call, int64_t heads, int64_t M, int64_t N, int64_t K, const vg_matrix& dy,
                             const vg_matrix& x, const E& epilogue) {
  vg_head_weight_grad(call, heads, M, N, K, dy, x, vg_panels_to<1>(epilogue));
}

VG_END
