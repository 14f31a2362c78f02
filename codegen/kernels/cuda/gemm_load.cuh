// From global to shared memory: the slices of one operand, in one of three ways.
//
//   vg_by_copy     a matrix of what the product multiplies in: cp.async, several
//                  slices ahead
//   vg_by_convert  a matrix of another type: through registers, one slice ahead
//   vg_by_value    any source: element by element through registers
//
// All have the same members:
//   begin(stage)   starts to load the next slice (stage: where it will lie; used
//                  by vg_by_copy alone)
//   end(stage)     stores to shared memory what begin left in registers
//   sum(stage)     adds to the sums of the columns a slice that has arrived
//   put_sums(to)   writes this thread's sums to to[group][column]
// Rows and columns beyond the matrix become zeros and are not read.
#pragma once
#include "gemm_tile.cuh"

enum vg_gemm_way { vg_by_copy, vg_by_convert, vg_by_value };

template <class S, class Source>
struct vg_gemm_way_of {
  static constexpr vg_gemm_way value = vg_by_value;
};
template <class S, class E>
struct vg_gemm_way_of<S, vg_matrix<E>> {
  static constexpr vg_gemm_way value = vg_by_convert;
};
template <class S>
struct vg_gemm_way_of<S, vg_matrix<S>> {
  static constexpr vg_gemm_way value = vg_by_copy;
};

// Where the next slice stands in an operand of `rows` by `cols`.
template <class L>
struct vg_gemm_window {
  int row, col, rows, cols;
  VG_FN void next() {
    if (L::k_major)
      col += L::bk;
    else
      row += L::bk;
  }
};

// Which chunks of a slice a thread has: one column of them, row_step rows apart.
template <class L>
struct vg_gemm_chunks {
  static constexpr int all = L::rows * L::row_chunks, each = (all + L::threads - 1) / L::threads;
  static constexpr int row_step = L::threads / L::row_chunks;
  static_assert(L::threads % L::row_chunks == 0, "a thread keeps to one column of chunks");
  static VG_FN int row(int i) { return vg_thread() / L::row_chunks + i * row_step; }
  static VG_FN int index() { return vg_thread() % L::row_chunks; }
  static VG_FN bool has(int i) { return all % L::threads == 0 || row(i) < L::rows; }
};

// A chunk as four words, element by element.
template <class S>
struct vg_gemm_chunk;
template <>
struct vg_gemm_chunk<float> {
  static VG_FN float value(const vg_uint4& c, int i) {
    return vg_from_bits(i == 0 ? c.x : i == 1 ? c.y : i == 2 ? c.z : c.w);
  }
  template <class Get>
  static VG_FN vg_uint4 make(const Get& x) {
    return {vg_bits(x[0]), vg_bits(x[1]), vg_bits(x[2]), vg_bits(x[3])};
  }
};
template <>
struct vg_gemm_chunk<vg_bf16> {
  static VG_FN float value(const vg_uint4& c, int i) {
    const uint32_t pair = i < 2 ? c.x : i < 4 ? c.y : i < 6 ? c.z : c.w;
    return vg_from_bits(i % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
  }
  template <class Get>
  static VG_FN vg_uint4 make(const Get& x) {
    return {vg_pack_bf16(x[0], x[1]), vg_pack_bf16(x[2], x[3]), vg_pack_bf16(x[4], x[5]), vg_pack_bf16(x[6], x[7])};
  }
};

// The sums of a thread's chunk column: the columns of A over k, in tn.
template <class L, bool SUM>
struct vg_gemm_chunk_sums {
  static constexpr int sum_groups = vg_gemm_chunks<L>::row_step;
  float sums[SUM ? L::chunk : 1] = {};
  VG_FN void put_sums(float* to) const {
    using C = vg_gemm_chunks<L>;
    VG_UNROLL for (int e = 0; e < L::chunk; e++) to[C::row(0) * L::cols + C::index() * L::chunk + e] = sums[e];
  }
};

template <vg_gemm_way WAY, class L, int T, class Source, bool SUM>
struct vg_gemm_loader;

template <class L, int T, class Source, bool SUM>
struct vg_gemm_loader<vg_by_copy, L, T, Source, SUM> : vg_gemm_chunk_sums<L, SUM> {
  using S = typename L::element;
  using C = vg_gemm_chunks<L>;
  static constexpr bool copies = true;
  const vg_matrix<S>& m;
  vg_gemm_window<L> at;  // of this thread's first chunk
  const S* from;         // that chunk in the next slice
  bool whole, even;      // can be copied 16 (4) bytes at a time

