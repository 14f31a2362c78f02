// Matrix products against a double-precision reference: every operand layout,
// ragged sizes, sources and epilogues called once for each element.
#include "check.h"

using check::Buffer;
using check::Random;
using check::text;

namespace vg { inline namespace VG_ISA_NAME { namespace {

// Counts how often each element is asked for.
struct counting_source {
  vg_matrix m;
  vg_add_matrix count;
  template <class V>
  VG_FN V operator()(vg_at at) const {
    count(V(1.0f), at);
    return m.operator()<V>(at);
  }
};

// Bias and residual by sample and token, and a count beside the value.
struct fused_sink {
  const float* bias;
  const float* by_token;   // [T,N]
  const float* by_sample;  // [samples]
  int64_t n;
  vg_store_matrix out;
  vg_add_matrix count;
  template <class V>
  VG_FN void operator()(V x, vg_at at) const {
    x = x + vg_load<V>(bias + at.col, at.n) + vg_load<V>(by_token + at.token * n + at.col, at.n) * V(by_sample[at.sample]);
    out(x, at);
    count(V(1.0f), at);
  }
};

constexpr int kT = 5;

bool all_ones(const Buffer& b, int runs) {
  for (size_t i = 0; i < b.n; i++)
    if (b[i] != (float)runs) return false;
  return true;
}

void rows_by_weight(bool transposed, int64_t M, int64_t N, int64_t K) {
  const std::string what = text("gemm_%s M=%ld N=%ld K=%ld", transposed ? "nt" : "nn", M, N, K);
  Random r(M * 1000003 + N * 1009 + K);
  const int64_t lda = K + 3, ldb = (transposed ? K : N) + 5, ldc = N + 2;
  const int64_t samples = vg_ceil_div(M, kT);
  Buffer a((size_t)(M * lda), r), b((size_t)((transposed ? N : K) * ldb), r), bias((size_t)N, r);
  Buffer tok((size_t)(kT * N), r), smp((size_t)samples, r), c((size_t)(M * ldc));
  Buffer seen_a((size_t)(M * K)), seen_c((size_t)(M * N));
  seen_a.fill(0), seen_c.fill(0);
  check::Team team;
  team.workspace = (size_t)vg_gemm_shape{M, N, K}.workspace_bytes(false);
  team.kernel = [&](const vg_call& call) {
    const counting_source src{{a.p(), lda}, {seen_a.p(), K}};
    const fused_sink sink{bias.p(), tok.p(), smp.p(), N, {c.p(), ldc}, {seen_c.p(), N}};
    if (transposed)
      vg_gemm_nt<kT>(call, M, N, K, src, b.p(), ldb, sink);
    else
      vg_gemm_nn<kT>(call, M, N, K, src, b.p(), ldb, sink);
  };
  team.run_all(what, {&c});
  check::that(all_ones(seen_a, 5) && seen_a.intact(), what + ": source not called once for each element");
  check::that(all_ones(seen_c, 5) && seen_c.intact(), what + ": epilogue not called once for each element");
  std::vector<double> want;
  std::vector<float> got;
  for (int64_t i = 0; i < M; i++)
    for (int64_t j = 0; j < N; j++) {
      double s = 0;
      for (int64_t k = 0; k < K; k++) s += (double)a[(size_t)(i * lda + k)] * b[(size_t)(transposed ? j * ldb + k : k * ldb + j)];
      want.push_back(s + bias[(size_t)j] + (double)tok[(size_t)(i % kT * N + j)] * smp[(size_t)(i / kT)]);
      got.push_back(c[(size_t)(i * ldc + j)]);
      if (j == N - 1)
        for (int64_t pad = N; pad < ldc; pad++) check::that(isnan(c[(size_t)(i * ldc + pad)]), what + ": wrote between rows");
    }
  check::close(what, got.data(), want, 2e-6);
  // A plain matrix may be read where it lies.
  const std::vector<float> before = c.raw;
  team.kernel = [&](const vg_call& call) {
    const fused_sink sink{bias.p(), tok.p(), smp.p(), N, {c.p(), ldc}, {seen_c.p(), N}};
    if (transposed)
      vg_gemm_nt<kT>(call, M, N, K, vg_matrix{a.p(), lda}, b.p(), ldb, sink);
    else
      vg_gemm_nn<kT>(call, M, N, K, vg_matrix{a.p(), lda}, b.p(), ldb, sink);
  };
  team.run_all(what + " of a matrix", {&c});
  check::that(memcmp(before.data(), c.raw.data(), before.size() * sizeof(float)) == 0, what + " of a matrix: other bits");
}

void weight_gradient(int64_t M, int64_t N, int64_t K, bool with_sum) {
  const std::string what = text("gemm_tn M=%ld N=%ld K=%ld sum=%d", M, N, K, with_sum);
  Random r(M * 1000003 + N * 1009 + K);
  const int64_t lda = M + 1, ldb = N + 7;
  Buffer a((size_t)(K * lda), r), b((size_t)(K * ldb), r), c((size_t)(M * N)), sum((size_t)M);
  Buffer seen_a((size_t)(K * M)), seen_b((size_t)(K * N));
  seen_a.fill(0), seen_b.fill(0);
  check::Team team;
  team.workspace = (size_t)vg_gemm_shape{M, N, K}.workspace_bytes(true);
  team.kernel = [&](const vg_call& call) {
    const counting_source sa{{a.p(), lda}, {seen_a.p(), M}}, sb{{b.p(), ldb}, {seen_b.p(), N}};
    if (with_sum)
      vg_gemm_tn<kT>(call, M, N, K, sa, sb, vg_store_matrix{c.p(), N}, vg_store_matrix{sum.p(), 0});
    else
      vg_gemm_tn<kT>(call, M, N, K, sa, sb, vg_store_matrix{c.p(), N}, vg_none{});
  };
  team.run_all(what, {&c, &sum});
  check::that(all_ones(seen_a, 5) && seen_a.intact(), what + ": source A not called once for each element");
  check::that(all_ones(seen_b, 5) && seen_b.intact(), what + ": source B not called once for each element");
  std::vector<double> want((size_t)(M * N), 0), want_sum((size_t)M, 0);
  for (int64_t k = 0; k < K; k++)
    for (int64_t i = 0; i < M; i++) {
      want_sum[(size_t)i] += a[(size_t)(k * lda + i)];
      for (int64_t j = 0; j < N; j++) want[(size_t)(i * N + j)] += (double)a[(size_t)(k * lda + i)] * b[(size_t)(k * ldb + j)];
    }
  check::close(what, c.p(), want, 2e-6);
  if (with_sum) check::close(what + ": row sums", sum.p(), want_sum, 2e-6);
  // Plain matrices may be read where they lie.
  team.kernel = [&](const vg_call& call) {
    const vg_matrix ma = {a.p(), lda}, mb = {b.p(), ldb};
    if (with_sum)
      vg_gemm_tn<kT>(call, M, N, K, ma, mb, vg_store_matrix{c.p(), N}, vg_store_matrix{sum.p(), 0});
    else
      vg_gemm_tn<kT>(call, M, N, K, ma, mb, vg_store_matrix{c.p(), N}, vg_none{});
  };
  team.run_all(what + " of matrices", {&c, &sum});
  check::close(what + " of matrices", c.p(), want, 2e-6);
  if (with_sum) check::close(what + " of matrices: row sums", sum.p(), want_sum, 2e-6);
}

// A weight that is packed once: vg_gemm_packed gives vg_gemm_nt's bits, any number
// of times, and leaves the packed weight alone.
void packed_weight(int64_t M, int64_t N, int64_t K) {
  const std::string what = text("gemm_packed M=%ld N=%ld K=%ld", M, N, K);
  Random r(M * 1000003 + N * 1009 + K);
  const int64_t lda = K + 3, ldb = K + 5, ldc = N + 2;
  const vg_gemm_shape s = {M, N, K};
  Buffer a((size_t)(M * lda), r), b((size_t)(N * ldb), r), want((size_t)(M * ldc)), c((size_t)(M * ldc));
  Buffer packed((size_t)s.b_size());
  check::Team team;
  team.workspace = (size_t)s.workspace_bytes(false);
  team.kernel = [&](const vg_call& call) {
    vg_gemm_nt<kT>(call, M, N, K, vg_matrix{a.p(), lda}, b.p(), ldb, vg_store_matrix{want.p(), ldc});
  };
  team.run(2, what);
  team.kernel = [&](const vg_call& call) { vg_pack_weight(call, N, K, b.p(), ldb, packed.p()); };
  team.run_all(what + ": packing", {&packed});
  const std::vector<float> before = packed.raw;
  team.kernel = [&](const vg_call& call) {
    vg_gemm_packed<kT>(call, M, N, K, vg_matrix{a.p(), lda}, packed.p(), vg_store_matrix{c.p(), ldc});
  };
  team.run_all(what, {&c});
  check::that(memcmp(c.p(), want.p(), c.n * sizeof(float)) == 0, what + ": other bits than gemm_nt");
  check::that(before == packed.raw, what + ": the packed weight has changed");
}

// A NaN in one row of A must reach that row of C and no other.
void nan_stays_in_its_row() {
  Random r(1);
  const int64_t M = 30, N = 40, K = 20;
  Buffer a((size_t)(M * K), r), b((size_t)(N * K), r), c((size_t)(M * N));
  a[7 * K + 3] = NAN;
  check::Team team;
  team.workspace = (size_t)vg_gemm_shape{M, N, K}.workspace_bytes(false);
  team.kernel = [&](const vg_call& call) {
    vg_gemm_nt<1>(call, M, N, K, vg_matrix{a.p(), K}, b.p(), K, vg_store_matrix{c.p(), N});
  };
  team.run(2, "gemm NaN");
  for (int64_t i = 0; i < M * N; i++)
    check::that(isnan(c[(size_t)i]) == (i / N == 7), text("gemm NaN: element %ld", i));
}

}}}  // namespace

