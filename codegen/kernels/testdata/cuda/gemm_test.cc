// Matrix products on the simulator against a double-precision reference: every
// kind, every math, every way that operands come from memory, ragged and
// unaligned sizes, partial batches, splits, sums of columns and a realistic
// epilogue.
#include "../../cuda/dropout.cuh"
#include "../../cuda/gemm.cuh"
#include "../../cuda/math.cuh"

constexpr uint32_t kSourceSite = 3, kSinkSite = 4, kThr = 16384;  // a quarter is dropped

// The rows of a run: of A and C in nt and nn, of A and B in tn.
template <class Tile, int T, class A, class B, class Y, class R>
VG_FN void product(const vg_call& c, int64_t n, int64_t other, const A& a, const B& b, const Y& y, const R& row_sum) {
  const int rows = c.batch() * T;
  if constexpr (Tile::kind == vg_tn)
    vg_gemm<Tile, T>(c, (int)other, (int)n, rows, a, b, y, row_sum);
  else
    vg_gemm<Tile, T>(c, rows, (int)n, (int)other, a, b, y, vg_none{});
}

// A source with a dropout, which says where it is asked by sample and token.
template <class E, int T>
struct dropped {
  const E* x;
  int64_t ld, cols;
  vg_dropout draw;
  template <class V>
  VG_FN V operator()(vg_at at) const {
    return vg_load<V>(x + ((int64_t)at.sample * T + at.token) * ld + at.col, at.n) * draw.scale<V>(at.row * cols + at.col, at.n);
  }
};

// A source with something of the token.
template <class E>
struct weighted {
  const E* x;
  int64_t ld;
  const float* by_token;
  template <class V>
  VG_FN V operator()(vg_at at) const {
    return vg_load<V>(x + at.row * ld + at.col, at.n) * vg_load<V>(by_token + at.token, at.n);
  }
};

// Bias, GELU, dropout, residual; the pre-activation is a second output, and a
// third counts calls.
template <class E, int T>
struct fused {
  const float* bias;
  const E* residual;
  vg_dropout draw;
  E* out;
  float* pre;
  float* calls;
  int64_t n, ld;
  template <class V>
  VG_FN void operator()(V acc, vg_at at) const {
    const V v0 = acc + vg_load<V>(bias + at.col, at.n);
    vg_store(pre + at.row * ld + at.col, v0, at.n);
    const V v1 = vg_gelu(v0) * draw.scale<V>(at.row * n + at.col, at.n);
    const V v2 = vg_load<V>(residual + ((int64_t)at.sample * T + at.token) * ld + at.col, at.n) + v1;
    vg_store(out + at.row * ld + at.col, v2, at.n);
    calls[at.row * n + at.col] += 1;
  }
};

#define HEAD(name, threads, ...)                                                                        \
  VG_KERNEL(threads, 1) name(const vg_state* state, char* workspace, uint32_t* counters, int64_t n, int64_t other, __VA_ARGS__) { \
    const vg_call c{state, workspace, counters, vg_block_index(), vg_block_count()};
#define TAIL(name) \
  }                \
  VG_EXPORT(name)

