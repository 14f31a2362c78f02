// Kernels that see a whole row at once: layer norm and its gradient, and
// cross-entropy with its gradient. A row passes through the worker's scratch,
// so sources are read once and every further pass runs in L1. Rows are at most
// kMaxRow wide.
#pragma once
#include "dropout.h"
#include "math.h"
#include "reduce.h"

VG_BEGIN

constexpr int64_t kMaxRow = 1 << 18;

// y = (x - mean) / sqrt(var + eps) * gamma + beta over each row, var the biased
// variance about the computed mean. x: source, y: sink over (row, col), rows of
// T tokens. gamma, beta, mean[rows] and rstd[rows] may be NULL.
template <int T, class X, class Y>
VG_NOINLINE void vg_layernorm(const vg_call& call, int64_t rows, int64_t cols, const X& x, const float* gamma,
                              const float* beta, float eps, float* mean, float* rstd, const Y& y) {
  float* row = (float*)call.scratch();
  const float inv = 1.0f / (float)cols;
  const vg_range mine = call.share(rows);
  for (int64_t r = mine.begin; r < mine.end; r++) {
    const vg_at start = vg_at_row<T>(r);
    vf sum = 0.0f, squares = 0.0f;
    vg_each_vector(start, 0, cols, [&](vg_at at) VG_LAMBDA {
      const vf v = vg_or_zero(vg_value(x, at), at.n);
      vg_store_full(row + at.col, v);
      sum += v;
    });
    const float mu = vg_sum(sum) * inv;
    vg_each_vector(start, 0, cols, [&](vg_at at) VG_LAMBDA {
      const vf d = vg_or_zero(vg_load_full(row + at.col) - vf(mu), at.n);
      vg_store_full(row + at.col, d);
      squares += d * d;
    });
    const float rs = 1.0f / vg_sqrt_scalar(vg_sum(squares) * inv + eps);
    if (mean) mean[r] = mu;
    if (rstd) rstd[r] = rs;
    vg_each_vector(start, 0, cols, [&](vg_at at) VG_LAMBDA {
      vf v = vg_load_full(row + at.col) * vf(rs);
      if (gamma) v *= vg_load<vf>(gamma + at.col, at.n);
      if (beta) v += vg_load<vf>(beta + at.col, at.n);
      y(v, at);
    });
  }
}

// Workspace of vg_layernorm_grad; kernels.LayerNormGradWorkspaceBytes bounds it.
VG_FN int64_t vg_layernorm_grad_workspace(int64_t rows, int64_t cols) { return 2 * vg_column_sum_workspace(rows, cols); }

// The gradient of vg_layernorm, with h = (x - mean) rstd and g = dy gamma:
//   dx = rstd (g - avg(g) - h avg(g h)),  dgamma = sum dy h,  dbeta = sum dy.
// dy, x: sources, dx: sink over (row, col); dgamma, dbeta: sinks over (0, col).
// Workspace: two partial rows a chunk of rows.
template <int T, class DY, class X, class DX, class G, class B>
VG_NOINLINE void vg_layernorm_grad(const vg_call& call, int64_t rows, int64_t cols, const DY& dy, const X& x,
                                   const float* mean, const float* rstd, const float* gamma, const DX& dx,
                                   const G& dgamma, const B& dbeta) {
  constexpr bool wanted = vg_wanted<G> || vg_wanted<B>;
  const int64_t width = vg_round_up(cols, 16);
  float* h = (float*)call.scratch();
  float* g = h + width;
  float* partial = (float*)call.workspace();
  const float inv = 1.0f / (float)cols;
  const vg_chunks chunks(rows);
  const vg_range mine = call.share(chunks.count);
  for (int64_t i = mine.begin; i < mine.end; i++) {
    float* pg = partial + 2 * i * width;
    float* pb = pg + width;
    const vg_range c = chunks[i];
    if (wanted) __builtin_memset(pg, 0, sizeof(float) * 2 * (size_t)width);
    for (int64_t r = c.begin; r < c.end; r++) {
      const vg_at start = vg_at_row<T>(r);
      const vf mu = mean[r], rs = rstd[r];
      vf sum_g = 0.0f, sum_gh = 0.0f;
      vg_each_vector(start, 0, cols, [&](vg_at at) VG_LAMBDA {
        const vf d = vg_or_zero(vg_value(dy, at), at.n);
        const vf hv = vg_or_zero((vg_value(x, at) - mu) * rs, at.n);
        const vf gv = gamma ? d * vg_load<vf>(gamma + at.col, at.n) : d;
        vg_store_full(h + at.col, hv);
        vg_store_full(g + at.col, gv);
        sum_g += gv;
        sum_gh += gv * hv;
        if (vg_wanted<G>) vg_store_full(pg + at.col, vg_load_full(pg + at.col) + d * hv);
        if (vg_wanted<B>) vg_store_full(pb + at.col, vg_load_full(pb + at.col) + d);
      });
      const vf avg_g = vg_sum(sum_g) * inv, avg_gh = vg_sum(sum_gh) * inv;
      vg_each_vector(start, 0, cols, [&](vg_at at) VG_LAMBDA {
        dx(rs * (vg_load_full(g + at.col) - avg_g - vg_load_full(h + at.col) * avg_gh), at);
      });
    }
  }
  if (!wanted) return;
  call.barrier();
  if (vg_wanted<G>) vg_add_partials(call, partial, chunks.count, 2 * width, cols, dgamma);
  if (vg_wanted<B>) vg_add_partials(call, partial + width, chunks.count, 2 * width, cols, dbeta);
}

