// Scaled dot-product attention over whole sequences, forward and backward.
//
//   S = scale Q K^T,  P = softmax(S),  O = dropout(P) V,  lse = log sum exp S
//
// The forward pass keeps lse, and the backward pass recomputes P = exp(S - lse)
// and the dropout mask, so nothing of size Tq x Tk is ever stored.
//
// One unit of work is a block of query rows of one head of one sample
// (forward), or a whole head (backward: its blocks add to the same dK and dV,
// in order). Keys come in blocks of kKeyBlock, and S is kept as one kKeyStride-strided
// matrix a key block, which is exactly what the micro-kernel of tile.h reads as
// an A operand, straight (P V, dS K) or transposed (P^T dO, dS^T Q). For the
// usual few hundred tokens a head is one or two such blocks and lives in L2.
// Softmax is exact over the row, not online.
#pragma once
#include "dropout.h"
#include "math.h"
#include "tile.h"

VG_BEGIN

constexpr int kKeyBlock = 256;                   // keys in a block
constexpr int kKeyStride = kKeyBlock + 16;       // off a power of two, so that rows do not share cache sets
constexpr int64_t kMaxHeadDim = kKeyBlock;
constexpr int64_t kMaxTokens = 16384;
constexpr int64_t kQueryPanels = 16;             // most row panels in a query block
constexpr int64_t kScoreBytes = 3 << 19;         // S of a query block, all keys
constexpr int64_t kRowsSize = kQueryPanels * kMR * kKeyStride;
constexpr int64_t kPackSize = kKeyBlock * kKeyBlock;
static_assert(kKeyBlock % kNR == 0 && kKeyBlock + kMR <= kKeyStride && kKeyStride % kLanes == 0, "S is read in whole tiles");

// Row of q: b*tq + i, at q + row*ldq + h*head_dim; rows of k and v: b*tk + j;
// lse[(b*heads + h)*tq + i]. Query row i stands at token q_first + i of q_total
// (they differ from i and tq when only some rows are computed): key j is seen
// if !causal or j <= q_first + i, and the dropout index of a weight is
// ((b*heads + h)*q_total + q_first + i)*tk + j. drop_thr 0: no dropout.
struct vg_attention_shape {
  int heads, head_dim, tq, tk, q_first, q_total;
  float scale;
  bool causal;
  uint32_t drop_site, drop_thr;

  VG_FN int64_t key_blocks() const { return vg_ceil_div(tk, kKeyBlock); }
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
  // How many keys query row i sees.
  VG_FN int64_t seen(int64_t i) const { return causal ? vg_min64(tk, q_first + i + 1) : tk; }
  VG_FN int64_t drop_index(int64_t unit, int64_t i) const { return (unit * q_total + q_first + i) * tk; }
};

struct vg_attention_args : vg_attention_shape {
  const float *q, *k, *v;
  int64_t ldq, ldk, ldv;
  float* o;
  int64_t ldo;
  float* lse;  // may be NULL
};

