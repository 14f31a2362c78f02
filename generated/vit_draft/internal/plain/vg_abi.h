#ifndef VITGEN_COMMON_ABI_H
#define VITGEN_COMMON_ABI_H

// The contract between the host and a generated kernel library on the CPU.
//
// The host (Go) lays out one program as an array of launches and calls
// vg_run once per worker; the workers walk the launches together, with a
// barrier between two launches, so a whole training step costs one call per
// worker. Everything here is plain C and is mirrored by runtime/cpu.
#ifndef __CUDACC_RTC__  // which has its own, see cuda/types.cuh
#include <stddef.h>
#include <stdint.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

// What changes from step to step. Kernels read it through a pointer, so that
// a recorded program never has to be rewritten. Mirrored by runtime.StepScalars.
typedef struct vg_step {
  float lr;             // learning rate of this update
  float inv_n;          // 1 / samples of the effective batch
  float bias_corr1;     // AdamW: 1 / (1 - beta1^k), k = 1 for the first update
  float bias_corr2;     // AdamW: 1 / (1 - beta2^k)
  uint32_t seed_lo;     // Philox key
  uint32_t seed_hi;
  uint32_t micro_step;  // counts forward+backward passes since the start of training
  uint32_t dropout_on;  // 0: dropout and drop path are the identity
  float ema_weight;     // of the new parameters in their average: 1 - decay of this update
} vg_step;

typedef struct vg_launch {
  uint32_t kernel;     // index into the library's kernel table
  uint32_t arg_count;
  uint64_t first_arg;  // index into vg_program.args
} vg_launch;

// One barrier for all workers of a team; zero-initialized by the host, on a
// cache line of its own.
typedef struct vg_barrier {
  uint32_t arrived;
  uint32_t pad0[15];
  uint32_t phase;
  uint32_t pad1[15];
} vg_barrier;

typedef struct vg_program {
  const vg_launch* launches;
  void* const* args;         // every argument is a pointer
  const vg_step* step;
  char* workspace;           // shared by the workers, free for use within one launch; 64-byte aligned
  vg_barrier* barrier;
  uint64_t* launch_ns;       // NULL, or one slot a launch: nanoseconds, written by worker 0
  int32_t launch_count;
  int32_t batch;             // samples in this call, 1 .. the compiled batch
} vg_program;

// Private memory of one worker.
typedef struct vg_worker {
  int32_t index, count;
  char* scratch;             // 64-byte aligned, VG_SCRATCH_BYTES
} vg_worker;

#define VG_SCRATCH_BYTES (4u << 20)

#ifdef __cplusplus
}
#endif

#endif  // VITGEN_COMMON_ABI_H

