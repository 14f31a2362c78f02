// Elementary functions against libm in double: error in units in the last place
// over the whole range of float, special values, and the memory operations at
// every lane count.
#include "check.h"

using check::text;
using check::that;

namespace vg { inline namespace VG_ISA_NAME { namespace {

typedef vf (*vector_fn)(vf);

float at1(vector_fn f, float x) { return f(vf(x)).v[kLanes - 1]; }

// |got - want| in units in the last place of want as a float.
double ulps(float got, double want) {
  const float rounded = (float)want;
  if (isnan(want) || isnan(got)) return isnan(want) && isnan(got) ? 0 : 1e9;
  if (isinf(rounded) || isinf(got)) return rounded == got ? 0 : 1e9;
  int e;
  frexp(want == 0 ? 1e-300 : want, &e);
  const double ulp = ldexp(1.0, (e < -125 ? -125 : e) - 24);
  return fabs((double)got - want) / ulp;
}

// Walks all floats of [from, to] in steps of `stride` bit patterns, both signs
// when `negative`.
void sweep(const char* name, vector_fn f, double (*want)(double), float from, float to, bool negative, double bound) {
  uint32_t lo, hi;
  memcpy(&lo, &from, 4);
  memcpy(&hi, &to, 4);
  const uint32_t stride = (hi - lo) / 60000 + 1;
  double worst = 0;
  float where = 0;
  for (uint32_t b = lo; b <= hi && b >= lo; b += stride) {
    float x[kLanes];
    for (int i = 0; i < kLanes; i++) {
      const uint32_t bits = vg_min64(hi, (int64_t)b + i * (stride / kLanes + 1));
      memcpy(&x[i], &bits, 4);
      if (negative && i % 2) x[i] = -x[i];
    }
    const vf y = f(vg_load<vf>(x, kLanes));
    for (int i = 0; i < kLanes; i++) {
      const double e = ulps(y.v[i], want((double)x[i]));
      if (e > worst) worst = e, where = x[i];
    }
  }
  printf("%-6s %.2f ulp at %.9g\n", name, worst, where);
  that(worst <= bound, text("%s: %.2f ulp at %.9g", name, worst, where));
}

const float kSmallest = 1.4e-45f, kLargest = 3.4028234e38f;

void ulp_bounds() {
  sweep("exp", vg_exp, exp, kSmallest, kLargest, true, 2);
  sweep("exp", vg_exp, exp, 0.01f, 110.0f, true, 2);
  sweep("log", vg_log, log, kSmallest, kLargest, false, 2);
  sweep("log", vg_log, log, 0.5f, 2.0f, false, 2);
  sweep("tanh", vg_tanh, tanh, kSmallest, kLargest, true, 2);
  sweep("tanh", vg_tanh, tanh, 0.01f, 10.0f, true, 2);
  sweep("sqrt", vg_sqrt, sqrt, kSmallest, kLargest, false, 0.5);
}

void exp2_below() {
  double worst = 0;
  for (int i = 0; i <= 1000000; i++) {
    const float x = (float)i * -1.26e-4f;
    worst = fmax(worst, fabs(at1(vg_exp2_below, x) / exp2((double)x) - 1));
  }
  printf("exp2_below     %.2g\n", worst);
  that(worst <= 2.5e-7, text("exp2_below: error %.3g", worst));
  that(at1(vg_exp2_below, 0) == 1 && at1(vg_exp2_below, -126.1f) == 0 && at1(vg_exp2_below, -INFINITY) == 0, "exp2_below at its ends");
  that(isnan(at1(vg_exp2_below, NAN)), "exp2_below(NaN) is a number");
}

double gelu(double x) { return x * 0.5 * (1 + erf(x * M_SQRT1_2)); }
double gelu_slope(double x) { return 0.5 * (1 + erf(x * M_SQRT1_2)) + x * exp(-x * x / 2) * 0.39894228040143267794; }
double tanh_arg(double x) { return 0.79788456080286535588 * (x + 0.044715 * x * x * x); }
double gelu_tanh(double x) { return x * 0.5 * (1 + tanh(tanh_arg(x))); }
double gelu_tanh_slope(double x) {
  const double t = tanh(tanh_arg(x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.79788456080286535588 * (1 + 3 * 0.044715 * x * x);
}
double silu(double x) { return x / (1 + exp(-x)); }
double silu_grad(double x) {
  const double s = 1 / (1 + exp(-x));
  return s * (1 + x * (1 - s));
}
double relu(double x) { return x > 0 ? x : 0; }
double relu_grad(double x) { return x > 0; }

void activation(const char* name, vector_fn f, double (*want)(double), double bound = 2e-7) {
  double worst = 0;
  float where = 0;
  for (int i = -400000; i <= 400000; i++) {
    const float x = (float)i * (i % 7 == 0 ? 0.001f : 0.00003f);
    const double e = fabs(at1(f, x) - want((double)x)) / fmax(1, fabs((double)x));
    if (!(e <= worst)) worst = e, where = x;
  }
  printf("%-14s %.2g at %.9g\n", name, worst, where);
  that(worst <= bound, text("%s: error %.3g at %.9g", name, worst, where));
  that(isnan(at1(f, NAN)), text("%s(NaN) is a number", name));
}

void activations() {
  activation("gelu", vg_gelu, gelu, 1.2e-7);
  activation("gelu_slope", vg_gelu_slope, gelu_slope, 1.2e-7);
  activation("gelu_tanh", vg_gelu_tanh, gelu_tanh);
  activation("gelu_tanh_slope", vg_gelu_tanh_slope, gelu_tanh_slope);
  activation("silu", vg_silu, silu);
  activation("silu_grad", [](vf x) { return vg_silu_grad(vf(1.0f), x); }, silu_grad);
  activation("relu", vg_relu, relu);
  for (int i = -50; i <= 50; i++)
    that(at1([](vf x) { return vg_relu_grad(vf(3.0f), x); }, (float)i) == 3 * relu_grad(i), "relu_grad");
  // Far out, where intermediate powers overflow.
  for (float x : {1e10f, 1e20f, 3e38f}) {
    that(at1(vg_gelu, x) == x && at1(vg_gelu, -x) == 0, text("gelu(%g)", x));
    that(at1(vg_gelu_tanh, x) == x && at1(vg_gelu_tanh, -x) == 0, text("gelu_tanh(%g)", x));
    that(at1(vg_silu, x) == x && at1(vg_silu, -x) == 0, text("silu(%g)", x));
    const float g = at1(vg_gelu_slope, x);
    const float h = at1(vg_gelu_tanh_slope, -x);
    that(g == 1 && h == 0, text("gelu slopes at %g: %g %g", x, g, h));
  }
}

void special_values() {
  const float inf = INFINITY;
  for (vector_fn f : {(vector_fn)vg_exp, (vector_fn)vg_log, (vector_fn)vg_tanh, (vector_fn)vg_sqrt})
    that(isnan(at1(f, NAN)), "NaN must propagate");
  that(at1(vg_exp, inf) == inf && at1(vg_exp, -inf) == 0 && at1(vg_exp, 0) == 1, "exp at infinity and zero");
  that(at1(vg_log, inf) == inf && at1(vg_log, 0) == -inf && isnan(at1(vg_log, -1)), "log at infinity, zero and -1");
  that(at1(vg_tanh, inf) == 1 && at1(vg_tanh, -inf) == -1, "tanh at infinity");
  that(signbit(at1(vg_tanh, -0.0f)), "an odd function keeps the sign of zero");
  that(signbit(vf(-0.0f).v[0]), "a splat keeps the sign of zero");
  that(isnan(vg_max(vf(1.0f), vf(NAN)).v[0]) && isnan(vg_min(vf(1.0f), vf(NAN)).v[0]), "max, min: second operand's NaN");
  that(at1([](vf x) { return vg_rsqrt(x); }, 16) == 0.25f, "rsqrt");
}

void lanes() {
  for (int n = 1; n <= kLanes + 3; n++) {
    check::Random r(7);
    const int whole = n < kLanes ? n : kLanes;
    // Exactly as long as what may be touched: a sanitizer build sees the rest.
    std::vector<float> from((size_t)whole);
    for (float& x : from) x = r.uniform();
    const vf x = vg_load<vf>(from.data(), n);
    check::Buffer to((size_t)whole);
    vg_store(to.p(), x, n);
    double sum = 0;
    float most = -INFINITY;
    for (int i = 0; i < kLanes; i++) {
      that(x.v[i] == (i < whole ? from[(size_t)i] : 0.0f), text("load n=%d lane %d", n, i));
      if (i < whole) that(to[(size_t)i] == from[(size_t)i], text("store n=%d lane %d", n, i));
      sum += x.v[i];
      most = fmaxf(most, x.v[i]);
    }
    that(to.intact(), text("store n=%d wrote beyond", n));
    that(fabs(vg_sum(x) - sum) < 1e-5 && vg_hmax(x) == most, "horizontal sum and maximum");
  }
  // Row i holds 2^i of one lane and i elsewhere.
  vf sums[kLanes], most[kLanes];
  for (int i = 0; i < kLanes; i++) {
    sums[i] = vf((float)i);
    sums[i].v[(i + 3) % kLanes] = (float)(1 << i);
    most[i] = sums[i];
  }
  const vf sum = vg_sum_rows(sums), largest = vg_max_rows(most);
  for (int i = 0; i < kLanes; i++) {
    that(sum.v[i] == (float)(i * (kLanes - 1) + (1 << i)), "sums of rows");
    that(largest.v[i] == (float)(1 << i), "maxima of rows");
  }
  vf square[kLanes];
  for (int i = 0; i < kLanes; i++)
    for (int j = 0; j < kLanes; j++) square[i].v[j] = (float)(i * kLanes + j);
  vg_transpose_square(square);
  for (int i = 0; i < kLanes; i++)
    for (int j = 0; j < kLanes; j++) that(square[i].v[j] == (float)(j * kLanes + i), "transposed square");
}

}}}  // namespace

int main() {
  vg::ulp_bounds();
  vg::exp2_below();
  vg::activations();
  vg::special_values();
  vg::lanes();
  return check::finish();
}
