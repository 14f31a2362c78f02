// The kernel simulator as its host sees it: kernel tests, and the simulated
// driver. Link sim/runtime/*.cc.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string>

namespace vg_sim {

// A kernel, registered by VG_EXPORT.
struct kernel;
// A kernel object loaded from a shared object.
struct library;

struct options {
  // Fixes the schedule. 0: threads, warps and blocks in order, one block after
  // the other. ~0: the same backwards. Any other: random order, with several
  // blocks alive at a time.
  uint64_t seed = 1;
  bool faults = true;               // check the accesses of instrumented kernels
  bool traffic = false;             // count how instrumented accesses of a warp fall together: slower
  size_t shared_limit = 227 << 10;  // bytes of shared memory a block may ask for
};

// What one launch did.
struct statistics {
  uint64_t switches = 0;            // from thread to thread
  uint64_t schedule = 0;            // a hash of the order in which threads ran
  uint64_t barriers = 0, shuffles = 0, copies = 0, ldmatrix = 0, mma = 0;
  uint64_t ldmatrix_conflicts = 0;  // cycles lost to bank conflicts of ldmatrix
  uint64_t accesses = 0;            // to global and shared memory, of instrumented kernels
  // With options.traffic, of instrumented accesses grouped by instruction and
  // warp: how many groups there were, cycles lost to bank conflicts, and
  // 32-byte sectors of global memory moved against those that would do.
  uint64_t shared_requests = 0, shared_conflicts = 0;
  uint64_t global_requests = 0, global_sectors = 0, global_sectors_needed = 0;
};

// A kernel linked into this program, or the first of that name in a loaded
// library; a kernel of one library. Null if there is none.
const kernel* find(const char* name);
const kernel* find(const library*, const char* name);
// Loads a kernel object. Null, and says why in *error.
library* load(const char* path, std::string* error);
void unload(library*);

const char* name(const kernel*);
int max_threads(const kernel*);  // launch bound
int param_count(const kernel*);
bool checked(const kernel*);     // its file is instrumented

// Device memory: 256-byte aligned, poisoned (bytes 0xff: each float and each
// bf16 is a NaN), not initialized, and followed by a page that cannot be
// touched. Null if there is no more. Addresses are not used again.
void* alloc(size_t bytes, const char* name);
// A fault is reported by later accesses. False if p is no buffer, or is free.
bool free(void* p);
// The buffer that holds p: its first byte and size. False if there is none.
bool find_buffer(const void* p, void** base, size_t* bytes);

// What follows marks a range for instrumented kernels.
void wrote(void* p, size_t n);   // the host wrote it: it is initialized
void poison(void* p, size_t n);  // as if newly allocated
void forbid(void* p, size_t n);  // reading or writing it is a fault; until permit()
void permit(void* p, size_t n);
// Marks the range as output: none of it is written yet. Afterwards unwritten()
// returns "" if kernels have written all of it, else what they left out (and ""
// if a kernel that is not instrumented has run since, for then nobody knows).
void output(void* p, size_t n);
std::string unwritten(const void* p, size_t n);

// Runs a 1-D grid. params: pointers to the 8-byte arguments, as cuLaunchKernel
// takes them. Returns "" or a description of the fault: kernel, block, thread,
// what happened, address as buffer and offset, and for a race both parties. The
// launch ends with its first fault. May be called from any OS thread; launches
// wait for each other.
std::string launch(const kernel*, unsigned grid, unsigned block, size_t shared, void** params, const options& = {});

// Of the last launch; as text; and, with options.traffic, the source lines that
// lost cycles to bank conflicts or moved more sectors than needed, worst first.
const statistics& stats();
std::string stats_text();
std::string traffic_text();

// launch() with the arguments written out.
template <class... A>
std::string run(const kernel* k, unsigned grid, unsigned block, size_t shared, const options& o, A... args) {
  static_assert(((sizeof(A) == 8) && ... && true), "every argument of a kernel is 8 bytes");
  void* params[sizeof...(A) + 1] = {(void*)&args...};
  return launch(k, grid, block, shared, params, o);
}

}  // namespace vg_sim