  VG_FN vg_gemm_loader(const vg_matrix<S>& s, vg_gemm_window<L> first) : m(s), at(first) {
    whole = s.ld % L::chunk == 0 && at.cols % L::chunk == 0 && (uintptr_t)s.p % 16 == 0;
    even = sizeof(S) == 4 || (s.ld % 2 == 0 && at.cols % 2 == 0 && (uintptr_t)s.p % 4 == 0);
    at.row += C::row(0), at.col += C::index() * L::chunk;
    from = s.p + at.row * s.ld + at.col;
  }
  VG_FN void begin(char* stage) {
    if (whole) {
      VG_UNROLL for (int i = 0; i < C::each; i++)
        if (C::has(i)) vg_cp_async16(stage + L::at(C::row(i), C::index()), from + i * C::row_step * m.ld, row_in(i) && at.col < at.cols);
    } else {
      VG_NO_UNROLL for (int i = 0; i < C::each; i++)
        if (C::has(i)) piecewise((S*)(stage + L::at(C::row(i), C::index())), i);
    }
    at.next();
    from += L::k_major ? L::bk : L::bk * m.ld;
  }
  VG_FN void end(char*) {}
  VG_FN void sum(const char* stage) {
    VG_UNROLL for (int i = 0; i < C::each; i++) {
      if (!C::has(i)) continue;
      const vg_uint4 x = *(const vg_uint4*)(stage + L::at(C::row(i), C::index()));
      VG_UNROLL for (int e = 0; e < L::chunk; e++) this->sums[e] += vg_gemm_chunk<S>::value(x, e);
    }
  }

 private:
  VG_FN bool row_in(int i) const { return at.row + i * C::row_step < at.rows; }
  VG_FN void piecewise(S* to, int i) const {
    const S* row = m.p + (at.row + i * C::row_step) * m.ld;
    const int end = row_in(i) ? at.cols : 0;
    constexpr int step = 4 / sizeof(S);
    if (even) {
      VG_NO_UNROLL for (int e = 0; e < L::chunk; e += step) vg_cp_async4(to + e, row + at.col + e, at.col + e < end);
    } else {
      VG_NO_UNROLL for (int e = 0; e < L::chunk; e++) to[e] = at.col + e < end ? row[at.col + e] : S{};
    }
  }
};

// A chunk's elements as they come from memory; converted when stored, so that
// nothing waits for them before.
template <class E, int N>
struct vg_gemm_raw;
template <int N>
struct vg_gemm_raw<float, N> {
  float x[N];
  VG_FN float operator[](int i) const { return x[i]; }
  VG_FN void clear() {
    VG_UNROLL for (int i = 0; i < N; i++) x[i] = 0;
  }
  VG_FN void set(int i, const float* p) { x[i] = *p; }
  VG_FN void load(const float* p) {
    VG_UNROLL for (int i = 0; i < N; i += 4) {
      const vg_float4 v = *(const vg_float4*)(p + i);
      x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
    }
  }
};
struct alignas(8) vg_gemm_bf16x4 {
  uint32_t lo, hi;
};
template <>
struct vg_gemm_raw<vg_bf16, 4> {
  uint32_t x[2];
  VG_FN float operator[](int i) const { return vg_from_bits(i % 2 == 0 ? x[i / 2] << 16 : x[i / 2] & 0xffff0000u); }
  VG_FN void clear() { x[0] = x[1] = 0; }
  VG_FN void set(int i, const vg_bf16* p) { x[i / 2] |= (uint32_t)p->bits << 16 * (i % 2); }
  VG_FN void load(const vg_bf16* p) {
    const vg_gemm_bf16x4 v = *(const vg_gemm_bf16x4*)p;
    x[0] = v.lo, x[1] = v.hi;
  }
};

template <class L, int T, class E, bool SUM>
struct vg_gemm_loader<vg_by_convert, L, T, vg_matrix<E>, SUM> : vg_gemm_chunk_sums<L, SUM> {
  using S = typename L::element;
  using C = vg_gemm_chunks<L>;
  static constexpr bool copies = false;
  const E* from;
  int64_t ld;
  vg_gemm_window<L> at;
  bool whole;
  vg_gemm_raw<E, L::chunk> raw[C::each];

