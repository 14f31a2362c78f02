// Sums over rows, over tokens and of squares against plain loops in double.
#include "../../cuda/reduce.cuh"

#include "device_check.h"

using check::Array;
using check::Random;
using check::text;
using check::that;

constexpr uint32_t kSite = 2, kThr = 8192;
constexpr float kKeep = 65536.0f / (65536 - kThr);

#define CALL const vg_call c{state, workspace, counters, vg_block_index(), vg_block_count()}
#define BEGIN const vg_state *state, char *workspace, uint32_t *counters

template <int T, int COLS>
struct dropped_source {
  const float* x;
  vg_dropout draw;
  template <class V>
  VG_FN V operator()(vg_at at) const {
    const int64_t i = at.row * COLS + at.col;
    return (int64_t)at.sample * T + at.token == at.row ? x[i] * draw.scale<V>(i, 1) : vg_from_bits(~0u);
  }
};

#define SUMS(T, COLS)                                                                                                 \
  VG_KERNEL(256, 2) column_sum_##COLS(BEGIN, const float* x, float* y) {                                              \
    CALL;                                                                                                             \
    const dropped_source<T, COLS> source{x, vg_dropout(c.step(), kSite, kThr)};                                       \
    vg_column_sum<T, COLS>(c, (int64_t)c.batch() * T, source, vg_store_matrix{y, 0});                                 \
  }                                                                                                                   \
  VG_EXPORT(column_sum_##COLS)                                                                                        \
  VG_KERNEL(256, 2) token_sum_##COLS(BEGIN, const float* x, float* y) {                                               \
    CALL;                                                                                                             \
    vg_token_sum<T, COLS>(c, dropped_source<T, COLS>{x, vg_dropout(c.step(), kSite, kThr)}, vg_store_matrix{y, COLS}); \
  }                                                                                                                   \
  VG_EXPORT(token_sum_##COLS)

// clang-format off
#ifdef SMALL
#define SHAPES(_) _(5, 1) _(37, 37) _(1, 300)
#else
#define SHAPES(_) _(5, 1) _(1, 10) _(37, 37) _(5, 50) _(37, 192) _(37, 512) _(5, 768) _(1, 1000) _(5, 3000) _(1, 9000) _(1, 33000)
#endif
// clang-format on
SHAPES(SUMS)

VG_KERNEL(256, 2) sumsq(BEGIN, const float* x, uint64_t n, float* out) {
  CALL;
  vg_sumsq(c, (int64_t)n, x, out);
}
VG_EXPORT(sumsq)
VG_KERNEL(256, 2) sumsq_clip(BEGIN, const float* x, uint64_t n, float* out, float* clip) {
  CALL;
  vg_sumsq(c, (int64_t)n, x, out, 2.0f, clip);
}
VG_EXPORT(sumsq_clip)
VG_KERNEL(256, 2) clip_scale(BEGIN, const float* sumsq, float* out) {
  CALL;
  vg_clip_scale(c, sumsq, 2.0f, out);
}
VG_EXPORT(clip_scale)

template <int T, int COLS>
void sums(int batch) {
  const std::string what = text("T=%d cols=%d batch=%d", T, COLS, batch);
  Random r((uint64_t)(COLS + batch));
  const size_t cols = COLS, full = cols * (size_t)(T * (batch + 1)), n = cols * (size_t)(T * batch);
  Array<float> x(full, "x", r, 1, 0.5f), columns(cols, "columns"), tokens(cols * (size_t)(batch + 1), "tokens");
  x.forbid(n), tokens.forbid(cols * (size_t)batch);
  const vg_state s = check::state(batch);
  check::run("column_sum " + what,
             {text("column_sum_%d", COLS), vg_column_sum_blocks((batch + 1) * T, COLS), kSumShared,
              vg_column_sum_workspace(COLS), vg_column_sum_counters(COLS)},
             s, {columns}, (const float*)x.p, columns.p);
  check::run("token_sum " + what, {text("token_sum_%d", COLS), vg_token_sum_blocks(batch + 1, COLS), kSumShared, 0, 0}, s,
             {{tokens.p, cols * (size_t)batch * 4, "tokens"}}, (const float*)x.p, tokens.p);
  std::vector<double> want(cols, 0), of_tokens(cols * (size_t)batch, 0);
  for (size_t i = 0; i < n; i++) {
    const double v = check::kept(s, kSite, kThr, i) ? (double)(x[i] * kKeep) : 0;
    want[i % cols] += v, of_tokens[i / cols / T * cols + i % cols] += v;
  }
  check::close("column_sum " + what, columns, want, 2e-6);
  check::close("token_sum " + what, tokens, of_tokens, 2e-6);
}

void squares(size_t n, size_t skip) {
  const std::string what = text("sumsq of %d elements from %d on", (int)n, (int)skip);
  Random r(n);
  Array<float> x(n + skip, "x", r, 1, 0.25f), out(1, "out"), both(1, "both"), clip(1, "clip"), alone(1, "alone");
  const int64_t blocks = vg_sumsq_blocks((int64_t)n), workspace = vg_sumsq_workspace((int64_t)n);
  const vg_state s = check::state(1);
  const float* from = x.p + skip;
  check::run(what, {"sumsq", blocks, kSumsqShared, workspace, kSumsqCounters}, s, {out}, from, (uint64_t)n, out.p);
  check::run(what + " with clip", {"sumsq_clip", blocks, kSumsqShared, workspace, kSumsqCounters}, s, {both, clip}, from, (uint64_t)n,
             both.p, clip.p);
  check::run(what + " then clip", {"clip_scale", 1, 0, 0, 0}, s, {alone}, (const float*)out.p, alone.p);
  double want = 0;
  for (size_t i = 0; i < n; i++) want += pow((double)from[i], 2);
  check::close(what, out, {want}, 2e-6);
  check::close(what, alone, {sqrt(want) > 2 ? 2 / sqrt(want) : 1}, 2e-6);
  that(both[0] == out[0] && clip[0] == alone[0], what + ": the clip factor differs from that of a kernel of its own");
}

// A NaN reaches the sum, and scales nothing.
void nan_norm() {
  Array<float> x(3, "x"), out(1, "out"), clip(1, "clip");
  x[0] = 1, x[1] = NAN, x[2] = 1, x.wrote();
  check::run("NaN norm", {"sumsq_clip", 1, kSumsqShared, vg_sumsq_workspace(3), kSumsqCounters}, check::state(1), {out, clip},
             (const float*)x.p, (uint64_t)3, out.p, clip.p);
  that(isnan(out[0]) && clip[0] == 1, "NaN norm");
}

int main() {
#define RUN(T, COLS) sums<T, COLS>(COLS > 500 ? 3 : 11);
  SHAPES(RUN)
#ifndef SMALL
  sums<37, 37>(130);  // 256 chunks and more rows in each
  sums<1, 10>(1);
  for (size_t n : {16384, 16385, 100003, 600000}) squares(n, 0);
#endif
  squares(40000, 3);
  for (size_t n : {1, 7, 37, 513}) squares(n, 0);
  squares(514, 1);
  nan_norm();
  return check::finish();
}
