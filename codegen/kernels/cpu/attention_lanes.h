// Attention of short sequences, kLanes heads at once: lane l of every vector is the
// group's head l. A handful of tokens fills no vector and no tile; this way
// nothing has edges, and softmax needs no sums across lanes. The price is that
// rows are transposed on their way in and out.
//
// A matrix of a group is a matrix of vectors, row-major, without gaps.
#pragma once
#include "attention_head.h"

VG_BEGIN

constexpr int64_t kLaneTokens = 32;  // longest sequence,
constexpr int64_t kLaneWidth = 32;   // widest head,
constexpr int64_t kLaneLeast = 3;    // and least of either, that goes this way
constexpr int64_t kLaneMatrix = kLaneTokens * kLaneTokens * kLanes;
static_assert(kLaneWidth <= kLaneTokens, "a matrix holds rows or scores");

VG_FN bool vg_lanes_suit(const vg_attention_shape& s) {
  return s.tq >= kLaneLeast && s.tq <= kLaneTokens && s.tk >= kLaneLeast && s.tk <= kLaneTokens && s.head_dim >= kLaneLeast && s.head_dim <= kLaneWidth;
}

// Heads of a group: `count` from `first` on. Lanes beyond do the last one's work
// again, and their results go nowhere.
struct vg_lane_group {
  int64_t first;
  int count;

  VG_FN int64_t unit(int lane) const { return first + vg_min64(lane, count - 1); }
};

// Where the lanes' rows begin: rows of a matrix with `rows` of them a sample.
struct vg_lane_rows {
  int64_t at[kLanes];
  int64_t ld;

  VG_FN vg_lane_rows(const vg_lane_group& g, const vg_attention_shape& s, int64_t rows, int64_t ld) : ld(ld) {
    for (int l = 0; l < kLanes; l++) at[l] = g.unit(l) / s.heads * rows * ld + g.unit(l) % s.heads * s.head_dim;
  }
  // One row a head, `stride` after the last one's; row 0 is that of head `from`.
  VG_FN vg_lane_rows(const vg_lane_group& g, int64_t from, int64_t stride) : ld(0) {
    for (int l = 0; l < kLanes; l++) at[l] = (g.unit(l) - from) * stride;
  }
};

// to = factor times rows of every lane, a column to a vector.
VG_NOINLINE void vg_gather(const float* p, const vg_lane_rows& from, int64_t rows, int64_t cols, float factor, float* to) {
  const vf by = factor;
  for (int64_t r = 0; r < rows; r++, p += from.ld, to += cols * kLanes)
    for (int64_t c = 0; c < cols; c += kLanes) {
      vf square[kLanes];
      float* out = to + c * kLanes;
      const auto at = [&](int l) VG_LAMBDA { return p + from.at[l] + c; };
      if (cols - c >= kLanes) {
        vg_load_turned(at, square);
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; i++) vg_store_full(out + i * kLanes, square[i] * by);
        continue;
      }
      for (int l = 0; l < kLanes; l++) square[l] = vg_load_part(at(l), (int)(cols - c));
      vg_transpose_square(square);
      for (int i = 0; i < cols - c; i++) vg_store_full(out + i * kLanes, square[i] * by);
    }
}

// And back, from the first `count` lanes.
VG_NOINLINE void vg_scatter(const float* in, const vg_lane_rows& to, int count, int64_t rows, int64_t cols, float* p) {
  for (int64_t r = 0; r < rows; r++, p += to.ld, in += cols * kLanes)
    for (int64_t c = 0; c < cols; c += kLanes) {
      vf square[kLanes];
      const int n = (int)vg_min64(kLanes, cols - c);
      const float* from = in + c * kLanes;
      float* const out = p + c;
      if (n == kLanes && count == kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; i++) square[i] = vg_load_full(from + i * kLanes);
        vg_transpose_square(square);
#pragma GCC unroll 16
        for (int l = 0; l < kLanes; l++) vg_store_full(out + to.at[l], square[l]);
        continue;
      }
      for (int i = 0; i < kLanes; i++) square[i] = i < n ? vg_load_full(from + i * kLanes) : vf(0.0f);
      vg_transpose_square(square);
      for (int l = 0; l < count; l++) vg_store(out + to.at[l], square[l], n);
    }
}

