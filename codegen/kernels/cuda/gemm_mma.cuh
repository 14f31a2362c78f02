// Products on tensor cores: bf16 (m16n8k16) and tf32 (m16n8k8), both with float
// accumulators. A step of either covers two 16-byte chunks of k, so that one
// ldmatrix pattern serves both where k is contiguous.
#pragma once
#include "gemm_tile.cuh"

// Fragments of one operand for 16 rows of C (A), or for 16 columns, twice an mma's
// width (B): four 8x8 matrices, of which register i holds the half `mn` of the rows
// or columns and the half `k` of the step. The layout's permutation is an exclusive
// or, and what changes from group to group and from step to step stands in other
// bits than what is the lane's: so one offset a lane serves them all.
template <class L, vg_math MATH, bool IS_A>
struct vg_gemm_fragments {
  static constexpr int row_bytes = L::row_chunks * 16;
  static constexpr bool transposed = !L::k_major && MATH == vg_math::bf16, single = !L::k_major && !transposed;
  int lane_at;

  // first: of the warp's rows or columns.
  VG_FN explicit vg_gemm_fragments(int first) {
    const int i = vg_lane() / 8, lane = vg_lane() % 8;  // lanes 8i .. 8i+7 give the rows of matrix i
    if (L::k_major)
      lane_at = L::at(first + mn(i) * 8 + lane, k(i));
    else if (transposed)
      lane_at = L::at(k(i) * 8 + lane, first / 8 + mn(i));
    else  // ldmatrix cannot transpose 32-bit elements
      lane_at = L::at(vg_lane() % 4, first / 4 + i / 2) + vg_lane() / 4 % 4 * 4;
  }
  VG_FN void load(uint32_t r[4], const char* tile, int group, int step) const {
    if (L::k_major) vg_ldmatrix4(r, tile + (lane_at ^ step * 32) + group * 16 * row_bytes);
    if (transposed) vg_ldmatrix4_t(r, tile + (lane_at ^ group * 32) + step * 16 * row_bytes);
    if (single) {
      VG_UNROLL for (int q = 0; q < 4; q++)
        r[q] = *(const uint32_t*)(tile + (lane_at ^ (group * 64 + mn(q) * 32)) + (step * 8 + k(q) * 4) * row_bytes);
    }
    if (MATH == vg_math::tf32) {
      VG_UNROLL for (int q = 0; q < 4; q++) r[q] = vg_tf32(vg_from_bits(r[q]));
    }
  }

 private:
  static VG_FN int mn(int i) { return IS_A ? i % 2 : i / 2; }
  static VG_FN int k(int i) { return IS_A ? i / 2 : i % 2; }
};

template <class Tile>
struct vg_gemm_mma {
  using LA = vg_gemm_layout_a<Tile>;
  using LB = vg_gemm_layout_b<Tile>;
  static constexpr int tiles_m = Tile::wm / 16, tiles_n = Tile::wn / 8;
  static constexpr int steps = Tile::bk / (Tile::math == vg_math::bf16 ? 16 : 8);
  // Fragments are loaded one step ahead, across the border of two slices, where
  // that leaves registers for two blocks on a multiprocessor. Two blocks hide each
  // other's loads as well.
  static constexpr bool ahead =
      tiles_m * tiles_n * 4 + 2 * (tiles_m * 4 + tiles_n * 2) <= 65536 / (2 * Tile::threads) - 72;
  static constexpr int sets = ahead ? 2 : 1;
  static_assert(steps % 2 == 0, "steps alternate between two sets of fragments");

  float acc[tiles_m][tiles_n * 4];
  const vg_gemm_fragments<LA, Tile::math, true> a;
  const vg_gemm_fragments<LB, Tile::math, false> b;
  uint32_t fa[sets][tiles_m][4], fb[sets][tiles_n * 2];

  VG_FN vg_gemm_mma() : a(warp_m() * Tile::wm), b(warp_n() * Tile::wn) {
    VG_UNROLL for (int i = 0; i < tiles_m; i++)
      VG_UNROLL for (int j = 0; j < tiles_n * 4; j++) acc[i][j] = 0;
  }
  template <class Pipeline>
  VG_FN void run(Pipeline& p) {
    if (ahead) load(0, p.stage(), 0);
    VG_NO_UNROLL for (; p.more();) {
      p.begin();
      VG_UNROLL for (int s = 0; s < steps; s++) {
        if (!ahead) load(0, p.stage(), s);
        if (s + 1 == steps) p.next();  // the last fragments of this slice are in registers
        if (ahead && (s + 1 < steps || p.more())) load((s + 1) % sets, p.stage(), (s + 1) % steps);
        multiply(s % sets);
      }
    }
  }

  // Writes this thread's part of C to c[BM][c_ld].
  VG_FN void put(float* c) const {
    const int g = vg_lane() / 4, t = vg_lane() % 4;
    c += (warp_m() * Tile::wm + g) * Tile::c_ld + warp_n() * Tile::wn + 2 * t;
    VG_UNROLL for (int i = 0; i < tiles_m; i++)
      VG_UNROLL for (int j = 0; j < tiles_n; j++) {
        const float* x = acc[i] + 4 * j;
        *(vg_float2*)(c + 16 * i * Tile::c_ld + 8 * j) = {x[0], x[1]};
        *(vg_float2*)(c + (16 * i + 8) * Tile::c_ld + 8 * j) = {x[2], x[3]};
      }
  }

 private:
  static VG_FN int warp_m() { return vg_warp() / Tile::warps_n; }
  static VG_FN int warp_n() { return vg_warp() % Tile::warps_n; }
  VG_FN void load(int set, const char* stage, int step) {
    VG_UNROLL for (int i = 0; i < tiles_m; i++) a.load(fa[set][i], stage, i, step);
    VG_UNROLL for (int j = 0; j < tiles_n / 2; j++) b.load(fb[set] + 4 * j, stage + LA::bytes, j, step);
  }
  VG_FN void multiply(int set) {
    VG_UNROLL for (int i = 0; i < tiles_m; i++)
      VG_UNROLL for (int j = 0; j < tiles_n; j++) {
        if (Tile::math == vg_math::bf16)
          vg_mma_bf16(acc[i] + 4 * j, fa[set][i], fb[set] + 2 * j);
        else
          vg_mma_tf32(acc[i] + 4 * j, fa[set][i], fb[set] + 2 * j);
      }
  }
};
