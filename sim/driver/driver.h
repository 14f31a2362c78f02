// The simulated driver's state: what its entry points, grouped by subject into
// the .cc files of this folder, work on.
//
// Nothing runs when it is submitted. Every asynchronous operation becomes an Op
// that knows which Ops must come before it, and runs when the host waits for it
// (queue.cc), in an order that the seed chooses among the allowed ones. So a
// missing wait is not hidden by a device that happens to be fast.
//
// One lock serves everything; it is held while kernels run.
#pragma once
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <variant>
#include <vector>

#include "config.h"
#include "handles.h"

namespace vg_sim {
struct kernel;
struct library;
}

namespace vg_driver {

struct Capture;
struct Event;
struct Op;
struct Stream;
using OpPtr = std::shared_ptr<Op>;

struct Context {
  CUcontext handle = nullptr;
  int device = 0;
  unsigned flags = 0;
  bool primary = false;
  CUresult sticky = CUDA_SUCCESS;  // once a kernel has failed, every call fails
  std::shared_ptr<Stream> legacy;  // the default stream
  std::map<std::thread::id, std::shared_ptr<Stream>> per_thread;
};

// ---- memory

struct Allocation {
  enum class Kind { device, pinned, registered } kind;
  uintptr_t base;
  size_t bytes;  // as asked for
  size_t taken;  // of the device's memory, or of the host's address space
  std::shared_ptr<Context> context;
  bool leaving = false;  // cuMemFreeAsync named it; what was submitted before still uses it
};

// ---- modules

struct Function {
  CUfunction handle = nullptr;
  CUmodule module = nullptr;
  std::string name;
  const vg_sim::kernel* kernel = nullptr;
  int max_dynamic_shared = 48 << 10;
  int carveout = -1;
};

struct Module {
  CUmodule handle = nullptr;
  std::shared_ptr<Context> context;
  const vg_sim::library* library = nullptr;
  std::map<std::string, std::shared_ptr<Function>> functions;
};

// ---- work

struct Launch {
  std::shared_ptr<Function> function;
  unsigned grid, block;
  size_t shared;
  std::vector<uint64_t> args;
};

struct Copy {
  enum class Kind { h2d, d2h, d2d, h2h } kind;
  uintptr_t to, from;
  size_t bytes;
  std::shared_ptr<std::vector<char>> staged;  // of pageable memory: read when submitted
  bool pinned = false;                        // or, asynchronous, to or from pinned memory
  bool checked = false;                       // read when run, which must find what was there
  uint64_t sum = 0;                           // when it was submitted
};

struct Fill {
  uintptr_t to;
  uint32_t value;
  int width;  // bytes of an element
  size_t count;
};

struct HostCall {
  CUhostFn function;
  void* data;
};

// One recording of an event.
struct Record {
  OpPtr op;
  double ms = 0;  // when it ran
};

struct RecordEvent {
  std::shared_ptr<Event> event;
  std::shared_ptr<Record> record;
};

// Frees what cuMemFreeAsync named.
struct Release {
  uintptr_t base;
};

// monostate: nothing, only an order.
using Work = std::variant<std::monostate, Launch, Copy, Fill, HostCall, RecordEvent, Release>;

struct Op {
  uint64_t number;  // in the order of submission
  std::shared_ptr<Context> context;
  Work work;
  std::vector<OpPtr> after;
  bool done = false;
};

// ---- streams, events, graphs

struct Node {
  CUgraphNode handle = nullptr;
  Work work;
  std::vector<Node*> after;
  size_t index = 0;                 // in its graph
  std::vector<void*> param_pointers;  // what cuGraphKernelNodeGetParams hands out
};

struct Graph {
  CUgraph handle = nullptr;
  std::vector<std::shared_ptr<Node>> nodes;
};

struct GraphExec {
  CUgraphExec handle = nullptr;
  std::shared_ptr<Context> context;
  std::vector<std::shared_ptr<Node>> nodes;  // copies, with `after` among them
  std::map<CUgraphNode, size_t> index;       // by the handle in the graph it was made from
  OpPtr last;                                // a graph does not overlap itself
  size_t number = 0;                         // in the statistics
};

struct Stream {
  CUstream handle = nullptr;
  std::shared_ptr<Context> context;
  bool blocking = true;  // waits for the default stream, and it for this one
  unsigned flags = 0;
  int priority = 0;
  OpPtr last;
  std::shared_ptr<Capture> capture;
  std::vector<Node*> tail;  // while capturing: what the next node comes after
};

struct Capture {
  int mode;
  std::thread::id thread;
  Stream* origin;  // null when it has ended
  std::shared_ptr<Graph> graph;
  bool valid = true;
  std::vector<std::shared_ptr<Stream>> streams;
};

struct Event {
  CUevent handle = nullptr;
  std::shared_ptr<Context> context;
  unsigned flags = 0;
  std::shared_ptr<Record> last;
  std::shared_ptr<Capture> capture;  // set if last recorded in a capture
  std::vector<Node*> tail;
};

// ---- everything

struct GraphStats {
  size_t nodes = 0, kernels = 0, copies = 0, fills = 0, launches = 0;
};

struct Stats {
  std::map<std::string, uint64_t> calls, failed;  // by entry point
  uint64_t kernels = 0, fills = 0, host_waits = 0;
  uint64_t copies[4] = {}, bytes[4] = {};  // run, by Copy::Kind
  size_t peak = 0;  // bytes of device memory
  std::vector<GraphStats> graphs;
};

struct Driver {
  std::mutex lock;
  Config config;
  bool initialized = false;
  std::mt19937_64 random{1};
  Stats stats;
  std::string fault;  // the first one's text

