// What the files of the runtime share.
#pragma once
#include <stdint.h>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "../include/vg_sim_abi.h"
#include "../include/vg_sim_host.h"
#include "fiber.h"

namespace vg_sim {

// vg_sim::kernel is what a kernel object registered.
struct kernel : vg_sim_kernel {};

constexpr int max_threads_per_block = 1024, max_warps = max_threads_per_block / 32, max_barriers = 16;
constexpr uint8_t poison_byte = 0xff;  // 0xffff and 0xffffffff are NaNs

struct place {
  const char* file = nullptr;
  int line = 0;
};

// ---- the state of a launch

enum class wait : uint8_t { nothing, sync, sync_some, sync_warp, shuffle, ldmatrix, mma };

struct copy {  // a cp.async on its way
  char* to;
  const char* from;
  uint32_t bytes, group;
  bool valid;
  place at;
};

// What a thread did in one place of the kernel: a program counter or a word's
// place, in 32 bits (check.cc).
typedef uint32_t where;

// An access kept for traffic.cc.
struct logged {
  where at;
  uint8_t bytes;
  bool writes, is_shared;
  const char* p;
};

inline bool same(place a, place b) {
  return a.line == b.line && (a.file == b.file || __builtin_strcmp(a.file, b.file) == 0);
}

struct warp;
struct block;

struct thread {
  vg_sim_thread id;  // first: what the kernel sees
  warp* w;
  block* b;
  context flow;
  stack memory;
  bool exited;
  wait waits;    // for what
  place at;      // the word it waits in or came to last
  uint32_t open_group;  // of asynchronous copies, not committed yet
  std::vector<copy> copies;
  uint64_t epoch;        // of the checker: launch, block and thread; the clock is added
  std::vector<logged> log;
};

// What a lane brings to a meeting of its warp.
struct lane_args {
  void* p;
  const void *q, *r;
  int32_t from;
};

struct meeting {  // of the lanes `mask` of a warp
  wait kind;
  int detail;  // bytes shuffled; transposed; tf32
  uint32_t mask, arrived;
  place at;
};

struct warp {
  block* b;
  int index;
  uint32_t lanes;   // that exist
  uint32_t ready;   // that could run
  uint32_t exited;
  lane_args args[32];
  std::vector<meeting> meetings;
  // What happened in warp i of the block before its clock was clock[i] happened
  // before what this warp does now; clock[index] is its own (race.cc).
  uint32_t clock[max_warps];
};

struct barrier {
  int expected = 0;  // threads; 0: nobody waits
  int arrived = 0;
  uint32_t lanes[max_warps] = {};
  place at;
};

// A block that is alive, or the slot for one.
struct block {
  bool live = false;
  int index = 0, alive = 0;  // threads that have not exited
  int warps = 0;
  int slot = 0;
  uint32_t ready = 0;  // warps with a thread that could run
  int current_warp = 0;
  char* shared = nullptr;
  thread* threads = nullptr;
  warp w[max_warps];
  barrier bars[max_barriers];
  // The same for other blocks, by vg_arrive_last: block to clock.
  std::unordered_map<int, uint32_t> acquired;
  // What the threads that are in vg_arrive_last gave it.
  struct {
    int threads = 0;
    uint32_t *counter = nullptr, *slot = nullptr, count = 0;
  } arrival;
};

// A counter that blocks arrived at.
struct arrivals {
  uint32_t count;  // expected
  place at;
  std::unordered_map<int, uint32_t> released;  // what the last block acquires
};

struct launch_state {
  const vg_sim_kernel* kernel = nullptr;
  bool checked = false;  // accesses are checked
  options opt;
  unsigned grid = 0, threads = 0;
  size_t shared = 0;
  void** params = nullptr;
  uint64_t random = 1;
  enum { forward, backward, shuffled } order = shuffled;
  std::vector<block*> blocks;  // the slots
  unsigned live = 0, current_block = 0;
  context home;                // of launch()
  uint32_t budget = 0;         // accesses until another thread gets a turn
  std::unordered_map<uint32_t*, arrivals> counters;
  std::string fault;
  std::string suspicion;       // a fault held back
  statistics stats;
};
extern launch_state now;
extern thread* current;  // null outside a launch

// True while the runtime runs, not the kernel. Linked into one program with
// instrumented files it may run their copies of std:: functions; what these
// report is no access of the kernel. Threads are switched inside the runtime
// only, and a new one starts outside.
extern bool inside_runtime;
struct entry {
  entry() { inside_runtime = true; }
  ~entry() { inside_runtime = false; }
};

uint64_t next_random();
inline uint32_t random_below(uint32_t n) { return (uint32_t)((next_random() >> 32) * n >> 32); }

// ---- schedule.cc

// Lets other threads run; returns when this one is ready and chosen again.
void switch_away();
// The same for a thread that could go on: now and then, in a random schedule.
void maybe_yield();
void make_ready(warp& w, uint32_t lanes);
void unready(thread& t);

// ---- fault.cc

// Ends the launch.
[[noreturn]] void fault(const char* format, ...) __attribute__((format(printf, 1, 2)));
// A read of what nobody has written. Most often the writer comes too late, for
// want of a barrier: then a race tells more. So the launch goes on, and if that
// race does not show up, ends with this fault.
void suspect(const std::string& what);
[[noreturn]] void fault_race(const std::string& what);
std::string format(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string describe(place);
std::string describe_waits();  // who waits where: for a launch that cannot go on
std::string describe_address(const void*);
// A program counter, for a fault: replaced by its source line when the launch is over.
std::string describe_pc(const void* pc);
std::string resolve_pcs(const std::string&);
// Turns a bad access of the hardware's kind into a fault while a launch runs.
void catch_signals();
void release_signals();

// ---- words.cc, matrix.cc

extern const vg_sim_api api;
// Waits until all lanes of mask have come to the same word. True for the last
// of them, which does the work and calls leave().
bool meet(wait kind, int detail, uint32_t mask, const lane_args& args, place at);
void leave(uint32_t mask);
void do_sync(int id, int count, place at);
void land_copies(thread& t, uint32_t before_group);
void word_ldmatrix(uint32_t* r, const void* row, bool transposed, const char* file, int line);
void word_mma(float* c, const uint32_t* a, const uint32_t* b, bool tf32, const char* file, int line);

// ---- check.cc: accesses of instrumented kernels, and those of words

void check_launch_begins();
where here(place);        // a word's place
where here(const void* pc);
std::string describe(where);
void word_access(const void* p, size_t bytes, unsigned how, const void* pc);
void word_misaligned(const void* p, size_t alignment, const char* type, const char* file, unsigned line);
// An access by a word, `what` it does: "cp.async from" and the like.
void check_global(const void* p, size_t n, bool writes, place at, const char* what);
void check_shared(const void* p, size_t n, bool writes, place at, const char* what);
void check_counter(const uint32_t* counter, place at);
// The target of an asynchronous copy is nobody's to touch until it has landed.
void copy_begins(void* to, size_t n);
void copy_lands(const copy&);

// ---- race.cc

void race_launch_begins();
void race_block_begins(block&);
// Whole warps have met: what each did before happened before what all do next.
void race_sync(block&, const uint32_t* lanes);
void race_sync_warp(warp&);
void race_arrive(arrivals&, bool last);
// An access of the running thread: a fault if it races with an earlier one.
struct space;
void check_races(space&, const char* p, size_t n, bool writes, where at);

// ---- traffic.cc

void traffic_launch_begins();
void log_access(const void* p, size_t n, bool writes, bool is_shared, where at);
void flush_traffic(warp&);  // the warp's lanes have met

// ---- memory.cc

// Calls of the host wait for each other, and for a launch.
extern std::recursive_mutex host_lock;
struct host_call {
  std::lock_guard<std::recursive_mutex> held{host_lock};
};

struct allocation {
  char* p;
  size_t bytes;
  std::string name;
  bool freed;
};
const allocation* find_allocation(const void* p);  // also one that ends shortly before p
// Before a launch: what is written in an unchecked one stays unknown.
void note_launch(bool checked);
// Forgets all cells.
void clear_cells();
// Memory for slot i, `bytes` long, poisoned, with a guard page at its end. Null if there is none.
char* shared_memory(unsigned slot, size_t bytes);

}  // namespace vg_sim
