// Products head by head against double-precision sums: one row and many, heads of
// sizes on both sides of every block and tile, operands inside wider matrices, and
// depths of more than one block.
#include "check.h"

using check::Buffer;
using check::Random;
using check::text;

namespace vg { inline namespace VG_ISA_NAME { namespace {

struct Case {
  int64_t m, heads, n, k;
};

// A sink that is more than a store: twice the result, plus a bias for each column.
struct Biased {
  const float* bias;
  vg_store_matrix to;
  template <class V>
  VG_FN void operator()(V x, vg_at at) const { to(x + x + vg_load<V>(bias + at.col, at.n), at); }
};

void one(const Case& c) {
  const std::string what = text("heads M=%d H=%d N=%d K=%d", (int)c.m, (int)c.heads, (int)c.n, (int)c.k);
  const int64_t wide_n = c.heads * c.n, wide_k = c.heads * c.k, ldn = wide_n + 3, ldk = wide_k + 5, ldw = c.k + 2;
  Random r((uint64_t)(c.m * 7 + c.n * 131 + c.k));
  Buffer xn((size_t)(c.m * ldn), r), xk((size_t)(c.m * ldk), r), w((size_t)(wide_n * ldw), r), bias((size_t)(wide_n + wide_k), r);
  Buffer yn((size_t)(c.m * wide_n)), yk((size_t)(c.m * wide_k)), dw((size_t)(wide_n * c.k));

  std::vector<double> want_n(yn.n), want_k(yk.n), want_w(dw.n);
  for (int64_t m = 0; m < c.m; m++)
    for (int64_t h = 0; h < c.heads; h++)
      for (int64_t n = h * c.n; n < (h + 1) * c.n; n++)
        for (int64_t k = 0; k < c.k; k++) {
          const double x = xn[(size_t)(m * ldn + n)], y = xk[(size_t)(m * ldk + h * c.k + k)], v = w[(size_t)(n * ldw + k)];
          want_n[(size_t)(m * wide_n + n)] += 2 * y * v;
          want_k[(size_t)(m * wide_k + h * c.k + k)] += 2 * x * v;
          want_w[(size_t)(n * c.k + k)] += 2 * x * y;
        }
  for (int64_t m = 0; m < c.m; m++) {
    for (int64_t n = 0; n < wide_n; n++) want_n[(size_t)(m * wide_n + n)] += bias[(size_t)n];
    for (int64_t k = 0; k < wide_k; k++) want_k[(size_t)(m * wide_k + k)] += bias[(size_t)k];
  }
  for (size_t i = 0; i < want_w.size(); i++) want_w[i] += bias[i % (size_t)c.k];

  const vg_matrix rows_n = {xn.p(), ldn}, rows_k = {xk.p(), ldk};
  check::Team team;
  team.kernel = [&](const vg_call& call) {
    vg_head_linear<1>(call, c.heads, c.m, c.n, c.k, rows_k, w.p(), ldw, Biased{bias.p(), {yn.p(), wide_n}});
  };
  team.run_all(what + " head_linear", {&yn});
  check::close(what + " head_linear", yn.p(), want_n, 2e-6);
  team.kernel = [&](const vg_call& call) {
    vg_head_linear_t<1>(call, c.heads, c.m, c.n, c.k, rows_n, w.p(), ldw, Biased{bias.p(), {yk.p(), wide_k}});
  };
  team.run_all(what + " head_linear_t", {&yk});
  check::close(what + " head_linear_t", yk.p(), want_k, 2e-6);
  team.kernel = [&](const vg_call& call) {
    vg_head_linear_dw(call, c.heads, c.m, c.n, c.k, rows_n, rows_k, Biased{bias.p(), {dw.p(), c.k}});
  };
  team.run_all(what + " head_linear_dw", {&dw});
  check::close(what + " head_linear_dw", dw.p(), want_w, 2e-6);
}

}}}  // namespace

int main() {
  const vg::Case cases[] = {
      {1, 1, 1, 1},    {1, 8, 64, 512}, {2, 3, 5, 7},     {5, 2, 33, 100}, {17, 4, 16, 64},
      {64, 4, 16, 64}, {33, 3, 17, 65}, {250, 2, 13, 40}, {40, 1, 600, 9}, {600, 1, 230, 37},
      {3, 2, 4, 1},    {9, 1, 20, 700}, {128, 3, 1, 33},
  };
  for (const vg::Case& c : cases) vg::one(c);
  return check::finish();
}
