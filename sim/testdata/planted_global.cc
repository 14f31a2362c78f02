// Global memory, and blocks.
#include "planted.h"

// ---- bounds

VG_KERNEL(64, 1) copy(const float* x, float* y, uint64_t n, uint64_t) {
  const int64_t i = vg_block_index() * 64 + vg_thread();
  if (i < (int64_t)n) y[i] = x[i];
}
VG_EXPORT(copy)
CASE(read_out_of_bounds) { return RUN(copy, 2, 64, 0, o, filled<float>(100 - bad, "x"), fresh<float>(100, "y"), uint64_t(100), bad); }
CASE(write_out_of_bounds) { return RUN(copy, 2, 64, 0, o, filled<float>(100, "x"), fresh<float>(100 - bad, "y"), uint64_t(100), bad); }
// The buffer ends where its pages do.
CASE(write_out_of_page) { return RUN(copy, 17, 64, 0, o, filled<float>(1025, "x"), fresh<float>(1024, "y"), uint64_t(1024 + bad), bad); }
CASE(before_start) {
  float* x = filled<float>(100, "x");
  return RUN(copy, 2, 64, 0, o, x - bad, fresh<float>(100, "y"), uint64_t(100), bad);
}
CASE(use_after_free) {
  float *x = filled<float>(100, "x"), *y = fresh<float>(100, "y");
  if (bad) vg_sim::free(x);
  return RUN(copy, 2, 64, 0, o, x, y, uint64_t(100), bad);
}
CASE(host_memory) {
  static float on_heap[100];
  float* y = bad ? new float[100] : fresh<float>(100, "y");
  (void)on_heap;
  return RUN(copy, 2, 64, 0, o, filled<float>(100, "x"), y, uint64_t(100), bad);
}
CASE(null_pointer) {
  float* y = bad ? nullptr : fresh<float>(100, "y");
  return RUN(copy, 2, 64, 0, o, filled<float>(100, "x"), y, uint64_t(100), bad);
}

// ---- initialization and outputs

CASE(uninitialized_global) {
  float* x = filled<float>(100, "x");
  if (bad) {
    vg_sim::poison(x, 400);
    vg_sim::wrote(x, 396);
  }
  return RUN(copy, 2, 64, 0, o, x, fresh<float>(100, "y"), uint64_t(100), bad);
}
CASE(output_never_written) {
  float *x = filled<float>(100, "x"), *y = filled<float>(100, "y");
  vg_sim::output(y, 400);
  const std::string e = RUN(copy, 2, 64, 0, o, x, y, uint64_t(100 - bad), bad);
  return e != "" ? e : vg_sim::unwritten(y, 400);
}
CASE(forbidden_rows) {
  float *x = filled<float>(100, "x"), *y = fresh<float>(100, "y");
  if (bad) vg_sim::forbid(x + 99, 4);
  return RUN(copy, 2, 64, 0, o, x, y, uint64_t(100), bad);
}

// ---- alignment

VG_KERNEL(32, 1) copy_vector(const char* x, vg_float4* y, uint64_t) { y[vg_thread()] = *(const vg_float4*)(x + 16 * vg_thread()); }
VG_EXPORT(copy_vector)
CASE(misaligned_vector) { return RUN(copy_vector, 1, 32, 0, o, (const char*)filled<float>(200, "x") + 4 * bad, fresh<vg_float4>(32, "y"), bad); }

VG_KERNEL(32, 1) sum_vector(const char* x, float* y, uint64_t) {
  const vg_float4 v = *(const vg_float4*)(x + 16 * vg_thread());
  y[vg_thread()] = v.x + v.y + v.z + v.w;  // the compiler loads the parts one by one
}
VG_EXPORT(sum_vector)
CASE(misaligned_parts) { return RUN(sum_vector, 1, 32, 0, o, (const char*)filled<float>(200, "x") + 8 * bad, fresh<float>(32, "y"), bad); }

VG_KERNEL(32, 1) copy_long(const char* x, uint64_t* y, uint64_t) { y[vg_thread()] = *(const uint64_t*)(x + 8 * vg_thread()); }
VG_EXPORT(copy_long)
CASE(misaligned_long) { return RUN(copy_long, 1, 32, 0, o, (const char*)filled<float>(200, "x") + 4 * bad, fresh<uint64_t>(32, "y"), bad); }

VG_KERNEL(32, 1) copy_int(const char* x, uint32_t* y, uint64_t) { y[vg_thread()] = *(const uint32_t*)(x + 4 * vg_thread()); }
VG_EXPORT(copy_int)
CASE(misaligned_int) { return RUN(copy_int, 1, 32, 0, o, (const char*)filled<float>(200, "x") + 2 * bad, fresh<uint32_t>(32, "y"), bad); }

// ---- between threads and blocks

VG_KERNEL(64, 1) through_global(float* y, float* z, uint64_t bad) {
  y[vg_thread()] = vg_thread();
  if (!bad) vg_sync();
  z[vg_thread()] = y[63 - vg_thread()];
}
VG_EXPORT(through_global)
CASE(race_within_block) { return RUN(through_global, 1, 64, 0, o, fresh<float>(64, "y"), fresh<float>(64, "z"), bad); }

