// Probes of the words that need no tensor core: who a thread is, barriers,
// shuffles, asynchronous copies, blocks that meet, and rounding.
#pragma once
#include "probe.cuh"

PROBE(96, probe_ids) {
  uint32_t* to = out + 8 * (vg_block_index() * vg_threads() + vg_thread());
  to[0] = (uint32_t)vg_thread(), to[1] = (uint32_t)vg_lane(), to[2] = (uint32_t)vg_warp(), to[3] = (uint32_t)vg_threads();
  to[4] = (uint32_t)vg_block_index(), to[5] = (uint32_t)vg_block_count();
  to[6] = (uint32_t)((uintptr_t)vg_shared() & 127), to[7] = 0x1d5;
}
VG_EXPORT(probe_ids)

// Sources beyond the warp count modulo 32; both halves of a warp may shuffle by
// themselves.
PROBE(64, probe_shuffle) {
  const uint32_t x = in[vg_thread()];
  const int lane = vg_lane();
  uint32_t* to = out + 8 * vg_thread();
  to[0] = vg_shfl(x, (lane * 7 + 3) & 31);
  to[1] = vg_shfl(x, lane + 5);
  to[2] = vg_bits(vg_shfl_xor((float)lane, 21));
  const uint64_t wide = vg_shfl(((uint64_t)x << 32) | (uint32_t)vg_thread(), 31 - lane);
  to[3] = (uint32_t)wide, to[4] = (uint32_t)(wide >> 32);
  to[5] = vg_bits(vg_warp_sum((float)(lane * lane)));
  to[6] = vg_bits(vg_warp_max((float)((lane * 13) & 31)));
  to[7] = lane < 16 ? vg_shfl(x, 15 - lane, 0xffffu) : vg_shfl(x, 47 - lane, 0xffff0000u);
}
VG_EXPORT(probe_shuffle)

// Two pairs of warps, each with a barrier of its own, then all four.
PROBE(128, probe_barriers) {
  uint32_t* shared = (uint32_t*)vg_shared();
  const int t = vg_thread();
  shared[t] = in[t];
  vg_sync_some(1 + vg_warp() / 2, 64);
  const uint32_t partner = shared[t ^ 32];
  shared[128 + t] = partner ^ (uint32_t)t;
  vg_sync();
  const uint32_t opposite = shared[128 + (t ^ 64)];
  shared[256 + t] = opposite;
  vg_sync_warp();
  uint32_t* to = out + 4 * t;
  to[0] = partner, to[1] = opposite, to[2] = shared[256 + (t ^ 1)], to[3] = (uint32_t)t;
}
VG_EXPORT(probe_barriers)

// Copies that are wanted and copies of zeros, whose source must not be read: it
// lies behind the buffer. The first group is shown while the second may still be
// under way.
PROBE(32, probe_copies) {
  uint32_t* shared = (uint32_t*)vg_shared();
  const int t = vg_thread();
  const uint32_t* beyond = in + words;
  for (int i = t; i < 256; i += 32) shared[i] = 0xc0de0000u | (uint32_t)i;
  vg_sync();
  const bool wide = t % 3 != 1;
  vg_cp_async16(shared + 4 * t, wide ? in + 4 * (31 - t) : beyond + 4 * t, wide);
  vg_cp_async_commit();
  for (int i = 0; i < 4; i++) {
    const bool narrow = (t + i) % 2 == 0;
    vg_cp_async4(shared + 128 + 4 * t + i, narrow ? in + 256 + 5 * t + i : beyond + t, narrow);
  }
  vg_cp_async_commit();
  vg_cp_async_wait<1>();
  vg_sync();
  for (int i = 0; i < 4; i++) out[4 * t + i] = shared[4 * (t ^ 1) + i];
  vg_cp_async_wait<0>();
  vg_sync();
  for (int i = 0; i < 4; i++) out[128 + 4 * t + i] = shared[128 + 4 * (t ^ 1) + i];
}
VG_EXPORT(probe_copies)

