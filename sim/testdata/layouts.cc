// The words against their definitions: plain formulas of indices. Prints what
// differs; nothing if all is well. Compiled with instrumentation and without.
#include "planted.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int wrong = 0;
static void expect(bool ok, const char* what, int i, double got, double want) {
  if (!ok && wrong++ < 20) printf("%s, element %d: %.9g instead of %.9g\n", what, i, got, want);
}
static void expect_ok(const std::string& fault) {
  if (fault != "" && wrong++ < 20) printf("%s\n", fault.c_str());
}

// ---- ldmatrix: both forms hand out every element of four 8x8 matrices

VG_KERNEL(32, 1) both_ldmatrix(const uint32_t* x, uint32_t* plain, uint32_t* transposed) {
  uint32_t *s = (uint32_t*)vg_shared(), r[4], q[4];
  for (int i = vg_lane(); i < 128; i += 32) s[i] = x[i];
  vg_sync_warp();
  vg_ldmatrix4(r, s + vg_lane() * 4);
  vg_ldmatrix4_t(q, s + vg_lane() * 4);
  for (int i = 0; i < 4; i++) plain[vg_lane() * 4 + i] = r[i], transposed[vg_lane() * 4 + i] = q[i];
}
VG_EXPORT(both_ldmatrix)

static void test_ldmatrix(const vg_sim::options& o) {
  uint16_t* x = filled<uint16_t>(256, "x");
  uint16_t *plain = fresh<uint16_t>(256, "plain"), *transposed = fresh<uint16_t>(256, "transposed");
  expect_ok(RUN(both_ldmatrix, 1, 32, 512, o, (const uint32_t*)x, (uint32_t*)plain, (uint32_t*)transposed));
  for (int l = 0; l < 32; l++)
    for (int m = 0; m < 4; m++)
      for (int h = 0; h < 2; h++) {
        const int g = l / 4, t = l % 4, at = l * 8 + m * 2 + h;
        expect(plain[at] == m * 64 + g * 8 + 2 * t + h, "ldmatrix", at, plain[at], m * 64 + g * 8 + 2 * t + h);
        expect(transposed[at] == m * 64 + (2 * t + h) * 8 + g, "ldmatrix_t", at, transposed[at], m * 64 + (2 * t + h) * 8 + g);
      }
}

// ---- mma: fragments by the tables of device.cuh

VG_FN uint32_t pair(const float* p, int64_t step) { return vg_pack_bf16(p[0], p[step]); }

VG_KERNEL(32, 1) mma_by_table(const float* a, const float* b, const float* c, float* d, uint64_t bf16) {
  const int g = vg_lane() / 4, t = vg_lane() % 4;
  float r[4] = {c[g * 8 + 2 * t], c[g * 8 + 2 * t + 1], c[(g + 8) * 8 + 2 * t], c[(g + 8) * 8 + 2 * t + 1]};
  if (bf16) {  // A[16][16], B[16][8]
    const uint32_t x[4] = {pair(a + g * 16 + 2 * t, 1), pair(a + (g + 8) * 16 + 2 * t, 1), pair(a + g * 16 + 2 * t + 8, 1),
                           pair(a + (g + 8) * 16 + 2 * t + 8, 1)};
    const uint32_t y[2] = {pair(b + 2 * t * 8 + g, 8), pair(b + (2 * t + 8) * 8 + g, 8)};
    vg_mma_bf16(r, x, y);
  } else {  // A[16][8], B[8][8]
    const uint32_t x[4] = {vg_tf32(a[g * 8 + t]), vg_tf32(a[(g + 8) * 8 + t]), vg_tf32(a[g * 8 + t + 4]), vg_tf32(a[(g + 8) * 8 + t + 4])};
    const uint32_t y[2] = {vg_tf32(b[t * 8 + g]) | 0x1fff, vg_tf32(b[(t + 4) * 8 + g])};  // low bits do not count
    vg_mma_tf32(r, x, y);
  }
  d[g * 8 + 2 * t] = r[0], d[g * 8 + 2 * t + 1] = r[1], d[(g + 8) * 8 + 2 * t] = r[2], d[(g + 8) * 8 + 2 * t + 1] = r[3];
}
VG_EXPORT(mma_by_table)

