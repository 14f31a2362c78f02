// Attention of few query rows, as where the last block computes the class token
// alone: each is a pass over keys and values where they lie. Packing would cost
// more than the products.
#pragma once
#include "attention_head.h"

VG_BEGIN

// out[j] = q k_j for n rows of a matrix; writes whole vectors.
VG_NOINLINE void vg_key_dots(const float* q, const float* k, int64_t ldk, int64_t n, int64_t d, float factor, float* out) {
  for (int64_t j = 0; j < n; j += kLanes) {
    vg_row_dots(q, 0, k + j * ldk, ldk, vg_min64(kLanes, n - j), d, out + j);
    vg_store_full(out + j, vg_load_full(out + j) * vf(factor));
  }
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
  vg_key_dots(a.q + row * a.ldq + h * d, a.k + b * a.tk * a.ldk + h * d, a.ldk, seen, d, a.scale * kLog2E, s);
  vg_attention_softmax(a, s, kKeyBlock, 0, {i, 0, a.drop_index(unit, i), 0}, 1, drop, inv, a.lse ? a.lse + unit * a.tq + i : nullptr);
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
  vg_key_dots(q, k, a.ldk, seen, d, 1.0f, s);
  vg_key_dots(dout, a.v + key * a.ldv + h * d, a.ldv, seen, d, 1.0f, dp);
  vg_attention_row_grad(s, dp, seen, a.tk, a.scale, a.lse[unit * a.tq + i], delta, drop, a.drop_index(unit, i));
  vg_outer_rows(s, dout, a.tk, d, a.dv + key * a.lddv + h * d, a.lddv, i > 0);
  vg_outer_rows(dp, q, a.tk, d, a.dk + key * a.lddk + h * d, a.lddk, i > 0);
  vg_weighted_rows(dp, k, a.ldk, seen, d, 1.0f, a.dq + row * a.lddq + h * d);
}

VG_END