// The dropout multipliers of all weights, in place of q's rows times k's.
VG_NOINLINE void vg_lane_masks(const vg_lane_group& g, const vg_attention_shape& s, const vg_dropout& drop, float* raw, float* out) {
  const int64_t n = (int64_t)s.tq * s.tk, stride = vg_round_up(n, kLanes) + kLanes;
  for (int l = 0; l < g.count; l++)
    for (int64_t e = 0; e < n; e += kLanes)
      vg_store_full(raw + l * stride + e, drop.scale<vf>(s.drop_index(g.unit(l), 0) + e, (int)vg_min64(kLanes, n - e)));
  vg_gather(raw, vg_lane_rows(g, g.first, stride), 1, n, 1.0f, out);
}

// An operand of a product: element (i, k) at p + i*row + k*step.
struct vg_lane_operand {
  const float* p;
  int64_t row, step;
};
VG_FN vg_lane_operand vg_lane_plain(const float* p, int64_t cols) { return {p, cols * kLanes, kLanes}; }
VG_FN vg_lane_operand vg_lane_turned(const float* p, int64_t cols) { return {p, kLanes, cols * kLanes}; }

// The tile of registers: R rows of A and C of B.
constexpr int kLaneTile = VG_ISA == 2 ? 5 : 3, kLaneTileLeast = VG_ISA == 2 ? 3 : 2;

struct vg_lane_steps {
  int64_t depth, a_row, a_step, b_row, b_step, out_row;
};

template <int R, int C>
VG_NOINLINE void vg_lane_tile(const vg_lane_steps& s, const float* a, const float* b, float* out) {
  vg_f32v acc[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) acc[r][c] = vg_f32v{};
  for (int64_t k = 0; k < s.depth; k++, a += s.a_step, b += s.b_step) {
    vg_f32v bv[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) bv[c] = vg_load_full(b + c * s.b_row).v;
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const vg_f32v av = vg_load_full(a + r * s.a_row).v;
#pragma GCC unroll 8
      for (int c = 0; c < C; c++) acc[r][c] = av * bv[c] + acc[r][c];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) vg_store_full(out + r * s.out_row + c * kLanes, acc[r][c]);
}

template <int R>
VG_FN void vg_lane_tile_of(int64_t cols, const vg_lane_steps& s, const float* a, const float* b, float* out) {
  if (cols == kLaneTile)
    vg_lane_tile<R, kLaneTile>(s, a, b, out);
  else if (cols == kLaneTileLeast)
    vg_lane_tile<R, kLaneTileLeast>(s, a, b, out);
  else
    vg_lane_tile<R, kLaneTileLeast + 1>(s, a, b, out);
}

// out = A B^T, rows and columns cut evenly into tiles.
VG_NOINLINE void vg_lane_product(int64_t rows, int64_t cols, int64_t depth, vg_lane_operand a, vg_lane_operand b, float* out) {
  const vg_lane_steps s = {depth, a.row, a.step, b.row, b.step, cols * kLanes};
  const int64_t tall = vg_ceil_div(rows, kLaneTile), wide = vg_ceil_div(cols, kLaneTile);
  const int64_t height = rows / tall, taller = rows % tall, width = cols / wide, wider = cols % wide;
  const float* x = a.p;
  for (int64_t i = 0; i < tall; i++) {
    const int64_t r = height + (i < taller);
    const float* y = b.p;
    float* to = out;
    for (int64_t j = 0; j < wide; j++) {
      const int64_t c = width + (j < wider);
      if (r == kLaneTile)
        vg_lane_tile_of<kLaneTile>(c, s, x, y, to);
      else if (r == kLaneTileLeast)
        vg_lane_tile_of<kLaneTileLeast>(c, s, x, y, to);
      else
        vg_lane_tile_of<kLaneTileLeast + 1>(c, s, x, y, to);
      y += c * b.row;
      to += c * kLanes;
    }
    x += r * a.row;
    out += r * s.out_row;
  }
}

