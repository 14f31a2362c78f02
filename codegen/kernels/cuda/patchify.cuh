// Cuts images into rows of patches, so that a convolution whose kernel equals
// its stride becomes a matrix product.
#pragma once
#include "pointwise.cuh"

// Blocks for a batch of images.
VG_CONST int64_t vg_patchify_blocks(int64_t batch, int C, int H, int W, int P) {
  return vg_pointwise_blocks(batch * (H / P) * (W / P), C * P * P);
}

// y over (row = b*T + t, col = (c*P + u)*P + v) of image [batch,C,H,W]: patch t
// = i*(W/P) + j, pixel (c, i*P + u, j*P + v). Neighbouring threads read
// neighbouring pixels, P in a line.
template <int C, int H, int W, int P, class Y>
VG_FN void vg_patchify(const vg_call& c, const float* image, const Y& y) {
  constexpr int across = W / P, tokens = H / P * across, cols = C * P * P;
  vg_each_element<tokens, cols>(c, (int64_t)c.batch() * tokens, [&](vg_at at) {
    const int channel = at.col / (P * P), u = at.col / P % P, v = at.col % P;
    const float* patch = image + ((int64_t)at.sample * (C * H) + at.token / across * P) * W + at.token % across * P;
    y(patch[(channel * H + u) * W + v], at);
  });
}