  Handles<CUcontext, Context> contexts;
  Handles<CUmodule, Module> modules;
  Handles<CUfunction, Function> functions;
  Handles<CUstream, Stream> streams;
  Handles<CUevent, Event> events;
  Handles<CUgraph, Graph> graphs;
  Handles<CUgraphNode, Node> nodes;
  Handles<CUgraphExec, GraphExec> execs;
  std::vector<CUcontext> primary;  // by device; null if nobody retains it
  std::vector<int> primary_users;
  std::vector<CUmemoryPool> pools;
  std::vector<size_t> used;  // bytes, by device

  std::map<uintptr_t, Allocation> memory;  // by base
  std::map<uint64_t, OpPtr> pending;       // by number
  uint64_t submitted = 0, launched = 0;
  std::vector<std::shared_ptr<Capture>> captures;  // under way
};

Driver& driver();

// device.cc
void check_device(CUdevice);  // that there is one

// context.cc
std::shared_ptr<Context> current_context();  // or fails
std::shared_ptr<Context> find_context(CUcontext);

// memory.cc
const Allocation* find_memory(uintptr_t p);  // the allocation p lies in, or null
bool on_device(uintptr_t p, size_t bytes);   // all of it, in one allocation
bool was_on_device(uintptr_t p, size_t bytes);  // the same, or it is leaving
bool pinned(uintptr_t p, size_t bytes);
void release(uintptr_t base);

// queue.cc
std::shared_ptr<Stream> find_stream(const std::shared_ptr<Context>&, CUstream);
OpPtr submit(Stream&, Work);  // null if it was captured
OpPtr enqueue(const std::shared_ptr<Context>&, std::vector<OpPtr> after, Work);
std::vector<OpPtr> before_next(Stream&);  // what the next operation of a stream waits for
void wait_for(const std::vector<OpPtr>&);  // runs them; the host waits
void wait_for_stream(Stream&);
void wait_for_context(const Context&);
bool poll(const std::vector<OpPtr>&);  // are they done? Does a little of what is left

// work.cc
void run(Op&);
void prepare(Copy&);  // at the moment it is submitted
uint64_t host_sum(uintptr_t p, size_t bytes);

// launch.cc
struct Dim {
  unsigned x, y, z;
};
Launch make_launch(CUfunction, Dim grid, Dim block, unsigned shared, void** params, void** extra);  // or fails

// capture.cc
void forbid_in_capture();  // fails if this thread may not call what could disturb a capture
void invalidate(Capture&);
void end_capture(Capture&);             // forgets it
void capture_work(Stream&, Work);       // adds a node
void not_while_capturing(Stream&);      // fails, and invalidates the capture

// stats.cc
void host_waited();  // the host has waited for the device
void write_stats();
std::string stats_json();
void trace(const std::string& line);

}  // namespace vg_driver