// log(sum exp) of a row held in scratch, relative to its maximum, and what else
// cross-entropy needs.
struct vg_row_softmax {
  float max, sum, total;  // sum: of exp(z - max); total: of z - max
  int64_t argmax;         // lowest index of the maximum; -1 with a NaN among the values
};

VG_NOINLINE void vg_softmax_row(float* z, int64_t cols, vg_row_softmax* out) {
  vf most = -__builtin_inff(), sum = 0.0f, total = 0.0f;
  vg_each_vector(vg_at{}, 0, cols, [&](vg_at at) VG_LAMBDA {
    const vf v = vg_load_full(z + at.col);
    most = vg_max(at.n < kLanes ? vg_keep(v, at.n, -__builtin_inff()) : v, most);
  });
  out->max = vg_hmax(most);
  out->argmax = -1;
  for (int64_t i = cols - 1; i >= 0; i--)
    if (z[i] == out->max) out->argmax = i;
  vg_each_vector(vg_at{}, 0, cols, [&](vg_at at) VG_LAMBDA {
    const vf d = vg_or_zero(vg_load_full(z + at.col) - vf(out->max), at.n);
    const vf e = vg_or_zero(vg_exp(d), at.n);
    vg_store_full(z + at.col, e);
    total += d;
    sum += e;
  });
  out->sum = vg_sum(sum);
  out->total = vg_sum(total);
  if (!(out->sum >= 1.0f)) out->argmax = -1;
}

// Two classes share a row: mix is the part of the first. A second class without
// a part is not looked at.
struct vg_mixed_label {
  const int32_t* label;
  const int32_t* label2;
  const float* mix;
};

// What a row is to be: class y, or y and y2 with parts mix and rest, where `two`.
struct vg_target {
  int64_t y, y2;
  float mix, rest;
  bool two;

  VG_FN bool valid(int64_t classes) const {
    return y >= 0 && y < classes && (!two || (y2 >= 0 && y2 < classes));
  }
};
VG_FN vg_target vg_target_of(const int32_t* label, int64_t r) { return {label[r], label[r], 1.0f, 0.0f, false}; }
VG_FN vg_target vg_target_of(const vg_mixed_label& l, int64_t r) {
  const float mix = l.label[r] == l.label2[r] ? 1.0f : l.mix[r];
  return {l.label[r], l.label2[r], mix, 1.0f - mix, mix != 1.0f};
}

// Softmax cross-entropy of batch rows of logits against labels, with PyTorch's
// label smoothing (target (1-s) onehot + s/classes, onehot the mixture of two
// where a row has a vg_mixed_label):
//   loss    [batch], not averaged
//   correct [batch], 1 if the lowest index of the largest logit is the (first) label; may be NULL
//   dlogits sink over (row, col): (softmax - target) * step.inv_n; vg_none for none
// Label -1 ignores the row: loss, gradient and correct are 0. Any other label
// out of range is the caller's mistake and yields NaN, never a stray read.
template <class Z, class L, class D>
VG_NOINLINE void vg_cross_entropy(const vg_call& call, int64_t classes, const Z& logits, const L& label, float smoothing,
                                   float* loss, float* correct, const D& dlogits) {
  float* z = (float*)call.scratch();
  const float share = smoothing / (float)classes;
  const vg_range mine = call.share(call.batch());
  for (int64_t r = mine.begin; r < mine.end; r++) {
    const vg_at start = vg_at_row<1>(r);
    vg_each_vector(start, 0, classes, [&](vg_at at) VG_LAMBDA { vg_store_full(z + at.col, vg_value(logits, at)); });
    const vg_target to = vg_target_of(label, r);
    const bool ignored = to.y == -1, valid = to.valid(classes);
    float zy = valid ? z[to.y] : __builtin_nanf("");
    if (valid && to.two) zy = to.mix * zy + to.rest * z[to.y2];
    vg_row_softmax s;
    vg_softmax_row(z, classes, &s);
    const float log_sum = vg_log(vf(s.sum)).v[0];
    const float nll = log_sum - (zy - s.max), uniform = log_sum - s.total / (float)classes;
    // Without smoothing the second term must not meet an infinite logit.
    loss[r] = ignored ? 0.0f : smoothing > 0 ? (1 - smoothing) * nll + smoothing * uniform : nll;
    if (correct) correct[r] = to.y >= 0 && s.argmax == to.y ? 1.0f : 0.0f;
    const float scale = ignored ? 0.0f : valid ? call.step().inv_n : __builtin_nanf("");
    if (vg_wanted<D>)
      vg_each_vector(start, 0, classes, [&](vg_at at) VG_LAMBDA {
        const vm hit = {vg_iota() + at.col == (int32_t)to.y};
        vf target = vg_select(hit, vf((1 - smoothing) * to.mix + share), vf(share));
        if (to.two) {
          const vm hit2 = {vg_iota() + at.col == (int32_t)to.y2};
          target = vg_select(hit2, vf((1 - smoothing) * to.rest + share), target);
        }
        const vf d = (vg_load_full(z + at.col) / vf(s.sum) - target) * vf(scale);
        dlogits(ignored ? vf(0.0f) : d, at);  // not 0 * d: an ignored row may hold NaN
      });
  }
}

VG_END
