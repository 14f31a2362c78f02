// A^T B, the gradient to a weight: as gemm.h has it, or turned, C^T = B^T A, where A
// has few columns and B many.
//
// For a narrow layer, whose matrices have few columns and many rows, both are
// read where they lie: columns of A are what the micro-kernel wants of an operand
// with RS = 1, and rows of B are as good as a packed panel while they are short.
// K is cut into chunks at places that depend on it alone; partial products add
// up in order after a barrier. So a worker reads rows that, in a training step, it
// has mostly written itself, and once. What is narrow and not a matrix in memory, or
// narrower than a tile, is copied a chunk at a time, each by one worker.
#pragma once
#include "gemm.h"
#include "reduce.h"

VG_BEGIN

constexpr int64_t kThinRow = 256;        // longer rows put the steps of a tile on too many pages
constexpr int64_t kThinDepth = 512;      // least of a chunk where there are several
constexpr int64_t kCopyDepth = 128;      // the same of one that is copied
constexpr int64_t kCopyColumns = 64;     // of B, most that is copied
static_assert(2 * kTurnRows > kThinRow, "what turns is not thin: its workspace is another");
constexpr int64_t kThinSums = 4;         // vectors of column sums at once: the adder's latency

// The product in chunks. The workspace holds a C for each, and sums of A's columns.
struct vg_thin : vg_gemm_shape {
  int64_t depth;  // least of a chunk where there are several
  VG_FN explicit vg_thin(const vg_gemm_shape& s, int64_t least = kThinDepth) : vg_gemm_shape(s), depth(least) {}
  VG_FN int64_t chunks() const { return vg_max64(1, k / depth); }
  VG_FN vg_range chunk(int64_t i) const { return vg_share(k, i, chunks()); }
  VG_FN int64_t c_ld() const { return vg_round_up(n, 16); }
  VG_FN int64_t c_at(int64_t i) const { return i * m * c_ld(); }
  VG_FN int64_t sum_ld() const { return vg_round_up(m, 16); }
  VG_FN int64_t sum_at(int64_t i) const { return c_at(chunks()) + i * sum_ld(); }

  // Does not ask for k, which is known at run time only: so the compiler drops the
  // way that is not taken. The workspace suffices, as a packed A and B would take
  // more than the chunks do.
  VG_FN bool suits(int64_t lda, int64_t ldb) const {
    return m >= kMR && n >= kNR && m < kSlabRows && lda <= kThinRow && ldb <= kThinRow;
  }
  VG_FN bool suits_copies() const { return m < kTurnRows && n <= kCopyColumns; }
};

// Tiles at the lower and right edge begin early enough to end with the matrix.
// They compute rows and columns of their neighbours again, for nobody.
struct vg_thin_tile {
  int64_t row, rows, col, cols;  // of C, the new part
  int64_t from_row, from_col;    // where the tile begins

  VG_FN vg_thin_tile(const vg_gemm_shape& s, int64_t p, int64_t q) : row(p * kMR), col(q * kNR) {
    rows = vg_min64(kMR, s.m - row), cols = vg_min64(kNR, s.n - col);
    from_row = vg_min64(row, s.m - vg_tile_height(rows));
    from_col = vg_min64(col, s.n - vg_round_up(cols, kLanes));
  }
};

// Row panel p of the product over depths k, by way of one tile's scratch.
template <class E>
VG_FN void vg_thin_panel(const vg_gemm_shape& s, const vg_matrix& a, const vg_matrix& b, vg_range k, int64_t p,
                         float* tile, const E& epilogue) {
  for (int64_t q = 0; q < s.col_panels(); q++) {
    const vg_thin_tile t(s, p, q);
    vg_edge_tile<1>(t.rows, t.cols, k.end - k.begin, a.p + k.begin * a.ld + t.from_row, a.ld,
                    b.p + k.begin * b.ld + t.from_col, b.ld, tile, kNR, false);
    vg_run_epilogue<1, E>(&epilogue, tile + (t.row - t.from_row) * kNR + t.col - t.from_col, kNR,
                          vg_range{t.row, t.row + t.rows}, vg_range{t.col, t.col + t.cols});
  }
}

// Sums of A's columns over depths k.
template <class S>
VG_NOINLINE void vg_thin_sums(const vg_gemm_shape& s, const vg_matrix& a, vg_range k, const S& sums) {
  for (int64_t col = 0; col < s.m; col += kThinSums * kLanes) {
    vf sum[kThinSums];
    int n[kThinSums];
    for (int i = 0; i < kThinSums; i++) {
      sum[i] = vf(0.0f);
      n[i] = (int)vg_max64(0, vg_min64(kLanes, s.m - col - i * kLanes));
    }
    const float* row = a.p + k.begin * a.ld + col;
    for (int64_t i = k.begin; i < k.end; i++, row += a.ld)
      for (int j = 0; j < kThinSums; j++)
        if (n[j] > 0) sum[j] += vg_load<vf>(row + j * kLanes, n[j]);
    for (int i = 0; i < kThinSums && n[i] > 0; i++) sums(sum[i], vg_at{0, 0, 0, (int32_t)(col + i * kLanes), n[i]});
  }
}

