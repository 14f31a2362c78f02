// What the tests of the attention kernels share: a case with its tensors in
// simulated device memory, and the definition of attention in double. Include
// it after the kernels.
#pragma once
#include "device_check.h"

namespace check {

// Shapes of a case, as the configurations of its kernels say.
struct Shape {
  int heads, dim, tq, tk, q_first, q_total;
  bool causal, dropout;
  int full;     // the batch that the kernels were compiled for
  int batch;    // samples in this run
  int64_t pad;  // what rows are longer than they need be

  int width() const { return heads * dim; }
  int seen(int i) const { return !causal || q_first + i + 1 > tk ? tk : q_first + i + 1; }
  uint64_t index(int64_t head, int i, int j) const {
    return (uint64_t)(head * q_total + q_first + i) * (uint64_t)tk + (uint64_t)j;
  }
  // Element d of a row of a head, in rows of ld elements.
  size_t at(int64_t head, int tokens, int row, int64_t ld, int d) const {
    return (size_t)((head / heads * tokens + row) * ld + head % heads * dim + d);
  }
};

constexpr uint32_t kWeightSite = 6, kWeightThr = 6554;  // a tenth is dropped

// The tensors of a case: q, k and v side by side in one matrix if there are as
// many queries as keys, as a fused projection leaves them, else q by itself.
template <class E>
struct Tensors {
  Shape s;
  bool fused;
  int64_t ldq, ldk, ldo;
  Array<E> q, kv, dout, o, dq, dkv;
  Array<float> lse;
  E *k, *v, *dk, *dv;

  Tensors(const Shape& shape, Random& r)
      : s(shape), fused(s.tq == s.tk), ldq((fused ? 3 : 1) * s.width() + s.pad), ldk(fused ? ldq : 2 * s.width() + s.pad),
        ldo(s.width() + s.pad), q(rows(s.tq) * (size_t)ldq, "q", r, 1.5f), kv(fused ? 1 : rows(s.tk) * (size_t)ldk, "kv", r, 1.5f),
        dout(rows(s.tq) * (size_t)ldo, "dout", r), o(rows(s.tq) * (size_t)ldo, "o"), dq(rows(s.tq) * (size_t)ldq, "dq"),
        dkv(fused ? 1 : rows(s.tk) * (size_t)ldk, "dkv"), lse((size_t)(s.full * s.heads * s.tq), "lse") {
    E* keys = fused ? q.p + s.width() : kv.p;
    E* grads = fused ? dq.p + s.width() : dkv.p;
    k = keys, v = keys + s.width(), dk = grads, dv = grads + s.width();
    if (s.batch == s.full) return;
    // What lies beyond the batch is nobody's.
    for (Array<E>* a : {&q, &dq}) a->forbid((size_t)(s.batch * s.tq) * (size_t)ldq);
    for (Array<E>* a : {&dout, &o}) a->forbid((size_t)(s.batch * s.tq) * (size_t)ldo);
    if (!fused)
      for (Array<E>* a : {&kv, &dkv}) a->forbid((size_t)(s.batch * s.tk) * (size_t)ldk);
    lse.forbid((size_t)(s.batch * s.heads * s.tq));
  }
  size_t rows(int tokens) const { return (size_t)s.full * (size_t)tokens; }
};

// Results in double, contiguous: o and dq [batch, tq, width], dk and dv
// [batch, tk, width].
struct Results {
  std::vector<double> o, lse, dq, dk, dv;
};

template <class E>
Results reference(const Tensors<E>& x, const vg_state& state, uint32_t thr) {
  const Shape& s = x.s;
  const float scale = 1 / sqrtf((float)s.dim);
  const auto value = [](const E* p, size_t i) { return (double)number(p[i]); };
  Results r;
  r.o.assign((size_t)(s.batch * s.tq * s.width()), 0), r.dq = r.o;
  r.dk.assign((size_t)(s.batch * s.tk * s.width()), 0), r.dv = r.dk;
  for (int64_t head = 0; head < s.batch * s.heads; head++)
    for (int i = 0; i < s.tq; i++) {
      const size_t n = (size_t)s.seen(i);
      std::vector<double> p(n), m(n, 1), dp(n, 0);
      double top = -1e300, sum = 0, delta = 0;
      for (size_t j = 0; j < n; j++) {
        for (int d = 0; d < s.dim; d++)
          p[j] += value(x.q.p, s.at(head, s.tq, i, x.ldq, d)) * value(x.k, s.at(head, s.tk, (int)j, x.ldk, d));
        p[j] *= scale, top = fmax(top, p[j]);
        if (thr > 0) m[j] = kept(state, kWeightSite, thr, s.index(head, i, (int)j)) ? 65536.0 / (65536.0 - thr) : 0;
      }
      for (double& w : p) sum += w = exp(w - top);
      r.lse.push_back(top + log(sum));
      for (size_t j = 0; j < n; j++) {
        p[j] /= sum;
        for (int d = 0; d < s.dim; d++) {
          const double v = value(x.v, s.at(head, s.tk, (int)j, x.ldk, d));
          r.o[s.at(head, s.tq, i, s.width(), d)] += p[j] * m[j] * v;
          dp[j] += value(x.dout.p, s.at(head, s.tq, i, x.ldo, d)) * v;
        }
        delta += p[j] * m[j] * dp[j];
      }
      for (size_t j = 0; j < n; j++) {
        const double ds = scale * p[j] * (m[j] * dp[j] - delta);
        for (int d = 0; d < s.dim; d++) {
          const size_t key = s.at(head, s.tk, (int)j, s.width(), d);
          r.dv[key] += p[j] * m[j] * value(x.dout.p, s.at(head, s.tq, i, x.ldo, d));
          r.dk[key] += ds * value(x.q.p, s.at(head, s.tq, i, x.ldq, d));
          r.dq[s.at(head, s.tq, i, s.width(), d)] += ds * value(x.k, s.at(head, s.tk, (int)j, x.ldk, d));
        }
      }
    }
  return r;
}

// Rows of `width` elements out of rows of ld.
template <class E>
std::vector<double> gather(const E* p, int64_t rows, int64_t ld, int width) {
  std::vector<double> x;
  for (int64_t row = 0; row < rows; row++)
    for (int i = 0; i < width; i++) x.push_back((double)number(p[row * ld + i]));
  return x;
}

// |got - want| in the Euclidean norm, relative to |want|. Where one is NaN the
// other must be.
inline void near(const std::string& what, const std::vector<double>& got, const std::vector<double>& want, double tolerance) {
  double error = 0, size = 0;
  for (size_t i = 0; i < want.size(); i++) {
    if (isnan(want[i]) || isnan(got[i])) {
      that(isnan(want[i]) && isnan(got[i]), what + text(": element %d is %g, not %g", (int)i, got[i], want[i]));
      continue;
    }
    error += pow(got[i] - want[i], 2), size += want[i] * want[i];
  }
  error = sqrt(error), size = sqrt(size);
  that(error <= tolerance * size, what + text(" differs by %.3g", size > 0 ? error / size : error));
}

}  // namespace check
