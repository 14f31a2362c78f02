// Layer norm and cross-entropy against plain loops in double.
#include "../../cuda/row.cuh"

#include "device_check.h"

using check::Array;
using check::Launch;
using check::Random;
using check::text;
using check::that;

constexpr uint32_t kSite = 5, kThr = 16384;  // a quarter is dropped
constexpr float kKeep = 65536.0f / (65536 - kThr);

// A sink of results and of results after dropout; NaN where the place is wrong.
template <int T, int COLS, class E>
struct dropped_sink {
  E* y;
  float* dropped;
  vg_dropout draw;
  template <class V>
  VG_FN void operator()(V v, vg_at at) const {
    const int64_t i = at.row * COLS + at.col;
    vg_store(y + i, (int64_t)at.sample * T + at.token == at.row && at.n == 1 ? v : vg_from_bits(~0u), 1);
    vg_store(dropped + i, v * draw.scale<V>(i, 1), 1);
  }
};
template <int COLS>
struct dropped_source {
  const float* x;
  vg_dropout draw;
  template <class V>
  VG_FN V operator()(vg_at at) const {
    const int64_t i = at.row * COLS + at.col;
    return x[i] * draw.scale<V>(i, 1);
  }
};

VG_FN vg_store_matrix<float> sums(float* p) { return {p, 0}; }

#define CALL const vg_call c{state, workspace, counters, vg_block_index(), vg_block_count()}
#define BEGIN const vg_state *state, char *workspace, uint32_t *counters