static float draw() { return (float)(rand() % 20001 - 10000) / 4096; }
static float bf16(float x) { return vg_from_bits(vg_pack_bf16(x, 0) << 16); }
static float tf32(float x) { return vg_from_bits(vg_tf32(x)); }

static void test_mma(const vg_sim::options& o, bool is_bf16) {
  const int k = is_bf16 ? 16 : 8;
  float *a = filled<float>(16 * k, "a"), *b = filled<float>(k * 8, "b"), *c = filled<float>(128, "c"), *d = fresh<float>(128, "d");
  for (int i = 0; i < 16 * k; i++) a[i] = draw();
  for (int i = 0; i < k * 8; i++) b[i] = draw();
  for (int i = 0; i < 128; i++) c[i] = draw();
  expect_ok(RUN(mma_by_table, 1, 32, 0, o, (const float*)a, (const float*)b, (const float*)c, d, uint64_t(is_bf16)));
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 8; j++) {
      double want = c[i * 8 + j];
      for (int l = 0; l < k; l++)
        want += is_bf16 ? (double)bf16(a[i * k + l]) * bf16(b[l * 8 + j]) : (double)tf32(a[i * k + l]) * tf32(b[l * 8 + j]);
      expect(fabs(d[i * 8 + j] - want) < 1e-5, is_bf16 ? "mma bf16" : "mma tf32", i * 8 + j, d[i * 8 + j], want);
    }
}

// ---- rounding

static void test_rounding() {
  struct {
    uint32_t x, tf32, bf16;
  } cases[] = {
      {0x3f800000, 0x3f800000, 0x3f80}, {0x3f800fff, 0x3f800000, 0x3f80}, {0x3f801000, 0x3f802000, 0x3f80},  // tf32 ties away
      {0xbf801000, 0xbf802000, 0xbf80}, {0x3f808000, 0x3f808000, 0x3f80}, {0x3f818000, 0x3f818000, 0x3f82},  // bf16 ties to even
      {0x3f808001, 0x3f808000, 0x3f81}, {0x7f7fffff, 0x7f800000, 0x7f80}, {0x7f800000, 0x7f800000, 0x7f80},
      {0xff800000, 0xff800000, 0xff80}, {0x7f800001, 0x7fffffff, 0x7fff}, {0xffc12345, 0x7fffffff, 0x7fff},
      {0x80000000, 0x80000000, 0x8000}, {0x00000001, 0x00000000, 0x0000}, {0x00008001, 0x00008000, 0x0001},
  };
  int i = 0;
  for (auto& c : cases) {
    const float x = vg_from_bits(c.x);
    expect(vg_tf32(x) == c.tf32, "vg_tf32", i, vg_tf32(x), c.tf32);
    expect(vg_pack_bf16(x, 1.0f) == (0x3f800000 | c.bf16), "vg_pack_bf16 low", i, vg_pack_bf16(x, 1.0f), c.bf16);
    expect(vg_pack_bf16(1.0f, x) == (c.bf16 << 16 | 0x3f80), "vg_pack_bf16 high", i, vg_pack_bf16(1.0f, x), c.bf16);
    i++;
  }
}

// ---- shuffles, copies, barriers, arrivals

VG_KERNEL(64, 1) shuffles(float* y, uint64_t* z) {
  const int t = vg_thread();
  float sum = t;
  for (int s = 16; s > 0; s /= 2) sum += vg_shfl_xor(sum, s);
  y[t] = sum;
  z[t] = vg_shfl((uint64_t)t << 40, (vg_lane() + 3) % 32);
}
VG_EXPORT(shuffles)

static void test_shuffles(const vg_sim::options& o) {
  float* y = fresh<float>(64, "y");
  uint64_t* z = fresh<uint64_t>(64, "z");
  expect_ok(RUN(shuffles, 1, 64, 0, o, y, z));
  for (int i = 0; i < 64; i++) {
    expect(y[i] == (i < 32 ? 496 : 1520), "shuffle xor", i, y[i], i < 32 ? 496 : 1520);
    const uint64_t want = (uint64_t)(i / 32 * 32 + (i + 3) % 32) << 40;
    expect(z[i] == want, "shuffle", i, z[i], want);
  }
}

