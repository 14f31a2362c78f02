// Attention whose heads share keys and values, both of them the tokens x, as
// absorbed projections leave it: heads are as wide as x, and query rows are few.
//
//   S_h = scale Q_h X^T,  P_h = softmax(S_h),  O_h = dropout(P_h) X
//
// The heads of one query row make up the rows of A, so X is read once for all of
// them, in place. Scores of a panel of heads lie as attention.h has those of query
// rows, and softmax and its gradient are the same.
#pragma once
#include "attention_tiles.h"
#include "heads.h"

VG_BEGIN

// In vg_attention_shape head_dim is the width of x. Head h of query row i of sample
// b: q + (b*tq + i)*ldq + h*head_dim, and alike in o and its gradient. With sums o has
// behind its heads' columns one for each: what the weights sum up to after dropout.
struct vg_latent_shape : vg_attention_shape {
  bool sums;
  const float *q, *x;
  int64_t ldq, ldx;

  // Into how many panels the heads are cut, of `most` or fewer.
  VG_FN int64_t panels(int64_t most) const { return vg_ceil_div(heads, most); }
  VG_FN int64_t drop_row(int64_t b, int64_t h, int64_t i) const { return drop_index(b * heads + h, i); }
};

struct vg_latent_args : vg_latent_shape {
  float* o;
  int64_t ldo;
  float* lse;  // may be NULL
};

struct vg_latent_grad_args : vg_latent_shape {
  const float *o, *lse, *dout;
  int64_t ldo, lddout;
  float *dq, *dx;
  int64_t lddq, lddx;
};

constexpr int64_t kScorePanel = kMR * kKeyStride;  // scores of a panel of heads with a block of keys

// What one panel works in.
struct vg_latent_buffers {
  float *s, *ds, *tile, *pack, *pack_q;
  VG_FN vg_latent_buffers(const vg_call& call, int64_t key_blocks) {
    vg_bump m = {(float*)call.scratch()};
    tile = m.take(kMR * kNR);
    pack = m.take(kKeyBlock * kNR), pack_q = m.take(kMR * kNR);
    s = m.take(key_blocks * kScorePanel), ds = m.take(key_blocks * kScorePanel);
  }
};

// Products of `rows` heads, D apart, with all keys that are seen, times factor.
VG_FN void vg_latent_scores(const vg_latent_shape& a, const float* q, int64_t rows, const float* x, int64_t seen,
                            float factor, float* s) {
  for (int64_t j = 0; j < seen; j += kKeyBlock, s += kScorePanel)
    vg_dots(q, a.head_dim, rows, x + j * a.ldx, a.ldx, vg_min64(kKeyBlock, seen - j), a.head_dim, factor, s, kKeyStride);
}

// tile = columns from `col` on of P X.
VG_FN void vg_latent_mix(const vg_latent_shape& a, const float* p, int64_t rows, const float* x, int64_t seen,
                         int64_t col, int64_t cols, const vg_latent_buffers& m) {
  for (int64_t j = 0; j < seen; j += kKeyBlock, p += kScorePanel) {
    const int64_t keys = vg_min64(kKeyBlock, seen - j);
    const vg_columns panel(x + j * a.ldx + col, a.ldx, keys, cols, m.pack);
    vg_edge_tile<kKeyStride>(rows, cols, keys, p, 1, panel.p, panel.ld, m.tile, kNR, j > 0);
  }
}

// Sum of a row of scores.
VG_FN float vg_latent_sum(const float* p, int64_t seen) {
  vf sum = 0.0f;
  for (int64_t left = seen; left > 0; left -= kKeyBlock, p += kScorePanel)
    vg_each_vector(vg_at{}, 0, vg_min64(kKeyBlock, left), [&](vg_at at) VG_LAMBDA { sum += vg_load<vf>(p + at.col, at.n); });
  return vg_sum(sum);
}

