// Probes of tensor cores and ldmatrix: fragments are filled by the formulas in
// device.cuh, so a chip that lays them out otherwise shows it.
#pragma once
#include "probe.cuh"

// Element (row, col) of the 8x8 matrix m, wherever it came from.
VG_FN uint32_t probe_place(int m, int row, int col) { return (uint32_t)(m << 8 | row << 4 | col | 0x8000); }

// Rows lie 48 bytes apart, in reverse order: ldmatrix must take each from its address.
VG_FN uint16_t* probe_row(int row) { return (uint16_t*)(vg_shared() + (31 - row) * 48); }

VG_FN void probe_fill_rows() {
  for (int i = vg_thread(); i < 256; i += vg_threads())
    probe_row(i / 8)[i % 8] = (uint16_t)probe_place(i / 64, i / 8 % 8, i % 8);
  vg_sync();
}

PROBE(32, probe_ldmatrix) {
  probe_fill_rows();
  vg_ldmatrix4(probe_lane_out(out, 0, 4), probe_row(vg_lane()));
}
VG_EXPORT(probe_ldmatrix)

PROBE(32, probe_ldmatrix_t) {
  probe_fill_rows();
  vg_ldmatrix4_t(probe_lane_out(out, 0, 4), probe_row(vg_lane()));
}
VG_EXPORT(probe_ldmatrix_t)

// The factors of one product. Identities show where an element of the other
// factor ends up; random ones that all are added.
struct probe_codes_of_b {  // C[i][j] is B's code for i < K, and twice that for i - K
  template <int K> VG_FN float a(int i, int k) const { return k == i % K ? 1.0f + (float)(i / K) : 0.0f; }
  template <int K> VG_FN float b(int k, int j) const { return (float)(k * 8 + j); }
  VG_FN float c(int, int) const { return 0.0f; }
};
struct probe_codes_of_a {  // C[i][j] is A's code at column j, or j + 8 in the second half of K
  int first;
  template <int K> VG_FN float a(int i, int k) const { return (float)(i * K + k); }
  template <int K> VG_FN float b(int k, int j) const { return k == first + j ? 1.0f : 0.0f; }
  VG_FN float c(int i, int j) const { return (float)((i * 8 + j) * 1024); }
};
struct probe_random_factors {
  uint32_t seed;
  template <int K> VG_FN float a(int i, int k) const { return (float)probe_small(seed + (uint32_t)(i * K + k)); }
  template <int K> VG_FN float b(int k, int j) const { return (float)probe_small(seed + 512u + (uint32_t)(k * 8 + j)); }
  VG_FN float c(int i, int j) const { return (float)probe_small(seed + 1024u + (uint32_t)(i * 8 + j)); }
};
// Infinities and NaN here and there.
struct probe_special_factors {
  template <int K> VG_FN float a(int i, int k) const {
    if (k == 3 && i % 4 == 1) return vg_infinity();
    if (k == 5 && i % 4 == 2) return vg_from_bits(0x7fc00000u);
    return 1.0f;
  }
  template <int K> VG_FN float b(int k, int j) const {
    if (k == 3) return j < 2 ? 0.0f : j < 4 ? -1.0f : 1.0f;
    return j == 7 && k == 6 ? -vg_infinity() : 1.0f;
  }
  VG_FN float c(int, int) const { return 0.0f; }
};
// Subnormal factors whose products are normal.
struct probe_subnormal_factors {
  int bits;  // below the smallest normal number
  template <int K> VG_FN float a(int i, int k) const { return k == i % K ? vg_from_bits(0x00800000u >> bits) : 0.0f; }
  template <int K> VG_FN float b(int, int j) const { return (float)(1 << (20 + j / 4)); }
  VG_FN float c(int, int) const { return 0.0f; }
};

