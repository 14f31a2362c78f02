// Matrix products, with what stands around them fused in.
//
// A block computes one tile of C. Slices of A and B pass through a ring of stages
// in shared memory (gemm_load.cuh); products accumulate in registers, on tensor
// cores (gemm_mma.cuh) or in plain fp32 (gemm_fp32.cuh); then the epilogue is
// called once for every element of the tile (gemm_epilogue.cuh).
#pragma once
#include "gemm_epilogue.cuh"
#include "gemm_fp32.cuh"
#include "gemm_load.cuh"
#include "gemm_mma.cuh"

template <class Tile, vg_math MATH>
struct vg_gemm_products {
  using type = vg_gemm_mma<Tile>;
};
template <class Tile>
struct vg_gemm_products<Tile, vg_math::fp32> {
  using type = vg_gemm_fp32<Tile>;
};

// The ring of stages. While slice i is multiplied, asynchronous copies of slice
// i + stages - 1 and register loads of slice i + 1 are under way.
template <class Tile, class LoadA, class LoadB, bool SUM>
struct vg_gemm_pipeline {
  LoadA& a;
  LoadB& b;
  const int slices;
  const bool sums;  // this block sums the columns of A
  int slice = 0, read = 0, write = Tile::stages - 1;
  static constexpr int b_at = Tile::bm * Tile::bk * Tile::element_bytes;

  VG_FN vg_gemm_pipeline(LoadA& load_a, LoadB& load_b, int count, bool sum) : a(load_a), b(load_b), slices(count), sums(sum) {
    VG_NO_UNROLL for (int i = 0; i < Tile::stages - 1; i++) {
      if (i < slices) copy(i);
      vg_cp_async_commit();
    }
    load(0);
    store(0);
    arrive();
  }
  VG_FN bool more() const { return slice < slices; }
  // The current slice.
  VG_FN const char* stage() const { return place(read); }
  // Starts what is to come. The stage that it will fill was last read before the
  // barrier in next().
  VG_FN void begin() {
    if (slice + Tile::stages - 1 < slices) copy(write);
    vg_cp_async_commit();
    if (slice + 1 < slices) load(after(read));
    if (SUM && sums) a.sum(stage());
  }
  // Nobody in this thread reads the current slice any more; the next one arrives.
  VG_FN void next() {
    write = read;
    read = after(read);
    slice++;
    if (slice < slices) store(read);
    arrive();
  }

 private:
  static VG_FN char* place(int i) { return vg_shared() + i * Tile::stage_bytes; }
  static VG_FN int after(int i) { return i + 1 < Tile::stages ? i + 1 : 0; }
  VG_FN void copy(int i) {
    if (LoadA::copies) a.begin(place(i));
    if (LoadB::copies) b.begin(place(i) + b_at);
  }
  VG_FN void load(int i) {
    if (!LoadA::copies) a.begin(place(i));
    if (!LoadB::copies) b.begin(place(i) + b_at);
  }
  VG_FN void store(int i) {
    a.end(place(i));
    b.end(place(i) + b_at);
  }
  VG_FN void arrive() {
    vg_cp_async_wait<Tile::stages - 2>();
    vg_sync();
  }
};

// C = A B as Tile::kind says (gemm_tile.cuh). a and b: sources over the operands'
// rows and columns, of which those counted by the batch have T to a sample;
// y: sink over (m, n), whose rows have T to a sample in nt and nn; row_sum: in tn
// the sink over (0, m) of the sums over k of A, or vg_none. m, n and k are those
// of this run; the grid is that of the full batch.
template <class Tile, int T, class A, class B, class Y, class R>
VG_FN void vg_gemm(const vg_call& c, int m, int n, int k, const A& a, const B& b, const Y& y, const R& row_sum) {
  constexpr bool tn = Tile::kind == vg_tn, sum = tn && vg_wanted<R>;
  using LA = vg_gemm_layout_a<Tile>;
  using LB = vg_gemm_layout_b<Tile>;
  using LoadA = vg_gemm_load<LA, T, A, sum>;
  using LoadB = vg_gemm_load<LB, tn ? T : 1, B, false>;

  const vg_gemm_place at = vg_gemm_find_place<Tile>(c, n, k);
  if (at.row >= m || at.slices <= 0) return;  // for every block of the tile, or of the split
  const int k0 = at.first_slice * Tile::bk;
  LoadA load_a(a, LA::k_major ? vg_gemm_window<LA>{at.row, k0, m, k} : vg_gemm_window<LA>{k0, at.row, k, m});
  LoadB load_b(b, LB::k_major ? vg_gemm_window<LB>{at.col, k0, n, k} : vg_gemm_window<LB>{k0, at.col, k, n});
  typename vg_gemm_products<Tile, Tile::math>::type products;
  const bool first_column = at.col == 0;
  {
    vg_gemm_pipeline<Tile, LoadA, LoadB, sum> pipeline(load_a, load_b, at.slices, first_column);
    products.run(pipeline);
  }

  float column_sum = 0;
  if (sum && first_column) column_sum = vg_gemm_column_sum<Tile>(load_a);
  if (Tile::splits > 1 && !vg_gemm_meet<Tile, sum>(c, at, products.acc, column_sum)) return;
  if (sum && first_column && vg_thread() < Tile::bm && at.row + vg_thread() < m)
    row_sum(column_sum, vg_at{0, 0, 0, at.row + vg_thread(), 1});
  vg_gemm_epilogue<Tile, tn ? 1 : T>(products, at, m, n, y);
}
