// What the tests of the CUDA matrix products share: operands in simulated
// device memory, launches in several orders that must agree to the bit, and the
// product in double. Include it after the kernels.
#pragma once
#include <functional>

#include "device_check.h"

namespace check {

// A kernel and what its launch needs.
struct Product {
  const char* kernel;
  vg_kind kind;
  vg_math math;
  int T;  // rows to a sample
  int threads, shared;
  int (*blocks)(int, int);
  int64_t (*workspace)(int, int);
  int (*counters)(int, int);
};

template <class Tile>
Product product_of(const char* kernel, int T) {
  return {kernel, Tile::kind, Tile::math, T, Tile::threads, Tile::shared_bytes, Tile::blocks, Tile::workspace_bytes, Tile::counters};
}

// A case. m, n and k are those of the run; the grid and the operands are made
// for `full` samples, of which `batch` are there.
struct Sizes {
  int batch, full, T;
  int m, n, k;
  int pad, offset;  // what rows are longer than need be, and where in memory the first starts
};

inline Sizes sizes(const Product& p, int batch, int full, int n, int other, int pad = 0, int offset = 0) {
  Sizes s{batch, full, p.T, batch * p.T, n, other, pad, offset};
  if (p.kind == vg_tn) s.m = other, s.k = batch * p.T;
  return s;
}

// A matrix in device memory of which only the elements that a kernel may read or
// write exist: not what lies before it, between its rows or beyond the batch.
template <class E>
struct Matrix {
  int rows, cols;
  int64_t ld;
  Array<E> all;
  E* p;