// Heads h0 .. h0+rows-1 of query row i of sample b.
VG_NOINLINE void vg_latent_panel(const vg_call& call, const vg_latent_args& a, int64_t b, int64_t i, int64_t h0,
                                 int64_t rows, const vg_dropout& drop) {
  const vg_latent_buffers m(call, vg_ceil_div(a.tk, kKeyBlock));
  const int64_t d = a.head_dim, row = b * a.tq + i, seen = a.seen(i);
  const float* x = a.x + b * a.tk * a.ldx;
  float* o = a.o + row * a.ldo;
  float inv[kLanes], lse[kLanes];
  vg_latent_scores(a, a.q + row * a.ldq + h0 * d, rows, x, seen, a.scale * kLog2E, m.s);
  vg_attention_softmax(a, m.s, kScorePanel, seen, {i, 0, a.drop_row(b, h0, i), (int64_t)a.q_total * a.tk},
                       (int)rows, drop, inv, lse);
  for (int64_t r = 0; r < rows; r++) {
    if (a.lse) a.lse[(b * a.heads + h0 + r) * a.tq + i] = lse[r];
    // Without dropout it is 1, and exactly so: forward passes without sums rely on it.
    if (a.sums) o[a.heads * d + h0 + r] = drop.on() ? vg_latent_sum(m.s + r * kKeyStride, seen) * inv[r] : 1.0f;
  }
  for (int64_t col = 0; col < d; col += kNR) {
    const int64_t cols = vg_min64(kNR, d - col);
    vg_latent_mix(a, m.s, rows, x, seen, col, cols, m);
    for (int64_t r = 0; r < rows; r++)
      vg_each_vector(vg_at{}, 0, cols, [&](vg_at at) VG_LAMBDA {
        vg_store(o + (h0 + r) * d + col + at.col, vg_load_full(m.tile + r * kNR + at.col) * vf(inv[r]), at.n);
      });
  }
}

VG_NOINLINE void vg_latent_attention(const vg_call& call, const vg_latent_args& a) {
  const vg_dropout drop(call.step(), a.drop_site, a.drop_thr);
  // Heads are independent here: where samples are few, fewer pass together.
  const int64_t units = (int64_t)call.batch() * a.tq, share = vg_ceil_div(units * a.heads, call.count());
  const int64_t most = vg_min64(kMR, share), panels = a.panels(most);
  const vg_range mine = call.share(units * panels);
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t row = u / panels;
    const vg_range heads = vg_share(a.heads, u % panels, panels);
    vg_latent_panel(call, a, row / a.tq, row % a.tq, heads.begin, heads.end - heads.begin, drop);
  }
}

// Scores of a panel to dropout(P), and dP to dS.
VG_NOINLINE void vg_latent_softmax_grad(const vg_latent_grad_args& a, int64_t b, int64_t i, int64_t h0, int64_t rows,
                                        const vg_dropout& drop, const vg_latent_buffers& m) {
  const int64_t d = a.head_dim, row = b * a.tq + i, seen = a.seen(i);
  const float *o = a.o + row * a.ldo, *dout = a.dout + row * a.lddout;
  float delta[kLanes];
  vg_row_dots(dout + h0 * d, d, o + h0 * d, d, rows, d, delta);
  for (int64_t r = 0; r < rows; r++) {
    const int64_t h = h0 + r;
    const float dsum = a.sums ? dout[a.heads * d + h] : 0.0f;
    if (a.sums) delta[r] += dsum * o[a.heads * d + h];
    for (int64_t j = 0, at = r * kKeyStride; j < seen; j += kKeyBlock, at += kScorePanel) {
      const int64_t keys = vg_min64(kKeyBlock, seen - j);
      for (int64_t k = 0; a.sums && k < keys; k++) m.ds[at + k] += dsum;
      vg_attention_row_grad(m.s + at, m.ds + at, keys, vg_round_up(keys, kMR), a.scale, a.lse[(b * a.heads + h) * a.tq + i],
                            delta[r], drop, a.drop_row(b, h, i) + j);
    }
  }
}