template <class F>
VG_FN void probe_mma_bf16(const F& f, float c[4]) {
  constexpr int K = 16;
  const int g = vg_lane() / 4, t = vg_lane() % 4;
  uint32_t a[4], b[2];
  for (int r = 0; r < 4; r++) {
    const int i = g + r % 2 * 8, k = 2 * t + r / 2 * 8;
    a[r] = vg_pack_bf16(f.template a<K>(i, k), f.template a<K>(i, k + 1));
  }
  for (int r = 0; r < 2; r++) b[r] = vg_pack_bf16(f.template b<K>(2 * t + 8 * r, g), f.template b<K>(2 * t + 8 * r + 1, g));
  for (int r = 0; r < 4; r++) c[r] = f.c(g + r / 2 * 8, 2 * t + r % 2);
  vg_mma_bf16(c, a, b);
}

template <class F>
VG_FN void probe_mma_tf32(const F& f, float c[4]) {
  constexpr int K = 8;
  const int g = vg_lane() / 4, t = vg_lane() % 4;
  uint32_t a[4], b[2];
  for (int r = 0; r < 4; r++) a[r] = vg_tf32(f.template a<K>(g + r % 2 * 8, t + r / 2 * 4));
  for (int r = 0; r < 2; r++) b[r] = vg_tf32(f.template b<K>(t + 4 * r, g));
  for (int r = 0; r < 4; r++) c[r] = f.c(g + r / 2 * 8, 2 * t + r % 2);
  vg_mma_tf32(c, a, b);
}

// Whole numbers, as such.
VG_FN void probe_put_numbers(uint32_t* to, const float c[4]) {
  for (int r = 0; r < 4; r++) to[r] = (uint32_t)(int32_t)c[r];
}
// 0 finite, 1 and 2 plus and minus infinity, 3 NaN.
VG_FN void probe_put_classes(uint32_t* to, const float c[4]) {
  for (int r = 0; r < 4; r++) {
    const uint32_t bits = vg_bits(c[r]);
    to[r] = (bits & 0x7f800000u) != 0x7f800000u ? 0u : probe_nan(bits) ? 3u : bits >> 31 ? 2u : 1u;
  }
}

PROBE(32, probe_product_bf16) {
  float c[4];
  probe_mma_bf16(probe_codes_of_b{}, c), probe_put_numbers(probe_lane_out(out, 0, 4), c);
  probe_mma_bf16(probe_codes_of_a{0}, c), probe_put_numbers(probe_lane_out(out, 1, 4), c);
  probe_mma_bf16(probe_codes_of_a{8}, c), probe_put_numbers(probe_lane_out(out, 2, 4), c);
  probe_mma_bf16(probe_random_factors{1}, c), probe_put_numbers(probe_lane_out(out, 3, 4), c);
  probe_mma_bf16(probe_random_factors{7001}, c), probe_put_numbers(probe_lane_out(out, 4, 4), c);
  probe_mma_bf16(probe_special_factors{}, c), probe_put_classes(probe_lane_out(out, 5, 4), c);
}
VG_EXPORT(probe_product_bf16)

PROBE(32, probe_product_tf32) {
  float c[4];
  probe_mma_tf32(probe_codes_of_b{}, c), probe_put_numbers(probe_lane_out(out, 0, 4), c);
  probe_mma_tf32(probe_codes_of_a{0}, c), probe_put_numbers(probe_lane_out(out, 1, 4), c);
  probe_mma_tf32(probe_random_factors{1}, c), probe_put_numbers(probe_lane_out(out, 2, 4), c);
  probe_mma_tf32(probe_random_factors{7001}, c), probe_put_numbers(probe_lane_out(out, 3, 4), c);
  probe_mma_tf32(probe_special_factors{}, c), probe_put_classes(probe_lane_out(out, 4, 4), c);
}
VG_EXPORT(probe_product_tf32)

// Whether tensor cores take subnormal factors for what they are or for zero.
// Training does not depend on it.
PROBE(32, probe_subnormals) {
  float c[4];
  probe_mma_bf16(probe_subnormal_factors{7}, c);
  for (int r = 0; r < 4; r++) probe_lane_out(out, 0, 4)[r] = vg_bits(c[r]);
  probe_mma_tf32(probe_subnormal_factors{10}, c);
  for (int r = 0; r < 4; r++) probe_lane_out(out, 1, 4)[r] = vg_bits(c[r]);
}
VG_EXPORT(probe_subnormals)
