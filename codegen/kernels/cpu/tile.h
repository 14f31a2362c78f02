// The matrix-product core: one register-tiled micro-kernel and the packing of
// its operands. gemm.h and attention.h build everything from these.
//
// A product C = A B is cut into k-blocks of kKC, and B's k-block into panels of
// kNR columns stored [k][kNR], so that the micro-kernel reads B in order. A
// panel (66 KB on AVX-512) streams from L2 for every tile: a step reads it in
// order and at 9 bytes a cycle, which the prefetcher hides, while the panel of A
// (30 KB) stays in L1. Half the depth would have both fit L1, but C would go to
// memory and back twice as often, which costs more.
// The A operand has three layouts, told apart by the constant RS, the distance
// between rows of a tile:
//   RS = kLDA: row-major rows of one k-block, element (r, k) at r*kLDA + k. The
//     constant stride turns into address displacements, so no transposition is
//     needed: a source functor writes its rows in order. kLDA is off a power of
//     two, so that the rows of a tile do not share cache sets.
//   RS = 1: element (r, k) at k*ks + r, for an operand that is stored
//     transposed.
//   RS = 0: element (r, k) at r*ks + k, rows that are read where they lie.
//
// Register tiles: 14x32 on AVX-512 (28 of 32 registers accumulate; 16 loads
// feed 28 FMAs a step, well below two loads a cycle), 6x16 on AVX2, 4x8 plain.
// Every element of C is one chain of FMAs in the order of k, whatever the
// blocking.
#pragma once
#include "call.h"

VG_BEGIN

#if VG_ISA == 2
constexpr int kMR = 14;
#elif VG_ISA == 1
constexpr int kMR = 6;
#else
constexpr int kMR = 4;
#endif
constexpr int kNV = 2;             // vectors across a tile
constexpr int kNR = kNV * kLanes;  // columns of a tile
constexpr int kKC = 528;           // depth of a k-block; 512 fits, and 8 x 197 tokens in three
constexpr int kColumnPanels = 128 / kNR;  // panels of B that a panel of A meets before the next does
constexpr int kLDA = kKC + 16;
constexpr int kLine = 64 / sizeof(float);  // floats in a cache line
constexpr int kLinesAhead = 96;            // how far ahead a single tile fetches B
static_assert(kMR <= kLanes && 64 % kNR == 0, "packing and workspace formulas rely on it");

// C = (add ? C : 0) + A B over kc steps; if it adds, it fetches the tile at next
// meanwhile. The micro-kernel proper has R = kMR rows and V = kNV vectors;
// smaller ones are for the edges of small products. ldb: from row to row of B,
// kNR in a packed panel. LINES: cache lines from ahead on that it has fetched in
// every step; one is for later and goes to L2, more are for now.
template <int RS, int R = kMR, int V = kNV, int LINES = 0>
VG_NOINLINE void vg_tile(int64_t kc, const float* a, int64_t ks, const float* b, int64_t ldb, float* c, int64_t ldc,
                         bool add, const float* next, const float* ahead = nullptr) {
  vg_f32v acc[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int j = 0; j < V; j++) acc[r][j] = vg_f32v{};
  if (add) {
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
      for (int j = 0; j < V; j++) acc[r][j] = vg_load_full(c + r * ldc + j * kLanes).v;
    for (int r = 0; r < R; r++)
      for (int j = 0; j < V; j++) __builtin_prefetch(next + r * ldc + j * kLanes, 1);
  }
  for (int64_t k = 0; k < kc; k++) {
    vg_f32v bv[V];
#pragma GCC unroll 2
    for (int j = 0; j < V; j++) bv[j] = vg_load_full(b + j * kLanes).v;
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const vg_f32v av = vf(a[r * (RS == 0 ? ks : RS)]).v;
#pragma GCC unroll 2
      for (int j = 0; j < V; j++) acc[r][j] = av * bv[j] + acc[r][j];
    }
    a += RS == 1 ? ks : 1;
    b += ldb;
    for (int i = 0; i < LINES; i++, ahead += kLine) __builtin_prefetch(ahead, 0, LINES == 1 ? 2 : 3);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int j = 0; j < V; j++) vg_store_full(c + r * ldc + j * kLanes, acc[r][j]);
}

// C over one row panel and at most kColumnPanels panels of B, meanwhile fetching
// half of as many panels at ahead, unless that is NULL.
template <int RS>
VG_NOINLINE void vg_row_tiles(int64_t col_panels, int64_t kc, const float* a, int64_t ks, const float* b, float* c,
                              int64_t ldc, bool add, const float* ahead) {
  for (int64_t j = 0; j < col_panels; j++, b += kc * kNR, c += kNR) {
    if (ahead)
      vg_tile<RS, kMR, kNV, 1>(kc, a, ks, b, kNR, c, ldc, add, c + kNR, ahead + j * kc * kNR);
    else
      vg_tile<RS>(kc, a, ks, b, kNR, c, ldc, add, c + kNR);
  }
}

// What row panel i has fetched of the panels of B at next: the second and the
// third a half each.
VG_FN const float* vg_ahead(int64_t i, int64_t kc, const float* next) {
  return next && (i == 1 || i == 2) ? next + (i - 1) * kc * kLine : nullptr;
}

// C over row_panels x col_panels tiles. a_panel: elements from one row panel of
// A to the next; the panels of B follow each other, and those at after, or NULL, are
// wanted next.
template <int RS>
VG_NOINLINE void vg_tiles(int64_t row_panels, int64_t col_panels, int64_t kc, const float* a, int64_t a_panel,
                          int64_t ks, const float* b, float* c, int64_t ldc, bool add, const float* after) {
  for (int64_t j = 0; j < col_panels; j += kColumnPanels) {
    const int64_t count = vg_min64(col_panels - j, kColumnPanels);
    const float* next = j + count < col_panels ? b + (j + count) * kc * kNR : after;
    for (int64_t i = 0; i < row_panels; i++)
      vg_row_tiles<RS>(count, kc, a + i * a_panel, ks, b + j * kc * kNR, c + i * kMR * ldc + j * kNR, ldc, add,
                       vg_ahead(i, kc, next));
  }
}

