// Reductions in a fixed order: column sums, sums over tokens, and the sum of
// squares of everything. Long sums are cut into chunks at places that depend on
// the extent alone, never on the grid; a block leaves the partial result of a
// chunk in the workspace, and whoever arrives last adds the partials in their
// order. So the result is the same for any number of blocks.
#pragma once
#include "pointwise.cuh"

// Rows in chunks of at least `least`, at most `most` of them.
struct vg_chunks {
  int64_t rows, per;
  int count;
  VG_FN vg_chunks(int64_t n, int least, int most)
      : rows(n), per(vg_max64(least, vg_ceil_div(n, most))), count((int)vg_ceil_div(n, per)) {}
  VG_FN int64_t begin(int i) const { return i * per; }
  VG_FN int64_t end(int i) const { return vg_min64(rows, (i + 1) * per); }
};

// Adding up partial rows takes two levels, so that no block reads many of them:
// the last to arrive in a group of 16 chunks adds these, the last group adds
// the groups. A counter for each group and one for all.
constexpr int kPartialGroup = 16;
VG_CONST int vg_partials_counters(int chunks) { return 1 + (chunks + kPartialGroup - 1) / kPartialGroup; }

// The sum of `count` floats, `stride` apart, in order.
VG_FN float vg_add_in_order(const float* p, int count, int64_t stride) {
  float sum = *p;
  VG_NO_UNROLL for (int i = 1; i < count; i += 5) {  // five loads under way
    float x[5];
    VG_UNROLL for (int k = 0; k < 5; k++) x[k] = i + k < count ? p[(i + k) * stride] : 0.0f;
    VG_UNROLL for (int k = 0; k < 5; k++) sum += x[k];
  }
  return sum;
}

// Adds the partial rows of `count` chunks, `width` floats each. Every chunk's
// block calls it when it has written its row; the last one gets out(slot, sum)
// for every slot of a row. Group sums replace the first row of the group.
// vote: four bytes of shared memory.
template <class F>
VG_FN void vg_add_partials(float* partial, int width, int chunk, int count, uint32_t* counters, uint32_t* vote,
                           const F& out) {
  const int group = chunk / kPartialGroup, groups = (count + kPartialGroup - 1) / kPartialGroup;
  const int members = group < groups - 1 ? kPartialGroup : count - group * kPartialGroup;
  float* rows = partial + (int64_t)group * kPartialGroup * width;
  if (!vg_arrive_last(counters + 1 + group, (uint32_t)members, vote)) return;
  for (int s = vg_thread(); s < width; s += kBlockThreads) {
    const float sum = vg_add_in_order(rows + s, members, width);
    if (groups == 1)
      out(s, sum);
    else
      rows[s] = sum;
  }
  if (groups == 1 || !vg_arrive_last(counters, (uint32_t)groups, vote)) return;
  for (int s = vg_thread(); s < width; s += kBlockThreads)
    out(s, vg_add_in_order(partial + s, groups, (int64_t)kPartialGroup * width));
}

// Shared memory of the sums over rows: a partial row for each of the block's 16
// groups of 16 threads, and a vote.
constexpr int kSumShared = (int)sizeof(float) * (kBlockThreads / 16) * kRun + 16;

// Sums rows [begin, end) of x over the run of columns from `first` on; thread i
// < kRun gets the sum of column first + i. The whole block takes part.
template <int T, int COLS, class X>
VG_FN float vg_sum_run(const X& x, int64_t begin, int64_t end, int first, float* shared) {
  constexpr int steps = vg_run_steps(COLS), together = kBlockThreads / 16;
  const int lane = vg_thread() & 15, half = vg_thread() / 16, col = vg_column(first + lane);
  float sum[steps];
  VG_UNROLL for (int j = 0; j < steps; j++) sum[j] = 0.0f;
  for (int64_t r = begin + half; r < end; r += together) {
    vg_at at = vg_at_row<T>(r);
    VG_UNROLL for (int j = 0; j < steps; j++) {
      at.col = col + 16 * j;
      if (COLS % kRun == 0 || at.col < COLS) sum[j] += vg_value(x, at);
    }
  }
  vg_sync();  // nobody still reads what was summed before
  VG_UNROLL for (int j = 0; j < steps; j++) shared[half * kRun + 16 * j + lane] = sum[j];
  vg_sync();
  float total = 0.0f;
  if (vg_thread() < 16 * steps)
    VG_UNROLL for (int i = 0; i < together; i++) total += shared[i * kRun + vg_thread()];
  return total;
}

