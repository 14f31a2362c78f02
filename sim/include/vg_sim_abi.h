// The boundary between a kernel file compiled for the simulator and the
// simulator's runtime: plain structs and tables of functions, so that a kernel
// file may be linked with the runtime into one program or be a shared object
// that the runtime loads.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define VG_SIM_ABI_VERSION 1

// Who a simulated thread is.
struct vg_sim_thread {
  int32_t thread, threads;
  int32_t block, blocks;
  char* shared;  // of its block
};

// What the words of vg_sim.h ask of the runtime. file and line say where in the
// kernel's source a word stands.
struct vg_sim_api {
  uint32_t version;
  vg_sim_thread* const* current;  // the thread that runs now; null outside a launch

  void (*sync)(int id, int count, const char* file, int line);  // id 0: all of the block
  void (*sync_warp)(const char* file, int line);
  void (*shuffle)(void* x, int bytes, int from, uint32_t mask, const char* file, int line);  // x: in and out
  bool (*arrive_last)(uint32_t* counter, uint32_t count, uint32_t* slot, const char* file, int line);

  void (*cp_async)(void* to, const void* from, int bytes, bool valid, const char* file, int line);
  void (*cp_async_commit)(const char* file, int line);
  void (*cp_async_wait)(int groups, const char* file, int line);

  void (*ldmatrix)(uint32_t* r, const void* row, bool transposed, const char* file, int line);
  void (*mma)(float* c, const uint32_t* a, const uint32_t* b, bool tf32, const char* file, int line);

  // A memory access of an instrumented kernel file. `how` is a sum of vg_sim_how.
  void (*access)(const void* p, size_t bytes, unsigned how, const void* pc);
  // An access through a pointer that is not aligned as its type asks.
  void (*misaligned)(const void* p, size_t alignment, const char* type, const char* file, unsigned line);
};

enum vg_sim_how : unsigned { vg_sim_reads = 0, vg_sim_writes = 1, vg_sim_atomic = 2, vg_sim_unaligned = 4 };

struct vg_sim_kernel {
  const char* name;
  void (*run)(void** params);  // unpacks the arguments
  int32_t params;              // number of arguments, 8 bytes each
  int32_t threads, blocks;     // launch bounds
  vg_sim_kernel* next;
};

// A kernel object: what vg_sim_module_init returns.
struct vg_sim_module {
  uint32_t version;
  int32_t checked;              // compiled with -fsanitize=thread: accesses are reported
  vg_sim_kernel* const* first;  // its kernels, a list
};
