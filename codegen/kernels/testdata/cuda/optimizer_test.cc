// Optimizers against plain loops in double, over several steps.
#include "../../cuda/optimizer.cuh"

#include "device_check.h"

using check::Array;
using check::Random;
using check::text;
using check::that;

constexpr double kBeta1 = 0.9, kBeta2 = 0.999;
constexpr float kEps = 1e-8f, kDecay = 0.05f, kMomentum = 0.9f, kFactor = 0.25f, kShare = 0.3f;

#define CALL const vg_call c{state, workspace, counters, vg_block_index(), vg_block_count()}
#define BEGIN const vg_state *state, char *workspace, uint32_t *counters
#define ARGS BEGIN, float *p, const float *g, float *m, float *v, const float *clip, vg_bf16 *half, float *average, uint64_t n

VG_KERNEL(256, 2) sgd(ARGS) {
  CALL;
  (void)v;
  vg_sgd<false>(c, (int64_t)n, p, g, m, kMomentum, kDecay, clip, half, average);
}
VG_EXPORT(sgd)
VG_KERNEL(256, 2) nesterov(ARGS) {
  CALL;
  (void)v;
  vg_sgd<true>(c, (int64_t)n, p, g, m, kMomentum, kDecay, clip, half, average);
}
VG_EXPORT(nesterov)
VG_KERNEL(256, 2) adamw(ARGS) {
  CALL;
  vg_adamw(c, (int64_t)n, p, g, m, v, kBeta1, kBeta2, kEps, kDecay, clip, half, average);
}
VG_EXPORT(adamw)

enum Kind { kPlain, kHeavy, kNesterov, kAdamW };
const char* const kKernels[] = {"sgd", "sgd", "nesterov", "adamw"};

// Parameters and state, in double.
struct Model {
  std::vector<double> p, m, v, average;
  void step(Kind kind, const Array<float>& g, size_t skip, double lr, bool clip, bool averaged, int k) {
    for (size_t i = 0; i < p.size(); i++) {
      const double grad = (clip ? kFactor : 1.0) * g.at(skip + i);
      if (kind == kAdamW) {
        p[i] *= 1 - lr * kDecay;
        m[i] = kBeta1 * m[i] + (1 - kBeta1) * grad;
        v[i] = kBeta2 * v[i] + (1 - kBeta2) * grad * grad;
        p[i] -= lr * (m[i] / (1 - pow(kBeta1, k))) / (sqrt(v[i] / (1 - pow(kBeta2, k))) + kEps);
      } else {
        const double d = grad + kDecay * p[i];
        m[i] = k == 1 ? d : kMomentum * m[i] + d;  // PyTorch's first buffer is the gradient
        p[i] -= lr * (kind == kPlain ? d : kind == kHeavy ? m[i] : d + kMomentum * m[i]);
      }
      if (averaged) average[i] += (double)kShare * (p[i] - average[i]);
    }
  }
};

// Three steps over n elements from `skip` on, in one order and grid, with an
// average or none, which leaves the rest as it is: the bits of p, m and v go to
// *bits.
void steps(const std::string& what, Kind kind, size_t n, size_t skip, bool clip, bool averaged, int64_t blocks,
           uint64_t seed, std::vector<float>* bits) {
  Random r(10 + n);
  Array<float> p(n + skip, "p", r), g(n + skip, "g", r), m(n + skip, "m", r, 0), v(n + skip, "v", r, 0), factor(1, "clip", r, 0, kFactor);
  Array<float> average(n + skip, "average", r);
  Array<vg_bf16> half(n + skip, "half");
  Model want;
  for (size_t i = 0; i < n; i++) want.p.push_back(p.at(skip + i)), want.average.push_back(average.at(skip + i));
  want.m.assign(n, 0), want.v.assign(n, 0);
  Array<vg_state> state(1, "state");
  for (int k = 1; k <= 3; k++) {
    for (size_t i = 0; i < g.n; i++) g[i] = r.uniform();
    g.wrote();
    state[0] = check::state(1);
    state[0].step.lr = 0.01f;
    state[0].step.bias_corr1 = (float)(1 / (1 - pow(kBeta1, k)));
    state[0].step.bias_corr2 = (float)(1 / (1 - pow(kBeta2, k)));
    state[0].step.ema_weight = kShare;
    state.wrote();
    vg_sim::options o;
    o.seed = seed + (uint64_t)k;
    vg_sim::output(half.p + skip, n * 2);
    const std::string fault = vg_sim::run(
        vg_sim::find(kKernels[kind]), (unsigned)blocks, 256, 0, o, (const vg_state*)state.p, (char*)nullptr, (uint32_t*)nullptr,
        p.p + skip, (const float*)g.p + skip, kind == kPlain ? (float*)nullptr : m.p + skip, v.p + skip,
        (const float*)(clip ? factor.p : nullptr), k < 3 ? (vg_bf16*)nullptr : half.p + skip,
        averaged ? average.p + skip : (float*)nullptr, (uint64_t)n);
    if (fault != "") return that(false, what + ": " + fault);
    want.step(kind, g, skip, 0.01f, clip, averaged, k);
  }
  const std::string missing = vg_sim::unwritten(half.p + skip, n * 2);
  that(missing == "", what + ": " + missing);
  const auto near = [&](Array<float>& got, const std::vector<double>& expect) {
    std::vector<double> whole;
    for (size_t i = 0; i < skip; i++) whole.push_back(got.at(i));
    whole.insert(whole.end(), expect.begin(), expect.end());
    check::close(what, got, whole, 2e-6);
  };
  const auto close = [&](Array<float>& got, const std::vector<double>& expect) {
    near(got, expect);
    bits->insert(bits->end(), got.p, got.p + got.n);
  };
  near(average, want.average);
  close(p, want.p);
  if (kind != kPlain) close(m, want.m);
  if (kind == kAdamW) close(v, want.v);
  size_t wrong = 0;
  for (size_t i = skip; i < n + skip; i++) {
    vg_bf16 rounded;
    check::assign(rounded, p[i]);
    wrong += half[i].bits != rounded.bits;
  }
  that(wrong == 0, what + text(": %d elements of the bf16 copy are wrong", (int)wrong));
}

void optimizer(Kind kind, size_t n, size_t skip, bool clip) {
  const std::string what = text("%s %d n=%d from %d on, clip=%d", kKernels[kind], kind, (int)n, (int)skip, clip);
  const int64_t blocks = vg_flat_blocks((int64_t)n);
  std::vector<float> first, other;
  steps(what, kind, n, skip, clip, false, blocks, 1, &first);
  for (int64_t b : {(int64_t)1, (int64_t)3, blocks + 2}) {
    other.clear();
    steps(what, kind, n, skip, clip, b != 3, b, 100 * (uint64_t)b, &other);
    that(other.size() == first.size() && !memcmp(first.data(), other.data(), 4 * first.size()), what + ": depends on the grid");
  }
}

int main() {
#ifdef SMALL
  const size_t sizes[] = {1, 37, 1300};
#else
  const size_t sizes[] = {1, 37, 1024, 5003};
#endif
  for (Kind kind : {kPlain, kHeavy, kNesterov, kAdamW}) {
    for (size_t n : sizes) optimizer(kind, n, 0, n == 37);
    optimizer(kind, 37, 16, true);
    optimizer(kind, 37, 1, false);  // not aligned for vectors
  }
  return check::finish();
}
