// Optimizer updates over a flat range of the parameter arena, in one pass:
// each element is read and written once. The formulas are PyTorch's
// (torch.optim.SGD with dampening 0, torch.optim.AdamW); learning rate and bias
// corrections come from the step, and clip points to the factor that
// vg_clip_scale computed, or is NULL. half, if not NULL, is a bf16 copy of the
// parameters, refreshed in the same pass. average, if not NULL, is their moving
// average, which takes its share of the new ones in the same pass:
// average += ema_weight (p - average), with the step's ema_weight.
#pragma once
#include "pointwise.cuh"

// Blocks for n elements: four a thread.
VG_CONST int64_t vg_flat_blocks(int64_t n) {
  return vg_max64(1, vg_min64(vg_ceil_div(n, 4 * kBlockThreads), kMaxBlocks));
}

// Four neighbours by one access, or one element.
VG_FN void vg_load_flat(float (&x)[4], const float* p) {
  const vg_float4 v = *(const vg_float4*)p;
  x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
}
VG_FN void vg_load_flat(float (&x)[1], const float* p) { x[0] = *p; }
VG_FN void vg_store_flat(float* p, const float (&x)[4]) { *(vg_float4*)p = {x[0], x[1], x[2], x[3]}; }
VG_FN void vg_store_flat(float* p, const float (&x)[1]) { *p = x[0]; }
VG_FN void vg_store_flat(vg_bf16* p, const float (&x)[4]) {
  *(vg_uint2*)p = {vg_pack_bf16(x[0], x[1]), vg_pack_bf16(x[2], x[3])};
}
VG_FN void vg_store_flat(vg_bf16* p, const float (&x)[1]) { vg_store(p, x[0], 1); }

// Whether every fourth element may be reached by one access to it and the next
// three. The parameter arena and what is laid out like it always may.
VG_FN bool vg_flat_aligned(const float* p) { return (uintptr_t)p % 16 == 0; }
VG_FN bool vg_flat_aligned(const vg_bf16* p) { return (uintptr_t)p % 8 == 0; }

// Runs f.operator()<4>(i) and <1>(i) over a flat array of n elements.
template <class F>
VG_FN void vg_flat(const vg_call& c, int64_t n, bool aligned, const F& f) {
  const int64_t me = (int64_t)c.block * kBlockThreads + vg_thread(), stride = (int64_t)c.blocks * kBlockThreads;
  const int64_t vectors = aligned ? n / 4 : 0;
  for (int64_t i = me; i < vectors; i += stride) f.template operator()<4>(4 * i);
  VG_NO_UNROLL for (int64_t i = 4 * vectors + me; i < n; i += stride) f.template operator()<1>(i);
}

template <int N>
VG_FN void vg_average(float* average, const float (&param)[N], float share) {
  float e[N];
  vg_load_flat(e, average);
  VG_UNROLL for (int k = 0; k < N; k++) e[k] = vg_fma(share, param[k] - e[k], e[k]);
  vg_store_flat(average, e);
}

template <bool NESTEROV>
struct vg_sgd_update {
  float* p;
  const float* g;
  float* m;
  vg_bf16* half;
  float* average;
  float lr, factor, momentum, weight_decay, share;

  template <int N>
  VG_FN void operator()(int64_t i) const {
    float param[N], d[N];
    vg_load_flat(param, p + i);
    vg_load_flat(d, g + i);
    VG_UNROLL for (int k = 0; k < N; k++) d[k] = vg_fma(weight_decay, param[k], factor * d[k]);
    if (m) {
      float buf[N];
      vg_load_flat(buf, m + i);
      VG_UNROLL for (int k = 0; k < N; k++) {
        buf[k] = vg_fma(momentum, buf[k], d[k]);
        d[k] = NESTEROV ? vg_fma(momentum, buf[k], d[k]) : buf[k];
      }
      vg_store_flat(m + i, buf);
    }
    VG_UNROLL for (int k = 0; k < N; k++) param[k] -= lr * d[k];
    vg_store_flat(p + i, param);
    if (half) vg_store_flat(half + i, param);
    if (average) vg_average(average + i, param, share);
  }
};

// d = clip g + weight_decay p;  m = momentum m + d;
// p -= lr (NESTEROV ? d + momentum m : m).
// m starts at zero, which gives PyTorch's m = d at the first update. m NULL: no
// momentum, p -= lr d.
template <bool NESTEROV>
VG_FN void vg_sgd(const vg_call& c, int64_t n, float* p, const float* g, float* m, float momentum, float weight_decay,
                  const float* clip, vg_bf16* half, float* average = nullptr) {
  const vg_step& step = c.step();
  const bool aligned = vg_flat_aligned(p) && vg_flat_aligned(g) && vg_flat_aligned(m) && vg_flat_aligned(half) &&
                       vg_flat_aligned(average);
  vg_flat(c, n, aligned,
          vg_sgd_update<NESTEROV>{p, g, m, half, average, step.lr, clip ? *clip : 1.0f, momentum, weight_decay,
                                  step.ema_weight});
}

struct vg_adamw_update {
  float* p;
  const float* g;
  float* m;
  float* v;
  vg_bf16* half;
  float* average;
  float factor, decay, rest1, keep2, rest2, corr2, size, eps, share;

  template <int N>
  VG_FN void operator()(int64_t i) const {
    float param[N], grad[N], m1[N], v1[N];
    vg_load_flat(param, p + i);
    vg_load_flat(grad, g + i);
    vg_load_flat(m1, m + i);
    vg_load_flat(v1, v + i);
    VG_UNROLL for (int k = 0; k < N; k++) {
      const float scaled = factor * grad[k];
      m1[k] = vg_fma(rest1, scaled - m1[k], m1[k]);
      v1[k] = vg_fma(rest2 * scaled, scaled, keep2 * v1[k]);
      const float update = m1[k] / (vg_sqrt(v1[k] * corr2) + eps);
      param[k] = decay * param[k] - size * update;
    }
    vg_store_flat(m + i, m1);
    vg_store_flat(v + i, v1);
    vg_store_flat(p + i, param);
    if (half) vg_store_flat(half + i, param);
    if (average) vg_average(average + i, param, share);
  }
};

// p *= 1 - lr weight_decay;  m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2;
// p -= lr bias_corr1 m / (sqrt(v bias_corr2) + eps), with the bias corrections
// of vg_step: 1 / (1 - beta^k).
// The betas are double because 1 - beta2 would lose its digits in float.
VG_FN void vg_adamw(const vg_call& c, int64_t n, float* p, const float* g, float* m, float* v, double beta1,
                    double beta2, float eps, float weight_decay, const float* clip, vg_bf16* half,
                    float* average = nullptr) {
  const vg_step& step = c.step();
  const bool aligned = vg_flat_aligned(p) && vg_flat_aligned(g) && vg_flat_aligned(m) && vg_flat_aligned(v) &&
                       vg_flat_aligned(half) && vg_flat_aligned(average);
  const float decay = (float)(1.0 - (double)step.lr * (double)weight_decay);
  vg_flat(c, n, aligned,
          vg_adamw_update{p, g, m, v, half, average, clip ? *clip : 1.0f, decay, (float)(1.0 - beta1), (float)beta2,
                          (float)(1.0 - beta2), step.bias_corr2, step.lr * step.bias_corr1, eps, step.ema_weight});
}
