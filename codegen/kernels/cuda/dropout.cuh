// Dropout and drop path: the multiplier of an element from its index alone, the
// same draws as cpu/dropout.h makes (common/philox.h says which bits an element
// gets).
//
// One Philox evaluation holds the draws of eight elements that stand 16 apart.
// Kernels therefore give a thread the columns c, c+16, … c+112 of a row, in that
// order, and vg_dropout keeps the words it evaluated last.
#pragma once
#include "call.cuh"

#include "../common/philox.h"

// What a kept value is multiplied by.
VG_FN float vg_inv_keep(uint32_t thr) { return 65536.0f / (float)(65536 - (int32_t)thr); }

// The multipliers of one dropout site. A functor holds one as a member; every
// thread has its own.
struct vg_dropout {
  VG_FN vg_dropout(const vg_step& s, uint32_t site, uint32_t thr)
      : seed_lo_(s.seed_lo), seed_hi_(s.seed_hi), micro_step_(s.micro_step), site_(site), thr_(thr),
        kept_(thr < 65536 ? vg_inv_keep(thr) : 0.0f), on_(s.dropout_on && thr > 0) {}

  // Multiplier of element `index`. 1 while dropout is off.
  template <class V>
  VG_FN V scale(int64_t index, int) const {
    if (!on_) return 1.0f;
    const uint32_t counter = (uint32_t)(index >> 7) * 16 + (uint32_t)(index & 15);
    // Masked first: where a kernel's columns are aligned the compiler then knows
    // the result, and with it which word below.
    const uint32_t half = (uint32_t)(index & 112) >> 4;
    if (counter != counter_ || !filled_) {
      words_[0] = counter, words_[1] = 0, words_[2] = site_, words_[3] = micro_step_;
      vg_philox4x32(words_, seed_lo_, seed_hi_);
      counter_ = counter, filled_ = true;
    }
    const uint32_t pair = half >> 1;  // selects, not an index: the words stay in registers
    const uint32_t word = pair == 0 ? words_[0] : pair == 1 ? words_[1] : pair == 2 ? words_[2] : words_[3];
    const uint32_t draw = (word >> (16 * (half & 1))) & 0xffffu;
    return draw >= thr_ ? kept_ : 0.0f;
  }

 private:
  uint32_t seed_lo_, seed_hi_, micro_step_, site_, thr_;
  float kept_;
  bool on_;
  mutable bool filled_ = false;
  mutable uint32_t counter_ = 0;
  mutable uint32_t words_[4] = {};
};

// The multiplier of a whole sample.
VG_FN float vg_drop_path_scale(const vg_step& step, uint32_t site, uint32_t thr, int64_t sample) {
  if (!step.dropout_on || thr == 0) return 1.0f;
  const uint32_t draw = vg_dropout_draw(step.seed_lo, step.seed_hi, step.micro_step, site, (uint64_t)sample);
  return draw >= thr ? (thr < 65536 ? vg_inv_keep(thr) : 0.0f) : 0.0f;
}

// The multipliers of one drop path site.
struct vg_drop_path {
  const vg_step& step;
  uint32_t site, thr;
  VG_FN vg_drop_path(const vg_step& s, uint32_t site, uint32_t thr) : step(s), site(site), thr(thr) {}
  template <class V>
  VG_FN V scale(int64_t sample) const { return vg_drop_path_scale(step, site, thr, sample); }
};