struct vg_attention_grad_args : vg_attention_shape {
  const float *q, *k, *v, *o, *lse, *dout;
  int64_t ldq, ldk, ldv, ldo, lddout;
  float *dq, *dk, *dv;
  int64_t lddq, lddk, lddv;
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

// Rows as an A operand: stride kKeyStride. Rows beyond are what lay there: they
// only meet results that nobody reads.
VG_NOINLINE void vg_stage_rows(const float* src, int64_t ld, int64_t rows, int64_t cols, float* out) {
  for (int64_t r = 0; r < rows; r++)
    vg_each_vector(vg_at{}, 0, cols, [&](vg_at at) VG_LAMBDA {
      vg_store_full(out + r * kKeyStride + at.col, vg_load<vf>(src + r * ld + at.col, at.n));
    });
}

// And back: out = or += the rows of a result. factor(r): what row r is
// multiplied by.
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

// out = A B for A with `rows` staged rows and B packed.
VG_FN void vg_rows_times(const float* a, int64_t rows, const float* b, int64_t n, int64_t k, float* out, bool add) {
  vg_small_tiles<kKeyStride>(rows, n, k, a, kMR * kKeyStride, 1, b, out, kKeyStride, add);
}
// out = A^T B for A with k staged rows, m columns of which are used.
VG_FN void vg_cols_times(const float* a, int64_t m, const float* b, int64_t n, int64_t k, float* out) {
  vg_small_tiles<1>(m, n, k, a, kMR, kKeyStride, b, out, kKeyStride, false);
}

VG_FN void vg_zero_cols(float* row, int64_t from, int64_t to) {
  for (int64_t c = vg_round_up(from, kLanes); c < to; c += kLanes) vg_store_full(row + c, vf(0.0f));
}

// Softmax of at most kLanes rows of S, in blocks `stride` apart; query rows from
// `first` on. A row becomes dropout(exp(S - its maximum)) over the columns it
// sees, and zero beyond; what it sums up to without dropout comes out inverted,
// for O to be multiplied by.
VG_NOINLINE void vg_attention_softmax(const vg_attention_shape& s, float* row, int64_t stride, int64_t blocks,
                                      int64_t first, int rows, const vg_dropout& drop, int64_t drop_index, float* inv, float* lse) {
  const vf scale = s.scale;
  vf part[kLanes];
  float top[kLanes];
  for (int r = 0; r < kLanes; r++) part[r] = vf(-__builtin_inff());
  for (int r = 0; r < rows; r++)
    for (int64_t b = 0, left = s.seen(first + r); left > 0; b++, left -= kKeyBlock)
      vg_each_vector(vg_at{}, 0, vg_min64(kKeyBlock, left), [&](vg_at at) VG_LAMBDA {
        const vf x = vg_load_full(row + r * kKeyStride + b * stride + at.col) * scale;
        part[r] = vg_max(at.n < kLanes ? vg_keep(x, at.n, -__builtin_inff()) : x, part[r]);
      });
  const vf most = vg_max_rows(part);
  vg_store_full(top, most);
  for (int r = 0; r < rows; r++) {
    const vf base = -top[r];
    vf sum = 0.0f;
    for (int64_t b = 0, left = s.seen(first + r); left > 0; b++, left -= kKeyBlock)
      vg_each_vector(vg_at{}, 0, vg_min64(kKeyBlock, left), [&](vg_at at) VG_LAMBDA {
        float* p = row + r * kKeyStride + b * stride + at.col;
        vf e = vg_exp_below(vg_fma(vg_load_full(p), scale, base));
        if (at.n < kLanes) e = vg_keep(e, at.n, 0.0f);
        sum += e;
        vg_store_full(p, e * drop.scale<vf>(drop_index + r * s.tk + b * kKeyBlock + at.col, at.n));
      });
    part[r] = sum;
    for (int64_t b = 0; s.causal && b < blocks; b++)
      vg_zero_cols(row + r * kKeyStride + b * stride, vg_max64(0, s.seen(first + r) - b * kKeyBlock), s.keys(b));
  }
  for (int r = rows; r < kLanes; r++) part[r] = vf(1.0f);
  const vf total = vg_sum_rows(part);
  vg_store_full(inv, vf(1.0f) / total);
  if (lse) vg_store(lse, most + vg_log(total), rows);
}

// The query rows [rows) of head h of sample b.
VG_NOINLINE void vg_attention_block(const vg_call& call, const vg_attention_args& a, int64_t b, int64_t h,
                                    vg_range rows, const vg_dropout& drop) {
  vg_bump scratch = {(float*)call.scratch()};
  float *q = scratch.take(kRowsSize), *o = scratch.take(kRowsSize), *pack = scratch.take(kPackSize);
  float* s = scratch.next;
  const int64_t count = rows.end - rows.begin, d = a.head_dim, unit = b * a.heads + h;
  const int64_t stride = vg_round_up(count, kMR) * kKeyStride;
  const int64_t blocks = vg_ceil_div(a.seen(rows.end - 1), kKeyBlock);
  const float* k = a.k + b * a.tk * a.ldk + h * d;
  const float* v = a.v + b * a.tk * a.ldv + h * d;

  vg_stage_rows(a.q + (b * a.tq + rows.begin) * a.ldq + h * d, a.ldq, count, d, q);
  for (int64_t i = 0; i < blocks; i++) {
    vg_pack_nt(k + i * kKeyBlock * a.ldk, a.ldk, a.keys(i), d, pack);
    vg_rows_times(q, count, pack, a.keys(i), d, s + i * stride, false);
  }
  float inv[kQueryPanels * kMR + kLanes];
  for (int64_t r = 0; r < count; r += kLanes) {
    const int64_t i = rows.begin + r;
    vg_attention_softmax(a, s + r * kKeyStride, stride, blocks, i, (int)vg_min64(kLanes, count - r), drop,
                         a.drop_index(unit, i), inv + r, a.lse ? a.lse + unit * a.tq + i : nullptr);
  }
  for (int64_t i = 0; i < blocks; i++) {
    vg_pack_nn(v + i * kKeyBlock * a.ldv, a.ldv, d, a.keys(i), pack);
    vg_rows_times(s + i * stride, count, pack, d, a.keys(i), o, i > 0);
  }
  vg_unstage_rows(o, count, d, a.o + (b * a.tq + rows.begin) * a.ldo + h * d, a.ldo, false,
                  [&](int64_t r) VG_LAMBDA { return vf(inv[r]); });
}

// One row of one key block, from S and dP = dO V^T to dropout(P) and
// dS = scale P (dP m - delta), m the dropout multiplier. Columns seen .. padded
// become zero.
VG_NOINLINE void vg_attention_row_grad(float* s, float* dp, int64_t seen, int64_t padded, float scale, float lse,
                                       float delta, const vg_dropout& drop, int64_t drop_index) {
  const vf base = -lse, off = delta, factor = scale;
  vg_each_vector(vg_at{}, 0, seen, [&](vg_at at) VG_LAMBDA {
    const vf m = drop.scale<vf>(drop_index + at.col, at.n);
    const vf p = vg_exp_below(vg_fma(vg_load_full(s + at.col), factor, base));
    vf dropped = p * m;
    vf ds = factor * p * (vg_load_full(dp + at.col) * m - off);
    if (at.n < kLanes) {
      dropped = vg_keep(dropped, at.n, 0.0f);
      ds = vg_keep(ds, at.n, 0.0f);
    }
    vg_store_full(s + at.col, dropped);
    vg_store_full(dp + at.col, ds);
  });
  vg_zero_cols(s, seen, padded);
  vg_zero_cols(dp, seen, padded);
}

// out[r] = the product of rows a_r and b_r, for at most kLanes rows.
VG_FN void vg_row_dots(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t rows, int64_t n, float* out) {
  vf part[kLanes];
  for (int64_t r = 0; r < kLanes; r++) part[r] = vf(0.0f);
  for (int64_t r = 0; r < rows; r++)
    vg_each_vector(vg_at{}, 0, n, [&](vg_at at) VG_LAMBDA {
      part[r] += vg_load<vf>(a + r * lda + at.col, at.n) * vg_load<vf>(b + r * ldb + at.col, at.n);
    });
  vg_store(out, vg_sum_rows(part), (int)rows);
}

// What the backward pass of one block of query rows works in.
struct vg_attention_buffers {
  float *q, *dout, *dq;            // staged rows
  float *q_pack, *dout_pack;       // the same rows as B operands
  float *s, *dp, *pack, *product;  // one key block