// Chunks of rows of vg_column_sum: as many as give about 256 blocks with the
// runs that the columns make. Chunks have 16 rows or more.
VG_CONST int vg_column_sum_chunks(int cols) { return (int)vg_max64(1, 256 / vg_runs(cols)); }
VG_CONST int64_t vg_column_sum_workspace(int cols) {
  return (int64_t)sizeof(float) * kRun * vg_runs(cols) * vg_column_sum_chunks(cols);
}
VG_CONST int vg_column_sum_counters(int cols) {
  return vg_runs(cols) * vg_partials_counters(vg_column_sum_chunks(cols));
}
VG_CONST int64_t vg_column_sum_blocks(int64_t rows, int cols) {
  return vg_max64(1, vg_runs(cols) * vg_min64(vg_column_sum_chunks(cols), vg_ceil_div(rows, 16)));
}

// Sums over rows: x is a source over (row, col), rows of T tokens; y a sink over
// (row = 0, col). A unit of work is a chunk of rows by a run of columns.
template <int T, int COLS, class X, class Y>
VG_FN void vg_column_sum(const vg_call& c, int64_t rows, const X& x, const Y& y) {
  constexpr int runs = vg_runs(COLS), most = vg_column_sum_chunks(COLS);
  float* shared = (float*)vg_shared();
  uint32_t* vote = (uint32_t*)(shared + kBlockThreads / 16 * kRun);
  const vg_chunks chunks(rows, 16, most);
  for (int u = c.block; u < runs * chunks.count; u += c.blocks) {
    const int run = u % runs, i = u / runs, first = run * kRun;
    const float sum = vg_sum_run<T, COLS>(x, chunks.begin(i), chunks.end(i), first, shared);
    const auto out = [&](int s, float total) {
      if (first + s < COLS) y(total, vg_at{0, 0, 0, first + s, 1});
    };
    if (chunks.count == 1) {
      if (vg_thread() < kRun) out(vg_thread(), sum);
      continue;
    }
    float* partial = (float*)c.workspace + (int64_t)run * most * kRun;
    if (vg_thread() < kRun) partial[i * kRun + vg_thread()] = sum;
    vg_add_partials(partial, kRun, i, chunks.count, c.counters + run * vg_partials_counters(most), vote, out);
  }
}

// Blocks for a batch: a sample by a run of columns each.
VG_CONST int64_t vg_token_sum_blocks(int64_t batch, int cols) {
  return vg_max64(1, vg_min64(batch * vg_runs(cols), kMaxBlocks));
}

// Sums over the tokens of each sample: x is a source over (row = b*T + t, col),
// y a sink over (row = b, col).
template <int T, int COLS, class X, class Y>
VG_FN void vg_token_sum(const vg_call& c, const X& x, const Y& y) {
  constexpr int runs = vg_runs(COLS);
  float* shared = (float*)vg_shared();
  const int64_t units = (int64_t)c.batch() * runs;
  for (int64_t u = c.block; u < units; u += c.blocks) {
    const int64_t b = u / runs;
    const int first = (int)(u % runs) * kRun, col = first + vg_thread();
    const float sum = vg_sum_run<T, COLS>(x, b * T, b * T + T, first, shared);
    if (vg_thread() < kRun && col < COLS) y(sum, vg_at{b, (int32_t)b, 0, col, 1});
  }
}

// Elements summed in single precision before double takes over.
constexpr int kSumChunk = 16384;
constexpr int kSumsqShared = (int)sizeof(double) * kBlockThreads + 16;
constexpr int kSumsqCounters = 1;
VG_CONST int64_t vg_sumsq_workspace(int64_t n) { return (int64_t)sizeof(double) * vg_ceil_div(n, kSumChunk); }
VG_CONST int64_t vg_sumsq_blocks(int64_t n) { return vg_max64(1, vg_min64(vg_ceil_div(n, kSumChunk), 1024)); }

