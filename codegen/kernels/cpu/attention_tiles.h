// Attention by tiles, for heads of any size. A head's operands are packed once,
// and a few row panels at a time go all the way from scores to output, so that
// their scores stay in L1.
//
// Keys come in blocks of kKeyBlock, and so do a head's columns. S is kept as one
// kKeyStride-strided matrix a key block, which is exactly what the micro-kernel
// of tile.h reads as an A operand, straight (P V, dS K) or transposed (P^T dO,
// dS^T Q). Softmax is exact over the row, not online.
#pragma once
#include "attention_head.h"
#include "tile.h"

VG_BEGIN

constexpr int kColBlock = kKeyBlock;          // columns of a head that are staged together
constexpr int64_t kQueryPanels = 15;          // most row panels in a query block
constexpr int64_t kStripRows = 2 * kMR;       // go from scores to output together,
constexpr int64_t kGradStripRows = kMR;       // and in the backward pass to dQ
constexpr int64_t kScoreBytes = 3 << 19;      // S of a query block, all keys
constexpr int64_t kRowsSize = kQueryPanels * kMR * kKeyStride;
constexpr int64_t kPackSize = kKeyBlock * kMaxHeadDim;
constexpr int64_t kColBlocks = kMaxHeadDim / kColBlock;
static_assert(kKeyBlock % kNR == 0 && kKeyBlock + kMR <= kKeyStride && kKeyStride % kLanes == 0, "S is read in whole tiles");

// How a head is cut.
struct vg_attention_cut {
  int64_t d, tq, tk;

  VG_FN explicit vg_attention_cut(const vg_attention_shape& s) : d(s.head_dim), tq(s.tq), tk(s.tk) {}
  VG_FN int64_t key_blocks() const { return vg_ceil_div(tk, kKeyBlock); }
  VG_FN int64_t col_blocks() const { return vg_ceil_div(d, kColBlock); }
  VG_FN int64_t row_panels() const { return vg_ceil_div(tq, kMR); }
  // The query rows are cut evenly into blocks that keep S within bounds.
  VG_FN int64_t query_blocks() const {
    const int64_t panel = key_blocks() * kMR * kKeyStride * (int64_t)sizeof(float);
    const int64_t most = vg_max64(1, vg_min64(kQueryPanels, kScoreBytes / panel));
    return vg_ceil_div(row_panels(), most);
  }
  VG_FN vg_range query_rows(int64_t block) const {
    const vg_range p = vg_share(row_panels(), block, query_blocks());
    return {p.begin * kMR, vg_min64(tq, p.end * kMR)};
  }
  VG_FN int64_t keys(int64_t block) const { return vg_min64(kKeyBlock, tk - block * kKeyBlock); }
  // All keys' operands are packed at once, for as many strips of query rows as
  // there are, if they fit; else each key block's when all rows' turn has come.
  VG_FN bool kept() const { return vg_round_up(tk, kNR) * vg_round_up(d, kNR) <= kPackSize; }
  VG_FN int64_t pack_at(int64_t block) const { return kept() ? block * kKeyBlock * vg_round_up(d, kNR) : 0; }
  VG_FN int64_t cols(int64_t block) const { return vg_min64(kColBlock, d - block * kColBlock); }
};

// Takes pieces of a worker's scratch.
struct vg_bump {
  float* next;
  VG_FN float* take(int64_t n) {
    float* p = next;
    next += vg_round_up(n, 16);
    return p;
  }
};

// Rows as A operands, one kKeyStride-strided matrix of kRowsSize a column block,
// times factor. Rows beyond are what lay there: they only meet results that
// nobody reads.
VG_NOINLINE void vg_stage_rows(const float* src, int64_t ld, int64_t rows, int64_t d, float factor, float* out) {
  for (int64_t c = 0; c < d; c += kColBlock, out += kRowsSize)
    for (int64_t r = 0; r < rows; r++)
      vg_each_vector(vg_at{}, 0, vg_min64(kColBlock, d - c), [&](vg_at at) VG_LAMBDA {
        vg_store_full(out + r * kKeyStride + at.col, vg_load<vf>(src + r * ld + c + at.col, at.n) * vf(factor));
      });
}