// Four groups, of which the waits let two, one and none be under way.
VG_KERNEL(32, 1) copies(const float* x, float* y) {
  float* s = (float*)vg_shared();
  const int t = vg_thread();
  for (int g = 0; g < 4; g++) {
    vg_cp_async4(s + g * 32 + t, x + g * 32 + t, t + g != 31);
    vg_cp_async_commit();
  }
  vg_cp_async_wait<2>();
  vg_sync();
  y[t] = s[31 - t] + s[32 + 31 - t];
  vg_cp_async_wait<1>();
  vg_sync();
  y[32 + t] = s[64 + 31 - t];
  if (t < 16) vg_cp_async16(s + 128 + t * 4, x + t * 4, t % 2 == 0);
  vg_cp_async_commit();
  vg_cp_async_wait<0>();
  vg_sync();
  y[64 + t] = s[96 + 31 - t];
  y[96 + t] = s[128 + 63 - t] + s[128 + t];
}
VG_EXPORT(copies)

static void test_copies(const vg_sim::options& o) {
  float *x = filled<float>(128, "x"), *y = fresh<float>(128, "y");
  for (int i = 0; i < 128; i++) x[i] = i + 1;
  expect_ok(RUN(copies, 1, 32, 768, o, (const float*)x, y));
  auto small = [&](int g, int i) { return i + g == 31 ? 0 : x[g * 32 + i]; };
  auto large = [&](int i) { return i / 4 % 2 ? 0 : x[i]; };
  for (int t = 0; t < 32; t++) {
    expect(y[t] == small(0, 31 - t) + small(1, 31 - t), "cp.async 4", t, y[t], small(0, 31 - t) + small(1, 31 - t));
    expect(y[32 + t] == small(2, 31 - t), "cp.async 4", 32 + t, y[32 + t], small(2, 31 - t));
    expect(y[64 + t] == small(3, 31 - t), "cp.async 4", 64 + t, y[64 + t], small(3, 31 - t));
    expect(y[96 + t] == large(63 - t) + large(t), "cp.async 16", t, y[96 + t], large(63 - t) + large(t));
  }
}

// Pairs of warps go round by themselves, at their own pace; then all meet.
VG_KERNEL(128, 1) named_barriers(float* y) {
  float* s = (float*)vg_shared();
  const int t = vg_thread(), pair = vg_warp() / 2, base = pair * 64, i = t - base;
  s[t] = i;
  for (int n = 0; n < 3 + pair; n++) {
    vg_sync_some(1 + pair, 64);
    const float next = s[base + (i + 1) % 64];
    vg_sync_some(1 + pair, 64);
    s[t] = next;
  }
  vg_sync();
  y[t] = s[127 - t];
}
VG_EXPORT(named_barriers)

static void test_barriers(const vg_sim::options& o) {
  float* y = fresh<float>(128, "y");
  expect_ok(RUN(named_barriers, 1, 128, 512, o, y));
  for (int t = 0; t < 128; t++) {
    const int u = 127 - t, want = (u % 64 + 3 + u / 64) % 64;
    expect(y[t] == want, "named barriers", t, y[t], want);
  }
}

VG_KERNEL(64, 1) ordered_sum(const float* x, float* part, float* y, uint32_t* counters) {
  uint32_t* slot = (uint32_t*)vg_shared();
  const int group = vg_block_index() % 2, i = vg_block_index() * 64 + vg_thread();
  part[i] = x[i] * 2;
  if (!vg_arrive_last(counters + group, (vg_block_count() + 1 - group) / 2, slot)) return;
  float sum = 0;
  for (int b = group; b < vg_block_count(); b += 2) sum += part[b * 64 + vg_thread()];
  y[group * 64 + vg_thread()] = sum;
}
VG_EXPORT(ordered_sum)

