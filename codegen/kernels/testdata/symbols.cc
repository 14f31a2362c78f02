// A small emitted-style file: every family instantiated once, one exported
// entry. The test looks at its symbols.
#include "../cpu/vitgen.h"

VG_BEGIN

struct gelu_sink {
  vg_store_matrix out;
  vg_dropout drop;
  template <class V>
  VG_FN void operator()(V x, vg_at at) const {
    out(vg_gelu(x) * drop.scale<V>(at.row * out.ld + at.col, at.n), at);
  }
};

void k00(const vg_call& c) {
  const gelu_sink sink{{c.arg<float>(2), 64}, vg_dropout(c.step(), 1, 6554)};
  vg_gemm_nt<37>(c, c.batch() * 37, 64, 32, vg_matrix{c.arg<float>(0), 32}, c.arg<float>(1), 32, sink);
}
void k01(const vg_call& c) {
  const vg_matrix a{c.arg<float>(0), 64}, b{c.arg<float>(1), 32};
  vg_gemm_tn<37>(c, 64, 32, c.batch() * 37, a, b, vg_store_matrix{c.arg<float>(2), 32}, vg_store_matrix{c.arg<float>(3), 0});
}
void k02(const vg_call& c) {
  const vg_matrix x{c.arg<float>(0), 64};
  const vg_store_matrix y{c.arg<float>(1), 64};
  vg_layernorm<37>(c, c.batch() * 37, 64, x, c.arg<float>(2), c.arg<float>(3), 1e-5f, c.arg<float>(4), c.arg<float>(5), y);
  vg_layernorm_grad<37>(c, c.batch() * 37, 64, x, x, c.arg<float>(4), c.arg<float>(5), c.arg<float>(2), y, y, y);
  vg_cross_entropy(c, 64, x, c.arg<int32_t>(6), 0.1f, c.arg<float>(7), c.arg<float>(8), y);
  vg_column_sum<37>(c, c.batch() * 37, 64, x, y);
  vg_token_sum<37>(c, c.batch(), 64, x, y);
  vg_transpose(c, c.batch(), 37, 64, c.arg<float>(0), y);
}
void k03(const vg_call& c) {
  vg_attention_args a = {};
  a.q = c.arg<float>(0), a.o = c.arg<float>(1);
  vg_attention(c, a);
  vg_attention_grad_args g = {};
  g.q = c.arg<float>(0), g.dq = c.arg<float>(1);
  vg_attention_grad(c, g);
}
void k04(const vg_call& c) {
  vg_sumsq(c, 1000, c.arg<float>(1), c.arg<float>(2));
  vg_clip_scale(c, c.arg<float>(2), 1, c.arg<float>(3));
  vg_sgd<true>(c, 1000, c.arg<float>(0), c.arg<float>(1), c.arg<float>(4), 0.9f, 0, c.arg<float>(3));
  vg_adamw(c, 1000, c.arg<float>(0), c.arg<float>(1), c.arg<float>(4), c.arg<float>(5), 0.9, 0.999, 1e-8f, 0.1f, nullptr);
}
const vg_kernel table[] = {k00, k01, k02, k03, k04};

VG_END

extern "C" void VG_CAT(symbols_, VG_ISA_NAME)(const vg_program* p, vg_worker* w) { vg::vg_run(vg::table, p, w); }
