// vf: a vector of floats as wide as the build's registers, with its mask (vm)
// and integer (vu) companions.
//
// Functors are templates on the value type, so the same text runs on vf here
// and on float on a GPU; only this header knows how wide vf is (4, 8 or 16).
// It is built on GCC's vector extensions, so one text serves every instruction
// set and any CPU; intrinsics appear only where the extensions have no word:
// masked memory, square roots and widening multiplication.
#pragma once
#include "isa.h"

VG_BEGIN

constexpr int kLanes = VG_VECTOR_BYTES / 4;

typedef float vg_f32v __attribute__((vector_size(VG_VECTOR_BYTES)));
typedef int32_t vg_i32v __attribute__((vector_size(VG_VECTOR_BYTES)));
typedef uint32_t vg_u32v __attribute__((vector_size(VG_VECTOR_BYTES)));
typedef uint64_t vg_u64v __attribute__((vector_size(VG_VECTOR_BYTES)));
// The same in memory: no alignment beyond the element's.
typedef float vg_f32m __attribute__((vector_size(VG_VECTOR_BYTES), aligned(4), may_alias));
typedef uint32_t vg_u32m __attribute__((vector_size(VG_VECTOR_BYTES), aligned(4), may_alias));

// 0, 1, 2, …
VG_FN vg_i32v vg_iota() {
  vg_i32v r;
  for (int i = 0; i < kLanes; i++) r[i] = i;
  return r;
}

// One truth value a lane: all bits or none.
struct vm {
  vg_i32v v;
};
VG_FN vm operator&(vm a, vm b) { return {a.v & b.v}; }
VG_FN vm operator|(vm a, vm b) { return {a.v | b.v}; }
VG_FN vm operator!(vm a) { return {~a.v}; }

// Unsigned integers, for bit patterns and random numbers.
struct vu {
  vg_u32v v;
  vu() = default;
  VG_FN vu(uint32_t x) : v(vg_u32v{} + x) {}
  VG_FN vu(vg_u32v x) : v(x) {}
};
VG_FN vu operator+(vu a, vu b) { return a.v + b.v; }
VG_FN vu operator-(vu a, vu b) { return a.v - b.v; }
VG_FN vu operator&(vu a, vu b) { return a.v & b.v; }
VG_FN vu operator|(vu a, vu b) { return a.v | b.v; }
VG_FN vu operator^(vu a, vu b) { return a.v ^ b.v; }
VG_FN vu operator<<(vu a, int n) { return a.v << n; }
VG_FN vu operator>>(vu a, int n) { return a.v >> n; }
VG_FN vm operator>=(vu a, vu b) { return {a.v >= b.v}; }

struct vf {
  static constexpr int lanes = kLanes;
  vg_f32v v;
  vf() = default;
  VG_FN vf(float x) : v(x - vg_f32v{}) {}  // x - 0 keeps the sign of -0
  VG_FN vf(vg_f32v x) : v(x) {}
  VG_FN vf& operator+=(vf o) { v += o.v; return *this; }
  VG_FN vf& operator-=(vf o) { v -= o.v; return *this; }
  VG_FN vf& operator*=(vf o) { v *= o.v; return *this; }
};
VG_FN vf operator+(vf a, vf b) { return a.v + b.v; }
VG_FN vf operator-(vf a, vf b) { return a.v - b.v; }
VG_FN vf operator*(vf a, vf b) { return a.v * b.v; }
VG_FN vf operator/(vf a, vf b) { return a.v / b.v; }
VG_FN vf operator-(vf a) { return -a.v; }
VG_FN vm operator<(vf a, vf b) { return {a.v < b.v}; }
VG_FN vm operator<=(vf a, vf b) { return {a.v <= b.v}; }
VG_FN vm operator>(vf a, vf b) { return {a.v > b.v}; }
VG_FN vm operator>=(vf a, vf b) { return {a.v >= b.v}; }
VG_FN vm operator==(vf a, vf b) { return {a.v == b.v}; }
VG_FN vm operator!=(vf a, vf b) { return {a.v != b.v}; }

// a where the mask is set, b elsewhere.
VG_FN vf vg_select(vm m, vf a, vf b) { return m.v ? a.v : b.v; }