// Adds the chunks' products up.
template <class E>
VG_NOINLINE void vg_thin_add(const vg_call& call, const vg_thin& s, const E& epilogue) {
  const float* c = (const float*)call.workspace();
  const vg_range mine = call.share(s.m);
  for (int64_t r = mine.begin; r < mine.end; r++)
    vg_each_vector(vg_at_row<1>(r), 0, s.n, [&](vg_at at) VG_LAMBDA {
      const float* p = c + r * s.c_ld() + at.col;
      vf sum = vg_load_full(p);
      for (int64_t i = 1; i < s.chunks(); i++) sum += vg_load_full(p + s.c_at(i));
      epilogue(sum, at);
    });
}

// Where there are several chunks, adds up what all workers have left.
template <class E, class S>
VG_FN void vg_thin_finish(const vg_call& call, const vg_thin& s, const E& epilogue, const S& row_sum) {
  if (s.chunks() == 1) return;
  call.barrier();
  vg_thin_add(call, s, epilogue);
  if (vg_wanted<S>)
    vg_add_partials(call, (const float*)call.workspace() + s.sum_at(0), s.chunks(), s.sum_ld(), s.m, row_sum);
}

template <class E, class S>
VG_NOINLINE void vg_gemm_thin(const vg_call& call, const vg_thin& s, const vg_matrix& a, const vg_matrix& b,
                              const E& epilogue, const S& row_sum) {
  float *parts = (float*)call.workspace(), *tile = (float*)call.scratch();
  const int64_t panels = s.row_panels(), chunks = s.chunks();
  const vg_range mine = call.share(chunks * panels);
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t i = u / panels, p = u % panels;
    if (chunks == 1) {
      vg_thin_panel(s, a, b, s.chunk(i), p, tile, epilogue);
      if (vg_wanted<S> && p == 0) vg_thin_sums(s, a, s.chunk(i), row_sum);
    } else {
      vg_thin_panel(s, a, b, s.chunk(i), p, tile, vg_store_matrix{parts + s.c_at(i), s.c_ld()});
      if (vg_wanted<S> && p == 0) vg_thin_sums(s, a, s.chunk(i), vg_store_matrix{parts + s.sum_at(i), 0});
    }
  }
  vg_thin_finish(call, s, epilogue, row_sum);
}

// Copies rows k of a source into a matrix in scratch, with zeros up to whole vectors.
template <int T, class A>
VG_NOINLINE void vg_copy_rows(const A& a, vg_range k, int64_t cols, float* out, int64_t ld) {
  for (int64_t r = k.begin; r < k.end; r++, out += ld)
    vg_each_vector(vg_at_row<T>(r), 0, cols,
                   [&](vg_at at) VG_LAMBDA { vg_store_full(out + at.col, vg_or_zero(vg_value(a, at), at.n)); });
}

// One chunk of the product, of matrices in scratch: all rows and columns.
template <class E, class S>
VG_FN void vg_thin_chunk(const vg_gemm_shape& s, const vg_matrix& a, const vg_matrix& b, int64_t depth, float* tile,
                         const E& epilogue, const S& row_sum) {
  for (int64_t r = 0; r < s.m; r += kMR)
    for (int64_t c = 0; c < s.n; c += kNR) {
      vg_edge_tile<1>(s.m - r, s.n - c, depth, a.p + r, a.ld, b.p + c, b.ld, tile, kNR, false);
      vg_run_epilogue<1, E>(&epilogue, tile, kNR, vg_range{r, vg_min64(s.m, r + kMR)},
                            vg_range{c, vg_min64(s.n, c + kNR)});
    }
  if constexpr (vg_wanted<S>) vg_thin_sums(s, a, vg_range{0, depth}, row_sum);
}

