// Cuts images into rows of patches, so that a convolution whose kernel equals
// its stride becomes a matrix product.
#pragma once
#include <string.h>

#include "call.h"

VG_BEGIN

// y over (row = b*T + t, col = (c*P + u)*P + v) of image [batch,C,H,W]: patch t
// = i*(W/P) + j, pixel (c, i*P + u, j*P + v). A row is gathered in scratch, run
// by run of P pixels, so that y sees whole vectors whatever P is.
template <class Y>
VG_NOINLINE void vg_patchify(const vg_call& call, int C, int H, int W, int P, const float* image, const Y& y) {
  const int across = W / P, tokens = H / P * across;
  const int64_t cols = (int64_t)C * P * P;
  float* gathered = (float*)call.scratch();
  const vg_range mine = call.share((int64_t)call.batch() * tokens);
  for (int64_t row = mine.begin; row < mine.end; row++) {
    const int64_t b = row / tokens;
    const int t = (int)(row % tokens), i = t / across, j = t % across;
    float* to = gathered;
    for (int c = 0; c < C; c++)
      for (int u = 0; u < P; u++, to += P)
        memcpy(to, image + ((b * C + c) * H + i * P + u) * W + j * P, sizeof(float) * P);
    vg_each_vector(vg_at{row, (int32_t)b, t, 0, 0}, 0, cols,
                   [&](vg_at at) VG_LAMBDA { y(vg_load<vf>(gathered + at.col, at.n), at); });
  }
}

VG_END
