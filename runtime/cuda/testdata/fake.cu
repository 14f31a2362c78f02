// The kernels of runtime/internal/fake's model on a CUDA device: a linear
// softmax classifier of 1x8x8 images, 10 classes, batches of 32. They compute
// what fake's kernels compute in Go, element by element and without haste; what
// the tests are about is how they are launched.
#include <data.cuh>
#include <math.cuh>

constexpr int kBatch = 32, kClasses = 10, kPixels = 64;

// Elements i = 0 .. n-1 of this thread, out of all threads of the launch.
#define FOR_MINE(i, n) \
  for (int64_t i = (int64_t)c.block * vg_threads() + vg_thread(); i < (n); i += (int64_t)c.blocks * vg_threads())

#define CALL \
  const vg_call c { state, workspace, counters, vg_block_index(), vg_block_count() }

// An image's element as training sees it: times 0 or 2.
VG_FN float dropped(const vg_call& c, const float* x, int64_t i) {
  if (!c.step().dropout_on) return x[i];
  uint32_t r[4] = {(uint32_t)i, 0, 0, c.step().micro_step};
  vg_philox4x32(r, c.step().seed_lo, c.step().seed_hi);
  return x[i] * (float)(2 * (r[0] & 1));
}

template <class W>
VG_FN void linear(const vg_call& c, const float* x, const W* w, const float* b, float* y, const float* scale, bool drop) {
  FOR_MINE(i, (int64_t)c.batch() * kClasses) {
    const int64_t sample = i / kClasses, k = i % kClasses;
    double sum = b[k];
    for (int j = 0; j < kPixels; j++) {
      const int64_t at = sample * kPixels + j;
      sum += (double)(drop ? dropped(c, x, at) : x[at]) * (double)vg_load<float>(w + k * kPixels + j, 1);
    }
    y[i] = scale[0] * (float)sum;
  }
}

VG_KERNEL(64, 1)
k00_linear(const vg_state* state, char* workspace, uint32_t* counters, const float* x, const float* w, const float* b, float* y,
           const float* scale, uint64_t drop) {
  CALL;
  linear(c, x, w, b, y, scale, drop != 0);
}
VG_EXPORT(k00_linear)

// Weights in bf16.
VG_KERNEL(64, 1)
k01_linear_half(const vg_state* state, char* workspace, uint32_t* counters, const float* x, const vg_bf16* w, const float* b,
                float* y, const float* scale, uint64_t drop) {
  CALL;
  linear(c, x, w, b, y, scale, drop != 0);
}
VG_EXPORT(k01_linear_half)

// dlogits may be NULL, and label2 with mix.
VG_KERNEL(32, 1)
k02_cross_entropy(const vg_state* state, char* workspace, uint32_t* counters, const float* logits, const int32_t* label,
                  float* loss, float* correct, float* dlogits, const int32_t* label2, const float* mix) {
  CALL;
  FOR_MINE(i, c.batch()) {
    const float* z = logits + i * kClasses;
    int best = 0;
    for (int k = 0; k < kClasses; k++) best = z[k] > z[best] ? k : best;
    double sum = 0;
    for (int k = 0; k < kClasses; k++) sum += (double)vg_exp(z[k] - z[best]);
    const float log_sum = vg_log((float)sum) + z[best];
    const float weight = label2 ? mix[i] : 1.0f;
    const int other = label2 && label2[i] >= 0 ? label2[i] : label[i];
    loss[i] = log_sum - weight * z[label[i]] - (1 - weight) * z[other];
    correct[i] = best == label[i];
    if (!dlogits) continue;
    for (int k = 0; k < kClasses; k++)
      dlogits[i * kClasses + k] = (vg_exp(z[k] - log_sum) - weight * (k == label[i]) - (1 - weight) * (k == other)) * c.step().inv_n;
  }
}
VG_EXPORT(k02_cross_entropy)