// The same element of n rows or columns of vectors.
VG_FN vf vg_lane(const float* p, int64_t i) { return vg_load_full(p + i * kLanes); }
VG_FN void vg_set_lane(float* p, int64_t i, vf x) { vg_store_full(p + i * kLanes, x); }

// Dropout of softmax of the rows of S, scores to base 2, and zero for keys that a row
// does not see. m: dropout's multipliers, or NULL. Every step is taken for all
// rows before the next, which keeps more of them under way.
VG_FN void vg_lane_softmax(const vg_attention_shape& a, float* s, const float* m, float* lse) {
  vf most[kLaneTokens], inv[kLaneTokens];
  const int64_t tq = a.tq, tk = a.tk, row = tk * kLanes;
  for (int64_t i = 0; i < tq; i++) {
    most[i] = vg_lane(s + i * row, 0);
    for (int64_t j = 1; j < a.seen(i); j++) most[i] = vg_max(vg_lane(s + i * row, j), most[i]);
  }
  for (int64_t i = 0; i < tq; i++) {
    vf sum = 0.0f;
    for (int64_t j = 0; j < a.seen(i); j++) {
      const vf e = vg_exp2_below(vg_lane(s + i * row, j) - most[i]);
      vg_set_lane(s + i * row, j, e);
      sum += e;
    }
    inv[i] = sum;
    for (int64_t j = a.seen(i); j < tk; j++) vg_set_lane(s + i * row, j, vf(0.0f));
  }
  for (int64_t i = 0; i < tq; i++) {
    vg_set_lane(lse, i, vg_fma(most[i], vf(kLn2), vg_log(inv[i])));
    inv[i] = vf(1.0f) / inv[i];
  }
  for (int64_t i = 0; i < tq; i++)
    for (int64_t e = i * tk; e < (i + 1) * tk; e++)
      vg_set_lane(s, e, vg_lane(s, e) * (m ? vg_lane(m, e) * inv[i] : inv[i]));
}

// Matrices of a group in a worker's scratch.
VG_FN float* vg_lane_matrix(const vg_call& call, int i) { return (float*)call.scratch() + i * kLaneMatrix; }

VG_NOINLINE void vg_attention_lanes(const vg_call& call, const vg_attention_args& a, const vg_lane_group& g, const vg_dropout& drop) {
  float *q = vg_lane_matrix(call, 0), *k = vg_lane_matrix(call, 1), *v = vg_lane_matrix(call, 2), *s = vg_lane_matrix(call, 3);
  float *m = vg_lane_matrix(call, 4), *lse = vg_lane_matrix(call, 5), *raw = vg_lane_matrix(call, 6), *o = q;
  const int64_t tq = a.tq, tk = a.tk, d = a.head_dim;
  vg_gather(a.q, vg_lane_rows(g, a, tq, a.ldq), tq, d, a.scale * kLog2E, q);
  vg_gather(a.k, vg_lane_rows(g, a, tk, a.ldk), tk, d, 1.0f, k);
  vg_gather(a.v, vg_lane_rows(g, a, tk, a.ldv), tk, d, 1.0f, v);
  vg_lane_product(tq, tk, d, vg_lane_plain(q, d), vg_lane_plain(k, d), s);
  if (drop.on()) vg_lane_masks(g, a, drop, raw, m);
  vg_lane_softmax(a, s, drop.on() ? m : nullptr, lse);
  vg_lane_product(tq, d, tk, vg_lane_plain(s, tk), vg_lane_turned(v, d), o);
  vg_scatter(o, vg_lane_rows(g, a, tq, a.ldo), g.count, tq, d, a.o);
  if (a.lse) vg_scatter(lse, vg_lane_rows(g, 0, tq), g.count, 1, tq, a.lse);
}