// a*b + c; fused where the target can (the library is built with
// -ffp-contract=fast, so this is a matter of clarity, not of rounding).
VG_FN vf vg_fma(vf a, vf b, vf c) { return a.v * b.v + c.v; }

// The larger (smaller) value; b if either is NaN.
VG_FN vf vg_max(vf a, vf b) { return a.v > b.v ? a.v : b.v; }
VG_FN vf vg_min(vf a, vf b) { return a.v < b.v ? a.v : b.v; }

VG_FN vu vg_bits(vf x) { return vu((vg_u32v)x.v); }
VG_FN vf vg_from_bits(vu x) { return vf((vg_f32v)x.v); }
VG_FN vf vg_abs(vf x) { return vg_from_bits(vg_bits(x) & vu(0x7fffffffu)); }
// |x| with the sign of s.
VG_FN vf vg_copysign(vf x, vf s) {
  return vg_from_bits((vg_bits(x) & vu(0x7fffffffu)) | (vg_bits(s) & vu(0x80000000u)));
}

VG_FN vf vg_sqrt(vf x) {
#if VG_ISA == 2
  return (vg_f32v)_mm512_maskz_sqrt_ps(0xffff, (__m512)x.v);  // all lanes; the plain form warns in GCC 12
#elif VG_ISA == 1
  return (vg_f32v)_mm256_sqrt_ps((__m256)x.v);
#elif defined(__x86_64__)
  return (vg_f32v)_mm_sqrt_ps((__m128)x.v);
#else
  for (int i = 0; i < kLanes; i++) x.v[i] = __builtin_sqrtf(x.v[i]);
  return x;
#endif
}
// One square root, which takes a fraction of a wide vector's time. The builtin on a
// float would call libm for errno's sake.
VG_FN float vg_sqrt_scalar(float x) {
#if defined(__x86_64__)
  return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
#else
  return vg_sqrt(vf(x)).v[0];
#endif
}
// Exactly rounded root, then an exactly rounded quotient.
VG_FN vf vg_rsqrt(vf x) { return vf(1.0f) / vg_sqrt(x); }

template <class V>
V vg_splat(float x);
template <>
VG_FN vf vg_splat<vf>(float x) { return vf(x); }

VG_FN vf vg_load_full(const float* p) { return (vg_f32v) * (const vg_f32m*)p; }
VG_FN void vg_store_full(float* p, vf x) { *(vg_f32m*)p = (vg_f32m)x.v; }

// Some of the lanes: 1 <= n < lanes. Nothing beyond p[n-1] is touched.
VG_FN vf vg_load_part(const float* p, int n) {
#if VG_ISA == 2
  return (vg_f32v)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif VG_ISA == 1
  return (vg_f32v)_mm256_maskload_ps(p, (__m256i)(vg_iota() < n));
#else
  vg_f32v r{};
  for (int i = 0; i < n; i++) r[i] = p[i];
  return r;
#endif
}
VG_FN void vg_store_part(float* p, vf x, int n) {
#if VG_ISA == 2
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)x.v);
#elif VG_ISA == 1
  _mm256_maskstore_ps(p, (__m256i)(vg_iota() < n), (__m256)x.v);
#else
  for (int i = 0; i < n; i++) p[i] = x.v[i];
#endif
}

// The first n values at p, zero in the lanes beyond; and the way back.
template <class V>
V vg_load(const float* p, int n);
template <>
VG_FN vf vg_load<vf>(const float* p, int n) {
  return __builtin_expect(n >= kLanes, 1) ? vg_load_full(p) : vg_load_part(p, n);
}
VG_FN void vg_store(float* p, vf x, int n) {
  if (__builtin_expect(n >= kLanes, 1))
    vg_store_full(p, x);
  else
    vg_store_part(p, x, n);
}

// vp: the place of a value and not the value. Called with vp, a functor computes
// nothing: its loads and stores only fetch the cache lines that they would touch.
// So a loop can have an epilogue's operands on their way while it multiplies.
struct vp {
  vp() = default;
  VG_FN vp(float) {}
};
VG_FN vp operator+(vp, vp) { return {}; }
VG_FN vp operator-(vp, vp) { return {}; }
VG_FN vp operator*(vp, vp) { return {}; }
template <>
VG_FN vp vg_load<vp>(const float* p, int) {
  __builtin_prefetch(p, 0, 2);  // into L2: the loops around it use L1 meanwhile
  return {};
}
VG_FN void vg_store(float* p, vp, int) { __builtin_prefetch(p, 1, 2); }
template <>
VG_FN vp vg_splat<vp>(float) { return {}; }

