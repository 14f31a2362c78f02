// What feeds a step: a batch picked from images that lie on the device, and the
// bf16 copy of the parameters.
#pragma once
#include "optimizer.cuh"

// Pixels of one channel that a block converts at a time; its share of the table
// lies in shared memory.
constexpr int kGatherPixels = 4096;
constexpr int kGatherShared = 256 * (int)sizeof(float);

VG_CONST int64_t vg_gather_blocks(int64_t batch, int C, int H, int W) {
  return vg_max64(1, vg_min64(batch * C * vg_ceil_div((int64_t)H * W, kGatherPixels), kMaxBlocks));
}

// The images and labels of a batch out of a data set that lies on the device.
//   images      [N,C,H,W] bytes, labels [N], index [batch]: which samples
//   table       [C,256]: what a byte of a channel becomes. The host makes it as it
//               normalizes on the CPU, so that the floats are the same to the bit.
//   image_out   [BATCH,C,H,W]; images beyond the batch are left alone
//   label_out   [BATCH]; labels beyond the batch become -1
// The arrays start at multiples of 16 bytes.
template <int BATCH, int C, int H, int W>
VG_FN void vg_gather(const vg_call& c, const uint8_t* images, const int32_t* labels, const int32_t* index,
                     const float* table, float* image_out, int32_t* label_out) {
  constexpr int plane = H * W, pieces = (plane + kGatherPixels - 1) / kGatherPixels;
  float* lookup = (float*)vg_shared();
  for (int i = c.block * kBlockThreads + vg_thread(); i < BATCH; i += c.blocks * kBlockThreads)
    label_out[i] = i < c.batch() ? labels[index[i]] : -1;

  const int64_t units = (int64_t)c.batch() * C * pieces;
  for (int64_t u = c.block; u < units; u += c.blocks) {
    const int64_t b = u / (C * pieces);
    const int channel = (int)(u / pieces % C), first = (int)(u % pieces) * kGatherPixels;
    const int end = first + kGatherPixels < plane ? first + kGatherPixels : plane;
    vg_sync();  // nobody still looks up in the table of the last channel
    lookup[vg_thread()] = table[channel * 256 + vg_thread()];
    vg_sync();
    const uint8_t* from = images + ((int64_t)index[b] * C + channel) * plane;
    float* to = image_out + (b * C + channel) * plane;
    if (plane % 4 == 0) {
      VG_UNROLL for (int k = 0; k < kGatherPixels / 4 / kBlockThreads; k++) {
        const int i = first + 4 * (k * kBlockThreads + vg_thread());
        if (i < end) {
          const uint32_t four = *(const uint32_t*)(from + i);
          *(vg_float4*)(to + i) = {lookup[four & 255], lookup[four >> 8 & 255], lookup[four >> 16 & 255],
                                   lookup[four >> 24]};
        }
      }
    } else {
      for (int i = first + vg_thread(); i < end; i += kBlockThreads) to[i] = lookup[from[i]];
    }
  }
}

struct vg_halve_copy {
  const float* p;
  vg_bf16* half;
  template <int N>
  VG_FN void operator()(int64_t i) const {
    float x[N];
    vg_load_flat(x, p + i);
    vg_store_flat(half + i, x);
  }
};

// half = p rounded to bf16, n elements.
VG_FN void vg_halve(const vg_call& c, int64_t n, const float* p, vg_bf16* half) {
  vg_flat(c, n, vg_flat_aligned(p) && vg_flat_aligned(half), vg_halve_copy{p, half});
}
