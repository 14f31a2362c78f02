// Layer norm, its gradient, and cross-entropy against double-precision
// references.
#include "check.h"

using check::Buffer;
using check::Random;
using check::text;
using check::that;

namespace vg { inline namespace VG_ISA_NAME { namespace {

constexpr int kT = 3;

// Rows with a mean far from zero, where E[x^2] - mean^2 would lose its digits.
void layernorm(int64_t rows, int64_t cols, bool affine) {
  const std::string what = text("layernorm %ldx%ld affine=%d", rows, cols, affine);
  Random r((uint64_t)(rows * 7919 + cols));
  const int64_t ld = cols + 3;
  Buffer x((size_t)(rows * ld), r), gamma((size_t)cols, r), beta((size_t)cols, r), dy((size_t)(rows * cols), r);
  for (size_t i = 0; i < x.n; i++) x[i] += 8;
  Buffer y((size_t)(rows * cols)), mean((size_t)rows), rstd((size_t)rows);
  Buffer dx(y.n), dgamma((size_t)cols), dbeta((size_t)cols);
  const float eps = 1e-5f;
  const float* g = affine ? gamma.p() : nullptr;
  const float* b = affine ? beta.p() : nullptr;

  check::Team team;
  team.kernel = [&](const vg_call& call) {
    vg_layernorm<kT>(call, rows, cols, vg_matrix{x.p(), ld}, g, b, eps, mean.p(), rstd.p(), vg_store_matrix{y.p(), cols});
  };
  team.run_all(what, {&y, &mean, &rstd});
  team.workspace = (size_t)vg_layernorm_grad_workspace(rows, cols);
  team.kernel = [&](const vg_call& call) {
    const vg_matrix sdy{dy.p(), cols}, sx{x.p(), ld};
    const vg_store_matrix sdx{dx.p(), cols};
    if (affine)
      vg_layernorm_grad<kT>(call, rows, cols, sdy, sx, mean.p(), rstd.p(), g, sdx, vg_store_matrix{dgamma.p(), 0},
                            vg_store_matrix{dbeta.p(), 0});
    else
      vg_layernorm_grad<kT>(call, rows, cols, sdy, sx, mean.p(), rstd.p(), g, sdx, vg_none{}, vg_none{});
  };
  team.run_all(what + " grad", affine ? std::vector<Buffer*>{&dx, &dgamma, &dbeta} : std::vector<Buffer*>{&dx});

  std::vector<double> wy, wmean, wdx, wdg((size_t)cols, 0), wdb((size_t)cols, 0);
  for (int64_t i = 0; i < rows; i++) {
    double m = 0, v = 0, ag = 0, agh = 0;
    for (int64_t j = 0; j < cols; j++) m += x[(size_t)(i * ld + j)] / (double)cols;
    for (int64_t j = 0; j < cols; j++) v += pow(x[(size_t)(i * ld + j)] - m, 2) / (double)cols;
    const double rs = 1 / sqrt(v + eps);
    wmean.push_back(m);
    for (int64_t j = 0; j < cols; j++) {
      const double h = (x[(size_t)(i * ld + j)] - m) * rs, d = dy[(size_t)(i * cols + j)];
      const double gv = d * (affine ? gamma[(size_t)j] : 1);
      wy.push_back(affine ? h * gamma[(size_t)j] + beta[(size_t)j] : h);
      wdg[(size_t)j] += d * h, wdb[(size_t)j] += d;
      ag += gv / (double)cols, agh += gv * h / (double)cols;
    }
    for (int64_t j = 0; j < cols; j++) {
      const double h = (x[(size_t)(i * ld + j)] - m) * rs;
      const double gv = dy[(size_t)(i * cols + j)] * (affine ? gamma[(size_t)j] : 1);
      wdx.push_back(rs * (gv - ag - h * agh));
    }
  }
  check::close(what + ": mean", mean.p(), wmean, 1e-6);
  if (cols == 1) return;  // the variance is zero: nothing but rounding is left
  check::close(what + ": y", y.p(), wy, 1e-5);
  check::close(what + ": dx", dx.p(), wdx, 3e-5);
  if (!affine) return;
  check::close(what + ": dgamma", dgamma.p(), wdg, 1e-5);
  check::close(what + ": dbeta", dbeta.p(), wdb, 2e-6);
}

// With one label a row, or two of which the second is no class where it has no
// part.
void cross_entropy(int batch, int classes, float smoothing, bool mixed) {
  const std::string what = text("cross_entropy %dx%d smoothing=%g mixed=%d", batch, classes, smoothing, mixed);
  Random r((uint64_t)(batch * 131 + classes));
  Buffer z((size_t)(batch * classes), r), loss((size_t)batch), correct((size_t)batch), dz((size_t)(batch * classes));
  std::vector<int32_t> label((size_t)batch), label2((size_t)batch, -7);
  std::vector<float> mix((size_t)batch, 1);
  for (int i = 0; i < batch; i++) {
    label[(size_t)i] = i % 5 == 4 ? -1 : (int32_t)(r.next() % (uint32_t)classes);
    for (int j = 0; j < classes; j++) z[(size_t)(i * classes + j)] *= i % 3 == 0 ? 60.0f : 4.0f;
    // A tie for the largest: the lower index wins.
    if (i % 7 == 0 && classes > 2) z[(size_t)(i * classes + 1)] = z[(size_t)(i * classes + classes - 1)] = 100, label[(size_t)i] = i % 2 ? 1 : classes - 1;
    if (i % 5 == 4 && i > 5) label[(size_t)i] = -1, z[(size_t)(i * classes)] = NAN;  // ignored, whatever it holds
    if (mixed && i % 4) {
      label2[(size_t)i] = (int32_t)(r.next() % (uint32_t)classes);
      mix[(size_t)i] = i % 4 == 1 ? 0.0f : (float)(i % 100) / 100;
    }
  }
  check::Team team;
  team.batch = batch;
  team.step.inv_n = 1.0f / (float)(batch + 3);
  const auto run = [&](const std::string& name, bool two) {
    team.kernel = [&](const vg_call& call) {
      const auto with = [&](const auto& labels) VG_LAMBDA {
        vg_cross_entropy(call, classes, vg_matrix{z.p(), classes}, labels, smoothing, loss.p(), correct.p(),
                         vg_store_matrix{dz.p(), classes});
      };
      if (two)
        with(vg_mixed_label{label.data(), label2.data(), mix.data()});
      else
        with(label.data());
    };
    team.run_all(name, {&loss, &correct, &dz});
  };
  run(what, mixed);

  std::vector<double> wl, wdz;
  for (int i = 0; i < batch; i++) {
    const float* row = z.p() + i * classes;
    const int y = label[(size_t)i], y2 = label2[(size_t)i];
    const double m = mix[(size_t)i];
    double top = -1e300, sum = 0, l = 0;
    int arg = 0;
    for (int j = 0; j < classes; j++)
      if (row[j] > top) top = row[j], arg = j;
    for (int j = 0; j < classes; j++) sum += exp(row[j] - top);
    for (int j = 0; j < classes; j++) {
      const double one = (j == y ? m : 0) + (j == y2 ? 1 - m : 0), t = one * (1 - (double)smoothing) + (double)smoothing / classes;
      const double p = exp(row[j] - top) / sum;
      if (y >= 0) l -= t * (row[j] - top - log(sum));
      wdz.push_back(y < 0 ? 0 : (p - t) / (batch + 3));
    }
    wl.push_back(y < 0 ? 0 : l);
    that(correct[(size_t)i] == (y >= 0 && arg == y ? 1.0f : 0.0f), text("%s: row %d correct", what.c_str(), i));
  }
  check::close(what + ": loss", loss.p(), wl, 1e-6);
  check::close(what + ": dlogits", dz.p(), wdz, 2e-6);
  if (mixed) {  // two labels of one class are as one label
    label2 = label;
    run(what + ": twice the same label", true);
    const std::vector<float> two[] = {loss.raw, correct.raw, dz.raw};
    run(what + ": the same label", false);
    that(two[0] == loss.raw && two[1] == correct.raw && (isnan(z[0]) || two[2] == dz.raw), what + ": the same label twice is another");
    return;
  }

  // Evaluation alone gives the same loss to the bit.
  Buffer alone((size_t)batch);
  team.kernel = [&](const vg_call& call) {
    vg_cross_entropy(call, classes, vg_matrix{z.p(), classes}, label.data(), smoothing, alone.p(), nullptr, vg_none{});
  };
  team.run_all(what + " eval", {&alone});
  that(memcmp(alone.p(), loss.p(), sizeof(float) * (size_t)batch) == 0, what + ": evaluation differs from training");
}

// What must not be silently a number, or a read out of bounds.
void bad_rows() {
  Buffer z(3 * 4), loss(3), correct(3), dz(3 * 4);
  z.fill(1);
  z[1] = NAN;
  const int32_t label[] = {0, 4, -2};
  check::Team team;
  team.batch = 3;
  team.step.inv_n = 1;
  team.kernel = [&](const vg_call& call) {
    vg_cross_entropy(call, 4, vg_matrix{z.p(), 4}, label, 0, loss.p(), correct.p(), vg_store_matrix{dz.p(), 4});
  };
  team.run(1, "bad rows");
  for (int i = 0; i < 3; i++) that(isnan(loss[(size_t)i]) && isnan(dz[(size_t)(4 * i)]) && correct[(size_t)i] == 0, text("bad row %d", i));

  // A second label that is no class and has a part, and no part at all.
  z[1] = 0;
  const int32_t first[] = {0, 0, 0}, second[] = {4, -1, 9};
  const float mix[] = {0.5f, 0.0f, NAN};
  team.kernel = [&](const vg_call& call) {
    vg_cross_entropy(call, 4, vg_matrix{z.p(), 4}, vg_mixed_label{first, second, mix}, 0, loss.p(), correct.p(),
                     vg_store_matrix{dz.p(), 4});
  };
  team.run(1, "bad second labels");
  for (int i = 0; i < 3; i++) that(isnan(loss[(size_t)i]) && isnan(dz[(size_t)(4 * i)]) && correct[(size_t)i] == 1, text("bad second label %d", i));
}

}}}  // namespace

int main() {
  const int64_t sizes[][2] = {{1, 1}, {1, 7}, {7, 10}, {37, 33}, {130, 37}, {513, 64}, {10, 513}, {3, 20000}};
  for (const auto& s : sizes) {
    vg::layernorm(s[0], s[1], true);
    vg::layernorm(s[0], s[1], false);
  }
  const int shapes[][2] = {{1, 1}, {1, 10}, {7, 10}, {33, 37}, {37, 513}, {10, 16}};
  for (const auto& s : shapes) {
    for (const bool mixed : {false, true})
      for (const float smoothing : {0.0f, 0.1f}) vg::cross_entropy(s[0], s[1], smoothing, mixed);
  }
  vg::bad_rows();
  return check::finish();
}
