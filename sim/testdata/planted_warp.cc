// Collective operations of a warp, and asynchronous copies.
#include "planted.h"

// ---- masks and missing lanes

VG_KERNEL(32, 1) mask_too_small(float* y, uint64_t bad) { y[vg_thread()] = vg_shfl_xor(1.0f, 1, bad ? 0xffffu : ~0u); }
VG_EXPORT(mask_too_small)
CASE(mask_too_small) { return RUN(mask_too_small, 1, 32, 0, o, fresh<float>(32, "y"), bad); }

VG_KERNEL(32, 1) mask_without_caller(float* y, uint64_t bad) { y[vg_thread()] = vg_shfl(1.0f, 3, bad ? 0xffffu : ~0u); }
VG_EXPORT(mask_without_caller)
CASE(mask_without_caller) { return RUN(mask_without_caller, 1, 32, 0, o, fresh<float>(32, "y"), bad); }

// Half a warp may shuffle by itself, if the mask says so.
VG_KERNEL(32, 1) half_shuffles(float* y, uint64_t bad) {
  y[vg_thread()] = 0;
  if (vg_lane() < 16) y[vg_thread()] = vg_shfl_xor(1.0f, 1, bad ? ~0u : 0xffffu);
}
VG_EXPORT(half_shuffles)
CASE(lanes_missing) { return RUN(half_shuffles, 1, 32, 0, o, fresh<float>(32, "y"), bad); }

VG_KERNEL(32, 1) from_outside(float* y, uint64_t bad) {
  y[vg_thread()] = 0;
  if (vg_lane() < 16) y[vg_thread()] = vg_shfl(1.0f, bad ? 16 : 15, 0xffffu);
}
VG_EXPORT(from_outside)
CASE(shuffle_from_outside) { return RUN(from_outside, 1, 32, 0, o, fresh<float>(32, "y"), bad); }

VG_KERNEL(48, 1) half_a_warp(float* y, uint64_t) { y[vg_thread()] = vg_shfl_xor(1.0f, 1); }
VG_EXPORT(half_a_warp)
CASE(block_of_half_warps) { return RUN(half_a_warp, 1, bad ? 48 : 32, 0, o, fresh<float>(48, "y"), bad); }

VG_KERNEL(32, 1) two_shuffles(float* y, uint64_t bad) {
  float x = 0;
  if (bad && vg_lane() % 2)
    x = vg_shfl_xor(1.0f, 2);
  else
    x = vg_shfl_xor(2.0f, 2);
  y[vg_thread()] = x;
}
VG_EXPORT(two_shuffles)
CASE(diverged_shuffles) { return RUN(two_shuffles, 1, 32, 0, o, fresh<float>(32, "y"), bad); }

VG_KERNEL(64, 1) shuffle_or_sync(float* y, uint64_t bad) {
  float x = 1;
  if (!bad || vg_lane() < 8) x = vg_shfl_xor(x, 1);
  vg_sync();
  y[vg_thread()] = x;
}
VG_EXPORT(shuffle_or_sync)
CASE(shuffle_against_barrier) { return RUN(shuffle_or_sync, 1, 64, 0, o, fresh<float>(64, "y"), bad); }

VG_FN void fill(uint32_t* s, int n) {
  for (int i = vg_thread(); i < n; i += vg_threads()) s[i] = 0x3f803f80u;
  vg_sync();
}

VG_KERNEL(32, 1) ldmatrix(uint32_t* y, uint64_t shift, uint64_t lanes, uint64_t) {
  char* s = vg_shared();
  fill((uint32_t*)s, 128);
  uint32_t r[4] = {};
  if (vg_lane() < (int)lanes) vg_ldmatrix4(r, s + vg_lane() * 16 + (vg_lane() == 31 ? shift : 0));
  for (int i = 0; i < 4; i++) y[vg_thread() * 4 + i] = r[i];
}
VG_EXPORT(ldmatrix)
CASE(ldmatrix_misaligned) { return RUN(ldmatrix, 1, 32, 512, o, fresh<uint32_t>(128, "y"), bad ? uint64_t(-8) : 0, uint64_t(32), bad); }
CASE(ldmatrix_out_of_bounds) { return RUN(ldmatrix, 1, 32, 512, o, fresh<uint32_t>(128, "y"), 16 * bad, uint64_t(32), bad); }
CASE(ldmatrix_lanes_missing) { return RUN(ldmatrix, 1, 32, 512, o, fresh<uint32_t>(128, "y"), uint64_t(0), 32 - bad, bad); }

VG_KERNEL(32, 1) mma(float* y, uint64_t lanes, uint64_t) {
  float c[4] = {};
  const uint32_t a[4] = {}, b[2] = {};
  if (vg_lane() < (int)lanes) vg_mma_bf16(c, a, b);
  for (int i = 0; i < 4; i++) y[vg_thread() * 4 + i] = c[i];
}
VG_EXPORT(mma)
CASE(mma_lanes_missing) { return RUN(mma, 1, 32, 0, o, fresh<float>(128, "y"), 32 - bad, bad); }

