// Attention and its gradient against a double-precision reference, with
// dropout, causal masks, pruned query rows, fused and separate storage, and
// lengths on both sides of every block.
#include "check.h"

using check::Buffer;
using check::Random;
using check::text;

namespace vg { inline namespace VG_ISA_NAME { namespace {

struct Case {
  int batch, heads, dim, tq, tk, q_first;
  bool causal;
  float rate;
};

struct Reference {
  std::vector<double> o, lse, dq, dk, dv;
};

// The definition, one weight at a time.
Reference reference(const Case& c, const vg_attention_shape& s, const vg_step& step, const Buffer& q, int64_t ldq,
                    const Buffer& k, const Buffer& v, int64_t ldkv, const Buffer& dout) {
  const int width = c.heads * c.dim;
  Reference r;
  r.o.assign((size_t)(c.batch * c.tq * width), 0), r.dq = r.o;
  r.dk.assign((size_t)(c.batch * c.tk * width), 0), r.dv = r.dk;
  for (int b = 0; b < c.batch; b++)
    for (int h = 0; h < c.heads; h++)
      for (int i = 0; i < c.tq; i++) {
        const size_t qi = (size_t)((b * c.tq + i) * ldq + h * c.dim), oi = (size_t)((b * c.tq + i) * width + h * c.dim);
        const int n = c.causal ? (int)vg_min64(c.tk, c.q_first + i + 1) : c.tk;
        std::vector<double> p((size_t)n), m((size_t)n, 1), dp((size_t)n, 0);
        double top = -1e300, sum = 0, delta = 0;
        for (int j = 0; j < n; j++) {
          for (int d = 0; d < c.dim; d++) p[(size_t)j] += (double)q[qi + (size_t)d] * k[(size_t)((b * c.tk + j) * ldkv + h * c.dim + d)];
          p[(size_t)j] *= s.scale;
          top = fmax(top, p[(size_t)j]);
          const uint64_t index = (uint64_t)((((int64_t)b * c.heads + h) * s.q_total + c.q_first + i) * c.tk + j);
          const uint32_t draw = vg_dropout_draw(step.seed_lo, step.seed_hi, step.micro_step, s.drop_site, index);
          if (s.drop_thr) m[(size_t)j] = draw >= s.drop_thr ? 65536.0 / (65536.0 - s.drop_thr) : 0;
        }
        for (double& x : p) sum += (x = exp(x - top));
        r.lse.push_back(top + log(sum));
        for (int j = 0; j < n; j++) {
          p[(size_t)j] /= sum;
          for (int d = 0; d < c.dim; d++) {
            const size_t vj = (size_t)((b * c.tk + j) * ldkv + h * c.dim + d);
            r.o[oi + (size_t)d] += p[(size_t)j] * m[(size_t)j] * v[vj];
            dp[(size_t)j] += (double)dout[oi + (size_t)d] * v[vj];
          }
          delta += p[(size_t)j] * m[(size_t)j] * dp[(size_t)j];
        }
        for (int j = 0; j < n; j++) {
          const double ds = s.scale * p[(size_t)j] * (m[(size_t)j] * dp[(size_t)j] - delta);
          for (int d = 0; d < c.dim; d++) {
            const size_t kv = (size_t)((b * c.tk + j) * width + h * c.dim + d);
            r.dv[kv] += p[(size_t)j] * m[(size_t)j] * dout[oi + (size_t)d];
            r.dk[kv] += ds * q[qi + (size_t)d];
            r.dq[oi + (size_t)d] += ds * k[(size_t)((b * c.tk + j) * ldkv + h * c.dim + d)];
          }
        }
      }
  return r;
}

void one(const Case& c) {
  const std::string what = text("attention B=%d H=%d D=%d Tq=%d Tk=%d first=%d causal=%d p=%g", c.batch, c.heads, c.dim, c.tq,
                                c.tk, c.q_first, c.causal, c.rate);
  const int64_t width = c.heads * c.dim, ldq = width + 5, ldkv = 2 * width;
  Random r((uint64_t)(c.tq * 131 + c.tk + c.dim));
  Buffer q((size_t)(c.batch * c.tq * ldq), r), kv((size_t)(c.batch * c.tk * ldkv), r);
  Buffer dout((size_t)(c.batch * c.tq * width), r);
  for (size_t i = 0; i < q.n; i++) q[i] *= 2;
  // Keys and values interleaved in one matrix, as a fused projection leaves them.
  Buffer k((size_t)(c.batch * c.tk * ldkv)), v((size_t)(c.batch * c.tk * ldkv));
  for (size_t i = 0; i < kv.n; i++) k[i] = kv[i], v[i] = i + (size_t)width < kv.n ? kv[i + (size_t)width] : NAN;
  Buffer o((size_t)(c.batch * c.tq * width)), lse((size_t)(c.batch * c.heads * c.tq));
  Buffer dq(o.n), dkv(kv.n);

  check::Team team;
  team.batch = c.batch;
  team.step.seed_lo = 11, team.step.seed_hi = 5, team.step.micro_step = 2, team.step.dropout_on = 1;
  vg_attention_shape s = {};
  s.heads = c.heads, s.head_dim = c.dim, s.tq = c.tq, s.tk = c.tk, s.q_first = c.q_first, s.q_total = c.q_first + c.tq;
  s.scale = 1 / sqrtf((float)c.dim), s.causal = c.causal, s.drop_site = 4, s.drop_thr = (uint32_t)(c.rate * 65536);

  vg_attention_args f = {};
  (vg_attention_shape&)f = s;
  f.q = q.p(), f.k = kv.p(), f.v = kv.p() + width, f.ldq = ldq, f.ldk = ldkv, f.ldv = ldkv;
  f.o = o.p(), f.ldo = width, f.lse = lse.p();
  team.kernel = [&](const vg_call& call) { vg_attention(call, f); };
  team.run_all(what, {&o, &lse});

  vg_attention_grad_args g = {};
  (vg_attention_shape&)g = s;
  g.q = f.q, g.k = f.k, g.v = f.v, g.o = o.p(), g.lse = lse.p(), g.dout = dout.p();
  g.ldq = ldq, g.ldk = ldkv, g.ldv = ldkv, g.ldo = width, g.lddout = width;
  g.dq = dq.p(), g.dk = dkv.p(), g.dv = dkv.p() + width, g.lddq = width, g.lddk = ldkv, g.lddv = ldkv;
  team.kernel = [&](const vg_call& call) { vg_attention_grad(call, g); };
  team.run_all(what + " grad", {&dq, &dkv});

  const Reference want = reference(c, s, team.step, q, ldq, k, v, ldkv, dout);
  std::vector<float> dk, dv;
  for (int64_t row = 0; row < c.batch * c.tk; row++)
    for (int64_t i = 0; i < width; i++) {
      dk.push_back(dkv[(size_t)(row * ldkv + i)]);
      dv.push_back(dkv[(size_t)(row * ldkv + width + i)]);
    }
  check::close(what + ": o", o.p(), want.o, 2e-6);
  check::close(what + ": lse", lse.p(), want.lse, 1e-6);
  check::close(what + ": dv", dv.data(), want.dv, 4e-6);
  // One key: softmax is constant, its gradient is all cancellation.
  if (c.tk == 1) return;
  check::close(what + ": dq", dq.p(), want.dq, 4e-6);
  check::close(what + ": dk", dk.data(), want.dk, 4e-6);
}

}}}  // namespace