// Columns of dX for all keys that are seen: dropout(P)^T dO + dS^T Q.
VG_FN void vg_latent_scatter(const vg_latent_grad_args& a, const float* dout, const float* q, int64_t rows, int64_t seen,
                             int64_t col, int64_t cols, bool add, float* dx, const vg_latent_buffers& m) {
  const vg_columns by_p(dout + col, a.head_dim, rows, cols, m.pack);
  const vg_columns by_ds(q + col, a.head_dim, rows, cols, m.pack_q);
  for (int64_t j = 0, keys; j < seen; j += keys) {
    const int64_t in = j % kKeyBlock, at = j / kKeyBlock * kScorePanel + in;
    keys = vg_min64(kMR, vg_min64(seen - j, kKeyBlock - in));
    vg_edge_tile<1>(keys, cols, rows, m.s + at, kKeyStride, by_p.p, by_p.ld, m.tile, kNR, false);
    vg_edge_tile<1>(keys, cols, rows, m.ds + at, kKeyStride, by_ds.p, by_ds.ld, m.tile, kNR, true);
    for (int64_t r = 0; r < keys; r++)
      vg_each_vector(vg_at{}, 0, cols, [&](vg_at v) VG_LAMBDA {
        float* to = dx + (j + r) * a.lddx + col + v.col;
        const vf y = vg_load_full(m.tile + r * kNR + v.col);
        vg_store(to, add ? vg_load<vf>(to, v.n) + y : y, v.n);
      });
  }
}

// dQ of heads h0 .. h0+rows-1 of query row i, and their share in dX, stored or added.
VG_NOINLINE void vg_latent_grad_panel(const vg_call& call, const vg_latent_grad_args& a, int64_t b, int64_t i,
                                      int64_t h0, int64_t rows, bool add, const vg_dropout& drop) {
  const vg_latent_buffers m(call, vg_ceil_div(a.tk, kKeyBlock));
  const int64_t d = a.head_dim, row = b * a.tq + i, seen = a.seen(i);
  const float* x = a.x + b * a.tk * a.ldx;
  const float *q = a.q + row * a.ldq + h0 * d, *dout = a.dout + row * a.lddout + h0 * d;
  float *dq = a.dq + row * a.lddq + h0 * d, *dx = a.dx + b * a.tk * a.lddx;
  vg_latent_scores(a, q, rows, x, seen, 1.0f, m.s);
  vg_latent_scores(a, dout, rows, x, seen, 1.0f, m.ds);
  vg_latent_softmax_grad(a, b, i, h0, rows, drop, m);
  for (int64_t col = 0; col < d; col += kNR) {
    const int64_t cols = vg_min64(kNR, d - col);
    vg_latent_mix(a, m.ds, rows, x, seen, col, cols, m);
    for (int64_t r = 0; r < rows; r++)
      vg_each_vector(vg_at{}, 0, cols, [&](vg_at at) VG_LAMBDA {
        vg_store(dq + r * d + col + at.col, vg_load_full(m.tile + r * kNR + at.col), at.n);
      });
    vg_latent_scatter(a, dout, q, rows, seen, col, cols, add, dx, m);
  }
}

// dq and dx are written in full.
VG_NOINLINE void vg_latent_attention_grad(const vg_call& call, const vg_latent_grad_args& a) {
  const vg_dropout drop(call.step(), a.drop_site, a.drop_thr);
  const int64_t panels = a.panels(kMR);
  const vg_range mine = call.share(call.batch());
  for (int64_t b = mine.begin; b < mine.end; b++)
    for (int64_t u = 0; u < a.tq * panels; u++) {
      const vg_range heads = vg_share(a.heads, u % panels, panels);
      vg_latent_grad_panel(call, a, b, u / panels, heads.begin, heads.end - heads.begin, u > 0, drop);
      if (u == 0) vg_zero_rows(a.dx + b * a.tk * a.lddx, a.lddx, a.head_dim, a.seen(0), a.tk);
    }
}

VG_END