// From S and dP = dO V^T of a row to dropout(P) and dS = scale P (dP m - delta), m
// the dropout multipliers, or NULL. delta is the mean of dP m with weights P, which
// O dO comes to as well. It is divided by the weights' own sum: computed from lse they
// do not quite add up to 1, and dS has to add up to 0.
VG_FN void vg_lane_row_grad(float* s, float* dp, const float* m, int64_t seen, int64_t keys, float scale, vf lse, float* p) {
  vf delta = 0.0f, sum = 0.0f;
  for (int64_t j = 0; j < seen; j++) {
    const vf x = vg_exp2_below(vg_fma(vg_lane(s, j), vf(scale), -lse) * vf(kLog2E));
    const vf by = m ? vg_lane(m, j) : vf(1.0f);
    const vf g = vg_lane(dp, j) * by;
    delta = vg_fma(x, g, delta);
    sum += x;
    vg_set_lane(p, j, x * vf(scale));
    vg_set_lane(dp, j, g);
    vg_set_lane(s, j, x * by);
  }
  delta = delta / sum;
  for (int64_t j = 0; j < seen; j++) vg_set_lane(dp, j, vg_lane(p, j) * (vg_lane(dp, j) - delta));
  for (int64_t j = seen; j < keys; j++) vg_set_lane(s, j, vf(0.0f)), vg_set_lane(dp, j, vf(0.0f));
}

VG_NOINLINE void vg_attention_grad_lanes(const vg_call& call, const vg_attention_grad_args& a, const vg_lane_group& g, const vg_dropout& drop) {
  float *q = vg_lane_matrix(call, 0), *k = vg_lane_matrix(call, 1), *v = vg_lane_matrix(call, 2), *dout = vg_lane_matrix(call, 3);
  float *s = vg_lane_matrix(call, 4), *dp = vg_lane_matrix(call, 5), *m = vg_lane_matrix(call, 6), *raw = vg_lane_matrix(call, 7);
  float *out = raw, *lse = vg_lane_matrix(call, 9), *p = vg_lane_matrix(call, 10);
  const int64_t tq = a.tq, tk = a.tk, d = a.head_dim;
  const vg_lane_rows of_q(g, a, tq, a.ldq), of_k(g, a, tk, a.ldk), of_v(g, a, tk, a.ldv), of_dout(g, a, tq, a.lddout);
  vg_gather(a.q, of_q, tq, d, 1.0f, q);
  vg_gather(a.k, of_k, tk, d, 1.0f, k);
  vg_gather(a.v, of_v, tk, d, 1.0f, v);
  vg_gather(a.dout, of_dout, tq, d, 1.0f, dout);
  vg_gather(a.lse, vg_lane_rows(g, 0, tq), 1, tq, 1.0f, lse);
  vg_lane_product(tq, tk, d, vg_lane_plain(q, d), vg_lane_plain(k, d), s);
  vg_lane_product(tq, tk, d, vg_lane_plain(dout, d), vg_lane_plain(v, d), dp);
  if (drop.on()) vg_lane_masks(g, a, drop, raw, m);
  for (int64_t i = 0; i < tq; i++) {
    const int64_t row = i * tk * kLanes;
    vg_lane_row_grad(s + row, dp + row, drop.on() ? m + row : nullptr, a.seen(i), tk, a.scale, vg_lane(lse, i), p);
  }
  vg_lane_product(tk, d, tq, vg_lane_turned(s, tk), vg_lane_turned(dout, d), out);
  vg_scatter(out, vg_lane_rows(g, a, tk, a.lddv), g.count, tk, d, a.dv);
  vg_lane_product(tk, d, tq, vg_lane_turned(dp, tk), vg_lane_turned(q, d), out);
  vg_scatter(out, vg_lane_rows(g, a, tk, a.lddk), g.count, tk, d, a.dk);
  vg_lane_product(tq, d, tk, vg_lane_plain(dp, tk), vg_lane_turned(k, d), out);
  vg_scatter(out, vg_lane_rows(g, a, tq, a.lddq), g.count, tq, d, a.dq);
}

VG_END