// Eight blocks leave a number each; the last to come adds them up in their order.
// Three times, each with a counter of its own, which must be zero in the end.
PROBE(64, probe_arrivals) {
  float* partials = (float*)scratch;
  uint32_t* slot = (uint32_t*)vg_shared();
  for (int round = 0; round < 3; round++) {
    float* own = partials + (round * 8 + vg_block_index()) * 64;
    own[vg_thread()] = (float)(in[vg_block_index() * 64 + vg_thread()] >> (8 + round));
    uint32_t* counter = (uint32_t*)(scratch + 65536) + round;
    if (!vg_arrive_last(counter, (uint32_t)vg_block_count(), slot)) continue;
    float sum = 0;
    for (int b = 0; b < vg_block_count(); b++) sum += partials[(round * 8 + b) * 64 + vg_thread()];
    out[round * 64 + vg_thread()] = vg_bits(sum);
    if (vg_thread() == 0) out[192 + round] = *counter;
  }
}
VG_EXPORT(probe_arrivals)

// ---- rounding

// Floats around every border: zero, subnormal, one, large and infinite ones, with
// low bits below, at and above the middle between two tf32 or bf16 numbers.
VG_FN uint32_t probe_pattern(const uint32_t* in, int i) {
  constexpr uint32_t exponents[8] = {0, 1, 2, 126, 127, 200, 254, 255};
  constexpr uint32_t high[4] = {0, 0x2000, 0x10000, 0x7f0000};
  constexpr uint32_t low[8] = {0, 0xfff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001, 0xffff};
  if (i >= 512) return in[i];
  return (uint32_t)(i >> 8) << 31 | exponents[i & 7] << 23 | (high[i >> 3 & 3] | low[i >> 5 & 7]);
}
VG_FN float probe_number(const uint32_t* in, int i) {
  const uint32_t bits = probe_pattern(in, i);
  return vg_from_bits(probe_nan(bits) ? bits & 0xff800000u : bits);  // infinity for NaN
}

PROBE(256, probe_tf32) {
  for (int i = vg_thread(); i < 1024; i += vg_threads()) out[i] = vg_tf32(probe_number(in, i));
}
VG_EXPORT(probe_tf32)

PROBE(256, probe_bf16) {
  for (int i = vg_thread(); i < 1024; i += vg_threads()) out[i] = vg_pack_bf16(probe_number(in, i), probe_number(in, 1023 - i));
  vg_bf16* stored = (vg_bf16*)scratch;
  for (int i = vg_thread(); i < 256; i += vg_threads()) {
    vg_store(stored + i, probe_number(in, 2 * i), 1);
    out[1024 + i] = vg_bits(vg_load<float>(stored + i, 1));
  }
}
VG_EXPORT(probe_bf16)

// Which NaN a NaN becomes: nothing depends on it.
PROBE(32, probe_nans) {
  constexpr uint32_t nans[8] = {0x7fc00000u, 0xffc00000u, 0x7f800001u, 0xff800001u, 0x7fffffffu, 0xffffffffu, 0x7f80ffffu, 0x7fbfe000u};
  if (vg_thread() >= 8) return;
  const float x = vg_from_bits(nans[vg_thread()]);
  out[2 * vg_thread()] = vg_tf32(x);
  out[2 * vg_thread() + 1] = vg_pack_bf16(x, x);
}
VG_EXPORT(probe_nans)

// Arithmetic that IEEE 754 leaves no choice in.
PROBE(256, probe_exact) {
  for (int i = vg_thread(); i < 512; i += vg_threads()) {
    const float a = probe_number(in, 512 + i), b = probe_number(in, 1100 + i), c = probe_number(in, 1700 + i);
    uint32_t* to = out + 4 * i;
    const float results[4] = {vg_fma(a, b, c), a / b, vg_sqrt(vg_abs(a)), vg_max(a, b) + vg_min(b, c)};
    for (int j = 0; j < 4; j++) to[j] = probe_nan(vg_bits(results[j])) ? 0x7fc00000u : vg_bits(results[j]);
  }
}
VG_EXPORT(probe_exact)

// Functions that every library rounds in its own way. Their arguments are exact:
// scaled by powers of two, which no compiler's contraction can change.
PROBE(256, probe_functions) {
  for (int i = vg_thread(); i < 512; i += vg_threads()) {
    const float x = (float)(int32_t)in[i] * (1.0f / 2147483648.0f);  // -1 .. 1
    uint32_t* to = out + 4 * i;
    to[0] = vg_bits(vg_exp(x * 64.0f));
    to[1] = vg_bits(vg_log(vg_abs(x) * 1024.0f));
    to[2] = vg_bits(vg_tanh(x * 8.0f));
    to[3] = vg_bits(vg_erf(x * 4.0f));
  }
}
VG_EXPORT(probe_functions)