// Plain matrices of EA and EB; C and the sums in float.
#define PLAIN(name, EA, EB, ...)                                                                                                    \
  using name##_tile = vg_gemm_tile<__VA_ARGS__>;                                                                                    \
  HEAD(name, name##_tile::threads, const EA* a, int64_t lda, const EB* b, int64_t ldb, float* y, int64_t ldy, float* sum)           \
  product<name##_tile, 1>(c, n, other, vg_matrix<EA>{a, lda}, vg_matrix<EB>{b, ldb}, vg_store_matrix<float>{y, ldy}, vg_store_matrix<float>{sum, 0}); \
  TAIL(name)
// A by a source with dropout; B in tn by another source.
#define VALUE(name, E, ...)                                                                                                         \
  using name##_tile = vg_gemm_tile<__VA_ARGS__>;                                                                                    \
  HEAD(name, name##_tile::threads, const E* a, int64_t lda, const E* b, int64_t ldb, float* y, int64_t ldy, float* sum, int64_t cols, const float* by_token) \
  const dropped<E, 5> source{a, lda, cols, vg_dropout(c.step(), kSourceSite, kThr)};                                                \
  if constexpr (name##_tile::kind == vg_tn)                                                                                         \
    product<name##_tile, 5>(c, n, other, source, weighted<E>{b, ldb, by_token}, vg_store_matrix<float>{y, ldy}, vg_store_matrix<float>{sum, 0}); \
  else                                                                                                                              \
    product<name##_tile, 5>(c, n, other, source, vg_matrix<E>{b, ldb}, vg_store_matrix<float>{y, ldy}, vg_none{});                  \
  TAIL(name)
#define FUSED(name, E, ...)                                                                                                         \
  using name##_tile = vg_gemm_tile<__VA_ARGS__>;                                                                                    \
  HEAD(name, name##_tile::threads, const E* a, int64_t lda, const E* b, int64_t ldb, E* y, int64_t ldy, const float* bias, const E* residual, float* pre, float* calls) \
  const fused<E, 37> epilogue{bias, residual, vg_dropout(c.step(), kSinkSite, kThr), y, pre, calls, n, ldy};                        \
  product<name##_tile, 37>(c, n, other, vg_matrix<E>{a, lda}, vg_matrix<E>{b, ldb}, epilogue, vg_none{});                           \
  TAIL(name)

// Copied as they are.
PLAIN(nt_fp32, float, float, vg_nt, vg_math::fp32, 128, 128, 16, 3, 2, 4, 1)
PLAIN(nn_fp32, float, float, vg_nn, vg_math::fp32, 64, 64, 32, 2, 2, 4, 3)
PLAIN(tn_fp32, float, float, vg_tn, vg_math::fp32, 64, 128, 16, 4, 2, 4, 8)
PLAIN(nt_tf32, float, float, vg_nt, vg_math::tf32, 64, 64, 32, 3, 2, 2, 3)
PLAIN(nn_tf32, float, float, vg_nn, vg_math::tf32, 128, 128, 16, 3, 2, 4, 1)
PLAIN(tn_tf32, float, float, vg_tn, vg_math::tf32, 128, 64, 16, 3, 4, 2, 3)
PLAIN(nt_bf16, vg_bf16, vg_bf16, vg_nt, vg_math::bf16, 128, 128, 32, 4, 2, 4, 1)
PLAIN(nn_bf16, vg_bf16, vg_bf16, vg_nn, vg_math::bf16, 128, 64, 32, 3, 4, 2, 8)
PLAIN(tn_bf16, vg_bf16, vg_bf16, vg_tn, vg_math::bf16, 128, 128, 32, 4, 2, 4, 3)
PLAIN(nt_bf16_small, vg_bf16, vg_bf16, vg_nt, vg_math::bf16, 32, 64, 32, 4, 2, 4, 3)
PLAIN(nn_bf16_deep, vg_bf16, vg_bf16, vg_nn, vg_math::bf16, 64, 128, 64, 2, 2, 4, 1)
PLAIN(tn_bf16_square, vg_bf16, vg_bf16, vg_tn, vg_math::bf16, 128, 128, 64, 3, 2, 2, 1)
PLAIN(tn_fp32_small, float, float, vg_tn, vg_math::fp32, 32, 64, 16, 3, 2, 4, 1)
// Converted on the way, one or both.
PLAIN(nt_bf16_ff, float, float, vg_nt, vg_math::bf16, 64, 128, 32, 2, 2, 4, 1)
PLAIN(nn_bf16_bf, vg_bf16, float, vg_nn, vg_math::bf16, 64, 64, 32, 3, 2, 4, 1)
PLAIN(tn_bf16_fb, float, vg_bf16, vg_tn, vg_math::bf16, 128, 64, 32, 4, 4, 2, 3)
PLAIN(nt_fp32_bb, vg_bf16, vg_bf16, vg_nt, vg_math::fp32, 32, 64, 16, 3, 2, 4, 1)
PLAIN(nn_tf32_bf, vg_bf16, float, vg_nn, vg_math::tf32, 64, 64, 16, 3, 2, 4, 3)
PLAIN(tn_tf32_bb, vg_bf16, vg_bf16, vg_tn, vg_math::tf32, 32, 64, 16, 3, 2, 4, 1)
// Asked for, element by element.
VALUE(nt_value_fp32, float, vg_nt, vg_math::fp32, 64, 64, 16, 3, 2, 4, 1)
VALUE(nn_value_tf32, float, vg_nn, vg_math::tf32, 128, 64, 16, 3, 4, 2, 3)
VALUE(tn_value_bf16, vg_bf16, vg_tn, vg_math::bf16, 128, 128, 32, 2, 2, 4, 3)
VALUE(nt_value_bf16, vg_bf16, vg_nt, vg_math::bf16, 128, 128, 32, 4, 2, 4, 1)
VALUE(tn_value_tf32, float, vg_tn, vg_math::tf32, 32, 64, 16, 3, 2, 4, 8)
FUSED(nt_fused_bf16, vg_bf16, vg_nt, vg_math::bf16, 128, 128, 32, 4, 2, 4, 1)
FUSED(nn_fused_fp32, float, vg_nn, vg_math::fp32, 64, 64, 16, 3, 2, 4, 3)

#include "gemm_check.h"

namespace check {

constexpr double kTolerance = 2e-6;
#ifdef SMALL  // only some of the sizes: for the instrumented build
constexpr bool kFew = true;
#else
constexpr bool kFew = false;
#endif

template <class EA, class EB>
void plain(const Product& p, const Sizes& s) {
  const std::string what = text("%s m=%d n=%d k=%d pad=%d offset=%d", p.kernel, s.m, s.n, s.k, s.pad, s.offset);
  const bool tn = p.kind == vg_tn;
  Random r((uint64_t)(s.m * 1000003 + s.n * 1009 + s.k));
  const int full = s.full * s.T;
  Matrix<EA> a("a", tn ? s.k : s.m, full, tn ? s.m : s.k, s, r);
  Matrix<EB> b("b", p.kind == vg_nt ? s.n : s.k, tn ? full : p.kind == vg_nt ? s.n : s.k, p.kind == vg_nt ? s.k : s.n, s, r);
  Matrix<float> y("y", s.m, tn ? s.m : full, s.n, s), sum("sum", tn ? 1 : 0, 1, s.m, s);
  run(what, p, s, {result(y), result(sum)}, (int64_t)s.n, (int64_t)(tn ? s.m : s.k), (const EA*)a.p, a.ld, (const EB*)b.p, b.ld, y.p, y.ld, sum.p);
  near(what, y, multiply(p, s, [&](int i, int j) { return (float)a.at(i, j); }, [&](int i, int j) { return (float)b.at(i, j); }), kTolerance);
  std::vector<double> sums((size_t)s.m);
  for (int i = 0; tn && i < s.m; i++)
    for (int k = 0; k < s.k; k++) sums[(size_t)i] += a.at(k, i);
  near(what, sum, sums, kTolerance);
}

float multiplier(const Sizes& s, uint32_t site, int64_t index) {
  return kept(state(s.batch), site, kThr, (uint64_t)index) ? 65536.0f / (float)(65536 - kThr) : 0.0f;
}

template <class E>
void value(const Product& p, const Sizes& s) {
  const std::string what = text("%s m=%d n=%d k=%d", p.kernel, s.m, s.n, s.k);
  const bool tn = p.kind == vg_tn;
  Random r((uint64_t)(s.m * 1000003 + s.n * 1009 + s.k));
  const int full = s.full * s.T, cols = tn ? s.m : s.k;
  Matrix<E> a("a", tn ? s.k : s.m, full, cols, s, r);
  Matrix<E> b("b", p.kind == vg_nt ? s.n : s.k, tn ? full : p.kind == vg_nt ? s.n : s.k, p.kind == vg_nt ? s.k : s.n, s, r);
  Matrix<float> y("y", s.m, tn ? s.m : full, s.n, s), sum("sum", tn ? 1 : 0, 1, s.m, s);
  Array<float> by_token((size_t)s.T, "by_token", r);
  run(what, p, s, {result(y), result(sum)}, (int64_t)s.n, (int64_t)(tn ? s.m : s.k), (const E*)a.p, a.ld, (const E*)b.p, b.ld, y.p, y.ld, sum.p,
      (int64_t)cols, (const float*)by_token.p);
  const Values va = [&](int i, int j) { return (float)a.at(i, j) * multiplier(s, kSourceSite, (int64_t)i * cols + j); };
  const Values vb = [&](int i, int j) { return tn ? (float)b.at(i, j) * by_token[(size_t)(i % s.T)] : (float)b.at(i, j); };
  near(what, y, multiply(p, s, va, vb), kTolerance);
  std::vector<double> sums((size_t)s.m);
  for (int i = 0; tn && i < s.m; i++)
    for (int k = 0; k < s.k; k++) sums[(size_t)i] += (double)va(k, i);
  near(what, sum, sums, kTolerance);
}

template <class E>
void fused_epilogue(const Product& p, const Sizes& s) {
  const std::string what = text("%s m=%d n=%d k=%d", p.kernel, s.m, s.n, s.k);
  Random r((uint64_t)(s.m * 1000003 + s.n * 1009 + s.k));
  const int full = s.full * s.T;
  Matrix<E> a("a", s.m, full, s.k, s, r);
  Matrix<E> b("b", p.kind == vg_nt ? s.n : s.k, p.kind == vg_nt ? s.n : s.k, p.kind == vg_nt ? s.k : s.n, s, r);
  Matrix<E> residual("residual", s.m, full, s.n, s, r), y("y", s.m, full, s.n, s);
  Matrix<float> pre("pre", s.m, full, s.n, s);
  Array<float> bias((size_t)s.n, "bias", r), calls((size_t)(s.m * s.n), "calls");
  int runs = 0;
  const Result count = {[&] {
                          if (runs++ == 0) memset(calls.p, 0, calls.n * sizeof(float)), calls.wrote();
                        },
                        [] { return std::string(); }, nullptr, 0};
  run(what, p, s, {result(y), result(pre), count}, (int64_t)s.n, (int64_t)s.k, (const E*)a.p, a.ld, (const E*)b.p, b.ld, y.p, y.ld,
      (const float*)bias.p, (const E*)residual.p, pre.p, calls.p);
  std::vector<double> want_pre = multiply(p, s, [&](int i, int j) { return (float)a.at(i, j); }, [&](int i, int j) { return (float)b.at(i, j); }), want;
  for (int i = 0; i < s.m; i++)
    for (int j = 0; j < s.n; j++) {
      const double x = want_pre[(size_t)(i * s.n + j)] += bias.at((size_t)j);
      want.push_back(residual.at(i, j) + x * 0.5 * (1 + erf(x / sqrt(2.0))) * (double)multiplier(s, kSinkSite, (int64_t)i * s.n + j));
      that(calls[(size_t)(i * s.n + j)] == (float)runs, what + ": not one call for each element");
    }
  near(what, pre, want_pre, kTolerance);
  near(what, y, want, sizeof(E) == 2 ? 3e-3 : kTolerance);  // a bf16 has 8 bits
}

// Edges in every direction, rows that are longer than they need be, and first
// elements that no 16-byte, 8-byte or (bf16) 4-byte access can reach.
template <class EA, class EB>
void all_plain(const Product& p) {
  plain<EA, EB>(p, sizes(p, 41, 45, 10, 35, 1, 1));
  plain<EA, EB>(p, sizes(p, 131, 300, 136, 144));
  if (kFew) return;
  plain<EA, EB>(p, sizes(p, 1, 1, 1, 1));
  plain<EA, EB>(p, sizes(p, 37, 37, 64, 16, 0, 8));
  plain<EA, EB>(p, sizes(p, 17, 259, 66, 18, 2, 2));
  plain<EA, EB>(p, sizes(p, 259, 259, 17, 128, 8));
  plain<EA, EB>(p, sizes(p, 70, 70, 129, 259, 3));
  plain<EA, EB>(p, sizes(p, 600, 600, 72, 40));
}

template <class E>
void all_values(const Product& p) {
  value<E>(p, sizes(p, 11, 13, 10, 35, 1));
  if (kFew) return;
  value<E>(p, sizes(p, 1, 1, 1, 1));
  value<E>(p, sizes(p, 27, 60, 136, 144));
  value<E>(p, sizes(p, 52, 52, 65, 256));
}

// A NaN in one row of A reaches that row of C and no other.
void nan_stays_in_its_row(const Product& p) {
  const Sizes s = sizes(p, 30, 30, 40, 20);
  Random r(1);
  Matrix<float> a("a", s.m, s.m, s.k, s, r), b("b", s.n, s.n, s.k, s, r), y("y", s.m, s.m, s.n, s);
  a.p[7 * s.k + 3] = NAN;
  run("NaN", p, s, {result(y)}, (int64_t)s.n, (int64_t)s.k, (const float*)a.p, a.ld, (const float*)b.p, b.ld, y.p, y.ld, (float*)nullptr);
  for (int i = 0; i < s.m; i++)
    for (int j = 0; j < s.n; j++) that(isnan(y.at(i, j)) == (i == 7), text("NaN: element %d, %d", i, j));
}

void all() {
#define ON(name, T) product_of<name##_tile>(#name, T)
  all_plain<float, float>(ON(nt_fp32, 1));
  all_plain<float, float>(ON(nn_fp32, 1));
  all_plain<float, float>(ON(tn_fp32, 1));
  all_plain<float, float>(ON(nt_tf32, 1));
  all_plain<float, float>(ON(nn_tf32, 1));
  all_plain<float, float>(ON(tn_tf32, 1));
  all_plain<vg_bf16, vg_bf16>(ON(nt_bf16, 1));
  all_plain<vg_bf16, vg_bf16>(ON(nn_bf16, 1));
  all_plain<vg_bf16, vg_bf16>(ON(tn_bf16, 1));
  all_plain<vg_bf16, vg_bf16>(ON(nt_bf16_small, 1));
  all_plain<vg_bf16, vg_bf16>(ON(nn_bf16_deep, 1));
  all_plain<vg_bf16, vg_bf16>(ON(tn_bf16_square, 1));
  all_plain<float, float>(ON(tn_fp32_small, 1));
  all_plain<float, float>(ON(nt_bf16_ff, 1));
  all_plain<vg_bf16, float>(ON(nn_bf16_bf, 1));
  all_plain<float, vg_bf16>(ON(tn_bf16_fb, 1));
  all_plain<vg_bf16, vg_bf16>(ON(nt_fp32_bb, 1));
  all_plain<vg_bf16, float>(ON(nn_tf32_bf, 1));
  all_plain<vg_bf16, vg_bf16>(ON(tn_tf32_bb, 1));
  all_values<float>(ON(nt_value_fp32, 5));
  all_values<float>(ON(nn_value_tf32, 5));
  all_values<vg_bf16>(ON(tn_value_bf16, 5));
  all_values<vg_bf16>(ON(nt_value_bf16, 5));
  all_values<float>(ON(tn_value_tf32, 5));
  fused_epilogue<vg_bf16>(ON(nt_fused_bf16, 37), sizes(ON(nt_fused_bf16, 37), 4, 7, 10, 48, 3));
  fused_epilogue<float>(ON(nn_fused_fp32, 37), sizes(ON(nn_fused_fp32, 37), 1, 2, 130, 100));
  if (!kFew) fused_epilogue<vg_bf16>(ON(nt_fused_bf16, 37), sizes(ON(nt_fused_bf16, 37), 7, 8, 256, 64));
  nan_stays_in_its_row(ON(nt_fp32, 1));
  nan_stays_in_its_row(ON(nt_tf32, 1));
}

}  // namespace check

int main() {
  check::all();
  return check::finish();
}