// The thread's share of the sum of squares of x[0 .. n), n <= kSumChunk.
VG_FN float vg_sumsq_share(const float* x, int n) {
  constexpr int ways = 4;  // independent chains, and loads under way
  float sum[ways] = {};
  const int vectors = (uintptr_t)x % 16 == 0 ? n / 4 : 0;
  for (int i = vg_thread(); i < vectors; i += ways * kBlockThreads)
    VG_UNROLL for (int k = 0; k < ways; k++)
      if (i + k * kBlockThreads < vectors) {
        const vg_float4 v = ((const vg_float4*)x)[i + k * kBlockThreads];
        sum[k] = vg_fma(v.x, v.x, vg_fma(v.y, v.y, vg_fma(v.z, v.z, vg_fma(v.w, v.w, sum[k]))));
      }
  for (int i = 4 * vectors + vg_thread(); i < n; i += kBlockThreads) sum[0] = vg_fma(x[i], x[i], sum[0]);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// The sum of the threads' x, for thread 0: warp by warp, then in double.
VG_FN double vg_block_sum(float x, double* shared) {
  const float sum = vg_warp_sum(x);
  vg_sync();  // nobody still reads what was summed before
  if (vg_lane() == 0) shared[vg_warp()] = (double)sum;
  vg_sync();
  double total = 0;
  if (vg_thread() == 0)
    for (int i = 0; i < kBlockThreads / 32; i++) total += shared[i];
  return total;
}
// The same of doubles, by a tree.
VG_FN double vg_block_sum(double x, double* shared) {
  vg_sync();
  shared[vg_thread()] = x;
  for (int s = kBlockThreads / 2; s > 0; s /= 2) {
    vg_sync();
    if (vg_thread() < s) shared[vg_thread()] += shared[vg_thread() + s];
  }
  return vg_thread() == 0 ? shared[0] : 0.0;
}

// The factor that brings a gradient of squared norm sumsq down to max_norm; 1
// if it is not above. A NaN norm gives 1: the NaN itself must reach the loss.
VG_FN float vg_clip_factor(float sumsq, float max_norm) {
  const float norm = vg_sqrt(sumsq);
  return norm > max_norm ? max_norm / norm : 1.0f;
}

// out = the sum of x[i]^2 over a flat array of any length, and, unless it is
// NULL, clip = the factor for max_norm. A thread sums its share of a chunk in
// single precision; from there on sums are double, in an order that n fixes.
VG_FN void vg_sumsq(const vg_call& c, int64_t n, const float* x, float* out, float max_norm, float* clip) {
  double* shared = (double*)vg_shared();
  double* partial = (double*)c.workspace;
  const int64_t chunks = vg_ceil_div(n, kSumChunk);
  for (int64_t i = c.block; i < chunks; i += c.blocks) {
    const int64_t begin = i * kSumChunk;
    const double sum = vg_block_sum(vg_sumsq_share(x + begin, (int)vg_min64(kSumChunk, n - begin)), shared);
    if (vg_thread() == 0) partial[i] = sum;
  }
  if (!vg_arrive_last(c.counters, (uint32_t)c.blocks, (uint32_t*)(shared + kBlockThreads))) return;
  double sum = 0;
  for (int64_t i = vg_thread(); i < chunks; i += kBlockThreads) sum += partial[i];
  const double total = vg_block_sum(sum, shared);
  if (vg_thread() != 0) return;
  *out = (float)total;
  if (clip) *clip = vg_clip_factor((float)total, max_norm);
}
VG_FN void vg_sumsq(const vg_call& c, int64_t n, const float* x, float* out) { vg_sumsq(c, n, x, out, 0.0f, nullptr); }

// out = the factor for max_norm of a squared norm that lies in memory.
VG_FN void vg_clip_scale(const vg_call& c, const float* sumsq, float max_norm, float* out) {
  if (c.block == 0 && vg_thread() == 0) *out = vg_clip_factor(*sumsq, max_norm);
}