// And back, of one column block: out = or += the rows of a result. factor(r):
// what row r is multiplied by.
template <class F>
VG_FN void vg_unstage_rows(const float* src, int64_t rows, int64_t cols, float* out, int64_t ld, bool add, const F& factor) {
  for (int64_t r = 0; r < rows; r++) {
    const vf by = factor(r);
    vg_each_vector(vg_at{}, 0, cols, [&](vg_at at) VG_LAMBDA {
      const vf x = vg_load_full(src + r * kKeyStride + at.col) * by;
      float* to = out + r * ld + at.col;
      vg_store(to, add ? vg_load<vf>(to, at.n) + x : x, at.n);
    });
  }
}
VG_NOINLINE void vg_unstage_rows(const float* src, int64_t rows, int64_t cols, float* out, int64_t ld, bool add) {
  vg_unstage_rows(src, rows, cols, out, ld, add, [](int64_t) VG_LAMBDA { return vf(1.0f); });
}

// All panels of B[n,k] or B[k,n].
VG_FN void vg_pack_nt(const float* b, int64_t ldb, int64_t n, int64_t k, float* out) {
  for (int64_t j = 0; j < n; j += kNR) vg_pack_panel_nt(b + j * ldb, ldb, (int)vg_min64(kNR, n - j), k, out + j * k);
}
VG_FN void vg_pack_nn(const float* b, int64_t ldb, int64_t n, int64_t k, float* out) {
  for (int64_t j = 0; j < n; j += kNR) vg_pack_panel_nn(b + j, ldb, (int)vg_min64(kNR, n - j), k, out + j * k);
}

// A product's tiles, one panel of B after the other, and what is fetched meanwhile.
// b_depth: how deep B is packed, k or more.
template <int RS>
VG_NOINLINE void vg_head_tiles(int64_t rows, int64_t cols, int64_t k, const float* a, int64_t a_panel, int64_t ks,
                               const float* b, int64_t b_depth, float* c, bool add, vg_coming* coming) {
  for (int64_t j = 0; j < cols; j += kNR)
    for (int64_t i = 0; i < rows; i += kMR) {
      vg_edge_tile<RS>(rows - i, cols - j, k, a + i / kMR * a_panel, ks, b + j * b_depth, kNR, c + i * kKeyStride + j, kKeyStride, add);
      coming->fetch(k);
    }
}
// out = or += A B for A with `rows` staged rows.
VG_FN void vg_rows_times(const float* a, int64_t rows, const float* b, int64_t b_depth, int64_t n, int64_t k, float* out, bool add, vg_coming* coming) {
  vg_head_tiles<kKeyStride>(rows, n, k, a, kMR * kKeyStride, 1, b, b_depth, out, add, coming);
}
// out = A^T B for A with k staged rows, m columns of which are used.
VG_FN void vg_cols_times(const float* a, int64_t m, const float* b, int64_t n, int64_t k, float* out, vg_coming* coming) {
  vg_head_tiles<1>(m, n, k, a, kMR, kKeyStride, b, k, out, false, coming);
}

// S of n staged query rows and the first `keys` keys of a key block, whose keys are
// packed; likewise dP. d deep.
VG_FN void vg_scores(const float* q, int64_t n, const float* pack, int64_t keys, int64_t d, float* s, vg_coming* coming) {
  for (int64_t c = 0; c < d; c += kColBlock, q += kRowsSize)
    vg_rows_times(q, n, pack + c * kNR, d, keys, vg_min64(kColBlock, d - c), s, c > 0, coming);
}

