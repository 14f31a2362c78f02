// Dropout and drop path: the multiplier of an element, 0 or 1/(1-p), from its
// index alone, so the backward pass computes the forward pass's mask again
// instead of reading it.
//
// One Philox evaluation a lane yields the bits of eight vectors of sixteen, and
// callers walk along rows, so vg_dropout keeps the multipliers of the 128-block
// it last met, with the end of the block before it: a vector at any offset is
// then one load.
#pragma once
#include "../common/abi.h"
#include "../common/philox.h"
#include "simd.h"

VG_BEGIN

// The products of the lower halves of 64-bit lanes.
VG_FN vg_u64v vg_mul_low(vg_u64v a, uint32_t m) {
#if VG_ISA == 2
  return (vg_u64v)_mm512_maskz_mul_epu32(0xff, (__m512i)a, _mm512_set1_epi32((int)m));
#elif VG_ISA == 1
  return (vg_u64v)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi32((int)m));
#elif defined(__x86_64__)
  return (vg_u64v)_mm_mul_epu32((__m128i)a, _mm_set1_epi32((int)m));
#else
  return (a & 0xffffffffu) * m;
#endif
}

// vg_philox4x32 on a counter a lane. Even and odd lanes (x86 and the ARM targets
// are little-endian, so an even lane is the low half of 64 bits) go through the
// rounds apart: a product then is a pair of words in place, and what lies in the
// upper halves beside words matters to no multiplication.
VG_FN void vg_philox4x32(vu x[4], uint32_t key0, uint32_t key1) {
  vg_u64v even[4], odd[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) even[i] = (vg_u64v)x[i].v, odd[i] = even[i] >> 32;
  const auto turn = [&](vg_u64v* w) VG_LAMBDA {
    const vg_u64v p0 = vg_mul_low(w[0], VG_PHILOX_M0), p1 = vg_mul_low(w[2], VG_PHILOX_M1);
    w[0] = (p1 >> 32) ^ w[1] ^ key0;
    w[1] = p1;
    w[2] = (p0 >> 32) ^ w[3] ^ key1;
    w[3] = p0;
  };
  for (int round = 0; round < 10; round++) {
    turn(even), turn(odd);
    key0 += VG_PHILOX_W0;
    key1 += VG_PHILOX_W1;
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) x[i] = vu((vg_u32v)((even[i] & 0xffffffffu) | (odd[i] << 32)));
}

// What a kept value is multiplied by.
VG_FN float vg_inv_keep(uint32_t thr) { return 65536.0f / (float)(65536 - (int32_t)thr); }

// The 128 multipliers of one block of one site.
VG_NOINLINE void vg_dropout_block(const vg_step* step, uint32_t site, uint32_t thr, uint64_t block, float* out) {
  const vf kept = thr < 65536 ? vg_inv_keep(thr) : 0.0f;
  for (int lane = 0; lane < 16; lane += kLanes) {
    vu x[4] = {vu((vg_u32v)vg_iota() + (uint32_t)(block * 16 + lane)), 0, site, step->micro_step};
    vg_philox4x32(x, step->seed_lo, step->seed_hi);
    for (int half = 0; half < 8; half++) {
      const vu draw = (x[half >> 1] >> (16 * (half & 1))) & vu(0xffffu);
      vg_store_full(out + 16 * half + lane, vg_select(draw >= vu(thr), kept, vf(0.0f)));
    }
  }
}

// The multipliers of one dropout site. A functor holds one as a member; it
// belongs to one worker.
struct vg_dropout {
  VG_FN vg_dropout(const vg_step& s, uint32_t site, uint32_t thr)
      : step_(&s), site_(site), thr_(thr), on_(s.dropout_on && thr > 0) {}

  VG_FN bool on() const { return on_; }

  // Multipliers of elements index .. index + lanes-1; those from n on are any
  // value. All 1 while dropout is off.
  template <class V>
  VG_FN V scale(int64_t index, int n) const {
    if (!on_) return V(1.0f);
    int64_t at = index - first_;
    if (__builtin_expect(at < -before_ || at + n > 128, 0)) {
      refill(index, n);
      at = index - first_;
    }
    return vg_load_full(kept_ + 16 + at);
  }

 private:
  VG_NOINLINE void refill(int64_t index, int n) const {
    const int64_t from = index >> 7, to = (index + n - 1) >> 7;
    for (int64_t b = from; b <= to; b++) {
      if (b * 128 == first_) continue;
      before_ = b * 128 == first_ + 128 ? 16 : 0;
      if (before_ > 0) __builtin_memcpy(kept_, kept_ + 128, 16 * sizeof(float));
      vg_dropout_block(step_, site_, thr_, (uint64_t)b, kept_ + 16);
      first_ = b * 128;
    }
  }

  const vg_step* step_;
  uint32_t site_, thr_;
  bool on_;
  mutable int64_t first_ = -((int64_t)1 << 62);  // index of kept_[16]
  mutable int64_t before_ = 0;                   // how many before it are there too: 16 or none
  mutable float kept_[16 + 128 + 16] = {};       // the last 16 are only ever read into lanes beyond n
};

template <>
VG_FN vp vg_dropout::scale<vp>(int64_t, int) const { return {}; }

// The same without a cache, for a single vector.
template <class V>
VG_FN V vg_dropout_scale(const vg_step& step, uint32_t site, uint32_t thr, int64_t index, int n) {
  return vg_dropout(step, site, thr).template scale<V>(index, n);
}

// The multiplier of a whole sample.
VG_UNUSED inline float vg_drop_path_scale(const vg_step& step, uint32_t site, uint32_t thr, int64_t sample) {
  if (!step.dropout_on || thr == 0) return 1.0f;
  const uint32_t draw = vg_dropout_draw(step.seed_lo, step.seed_hi, step.micro_step, site, (uint64_t)sample);
  return draw >= thr ? vg_inv_keep(thr) : 0.0f;
}

// The multipliers of one drop path site: a functor asks for every vector, and a
// sample has many. Belongs to one worker, as vg_dropout.
struct vg_drop_path {
  VG_FN vg_drop_path(const vg_step& s, uint32_t site, uint32_t thr) : step_(&s), site_(site), thr_(thr) {}

  template <class V>
  VG_FN V scale(int64_t sample) const {
    if (__builtin_expect(sample != sample_, 0)) draw(sample);
    return V(scale_);
  }

 private:
  VG_NOINLINE void draw(int64_t sample) const {
    scale_ = vg_drop_path_scale(*step_, site_, thr_, sample);
    sample_ = sample;
  }

  const vg_step* step_;
  uint32_t site_, thr_;
  mutable int64_t sample_ = -1;
  mutable float scale_ = 1.0f;
};

VG_END