// The bias gradient is summed over blocks: each leaves its part in the
// workspace, and the last one adds them up.
VG_KERNEL(64, 1)
k03_linear_grad(const vg_state* state, char* workspace, uint32_t* counters, const float* x, const float* dz, float* gw, float* gb,
                const float* scale, uint64_t add) {
  CALL;
  FOR_MINE(i, (int64_t)kClasses * kPixels) {
    const int64_t k = i / kPixels, j = i % kPixels;
    double sum = 0;
    for (int s = 0; s < c.batch(); s++) sum += (double)dz[s * kClasses + k] * (double)dropped(c, x, s * kPixels + j);
    gw[i] = (add ? gw[i] : 0.0f) + scale[0] * (float)sum;
  }
  double* part = (double*)c.workspace + c.block * kClasses;
  if (vg_thread() < kClasses) {
    double sum = 0;
    for (int s = c.block; s < c.batch(); s += c.blocks) sum += (double)dz[s * kClasses + vg_thread()];
    part[vg_thread()] = sum;
  }
  if (!vg_arrive_last(c.counters, c.blocks, (uint32_t*)vg_shared())) return;
  if (vg_thread() < kClasses) {
    double sum = 0;
    for (int b = 0; b < c.blocks; b++) sum += ((const double*)c.workspace)[b * kClasses + vg_thread()];
    gb[vg_thread()] = (add ? gb[vg_thread()] : 0.0f) + scale[0] * (float)sum;
  }
}
VG_EXPORT(k03_linear_grad)

// Numbers come as the bits of a float. m and half may be NULL.
VG_KERNEL(64, 1)
k04_sgd(const vg_state* state, char* workspace, uint32_t* counters, float* p, const float* g, float* m, vg_bf16* half, uint64_t n,
        uint64_t decaying, uint64_t momentum, uint64_t nesterov, uint64_t weight_decay) {
  CALL;
  const float mu = vg_from_bits((uint32_t)momentum);
  FOR_MINE(i, (int64_t)n) {
    float d = g[i] + (i < (int64_t)decaying ? vg_from_bits((uint32_t)weight_decay) : 0.0f) * p[i];
    if (m) {
      m[i] = mu * m[i] + d;
      d = nesterov ? d + mu * m[i] : m[i];
    }
    p[i] -= c.step().lr * d;
    if (half) vg_store(half + i, p[i], 1);
  }
}
VG_EXPORT(k04_sgd)

VG_KERNEL(64, 1)
k05_adamw(const vg_state* state, char* workspace, uint32_t* counters, float* p, const float* g, float* m, float* v, vg_bf16* half,
          uint64_t n, uint64_t decaying, uint64_t beta1, uint64_t beta2, uint64_t eps, uint64_t weight_decay) {
  CALL;
  const float b1 = vg_from_bits((uint32_t)beta1), b2 = vg_from_bits((uint32_t)beta2);
  FOR_MINE(i, (int64_t)n) {
    float x = p[i] * (1 - c.step().lr * (i < (int64_t)decaying ? vg_from_bits((uint32_t)weight_decay) : 0.0f));
    m[i] = b1 * m[i] + (1 - b1) * g[i];
    v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i];
    x -= c.step().lr * c.step().bias_corr1 * m[i] / (vg_sqrt(v[i] * c.step().bias_corr2) + vg_from_bits((uint32_t)eps));
    p[i] = x;
    if (half) vg_store(half + i, x, 1);
  }
}
VG_EXPORT(k05_adamw)

VG_KERNEL(kBlockThreads, 1)
gather(const vg_state* state, char* workspace, uint32_t* counters, const uint8_t* images, const int32_t* labels,
       const int32_t* index, const float* table, float* image_out, int32_t* label_out) {
  CALL;
  vg_gather<kBatch, 1, 8, 8>(c, images, labels, index, table, image_out, label_out);
}
VG_EXPORT(gather)

VG_KERNEL(kBlockThreads, 1)
halve(const vg_state* state, char* workspace, uint32_t* counters, const float* p, vg_bf16* half) {
  CALL;
  vg_halve(c, kClasses * kPixels + kClasses, p, half);
}
VG_EXPORT(halve)

// Faults, for tests to put into a program: one element beyond y, and a NaN in
// the middle of it.
VG_KERNEL(32, 1)
k08_beyond(const vg_state* state, char* workspace, uint32_t* counters, float* y, uint64_t n) {
  if (vg_thread() == 0) y[n] = 1.0f;
}
VG_EXPORT(k08_beyond)

VG_KERNEL(32, 1)
k09_nan(const vg_state* state, char* workspace, uint32_t* counters, float* y, uint64_t n) {
  if (vg_thread() == 0) y[n / 2] = vg_log(-1.0f);
}
VG_EXPORT(k09_nan)

VG_KERNEL(64, 1)
k10_average(const vg_state* state, char* workspace, uint32_t* counters, const float* p, float* e, uint64_t n) {
  CALL;
  FOR_MINE(i, (int64_t)n) e[i] += c.step().ema_weight * (p[i] - e[i]);
}
VG_EXPORT(k10_average)
