// What the attention kernels are built from: rows of a head in shared memory,
// and products of a warp's 16 rows, in each vg_math.
//
// Every product leaves its result in one layout, whatever it multiplies in:
// acc[j] holds columns 8j .. 8j+7 of the 16 rows as mma's accumulator does, so
// that a thread with g = lane/4, t = lane%4 has
//   acc[j][0], acc[j][1]: row g,   columns 8j+2t, 8j+2t+1
//   acc[j][2], acc[j][3]: row g+8, the same columns.
// Softmax, masks and stores are therefore written once. Columns are computed in
// groups of 16, that is pairs of acc.
#pragma once
#include "call.cuh"
#include "math.cuh"

// The padded row of an operand, in elements. Rows are 16-byte aligned, and off a
// multiple of 128 bytes by what keeps the accesses below free of bank conflicts:
// 8 rows of 16 bytes (ldmatrix), 4 rows of 8 floats (tf32), 8 rows of 4 floats
// (fp32).
template <vg_math MATH>
VG_CONST int vg_padded(int columns) { return columns + (MATH == vg_math::fp32 ? 4 : 8); }

template <int N>
VG_FN void vg_zero(float (&acc)[N][4]) {
  VG_UNROLL for (int j = 0; j < N; j++)
    VG_UNROLL for (int e = 0; e < 4; e++) acc[j][e] = 0.0f;
}

// ---- one step of a product along its depth
//
// vg_warp_step<MATH>::nt: acc += A B^T for 16 rows of A and the rows of B, at a
// depth of 16 (bf16), 8 (tf32) or 4 (fp32) from where a and b point.
// tn: acc += A^T B, A[depth, 16] and B[depth, columns]; lda, LD: their rows.
// nn: acc += P B for P in registers (pairs of acc) and B[16, columns].
// Only the first `groups` groups of columns are computed.

template <vg_math MATH>
struct vg_warp_step;

template <>
struct vg_warp_step<vg_math::bf16> {
  static constexpr int depth = 16;

  template <int LD, int N>
  VG_FN static void nt(float (&acc)[N][4], const vg_bf16* a, const vg_bf16* b, int groups) {
    const int lane = vg_lane();
    uint32_t fa[4], fb[4];
    vg_ldmatrix4(fa, a + (lane & 15) * LD + (lane >> 4) * 8);
    const vg_bf16* from = b + ((lane & 7) + (lane >> 4) * 8) * LD + (lane & 8);
    VG_UNROLL for (int j = 0; j < N / 2; j++)
      if (j < groups) {
        vg_ldmatrix4(fb, from + 16 * j * LD);
        vg_mma_bf16(acc[2 * j], fa, fb);
        vg_mma_bf16(acc[2 * j + 1], fa, fb + 2);
      }
  }
  template <int LD, int N>
  VG_FN static void columns(float (&acc)[N][4], const uint32_t fa[4], const vg_bf16* b) {
    const int lane = vg_lane();
    const vg_bf16* from = b + (lane & 15) * LD + (lane >> 4) * 8;
    uint32_t fb[4];
    VG_UNROLL for (int j = 0; j < N / 2; j++) {
      vg_ldmatrix4_t(fb, from + 16 * j);
      vg_mma_bf16(acc[2 * j], fa, fb);
      vg_mma_bf16(acc[2 * j + 1], fa, fb + 2);
    }
  }
  template <int LDA, int LD, int N>
  VG_FN static void tn(float (&acc)[N][4], const vg_bf16* a, const vg_bf16* b) {
    const int lane = vg_lane();
    uint32_t fa[4];
    vg_ldmatrix4_t(fa, a + ((lane & 7) + (lane >> 4) * 8) * LDA + (lane & 8));
    columns<LD>(acc, fa, b);
  }
  // An accumulator's layout is that of the operand, but for the rounding.
  template <int LD, int N>
  VG_FN static void nn(float (&acc)[N][4], const float (&p0)[4], const float (&p1)[4], const vg_bf16* b) {
    const uint32_t fa[4] = {vg_pack_bf16(p0[0], p0[1]), vg_pack_bf16(p0[2], p0[3]), vg_pack_bf16(p1[0], p1[1]),
                            vg_pack_bf16(p1[2], p1[3])};
    columns<LD>(acc, fa, b);
  }
};