#define LAYERNORM(NAME, E, T, COLS)                                                                               \
  VG_KERNEL(256, 2) NAME##_layernorm_##COLS(BEGIN, const E* x, const float* gamma, const float* beta, float* mean, \
                                            float* rstd, E* y, float* dropped) {                                  \
    CALL;                                                                                                         \
    const dropped_sink<T, COLS, E> sink{y, dropped, vg_dropout(c.step(), kSite, kThr)};                           \
    vg_layernorm<T, COLS>(c, (int64_t)c.batch() * T, vg_matrix{x, COLS + 3}, gamma, beta, 1e-5f, mean, rstd, sink); \
  }                                                                                                               \
  VG_EXPORT(NAME##_layernorm_##COLS)

#define GRAD(NAME, T, COLS, GAMMA, BETA)                                                                             \
  VG_KERNEL(256, 1) NAME##_layernorm_grad_##COLS(BEGIN, const float* dy, const float* x, const float* gamma,         \
                                                 const float* mean, const float* rstd, float* dx, float* dropped,    \
                                                 float* dgamma, float* dbeta) {                                      \
    CALL;                                                                                                            \
    (void)dgamma, (void)dbeta;                                                                                       \
    const dropped_source<COLS> source{dy, vg_dropout(c.step(), kSite + 1, kThr)};                                    \
    const dropped_sink<T, COLS, float> sink{dx, dropped, vg_dropout(c.step(), kSite, kThr)};                         \
    vg_layernorm_grad<T, COLS>(c, (int64_t)c.batch() * T, source, vg_matrix{x, COLS + 3}, mean, rstd, gamma, sink,   \
                               GAMMA, BETA);                                                                         \
  }                                                                                                                  \
  VG_EXPORT(NAME##_layernorm_grad_##COLS)

#define ENTROPY(COLS)                                                                                           \
  VG_KERNEL(256, 1) cross_entropy_##COLS(BEGIN, const float* z, const int32_t* label, const float* smoothing,   \
                                         float* loss, float* correct, float* dz) {                              \
    CALL;                                                                                                       \
    vg_cross_entropy<COLS>(c, vg_matrix{z, COLS}, label, *smoothing, loss, correct, vg_store_matrix{dz, COLS}); \
  }                                                                                                             \
  VG_EXPORT(cross_entropy_##COLS)

#define MIXED_ENTROPY(COLS)                                                                                       \
  VG_KERNEL(256, 1) mixed_cross_entropy_##COLS(BEGIN, const float* z, const int32_t* label, const int32_t* label2, \
                                               const float* mix, const float* smoothing, float* loss,             \
                                               float* correct, float* dz) {                                       \
    CALL;                                                                                                         \
    vg_cross_entropy<COLS>(c, vg_matrix{z, COLS}, vg_mixed_label{label, label2, mix}, *smoothing, loss, correct,  \
                           vg_store_matrix{dz, COLS});                                                            \
  }                                                                                                               \
  VG_EXPORT(mixed_cross_entropy_##COLS)

#define EVAL_ENTROPY(COLS)                                                                                         \
  VG_KERNEL(256, 1) eval_cross_entropy_##COLS(BEGIN, const float* z, const int32_t* label, const float* smoothing, \
                                              float* loss) {                                                       \
    CALL;                                                                                                          \
    vg_cross_entropy<COLS>(c, vg_matrix{z, COLS}, label, *smoothing, loss, nullptr, vg_none{});                    \
  }                                                                                                                \
  VG_EXPORT(eval_cross_entropy_##COLS)

// clang-format off
#ifdef SMALL
#define SHAPES(_) _(5, 1) _(1, 10) _(5, 37) _(37, 192) _(5, 1032) _(1, 8200)
#define ODD(_) _(5, 37) _(1, 8200)
#else
#define SHAPES(_) _(5, 1) _(1, 10) _(37, 37) _(5, 50) _(37, 192) _(5, 512) _(37, 768) _(1, 1000) _(5, 3000) _(1, 9000)
#define ODD(_) _(5, 50) _(1, 9000)
#endif
#define KERNELS(T, COLS)                         \
  LAYERNORM(f32, float, T, COLS)                 \
  GRAD(both, T, COLS, sums(dgamma), sums(dbeta)) \
  ENTROPY(COLS)                                  \
  MIXED_ENTROPY(COLS)
#define VARIANTS(T, COLS)                        \
  GRAD(gamma, T, COLS, sums(dgamma), vg_none())  \
  GRAD(beta, T, COLS, vg_none(), sums(dbeta))    \
  GRAD(neither, T, COLS, vg_none(), vg_none())   \
  LAYERNORM(bf16, vg_bf16, T, COLS)              \
  EVAL_ENTROPY(COLS)
// clang-format on
SHAPES(KERNELS)
ODD(VARIANTS)

// Rows of x with what layer norm makes of them, in double.
struct Reference {
  std::vector<double> y, mean, rstd, h;

  template <class E>
  Reference(const Array<E>& x, size_t rows, size_t cols, const float* gamma, const float* beta) {
    for (size_t i = 0; i < rows; i++) {
      double m = 0, v = 0;
      for (size_t j = 0; j < cols; j++) m += x.at(i * (cols + 3) + j) / (double)cols;
      for (size_t j = 0; j < cols; j++) v += pow(x.at(i * (cols + 3) + j) - m, 2) / (double)cols;
      const double rs = 1 / sqrt(v + 1e-5f);
      mean.push_back(m), rstd.push_back(rs);
      for (size_t j = 0; j < cols; j++) {
        h.push_back((x.at(i * (cols + 3) + j) - m) * rs);
        y.push_back(gamma ? h.back() * gamma[j] + beta[j] : h.back());
      }
    }
  }
};

template <class E>
void check_dropped(const std::string& what, const vg_state& s, const Array<E>& y, const Array<float>& dropped, size_t n,
                   bool exact) {
  size_t wrong = 0;
  for (size_t i = 0; i < n; i++) {
    const float want = check::kept(s, kSite, kThr, i) ? kKeep * check::number(y.p[i]) : 0.0f;
    wrong += exact ? dropped.p[i] != want : (dropped.p[i] == 0) != (want == 0);
  }
  that(wrong == 0, what + text(": %d elements are dropped wrongly", (int)wrong));
}

template <class E>
void layernorm(const char* type, int T, int COLS, int64_t blocks_full, int batch, bool affine, double tolerance) {
  const std::string what = text("%s layernorm T=%d cols=%d batch=%d affine=%d", type, T, COLS, batch, affine);
  Random r((uint64_t)(COLS + batch));
  const size_t cols = (size_t)COLS, full = (size_t)(T * (batch + 1)), rows = (size_t)(T * batch);
  Array<E> x(full * (cols + 3), "x", r, 1, 0.25f), y(full * cols, "y");
  Array<float> gamma(cols, "gamma", r, 0.5f, 1), beta(cols, "beta", r), mean(full, "mean"), rstd(full, "rstd");
  Array<float> dropped(full * cols, "dropped");
  x.forbid(rows * (cols + 3)), y.forbid(rows * cols), dropped.forbid(rows * cols), mean.forbid(rows), rstd.forbid(rows);
  const Launch l{text("%s_layernorm_%d", type, COLS), blocks_full, kRowShared, 0, 0};
  const vg_state s = check::state(batch);
  std::vector<check::Output> out{{y.p, rows * cols * sizeof(E), "y"}, {dropped.p, rows * cols * 4, "dropped"}};
  if (affine) out.push_back({mean.p, rows * 4, "mean"}), out.push_back({rstd.p, rows * 4, "rstd"});
  float* const none = nullptr;
  check::run(what, l, s, out, (const E*)x.p, (const float*)(affine ? gamma.p : none), (const float*)(affine ? beta.p : none),
             affine ? mean.p : none, affine ? rstd.p : none, y.p, dropped.p);

  const Reference want(x, rows, cols, affine ? gamma.p : nullptr, beta.p);
  check::close(what, y, want.y, tolerance);
  check_dropped(what, s, y, dropped, rows * cols, sizeof(E) == 4);
  if (!affine) return;
  check::close(what, mean, want.mean, 2e-6);
  check::close(what, rstd, want.rstd, 2e-6);
}

// Row i of what the gradient should be.
struct Gradient {
  std::vector<double> dx, dgamma, dbeta;
  Gradient(const Reference& f, const Array<float>& dy, const vg_state& s, size_t rows, size_t cols, const float* gamma)
      : dgamma(cols, 0), dbeta(cols, 0) {
    std::vector<double> g(cols);
    for (size_t i = 0; i < rows; i++) {
      double avg_g = 0, avg_gh = 0;
      for (size_t j = 0; j < cols; j++) {
        const double d = check::kept(s, kSite + 1, kThr, i * cols + j) ? dy.at(i * cols + j) * kKeep : 0, h = f.h[i * cols + j];
        g[j] = gamma ? d * gamma[j] : d;
        dgamma[j] += d * h, dbeta[j] += d;
        avg_g += g[j] / (double)cols, avg_gh += g[j] * h / (double)cols;
      }
      for (size_t j = 0; j < cols; j++) dx.push_back(f.rstd[i] * (g[j] - avg_g - f.h[i * cols + j] * avg_gh));
    }
  }
};

void layernorm_grad(const char* sinks, int T, int COLS, int64_t blocks, int64_t workspace, int shared, int batch, bool affine) {
  const std::string what = text("layernorm_grad %s T=%d cols=%d batch=%d affine=%d", sinks, T, COLS, batch, affine);
  Random r((uint64_t)(COLS * 3 + batch));
  const size_t cols = (size_t)COLS, full = (size_t)(T * (batch + 1)), rows = (size_t)(T * batch);
  Array<float> x(full * (cols + 3), "x", r, 1, 0.25f), dy(full * cols, "dy", r), gamma(cols, "gamma", r, 0.5f, 1);
  Array<float> mean(full, "mean"), rstd(full, "rstd"), dx(full * cols, "dx"), dropped(full * cols, "dropped");
  Array<float> dgamma(cols, "dgamma"), dbeta(cols, "dbeta");
  const Reference forward(x, rows, cols, nullptr, nullptr);
  for (size_t i = 0; i < rows; i++) mean[i] = (float)forward.mean[i], rstd[i] = (float)forward.rstd[i];
  mean.wrote(), rstd.wrote();
  for (Array<float>* a : {&dy, &dx, &dropped}) a->forbid(rows * cols);
  x.forbid(rows * (cols + 3)), mean.forbid(rows), rstd.forbid(rows);

  const vg_state s = check::state(batch);
  const bool want_gamma = !strcmp(sinks, "both") || !strcmp(sinks, "gamma"), want_beta = !strcmp(sinks, "both") || !strcmp(sinks, "beta");
  std::vector<check::Output> out{{dx.p, rows * cols * 4, "dx"}, {dropped.p, rows * cols * 4, "dropped"}};
  if (want_gamma) out.push_back(dgamma);
  if (want_beta) out.push_back(dbeta);
  const bool sums = want_gamma || want_beta;
  check::run(what, {text("%s_layernorm_grad_%d", sinks, COLS), blocks, shared, sums ? workspace : 0, sums ? kNormCounters : 0}, s, out,
             (const float*)dy.p, (const float*)x.p, (const float*)(affine ? gamma.p : nullptr), (const float*)mean.p,
             (const float*)rstd.p, dx.p, dropped.p, dgamma.p, dbeta.p);

  const Gradient want(forward, dy, s, rows, cols, affine ? gamma.p : nullptr);
  if (COLS > 1) check::close(what, dx, want.dx, 2e-6);  // the gradient of one column is zero
  check_dropped(what, s, dx, dropped, rows * cols, true);
  if (want_gamma) check::close(what, dgamma, want.dgamma, 2e-6);
  if (want_beta) check::close(what, dbeta, want.dbeta, 2e-6);
}

// Logits with large values, ties, and ignored rows that hold NaN.
void make_logits(Array<float>& z, Array<int32_t>& label, int batch, int classes, Random& r) {
  for (int i = 0; i < batch; i++) {
    float* row = z.p + (size_t)i * (size_t)classes;
    for (int j = 0; j < classes; j++) row[j] = r.uniform() * (i % 3 == 0 ? 60.0f : 4.0f);
    label[(size_t)i] = (int32_t)(r.next() % (uint32_t)classes);
    if (i % 7 == 0 && classes > 2)
      row[1] = row[classes - 1] = 100, label[(size_t)i] = i % 2 ? 1 : classes - 1;  // a tie: the lower index wins
    if (i % 5 == 4) label[(size_t)i] = -1;
    if (i % 5 == 4 && i > 5) row[0] = NAN;
  }
}

// With one label a row, or two of which the second is no class where it has no
// part.
void cross_entropy(int classes, int64_t blocks, int batch, float smoothing, bool mixed) {
  const std::string what = text("cross_entropy classes=%d batch=%d smoothing=%g mixed=%d", classes, batch, smoothing, mixed);
  Random r((uint64_t)(batch * 131 + classes));
  const size_t full = (size_t)(batch + 2), n = (size_t)batch, cols = (size_t)classes;
  Array<float> z(full * cols, "z", r), smooth(1, "smoothing"), loss(full, "loss"), correct(full, "correct"), dz(full * cols, "dz");
  Array<int32_t> label(full, "label", r), label2(full, "label2", r);
  Array<float> mix(full, "mix", r, 0, 1);
  smooth[0] = smoothing, smooth.wrote();
  make_logits(z, label, batch, classes, r);
  for (size_t i = 0; i < n; i++) {
    label2[i] = mixed && i % 4 ? (int32_t)(r.next() % (uint32_t)classes) : -7;
    if (mixed && i % 4) mix[i] = i % 4 == 1 ? 0.0f : (float)(i % 100) / 100;
  }
  z.forbid(n * cols), dz.forbid(n * cols), loss.forbid(n), correct.forbid(n), label.forbid(n), label2.forbid(n), mix.forbid(n);
  const vg_state s = check::state(batch);
  const std::vector<check::Output> outs = {{loss.p, n * 4, "loss"}, {correct.p, n * 4, "correct"}, {dz.p, n * cols * 4, "dz"}};
  const auto run = [&](const std::string& name, bool two) {
    const Launch l = {text("%scross_entropy_%d", two ? "mixed_" : "", classes), blocks, kRowShared, 0, 0};
    if (two)
      check::run(name, l, s, outs, (const float*)z.p, (const int32_t*)label.p, (const int32_t*)label2.p, (const float*)mix.p,
                 (const float*)smooth.p, loss.p, correct.p, dz.p);
    else
      check::run(name, l, s, outs, (const float*)z.p, (const int32_t*)label.p, (const float*)smooth.p, loss.p, correct.p, dz.p);
  };
  run(what, mixed);
  std::vector<double> want_loss, want_dz;
  for (size_t i = 0; i < n; i++) {
    const float* row = z.p + i * cols;
    const int y = label[i], y2 = label2[i];
    const double m = mix[i];
    double top = -1e300, sum = 0, l = 0;
    int arg = 0;
    for (int j = 0; j < classes; j++)
      if (row[j] > top) top = row[j], arg = j;
    for (int j = 0; j < classes; j++) sum += exp(row[j] - top);
    for (int j = 0; j < classes; j++) {
      const double one = (j == y ? m : 0) + (j == y2 ? 1 - m : 0), t = one * (1 - (double)smoothing) + (double)smoothing / classes;
      const double p = exp(row[j] - top) / sum;
      if (y >= 0) l -= t * (row[j] - top - log(sum));
      want_dz.push_back(y < 0 ? 0 : (p - t) / (batch + 3));
    }
    want_loss.push_back(y < 0 ? 0 : l);
    that(correct[i] == (y >= 0 && arg == y ? 1.0f : 0.0f), what + text(": row %d correct", (int)i));
  }
  check::close(what, loss, want_loss, 2e-6);
  check::close(what, dz, want_dz, 2e-6);
  if (mixed) {  // two labels of one class are as one label
    for (size_t i = 0; i < n; i++) label2[i] = label[i];
    const auto bits = [&] {
      std::vector<float> all(loss.p, loss.p + n);
      all.insert(all.end(), correct.p, correct.p + n);
      all.insert(all.end(), dz.p, dz.p + n * cols);
      return all;
    };
    run(what + ": twice the same label", true);
    const std::vector<float> two = bits();
    run(what + ": the same label", false);
    that(!memcmp(two.data(), bits().data(), 4 * two.size()), what + ": the same label twice is another");
    return;
  }

  // Evaluation alone gives the same loss to the bit.
  if (!vg_sim::find(text("eval_cross_entropy_%d", classes).c_str())) return;
  Array<float> alone(full, "loss");
  alone.forbid(n);
  check::run(what + " eval", {text("eval_cross_entropy_%d", classes), blocks, kRowShared, 0, 0}, s, {{alone.p, n * 4, "loss"}},
             (const float*)z.p, (const int32_t*)label.p, (const float*)smooth.p, alone.p);
  that(memcmp(alone.p, loss.p, n * 4) == 0, what + ": evaluation differs from training");
}

// What must not be silently a number, or a read out of bounds.
void bad_rows() {
  constexpr int rows = 6, cols = 10;
  Random r(1);
  Array<float> z(rows * cols, "z", r), smooth(1, "smoothing"), loss(rows, "loss"), correct(rows, "correct"), dz(rows * cols, "dz");
  Array<int32_t> label(rows, "label", r);
  const int32_t labels[rows] = {0, cols, -2, 3, 4, 2};
  for (size_t i = 0; i < rows; i++) label[i] = labels[i];
  z[1] = NAN;                                                 // among the others
  z[3 * cols + 5] = INFINITY;                                 // no softmax of that
  for (size_t j = 0; j < cols; j++) z[4 * cols + j] = -INFINITY;  // nor of that
  z[5 * cols + 7] = -INFINITY;                                // but of that
  smooth[0] = 0, smooth.wrote();
  check::run("bad rows", {"cross_entropy_10", 1, kRowShared, 0, 0}, check::state(rows), {loss, correct, dz}, (const float*)z.p,
             (const int32_t*)label.p, (const float*)smooth.p, loss.p, correct.p, dz.p);
  for (size_t i = 0; i < 5; i++)
    that(isnan(loss[i]) && isnan(dz[i * cols]) && correct[i] == 0, text("bad row %d", (int)i));
  that(isfinite(loss[5]) && dz[5 * cols + 7] == 0, "a logit of minus infinity");

  // A second label that is no class and has a part, and no part at all.
  Array<int32_t> label2(rows, "label2", r);
  Array<float> mix(rows, "mix", r, 0, 0.5f);
  const int32_t others[rows] = {cols, -1, 9, 1 << 30, 0, 1};
  for (size_t i = 0; i < rows; i++) {
    for (size_t j = 0; j < cols; j++) z[i * cols + j] = (float)(j == 2);
    label[i] = 2, label2[i] = others[i];
  }
  mix[2] = NAN, mix[3] = 0;
  check::run("bad second labels", {"mixed_cross_entropy_10", 1, kRowShared, 0, 0}, check::state(rows), {loss, correct, dz},
             (const float*)z.p, (const int32_t*)label.p, (const int32_t*)label2.p, (const float*)mix.p, (const float*)smooth.p,
             loss.p, correct.p, dz.p);
  for (size_t i = 0; i < rows; i++)
    that(isnan(loss[i]) == (i < 4) && isnan(dz[i * cols + 2]) == (i < 4) && correct[i] == 1, text("bad second label %d", (int)i));
}

template <int T, int COLS>
void shape(int batch) {
  const int full = (batch + 1) * T, shared = vg_layernorm_grad_shared<COLS>();
  const int64_t blocks = vg_row_blocks<COLS>(full), grad_blocks = vg_layernorm_grad_blocks<COLS>(full);
  for (bool affine : {true, false}) {
    layernorm<float>("f32", T, COLS, blocks, batch, affine, 2e-6);
    layernorm_grad("both", T, COLS, grad_blocks, vg_layernorm_grad_workspace<COLS>(full), shared, batch, affine);
  }
  for (bool mixed : {false, true})
    for (float smoothing : {0.0f, 0.1f}) cross_entropy(COLS, vg_row_blocks<COLS>(batch + 2), batch, smoothing, mixed);
}

template <int T, int COLS>
void odd(int batch) {
  const int full = (batch + 1) * T, shared = vg_layernorm_grad_shared<COLS>();
  layernorm<vg_bf16>("bf16", T, COLS, vg_row_blocks<COLS>(full), batch, true, 3e-3);
  for (const char* sinks : {"gamma", "beta", "neither"})
    layernorm_grad(sinks, T, COLS, vg_layernorm_grad_blocks<COLS>(full), vg_layernorm_grad_workspace<COLS>(full), shared, batch, true);
}

int main() {
  const auto batch = [](int T, int cols) { return cols > 500 ? (T == 1 ? 5 : 2) : T == 1 ? 37 : 7; };
#define RUN(T, COLS) shape<T, COLS>(batch(T, COLS));
#define RUN_ODD(T, COLS) odd<T, COLS>(batch(T, COLS));
  SHAPES(RUN)
  ODD(RUN_ODD)
#ifndef SMALL
  shape<5, 50>(520);  // more rows than chunks
  shape<5, 1>(1);
#endif
  bad_rows();
  return check::finish();
}
