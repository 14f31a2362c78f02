// The functions g++ -fsanitize=thread calls before every memory access. They
// are the simulator's: nothing is linked with the compiler's own library. Weak
// and hidden, so that a program may have several instrumented files, and a
// process several kernel objects.
#pragma once

#define VG_SIM_TSAN extern "C" __attribute__((weak, visibility("hidden"), no_sanitize("thread")))
#define VG_SIM_ACCESS(p, bytes, how) \
  if (vg_sim_current && *vg_sim_current) vg_sim_runtime->access(p, bytes, how, __builtin_return_address(0))

VG_SIM_TSAN void __tsan_init() {}
VG_SIM_TSAN void __tsan_func_entry(void*) {}
VG_SIM_TSAN void __tsan_func_exit() {}
VG_SIM_TSAN void __tsan_vptr_update(void**, void*) {}
VG_SIM_TSAN void __tsan_vptr_read(void**) {}

#define VG_SIM_TSAN_SIZE(n)                                                                                      \
  VG_SIM_TSAN void __tsan_read##n(void* p) { VG_SIM_ACCESS(p, n, vg_sim_reads); }                                \
  VG_SIM_TSAN void __tsan_write##n(void* p) { VG_SIM_ACCESS(p, n, vg_sim_writes); }                              \
  VG_SIM_TSAN void __tsan_unaligned_read##n(void* p) { VG_SIM_ACCESS(p, n, vg_sim_reads | vg_sim_unaligned); }   \
  VG_SIM_TSAN void __tsan_unaligned_write##n(void* p) { VG_SIM_ACCESS(p, n, vg_sim_writes | vg_sim_unaligned); } \
  VG_SIM_TSAN void __tsan_volatile_read##n(void* p) { VG_SIM_ACCESS(p, n, vg_sim_reads); }                       \
  VG_SIM_TSAN void __tsan_volatile_write##n(void* p) { VG_SIM_ACCESS(p, n, vg_sim_writes); }                     \
  VG_SIM_TSAN void __tsan_unaligned_volatile_read##n(void* p) { VG_SIM_ACCESS(p, n, vg_sim_reads | vg_sim_unaligned); } \
  VG_SIM_TSAN void __tsan_unaligned_volatile_write##n(void* p) { VG_SIM_ACCESS(p, n, vg_sim_writes | vg_sim_unaligned); }
VG_SIM_TSAN_SIZE(1)
VG_SIM_TSAN_SIZE(2)
VG_SIM_TSAN_SIZE(4)
VG_SIM_TSAN_SIZE(8)
VG_SIM_TSAN_SIZE(16)

VG_SIM_TSAN void __tsan_read_range(void* p, size_t n) { VG_SIM_ACCESS(p, n, vg_sim_reads | vg_sim_unaligned); }
VG_SIM_TSAN void __tsan_write_range(void* p, size_t n) { VG_SIM_ACCESS(p, n, vg_sim_writes | vg_sim_unaligned); }

// g++ -fsanitize=alignment: the compiler splits the load of a vector whose parts
// are used one by one, so that its alignment is seen here only.
struct vg_sim_ubsan {
  const char* file;
  uint32_t line, column;
  const struct {
    uint16_t kind, info;
    char name[1];
  }* type;
  unsigned char log_alignment, check;
};
VG_SIM_TSAN void __ubsan_handle_type_mismatch_v1(void* data, void* p) {
  const vg_sim_ubsan& d = *(const vg_sim_ubsan*)data;
  if (vg_sim_current && *vg_sim_current) vg_sim_runtime->misaligned(p, (size_t)1 << d.log_alignment, d.type->name, d.file, d.line);
}
