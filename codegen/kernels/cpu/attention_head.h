// What every way of computing attention shares: its arguments, softmax and its
// gradient over rows, and fetching.
//
//   S = scale Q K^T,  P = softmax(S),  O = dropout(P) V,  lse = log sum exp S
//
// The forward pass keeps lse, and the backward pass recomputes P = exp(S - lse)
// and the dropout mask, so nothing of size Tq x Tk is ever stored.
#pragma once
#include "call.h"
#include "dropout.h"
#include "math.h"

VG_BEGIN

constexpr int64_t kMaxHeadDim = 512;
constexpr int64_t kMaxTokens = 16384;
constexpr int kKeyBlock = 256;              // keys in a block
constexpr int kKeyStride = kKeyBlock + 16;  // from row to row of its scores: off a power of two, so that rows do not share cache sets
constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

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

// Rows of a head that are wanted soon: fetched into L2 a few at a time, between the
// tiles of products that leave memory idle. They are short and far apart, so the
// hardware foresees none of them.
struct vg_coming {
  struct part {
    const float* p;
    int64_t ld, rows;
  };
  int64_t cols;
  int count = 0;
  part parts[8] = {};

  // Head `unit` of a matrix of `rows` rows a sample; the last one added comes first.
  VG_FN void add_head(const vg_attention_shape& s, int64_t unit, const float* p, int64_t ld, int64_t rows) {
    parts[count++] = {p + unit / s.heads * rows * ld + unit % s.heads * s.head_dim, ld, rows};
  }
  // A line for every four steps of a tile.
  VG_NOINLINE void fetch(int64_t steps) {
    for (; steps > 0 && count > 0; steps -= vg_max64(1, cols / 4)) {
      part& from = parts[count - 1];
      if (from.rows == 0) {
        count--;
        continue;
      }
      for (int64_t c = 0; c < cols; c += 16) __builtin_prefetch(from.p + c, 0, 2);
      from.p += from.ld;
      from.rows--;
    }
  }
};

VG_FN void vg_zero_cols(float* row, int64_t from, int64_t to) {
  for (int64_t c = vg_round_up(from, kLanes); c < to; c += kLanes) vg_store_full(row + c, vf(0.0f));
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

// Which rows pass softmax together: query rows of a head, one after the other, or
// one query row's heads.
struct vg_score_rows {
  int64_t first, step;            // query rows
  int64_t drop_index, drop_step;  // of their first weights
};

// Softmax of at most kLanes rows of S, scores to base 2, in blocks `stride` apart. A
// row becomes dropout(2^(S - its maximum)) over the columns it sees, and zero beyond;
// what it sums up to without dropout comes out inverted, for O to be multiplied by.
VG_NOINLINE void vg_attention_softmax(const vg_attention_shape& s, float* row, int64_t stride, int64_t keys,
                                      const vg_score_rows& of, int rows, const vg_dropout& drop, float* inv, float* lse) {
  vf part[kLanes];
  float top[kLanes];
  for (int r = 0; r < kLanes; r++) part[r] = vf(-__builtin_inff());
  for (int r = 0; r < rows; r++)
    for (int64_t b = 0, left = s.seen(of.first + r * of.step); left > 0; b++, left -= kKeyBlock)
      vg_each_vector(vg_at{}, 0, vg_min64(kKeyBlock, left), [&](vg_at at) VG_LAMBDA {
        const vf x = vg_load_full(row + r * kKeyStride + b * stride + at.col);
        part[r] = vg_max(at.n < kLanes ? vg_keep(x, at.n, -__builtin_inff()) : x, part[r]);
      });
  const vf most = vg_max_rows(part);
  vg_store_full(top, most);
  for (int r = 0; r < rows; r++) {
    const vf base = top[r];
    vf sum = 0.0f;
    for (int64_t b = 0, left = s.seen(of.first + r * of.step); left > 0; b++, left -= kKeyBlock)
      vg_each_vector(vg_at{}, 0, vg_min64(kKeyBlock, left), [&](vg_at at) VG_LAMBDA {
        float* p = row + r * kKeyStride + b * stride + at.col;
        vf e = vg_exp2_below(vg_load_full(p) - base);
        if (at.n < kLanes) e = vg_keep(e, at.n, 0.0f);
        sum += e;
        vg_store_full(p, e * drop.scale<vf>(of.drop_index + r * of.drop_step + b * kKeyBlock + at.col, at.n));
      });
    part[r] = sum;
    for (int64_t b = 0; s.causal && b * kKeyBlock < keys; b++)
      vg_zero_cols(row + r * kKeyStride + b * stride, vg_max64(0, s.seen(of.first + r * of.step) - b * kKeyBlock), vg_min64(kKeyBlock, keys - b * kKeyBlock));
  }
  for (int r = rows; r < kLanes; r++) part[r] = vf(1.0f);
  const vf total = vg_sum_rows(part);
  vg_store_full(inv, vf(1.0f) / total);
  if (lse) vg_store(lse, vg_fma(most, vf(kLn2), vg_log(total)), rows);
}

// One row of one key block, from S and dP = dO V^T to dropout(P) and
// dS = scale P (dP m - delta), m the dropout multiplier. Columns seen .. padded
// become zero.
VG_NOINLINE void vg_attention_row_grad(float* s, float* dp, int64_t seen, int64_t padded, float scale, float lse,
                                       float delta, const vg_dropout& drop, int64_t drop_index) {
  const vf base = -lse, off = delta, factor = scale;
  vg_each_vector(vg_at{}, 0, seen, [&](vg_at at) VG_LAMBDA {
    const vf m = drop.scale<vf>(drop_index + at.col, at.n);
    const vf p = vg_exp2_below(vg_fma(vg_load_full(s + at.col), factor, base) * vf(kLog2E));
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

VG_END
