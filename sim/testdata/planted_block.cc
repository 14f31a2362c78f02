// Barriers, and shared memory.
#include "planted.h"

// ---- missing barriers

VG_KERNEL(128, 1) read_after_write(float* y, uint64_t bad) {
  float* s = (float*)vg_shared();
  s[vg_thread()] = vg_thread();
  if (!bad) vg_sync();
  y[vg_thread()] = s[(vg_thread() + 40) % 128];
}
VG_EXPORT(read_after_write)
CASE(read_after_write) { return RUN(read_after_write, 1, 128, 512, o, fresh<float>(128, "y"), bad); }

VG_KERNEL(128, 1) write_after_read(float* y, uint64_t bad) {
  float *s = (float*)vg_shared(), sum = 0;
  for (int i = 0; i < 3; i++) {
    s[vg_thread()] = vg_thread() + i;
    vg_sync();
    sum += s[127 - vg_thread()];
    if (!bad) vg_sync();
  }
  y[vg_thread()] = sum;
}
VG_EXPORT(write_after_read)
CASE(write_after_read) { return RUN(write_after_read, 1, 128, 512, o, fresh<float>(128, "y"), bad); }

// Many readers of one word: the write must be ordered after all of them.
VG_KERNEL(128, 1) broadcast(float* y, uint64_t bad) {
  float* s = (float*)vg_shared();
  if (vg_thread() == 0) *s = 1;
  vg_sync();
  y[vg_thread()] = *s;
  if (bad) {
    if (vg_warp() < 2) vg_sync_some(1, 64);
  } else {
    vg_sync();
  }
  if (vg_thread() == 0) *s = 2;
}
VG_EXPORT(broadcast)
CASE(broadcast) { return RUN(broadcast, 1, 128, 4, o, fresh<float>(128, "y"), bad); }

// Halves of words belong to different threads: no race. bad: one half is shared.
VG_KERNEL(64, 1) half_words(uint16_t* y, uint64_t bad) {
  uint16_t* s = (uint16_t*)vg_shared();
  s[vg_thread()] = vg_thread();
  if (bad && vg_thread() == 0) s[33] = 7;
  vg_sync();
  y[vg_thread()] = s[vg_thread()];
}
VG_EXPORT(half_words)
CASE(half_words) { return RUN(half_words, 1, 64, 128, o, fresh<uint16_t>(64, "y"), bad); }

VG_KERNEL(32, 1) warp_exchange(float* y, uint64_t bad) {
  float* s = (float*)vg_shared();
  s[vg_lane()] = vg_lane();
  const float other = vg_shfl_xor(1.0f, 1);  // orders no memory
  if (!bad) vg_sync_warp();
  y[vg_lane()] = s[vg_lane() ^ 1] + other;
}
VG_EXPORT(warp_exchange)
CASE(warp_exchange) { return RUN(warp_exchange, 1, 32, 128, o, fresh<float>(32, "y"), bad); }

// Two warps hand over to two others by a named barrier. bad: the wrong ones wait.
VG_KERNEL(128, 1) hand_over(float* y, uint64_t bad) {
  float* s = (float*)vg_shared();
  const int pair = bad ? vg_warp() / 2 : vg_warp() % 2;
  if (vg_warp() < 2) s[vg_thread()] = vg_thread();
  vg_sync_some(1 + pair, 64);
  if (vg_warp() >= 2) y[vg_thread() - 64] = s[vg_thread() - 64];
}
VG_EXPORT(hand_over)
CASE(hand_over) { return RUN(hand_over, 1, 128, 256, o, fresh<float>(64, "y"), bad); }

// ---- divergent barriers

VG_KERNEL(128, 1) early_exit(float* y, uint64_t bad) {
  if (bad && vg_thread() >= 64) return;
  vg_sync();
  y[vg_thread()] = 1;
}
VG_EXPORT(early_exit)
CASE(early_exit) { return RUN(early_exit, 1, 128, 0, o, fresh<float>(128, "y"), bad); }

