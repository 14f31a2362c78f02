// What the probes share: their table, and where their numbers come from.
//
// A probe is a kernel that shows what some of the library's words do, in numbers
// that can be compared word by word: layouts as codes of where an element came
// from, arithmetic on values for which only one answer is right. The same source
// runs on a device and on the kernel simulator; expected.txt is what the
// simulator says.
#pragma once
#include "../../codegen/kernels/cuda/dropout.cuh"
#include "../../codegen/kernels/cuda/gemm.cuh"
#include "../../codegen/kernels/cuda/math.cuh"

// Every probe has these arguments. `in` is read only: random words, then small
// whole numbers as floats and as bf16 (see below). `out`, all zero at first, is
// what the dump shows. `scratch` is zero too, and is not shown.
#define PROBE(threads, name) \
  VG_KERNEL(threads, 1) name(const uint32_t* in, uint32_t* out, char* scratch, uint64_t words)

constexpr int probe_random = 16384;  // words of in that are random
constexpr int probe_floats = 8192;   // then floats, whole numbers from -4 to 4
constexpr int probe_halves = 8192;   // then bf16, likewise
constexpr int probe_in_words = probe_random + probe_floats + probe_halves / 2;
constexpr int probe_out_words = 16384;
constexpr int probe_scratch_bytes = 1 << 18;

// The random word i, and the small number i.
VG_CONST uint32_t probe_hash(uint32_t i) {
  i = (i + 0x9e3779b9u) * 0x85ebca6bu;
  i = (i ^ i >> 15) * 0xc2b2ae35u;
  return i ^ i >> 16;
}
VG_CONST int probe_small(uint32_t i) { return (int)(probe_hash(i) >> 8) % 9 - 4; }

VG_FN const float* probe_float_in(const uint32_t* in) { return (const float*)(in + probe_random); }
VG_FN const vg_bf16* probe_half_in(const uint32_t* in) { return (const vg_bf16*)(in + probe_random + probe_floats); }

// Where a lane puts the words of case `which`.
VG_FN uint32_t* probe_lane_out(uint32_t* out, int which, int words) { return out + (which * 32 + vg_lane()) * words; }

VG_FN bool probe_nan(uint32_t bits) { return (bits & 0x7fffffffu) > 0x7f800000u; }
