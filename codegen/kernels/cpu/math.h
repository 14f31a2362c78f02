// Elementary functions and activations on vf.
//
// Every function propagates NaN, raises no trap, and holds its error bound
// over all of float (the test walks the range against libm in double):
//
//   vg_exp     2 ulp, subnormal results and overflow to infinity included
//   vg_log     2 ulp (subnormal arguments included; log 0 = -inf, log -x = NaN)
//   vg_tanh    2 ulp
//   vg_exp2_below  2.5e-7 of the value from -126 to 0
//
// The activations are bounded by 2e-7 of max(|x|, 1); GELU's and its gradient's by
// 1.2e-7, whose error is nowhere more than a few roundings. The polynomials are minimax fits (weighted
// Lawson iteration) of the functions named beside them.
#pragma once
#include "simd.h"

VG_BEGIN

// Arguments beyond these give infinity and zero.
constexpr float kExpMax = 89.0f, kExpMin = -104.0f;

// e^x = 2^n e^r with n = round(x log2 e), |r| <= ln 2 / 2. ln 2 is subtracted in
// two parts, the first short enough that n times it is exact. Where there is no
// instruction for it, 2^n is applied in two factors, so that neither over- nor
// underflows before the product does.
VG_FN vf vg_exp(vf x) {
  x = vg_min(vf(kExpMax), x);  // in this order: NaN stays
  x = vg_max(vf(kExpMin), x);
  const vf magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const vf shifted = vg_fma(x, vf(1.44269504f), magic);
  const vf n = shifted - magic;
  vf r = vg_fma(n, vf(-0.693359375f), x);
  r = vg_fma(n, vf(2.12194440e-4f), r);
  vf p = 1.38145598e-3f;  // (e^r - 1 - r) / r^2
  p = vg_fma(p, r, vf(8.36873557e-3f));
  p = vg_fma(p, r, vf(4.16683899e-2f));
  p = vg_fma(p, r, vf(0.166665205f));
  p = vg_fma(p, r, vf(0.499999934f));
  p = vg_fma(p * r, r, r) + vf(1.0f);
#if VG_ISA == 2
  return (vg_f32v)_mm512_maskz_scalef_ps(0xffff, (__m512)p.v, (__m512)n.v);  // p 2^n, whatever n
#else
  const vg_i32v k = (vg_i32v)vg_bits(shifted).v - 0x4b400000;  // n as an integer
  const vg_i32v k1 = k >> 1, k2 = k - k1;
  const vf s1 = vg_from_bits(vu((vg_u32v)(k1 + 127) << 23));
  const vf s2 = vg_from_bits(vu((vg_u32v)(k2 + 127) << 23));
  return p * s1 * s2;
#endif
}

// e^x where it is a normal number, -87 <= x <= 88, with less ado: ln 2 in one part
// (|n| <= 127, so n times its error stays below 2.5e-7) and 2^n added to the
// exponent's bits. Beyond, anything but a trap.
VG_FN vf vg_exp_normal(vf x) {
  const vf magic = 12582912.0f;
  const vf shifted = vg_fma(x, vf(1.44269504f), magic);
  const vf r = vg_fma(shifted - magic, vf(-0.693147182f), x);
  vf p = 1.38145598e-3f;
  p = vg_fma(p, r, vf(8.36873557e-3f));
  p = vg_fma(p, r, vf(4.16683899e-2f));
  p = vg_fma(p, r, vf(0.166665205f));
  p = vg_fma(p, r, vf(0.499999934f));
  p = vg_fma(p, r, vf(1.0f));
  p = vg_fma(p, r, vf(1.0f));
  return vg_from_bits(vg_bits(p) + (vg_bits(shifted) << 23));
}

