// Reductions in a fixed order: column sums, means over tokens, and sums of
// everything. Long sums are cut into chunks at places that depend on the
// extent alone; workers fill one partial result a chunk in the workspace, and
// after a barrier the partials are added in order. So the result is the same
// for any number of workers, and the rounding error grows with the chunk, not
// with the whole.
#pragma once
#include "call.h"

VG_BEGIN

// Rows are cut into at most this many chunks, which bounds both the workspace
// and the workers that can help.
constexpr int64_t kMaxChunks = 64;

struct vg_chunks {
  int64_t rows, per, count;
  VG_FN explicit vg_chunks(int64_t n) : rows(n), per(vg_ceil_div(n, kMaxChunks)), count(vg_ceil_div(n, per)) {}
  VG_FN vg_range operator[](int64_t i) const { return {i * per, vg_min64(rows, (i + 1) * per)}; }
};

// Workspace of a sum over rows; kernels.ColumnSumWorkspaceBytes bounds it.
VG_FN int64_t vg_column_sum_workspace(int64_t rows, int64_t cols) {
  return (int64_t)sizeof(float) * vg_chunks(rows).count * vg_round_up(cols, 16);
}

// Adds `count` partial rows, `stride` apart, column by column into a sink. The
// caller has put a barrier behind the writing of the partials.
template <class Y>
VG_NOINLINE void vg_add_partials(const vg_call& call, const float* partial, int64_t count, int64_t stride,
                                 int64_t cols, const Y& y) {
  const vg_range mine = call.share(vg_ceil_div(cols, kLanes));
  vg_each_vector(vg_at{}, mine.begin * kLanes, vg_min64(cols, mine.end * kLanes), [&](vg_at at) VG_LAMBDA {
    vf sum = vg_load<vf>(partial + at.col, at.n);
    for (int64_t i = 1; i < count; i++) sum += vg_load<vf>(partial + i * stride + at.col, at.n);
    y(sum, at);
  });
}

// Sums of few rows: a chunk would be a row, so the workers divide the columns.
template <int T, class X, class Y>
VG_NOINLINE void vg_short_column_sum(const vg_call& call, int64_t rows, int64_t cols, const X& x, const Y& y) {
  constexpr int64_t vectors = 4, width = vectors * kLanes;
  const vg_range mine = call.share(vg_ceil_div(cols, width));
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t first = u * width, last = vg_min64(cols, first + width);
    vf sum[vectors] = {};
    for (int64_t r = 0; r < rows; r++)
      vg_each_vector(vg_at_row<T>(r), first, last,
                     [&](vg_at at) VG_LAMBDA { sum[(at.col - first) / kLanes] += vg_value(x, at); });
    vg_each_vector(vg_at{}, first, last, [&](vg_at at) VG_LAMBDA { y(sum[(at.col - first) / kLanes], at); });
  }
}

// Sums over rows: x is a source over (row, col), rows of T tokens; y a sink over
// (row = 0, col).
template <int T, class X, class Y>
VG_NOINLINE void vg_column_sum(const vg_call& call, int64_t rows, int64_t cols, const X& x, const Y& y) {
  if (rows <= kMaxChunks) return vg_short_column_sum<T>(call, rows, cols, x, y);
  float* partial = (float*)call.workspace();
  const int64_t stride = vg_round_up(cols, 16);
  const vg_chunks chunks(rows);
  const vg_range mine = call.share(chunks.count);
  for (int64_t i = mine.begin; i < mine.end; i++) {
    float* out = partial + i * stride;
    const vg_range c = chunks[i];
    for (int64_t r = c.begin; r < c.end; r++)
      vg_each_vector(vg_at_row<T>(r), 0, cols, [&](vg_at at) VG_LAMBDA {
        const vf v = vg_value(x, at);
        vg_store(out + at.col, r == c.begin ? v : vg_load<vf>(out + at.col, at.n) + v, at.n);
      });
  }
  call.barrier();
  vg_add_partials(call, partial, chunks.count, stride, cols, y);
}

// Sums over the tokens of each sample: x is a source over (row = b*T + t, col),
// y a sink over (row = b, col).
template <int T, class X, class Y>
VG_NOINLINE void vg_token_sum(const vg_call& call, int64_t batch, int64_t cols, const X& x, const Y& y) {
  constexpr int64_t vectors = 8, width = vectors * kLanes;
  const int64_t blocks = vg_ceil_div(cols, width);
  const vg_range mine = call.share(batch * blocks);
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t b = u / blocks, first = u % blocks * width, last = vg_min64(cols, first + width);
    vf sum[vectors] = {};
    for (int64_t t = 0; t < T; t++)
      vg_each_vector(vg_at_row<T>(b * T + t), first, last,
                     [&](vg_at at) VG_LAMBDA { sum[(at.col - first) / kLanes] += vg_value(x, at); });
    vg_each_vector(vg_at{b, (int32_t)b, 0, 0, 0}, first, last,
                   [&](vg_at at) VG_LAMBDA { y(sum[(at.col - first) / kLanes], at); });
  }
}

// Elements summed in single precision before double takes over.
constexpr int64_t kSumChunk = 16384;

// Workspace of a sum of n terms; kernels.SumWorkspaceBytes bounds it.
VG_FN int64_t vg_sum_workspace(int64_t n) { return (int64_t)sizeof(double) * vg_ceil_div(n, kSumChunk); }

// out = the sum of x[i]^2 over a flat array of any length. A chunk is summed in
// single precision, the chunks in double and in order.
VG_NOINLINE void vg_sumsq(const vg_call& call, int64_t n, const float* x, float* out) {
  constexpr int ways = 4;  // independent chains: the adder's latency
  double* partial = (double*)call.workspace();
  const int64_t chunks = vg_ceil_div(n, kSumChunk);
  const vg_range mine = call.share(chunks);
  for (int64_t c = mine.begin; c < mine.end; c++) {
    const int64_t last = vg_min64(n, (c + 1) * kSumChunk);
    int64_t i = c * kSumChunk;
    vf sum[ways] = {};
    const auto add = [&](vf& to, int64_t at, int lanes) VG_LAMBDA {
      const vf v = vg_load<vf>(x + at, lanes);
      to = vg_fma(v, v, to);
    };
    for (; i + ways * kLanes <= last; i += ways * kLanes)
      for (int k = 0; k < ways; k++) add(sum[k], i + k * kLanes, kLanes);
    for (; i < last; i += kLanes) add(sum[0], i, (int)vg_min64(kLanes, last - i));
    partial[c] = (double)vg_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
  }
  call.barrier();
  if (call.index() != 0) return;
  double total = 0;
  for (int64_t c = 0; c < chunks; c++) total += partial[c];
  *out = (float)total;
}

VG_END
