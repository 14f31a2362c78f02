// After the last slice: the sums of A's columns, the partial results of other
// blocks, and the epilogue.
#pragma once
#include "gemm_tile.cuh"

// Adds up the partial tiles of the blocks that share one, `acc` and `sum` being
// this block's. False: another block goes on with the tile. Blocks meet four at
// a time: the last to come adds the four in their order, whichever is its own,
// and goes on to meet three other such sums. So the result does not depend on
// who comes when, and with many splits no block has to read them all.
template <class Tile, bool SUM, int ROWS, int COLS>
VG_FN bool vg_gemm_meet(const vg_call& c, const vg_gemm_place& at, float (&acc)[ROWS][COLS], float& sum) {
  constexpr int fan = 4, vectors = ROWS * COLS / 4;
  const bool has_sum = SUM && vg_thread() < Tile::bm;
  float* partials = (float*)c.workspace + (int64_t)at.tile * Tile::splits * Tile::partial_floats;
  // Places of the tree that first adds the blocks from split `first` on, `width`
  // apart; counter first + height is no other place's, up to 256 splits.
  int height = 0;
  VG_NO_UNROLL for (int width = 1; width < at.splits; width *= fan, height++) {
    const int first = at.split / (width * fan) * (width * fan);
    const int there = vg_ceil_div32(at.splits - first, width), members = there < fan ? there : fan;
    if (members == 1) continue;
    // A thread reads back what threads of its own index wrote, so elements lie as
    // they do in registers.
    float* own = partials + (int64_t)(at.split / width * width) * Tile::partial_floats;
    VG_UNROLL for (int v = 0; v < vectors; v++) {
      const float* x = acc[v * 4 / COLS] + v * 4 % COLS;
      ((vg_float4*)own)[v * Tile::threads + vg_thread()] = {x[0], x[1], x[2], x[3]};
    }
    if (has_sum) own[Tile::bm * Tile::bn + vg_thread()] = sum;
    if (!vg_arrive_last(c.counters + at.tile * Tile::splits + first + height, (uint32_t)members, (uint32_t*)vg_shared()))
      return false;
    const float* parts = partials + (int64_t)first * Tile::partial_floats;
    const int64_t apart = (int64_t)width * Tile::partial_floats;
    // Eight vectors at a time, which are on their way together.
    VG_UNROLL for (int from = 0; from < vectors; from += 8)
      VG_NO_UNROLL for (int i = 0; i < members; i++)
        VG_UNROLL for (int v = from; v < from + 8 && v < vectors; v++) {
          float* x = acc[v * 4 / COLS] + v * 4 % COLS;
          const vg_float4 y = ((const vg_float4*)(parts + i * apart))[v * Tile::threads + vg_thread()];
          x[0] = i > 0 ? x[0] + y.x : y.x, x[1] = i > 0 ? x[1] + y.y : y.y;
          x[2] = i > 0 ? x[2] + y.z : y.z, x[3] = i > 0 ? x[3] + y.w : y.w;
        }
    if (has_sum) {
      sum = 0;
      for (int i = 0; i < members; i++) sum += parts[i * apart + Tile::bm * Tile::bn + vg_thread()];
    }
  }
  return true;
}

// The sum of column vg_thread() of A, for the first BM threads, from what all
// threads summed.
template <class Tile, class LoadA>
VG_FN float vg_gemm_column_sum(const LoadA& a) {
  float* groups = (float*)vg_shared();
  a.put_sums(groups);
  vg_sync();
  float sum = 0;
  if (vg_thread() < Tile::bm)
    for (int g = 0; g < LoadA::sum_groups; g++) sum += groups[g * Tile::bm + vg_thread()];
  vg_sync();
  return sum;
}

// Calls y for the elements of one row that this thread has: 16 lanes share the
// row, each takes every sixteenth column. The sink is copied for every row, so
// that the compiler sees when a dropout has to draw and keeps its members in
// registers.
template <class Tile, class Y>
VG_FN void vg_gemm_epilogue_row(const Y& y, const float* x, vg_at at, int col, int n) {
  const int lane = vg_thread() % 16;
  const Y sink = y;
  VG_UNROLL for (int j = 0; j < Tile::bn; j += 16) {
    at.col = col + lane + j;
    if (n % Tile::bn == 0 || at.col < n) sink(x[lane + j], at);
  }
}

// Lets the epilogue run over the block's tile of C. All of it goes through shared
// memory, so that the registers it was in are free for the epilogue.
template <class Tile, int T, class Products, class Y>
VG_FN void vg_gemm_epilogue(const Products& products, const vg_gemm_place& place, int m, int n, const Y& y) {
  float* tile = (float*)vg_shared();
  products.put(tile);
  vg_sync();
  // Half-warps of a warp read two rows apart, from different banks.
  const int half = vg_thread() / 16, first = (half & ~3) | (half & 1) << 1 | (half >> 1 & 1);
  VG_NO_UNROLL for (int i = first; i < Tile::bm && place.row + i < m; i += Tile::threads / 16)
    vg_gemm_epilogue_row<Tile>(y, tile + i * Tile::c_ld, vg_gemm_row<T>(place.row + i), place.col, n);
}