template <>
struct vg_warp_step<vg_math::tf32> {
  static constexpr int depth = 8;

  // The order of the depth is free, if A and B agree: here slots t and t+4 of the
  // instruction are the neighbours 2t and 2t+1, which one access loads.
  template <int LD, int N>
  VG_FN static void nt(float (&acc)[N][4], const float* a, const float* b, int groups) {
    const int g = vg_lane() >> 2, t = vg_lane() & 3;
    const vg_float2 low = *(const vg_float2*)(a + g * LD + 2 * t), high = *(const vg_float2*)(a + (g + 8) * LD + 2 * t);
    const uint32_t fa[4] = {vg_bits(low.x), vg_bits(high.x), vg_bits(low.y), vg_bits(high.y)};
    VG_UNROLL for (int j = 0; j < N; j++)
      if (j / 2 < groups) {
        const vg_float2 y = *(const vg_float2*)(b + (8 * j + g) * LD + 2 * t);
        const uint32_t fb[2] = {vg_bits(y.x), vg_bits(y.y)};
        vg_mma_tf32(acc[j], fa, fb);
      }
  }
  // row0, row1: the rows of B in this thread's slots t and t+4.
  template <int LD, int N>
  VG_FN static void columns(float (&acc)[N][4], const uint32_t fa[4], const float* b, int row0, int row1) {
    const int g = vg_lane() >> 2;
    VG_UNROLL for (int j = 0; j < N; j++) {
      const uint32_t fb[2] = {vg_bits(b[row0 * LD + 8 * j + g]), vg_bits(b[row1 * LD + 8 * j + g])};
      vg_mma_tf32(acc[j], fa, fb);
    }
  }
  template <int LDA, int LD, int N>
  VG_FN static void tn(float (&acc)[N][4], const float* a, const float* b) {
    const int g = vg_lane() >> 2, t = vg_lane() & 3;
    const uint32_t fa[4] = {vg_bits(a[t * LDA + g]), vg_bits(a[t * LDA + g + 8]), vg_bits(a[(t + 4) * LDA + g]),
                            vg_bits(a[(t + 4) * LDA + g + 8])};
    columns<LD>(acc, fa, b, t, t + 4);
  }
  // A thread has columns 2t and 2t+1 of P, so these are its slots; which is first
  // depends on t, so that the four rows of B it is read beside lie in four banks.
  template <int LD, int N>
  VG_FN static void nn(float (&acc)[N][4], const float (&p0)[4], const float (&p1)[4], const float* b) {
    const int t = vg_lane() & 3, odd = t >> 1;
    half<LD>(acc, p0, b, 2 * t + odd, 2 * t + 1 - odd, odd);
    half<LD>(acc, p1, b + 8 * LD, 2 * t + odd, 2 * t + 1 - odd, odd);
  }
  template <int LD, int N>
  VG_FN static void half(float (&acc)[N][4], const float (&p)[4], const float* b, int row0, int row1, int odd) {
    const uint32_t fa[4] = {vg_tf32(odd ? p[1] : p[0]), vg_tf32(odd ? p[3] : p[2]), vg_tf32(odd ? p[0] : p[1]),
                            vg_tf32(odd ? p[2] : p[3])};
    columns<LD>(acc, fa, b, row0, row1);
  }
};

template <>
struct vg_warp_step<vg_math::fp32> {
  static constexpr int depth = 4;