static void test_arrival(const vg_sim::options& o) {
  float *x = filled<float>(9 * 64, "x"), *part = fresh<float>(9 * 64, "part"), *y = fresh<float>(128, "y");
  uint32_t* counters = zero_counters(2);
  vg_sim::output(y, 512);
  for (int round = 0; round < 2; round++) expect_ok(RUN(ordered_sum, 9, 64, 4, o, (const float*)x, part, y, counters));
  expect_ok(vg_sim::unwritten(y, 512));
  for (int t = 0; t < 64; t++) {
    expect(y[t] == 2 * (64 * 20 + 5 * t), "arrivals", t, y[t], 2 * (64 * 20 + 5 * t));
    expect(y[64 + t] == 2 * (64 * 16 + 4 * t), "arrivals", 64 + t, y[64 + t], 2 * (64 * 16 + 4 * t));
  }
}

// ---- counts of bank conflicts and sectors

VG_KERNEL(32, 1) strides(const float* x, float* y, uint64_t stride) {
  uint32_t *s = (uint32_t*)vg_shared(), r[4];
  for (int i = vg_lane(); i < 2048; i += 32) s[i] = i;
  vg_sync_warp();
  vg_ldmatrix4(r, s + vg_lane() % 8 * stride + vg_lane() / 8 * 4);
  vg_sync_warp();
  y[vg_lane()] = s[vg_lane() * stride] + x[vg_lane() * stride] + r[0];
}
VG_EXPORT(strides)

static void test_traffic(vg_sim::options o) {
  o.traffic = true;
  const float* x = filled<float>(2048, "x");
  float* y = fresh<float>(32, "y");
  const vg_sim::kernel* k = vg_sim::find("strides");
  const struct {
    uint64_t stride, ldmatrix, banks, sectors;
  } cases[] = {{32, 28, 31, 32}, {36, 0, 3, 32}, {8, 4, 7, 32}, {4, 0, 3, 16}, {1, 0, 0, 4}};
  for (auto& c : cases) {
    if (c.stride % 4) continue;  // of ldmatrix
    expect_ok(vg_sim::run(k, 1, 32, 8192, o, x, y, c.stride));
    const vg_sim::statistics s = vg_sim::stats();
    expect(s.ldmatrix_conflicts == c.ldmatrix, "conflicts of ldmatrix, stride", c.stride, s.ldmatrix_conflicts, c.ldmatrix);
    if (!vg_sim::checked(k)) continue;
    expect(s.shared_conflicts == c.ldmatrix + c.banks, "bank conflicts, stride", c.stride, s.shared_conflicts, c.ldmatrix + c.banks);
    expect(s.global_sectors == c.sectors + 4, "sectors, stride", c.stride, s.global_sectors, c.sectors + 4);
    expect(s.global_sectors_needed == 8, "sectors needed, stride", c.stride, s.global_sectors_needed, 8);
  }
}

// ---- schedules

static void test_schedules() {
  const float* x = filled<float>(9 * 64, "x");
  float *part = fresh<float>(9 * 64, "part"), *y = fresh<float>(128, "y");
  uint32_t* counters = zero_counters(2);
  uint64_t hash[2][6];
  for (auto& h : hash)
    for (uint64_t seed = 0; seed < 6; seed++) {
      vg_sim::options o;
      o.seed = seed - 1;  // the first is ~0
      expect_ok(RUN(ordered_sum, 9, 64, 4, o, x, part, y, counters));
      h[seed] = vg_sim::stats().schedule;
    }
  for (int i = 0; i < 6; i++) {
    expect(hash[0][i] == hash[1][i], "schedule of one seed", i, hash[1][i], hash[0][i]);
    for (int j = 0; j < i; j++) expect(hash[0][i] != hash[0][j], "schedule of another seed", i, hash[0][i], hash[0][j]);
  }
}

int main() {
  test_rounding();
  test_schedules();
  for (uint64_t seed : {(uint64_t)0, ~(uint64_t)0, (uint64_t)1, (uint64_t)2, (uint64_t)3}) {
    vg_sim::options o;
    o.seed = seed;
    test_ldmatrix(o);
    test_mma(o, true);
    test_mma(o, false);
    test_shuffles(o);
    test_copies(o);
    test_barriers(o);
    test_arrival(o);
    test_traffic(o);
  }
  return wrong != 0;
}
