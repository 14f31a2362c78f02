// Kernels for the tests of the simulated driver.
#include "device.cuh"

// y[i] = x[i] + k
VG_KERNEL(128, 1) add(const float* x, float* y, uint64_t n, uint64_t k) {
  const uint64_t i = (uint64_t)vg_block_index() * vg_threads() + vg_thread();
  if (i < n) y[i] = x[i] + (float)k;
}
VG_EXPORT(add)

// y[i] = the value the block's thread 0 put at the end of shared memory
VG_KERNEL(256, 1) tail(float* y, uint64_t shared_bytes) {
  float* last = (float*)(vg_shared() + shared_bytes) - 1;
  if (vg_thread() == 0) *last = 7.0f;
  vg_sync();
  y[vg_block_index() * vg_threads() + vg_thread()] = *last;
}
VG_EXPORT(tail)

// Two warps that wait for each other at different barriers.
VG_KERNEL(64, 1) diverge(float* y) {
  if (vg_warp() == 0) {
    vg_sync();
  } else {
    vg_sync_some(1, 64);
  }
  y[vg_thread()] = 1.0f;
}
VG_EXPORT(diverge)

// Writes one element past the end.
VG_KERNEL(64, 1) beyond(float* y, uint64_t n) {
  if (vg_thread() == 0) y[n] = 1.0f;
}
VG_EXPORT(beyond)
