// How one matrix product is cut: what a block computes, what lies in shared
// memory and where.
#pragma once
#include "call.cuh"

// The operands of C[m,n]:
//   nt: A[m,k] and B[n,k]    nn: A[m,k] and B[k,n]    tn: A[k,m] and B[k,n]
// Rows counted by the batch are m for nt and nn and k for tn; every other extent
// is a constant of the kernel.
enum vg_kind { vg_nt, vg_nn, vg_tn };

// A block computes BM x BN elements of C, WARPS_M x WARPS_N warps side by side,
// from BK of k at a time; STAGES such slices are in shared memory at once. With
// SPLITS > 1 that many blocks share the k of one tile, each a run of slices, and
// add up what they found in a fixed order.
//
// Launch geometry, mirrored by the planner; m and n are those of the full batch:
//   threads          32 WARPS_M WARPS_N
//   shared_bytes     the larger of STAGES (BM + BN) BK element_bytes and 4 BM (BN + 8)
//   blocks           ceil(m / BM) ceil(n / BN) SPLITS
//   workspace_bytes  0 without splits, else 4 BM (BN + 1) blocks
//   counters         0 without splits, else blocks
template <vg_kind KIND, vg_math MATH, int BM, int BN, int BK, int STAGES, int WARPS_M, int WARPS_N, int SPLITS>
struct vg_gemm_tile {
  static constexpr vg_kind kind = KIND;
  static constexpr vg_math math = MATH;
  static constexpr int bm = BM, bn = BN, bk = BK, stages = STAGES, splits = SPLITS;
  static constexpr int warps_m = WARPS_M, warps_n = WARPS_N;
  using element = typename vg_operand<MATH>::type;

  static constexpr int threads = 32 * WARPS_M * WARPS_N;
  static constexpr int element_bytes = MATH == vg_math::bf16 ? 2 : 4;
  static constexpr int stage_bytes = (BM + BN) * BK * element_bytes;
  // The tile of C in shared memory, after the last slice; 8 columns of padding.
  static constexpr int c_ld = BN + 8, c_bytes = 4 * BM * c_ld;
  static constexpr int shared_bytes = STAGES * stage_bytes > c_bytes ? STAGES * stage_bytes : c_bytes;
  // One block's partial result: the tile, and BM sums of A's columns.
  static constexpr int partial_floats = BM * (BN + 1);

  static VG_CONST int blocks(int m, int n) { return vg_ceil_div32(m, BM) * vg_ceil_div32(n, BN) * SPLITS; }
  static VG_CONST int64_t workspace_bytes(int m, int n) {
    return SPLITS > 1 ? (int64_t)blocks(m, n) * partial_floats * 4 : 0;
  }
  static VG_CONST int counters(int m, int n) { return SPLITS > 1 ? blocks(m, n) : 0; }

  // What a warp computes.
  static constexpr int wm = BM / WARPS_M, wn = BN / WARPS_N;

  static_assert(BM % (16 * WARPS_M) == 0 && BN % (16 * WARPS_N) == 0, "a warp computes multiples of 16 x 16");
  static_assert((BM & (BM - 1)) == 0 && (BN & (BN - 1)) == 0 && BM >= 32 && BN >= 32, "tiles are powers of two from 32");
  static_assert(threads % 64 == 0, "see vg_gemm_epilogue");
  static_assert((BK & (BK - 1)) == 0 && BK >= (MATH == vg_math::bf16 ? 32 : 16), "a slice holds two steps at least");
  static_assert(STAGES >= 2, "one slice is loaded while another is read");
  static_assert(SPLITS >= 1 && SPLITS <= 256, "see vg_gemm_meet");
  static_assert(threads >= BM && threads >= BN, "every row and column has a thread of its own");
};

// Where the operand with MN rows (or columns) of C lies in a stage. The tile is
// stored as in memory, `rows` by `cols`: K_MAJOR [MN, BK], else [BK, MN], in
// chunks of 16 bytes. Chunks are permuted within their row, so that the eight
// rows of an ldmatrix, and the 32 elements of a tf32 fragment read from [BK, MN],
// lie in different banks.
template <class Tile, bool K_MAJOR, int MN>
struct vg_gemm_layout {
  using element = typename Tile::element;
  static constexpr bool k_major = K_MAJOR;
  static constexpr int bk = Tile::bk, rows = K_MAJOR ? MN : bk, cols = K_MAJOR ? bk : MN;
  static constexpr int chunk = 16 / Tile::element_bytes;  // elements
  static constexpr int row_chunks = cols / chunk;
  static constexpr int bytes = rows * cols * Tile::element_bytes;
  static constexpr int threads = Tile::threads;

  // The byte at which a chunk lies.
  static VG_FN int at(int row, int index) { return (row * row_chunks + (index ^ mix(row))) * 16; }

 private:
  static VG_FN int mix(int row) {
    // Four rows by eight floats are read at once: neighbours two chunks apart.
    if (!K_MAJOR && Tile::element_bytes == 4) return row << 1 & 6;
    // Eight rows by one chunk; 128 bytes hold several rows if those are short.
    constexpr int mixed = row_chunks < 8 ? row_chunks : 8;
    return row / (8 / mixed) & (mixed - 1);
  }
};

template <class Tile>
using vg_gemm_layout_a = vg_gemm_layout<Tile, Tile::kind != vg_tn, Tile::bm>;
template <class Tile>
using vg_gemm_layout_b = vg_gemm_layout<Tile, Tile::kind == vg_nt, Tile::bn>;

// What a block does: its tile of C, its part of k.
struct vg_gemm_place {
  int tile, row, col;       // row and column of C where the tile starts
  int split, splits;        // of as many as have something to do
  int first_slice, slices;  // of BK each
};

// Tiles are taken eight rows of tiles at a time, column by column: blocks that
// run together share most of their operands in L2. Splits stand farthest apart,
// since they share nothing.
template <class Tile>
VG_FN vg_gemm_place vg_gemm_find_place(const vg_call& c, int n, int k) {
  constexpr int group = 8;
  const int tiles = c.blocks / Tile::splits, tiles_n = vg_ceil_div32(n, Tile::bn), tiles_m = tiles / tiles_n;
  vg_gemm_place p;
  p.split = Tile::splits > 1 ? c.block / tiles : 0;
  p.tile = c.block - p.split * tiles;
  const int first = p.tile / (group * tiles_n) * group, within = p.tile % (group * tiles_n);
  const int high = tiles_m - first < group ? tiles_m - first : group;
  p.row = (first + within % high) * Tile::bm;
  p.col = within / high * Tile::bn;

  const int all = vg_ceil_div32(k, Tile::bk), each = vg_ceil_div32(all, Tile::splits);
  p.splits = vg_ceil_div32(all, each);
  p.first_slice = p.split * each;
  p.slices = all - p.first_slice < each ? all - p.first_slice : each;
  return p;
}

// vg_at_row for a row that fits 32 bits, where dividing costs less.
template <int T>
VG_FN vg_at vg_gemm_row(int row) {
  const int sample = (int)((uint32_t)row / (uint32_t)T);
  return {row, sample, row - sample * T, 0, 1};
}
