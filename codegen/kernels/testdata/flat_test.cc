// Pointwise, transpose, reductions and optimizers against plain loops in double.
#include "check.h"

using check::Buffer;
using check::Random;
using check::text;
using check::that;

namespace vg { inline namespace VG_ISA_NAME { namespace {

constexpr int kT = 5;

struct square_body {
  const float* x;
  float* y;
  vg_add_matrix count;
  int64_t ld;
  template <class V>
  VG_FN void operator()(vg_at at) const {
    const V v = vg_load<V>(x + at.row * ld + at.col, at.n);
    vg_store(y + at.row * ld + at.col, v * v + V((float)(at.sample * 100 + at.token)), at.n);
    count(V(1.0f), at);
  }
};

void pointwise(int64_t rows, int64_t cols) {
  const std::string what = text("pointwise %ldx%ld", rows, cols);
  Random r(5);
  Buffer x((size_t)(rows * cols), r), y(x.n), count(x.n);
  count.fill(0);
  check::Team team;
  team.kernel = [&](const vg_call& call) {
    vg_pointwise<kT>(call, rows, cols, square_body{x.p(), y.p(), {count.p(), cols}, cols});
  };
  team.run_all(what, {&y});
  std::vector<double> want;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < cols; j++) {
      want.push_back(pow(x[(size_t)(i * cols + j)], 2) + (double)(i / kT * 100 + i % kT));
      that(count[(size_t)(i * cols + j)] == 5, what + ": not once for each element");
    }
  check::close(what, y.p(), want, 1e-6);
}

struct checked_transpose {
  vg_store_matrix out;
  int64_t channels;
  template <class V>
  VG_FN void operator()(V v, vg_at at) const {
    out(at.row == at.sample * channels + at.token ? v : V(-1e9f), at);
  }
};

void transpose(int64_t batch, int64_t T, int64_t C) {
  const std::string what = text("transpose %ldx%ldx%ld", batch, T, C);
  Random r(6);
  Buffer x((size_t)(batch * T * C), r), y(x.n);
  check::Team team;
  team.kernel = [&](const vg_call& call) { vg_transpose(call, batch, T, C, x.p(), checked_transpose{{y.p(), T}, C}); };
  team.run_all(what, {&y});
  for (int64_t b = 0; b < batch; b++)
    for (int64_t t = 0; t < T; t++)
      for (int64_t c = 0; c < C; c++)
        that(y[(size_t)((b * C + c) * T + t)] == x[(size_t)((b * T + t) * C + c)], what);
}

void column_sum(int64_t rows, int64_t cols) {
  const std::string what = text("column_sum %ldx%ld", rows, cols);
  Random r(7);
  Buffer x((size_t)(rows * cols), r), y((size_t)cols);
  for (size_t i = 0; i < x.n; i++) x[i] += 0.5f;
  check::Team team;
  team.workspace = (size_t)vg_column_sum_workspace(rows, cols);
  team.kernel = [&](const vg_call& call) {
    vg_column_sum<kT>(call, rows, cols, vg_matrix{x.p(), cols}, vg_store_matrix{y.p(), 0});
  };
  team.run_all(what, {&y});
  std::vector<double> want((size_t)cols, 0);
  for (size_t i = 0; i < x.n; i++) want[i % (size_t)cols] += x[i];
  check::close(what, y.p(), want, 1e-6);
}

void token_sum(int64_t batch, int64_t cols) {
  const std::string what = text("token_sum %ldx%ld", batch, cols);
  Random r(8);
  Buffer x((size_t)(batch * kT * cols), r), y((size_t)(batch * cols));
  check::Team team;
  team.kernel = [&](const vg_call& call) {
    vg_token_sum<kT>(call, batch, cols, vg_matrix{x.p(), cols}, vg_store_matrix{y.p(), cols});
  };
  team.run_all(what, {&y});
  std::vector<double> want;
  for (int64_t b = 0; b < batch; b++)
    for (int64_t c = 0; c < cols; c++) {
      double s = 0;
      for (int64_t t = 0; t < kT; t++) s += x[(size_t)((b * kT + t) * cols + c)];
      want.push_back(s);
    }
  check::close(what, y.p(), want, 1e-6);
}

void patchify(int64_t batch, int C, int H, int W, int P) {
  const std::string what = text("patchify %ldx%dx%dx%d p=%d", batch, C, H, W, P);
  Random r(11);
  const int64_t tokens = H / P * (W / P), cols = (int64_t)C * P * P;
  Buffer x((size_t)(batch * C * H * W), r), y((size_t)(batch * tokens * cols));
  check::Team team;
  team.batch = (int)batch;
  team.kernel = [&](const vg_call& call) { vg_patchify(call, C, H, W, P, x.p(), vg_store_matrix{y.p(), cols}); };
  team.run_all(what, {&y});
  std::vector<double> want;
  for (int64_t b = 0; b < batch; b++)
    for (int i = 0; i < H; i += P)
      for (int j = 0; j < W; j += P)
        for (int c = 0; c < C; c++)
          for (int u = 0; u < P; u++)
            for (int v = 0; v < P; v++) want.push_back(x[(size_t)(((b * C + c) * H + i + u) * W + j + v)]);
  check::close(what, y.p(), want, 0);
}

void sums(int64_t n) {
  const std::string what = text("sum of squares of %ld", n);
  Random r(9);
  Buffer x((size_t)n, r), squares(1), factor(1);
  for (size_t i = 0; i < x.n; i++) x[i] += 0.25f;
  check::Team team;
  team.workspace = (size_t)vg_sum_workspace(n);
  team.kernel = [&](const vg_call& call) {
    vg_sumsq(call, n, x.p(), squares.p());
    call.barrier();
    vg_clip_scale(call, squares.p(), 2.0f, factor.p());
  };
  team.run_all(what, {&squares, &factor});
  double q = 0;
  for (size_t i = 0; i < x.n; i++) q += (double)x[i] * x[i];
  check::close(what, squares.p(), {q}, 1e-6);
  check::close(what + ": clip", factor.p(), {sqrt(q) > 2 ? 2 / sqrt(q) : 1}, 1e-6);
}

void nan_norm() {
  Buffer x(3), q(1), factor(1);
  x.fill(1);
  x[1] = NAN;
  check::Team team;
  team.workspace = 8;
  team.kernel = [&](const vg_call& call) {
    vg_sumsq(call, 3, x.p(), q.p());
    vg_clip_scale(call, q.p(), 1.0f, factor.p());
  };
  team.run(1, "NaN norm");
  that(isnan(q[0]) && factor[0] == 1, "NaN norm");
}

enum Kind { kPlain, kMomentum, kNesterov, kAdamW };

void optimizer(Kind kind, int64_t n, bool clip) {
  const std::string what = text("optimizer %d n=%ld clip=%d", kind, n, clip);
  const double beta1 = 0.9, beta2 = 0.999;
  const float eps = 1e-8f, decay = 0.05f, momentum = 0.9f, factor = 0.25f;
  std::vector<std::vector<float>> first;
  for (int workers : {1, 2, 3, 7}) {
    const bool average = workers > 1;  // which leaves the bits of everything else as they are
    Random r(10);
    Buffer p((size_t)n, r), g((size_t)n, r), m((size_t)n), v((size_t)n), e((size_t)n, r);
    m.fill(0), v.fill(0);
    std::vector<double> wp(p.p(), p.p() + n), wm((size_t)n, 0), wv((size_t)n, 0), we(e.p(), e.p() + n);
    check::Team team;
    for (int k = 1; k <= 3; k++) {
      for (int64_t i = 0; i < n; i++) g[(size_t)i] = r.uniform();
      team.step.lr = 0.01f;
      team.step.bias_corr1 = (float)(1 / (1 - pow(beta1, k)));
      team.step.bias_corr2 = (float)(1 / (1 - pow(beta2, k)));
      team.step.ema_weight = 0.3f;
      const float* c = clip ? &factor : nullptr;
      float* ema = average ? e.p() : nullptr;
      team.kernel = [&](const vg_call& call) {
        if (kind == kAdamW)
          vg_adamw(call, n, p.p(), g.p(), m.p(), v.p(), beta1, beta2, eps, decay, c, ema);
        else if (kind == kNesterov)
          vg_sgd<true>(call, n, p.p(), g.p(), m.p(), momentum, decay, c, ema);
        else
          vg_sgd<false>(call, n, p.p(), g.p(), kind == kPlain ? nullptr : m.p(), momentum, decay, c, ema);
      };
      team.run(workers, what);
      for (size_t i = 0; i < (size_t)n; i++) {
        const double lr = 0.01f, grad = (clip ? factor : 1.0) * g[i];
        if (kind == kAdamW) {
          wp[i] *= 1 - lr * decay;
          wm[i] = beta1 * wm[i] + (1 - beta1) * grad;
          wv[i] = beta2 * wv[i] + (1 - beta2) * grad * grad;
          wp[i] -= lr * (wm[i] / (1 - pow(beta1, k))) / (sqrt(wv[i] / (1 - pow(beta2, k))) + eps);
        } else {
          const double d = grad + decay * wp[i];
          wm[i] = k == 1 ? d : momentum * wm[i] + d;  // PyTorch's first buffer is the gradient
          wp[i] -= lr * (kind == kPlain ? d : kind == kMomentum ? wm[i] : d + momentum * wm[i]);
        }
        if (average) we[i] += (double)0.3f * (wp[i] - we[i]);
      }
    }
    check::close(what + ": p", p.p(), wp, 3e-7);
    if (kind != kPlain) check::close(what + ": m", m.p(), wm, 1e-6);
    if (kind == kAdamW) check::close(what + ": v", v.p(), wv, 1e-6);
    check::close(what + ": average", e.p(), we, 1e-6);
    that(p.intact() && m.intact() && v.intact() && e.intact(), what + ": wrote beyond");
    if (first.empty()) first = {p.raw, m.raw, v.raw};
    that(first[0] == p.raw && first[1] == m.raw && first[2] == v.raw, what + ": depends on the workers");
  }
}

}}}  // namespace

int main() {
  using namespace vg;
  const int64_t sizes[][2] = {{1, 1}, {1, 9001}, {7, 10}, {37, 33}, {513, 37}, {5000, 10}};
  for (const auto& s : sizes) pointwise(s[0], s[1]), column_sum(s[0], s[1]);
  for (int64_t cols : {1, 10, 37, 513}) token_sum(7, cols);
  patchify(1, 1, 1, 1, 1), patchify(3, 1, 96, 96, 16), patchify(2, 3, 10, 15, 5), patchify(2, 3, 6, 4, 2);
  transpose(1, 1, 1), transpose(2, 37, 33), transpose(3, 7, 64), transpose(1, 513, 10);
  for (int64_t n : {1, 7, 37, 513, 16384, 100003}) sums(n);
  nan_norm();
  for (Kind kind : {kPlain, kMomentum, kNesterov, kAdamW})
    for (int64_t n : {1, 37, 5003}) optimizer(kind, n, n == 37);
  return check::finish();
}