// A and B are any sources.
template <int T, class A, class B, class E, class S>
VG_NOINLINE void vg_gemm_copied(const vg_call& call, const vg_thin& s, const A& a, const B& b, const E& epilogue,
                                const S& row_sum) {
  // A tile reads a few columns beyond A, whose products nobody uses.
  const int64_t lda = vg_round_up(s.m, 16) + 16, ldb = vg_round_up(s.n, 16), chunks = s.chunks();
  float *parts = (float*)call.workspace(), *tile = (float*)call.scratch();
  const vg_range mine = call.share(chunks);
  for (int64_t i = mine.begin; i < mine.end; i++) {
    const vg_range k = s.chunk(i);
    const int64_t depth = k.end - k.begin;
    const vg_matrix ac = {tile + kMR * kNR, lda}, bc = {ac.p + depth * lda, ldb};
    vg_copy_rows<T>(a, k, s.m, (float*)ac.p, lda);
    vg_copy_rows<T>(b, k, s.n, (float*)bc.p, ldb);
    if (chunks == 1)
      vg_thin_chunk(s, ac, bc, depth, tile, epilogue, row_sum);
    else if constexpr (vg_wanted<S>)
      vg_thin_chunk(s, ac, bc, depth, tile, vg_store_matrix{parts + s.c_at(i), s.c_ld()},
                    vg_store_matrix{parts + s.sum_at(i), 0});
    else
      vg_thin_chunk(s, ac, bc, depth, tile, vg_store_matrix{parts + s.c_at(i), s.c_ld()}, row_sum);
  }
  vg_thin_finish(call, s, epilogue, row_sum);
}

// The sink of C behind a product that computes C^T.
template <class E>
struct vg_turned {
  const E& sink;
};

template <int T, class E>
VG_FN void vg_epilogue(const vg_turned<E>& turned, const float* c, int64_t ldc, vg_range rows, vg_range cols) {
  for (int64_t col = cols.begin; col < cols.end; col += kLanes)
    for (int64_t r = rows.begin; r < rows.end; r += kLanes) {
      const int n = (int)vg_min64(kLanes, rows.end - r);
      vf square[kLanes];
      for (int i = 0; i < kLanes; i++)
        square[i] = i < n ? vg_load_full(c + (r - rows.begin + i) * ldc + col - cols.begin) : vf(0.0f);
      vg_transpose_square(square);
      for (int i = 0; i < kLanes && col + i < cols.end; i++) {
        vg_at at = vg_at_row<T>(col + i);
        at.col = (int32_t)r, at.n = n;
        turned.sink(square[i], at);
      }
    }
}
template <class E>
VG_FN void vg_fetch_sink(const vg_turned<E>&, vg_at, int64_t, int64_t) {}  // the rows are not its

// C^T = B^T A. The packing that every worker does for itself, of rows of the
// result, is the cheaper one, and many rows divide more evenly.
template <int T, class A, class B, class E, class S>
VG_FN void vg_gemm_turned(const vg_call& call, const vg_gemm_shape& s, const A& a, const B& b, const E& epilogue,
                          const S& row_sum) {
  const vg_gemm_shape t = s.turned();
  const vg_source_packer pack_a = vg_source_of<T>(a, row_sum);
  vg_col_packer pack_b = vg_columns_of<T>(b, vg_none{});
  const vg_turned<E> sink = {epilogue};
  if (t.in_slabs()) {
    vg_gemm_by_slabs(call, t, pack_b, pack_a, vg_panels_to<1>(sink));
  } else {
    vg_gemm(call, t, pack_b, pack_a, vg_panels_to<1>(sink));
    pack_a.packed(call, t, 0, t.k, (const float*)call.workspace(), nullptr);
  }
}

// a: source over (k, m), b: source over (k, n), rows of T tokens; epilogue: sink
// over (m, n); row_sum: sink over (0, m) of the sums over k of a, or vg_none.
template <int T, class A, class B, class E, class S>
VG_FN void vg_gemm_tn(const vg_call& call, int64_t M, int64_t N, int64_t K, const A& a, const B& b, const E& epilogue,
                      const S& row_sum) {
  const vg_gemm_shape s = {M, N, K};
  if constexpr (vg_same<A, vg_matrix> && vg_same<B, vg_matrix>)
    if (const vg_thin t(s); t.suits(a.ld, b.ld)) return vg_gemm_thin(call, t, a, b, epilogue, row_sum);
  if (const vg_thin t(s, kCopyDepth); t.suits_copies())
    return vg_gemm_copied<T>(call, t, a, b, epilogue, row_sum);
  if (s.turns()) return vg_gemm_turned<T>(call, s, a, b, epilogue, row_sum);
  const vg_source_packer pack_b = vg_source_of<T>(b, vg_none{});
  vg_col_packer pack_a = vg_columns_of<T>(a, row_sum);
  if (s.in_slabs())
    vg_gemm_by_slabs(call, s, pack_a, pack_b, vg_panels_to<1>(epilogue));
  else
    vg_gemm(call, s, pack_a, pack_b, vg_panels_to<1>(epilogue));
}

VG_END