// bad: the last thread of a block writes what the first of the next one writes.
VG_KERNEL(64, 1) overlap(float* y, uint64_t bad) {
  const int i = vg_block_index() * 64 + vg_thread();
  if (i < 255) y[vg_thread() == 63 ? i + (int)bad : i] = i;
}
VG_EXPORT(overlap)
CASE(race_of_writes) { return RUN(overlap, 4, 64, 0, o, fresh<float>(256, "y"), bad); }

VG_KERNEL(32, 1) neighbour(float* y, float* z, uint64_t bad) {
  const int i = vg_block_index();
  if (vg_thread() == 0) y[i] = i;
  if (vg_thread() == 1) z[i] = bad ? y[(i + 1) % vg_block_count()] : 0;
}
VG_EXPORT(neighbour)
CASE(race_between_blocks) { return RUN(neighbour, 5, 32, 0, o, filled<float>(5, "y"), fresh<float>(5, "z"), bad); }

// All blocks read a value that the last one replaces. bad: one does not wait.
VG_KERNEL(32, 1) replace(float* y, float* z, uint32_t* counter, uint64_t bad) {
  uint32_t* slot = (uint32_t*)vg_shared();
  z[vg_block_index() * 32 + vg_thread()] = *y;
  vg_sync();
  if (bad && vg_block_index() == 3 && vg_thread() == 0) *y = 5;
  const bool last = vg_arrive_last(counter, vg_block_count(), slot);
  if (!bad && last && vg_thread() == 0) *y = 5;
}
VG_EXPORT(replace)
CASE(race_with_readers) { return RUN(replace, 6, 32, 4, o, filled<float>(1, "y"), fresh<float>(192, "z"), zero_counters(1), bad); }

// Partial sums. bad: they are written after the block has arrived.
VG_KERNEL(64, 1) partial_sums(float* part, float* y, uint32_t* counter, uint64_t bad) {
  uint32_t* slot = (uint32_t*)vg_shared();
  const int i = vg_block_index() * 64 + vg_thread();
  if (!bad) part[i] = i;
  const bool last = vg_arrive_last(counter, vg_block_count(), slot);
  if (bad) part[i] = i;
  if (!last) return;
  float sum = 0;
  for (int b = 0; b < vg_block_count(); b++) sum += part[b * 64 + vg_thread()];
  y[vg_thread()] = sum;
}
VG_EXPORT(partial_sums)
CASE(written_after_arrival) { return RUN(partial_sums, 5, 64, 4, o, fresh<float>(320, "part"), fresh<float>(64, "y"), zero_counters(1), bad); }

// Two levels: the last block of each pair passes on what its pair did.
VG_KERNEL(32, 1) two_levels(float* part, float* y, uint32_t* counters, uint64_t bad) {
  uint32_t* slot = (uint32_t*)vg_shared();
  const int b = vg_block_index(), pair = b / 2;
  part[b * 32 + vg_thread()] = 1;
  if (!vg_arrive_last(counters + 1 + pair, 2, slot)) return;
  if (bad ? pair != 0 : !vg_arrive_last(counters, vg_block_count() / 2, slot)) return;
  float sum = 0;
  for (int i = 0; i < vg_block_count(); i++) sum += part[i * 32 + vg_thread()];
  y[vg_thread()] = sum;
}
VG_EXPORT(two_levels)
CASE(two_levels) {
  float* y = fresh<float>(32, "y");
  const std::string e = RUN(two_levels, 8, 32, 4, o, filled<float>(256, "part"), y, zero_counters(5), bad);
  return e != "" || y[7] == 8 ? e : "wrong sum";
}

// ---- counters

VG_KERNEL(32, 1) arrive(float* y, uint32_t* counter, uint64_t count, uint64_t) {
  if (vg_arrive_last(counter, (uint32_t)count, (uint32_t*)vg_shared())) y[vg_thread()] = 1;
}
VG_EXPORT(arrive)
CASE(counter_not_zero) { return RUN(arrive, 4, 32, 4, o, fresh<float>(32, "y"), zero_counters(1), 4 + bad, bad); }
CASE(counter_too_soon) { return RUN(arrive, 4, 32, 4, o, fresh<float>(32, "y"), zero_counters(1), bad ? uint64_t(3) : 4, bad); }
CASE(counter_uninitialized) {
  uint32_t* counter = zero_counters(1);
  if (bad) vg_sim::poison(counter, 4);
  return RUN(arrive, 4, 32, 4, o, fresh<float>(32, "y"), counter, uint64_t(4), bad);
}

// ---- a thread's own

VG_NOINLINE int deep(int n, volatile int* out) {
  volatile int here[256];
  here[n % 256] = n;
  *out = here[n % 256];
  return n <= 0 ? 0 : deep(n - 1, here) + *out;
}
VG_KERNEL(32, 1) recursion(int32_t* y, uint64_t bad) {
  volatile int out = 0;
  y[vg_thread()] = deep(bad ? 1000 : 3, &out);
}
VG_EXPORT(recursion)
CASE(stack_overflow) { return RUN(recursion, 1, 32, 0, o, fresh<int32_t>(32, "y"), bad); }

VG_KERNEL(32, 1) divide(int32_t* y, uint64_t by) { y[vg_thread()] = vg_thread() / (int32_t)by; }
VG_EXPORT(divide)
CASE(division_by_zero) { return RUN(divide, 1, 32, 0, o, fresh<int32_t>(32, "y"), 1 - bad); }
