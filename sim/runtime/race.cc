// Finds data races: two accesses to one byte, at least one of them a write, by
// different threads, that no barrier orders. It does not wait for a schedule in
// which the race does harm.
//
// Time is counted in clocks of warps. A warp's own clock advances at every
// barrier it takes part in, and it keeps the latest clock it has seen of each
// other warp of its block. An access by warp w at clock c happened before what
// warp v does now iff v has seen a clock of w above c. Lanes of a warp are
// ordered by vg_sync_warp and block barriers alone: shuffles and matrix words
// order no memory. Blocks are ordered by vg_arrive_last alone.
//
// For every four bytes a cell holds the last write and the reads since. It is
// split into a cell for each byte where threads share the four.
#include <string.h>

#include "internal.h"
#include "shadow.h"

namespace vg_sim {
namespace {

// An epoch: who and when. launch:13 kind:2 block:20 thread:10 clock:19.
constexpr int clock_bits = 19, thread_bits = 10, block_bits = 20;
constexpr int thread_at = clock_bits, block_at = thread_at + thread_bits, kind_at = block_at + block_bits, launch_at = kind_at + 2;
constexpr uint64_t kind_single = 0, kind_many = (uint64_t)1 << kind_at;  // w: split; r: a list of readers
constexpr uint32_t last_launch = (1u << 13) - 1, last_clock = (1u << clock_bits) - 1;

uint32_t launch_number = 0;

int clock_of(uint64_t e) { return e & last_clock; }
int thread_of(uint64_t e) { return e >> thread_at & ((1 << thread_bits) - 1); }
int block_of(uint64_t e) { return e >> block_at & ((1 << block_bits) - 1); }
bool is_many(uint64_t e) { return e & kind_many; }

// Readers of a cell beyond the first warp: a list.
struct reader {
  uint64_t e;
  uint32_t lanes, at, next;
};
struct pools {
  std::vector<reader> readers;
  std::vector<cell> cells;  // four for each split
  uint32_t free_reader = 0, free_cells = 0;
  void clear() {
    readers.assign(1, reader()), cells.assign(4, cell());  // 0 is no link
    free_reader = free_cells = 0;
  }
};
pools pool;
// Readers kept of one cell of global memory; a weight is read by every block.
// Of shared memory all warps are kept.
constexpr int most_global_readers = 4;

struct access_now {
  const space& s;
  bool is_shared, writes;
  uint64_t e;
  uint32_t bit;
  where at;
};

// Whether an epoch belongs to an access that matters: of this launch, and in
// shared memory of this block.
bool fresh(const access_now& a, uint64_t e) {
  if (e >> launch_at != launch_number) return false;
  return !a.is_shared || block_of(e) == current->id.block;
}

// Whether the access at e by `lanes` of its warp happened before now.
bool ordered(uint64_t e, uint32_t lanes, uint32_t my_bit) {
  const block& b = *current->b;
  if (block_of(e) != b.index) {
    auto seen = b.acquired.find(block_of(e));
    return seen != b.acquired.end() && seen->second > (uint32_t)clock_of(e);
  }
  const int w = thread_of(e) / 32;
  if (current->w->clock[w] > (uint32_t)clock_of(e)) return true;
  return w == current->w->index && !(lanes & ~my_bit);
}

uint32_t lane_bit(uint64_t e) { return 1u << (thread_of(e) & 31); }

[[noreturn]] void race(const access_now& a, const char* p, uint64_t e, uint32_t lanes, bool wrote, where at) {
  int thread = thread_of(e);
  if (!(lanes >> (thread & 31) & 1) || thread == current->id.thread) {  // some other lane than oneself
    const uint32_t others = thread / 32 == current->w->index && block_of(e) == current->id.block ? lanes & ~a.bit : lanes;
    if (others) thread = thread / 32 * 32 + __builtin_ctz(others);
  }
  const bool same_block = block_of(e) == current->id.block;
  const char* missing = !same_block                             ? "data race between blocks"
                        : thread / 32 == current->w->index ? "missing barrier within a warp: data race"
                                                           : "missing barrier: data race";
  fault_race(format("%s: %s %s at %s; block %d, thread %d %s it at %s, and nothing orders the two", missing,
                    a.writes ? "writes" : "reads", describe_address(p).c_str(), describe(a.at).c_str(), block_of(e), thread,
                    wrote ? "wrote" : "read", describe(at).c_str()));
}

void free_readers(cell& c) {
  while (c.link) {
    const uint32_t next = pool.readers[c.link].next;
    pool.readers[c.link].next = pool.free_reader;
    pool.free_reader = c.link;
    c.link = next;
  }
}

uint32_t new_reader() {
  if (uint32_t i = pool.free_reader) {
    pool.free_reader = pool.readers[i].next;
    return i;
  }
  pool.readers.push_back({});
  return pool.readers.size() - 1;
}

bool same_warp(uint64_t e, uint64_t f) { return block_of(e) == block_of(f) && thread_of(e) / 32 == thread_of(f) / 32; }

// Adds a read by a warp to the one that (e, lanes, at) describes. False if that
// is another warp's and must be kept.
bool merge_reader(const access_now& a, uint64_t& e, uint32_t& lanes, uint32_t& at) {
  if (same_warp(e, a.e)) {
    lanes = clock_of(e) == clock_of(a.e) ? lanes | a.bit : a.bit;
  } else if (ordered(e, lanes, a.bit)) {
    lanes = a.bit;  // who is ordered after this read is ordered after that one
  } else {
    return false;
  }
  e = (e & kind_many) | a.e, at = a.at;
  return true;
}

// Gives back what a cell of shared memory held of an earlier block.
void retire(cell& c) {
  if (c.r >> launch_at == launch_number && is_many(c.r)) free_readers(c);
  if (c.w >> launch_at == launch_number && is_many(c.w)) {
    const uint32_t i = c.link;
    for (int b = 0; b < 4; b++) retire(pool.cells[i + b]);
    pool.cells[i].link = pool.free_cells;
    pool.free_cells = i;
  }
  c = cell();
}

void add_read(cell& c, const access_now& a) {
  if (!c.r || !fresh(a, c.r)) {
    c.r = a.e, c.lanes = a.bit, c.r_at = a.at, c.link = 0;
    return;
  }
  if (merge_reader(a, c.r, c.lanes, c.r_at)) return;
  int n = 1;
  uint32_t i = is_many(c.r) ? c.link : 0, last = 0;
  for (; i; i = pool.readers[i].next, n++) {
    reader& r = pool.readers[i];
    if (merge_reader(a, r.e, r.lanes, r.at)) return;
    last = i;
  }
  if (!a.is_shared && n >= most_global_readers) {  // the oldest stays, the youngest gives way
    pool.readers[last].e = a.e, pool.readers[last].lanes = a.bit, pool.readers[last].at = a.at;
    return;
  }
  i = new_reader();
  pool.readers[i] = {a.e, a.bit, a.at, is_many(c.r) ? c.link : 0};
  c.link = i;
  c.r |= kind_many;
}

void touch(cell& c, const access_now& a, const char* p) {
  if (c.w && c.w != a.e && fresh(a, c.w) && !ordered(c.w, lane_bit(c.w), a.bit)) race(a, p, c.w, lane_bit(c.w), true, c.w_at);
  if (!a.writes) return add_read(c, a);
  if (c.r && fresh(a, c.r)) {
    if (!ordered(c.r, c.lanes, a.bit)) race(a, p, c.r, c.lanes, false, c.r_at);
    if (is_many(c.r)) {
      for (uint32_t i = c.link; i; i = pool.readers[i].next) {
        const reader& r = pool.readers[i];
        if (!ordered(r.e, r.lanes, a.bit)) race(a, p, r.e, r.lanes, false, r.at);
      }
      free_readers(c);
    }
  }
  c.w = a.e, c.w_at = a.at, c.r = 0, c.link = 0;
}

// The cells of the four bytes of c.
cell* split(cell& c, const access_now& a) {
  if (c.w && is_many(c.w) && fresh(a, c.w)) return &pool.cells[c.link];
  const bool had_write = c.w && fresh(a, c.w), had_read = c.r && fresh(a, c.r);
  uint32_t i = pool.free_cells;
  if (i)
    pool.free_cells = pool.cells[i].link;
  else
    i = pool.cells.size(), pool.cells.resize(i + 4);
  for (int b = 0; b < 4; b++) {
    cell& part = pool.cells[i + b] = cell();
    if (had_write) part.w = c.w, part.w_at = c.w_at;
    if (!had_read) continue;
    part.r = c.r & ~kind_many, part.lanes = c.lanes, part.r_at = c.r_at;
    for (uint32_t j = is_many(c.r) ? c.link : 0; j; j = pool.readers[j].next) {
      const uint32_t k = new_reader();
      pool.readers[k] = pool.readers[j];
      pool.readers[k].next = part.link;
      part.link = k, part.r |= kind_many;
    }
  }
  if (had_read && is_many(c.r)) free_readers(c);
  c = cell();
  c.w = a.e | kind_many, c.link = i;
  return &pool.cells[i];
}

// All four bytes were written by one thread: one cell is enough again.
void join(cell& c, const access_now& a) {
  const uint32_t i = c.link;
  c = cell();
  c.w = a.e, c.w_at = a.at;
  pool.cells[i].link = pool.free_cells;
  pool.free_cells = i;
}

}  // namespace

void check_races(space& s, const char* p, size_t n, bool writes, where at) {
  const uint32_t clock = current->w->clock[current->w->index];
  const access_now a = {s, &s == &shared, writes, current->epoch | clock, 1u << (current->id.thread & 31), at};
  const size_t from = p - s.base, to = from + n;
  for (size_t word = from / 4; word * 4 < to; word++) {
    cell& c = s.cells[word];
    if (a.is_shared && (c.w | c.r) && !fresh(a, c.w) && !fresh(a, c.r)) retire(c);
    const bool whole = word * 4 >= from && word * 4 + 4 <= to;
    const bool is_split = c.w && is_many(c.w) && fresh(a, c.w);
    if (whole && !is_split) {
      if (!writes && c.r == a.e && c.lanes == a.bit) continue;
      touch(c, a, s.base + word * 4);
      continue;
    }
    cell* parts = split(c, a);
    for (size_t b = 0; b < 4; b++)
      if (word * 4 + b >= from && word * 4 + b < to) touch(parts[b], a, s.base + word * 4 + b);
    if (whole && writes) join(c, a);
  }
}

void race_launch_begins() {
  if (now.grid > 1u << block_bits) {
    now.fault = format("%s: %u blocks are more than the checker can tell apart", now.kernel->name, now.grid);
    return;
  }
  if (++launch_number > last_launch) {
    clear_cells();
    launch_number = 1;
  }
  pool.clear();
}

void race_block_begins(block& b) {
  b.acquired.clear();
  for (int i = 0; i < b.warps; i++) {
    memset(b.w[i].clock, 0, sizeof b.w[i].clock);
    b.w[i].clock[i] = 1;
  }
  for (unsigned i = 0; i < now.threads; i++)
    b.threads[i].epoch = (uint64_t)launch_number << launch_at | (uint64_t)b.index << block_at | (uint64_t)i << thread_at;
}

static uint32_t tick(uint32_t clock) {
  if (clock >= last_clock) fault("more barriers than the checker can count");
  return clock + 1;
}

void race_sync(block& b, const uint32_t* lanes) {
  uint32_t joined[max_warps] = {}, latest = 0;
  bool all = true;
  for (int i = 0; i < b.warps; i++) {
    if (!lanes[i]) {
      all = false;
      continue;
    }
    warp& w = b.w[i];
    w.clock[i] = tick(w.clock[i]);
    latest = w.clock[i] > latest ? w.clock[i] : latest;
    for (int j = 0; j < b.warps; j++) joined[j] = w.clock[j] > joined[j] ? w.clock[j] : joined[j];
  }
  // After a barrier of the whole block one number says it all (race_arrive).
  if (all)
    for (int j = 0; j < b.warps; j++) joined[j] = latest;
  for (int i = 0; i < b.warps; i++)
    if (lanes[i]) memcpy(b.w[i].clock, joined, sizeof joined);
}

void race_sync_warp(warp& w) { w.clock[w.index] = tick(w.clock[w.index]); }

void race_arrive(arrivals& counter, bool last) {
  block& b = *current->b;
  auto join = [](std::unordered_map<int, uint32_t>& to, const std::unordered_map<int, uint32_t>& from) {
    for (const auto& [block, clock] : from)
      if (uint32_t& c = to[block]; c < clock) c = clock;
  };
  counter.released[b.index] = current->w->clock[current->w->index];
  join(counter.released, b.acquired);
  if (!last) return;
  join(b.acquired, counter.released);
  counter.released.clear();
}

}  // namespace vg_sim
