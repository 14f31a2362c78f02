// Attention over shared tokens and its gradient against a double-precision
// reference: with dropout, causal masks, pruned query rows and sums of weights, and
// with heads and widths on both sides of every panel and key block.
#include "check.h"

using check::Buffer;
using check::Random;
using check::text;

namespace vg { inline namespace VG_ISA_NAME { namespace {

struct Case {
  int batch, heads, dim, tq, tk, q_first;
  bool causal, sums;
  float rate;
};

struct Reference {
  std::vector<double> o, lse, dq, dx;
};

// The definition, one weight at a time.
Reference reference(const Case& c, const vg_attention_shape& s, const vg_step& step, const Buffer& q, int64_t ldq,
                    const Buffer& x, int64_t ldx, const Buffer& dout) {
  const int width = c.heads * c.dim, ldo = width + (c.sums ? c.heads : 0);
  Reference r;
  r.o.assign((size_t)(c.batch * c.tq * ldo), 0), r.dq.assign((size_t)(c.batch * c.tq * width), 0);
  r.dx.assign((size_t)(c.batch * c.tk * c.dim), 0);
  for (int b = 0; b < c.batch; b++)
    for (int h = 0; h < c.heads; h++)
      for (int i = 0; i < c.tq; i++) {
        const int row = b * c.tq + i;
        const size_t qi = (size_t)(row * ldq + h * c.dim), oi = (size_t)(row * ldo + h * c.dim), di = (size_t)(row * width + h * c.dim);
        const size_t sum_at = (size_t)(row * ldo + width + h);
        const int n = c.causal ? (int)vg_min64(c.tk, c.q_first + i + 1) : c.tk;
        std::vector<double> p((size_t)n), m((size_t)n, 1), dp((size_t)n, c.sums ? dout[sum_at] : 0);
        double top = -1e300, sum = 0, delta = 0;
        for (int j = 0; j < n; j++) {
          for (int d = 0; d < c.dim; d++) p[(size_t)j] += (double)q[qi + (size_t)d] * x[(size_t)((b * c.tk + j) * ldx + d)];
          p[(size_t)j] *= s.scale;
          top = fmax(top, p[(size_t)j]);
          const uint64_t index = (uint64_t)((((int64_t)b * c.heads + h) * s.q_total + c.q_first + i) * c.tk + j);
          const uint32_t draw = vg_dropout_draw(step.seed_lo, step.seed_hi, step.micro_step, s.drop_site, index);
          if (s.drop_thr) m[(size_t)j] = draw >= s.drop_thr ? 65536.0 / (65536.0 - s.drop_thr) : 0;
        }
        for (double& y : p) sum += (y = exp(y - top));
        r.lse.push_back(top + log(sum));
        for (int j = 0; j < n; j++) {
          p[(size_t)j] /= sum;
          if (c.sums) r.o[sum_at] += p[(size_t)j] * m[(size_t)j];
          for (int d = 0; d < c.dim; d++) {
            const size_t xj = (size_t)((b * c.tk + j) * ldx + d);
            r.o[oi + (size_t)d] += p[(size_t)j] * m[(size_t)j] * x[xj];
            dp[(size_t)j] += (double)dout[oi + (size_t)d] * x[xj];
          }
          delta += p[(size_t)j] * m[(size_t)j] * dp[(size_t)j];
        }
        for (int j = 0; j < n; j++) {
          const double ds = s.scale * p[(size_t)j] * (m[(size_t)j] * dp[(size_t)j] - delta);
          for (int d = 0; d < c.dim; d++) {
            const size_t xj = (size_t)((b * c.tk + j) * c.dim + d);
            r.dx[xj] += p[(size_t)j] * m[(size_t)j] * dout[oi + (size_t)d] + ds * q[qi + (size_t)d];
            r.dq[di + (size_t)d] += ds * x[(size_t)((b * c.tk + j) * ldx + d)];
          }
        }
      }
  return r;
}

void one(const Case& c) {
  const std::string what = text("latent B=%d H=%d D=%d Tq=%d Tk=%d first=%d causal=%d sums=%d p=%g", c.batch, c.heads, c.dim,
                                c.tq, c.tk, c.q_first, c.causal, c.sums, c.rate);
  const int64_t width = c.heads * c.dim, ldq = width + 5, ldx = c.dim + 2, ldo = width + (c.sums ? c.heads : 0);
  Random r((uint64_t)(c.tq * 131 + c.tk + c.dim));
  Buffer q((size_t)(c.batch * c.tq * ldq), r), x((size_t)(c.batch * c.tk * ldx), r), dout((size_t)(c.batch * c.tq * ldo), r);
  for (size_t i = 0; i < q.n; i++) q[i] *= 2;
  Buffer o(dout.n), lse((size_t)(c.batch * c.heads * c.tq)), dq((size_t)(c.batch * c.tq * width));
  Buffer dx((size_t)(c.batch * c.tk * c.dim));

  check::Team team;
  team.batch = c.batch;
  team.step.seed_lo = 11, team.step.seed_hi = 5, team.step.micro_step = 2, team.step.dropout_on = 1;
  vg_latent_shape s = {};
  s.heads = c.heads, s.head_dim = c.dim, s.tq = c.tq, s.tk = c.tk, s.q_first = c.q_first, s.q_total = c.q_first + c.tq;
  s.scale = 1 / sqrtf((float)c.dim), s.causal = c.causal, s.drop_site = 4, s.drop_thr = (uint32_t)(c.rate * 65536);
  s.sums = c.sums, s.q = q.p(), s.x = x.p(), s.ldq = ldq, s.ldx = ldx;

  vg_latent_args f = {};
  (vg_latent_shape&)f = s;
  f.o = o.p(), f.ldo = ldo, f.lse = lse.p();
  team.kernel = [&](const vg_call& call) { vg_latent_attention(call, f); };
  team.run_all(what, {&o, &lse});

  vg_latent_grad_args g = {};
  (vg_latent_shape&)g = s;
  g.o = o.p(), g.lse = lse.p(), g.dout = dout.p(), g.ldo = ldo, g.lddout = ldo;
  g.dq = dq.p(), g.dx = dx.p(), g.lddq = width, g.lddx = c.dim;
  team.kernel = [&](const vg_call& call) { vg_latent_attention_grad(call, g); };
  team.run_all(what + " grad", {&dq, &dx});

  const Reference want = reference(c, s, team.step, q, ldq, x, ldx, dout);
  check::close(what + ": o", o.p(), want.o, 2e-6);
  check::close(what + ": lse", lse.p(), want.lse, 1e-6);
  check::close(what + ": dx", dx.p(), want.dx, 4e-6);
  // One key: softmax is constant, its gradient is all cancellation.
  if (c.tk > 1) check::close(what + ": dq", dq.p(), want.dq, 4e-6);
}

}}}  // namespace

int main() {
  const vg::Case cases[] = {
      {2, 8, 512, 1, 37, 0, false, false, 0.1f}, {5, 4, 64, 1, 17, 0, false, true, 0.05f}, {3, 3, 5, 1, 10, 4, true, true, 0.25f},
      {1, 6, 384, 1, 197, 0, false, false, 0},   {1, 1, 1, 1, 1, 0, false, false, 0},      {2, 17, 33, 2, 20, 11, true, false, 0.1f},
      {1, 2, 48, 3, 300, 250, true, true, 0.5f}, {1, 5, 16, 1, 5000, 0, false, true, 0.1f}, {1, 29, 70, 1, 257, 0, false, false, 0},
      {1, 1, 768, 2, 40, 0, false, false, 0.1f}, {2, 2, 20, 1, 30, 0, false, true, 0}, {1, 16, 1024, 1, 50, 0, false, false, 0},
      {1, 3, 8, 3, 600, 100, true, false, 0.1f},  // keys that no query sees
      {1, 2, 3, 1, 16384, 0, false, false, 0},
  };
  for (const vg::Case& c : cases) vg::one(c);
  return check::finish();
}