  VG_FN explicit vg_attention_buffers(vg_bump m) {
    q = m.take(kRowsSize), dout = m.take(kRowsSize), dq = m.take(kRowsSize);
    q_pack = m.take(kRowsSize), dout_pack = m.take(kRowsSize);
    s = m.take(kRowsSize), dp = m.take(kRowsSize), pack = m.take(kPackSize);
    product = m.take((kKeyBlock + kMR) * kKeyStride);
  }
};

// The share of query rows [rows) in dK and dV of head h: added to those of the
// first `written` key blocks, and stored as those of the others. Writes dQ.
// Returns how many key blocks there are values of now.
VG_NOINLINE int64_t vg_attention_grad_block(const vg_call& call, const vg_attention_grad_args& a, int64_t b, int64_t h,
                                            vg_range rows, int64_t written, const vg_dropout& drop) {
  const vg_attention_buffers m(vg_bump{(float*)call.scratch()});
  const int64_t count = rows.end - rows.begin, d = a.head_dim, unit = b * a.heads + h, first = b * a.tq + rows.begin;
  const float* q = a.q + first * a.ldq + h * d;
  const float* dout = a.dout + first * a.lddout + h * d;
  const float* o = a.o + first * a.ldo + h * d;
  const int64_t blocks = vg_ceil_div(a.seen(rows.end - 1), kKeyBlock);
  float delta[kQueryPanels * kMR];
  for (int64_t r = 0; r < count; r += kLanes)
    vg_row_dots(dout + r * a.lddout, a.lddout, o + r * a.ldo, a.ldo, vg_min64(kLanes, count - r), d, delta + r);

  vg_stage_rows(q, a.ldq, count, d, m.q);
  vg_stage_rows(dout, a.lddout, count, d, m.dout);
  vg_pack_nn(q, a.ldq, d, count, m.q_pack);
  vg_pack_nn(dout, a.lddout, d, count, m.dout_pack);
  for (int64_t i = 0; i < blocks; i++) {
    const int64_t keys = a.keys(i), key = b * a.tk + i * kKeyBlock, padded = vg_round_up(keys, kMR);
    const float* k = a.k + key * a.ldk + h * d;
    vg_pack_nt(k, a.ldk, keys, d, m.pack);
    vg_rows_times(m.q, count, m.pack, keys, d, m.s, false);
    vg_pack_nt(a.v + key * a.ldv + h * d, a.ldv, keys, d, m.pack);
    vg_rows_times(m.dout, count, m.pack, keys, d, m.dp, false);
    for (int64_t r = 0; r < count; r++) {
      const int64_t row = rows.begin + r, seen = vg_max64(0, vg_min64(keys, a.seen(row) - i * kKeyBlock));
      vg_attention_row_grad(m.s + r * kKeyStride, m.dp + r * kKeyStride, seen, padded, a.scale, a.lse[unit * a.tq + row], delta[r],
                            drop, a.drop_index(unit, row) + i * kKeyBlock);
    }
    vg_cols_times(m.s, keys, m.dout_pack, d, count, m.product);
    vg_unstage_rows(m.product, keys, d, a.dv + key * a.lddv + h * d, a.lddv, i < written);
    vg_cols_times(m.dp, keys, m.q_pack, d, count, m.product);
    vg_unstage_rows(m.product, keys, d, a.dk + key * a.lddk + h * d, a.lddk, i < written);
    vg_pack_nn(k, a.ldk, d, keys, m.pack);
    vg_rows_times(m.dp, count, m.pack, d, keys, m.dq, i > 0);
  }
  vg_unstage_rows(m.dq, count, d, a.dq + first * a.lddq + h * d, a.lddq, false);
  return blocks;
}

// Zeros rows `from` to `to` of a head in a matrix.
VG_FN void vg_zero_rows(float* p, int64_t ld, int64_t cols, int64_t from, int64_t to) {
  for (int64_t r = from; r < to; r++) __builtin_memset(p + r * ld, 0, sizeof(float) * (size_t)cols);
}

// Few query rows, as where the last block computes the class token alone: each is
// a pass over keys and values where they lie. Packing would cost more than
// the products.
constexpr int64_t kFewRows = 2;

// out[j] = q k_j for n rows of a matrix; writes whole vectors.
VG_NOINLINE void vg_key_dots(const float* q, const float* k, int64_t ldk, int64_t n, int64_t d, float* out) {
  for (int64_t j = 0; j < n; j += kLanes) vg_row_dots(q, 0, k + j * ldk, ldk, vg_min64(kLanes, n - j), d, out + j);
}

// out = factor sum of p_j v_j.
VG_NOINLINE void vg_weighted_rows(const float* p, const float* v, int64_t ldv, int64_t n, int64_t d, float factor, float* out) {
  vg_each_vector(vg_at{}, 0, d, [&](vg_at at) VG_LAMBDA {
    vf sum = 0.0f;
    for (int64_t j = 0; j < n; j++) sum = vg_fma(vf(p[j]), vg_load<vf>(v + j * ldv + at.col, at.n), sum);
    vg_store(out + at.col, sum * vf(factor), at.n);
  });
}

// Rows out_j = or += p_j x.
VG_NOINLINE void vg_outer_rows(const float* p, const float* x, int64_t n, int64_t d, float* out, int64_t ld, bool add) {
  vg_each_vector(vg_at{}, 0, d, [&](vg_at at) VG_LAMBDA {
    const vf v = vg_load<vf>(x + at.col, at.n);
    for (int64_t j = 0; j < n; j++) {
      float* to = out + j * ld + at.col;
      const vf y = v * vf(p[j]);
      vg_store(to, add ? vg_load<vf>(to, at.n) + y : y, at.n);
    }
  });
}

// Query row i of head h of sample b.
VG_NOINLINE void vg_attention_row(const vg_call& call, const vg_attention_args& a, int64_t b, int64_t h, int64_t i,
                                  const vg_dropout& drop) {
  float* s = (float*)call.scratch();
  const int64_t d = a.head_dim, unit = b * a.heads + h, row = b * a.tq + i, seen = a.seen(i);
  float inv[kLanes];
  vg_key_dots(a.q + row * a.ldq + h * d, a.k + b * a.tk * a.ldk + h * d, a.ldk, seen, d, s);
  vg_attention_softmax(a, s, kKeyBlock, 0, i, 1, drop, a.drop_index(unit, i), inv, a.lse ? a.lse + unit * a.tq + i : nullptr);
  vg_weighted_rows(s, a.v + b * a.tk * a.ldv + h * d, a.ldv, seen, d, inv[0], a.o + row * a.ldo + h * d);
}

// The same row's share in dK and dV, added for all rows but the first, and its dQ.
VG_NOINLINE void vg_attention_grad_row(const vg_call& call, const vg_attention_grad_args& a, int64_t b, int64_t h,
                                       int64_t i, const vg_dropout& drop) {
  float *s = (float*)call.scratch(), *dp = s + kMaxTokens;
  const int64_t d = a.head_dim, unit = b * a.heads + h, row = b * a.tq + i, key = b * a.tk, seen = a.seen(i);
  const float *q = a.q + row * a.ldq + h * d, *k = a.k + key * a.ldk + h * d;
  const float *dout = a.dout + row * a.lddout + h * d, *o = a.o + row * a.ldo + h * d;
  float delta;
  vg_row_dots(dout, 0, o, 0, 1, d, &delta);
  vg_key_dots(q, k, a.ldk, seen, d, s);
  vg_key_dots(dout, a.v + key * a.ldv + h * d, a.ldv, seen, d, dp);
  vg_attention_row_grad(s, dp, seen, a.tk, a.scale, a.lse[unit * a.tq + i], delta, drop, a.drop_index(unit, i));
  vg_outer_rows(s, dout, a.tk, d, a.dv + key * a.lddv + h * d, a.lddv, i > 0);
  vg_outer_rows(dp, q, a.tk, d, a.dk + key * a.lddk + h * d, a.lddk, i > 0);
  vg_weighted_rows(dp, k, a.ldk, seen, d, 1.0f, a.dq + row * a.lddq + h * d);
}

VG_NOINLINE void vg_attention(const vg_call& call, const vg_attention_args& a) {
  const int64_t blocks = a.tq <= kFewRows ? a.tq : a.query_blocks();
  const vg_dropout drop(call.step(), a.drop_site, a.drop_thr);
  const vg_range mine = call.share((int64_t)call.batch() * a.heads * blocks);
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t unit = u / blocks, b = unit / a.heads, h = unit % a.heads;
    if (a.tq <= kFewRows)
      vg_attention_row(call, a, b, h, u % blocks, drop);
    else
      vg_attention_block(call, a, b, h, a.query_rows(u % blocks), drop);
  }
}

// dq, dk and dv are written in full.
VG_NOINLINE void vg_attention_grad(const vg_call& call, const vg_attention_grad_args& a) {
  const vg_dropout drop(call.step(), a.drop_site, a.drop_thr);
  const vg_range mine = call.share((int64_t)call.batch() * a.heads);
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t b = u / a.heads, h = u % a.heads, d = a.head_dim;
    if (a.tq <= kFewRows) {
      for (int64_t i = 0; i < a.tq; i++) vg_attention_grad_row(call, a, b, h, i, drop);
      continue;
    }
    int64_t written = 0;
    for (int64_t i = 0; i < a.query_blocks(); i++)
      written = vg_attention_grad_block(call, a, b, h, a.query_rows(i), written, drop);
    // Keys that no query sees.
    vg_zero_rows(a.dk + b * a.tk * a.lddk + h * d, a.lddk, d, written * kKeyBlock, a.tk);
    vg_zero_rows(a.dv + b * a.tk * a.lddv + h * d, a.lddv, d, written * kKeyBlock, a.tk);
  }
}

VG_END