  VG_FN static float dot(const vg_float4& x, const vg_float4& y, float sum) {
    return vg_fma(x.w, y.w, vg_fma(x.z, y.z, vg_fma(x.y, y.y, vg_fma(x.x, y.x, sum))));
  }
  template <int LD, int N>
  VG_FN static void nt(float (&acc)[N][4], const float* a, const float* b, int groups) {
    const int g = vg_lane() >> 2, t = vg_lane() & 3;
    const vg_float4 low = *(const vg_float4*)(a + g * LD), high = *(const vg_float4*)(a + (g + 8) * LD);
    VG_UNROLL for (int j = 0; j < N; j++)
      if (j / 2 < groups) {
        const vg_float4 y0 = *(const vg_float4*)(b + (8 * j + 2 * t) * LD), y1 = *(const vg_float4*)(b + (8 * j + 2 * t + 1) * LD);
        acc[j][0] = dot(low, y0, acc[j][0]), acc[j][1] = dot(low, y1, acc[j][1]);
        acc[j][2] = dot(high, y0, acc[j][2]), acc[j][3] = dot(high, y1, acc[j][3]);
      }
  }
  // One row of B, times an element of each of the two rows.
  template <int N>
  VG_FN static void row(float (&acc)[N][4], float low, float high, const float* b) {
    const int t = vg_lane() & 3;
    VG_UNROLL for (int j = 0; j < N; j++) {
      const vg_float2 y = *(const vg_float2*)(b + 8 * j + 2 * t);
      acc[j][0] = vg_fma(low, y.x, acc[j][0]), acc[j][1] = vg_fma(low, y.y, acc[j][1]);
      acc[j][2] = vg_fma(high, y.x, acc[j][2]), acc[j][3] = vg_fma(high, y.y, acc[j][3]);
    }
  }
  template <int LDA, int LD, int N>
  VG_FN static void tn(float (&acc)[N][4], const float* a, const float* b) {
    const int g = vg_lane() >> 2;
    VG_UNROLL for (int k = 0; k < depth; k++) row(acc, a[k * LDA + g], a[k * LDA + g + 8], b + k * LD);
  }
  template <int LD, int N>
  VG_FN static void nn(float (&acc)[N][4], const float (&p0)[4], const float (&p1)[4], const float* b) {
    half<LD>(acc, p0, b);
    half<LD>(acc, p1, b + 8 * LD);
  }
  // Columns 2s and 2s+1 of P are with the s-th of the four threads of a row.
  template <int LD, int N>
  VG_FN static void half(float (&acc)[N][4], const float (&p)[4], const float* b) {
    VG_UNROLL for (int k = 0; k < 8; k++) {
      const int from = (vg_lane() & ~3) | (k >> 1);
      row(acc, vg_shfl(p[k & 1], from), vg_shfl(p[2 + (k & 1)], from), b + k * LD);
    }
  }
};

// ---- whole products

// acc += A B^T over a depth of K. Whole tiles have no branches inside.
template <vg_math MATH, int K, int LD, int N, class X>
VG_FN void vg_warp_nt(float (&acc)[N][4], const X* a, const X* b, int groups) {
  constexpr int step = vg_warp_step<MATH>::depth;
  // In fp32 a step is many FMAs already; unrolled it would only hoist loads into
  // registers that are not there.
  if (groups >= N / 2 && MATH != vg_math::fp32) {
    VG_UNROLL for (int k = 0; k < K; k += step) vg_warp_step<MATH>::template nt<LD>(acc, a + k, b + k, N / 2);
  } else if (groups >= N / 2) {
    VG_NO_UNROLL for (int k = 0; k < K; k += step) vg_warp_step<MATH>::template nt<LD>(acc, a + k, b + k, N / 2);
  } else {
    VG_NO_UNROLL for (int k = 0; k < K; k += step) vg_warp_step<MATH>::template nt<LD>(acc, a + k, b + k, groups);
  }
}

// acc += P B for the first `groups` groups of P's columns, which are B's rows.
template <vg_math MATH, int LD, int N, int M, class X>
VG_FN void vg_warp_nn(float (&acc)[N][4], const float (&p)[M][4], const X* b, int groups) {
  if (groups >= M / 2) {
    VG_UNROLL for (int k = 0; k < M / 2; k++) vg_warp_step<MATH>::template nn<LD>(acc, p[2 * k], p[2 * k + 1], b + 16 * k * LD);
  } else {
    VG_UNROLL for (int k = 0; k < M / 2; k++)
      if (k < groups) vg_warp_step<MATH>::template nn<LD>(acc, p[2 * k], p[2 * k + 1], b + 16 * k * LD);
  }
}

// acc += A^T B over `depth` rows of each, a multiple of 16.
template <vg_math MATH, int LDA, int LD, int N, class X>
VG_FN void vg_warp_tn(float (&acc)[N][4], const X* a, const X* b, int depth) {
  constexpr int step = vg_warp_step<MATH>::depth;
  VG_NO_UNROLL for (int k = 0; k < depth; k += 16)
    VG_UNROLL for (int i = 0; i < 16; i += step)
      vg_warp_step<MATH>::template tn<LDA, LD>(acc, a + (k + i) * LDA, b + (k + i) * LD);
}