// 2^x for x that rounding at most brings above 0, as softmax has it: 0 below -126,
// where no sum that counts a 1 notices.
VG_FN vf vg_exp2_below(vf x) {
#if VG_ISA == 2
  const vf r = (vg_f32v)_mm512_maskz_reduce_ps(0xffff, (__m512)x.v, 0);  // x - n, n = round(x)
#else
  const vf magic = 12582912.0f;
  const vf shifted = x + magic;
  const vf r = x - (shifted - magic);
#endif
  vf p = 1.32647273e-3f;  // (2^r - 1) / r
  p = vg_fma(p, r, vf(9.67151299e-3f));
  p = vg_fma(p, r, vf(5.55073358e-2f));
  p = vg_fma(p, r, vf(0.240222424f));
  p = vg_fma(p, r, vf(0.693147004f));
  p = vg_fma(p, r, vf(1.0f));
#if VG_ISA == 2
  p = (vg_f32v)_mm512_maskz_scalef_ps(0xffff, (__m512)p.v, (__m512)(x - r).v);
#else
  p = vg_from_bits(vg_bits(p) + (vg_bits(shifted) << 23));
#endif
  return vg_select(x < vf(-126.0f), vf(0.0f), p);
}

// ln x = e ln 2 + ln(1+f), 1+f in [sqrt 1/2, sqrt 2].
VG_FN vf vg_log(vf x) {
  const vf tiny = 1.17549435e-38f;
  const vm subnormal = x < tiny;
  const vf y = vg_select(subnormal, x * vf(8388608.0f), x);
  // Taking the bits of sqrt(1/2) off puts the exponent's step there.
  const vg_i32v bits = (vg_i32v)vg_bits(y).v - 0x3f3504f3;
  const vg_i32v e = (bits >> 23) + (subnormal.v & -23);
  const vf f = vg_from_bits(vu((vg_u32v)((bits & 0x7fffff) + 0x3f3504f3))) - vf(1.0f);
  const vf n = vf(__builtin_convertvector(e, vg_f32v));
  vf p = -0.0763449776f;  // (ln(1+f) - f + f^2/2) / f^3
  p = vg_fma(p, f, vf(0.127615775f));
  p = vg_fma(p, f, vf(-0.131601822f));
  p = vg_fma(p, f, vf(0.142017579f));
  p = vg_fma(p, f, vf(-0.166233574f));
  p = vg_fma(p, f, vf(0.200012269f));
  p = vg_fma(p, f, vf(-0.25000821f));
  p = vg_fma(p, f, vf(0.333333317f));
  const vf f2 = f * f;
  vf t = vg_fma(f2 * f, p, n * vf(-2.12194440e-4f));
  t = vg_fma(f2, vf(-0.5f), t);
  vf r = vg_fma(n, vf(0.693359375f), f + t);
  const float inf = __builtin_inff();
  r = vg_select(x == vf(inf), x, r);
  r = vg_select(x == vf(0.0f), vf(-inf), r);
  return vg_select(x >= vf(0.0f), r, vf(__builtin_nanf("")));
}

// Small |x|: odd polynomial. Otherwise 1 - 2/(e^2|x| + 1).
VG_FN vf vg_tanh(vf x) {
  const vf a = vg_abs(x), s = x * x;
  vf p = -0.0057049872f;  // (tanh x / x - 1) / x^2
  p = vg_fma(p, s, vf(0.0206390874f));
  p = vg_fma(p, s, vf(-0.0537397151f));
  p = vg_fma(p, s, vf(0.133314422f));
  p = vg_fma(p, s, vf(-0.333332819f));
  const vf small = vg_fma(p * s, x, x);
  const vf large = vf(1.0f) - vf(2.0f) / (vg_exp(a + a) + vf(1.0f));
  return vg_copysign(vg_select(a < vf(0.625f), small, large), x);
}

VG_FN vf vg_sigmoid(vf x) { return vf(1.0f) / (vf(1.0f) + vg_exp(-x)); }

// max(x, 0), and NaN for NaN; its gradient is dy where x > 0 and 0 elsewhere,
// as PyTorch has it.
VG_FN vf vg_relu(vf x) { return vg_max(vf(0.0f), x); }
VG_FN vf vg_relu_grad(vf dy, vf x) { return vg_select(x <= vf(0.0f), vf(0.0f), dy); }