int main() {
  using namespace vg;
  const int64_t sizes[][3] = {{1, 1, 1},    {1, 10, 7},   {7, 10, 33},   {10, 1, 513},  {37, 33, 64},   {33, 513, 37},
                              {13, 64, 256}, {14, 32, 257}, {129, 65, 600}, {513, 33, 300}, {1030, 70, 260}, {601, 1025, 10},
                              {540, 70, 64}};
  for (const auto& s : sizes) {
    rows_by_weight(true, s[0], s[1], s[2]);
    rows_by_weight(false, s[0], s[1], s[2]);
    packed_weight(s[0], s[1], s[2]);
    weight_gradient(s[0], s[1], s[2], s[1] % 2 == 1);
  }
  // Long K: in slabs where C is large enough, with all of B packed where not.
  weight_gradient(10, 64, 1300, true);
  weight_gradient(192, 84, 1088, true);
  weight_gradient(40, 36, 9000, true);
  check::that(vg_gemm_shape{260, 70, 2500}.in_slabs() && vg_gemm_shape{256, 511, 1900}.in_slabs(), "expected slabs");
  weight_gradient(260, 70, 2500, true);
  weight_gradient(256, 511, 1900, false);
  // What chunks of the depth take is within the workspace.
  for (int64_t m = kMR; m < kSlabRows; m++)
    for (int64_t n = kNR; n <= kThinRow; n++)
      for (int64_t k : {1, 511, 512, 1023, 1024, 9000, 100000}) {
        const vg_thin s(vg_gemm_shape{m, n, k});
        if (s.sum_at(s.chunks()) * (int64_t)sizeof(float) > s.workspace_bytes(true))
          check::that(false, check::text("workspace of chunks, M=%ld N=%ld K=%ld", m, n, k));
      }
  for (int64_t m = 1; m < kTurnRows; m++)
    for (int64_t n = 1; n <= kCopyColumns; n++)
      for (int64_t k : {1, 127, 128, 255, 256, 9000, 100000}) {
        const vg_thin s(vg_gemm_shape{m, n, k}, kCopyDepth);
        if (s.chunks() > 1 && s.sum_at(s.chunks()) * (int64_t)sizeof(float) > s.workspace_bytes(true))
          check::that(false, check::text("workspace of copied chunks, M=%ld N=%ld K=%ld", m, n, k));
      }
  // Few rows and many columns: computed as the transpose, in slabs and not.
  for (const auto& s : {vg_gemm_shape{130, 600, 700}, vg_gemm_shape{129, 600, 2500}}) {
    check::that(s.turns(), "expected a turned product");
    weight_gradient(s.m, s.n, s.k, true);
    weight_gradient(s.m, s.n, s.k, false);
  }
  check::that(!vg_gemm_shape{130, 600, 700}.turned().in_slabs() && vg_gemm_shape{129, 600, 2500}.turned().in_slabs(),
              "expected both kinds");
  nan_stays_in_its_row();
  return check::finish();
}
