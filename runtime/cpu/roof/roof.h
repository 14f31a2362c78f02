// What the loops of this package measure, and the one way in. Plain C: cgo reads
// it too.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { ROOF_FMA, ROOF_READ, ROOF_WRITE, ROOF_COPY };

typedef struct roof_result {
  double seconds;  // from the common start to the end of the last thread; 0: a thread could not start
  double least;    // the shortest time of a thread, without waiting for a core at its start
  double work;     // FLOPs or bytes, of all threads
} roof_result;

// isa: 0 plain, 1 AVX2, 2 AVX-512. Runs `rounds` rounds of an op on each of `threads` threads, all at once, each on
// a core of its own if there are as many. A round
// of ROOF_FMA stays in registers; one of the others goes once over the thread's own
// `bytes` (a multiple of 1024) at data + thread * bytes. ROOF_COPY reads the first
// half of them and writes the second.
roof_result roof_run(int isa, int op, int threads, uintptr_t data, size_t bytes, uint64_t rounds);

#ifdef __cplusplus
}
#endif
