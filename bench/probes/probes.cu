// Runs every probe and prints what it wrote:
//
//   probes            all, in the order of the table below
//   probes --list     their names
//
// Compiled by nvcc it runs on device 0, compiled by g++ with -DVG_SIM on the
// kernel simulator, where VITGEN_SIM_SEED chooses the schedule. bench/gpu.sh
// compares the two dumps.
//
// A dump has a line for each probe: its name; how its words compare (exact: all
// bits; ulp4: floats at most four steps apart; note: a difference is worth
// knowing and is no failure); how many words a thread wrote; how many there are.
// Then the words in hex.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "library.cuh"
#include "matrix.cuh"
#include "words.cuh"

typedef void (*probe_kernel)(const uint32_t*, uint32_t*, char*, uint64_t);

struct probe {
  const char* name;
  probe_kernel kernel;
  const char* compare;
  unsigned grid, block, shared;
  int per_thread, words;
};

#define GEMM(name, kind, math, splits) \
  {#name, name, "exact", (unsigned)probe_tile<kind, vg_math::math, splits>::blocks(probe_m, probe_n), \
   64, (unsigned)probe_tile<kind, vg_math::math, splits>::shared_bytes, 1, kind == vg_tn ? probe_gemm_words : probe_m * probe_n}

static const probe probes[] = {
    {"probe_ids", probe_ids, "exact", 2, 96, 256, 8, 2 * 96 * 8},
    {"probe_shuffle", probe_shuffle, "exact", 1, 64, 0, 8, 64 * 8},
    {"probe_barriers", probe_barriers, "exact", 1, 128, 2048, 4, 128 * 4},
    {"probe_copies", probe_copies, "exact", 1, 32, 1024, 4, 256},
    {"probe_arrivals", probe_arrivals, "exact", 8, 64, 128, 1, 195},
    {"probe_tf32", probe_tf32, "exact", 1, 256, 0, 1, 1024},
    {"probe_bf16", probe_bf16, "exact", 1, 256, 0, 1, 1024 + 256},
    {"probe_nans", probe_nans, "note", 1, 32, 0, 2, 16},
    {"probe_exact", probe_exact, "exact", 1, 256, 0, 4, 2048},
    {"probe_functions", probe_functions, "ulp4", 1, 256, 0, 4, 2048},
    {"probe_ldmatrix", probe_ldmatrix, "exact", 1, 32, 32 * 48, 4, 128},
    {"probe_ldmatrix_t", probe_ldmatrix_t, "exact", 1, 32, 32 * 48, 4, 128},
    {"probe_product_bf16", probe_product_bf16, "exact", 1, 32, 0, 4, 6 * 128},
    {"probe_product_tf32", probe_product_tf32, "exact", 1, 32, 0, 4, 5 * 128},
    {"probe_subnormals", probe_subnormals, "note", 1, 32, 0, 4, 2 * 128},
    {"probe_fragments_bf16", probe_fragments_bf16, "exact", 1, 32, 2048, 4, 4 * 4 * 128},
    {"probe_fragments_tf32", probe_fragments_tf32, "exact", 1, 32, 2048, 4, 4 * 4 * 128},
    GEMM(probe_gemm_nt_fp32, vg_nt, fp32, 1),
    GEMM(probe_gemm_nn_fp32, vg_nn, fp32, 1),
    GEMM(probe_gemm_tn_fp32, vg_tn, fp32, 3),
    GEMM(probe_gemm_nt_tf32, vg_nt, tf32, 1),
    GEMM(probe_gemm_nn_tf32, vg_nn, tf32, 1),
    GEMM(probe_gemm_tn_tf32, vg_tn, tf32, 3),
    GEMM(probe_gemm_nt_bf16, vg_nt, bf16, 1),
    GEMM(probe_gemm_nn_bf16, vg_nn, bf16, 1),
    GEMM(probe_gemm_tn_bf16, vg_tn, bf16, 2),
    GEMM(probe_gemm_nt_mixed, vg_nt, bf16, 1),
    {"probe_dropout", probe_dropout, "exact", 1, 64, 0, 4, 768 + 64},
};

static void die(const char* what, const char* why) {
  fprintf(stderr, "probes: %s: %s\n", what, why);
  exit(1);
}

#ifdef VG_SIM
#include "run_sim.h"
#else
#include "run_cuda.h"
#endif

// What every probe reads.
static void fill(uint32_t* in) {
  for (uint32_t i = 0; i < probe_random; i++) in[i] = probe_hash(i);
  float* floats = (float*)(in + probe_random);
  for (uint32_t i = 0; i < probe_floats; i++) floats[i] = (float)probe_small(i + 100000u);
  uint16_t* halves = (uint16_t*)(in + probe_random + probe_floats);
  for (uint32_t i = 0; i < probe_halves; i++) {
    const float x = (float)probe_small(i + 200000u);
    uint32_t bits;
    memcpy(&bits, &x, 4);
    halves[i] = (uint16_t)(bits >> 16);  // small whole numbers need no rounding
  }
}

static void print(const probe& p, const uint32_t* words) {
  printf("%s %s %d %d\n", p.name, p.compare, p.per_thread, p.words);
  for (int i = 0; i < p.words; i++) printf("%x%c", words[i], i % 16 == 15 || i == p.words - 1 ? '\n' : ' ');
}

int main(int argc, char** argv) {
  if (argc > 1 && !strcmp(argv[1], "--list")) {
    for (const probe& p : probes) printf("%s\n", p.name);
    return 0;
  }
  static uint32_t in[probe_in_words], out[probe_out_words];
  fill(in);
  runner run(in);
  fprintf(stderr, "probes: on %s\n", run.device());
  for (const probe& p : probes) {
    if (p.words > probe_out_words) die(p.name, "writes more than the dump holds");
    run(p, out);
    print(p, out);
  }
}