VG_KERNEL(128, 1) two_barriers(float* y, uint64_t bad) {
  if (bad && vg_warp() == 1)
    vg_sync();
  else
    vg_sync();
  y[vg_thread()] = 1;
}
VG_EXPORT(two_barriers)
CASE(two_barriers) { return RUN(two_barriers, 1, 128, 0, o, fresh<float>(128, "y"), bad); }

VG_KERNEL(128, 1) too_few_come(float* y, uint64_t bad) {
  if (vg_warp() < 2) vg_sync_some(3, bad ? 96 : 64);
  y[vg_thread()] = 1;
}
VG_EXPORT(too_few_come)
CASE(too_few_come) { return RUN(too_few_come, 1, 128, 0, o, fresh<float>(128, "y"), bad); }

VG_KERNEL(128, 1) half_warps_come(float* y, uint64_t bad) {
  if (bad ? vg_lane() < 16 : vg_warp() < 2) vg_sync_some(3, 64);
  y[vg_thread()] = 1;
}
VG_EXPORT(half_warps_come)
CASE(half_warps_come) { return RUN(half_warps_come, 1, 128, 0, o, fresh<float>(128, "y"), bad); }

VG_KERNEL(128, 1) counts_differ(float* y, uint64_t bad) {
  vg_sync_some(2, bad && vg_warp() == 0 ? 64 : 128);
  y[vg_thread()] = 1;
}
VG_EXPORT(counts_differ)
CASE(counts_differ) { return RUN(counts_differ, 1, 128, 0, o, fresh<float>(128, "y"), bad); }

// ---- shared memory

VG_KERNEL(64, 1) uninitialized_shared(float* y, uint64_t bad) {
  float* s = (float*)vg_shared();
  if (!bad || vg_thread() != 20) s[vg_thread()] = 1;
  vg_sync();
  y[vg_thread()] = s[63 - vg_thread()];
}
VG_EXPORT(uninitialized_shared)
CASE(uninitialized_shared) { return RUN(uninitialized_shared, 1, 64, 256, o, fresh<float>(64, "y"), bad); }

// What a block left behind is not there for the next one.
VG_KERNEL(64, 1) left_behind(float* y, uint64_t bad) {
  float* s = (float*)vg_shared();
  if (!bad || vg_block_index() == 0) s[vg_thread()] = 1;
  vg_sync();
  y[vg_block_index() * 64 + vg_thread()] = s[63 - vg_thread()];
}
VG_EXPORT(left_behind)
CASE(left_behind) { return RUN(left_behind, 2, 64, 256, o, fresh<float>(128, "y"), bad); }

VG_KERNEL(64, 1) shared_out_of_bounds(float* y, uint64_t bad) {
  float* s = (float*)vg_shared();
  s[vg_thread() + (bad ? 1 : 0)] = 1;
  y[vg_thread()] = 1;
}
VG_EXPORT(shared_out_of_bounds)
CASE(shared_out_of_bounds) { return RUN(shared_out_of_bounds, 1, 64, 256, o, fresh<float>(64, "y"), bad); }

VG_KERNEL(64, 1) shared_before_start(float* y, uint64_t bad) {
  float* s = (float*)vg_shared();
  s[vg_thread() - (bad ? 1 : 0)] = 1;
  y[vg_thread()] = 1;
}
VG_EXPORT(shared_before_start)
CASE(shared_before_start) { return RUN(shared_before_start, 1, 64, 256, o, fresh<float>(64, "y"), bad); }

// ---- launches

VG_KERNEL(64, 1) modest(float* y, uint64_t) { y[vg_thread()] = vg_threads(); }
VG_EXPORT(modest)
CASE(too_much_shared) { return RUN(modest, 1, 64, (227 << 10) + bad, o, fresh<float>(64, "y"), bad); }
CASE(too_many_threads) { return RUN(modest, 1, 64 + 32 * bad, 0, o, fresh<float>(96, "y"), bad); }
CASE(empty_grid) { return RUN(modest, 1 - bad, 64, 0, o, fresh<float>(64, "y"), bad); }
