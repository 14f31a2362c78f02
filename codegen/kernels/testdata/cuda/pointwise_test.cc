// Pointwise bodies, transposition and patches against plain loops.
#include "../../cuda/patchify.cuh"

#include "device_check.h"

using check::Array;
using check::Launch;
using check::Random;
using check::text;
using check::that;

constexpr uint32_t kSite = 3, kThr = 20000;
constexpr float kKeep = 65536.0f / (65536 - kThr);

#define CALL const vg_call c{state, workspace, counters, vg_block_index(), vg_block_count()}
#define BEGIN const vg_state *state, char *workspace, uint32_t *counters

// y = 2 x + what says where the element is; and dropout of x.
template <int COLS, class E>
struct marking_body {
  const E* x;
  float* y;
  E* dropped;
  vg_dropout draw;
  template <class V>
  VG_FN void operator()(vg_at at) const {
    const int64_t i = at.row * COLS + at.col;
    const V v = vg_load<V>(x + i, at.n);
    vg_store(y + i, v + v + (float)(at.sample * 100 + at.token), at.n);
    vg_store(dropped + i, v * draw.scale<V>(i, at.n), at.n);
  }
};

#define POINTWISE(NAME, E, T, COLS)                                                                    \
  VG_KERNEL(256, 4) NAME##_##T##_##COLS(BEGIN, const E* x, float* y, E* dropped) {                     \
    CALL;                                                                                              \
    const marking_body<COLS, E> body{x, y, dropped, vg_dropout(c.step(), kSite, kThr)};                \
    vg_pointwise<T, COLS>(c, (int64_t)c.batch() * T, body);                                            \
  }                                                                                                    \
  VG_EXPORT(NAME##_##T##_##COLS)

template <int T, int C>
struct placed_sink {
  float* y;
  template <class V>
  VG_FN void operator()(V v, vg_at at) const {
    const bool placed = at.row == (int64_t)at.sample * C + at.token && at.n == 1;
    y[at.row * T + at.col] = placed ? v : vg_from_bits(~0u);
  }
};

#define TRANSPOSE(NAME, E, T, C)                                              \
  VG_KERNEL(256, 4) NAME##_##T##_##C(BEGIN, const E* x, float* y) {           \
    CALL;                                                                     \
    vg_transpose<T, C>(c, x, placed_sink<T, C>{y});                           \
  }                                                                           \
  VG_EXPORT(NAME##_##T##_##C)

#define PATCHIFY(C, H, W, P)                                                              \
  VG_KERNEL(256, 4) patchify_##C##_##H##_##W##_##P(BEGIN, const float* image, float* y) { \
    CALL;                                                                                 \
    vg_patchify<C, H, W, P>(c, image, vg_store_matrix{y, C * P * P});                     \
  }                                                                                       \
  VG_EXPORT(patchify_##C##_##H##_##W##_##P)

// clang-format off
#ifdef SMALL
#define SHAPES(_) _(5, 1) _(1, 37) _(37, 200)
#define PLANES(_) _(1, 1) _(37, 20) _(133, 17)
#define IMAGES(_) _(2, 6, 4, 2) _(3, 10, 15, 5)
#else
#define SHAPES(_) _(5, 1) _(1, 10) _(5, 37) _(37, 50) _(37, 192) _(5, 512) _(37, 1000) _(1, 3000) _(1, 9000)
#define PLANES(_) _(1, 1) _(5, 64) _(37, 50) _(36, 512) _(300, 10)
#define IMAGES(_) _(1, 1, 1, 1) _(2, 6, 4, 2) _(3, 10, 15, 5) _(3, 28, 42, 14) _(1, 96, 96, 16)
#endif
#define FLOAT_POINTWISE(T, COLS) POINTWISE(pointwise, float, T, COLS)
#define FLOAT_TRANSPOSE(T, C) TRANSPOSE(transpose, float, T, C)
// clang-format on
SHAPES(FLOAT_POINTWISE)
POINTWISE(bf16_pointwise, vg_bf16, 5, 37)
PLANES(FLOAT_TRANSPOSE)
TRANSPOSE(bf16_transpose, vg_bf16, 37, 20)
IMAGES(PATCHIFY)

template <int T, int COLS, class E>
void pointwise(const char* name, int batch) {
  const std::string what = text("%s T=%d cols=%d batch=%d", name, T, COLS, batch);
  Random r((uint64_t)COLS);
  const size_t full = (size_t)(T * COLS * (batch + 1)), n = (size_t)(T * COLS * batch);
  Array<E> x(full, "x", r), dropped(full, "dropped");
  Array<float> y(full, "y");
  x.forbid(n), dropped.forbid(n), y.forbid(n);
  const vg_state s = check::state(batch);
  check::run(what, {text("%s_%d_%d", name, T, COLS), vg_pointwise_blocks((batch + 1) * T, COLS), 0, 0, 0}, s,
             {{y.p, n * 4, "y"}, {dropped.p, n * sizeof(E), "dropped"}}, (const E*)x.p, y.p, dropped.p);
  size_t wrong = 0, undrawn = 0;
  for (size_t i = 0; i < n; i++) {
    const int row = (int)(i / COLS);
    wrong += y[i] != 2 * check::number(x[i]) + (float)(row / T * 100 + row % T);
    E want;
    check::assign(want, check::kept(s, kSite, kThr, i) ? check::number(x[i]) * kKeep : 0.0f);
    undrawn += check::number(dropped[i]) != check::number(want);
  }
  that(wrong == 0, what + text(": %d wrong", (int)wrong));
  that(undrawn == 0, what + text(": %d elements are dropped wrongly", (int)undrawn));
}

template <int T, int C, class E>
void transpose(const char* name, int batch) {
  const std::string what = text("%s T=%d C=%d batch=%d", name, T, C, batch);
  Random r((uint64_t)C);
  const size_t full = (size_t)(T * C * (batch + 1)), n = (size_t)(T * C * batch);
  Array<E> x(full, "x", r);
  Array<float> y(full, "y");
  x.forbid(n), y.forbid(n);
  check::run(what, {text("%s_%d_%d", name, T, C), vg_transpose_blocks(batch + 1, T, C), vg_transpose_shared(T), 0, 0},
             check::state(batch), {{y.p, n * 4, "y"}}, (const E*)x.p, y.p);
  size_t wrong = 0;
  for (size_t b = 0; b < (size_t)batch; b++)
    for (size_t t = 0; t < T; t++)
      for (size_t c = 0; c < C; c++) wrong += y[(b * C + c) * T + t] != check::number(x[(b * T + t) * C + c]);
  that(wrong == 0, what + text(": %d wrong", (int)wrong));
}

template <int C, int H, int W, int P>
void patchify(int batch) {
  const std::string what = text("patchify %dx%dx%dx%d p=%d", batch, C, H, W, P);
  Random r(11);
  const size_t full = (size_t)(C * H * W * (batch + 1)), n = (size_t)(C * H * W * batch);
  Array<float> image(full, "image", r), y(full, "y");
  image.forbid(n), y.forbid(n);
  check::run(what, {text("patchify_%d_%d_%d_%d", C, H, W, P), vg_patchify_blocks(batch + 1, C, H, W, P), 0, 0, 0},
             check::state(batch), {{y.p, n * 4, "y"}}, (const float*)image.p, y.p);
  size_t wrong = 0, at = 0;
  for (int b = 0; b < batch; b++)
    for (int i = 0; i < H; i += P)
      for (int j = 0; j < W; j += P)
        for (int c = 0; c < C; c++)
          for (int u = 0; u < P; u++)
            for (int v = 0; v < P; v++) wrong += y[at++] != image[(size_t)(((b * C + c) * H + i + u) * W + j + v)];
  that(wrong == 0, what + text(": %d wrong", (int)wrong));
}

int main() {
#define RUN(T, COLS) pointwise<T, COLS, float>("pointwise", COLS > 500 ? 2 : 9);
#define RUN_PLANES(T, C) transpose<T, C, float>("transpose", 3);
#define RUN_IMAGES(C, H, W, P) patchify<C, H, W, P>(3);
  SHAPES(RUN)
  pointwise<5, 37, vg_bf16>("bf16_pointwise", 9);
  PLANES(RUN_PLANES)
  transpose<37, 20, vg_bf16>("bf16_transpose", 3);
  IMAGES(RUN_IMAGES)
  return check::finish();
}