  VG_FN vg_gemm_loader(const vg_matrix<E>& s, vg_gemm_window<L> first) : ld(s.ld), at(first) {
    constexpr int align = L::chunk * sizeof(E) < 16 ? L::chunk * sizeof(E) : 16;
    whole = s.ld % L::chunk == 0 && at.cols % L::chunk == 0 && (uintptr_t)s.p % align == 0;
    at.row += C::row(0), at.col += C::index() * L::chunk;
    from = s.p + at.row * ld + at.col;
  }
  VG_FN void begin(char*) {
    VG_UNROLL for (int i = 0; i < C::each; i++) {
      raw[i].clear();
      const E* p = from + i * C::row_step * ld;
      if (!C::has(i) || at.row + i * C::row_step >= at.rows) continue;
      if (whole) {
        if (at.col < at.cols) raw[i].load(p);
      } else {
        VG_UNROLL for (int e = 0; e < L::chunk; e++)
          if (at.col + e < at.cols) raw[i].set(e, p + e);
      }
    }
    at.next();
    from += L::k_major ? L::bk : L::bk * ld;
  }
  // The sums are of the values in memory, not of what they are rounded to.
  VG_FN void end(char* stage) {
    VG_UNROLL for (int i = 0; i < C::each; i++) {
      if (C::has(i)) *(vg_uint4*)(stage + L::at(C::row(i), C::index())) = vg_gemm_chunk<S>::make(raw[i]);
      if (SUM) {
        VG_UNROLL for (int e = 0; e < L::chunk; e++) this->sums[e] += raw[i][e];
      }
    }
  }
  VG_FN void sum(const char*) {}
};

// A source's values on their way to shared memory, rounded to what lies there.
template <class S, int N>
struct vg_gemm_values;
template <int N>
struct vg_gemm_values<float, N> {
  float x[N];
  VG_FN void set(const float (&v)[N]) {
    VG_UNROLL for (int i = 0; i < N; i++) x[i] = v[i];
  }
  VG_FN float operator[](int i) const { return x[i]; }
};
template <int N>
struct vg_gemm_values<vg_bf16, N> {
  uint32_t x[N / 2];
  VG_FN void set(const float (&v)[N]) {
    VG_UNROLL for (int i = 0; i < N; i += 2) x[i / 2] = vg_pack_bf16(v[i], v[i + 1]);
  }
  VG_FN vg_bf16 operator[](int i) const { return {(uint16_t)(x[i / 2] >> 16 * (i % 2))}; }
};

// Sixteen lanes have a row, each every sixteenth column (see dropout.cuh).
template <class L, int T, class Source, bool SUM>
struct vg_gemm_loader<vg_by_value, L, T, Source, SUM> {
  using S = typename L::element;
  static constexpr bool copies = false;
  static constexpr int row_step = L::threads / 16, each_row = (L::rows + row_step - 1) / row_step, each = L::cols / 16;
  static constexpr int sum_groups = row_step;
  const Source& source;
  vg_gemm_window<L> at;
  vg_gemm_values<S, each> x[each_row];
  float sums[SUM ? each : 1] = {};

  VG_FN vg_gemm_loader(const Source& s, vg_gemm_window<L> first) : source(s), at(first) {}
  VG_FN void begin(char*) {
    VG_UNROLL for (int i = 0; i < each_row; i++) {
      // Beyond the edge the last row is read again and its values are dropped:
      // no branch keeps the loads of several elements apart. The copy of the
      // source is new for every row, so that the compiler sees when a dropout
      // has to draw.
      const int row = at.row + row_of(i);
      const bool row_in = row < at.rows;
      const vg_at here = vg_gemm_row<T>(row_in ? row : at.rows - 1);
      const Source s = source;
      float v[each];
      VG_UNROLL for (int j = 0; j < each; j++) {
        v[j] = value(s, here, col_of(j), row_in);
        if (SUM && has(i)) sums[j] += v[j];
      }
      x[i].set(v);
    }
    at.next();
  }
  VG_FN void end(char* stage) {
    VG_UNROLL for (int i = 0; i < each_row; i++)
      VG_UNROLL for (int j = 0; j < each; j++)
        if (has(i)) ((S*)(stage + L::at(row_of(i), col_of(j) / L::chunk)))[col_of(j) % L::chunk] = x[i][j];
  }
  VG_FN void sum(const char*) {}
  VG_FN void put_sums(float* to) const {
    VG_UNROLL for (int j = 0; j < each; j++) to[row_of(0) * L::cols + col_of(j)] = sums[j];
  }

 private:
  static VG_FN int row_of(int i) { return vg_thread() / 16 + i * row_step; }
  static VG_FN int col_of(int j) { return vg_thread() % 16 + 16 * j; }
  static VG_FN bool has(int i) { return L::rows % row_step == 0 || row_of(i) < L::rows; }
  VG_FN float value(const Source& s, vg_at here, int col, bool row_in) const {
    col += at.col;
    const bool col_in = at.cols % L::cols == 0 || col < at.cols;
    here.col = col_in ? col : at.cols - 1;
    const float v = vg_value(s, here);
    return row_in && col_in ? v : 0.0f;
  }
};

template <class L, int T, class Source, bool SUM>
using vg_gemm_load = vg_gemm_loader<vg_gemm_way_of<typename L::element, Source>::value, L, T, Source, SUM>;
