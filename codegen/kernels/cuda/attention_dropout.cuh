// The dropout mask of a block of attention weights, as bits in shared memory.
//
// A Philox evaluation holds the draws of the eight elements i, i+16, … i+112 of
// an aligned run of 128 (common/philox.h), so the mask of that run is 16 bytes,
// one evaluation each: element i of the site is bit (i/16)%8 of byte
// (i/128)*16 + i%16. Threads evaluate each byte once and look bits up at the
// elements they hold, which is exact however rows lie across the runs.
#pragma once
#include "../common/philox.h"
#include "attention_tile.cuh"
#include "dropout.cuh"

// One dropout site in this run. The seed is read where it is needed, which is
// seldom, rather than kept in registers.
struct vg_weight_dropout {
  const vg_step* step;
  uint32_t site, thr;
  bool on;

  VG_FN vg_weight_dropout(const vg_step& s, uint32_t site, uint32_t thr)
      : step(&s), site(site), thr(thr), on(s.dropout_on && thr > 0) {}

  // What a kept weight is multiplied by.
  VG_FN float kept() const { return !on ? 1.0f : thr < 65536 ? vg_inv_keep(thr) : 0.0f; }

  // Byte `counter` of the mask: a set bit is a kept element.
  VG_FN uint32_t byte(uint32_t counter) const {
    uint32_t x[4] = {counter, 0, site, step->micro_step};
    vg_philox4x32(x, step->seed_lo, step->seed_hi);
    uint32_t bits = 0;
    VG_UNROLL for (int half = 0; half < 8; half++)
      bits |= ((x[half >> 1] >> (16 * (half & 1))) & 0xffffu) >= thr ? 1u << half : 0u;
    return bits;
  }
};

// The mask of ROWS rows of weights, each of TK keys of which KEYS, from some key
// on, are held. If those are all, the rows are one range of elements (a run that
// two rows share is evaluated once); otherwise each has runs of its own.
template <int ROWS, int TK, int KEYS>
struct vg_weight_mask {
  static constexpr bool whole = KEYS >= TK;
  // Runs that so many elements can touch, and behind them 16 bytes of zeros
  // that may be read for keys that are not there.
  static constexpr int runs = vg_ceil_div32((whole ? ROWS * TK : KEYS) + 127, 128);
  static constexpr int pitch = 16 * (runs + 2);
  static constexpr int bytes = (whole ? 1 : ROWS) * pitch;

  uint8_t* mask;
  uint32_t first;  // index of the first row's first key that is held, modulo 2^32

  // Where element (row, key) is, as a number for kept() and kept_from().
  VG_FN int place(int row, int key) const {
    if (whole) return (int)(first & 127) + row * TK + key;
    return row * (pitch * 8) + (int)((first + (uint32_t)(row * TK)) & 127) + key;
  }
  VG_FN uint32_t kept(int place) const { return (mask[(place >> 7) * 16 + (place & 15)] >> ((place >> 4) & 7)) & 1; }
  // Bit i: element place + 16i, i < 8.
  VG_FN uint32_t kept_from(int place) const {
    const uint8_t* p = mask + (place >> 7) * 16 + (place & 15);
    return (uint32_t)(p[0] | p[16] << 8) >> ((place >> 4) & 7);
  }

  // Evaluates `keys` keys of `rows` rows, the first of which has index `index`,
  // by a group of threads. To be followed by a barrier.
  VG_FN void fill(const vg_weight_dropout& drop, int64_t index, int rows, int keys, int thread, int threads) {
    first = (uint32_t)index;
    if (whole) return fill_range(drop, mask, index, rows * TK, thread, threads);
    constexpr int per_row = pitch;
    VG_NO_UNROLL for (int i = thread; i < rows * per_row; i += threads) {
      const int row = i / per_row;
      fill_byte(drop, mask + row * pitch, index + (int64_t)row * TK, keys, i % per_row);
    }
  }

 private:
  VG_FN static void fill_range(const vg_weight_dropout& drop, uint8_t* to, int64_t index, int count, int thread, int threads) {
    const int used = (int)((index & 127) + count + 127) / 128 * 16 + 32;
    VG_NO_UNROLL for (int i = thread; i < used; i += threads) fill_byte(drop, to, index, count, i);
  }
  VG_FN static void fill_byte(const vg_weight_dropout& drop, uint8_t* to, int64_t index, int count, int i) {
    const bool past = i / 16 * 128 >= (int)(index & 127) + count;
    to[i] = past ? (uint8_t)0 : (uint8_t)drop.byte((uint32_t)(index >> 7) * 16 + (uint32_t)i);
  }
};
