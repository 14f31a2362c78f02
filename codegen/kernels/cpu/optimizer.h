// Optimizer updates over a flat range of the parameter arena, in one pass:
// each element is read and written once. The formulas are PyTorch's
// (torch.optim.SGD with dampening 0, torch.optim.AdamW); learning rate and bias
// corrections come from the step, and clip points to the factor that
// vg_clip_scale computed, or is NULL. average, if not NULL, is the moving average
// of the parameters, which takes its share of the new ones in the same pass:
// average += ema_weight (p - average), with the step's ema_weight.
#pragma once
#include "call.h"

VG_BEGIN

// Runs f(i, lanes) over a flat array of n elements.
template <class F>
VG_FN void vg_flat(const vg_call& call, int64_t n, const F& f) {
  const vg_range mine = call.share(vg_ceil_div(n, kLanes));
  const int64_t last = vg_min64(n, mine.end * kLanes);
  int64_t i = mine.begin * kLanes;
  for (; i + kLanes <= last; i += kLanes) f(i, kLanes);
  if (i < last) f(i, (int)(last - i));
}

VG_FN void vg_average(float* average, vf param, vf share, int lanes) {
  const vf before = vg_load<vf>(average, lanes);
  vg_store(average, vg_fma(share, param - before, before), lanes);
}

// d = clip g + weight_decay p;  m = momentum m + d;
// p -= lr (nesterov ? d + momentum m : m).
// m starts at zero, which gives PyTorch's m = d at the first update. m NULL: no
// momentum, p -= lr d.
template <bool nesterov>
VG_NOINLINE void vg_sgd(const vg_call& call, int64_t n, float* p, const float* g, float* m, float momentum,
                        float weight_decay, const float* clip, float* average = nullptr) {
  const vf lr = call.step().lr, factor = clip ? *clip : 1.0f, mu = momentum, wd = weight_decay;
  const vf share = call.step().ema_weight;
  vg_flat(call, n, [&](int64_t i, int lanes) VG_LAMBDA {
    const vf param = vg_load<vf>(p + i, lanes);
    vf d = vg_fma(wd, param, factor * vg_load<vf>(g + i, lanes));
    if (m) {
      const vf buf = vg_fma(mu, vg_load<vf>(m + i, lanes), d);
      vg_store(m + i, buf, lanes);
      d = nesterov ? vg_fma(mu, buf, d) : buf;
    }
    const vf next = param - lr * d;
    vg_store(p + i, next, lanes);
    if (average) vg_average(average + i, next, share, lanes);
  });
}

// p *= 1 - lr weight_decay;  m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2;
// p -= lr bias_corr1 m / (sqrt(v bias_corr2) + eps), with the bias corrections
// of vg_step: 1 / (1 - beta^k).
// The betas are double because 1 - beta2 would lose its digits in float.
VG_NOINLINE void vg_adamw(const vg_call& call, int64_t n, float* p, const float* g, float* m, float* v, double beta1,
                          double beta2, float eps, float weight_decay, const float* clip, float* average = nullptr) {
  const vg_step& step = call.step();
  const vf factor = clip ? *clip : 1.0f, decay = (float)(1.0 - (double)step.lr * (double)weight_decay);
  const vf rest1 = (float)(1.0 - beta1), keep2 = (float)beta2, rest2 = (float)(1.0 - beta2);
  const vf corr2 = step.bias_corr2, size = step.lr * step.bias_corr1, epsilon = eps;
  const vf share = step.ema_weight;
  vg_flat(call, n, [&](int64_t i, int lanes) VG_LAMBDA {
    const vf grad = factor * vg_load<vf>(g + i, lanes);
    const vf m0 = vg_load<vf>(m + i, lanes), v0 = vg_load<vf>(v + i, lanes);
    const vf m1 = vg_fma(rest1, grad - m0, m0);
    const vf v1 = vg_fma(rest2 * grad, grad, keep2 * v0);
    vg_store(m + i, m1, lanes);
    vg_store(v + i, v1, lanes);
    const vf update = m1 / (vg_sqrt(v1 * corr2) + epsilon);
    const vf next = decay * vg_load<vf>(p + i, lanes) - size * update;
    vg_store(p + i, next, lanes);
    if (average) vg_average(average + i, next, share, lanes);
  });
}

// The factor that brings a gradient of squared norm *sumsq down to max_norm; 1
// if it is not above. A NaN norm gives 1: the NaN itself must reach the loss.
VG_NOINLINE void vg_clip_scale(const vg_call& call, const float* sumsq, float max_norm, float* out) {
  if (call.index() != 0) return;
  const float norm = vg_sqrt_scalar(*sumsq);
  *out = norm > max_norm ? max_norm / norm : 1.0f;
}

VG_END