// The forward pass of the query rows [rows) of head h of sample b.
VG_NOINLINE void vg_attention_block(const vg_call& call, const vg_attention_args& a, int64_t b, int64_t h,
                                    vg_range rows, const vg_dropout& drop, vg_coming* coming) {
  const vg_attention_cut cut(a);
  vg_bump scratch = {(float*)call.scratch()};
  float *q = scratch.take(kColBlocks * kRowsSize), *o = scratch.take(kColBlocks * kRowsSize);
  float *k_pack = scratch.take(kPackSize), *v_pack = scratch.take(kPackSize), *s = scratch.next;
  const int64_t count = rows.end - rows.begin, d = a.head_dim, unit = b * a.heads + h, first = b * a.tq + rows.begin;
  const float *k = a.k + b * a.tk * a.ldk + h * d, *v = a.v + b * a.tk * a.ldv + h * d;
  const int64_t strip = cut.kept() ? kStripRows : count;
  float inv[kQueryPanels * kMR + kLanes];
  int64_t k_packed = 0, v_packed = 0;

  vg_stage_rows(a.q + first * a.ldq + h * d, a.ldq, count, d, a.scale * kLog2E, q);
  for (int64_t r = 0; r < count; r += strip) {
    const int64_t n = vg_min64(strip, count - r), row = rows.begin + r;
    const int64_t seen = a.seen(row + n - 1), stride = vg_round_up(n, kMR) * kKeyStride;
    for (int64_t i = 0; i * kKeyBlock < seen; i++) {
      if (!cut.kept() || i == k_packed) vg_pack_nt(k + i * kKeyBlock * a.ldk, a.ldk, cut.keys(i), d, k_pack + cut.pack_at(i)), k_packed = i + 1;
      vg_scores(q + r * kKeyStride, n, k_pack + cut.pack_at(i), vg_min64(kKeyBlock, seen - i * kKeyBlock), d, s + i * stride, coming);
    }
    for (int64_t x = 0; x < n; x += kLanes)
      vg_attention_softmax(a, s + x * kKeyStride, stride, seen, {row + x, 1, a.drop_index(unit, row + x), a.tk},
                           (int)vg_min64(kLanes, n - x), drop, inv + x, a.lse ? a.lse + unit * a.tq + row + x : nullptr);
    for (int64_t i = 0; i * kKeyBlock < seen; i++) {
      if (!cut.kept() || i == v_packed) vg_pack_nn(v + i * kKeyBlock * a.ldv, a.ldv, d, cut.keys(i), v_pack + cut.pack_at(i)), v_packed = i + 1;
      for (int64_t c = 0; c < cut.col_blocks(); c++)
        vg_rows_times(s + i * stride, n, v_pack + cut.pack_at(i) + c * kColBlock * cut.keys(i), cut.keys(i), cut.cols(c),
                      vg_min64(kKeyBlock, seen - i * kKeyBlock), o + c * kRowsSize, i > 0, coming);
    }
    for (int64_t c = 0; c < cut.col_blocks(); c++)
      vg_unstage_rows(o + c * kRowsSize, n, cut.cols(c), a.o + (first + r) * a.ldo + h * d + c * kColBlock, a.ldo, false,
                      [&](int64_t x) VG_LAMBDA { return vf(inv[x]); });
  }
}

// What the backward pass of one block of query rows works in.
struct vg_attention_buffers {
  float *q, *dout;                       // staged rows
  float *q_pack, *dout_pack;             // the same rows as B operands
  float *kt_pack, *vt_pack, *k_pack;     // one key block
  float *s, *dp, *product;

  VG_FN explicit vg_attention_buffers(vg_bump m) {
    q = m.take(kColBlocks * kRowsSize), dout = m.take(kColBlocks * kRowsSize);
    q_pack = m.take(kQueryPanels * kMR * kMaxHeadDim), dout_pack = m.take(kQueryPanels * kMR * kMaxHeadDim);
    kt_pack = m.take(kPackSize), vt_pack = m.take(kPackSize), k_pack = m.take(kPackSize);
    s = m.take(kRowsSize), dp = m.take(kRowsSize), product = m.take((kKeyBlock + kMR) * kKeyStride);
  }
};