// The heights of the smaller micro-kernels.
constexpr int kMost = 3 * kMR / 4, kHalf = kMR / 2, kFew = (kMR + 2) / 4;

// That of the least one for `rows` rows.
VG_FN int vg_tile_height(int64_t rows) {
  return rows > kMost ? kMR : rows > kHalf ? kMost : rows > kFew ? kHalf : kFew;
}

template <int RS, int V, int LINES = 0>
VG_FN void vg_tile_rows(int64_t rows, int64_t kc, const float* a, int64_t ks, const float* b, int64_t ldb, float* c,
                        int64_t ldc, bool add, const float* ahead = nullptr) {
  const int height = vg_tile_height(rows);
  if (height == kMR)
    vg_tile<RS, kMR, V, LINES>(kc, a, ks, b, ldb, c, ldc, add, c, ahead);
  else if (height == kMost)
    vg_tile<RS, kMost, V, LINES>(kc, a, ks, b, ldb, c, ldc, add, c, ahead);
  else if (height == kHalf)
    vg_tile<RS, kHalf, V, LINES>(kc, a, ks, b, ldb, c, ldc, add, c, ahead);
  else
    vg_tile<RS, kFew, V, LINES>(kc, a, ks, b, ldb, c, ldc, add, c, ahead);
}

// C over few rows and one panel of B. Where few rows use a panel, it comes from L3
// for the first of them at the speed of L3; so the tiles fetch the next panel, at
// ahead, which then waits in L1 and L2. They fetch evenly: a step of 14 rows takes
// as long as L3 needs for a line, and more would leave no buffers for what misses
// L1 now. A single tile fetches its own panel a little ahead, faster than the
// hardware does.
template <int RS>
VG_NOINLINE void vg_column(int64_t rows, int64_t kc, const float* a, int64_t a_panel, int64_t ks, const float* b,
                           float* c, int64_t ldc, bool add, const float* ahead) {
  if (rows <= kMR) return vg_tile_rows<RS, kNV, kNV>(rows, kc, a, ks, b, kNR, c, ldc, add, b + kLinesAhead * kLine);
  for (int64_t i = 0; i * kMR < rows; i++, a += a_panel, c += kMR * ldc) {
    if (i > kNV && rows - i * kMR >= kMR)
      vg_tile<RS>(kc, a, ks, b, kNR, c, ldc, add, c);
    else
      vg_tile_rows<RS, kNV, 1>(rows - i * kMR, kc, a, ks, b, kNR, c, ldc, add, ahead + vg_min64(i, kNV) * kc * kLine);
  }
}

// One tile of a product so small that its edges count: no more than whole vectors
// of columns, at most kNR, and less than a quarter of a panel's rows in excess.
template <int RS>
VG_NOINLINE void vg_edge_tile(int64_t rows, int64_t cols, int64_t kc, const float* a, int64_t ks, const float* b,
                              int64_t ldb, float* c, int64_t ldc, bool add) {
  if (cols > kLanes)
    vg_tile_rows<RS, kNV>(rows, kc, a, ks, b, ldb, c, ldc, add);
  else
    vg_tile_rows<RS, 1>(rows, kc, a, ks, b, ldb, c, ldc, add);
}

// All of them; B is packed.
template <int RS>
VG_NOINLINE void vg_small_tiles(int64_t rows, int64_t cols, int64_t kc, const float* a, int64_t a_panel, int64_t ks,
                                const float* b, float* c, int64_t ldc, bool add) {
  for (int64_t j = 0; j < cols; j += kNR)
    for (int64_t i = 0; i < rows; i += kMR)
      vg_edge_tile<RS>(rows - i, cols - j, kc, a + i / kMR * a_panel, ks, b + j * kc, kNR, c + i * ldc + j, ldc, add);
}

// Packs one panel of B[N,K] (row-major, so this transposes): columns
// n .. n+cols-1 of the product, depths 0 .. kc-1 from b on. Missing columns
// become zeros.
VG_NOINLINE void vg_pack_panel_nt(const float* b, int64_t ldb, int cols, int64_t kc, float* out) {
  for (int j = 0; j < kNR; j += kLanes) {
    for (int64_t k = 0; k < kc; k += kLanes) {
      const int depth = (int)vg_min64(kLanes, kc - k);
      vf square[kLanes];
      if (depth == kLanes && j + kLanes <= cols) {
        vg_load_turned([&](int i) VG_LAMBDA { return b + (j + i) * ldb + k; }, square);
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; i++) vg_store_full(out + (k + i) * kNR + j, square[i]);
        continue;
      }
      for (int i = 0; i < kLanes; i++)
        square[i] = j + i < cols ? vg_load<vf>(b + (j + i) * ldb + k, depth) : vf(0.0f);
      vg_transpose_square(square);
      for (int i = 0; i < depth; i++) vg_store_full(out + (k + i) * kNR + j, square[i]);
    }
  }
}

// Packs one panel of B[K,N] (row-major).
VG_NOINLINE void vg_pack_panel_nn(const float* b, int64_t ldb, int cols, int64_t kc, float* out) {
  for (int64_t k = 0; k < kc; k++, b += ldb, out += kNR)
    for (int j = 0; j < kNR; j += kLanes)
      vg_store_full(out + j, j < cols ? vg_load<vf>(b + j, cols - j) : vf(0.0f));
}

VG_END
