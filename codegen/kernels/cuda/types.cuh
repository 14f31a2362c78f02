// Element types, and integers that NVRTC does not have (size_t it has).
#pragma once
#ifdef __CUDACC_RTC__
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef unsigned long long uintptr_t;
#else
#include <stddef.h>
#include <stdint.h>
#endif

// A bfloat16 in memory: the upper half of a float. All arithmetic is on floats;
// call.cuh has the loads and stores that convert.
struct vg_bf16 {
  uint16_t bits;
};

// Vectors in memory, aligned to their size: what one instruction moves.
struct alignas(16) vg_float4 {
  float x, y, z, w;
};
struct alignas(16) vg_uint4 {
  uint32_t x, y, z, w;
};

struct alignas(8) vg_float2 {
  float x, y;
};
struct alignas(8) vg_uint2 {
  uint32_t x, y;
};

// What a matrix product multiplies in. Accumulators are always float.
enum class vg_math { fp32, tf32, bf16 };

// The element of an operand in shared memory: bf16, else float (for tf32, one
// that is rounded before it is multiplied).
template <vg_math MATH>
struct vg_operand {
  using type = float;
};
template <>
struct vg_operand<vg_math::bf16> {
  using type = vg_bf16;
};
