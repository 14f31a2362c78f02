// What no other family has taken in: a body run over every element of a
// matrix, and the transposition of two axes.
#pragma once
#include "call.cuh"
#include "dropout.cuh"
#include "math.cuh"

// The threads of a block, in every kernel but the matrix products and attention.
constexpr int kBlockThreads = 256;
// Columns that share Philox evaluations (dropout.cuh): 16 threads take such a
// run together, each the columns c, c+16, .. c+112 of it.
constexpr int kRun = 128;
// Blocks beyond this many walk on instead.
constexpr int kMaxBlocks = 2048;

VG_CONST int vg_runs(int cols) { return (cols + kRun - 1) / kRun; }
// Elements of a run that a thread takes; rows shorter than a run need fewer.
VG_CONST int vg_run_steps(int cols) { return cols < kRun ? (cols + 15) / 16 : kRun / 16; }

// Blocks for rows x cols: 16 runs a block.
VG_CONST int64_t vg_pointwise_blocks(int64_t rows, int cols) {
  return vg_max64(1, vg_min64(vg_ceil_div(rows * vg_runs(cols), kBlockThreads / 16), kMaxBlocks));
}

// Runs f(at) over rows x COLS, rows of T tokens. Runs are counted in 32 bits.
template <int T, int COLS, class F>
VG_FN void vg_each_element(const vg_call& c, int64_t rows, const F& f) {
  constexpr uint32_t runs = (uint32_t)vg_runs(COLS), together = kBlockThreads / 16;
  const uint32_t units = (uint32_t)rows * runs, stride = (uint32_t)c.blocks * together;
  const int lane = vg_thread() & 15;
  for (uint32_t u = (uint32_t)c.block * together + (uint32_t)(vg_thread() / 16); u < units; u += stride) {
    const uint32_t row = u / runs;
    vg_at at{(int64_t)row, (int32_t)(row / T), (int32_t)(row % T), 0, 1};
    const int first = vg_column((int)(u % runs) * kRun + lane);
    VG_UNROLL for (int j = 0; j < vg_run_steps(COLS); j++) {
      at.col = first + 16 * j;
      if (COLS % kRun == 0 || at.col < COLS) f(at);
    }
  }
}

// Runs body(at) over rows x COLS, rows of T tokens.
template <int T, int COLS, class F>
VG_FN void vg_pointwise(const vg_call& c, int64_t rows, const F& body) {
  vg_each_element<T, COLS>(c, rows, [&](vg_at at) { body.template operator()<float>(at); });
}

// Transposition in tiles of 16 channels by up to 128 tokens, which pass through
// shared memory: a row of 17 floats for each token.
constexpr int kTransposeChannels = 16;
VG_CONST int vg_transpose_tokens(int T) { return 16 * vg_run_steps(T); }
VG_CONST int vg_transpose_shared(int T) {
  return (int)sizeof(float) * vg_transpose_tokens(T) * (kTransposeChannels + 1);
}
// Blocks for [batch,T,C]: a tile each.
VG_CONST int64_t vg_transpose_blocks(int64_t batch, int T, int C) {
  return vg_max64(1, vg_min64(batch * vg_ceil_div(C, kTransposeChannels) * vg_runs(T), kMaxBlocks));
}

// y[b,c,t] = x[b,t,c] for x [batch,T,C] in memory; y: sink over (row = b*C + c,
// sample = b, token = c, col = t). 16 threads read the channels of a token, and
// write the tokens of a channel.
template <int T, int C, class E, class Y>
VG_FN void vg_transpose(const vg_call& c, const E* x, const Y& y) {
  constexpr int steps = vg_run_steps(T), across = vg_runs(T), down = (C + kTransposeChannels - 1) / kTransposeChannels;
  float* tile = (float*)vg_shared();
  const int lane = vg_thread() & 15, half = vg_thread() / 16;
  const int64_t units = (int64_t)c.batch() * down * across;
  for (int64_t u = c.block; u < units; u += c.blocks) {
    const int64_t b = u / (down * across);
    const int channel = (int)(u / across % down) * kTransposeChannels, first = (int)(u % across) * kRun;
    VG_UNROLL for (int j = 0; j < steps; j++) {
      const int t = 16 * j + half;
      if (first + t < T && channel + lane < C)
        tile[t * (kTransposeChannels + 1) + lane] = vg_load<float>(x + (b * T + first + t) * C + channel + lane, 1);
    }
    vg_sync();
    VG_UNROLL for (int j = 0; j < steps; j++) {
      const int t = 16 * j + lane;
      if (first + t < T && channel + half < C)
        y(tile[t * (kTransposeChannels + 1) + half],
          vg_at{b * C + channel + half, (int32_t)b, channel + half, first + t, 1});
    }
    vg_sync();  // before the next tile
  }
}
