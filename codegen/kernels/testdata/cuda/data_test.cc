// Gathering of batches, and the bf16 copy, against plain loops.
#include "../../cuda/data.cuh"

#include "device_check.h"

using check::Array;
using check::Random;
using check::text;
using check::that;

#define CALL const vg_call c{state, workspace, counters, vg_block_index(), vg_block_count()}
#define BEGIN const vg_state *state, char *workspace, uint32_t *counters

#define GATHER(BATCH, C, H, W)                                                                                          \
  VG_KERNEL(256, 4) gather_##BATCH##_##C##_##H##_##W(BEGIN, const uint8_t* images, const int32_t* labels,               \
                                                     const int32_t* index, const float* table, float* image_out,        \
                                                     int32_t* label_out) {                                              \
    CALL;                                                                                                               \
    vg_gather<BATCH, C, H, W>(c, images, labels, index, table, image_out, label_out);                                   \
  }                                                                                                                     \
  VG_EXPORT(gather_##BATCH##_##C##_##H##_##W)

#define IMAGES(_) _(1, 1, 1, 1) _(9, 3, 5, 7) _(9, 1, 28, 28) _(300, 1, 2, 2) _(3, 3, 60, 96)
IMAGES(GATHER)

VG_KERNEL(256, 4) halve(BEGIN, const float* p, vg_bf16* half, uint64_t n) {
  CALL;
  vg_halve(c, (int64_t)n, p, half);
}
VG_EXPORT(halve)

template <int BATCH, int C, int H, int W>
void gather(int batch) {
  const std::string what = text("gather %dx%dx%dx%d batch=%d", BATCH, C, H, W, batch);
  constexpr size_t samples = 50, plane = H * W, image = C * plane;
  Random r(image);
  Array<uint8_t> images(samples * image, "images");
  Array<int32_t> labels(samples, "labels"), index(BATCH, "index"), label_out(BATCH, "label_out");
  Array<float> table(C * 256, "table", r), image_out(BATCH * image, "image_out");
  for (size_t i = 0; i < images.n; i++) images[i] = (uint8_t)r.next();
  for (size_t i = 0; i < samples; i++) labels[i] = (int32_t)(r.next() % 1000);
  for (size_t i = 0; i < BATCH; i++) index[i] = (int32_t)(r.next() % samples);
  index[0] = samples - 1;
  images.wrote(), labels.wrote(), index.wrote();
  const size_t n = (size_t)batch * image;
  image_out.forbid(n), index.forbid((size_t)batch);
  const check::Launch l{text("gather_%d_%d_%d_%d", BATCH, C, H, W), vg_gather_blocks(BATCH, C, H, W), kGatherShared, 0, 0};
  check::run(what, l, check::state(batch), {{image_out.p, n * 4, "image_out"}, label_out}, (const uint8_t*)images.p,
             (const int32_t*)labels.p, (const int32_t*)index.p, (const float*)table.p, image_out.p, label_out.p);
  index.permit();
  size_t wrong = 0;
  for (size_t i = 0; i < n; i++) {
    const uint8_t pixel = images[(size_t)index[i / image] * image + i % image];
    wrong += image_out[i] != table[i % image / plane * 256 + pixel];
  }
  that(wrong == 0, what + text(": %d pixels are wrong", (int)wrong));
  for (int i = 0; i < BATCH; i++)
    that(label_out[(size_t)i] == (i < batch ? labels[(size_t)index[(size_t)i]] : -1), what + text(": label %d", i));
}

void halve(size_t n, size_t skip) {
  const std::string what = text("halve %d elements from %d on", (int)n, (int)skip);
  Random r(n);
  Array<float> p(n + skip, "p", r, 1e3f);
  Array<vg_bf16> half(n + skip, "half");
  check::run(what, {"halve", vg_flat_blocks((int64_t)n), 0, 0, 0}, check::state(1), {{half.p + skip, n * 2, "half"}},
             (const float*)p.p + skip, half.p + skip, (uint64_t)n);
  size_t wrong = 0;
  for (size_t i = skip; i < n + skip; i++) {
    vg_bf16 rounded;
    check::assign(rounded, p[i]);
    wrong += half[i].bits != rounded.bits;
  }
  that(wrong == 0, what + text(": %d wrong", (int)wrong));
}

int main() {
#define RUN(BATCH, C, H, W) gather<BATCH, C, H, W>(BATCH), gather<BATCH, C, H, W>((BATCH + 1) / 2);
  IMAGES(RUN)
  halve(1, 0), halve(4099, 0), halve(37, 16), halve(38, 1);
  return check::finish();
}
