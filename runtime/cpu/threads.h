// A team of workers as threads of the operating system: all but worker 0, which
// is whoever calls vg_threads_run.
#ifndef VG_THREADS_H
#define VG_THREADS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vg_program;  // as in the kernels' abi.h; only handed on here
struct vg_worker;
typedef void (*vg_entry)(const struct vg_program*, struct vg_worker*);
typedef struct vg_threads vg_threads;

// Starts the threads of workers 1 .. count-1. Worker i, a vg_worker, is at
// workers + i*stride. *error is 0, or the errno of a failure, and then the
// result is NULL.
vg_threads* vg_threads_start(vg_entry entry, uintptr_t workers, uintptr_t stride, int count, int* error);

// Every worker runs the program; returns when all have, and none touches the
// program or its worker any more. One caller at a time.
void vg_threads_run(vg_threads* t, uintptr_t program);

// Ends the threads and waits for them. No run may be under way. NULL is nothing.
void vg_threads_stop(vg_threads* t);

#ifdef __cplusplus
}
#endif
#endif