// ---- between a product and memory

// Rounds two neighbours of a result and stores them as part of an operand.
VG_FN void vg_store_operand(vg_bf16* to, float x, float y, vg_math) { *(uint32_t*)to = vg_pack_bf16(x, y); }
VG_FN void vg_store_operand(float* to, float x, float y, vg_math math) {
  const bool tf32 = math == vg_math::tf32;
  *(vg_float2*)to = {tf32 ? vg_from_bits(vg_tf32(x)) : x, tf32 ? vg_from_bits(vg_tf32(y)) : y};
}

// Whether rows of `columns` elements can be moved 16 bytes at a time.
template <class E>
VG_FN bool vg_rows_aligned(const E* p, int64_t ld, int columns) {
  return (((uintptr_t)p | (uintptr_t)(ld * (int64_t)sizeof(E)) | (uintptr_t)(columns * (int)sizeof(E))) & 15) == 0;
}

// What a thread stores of acc, in runs of neighbours that fill 32-byte sectors
// together with those of the other threads: calls body(row, column, run). Row g
// is multiplied by low, row g+8 by high. Every lane takes part.
template <int N, class Body>
VG_FN void vg_each_store(const float*, const float (&acc)[N][4], float low, float high, const Body& body) {
  const int g = vg_lane() >> 2, t = vg_lane() & 3;
  VG_UNROLL for (int j = 0; j < N; j++)
    VG_UNROLL for (int h = 0; h < 2; h++) {
      const float by = h ? high : low;
      body(g + 8 * h, 8 * j + 2 * t, vg_float2{acc[j][2 * h] * by, acc[j][2 * h + 1] * by});
    }
}
// Of bf16 a thread has too few: the four threads of a row exchange what they have
// of 16 columns.
template <int N, class Body>
VG_FN void vg_each_store(const vg_bf16*, const float (&acc)[N][4], float low, float high, const Body& body) {
  const int g = vg_lane() >> 2, t = vg_lane() & 3, from = (vg_lane() & ~3) | ((2 * t) & 3);
  VG_UNROLL for (int j = 0; j < N; j += 2)
    VG_UNROLL for (int h = 0; h < 2; h++) {
      const float by = h ? high : low;
      const uint32_t x = vg_pack_bf16(acc[j][2 * h] * by, acc[j][2 * h + 1] * by);
      const uint32_t y = vg_pack_bf16(acc[j + 1][2 * h] * by, acc[j + 1][2 * h + 1] * by);
      const uint32_t x0 = vg_shfl(x, from), x1 = vg_shfl(x, from + 1), y0 = vg_shfl(y, from), y1 = vg_shfl(y, from + 1);
      body(g + 8 * h, 8 * j + 4 * t, vg_uint2{t < 2 ? x0 : y0, t < 2 ? x1 : y1});
    }
}

// Stores a run, or the first n elements of it.
VG_FN void vg_store_run(float* p, vg_float2 run) { *(vg_float2*)p = run; }
VG_FN void vg_store_run(float* p, vg_float2 run, int n) {
  if (n > 0) p[0] = run.x;
  if (n > 1) p[1] = run.y;
}
VG_FN void vg_store_run(vg_bf16* p, vg_uint2 run) { *(vg_uint2*)p = run; }
VG_FN void vg_store_run(vg_bf16* p, vg_uint2 run, int n) {
  VG_UNROLL for (int e = 0; e < 4; e++)
    if (e < n) p[e].bits = (uint16_t)((e < 2 ? run.x : run.y) >> (16 * (e & 1)));
}

// Stores the first `rows` of the 16 rows of acc, columns [0, columns), at `to`.
template <int N, class E>
VG_FN void vg_store_rows(const float (&acc)[N][4], E* to, int64_t ld, int rows, int columns, bool aligned, float low, float high) {
  if (aligned)
    vg_each_store(to, acc, low, high, [&](int row, int col, auto run) {
      if (row < rows && col < columns) vg_store_run(to + row * ld + col, run);
    });
  else
    vg_each_store(to, acc, low, high, [&](int row, int col, auto run) {
      if (row < rows) vg_store_run(to + row * ld + col, run, columns - col);
    });
}