// Lanes >= n replaced by fill.
VG_FN vf vg_keep(vf x, int n, float fill) { return vg_select(vm{vg_iota() < n}, x, vf(fill)); }
VG_FN vf vg_or_zero(vf x, int n) { return n < kLanes ? vg_keep(x, n, 0.0f) : x; }

// Sum and maximum over the lanes, always by the same tree: lane i meets lane
// i xor lanes/2, then i xor lanes/4, …
VG_FN float vg_sum(vf x) {
  for (int s = kLanes / 2; s > 0; s /= 2) x.v += __builtin_shuffle(x.v, vg_iota() ^ s);
  return x.v[0];
}
VG_FN float vg_hmax(vf x) {
  for (int s = kLanes / 2; s > 0; s /= 2) x = vg_max(x, vf(__builtin_shuffle(x.v, vg_iota() ^ s)));
  return x.v[0];
}

// Two vectors, a and b, taken apart and put together in blocks of s lanes: low has
// the even blocks of both, at even places those of a; high has the odd ones.
struct vg_pairing {
  vg_i32v low, high;
  VG_FN explicit vg_pairing(int s) {
    const vg_i32v lane = vg_iota(), odd = (lane & s) != 0;
    low = odd ? lane - s + kLanes : lane;
    high = odd ? lane + kLanes : lane + s;
  }
};

// The sums (maxima) of kLanes vectors at once, lane i from r[i], in a third of the
// steps and without the latency of one after another: each round adds
// neighbours of two vectors and puts the results where the second one was not.
// Overwrites r.
template <class F>
VG_FN vf vg_fold_rows(vf* r, const F& f) {
#pragma GCC unroll 5
  for (int s = 1; s < kLanes; s *= 2) {
    const vg_pairing pair(s);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; i += 2 * s)
      r[i] = f(vf(__builtin_shuffle(r[i].v, r[i + s].v, pair.low)), vf(__builtin_shuffle(r[i].v, r[i + s].v, pair.high)));
  }
  return r[0];
}
VG_FN vf vg_sum_rows(vf* r) {
  return vg_fold_rows(r, [](vf a, vf b) VG_LAMBDA { return a + b; });
}
VG_FN vf vg_max_rows(vf* r) {
  return vg_fold_rows(r, [](vf a, vf b) VG_LAMBDA { return vg_max(a, b); });
}

// Turns r, a square of lanes x lanes values, along its diagonal: log2(lanes)
// rounds, each swapping the off-diagonal halves of ever larger squares. `below`:
// those of squares from that size on have been swapped.
VG_FN void vg_transpose_square(vf* r, int below = kLanes) {
#pragma GCC unroll 5
  for (int s = 1; s < below; s *= 2) {
    const vg_pairing pair(s);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; i++) {
      if (i & s) continue;
      const vg_f32v a = r[i].v, b = r[i + s].v;
      r[i].v = __builtin_shuffle(a, b, pair.low);
      r[i + s].v = __builtin_shuffle(a, b, pair.high);
    }
  }
}

// A square from memory, turned: lane l of r[i] is at(l)[i]. AVX-512 has one port for
// shuffles and two for loads that put four values where they belong.
template <class F>
VG_FN void vg_load_turned(const F& at, vf* r) {
#if VG_ISA == 2
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      __m512 x = _mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(at(i) + 4 * j));
#pragma GCC unroll 4
      for (int k = 1; k < 4; k++)
        x = _mm512_mask_broadcast_f32x4(x, (__mmask16)(0xf << 4 * k), _mm_loadu_ps(at(4 * k + i) + 4 * j));
      r[4 * j + i] = (vg_f32v)x;
    }
  vg_transpose_square(r, 4);
#else
#pragma GCC unroll 16
  for (int l = 0; l < kLanes; l++) r[l] = vg_load_full(at(l));
  vg_transpose_square(r);
#endif
}

VG_END
