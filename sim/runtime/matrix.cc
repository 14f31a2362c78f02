// ldmatrix and mma: the last lane to arrive does the work of its warp.
#include <string.h>

#include "internal.h"

namespace vg_sim {
namespace {

typedef float float8 __attribute__((vector_size(32)));

float from_bits(uint32_t x) {
  float f;
  memcpy(&f, &x, 4);
  return f;
}
float low(uint32_t x) { return from_bits(x << 16); }
float high(uint32_t x) { return from_bits(x & 0xffff0000u); }
float tf32(uint32_t x) { return from_bits(x & 0xffffe000u); }  // the hardware ignores the other bits

// Twice as fast where the CPU has wider vectors; the same operations, so the
// same results.
#ifdef __x86_64__
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

// C += A B for K columns of A, one product after the other. Products are exact:
// no operand has more than 11 bits of mantissa.
template <int K>
inline __attribute__((always_inline)) void multiply(float8 c[16], const float a[16][K], const float8 b[K]) {
  for (int i = 0; i < 16; i++) {
    float8 sum = c[i];
    for (int k = 0; k < K; k++) sum += a[i][k] * b[k];
    c[i] = sum;
  }
}

WIDE void mma_bf16(const lane_args* args, float8 c[16]) {
  float a[16][16];
  float8 b[16];
  for (int l = 0; l < 32; l++) {
    const int g = l / 4, t = l % 4;
    const uint32_t *x = (const uint32_t*)args[l].q, *y = (const uint32_t*)args[l].r;
    for (int i = 0; i < 4; i++) {
      a[g + i % 2 * 8][2 * t + i / 2 * 8] = low(x[i]);
      a[g + i % 2 * 8][2 * t + i / 2 * 8 + 1] = high(x[i]);
    }
    for (int i = 0; i < 2; i++) {
      b[2 * t + i * 8][g] = low(y[i]);
      b[2 * t + i * 8 + 1][g] = high(y[i]);
    }
  }
  multiply<16>(c, a, b);
}

WIDE void mma_tf32(const lane_args* args, float8 c[16]) {
  float a[16][8];
  float8 b[8];
  for (int l = 0; l < 32; l++) {
    const int g = l / 4, t = l % 4;
    const uint32_t *x = (const uint32_t*)args[l].q, *y = (const uint32_t*)args[l].r;
    for (int i = 0; i < 4; i++) a[g + i % 2 * 8][t + i / 2 * 4] = tf32(x[i]);
    for (int i = 0; i < 2; i++) b[t + i * 4][g] = tf32(y[i]);
  }
  multiply<8>(c, a, b);
}

// A matrix takes one cycle if its eight rows lie in different banks: 16 bytes
// are four of the 32, so the rows' addresses must differ modulo 128.
int lost_cycles(const lane_args* args) {
  int lost = 0;
  for (int m = 0; m < 4; m++) {
    int most = 1, rows[8] = {};
    for (int j = 0; j < 8; j++) {
      bool again = false;  // rows at one address are read once
      for (int i = 0; i < j; i++) again |= args[8 * m + i].q == args[8 * m + j].q;
      if (again) continue;
      const int n = ++rows[(uintptr_t)args[8 * m + j].q / 16 % 8];
      most = n > most ? n : most;
    }
    lost += most - 1;
  }
  return lost;
}

}  // namespace

void word_mma(float* c, const uint32_t* a, const uint32_t* b, bool is_tf32, const char* file, int line) {
  const entry inside;
  if (!meet(wait::mma, is_tf32, ~0u, {c, a, b, 0}, {file, line})) return;
  now.stats.mma++;
  const lane_args* args = current->w->args;
  float8 sum[16];
  for (int l = 0; l < 32; l++)
    for (int i = 0; i < 4; i++) sum[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2] = ((const float*)args[l].p)[i];
  is_tf32 ? mma_tf32(args, sum) : mma_bf16(args, sum);
  for (int l = 0; l < 32; l++)
    for (int i = 0; i < 4; i++) ((float*)args[l].p)[i] = sum[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2];
  leave(~0u);
}

void word_ldmatrix(uint32_t* r, const void* row, bool transposed, const char* file, int line) {
  const entry inside;
  const place at{file, line};
  if ((uintptr_t)row % 16) fault("misaligned: ldmatrix row at %s, at %s", describe_address(row).c_str(), describe(at).c_str());
  check_shared(row, 16, false, at, "ldmatrix reads");
  if (!meet(wait::ldmatrix, transposed, ~0u, {r, row, nullptr, 0}, at)) return;
  now.stats.ldmatrix++;
  now.stats.ldmatrix_conflicts += lost_cycles(current->w->args);
  const lane_args* args = current->w->args;
  for (int m = 0; m < 4; m++) {
    uint16_t x[8][8];
    for (int j = 0; j < 8; j++) memcpy(x[j], args[8 * m + j].q, 16);
    for (int l = 0; l < 32; l++) {
      const int g = l / 4, i = l % 4 * 2;
      const uint32_t lo = transposed ? x[i][g] : x[g][i], hi = transposed ? x[i + 1][g] : x[g][i + 1];
      ((uint32_t*)args[l].p)[m] = lo | hi << 16;
    }
  }
  leave(~0u);
}

}  // namespace vg_sim