// The share of query rows [rows) in dK and dV of head h: added to those of the
// first `written` key blocks, and stored as those of the others. Writes dQ.
// Returns how many key blocks there are values of now.
VG_NOINLINE int64_t vg_attention_grad_block(const vg_call& call, const vg_attention_grad_args& a, int64_t b, int64_t h,
                                            vg_range rows, int64_t written, const vg_dropout& drop, vg_coming* coming) {
  const vg_attention_cut cut(a);
  const vg_attention_buffers m(vg_bump{(float*)call.scratch()});
  const int64_t count = rows.end - rows.begin, d = a.head_dim, unit = b * a.heads + h, first = b * a.tq + rows.begin;
  const float* q = a.q + first * a.ldq + h * d;
  const float* dout = a.dout + first * a.lddout + h * d;
  const float* o = a.o + first * a.ldo + h * d;
  const int64_t blocks = vg_ceil_div(a.seen(rows.end - 1), kKeyBlock);
  float delta[kQueryPanels * kMR + kLanes];
  for (int64_t r = 0; r < count; r += kLanes)
    vg_row_dots(dout + r * a.lddout, a.lddout, o + r * a.ldo, a.ldo, vg_min64(kLanes, count - r), d, delta + r);

  vg_stage_rows(q, a.ldq, count, d, 1.0f, m.q);
  vg_stage_rows(dout, a.lddout, count, d, 1.0f, m.dout);
  vg_pack_nn(q, a.ldq, d, count, m.q_pack);
  vg_pack_nn(dout, a.lddout, d, count, m.dout_pack);
  for (int64_t i = 0; i < blocks; i++) {
    const int64_t keys = cut.keys(i), key = b * a.tk + i * kKeyBlock, padded = vg_round_up(keys, kMR);
    const float *k = a.k + key * a.ldk + h * d, *v = a.v + key * a.ldv + h * d;
    vg_pack_nt(k, a.ldk, keys, d, m.kt_pack);
    vg_pack_nt(v, a.ldv, keys, d, m.vt_pack);
    vg_pack_nn(k, a.ldk, d, keys, m.k_pack);
    for (int64_t r = 0; r < count; r += kGradStripRows) {
      const int64_t n = vg_min64(kGradStripRows, count - r), row = rows.begin + r;
      const int64_t most = vg_max64(0, vg_min64(keys, a.seen(row + n - 1) - i * kKeyBlock));
      float *s = m.s + r * kKeyStride, *dp = m.dp + r * kKeyStride;
      vg_scores(m.q + r * kKeyStride, n, m.kt_pack, most, d, s, coming);
      vg_scores(m.dout + r * kKeyStride, n, m.vt_pack, most, d, dp, coming);
      for (int64_t x = 0; x < n; x++) {
        const int64_t seen = vg_max64(0, vg_min64(keys, a.seen(row + x) - i * kKeyBlock));
        vg_attention_row_grad(s + x * kKeyStride, dp + x * kKeyStride, seen, padded, a.scale, a.lse[unit * a.tq + row + x], delta[r + x],
                              drop, a.drop_index(unit, row + x) + i * kKeyBlock);
      }
      for (int64_t c = 0; c < cut.col_blocks(); c++) {
        vg_rows_times(dp, n, m.k_pack + c * kColBlock * keys, keys, cut.cols(c), most, m.product, false, coming);
        vg_unstage_rows(m.product, n, cut.cols(c), a.dq + (first + r) * a.lddq + h * d + c * kColBlock, a.lddq, i > 0);
      }
    }
    for (int64_t c = 0; c < cut.col_blocks(); c++) {
      const int64_t cols = cut.cols(c), to = h * d + c * kColBlock;
      vg_cols_times(m.s, keys, m.dout_pack + c * kColBlock * count, cols, count, m.product, coming);
      vg_unstage_rows(m.product, keys, cols, a.dv + key * a.lddv + to, a.lddv, i < written);
      vg_cols_times(m.dp, keys, m.q_pack + c * kColBlock * count, cols, count, m.product, coming);
      vg_unstage_rows(m.product, keys, cols, a.dk + key * a.lddk + to, a.lddk, i < written);
    }
  }
  return blocks;
}

// Zeros rows `from` to `to` of a head in a matrix.
VG_FN void vg_zero_rows(float* p, int64_t ld, int64_t cols, int64_t from, int64_t to) {
  for (int64_t r = from; r < to; r++) __builtin_memset(p + r * ld, 0, sizeof(float) * (size_t)cols);
}

VG_NOINLINE void vg_attention_grad_head(const vg_call& call, const vg_attention_grad_args& a, int64_t b, int64_t h,
                                        const vg_dropout& drop, vg_coming* coming) {
  const vg_attention_cut cut(a);
  int64_t written = 0;
  for (int64_t i = 0; i < cut.query_blocks(); i++)
    written = vg_attention_grad_block(call, a, b, h, cut.query_rows(i), written, drop, coming);
  // Keys that no query sees.
  vg_zero_rows(a.dk + b * a.tk * a.lddk + h * a.head_dim, a.lddk, a.head_dim, written * kKeyBlock, a.tk);
  vg_zero_rows(a.dv + b * a.tk * a.lddv + h * a.head_dim, a.lddv, a.head_dim, written * kKeyBlock, a.tk);
}

VG_END
