// Activations on float: the CUDA counterparts of cpu/math.h, same formulas.
#pragma once
#include "device.cuh"

VG_FN float vg_abs(float x) { return vg_from_bits(vg_bits(x) & 0x7fffffffu); }
VG_FN float vg_sigmoid(float x) { return 1.0f / (1.0f + vg_exp(-x)); }

// The larger (smaller) value; b if either is NaN.
VG_FN float vg_max(float a, float b) { return a > b ? a : b; }
VG_FN float vg_min(float a, float b) { return a < b ? a : b; }

// max(x, 0), and NaN for NaN; its gradient is dy where x > 0 and 0 elsewhere,
// as PyTorch has it.
VG_FN float vg_relu(float x) { return vg_max(0.0f, x); }
VG_FN float vg_relu_grad(float dy, float x) { return x <= 0.0f ? 0.0f : dy; }

// x Phi(x), Phi the normal distribution: x (1 + erf(x / sqrt 2)) / 2.
VG_FN float vg_gelu(float x) {
  const float half = 0.5f * x;
  return vg_fma(half, vg_erf(x * 0.707106781f), half);
}
// Its slope, Phi(x) + x phi(x), phi(x) = exp(-x^2 / 2) / sqrt(2 pi).
VG_FN float vg_gelu_slope(float x) {
  const float cdf = vg_fma(0.5f, vg_erf(x * 0.707106781f), 0.5f);
  const float pdf = 0.398942280f * vg_exp(-0.5f * x * x);
  return vg_fma(x, pdf, cdf);
}

// x (1 + tanh u) / 2, u = sqrt(2/pi) (x + 0.044715 x^3).
VG_FN float vg_gelu_tanh_arg(float x) { return 0.797884561f * vg_fma(0.044715f * x * x, x, x); }
VG_FN float vg_gelu_tanh(float x) {
  const float half = 0.5f * x;
  return vg_fma(half, vg_tanh(vg_gelu_tanh_arg(x)), half);
}
VG_FN float vg_gelu_tanh_slope(float x) {
  const float t = vg_tanh(vg_gelu_tanh_arg(x));
  const float du = 0.797884561f * vg_fma(3 * 0.044715f * x, x, 1.0f);
  // Where tanh has saturated its slope is zero, however large x^3 is.
  const float slope = vg_abs(x) > 10.0f ? 0.0f : (1.0f - t * t) * du;
  return vg_fma(0.5f * x, slope, vg_fma(0.5f, t, 0.5f));
}

// x sigmoid(x).
VG_FN float vg_silu(float x) { return x / (1.0f + vg_exp(-x)); }
VG_FN float vg_silu_grad(float dy, float x) {
  const float s = vg_sigmoid(x);
  return dy * s * vg_fma(x, 1.0f - s, 1.0f);
}

// Sum and maximum over the lanes of a warp, always by the same tree.
VG_FN float vg_warp_sum(float x) {
  VG_UNROLL for (int s = 16; s > 0; s /= 2) x += vg_shfl_xor(x, s);
  return x;
}
VG_FN float vg_warp_max(float x) {
  VG_UNROLL for (int s = 16; s > 0; s /= 2) x = vg_max(x, vg_shfl_xor(x, s));
  return x;
}
