// Rows of a head, from global to shared memory, as operands of a product.
//
// A group of threads copies together: vg_copy_rows starts, the caller closes the
// cp.async group and waits for it, and vg_finish_rows, with the same arguments,
// lets each thread round what it copied itself. After the barrier that follows,
// everybody may read. Padding, in rows and in columns, is zero.
#pragma once
#include "attention_tile.cuh"

// A 16-byte piece of an operand row, from elements of whatever type.
VG_FN vg_uint4 vg_make_piece(const float*, const float x[8]) {
  return {vg_bits(x[0]), vg_bits(x[1]), vg_bits(x[2]), vg_bits(x[3])};
}
VG_FN vg_uint4 vg_make_piece(const vg_bf16*, const float x[8]) {
  return {vg_pack_bf16(x[0], x[1]), vg_pack_bf16(x[2], x[3]), vg_pack_bf16(x[4], x[5]), vg_pack_bf16(x[6], x[7])};
}
// The elements of 16 aligned bytes in memory.
VG_FN void vg_load_piece(const float* from, float x[4]) {
  const vg_float4 y = *(const vg_float4*)from;
  x[0] = y.x, x[1] = y.y, x[2] = y.z, x[3] = y.w;
}
VG_FN void vg_load_piece(const vg_bf16* from, float x[8]) {
  const vg_uint4 y = *(const vg_uint4*)from;
  const uint32_t words[4] = {y.x, y.y, y.z, y.w};
  VG_UNROLL for (int e = 0; e < 8; e++) x[e] = vg_from_bits(e & 1 ? words[e / 2] & 0xffff0000u : words[e / 2] << 16);
}

// Calls body(row, column) for the 16-byte pieces of rows x columns elements of
// size bytes that are this thread's share.
template <int COLUMNS, int BYTES, class Body>
VG_FN void vg_each_piece(int rows, int thread, int threads, const Body& body) {
  constexpr int per_row = COLUMNS * BYTES / 16, size = 16 / BYTES;
  VG_NO_UNROLL for (int i = thread; i < rows * per_row; i += threads) body(i / per_row, i % per_row * size);
}

// One piece: `size` elements of X at column `col` of a row, of which those from
// DIM on are zero.
template <int DIM, class X, class E>
VG_FN void vg_copy_piece(X* to, const E* from, int col, bool valid, bool aligned) {
  constexpr int size = 16 / (int)sizeof(X);
  if constexpr (sizeof(X) == sizeof(E)) {
    if (aligned) return vg_cp_async16(to, from, valid && col < DIM);
  }
  float x[8] = {};
  if (sizeof(E) == 4 && size == 8 && valid && aligned && col + size <= DIM) {
    vg_load_piece(from, x);
    vg_load_piece(from + 4, x + 4);
  } else if (valid) {
    VG_UNROLL for (int e = 0; e < size; e++)
      if (col + e < DIM) x[e] = vg_load<float>(from + e, 1);
  }
  *(vg_uint4*)to = vg_make_piece(to, x);
}

// to[rows][LD] = `valid` rows of DIM columns at `from`, zeros around them up to
// `rows` and COLUMNS. aligned: vg_rows_aligned(from, ld, DIM).
template <int DIM, int COLUMNS, int LD, class X, class E>
VG_FN void vg_copy_rows(X* to, const E* from, int64_t ld, int valid, int rows, bool aligned, int thread, int threads) {
  vg_each_piece<COLUMNS, sizeof(X)>(rows, thread, threads, [&](int row, int col) {
    vg_copy_piece<DIM>(to + row * LD + col, from + row * ld + col, col, row < valid, aligned);
  });
}

template <vg_math MATH, int COLUMNS, int LD, class X>
VG_FN void vg_finish_rows(X* to, int rows, int thread, int threads) {
  if constexpr (MATH == vg_math::tf32)
    vg_each_piece<COLUMNS, sizeof(X)>(rows, thread, threads, [&](int row, int col) {
      vg_float4* p = (vg_float4*)(to + row * LD + col);
      const vg_float4 x = *p;
      *p = {vg_from_bits(vg_tf32(x.x)), vg_from_bits(vg_tf32(x.y)), vg_from_bits(vg_tf32(x.z)), vg_from_bits(vg_tf32(x.w))};
    });
}
