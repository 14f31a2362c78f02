// Products in fp32: every product and sum is a fused multiply-add of floats, in
// order of k. A warp is 8 x 4 lanes; a lane has wm/8 x wn/4 elements of C.
#pragma once
#include "gemm_tile.cuh"

// Which rows (columns) of a warp's tile a lane has, of `across` lanes in that
// direction, and how it reads them. Where k is contiguous a lane reads four
// steps of k of one row at a time, and neighbouring lanes have neighbouring
// rows; else it reads `wide` neighbouring rows of one k at a time.
template <class L, int COUNT, int ACROSS>
struct vg_gemm_lane_rows {
  static constexpr int wide = L::k_major ? 1 : COUNT < 4 ? COUNT : 4;
  static VG_FN int row(int i, int lane) { return (i / wide * ACROSS + lane) * wide + i % wide; }
  // Rows i .. i+wide-1, steps k .. k+3 to x[step][i].
  template <int N>
  static VG_FN void load(float (&x)[4][N], int at, const char* tile, int first, int i, int lane, int k) {
    const int r = first + row(i, lane);
    if constexpr (L::k_major) {
      const vg_float4 v = *(const vg_float4*)(tile + L::at(r, k / 4));
      x[0][at] = v.x, x[1][at] = v.y, x[2][at] = v.z, x[3][at] = v.w;
    } else {
      VG_UNROLL for (int s = 0; s < 4; s++) {
        const char* p = tile + L::at(k + s, r / 4) + r % 4 * 4;
        if constexpr (wide == 4) {
          const vg_float4 v = *(const vg_float4*)p;
          x[s][at] = v.x, x[s][at + 1] = v.y, x[s][at + 2] = v.z, x[s][at + 3] = v.w;
        } else {
          const vg_float2 v = *(const vg_float2*)p;
          x[s][at] = v.x, x[s][at + 1] = v.y;
        }
      }
    }
  }
};

template <class Tile>
struct vg_gemm_fp32 {
  using LA = vg_gemm_layout_a<Tile>;
  using LB = vg_gemm_layout_b<Tile>;
  static constexpr int rows = Tile::wm / 8, cols = Tile::wn / 4;
  using RA = vg_gemm_lane_rows<LA, rows, 8>;
  using RB = vg_gemm_lane_rows<LB, cols, 4>;

  float acc[rows][cols];

  VG_FN vg_gemm_fp32() {
    VG_UNROLL for (int i = 0; i < rows; i++)
      VG_UNROLL for (int j = 0; j < cols; j++) acc[i][j] = 0;
  }

  template <class Pipeline>
  VG_FN void run(Pipeline& p) {
    VG_NO_UNROLL for (; p.more(); ) {
      p.begin();
      VG_UNROLL for (int k = 0; k < Tile::bk; k += 4) multiply(p.stage(), k);
      p.next();
    }
  }

  // Writes this thread's part of C to c[BM][c_ld].
  VG_FN void put(float* c) const {
    c += warp_m() * Tile::wm * Tile::c_ld + warp_n() * Tile::wn;
    VG_UNROLL for (int i = 0; i < rows; i++)
      VG_UNROLL for (int j = 0; j < cols; j++) c[RA::row(i, lane_m()) * Tile::c_ld + RB::row(j, lane_n())] = acc[i][j];
  }

 private:
  static VG_FN int warp_m() { return vg_warp() / Tile::warps_n; }
  static VG_FN int warp_n() { return vg_warp() % Tile::warps_n; }
  static VG_FN int lane_m() { return vg_lane() / 4; }
  static VG_FN int lane_n() { return vg_lane() % 4; }

  VG_FN void multiply(const char* stage, int k) {
    float b[4][cols];
    VG_UNROLL for (int j = 0; j < cols; j += RB::wide)
      RB::load(b, j, stage + LA::bytes, warp_n() * Tile::wn, j, lane_n(), k);
    VG_UNROLL for (int i = 0; i < rows; i += RA::wide) {
      float a[4][RA::wide];
      RA::load(a, 0, stage, warp_m() * Tile::wm, i, lane_m(), k);
      VG_UNROLL for (int s = 0; s < 4; s++)
        VG_UNROLL for (int q = 0; q < RA::wide; q++)
          VG_UNROLL for (int j = 0; j < cols; j++) acc[i + q][j] = vg_fma(a[s][q], b[s][j], acc[i + q][j]);
    }
  }
};