int main() {
  const vg::Case cases[] = {
      {2, 3, 8, 37, 37, 0, false, 0},      {2, 2, 64, 37, 37, 0, false, 0.1f}, {1, 2, 16, 33, 33, 0, true, 0.25f},
      {3, 2, 5, 1, 37, 0, false, 0.1f},    {2, 1, 7, 2, 10, 8, true, 0.5f},    {1, 1, 1, 1, 1, 0, false, 0},
      {1, 1, 33, 197, 197, 0, false, 0.1f}, {1, 2, 10, 300, 300, 0, true, 0.1f}, {1, 1, 256, 20, 257, 0, false, 0},
      {1, 1, 4, 3, 5000, 0, false, 0.1f},  {2, 1, 12, 7, 513, 0, false, 0},
      // More than one block of a head's columns.
      {2, 1, 512, 8, 37, 0, false, 0.1f},  {1, 1, 300, 40, 270, 0, true, 0.1f}, {1, 1, 257, 3, 600, 0, false, 0},
      // Short sequences: whole groups of heads, some with lanes to spare, and heads left over.
      {5, 4, 16, 17, 17, 0, false, 0.1f},  {9, 4, 16, 17, 17, 0, true, 0.1f}, {4, 3, 7, 5, 12, 7, true, 0.25f},
      {8, 2, 32, 32, 32, 0, false, 0},     {3, 5, 19, 3, 21, 4, false, 0.1f},
      // Key blocks that no query sees.
      {1, 2, 8, 5, 600, 100, true, 0.1f},  {2, 2, 24, 2, 600, 270, true, 0.1f},
  };
  for (const vg::Case& c : cases) vg::one(c);
  return check::finish();
}