// The half of the normal distribution that GELU needs, at a = min(|x|, 13):
//   bell = exp(-a^2/2), 0 from 13 on, where it is below 1e-36;
//   ratio = Phi(-a) / bell, Mills' ratio but for a factor.
// With them Phi and its density take one exponential, and no 1 + erf cancels.
struct vg_normal {
  vf a, bell, ratio;
};
VG_FN vg_normal vg_normal_tail(vf x) {
  const vf a = vg_min(vf(13.0f), vg_abs(x));
  vf q = -3.15543531e-7f;  // Phi(-a) exp(a^2/2); the error times bell is below 2e-8
  q = vg_fma(q, a, vf(7.70878796e-6f));
  q = vg_fma(q, a, vf(-8.47710689e-5f));
  q = vg_fma(q, a, vf(5.6365307e-4f));
  q = vg_fma(q, a, vf(-2.5900912e-3f));
  q = vg_fma(q, a, vf(9.00384877e-3f));
  q = vg_fma(q, a, vf(-2.54718196e-2f));
  q = vg_fma(q, a, vf(6.19239323e-2f));
  q = vg_fma(q, a, vf(-0.13280578f));
  q = vg_fma(q, a, vf(0.249972567f));
  q = vg_fma(q, a, vf(-0.398940593f));
  q = vg_fma(q, a, vf(0.49999997f));
  return {a, vg_select(a < vf(13.0f), vg_exp_normal(vf(-0.5f) * a * a), vf(0.0f)), q};
}

// x Phi(x), Phi the normal distribution, as max(x, 0) - |x| Phi(-|x|).
VG_FN vf vg_gelu(vf x) {
  const vg_normal t = vg_normal_tail(x);
  return vg_fma(-t.a * t.bell, t.ratio, vg_relu(x));
}
// Its slope, Phi(x) + x phi(x), phi(x) = exp(-x^2/2) / sqrt(2 pi): with t = |x| phi(x) - Phi(-|x|),
// 1 + t above zero and -t below.
VG_FN vf vg_gelu_slope(vf x) {
  const vg_normal n = vg_normal_tail(x);
  const vf t = n.bell * vg_fma(vf(0.398942280f), n.a, -n.ratio);
  return vg_select(x > vf(0.0f), vf(1.0f) + t, -t);
}

// x (1 + tanh u) / 2, u = sqrt(2/pi) (x + 0.044715 x^3).
VG_FN vf vg_gelu_tanh_arg(vf x) {
  return vf(0.797884561f) * vg_fma(vf(0.044715f) * x * x, x, x);
}
VG_FN vf vg_gelu_tanh(vf x) {
  const vf half = vf(0.5f) * x;
  return vg_fma(half, vg_tanh(vg_gelu_tanh_arg(x)), half);
}
VG_FN vf vg_gelu_tanh_slope(vf x) {
  const vf t = vg_tanh(vg_gelu_tanh_arg(x));
  const vf du = vf(0.797884561f) * vg_fma(vf(3 * 0.044715f) * x, x, vf(1.0f));
  // Where tanh has saturated its slope is zero, however large x^3 is.
  const vf slope = vg_select(vg_abs(x) > vf(10.0f), vf(0.0f), (vf(1.0f) - t * t) * du);
  return vg_fma(vf(0.5f) * x, slope, vg_fma(vf(0.5f), t, vf(0.5f)));
}

// x sigmoid(x).
VG_FN vf vg_silu(vf x) { return x / (vf(1.0f) + vg_exp(-x)); }
VG_FN vf vg_silu_grad(vf dy, vf x) {
  const vf s = vg_sigmoid(x);
  return dy * s * vg_fma(x, vf(1.0f) - s, vf(1.0f));
}

// On places of values: nothing.
VG_FN vp vg_relu(vp) { return {}; }
VG_FN vp vg_relu_grad(vp, vp) { return {}; }
VG_FN vp vg_gelu(vp) { return {}; }
VG_FN vp vg_gelu_slope(vp) { return {}; }
VG_FN vp vg_gelu_tanh(vp) { return {}; }
VG_FN vp vg_gelu_tanh_slope(vp) { return {}; }
VG_FN vp vg_silu(vp) { return {}; }
VG_FN vp vg_silu_grad(vp, vp) { return {}; }

VG_END
