// A kernel object, built twice with two values of VALUE: kernels and the
// simulator's own parts must not be taken for each other's.
#include "../../codegen/kernels/cuda/call.cuh"

VG_NOINLINE float own_value() { return VALUE; }
inline float shared_name(int i) { return VALUE * 10 + i; }

VG_KERNEL(64, 1) value(float* y, uint64_t beyond) {
  vg_sync();
  y[vg_thread() + beyond] = own_value() + shared_name(vg_thread());
}
VG_EXPORT(value)

VG_KERNEL(96, 2) other(float* y) { y[vg_thread()] = VALUE; }
VG_EXPORT(other)