VG_KERNEL(32, 1) ldmatrix_before_sync(uint32_t* y, uint64_t bad) {
  uint32_t *s = (uint32_t*)vg_shared(), r[4];
  for (int i = vg_lane(); i < 128; i += 32) s[i] = i;
  if (!bad) vg_sync_warp();
  vg_ldmatrix4(r, s + vg_lane() * 4);
  y[vg_lane()] = r[0];
}
VG_EXPORT(ldmatrix_before_sync)
CASE(ldmatrix_race) { return RUN(ldmatrix_before_sync, 1, 32, 512, o, fresh<uint32_t>(32, "y"), bad); }

// ---- asynchronous copies

// A thread copies 16 bytes and uses its neighbour's. mode: what is left out.
VG_KERNEL(64, 1) async(const float* x, float* y, uint64_t mode, uint64_t bad) {
  char* s = vg_shared();
  const int t = vg_thread();
  vg_cp_async16(s + 16 * t, x + 4 * t, true);
  if (!(bad && mode == 0)) vg_cp_async_commit();
  if (!(bad && mode == 1)) vg_cp_async_wait<0>();
  if (bad && mode == 2) ((float*)s)[4 * t] = 1;
  if (bad && mode == 3) vg_cp_async16(s + 16 * t, x + 4 * t, true);
  if (!(bad && mode == 4)) vg_sync();
  y[t] = ((const float*)s)[4 * (63 - t)];
}
VG_EXPORT(async)
CASE(async_not_committed) { return RUN(async, 1, 64, 1024, o, filled<float>(256, "x"), fresh<float>(64, "y"), uint64_t(0), bad); }
CASE(async_not_waited) { return RUN(async, 1, 64, 1024, o, filled<float>(256, "x"), fresh<float>(64, "y"), uint64_t(1), bad); }
CASE(async_no_barrier) { return RUN(async, 1, 64, 1024, o, filled<float>(256, "x"), fresh<float>(64, "y"), uint64_t(4), bad); }
CASE(async_read_on_the_way) { return RUN(async, 1, 64, 1024, o, filled<float>(256, "x"), fresh<float>(64, "y"), uint64_t(3), bad); }

// Three stages. bad: waits for one group too few.
VG_KERNEL(32, 1) pipeline(const float* x, float* y, uint64_t bad) {
  float *s = (float*)vg_shared(), sum = 0;
  const int t = vg_thread();
  for (int i = 0; i < 2; i++) {
    vg_cp_async4(s + i * 32 + t, x + i * 32 + t, true);
    vg_cp_async_commit();
  }
  for (int i = 0; i < 8; i++) {
    if (bad)
      vg_cp_async_wait<2>();
    else
      vg_cp_async_wait<1>();
    vg_sync();
    sum += s[i % 3 * 32 + 31 - t];
    if (i + 2 < 8) vg_cp_async4(s + (i + 2) % 3 * 32 + t, x + (i + 2) * 32 + t, true);
    vg_cp_async_commit();
  }
  y[t] = sum;
}
VG_EXPORT(pipeline)
CASE(async_waits_too_little) { return RUN(pipeline, 1, 32, 384, o, filled<float>(256, "x"), fresh<float>(32, "y"), bad); }

VG_KERNEL(32, 1) async_overwritten(const float* x, float* y, uint64_t bad) {
  float* s = (float*)vg_shared();
  vg_cp_async4(s + vg_thread(), x + vg_thread(), true);
  vg_cp_async_commit();
  if (bad) s[vg_thread()] = 0;
  vg_cp_async_wait<0>();
  y[vg_thread()] = s[vg_thread()];
}
VG_EXPORT(async_overwritten)
CASE(async_overwritten) { return RUN(async_overwritten, 1, 32, 128, o, filled<float>(32, "x"), fresh<float>(32, "y"), bad); }

VG_KERNEL(32, 1) async_rows(const char* x, float* y, uint64_t from, uint64_t to, uint64_t valid, uint64_t) {
  char* s = vg_shared();
  const bool last = vg_thread() == 31;
  vg_cp_async16(s + 16 * vg_thread() + (last ? to : 0), x + 16 * vg_thread() + (last ? from : 0), !last || valid);
  vg_cp_async_commit();
  vg_cp_async_wait<0>();
  y[vg_thread()] = 0;
}
VG_EXPORT(async_rows)
CASE(async_misaligned_source) {
  return RUN(async_rows, 1, 32, 528, o, (const char*)filled<float>(140, "x"), fresh<float>(32, "y"), 4 * bad, uint64_t(0), uint64_t(1), bad);
}
CASE(async_misaligned_target) {
  return RUN(async_rows, 1, 32, 528, o, (const char*)filled<float>(140, "x"), fresh<float>(32, "y"), uint64_t(0), 8 * bad, uint64_t(1), bad);
}
CASE(async_target_out_of_bounds) {
  return RUN(async_rows, 1, 32, 512, o, (const char*)filled<float>(140, "x"), fresh<float>(32, "y"), uint64_t(0), 16 * bad, uint64_t(1), bad);
}
// The last row is not there; the twin asks for zeros.
CASE(async_source_out_of_bounds) {
  return RUN(async_rows, 1, 32, 512, o, (const char*)filled<float>(124, "x"), fresh<float>(32, "y"), uint64_t(0), uint64_t(0), bad, bad);
}
CASE(async_source_uninitialized) {
  float* x = filled<float>(128, "x");
  if (bad) vg_sim::poison(x + 127, 4);
  return RUN(async_rows, 1, 32, 512, o, (const char*)x, fresh<float>(32, "y"), uint64_t(0), uint64_t(0), uint64_t(1), bad);
}
