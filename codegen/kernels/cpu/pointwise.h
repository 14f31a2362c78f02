// What no other family has taken in: a body run over every element of a
// matrix, and the transposition of two axes.
#pragma once
#include "call.h"
#include "dropout.h"
#include "math.h"

VG_BEGIN

// Columns of a unit of work: short rows go whole, one long row is divided.
constexpr int64_t kPointwiseColumns = 4096;

// Runs body(at) over rows x cols, rows of T tokens.
template <int T, class F>
VG_NOINLINE void vg_pointwise(const vg_call& call, int64_t rows, int64_t cols, const F& body) {
  const int64_t blocks = vg_ceil_div(cols, kPointwiseColumns);
  const vg_range mine = call.share(rows * blocks);
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t col = u % blocks * kPointwiseColumns;
    vg_each_vector(vg_at_row<T>(u / blocks), col, vg_min64(cols, col + kPointwiseColumns),
                   [&](vg_at at) VG_LAMBDA { body.template operator()<vf>(at); });
  }
}

// y[b,c,t] = x[b,t,c] for x [batch,T,C] in memory; y: sink over (row = b*C + c,
// sample = b, token = c, col = t). Squares of lanes x lanes, turned in registers.
template <class Y>
VG_NOINLINE void vg_transpose(const vg_call& call, int64_t batch, int64_t T, int64_t C, const float* x, const Y& y) {
  const int64_t blocks = vg_ceil_div(C, kLanes);
  const vg_range mine = call.share(batch * blocks);
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t b = u / blocks, c = u % blocks * kLanes;
    const int channels = (int)vg_min64(kLanes, C - c);
    for (int64_t t = 0; t < T; t += kLanes) {
      const int tokens = (int)vg_min64(kLanes, T - t);
      vf square[kLanes];
      for (int i = 0; i < kLanes; i++)
        square[i] = i < tokens ? vg_load<vf>(x + (b * T + t + i) * C + c, channels) : vf(0.0f);
      vg_transpose_square(square);
      for (int i = 0; i < channels; i++)
        y(square[i], vg_at{b * C + c + i, (int32_t)b, (int32_t)(c + i), (int32_t)t, tokens});
    }
  }
}

VG_END