  Matrix(const char* name, int row_count, int full_rows, int col_count, const Sizes& s)
      : rows(row_count), cols(col_count), ld(col_count + s.pad), all((size_t)(s.offset + full_rows * ld), name), p(all.p + s.offset) {}
  Matrix(const char* name, int row_count, int full_rows, int col_count, const Sizes& s, Random& r)
      : Matrix(name, row_count, full_rows, col_count, s) {
    for (int i = 0; i < rows; i++) {
      for (int j = 0; j < cols; j++) assign(p[i * ld + j], r.uniform());
      vg_sim::wrote(p + i * ld, (size_t)cols * sizeof(E));
    }
  }
  double at(int i, int j) const { return (double)number(p[i * ld + j]); }
  void clear() {
    vg_sim::poison(all.p, all.n * sizeof(E));
    for (int i = 0; i < rows; i++) vg_sim::output(p + i * ld, (size_t)cols * sizeof(E));
  }
  std::string unwritten() const {
    for (int i = 0; i < rows; i++) {
      const std::string s = vg_sim::unwritten(p + i * ld, (size_t)cols * sizeof(E));
      if (s != "") return s;
    }
    return "";
  }
  // Whether something was written where nothing belongs.
  bool spilt() const {
    for (size_t i = 0; i < all.n; i++) {
      const int64_t at = (int64_t)i - (p - all.p);
      const bool inside = at >= 0 && at / ld < rows && at % ld < cols;
      const unsigned char* bytes = (const unsigned char*)(all.p + i);
      for (size_t b = 0; !inside && b < sizeof(E); b++)
        if (bytes[b] != 0xff) return true;
    }
    return false;
  }
};

// What an operand is rounded to before it is multiplied.
inline float rounded(vg_math math, float x) {
  if (math == vg_math::tf32) return vg_from_bits(vg_tf32(x));
  if (math == vg_math::bf16) return vg_from_bits(vg_pack_bf16(x, 0) << 16);
  return x;
}

using Values = std::function<float(int, int)>;  // of a row and a column

// C in double, with operands rounded as the product rounds them.
inline std::vector<double> multiply(const Product& p, const Sizes& s, const Values& a, const Values& b) {
  std::vector<float> x((size_t)(s.m * s.k)), y((size_t)(s.n * s.k));  // both with k contiguous
  for (int k = 0; k < s.k; k++) {
    for (int i = 0; i < s.m; i++) x[(size_t)(i * s.k + k)] = rounded(p.math, p.kind == vg_tn ? a(k, i) : a(i, k));
    for (int j = 0; j < s.n; j++) y[(size_t)(j * s.k + k)] = rounded(p.math, p.kind == vg_nt ? b(j, k) : b(k, j));
  }
  std::vector<double> c;
  for (int i = 0; i < s.m; i++)
    for (int j = 0; j < s.n; j++) {
      double sum = 0;
      for (int k = 0; k < s.k; k++) sum += (double)x[(size_t)(i * s.k + k)] * y[(size_t)(j * s.k + k)];
      c.push_back(sum);
    }
  return c;
}

// What a launch writes, and how to look at it.
struct Result {
  std::function<void()> clear;
  std::function<std::string()> complaint;
  const void* p;
  size_t bytes;
};

template <class E>
Result result(Matrix<E>& m) {
  return {[&m] { m.clear(); },
          [&m] { return m.spilt() ? "wrote outside of " + m.all.name : m.unwritten(); }, m.all.p, m.all.n * sizeof(E)};
}

// Runs a product in several orders. The results must be complete and have the
// same bits each time, and the counters must be left at zero.
template <class... A>
void run(const std::string& what, const Product& p, const Sizes& s, const std::vector<Result>& results, A... args) {
  const int rows = s.full * s.T, m = p.kind == vg_tn ? s.m : rows;
  const size_t workspace_bytes = (size_t)p.workspace(m, s.n), counters = (size_t)p.counters(m, s.n);
  Array<vg_state> device_state(1, "state");
  device_state[0] = state(s.batch);
  device_state.wrote();
  Array<char> workspace(workspace_bytes, "workspace");
  Array<uint32_t> counter(counters, "counters");
  memset(counter.p, 0, counters * 4);
  counter.wrote();
  std::vector<std::vector<char>> first;
  for (uint64_t seed : {uint64_t(0), ~uint64_t(0), uint64_t(1), uint64_t(2)}) {
    const std::string which = what + text(" (seed %d)", (int)seed);
    vg_sim::poison(workspace.p, workspace_bytes);
    for (const Result& r : results) r.clear();
    vg_sim::options o;
    o.seed = seed;
    const std::string fault = vg_sim::run(vg_sim::find(p.kernel), (unsigned)p.blocks(m, s.n), (unsigned)p.threads, (size_t)p.shared, o,
                                          (const vg_state*)device_state.p, workspace.p, counter.p, args...);
    that(fault == "", which + ": " + fault);
    if (fault != "") return;
    that(vg_sim::stats().ldmatrix_conflicts == 0, which + ": ldmatrix meets bank conflicts");
    for (size_t i = 0; i < counters; i++) that(counter[i] == 0, which + ": a counter is left");
    for (size_t i = 0; i < results.size(); i++) {
      const std::string complaint = results[i].complaint();
      that(complaint == "", which + ": " + complaint);
      const char* bytes = (const char*)results[i].p;
      if (first.size() <= i) first.push_back(std::vector<char>(bytes, bytes + results[i].bytes));
      that(memcmp(first[i].data(), bytes, results[i].bytes) == 0, which + ": other bits");
    }
  }
}

template <class E>
void near(const std::string& what, const Matrix<E>& got, const std::vector<double>& want, double tolerance) {
  double error = 0, size = 0;
  for (int i = 0; i < got.rows; i++)
    for (int j = 0; j < got.cols; j++) {
      const double w = want[(size_t)(i * got.cols + j)];
      error += pow(got.at(i, j) - w, 2), size += w * w;
    }
  error = error == 0 ? 0 : sqrt(error / size);
  that(error <= tolerance, what + ": " + got.all.name + text(" differs by %.3g", error));
}

}  // namespace check
