// launch(): which thread runs when.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <numeric>

#include "internal.h"

namespace vg_sim {


launch_state now;
thread* current = nullptr;
bool inside_runtime = false;

namespace {

constexpr unsigned most_live = 3;  // blocks alive at a time

uint64_t scramble(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

// The place of one of the bits of mask, as the order of the launch has it; where
// that is random, by five bits of random.
int choose(uint32_t mask, unsigned random) {
  if (now.order == launch_state::forward) return __builtin_ctz(mask);
  if (now.order == launch_state::backward) return 31 - __builtin_clz(mask);
  const unsigned turn = random & 31;
  const uint32_t turned = mask >> turn | mask << (-turn & 31);
  return (__builtin_ctz(turned) + turn) & 31;
}

block* choose_block(bool stay) {
  block* b = now.blocks[now.current_block];
  if (b->ready && stay) return b;
  const unsigned n = now.blocks.size(), first = now.order == launch_state::shuffled ? random_below(n) : 0;
  for (unsigned i = 0; i < n; i++) {
    const unsigned j = (first + i) % n;
    if (!now.blocks[j]->ready) continue;
    now.current_block = j;
    return now.blocks[j];
  }
  return nullptr;
}

thread* choose_thread() {
  // In a random order the block changes one time in 16, the warp one in 8.
  const bool random = now.order == launch_state::shuffled;
  const uint64_t r = random ? next_random() >> 32 : 0;
  block* b = choose_block(!random || r & 15);
  if (!b) return nullptr;
  if (!(b->ready >> b->current_warp & 1) || (random && !(r >> 4 & 7))) b->current_warp = choose(b->ready, r >> 7);
  warp& w = b->w[b->current_warp];
  return &b->threads[b->current_warp * 32 + choose(w.ready, r >> 12)];
}

void go(context* from, thread* t) {
  current = t;
  now.stats.switches++;
  now.stats.schedule = (now.stats.schedule ^ (uint64_t)(t->id.block * 1024 + t->id.thread)) * 0x100000001b3u;
  switch_context(from, &t->flow);
}

void go_home(context* from) {
  current = nullptr;
  switch_context(from, &now.home);
}

// What a simulated thread is.
void thread_main() {
  inside_runtime = false;
  now.kernel->run(now.params);
  inside_runtime = true;
  thread& t = *current;
  t.exited = true;
  t.w->exited |= 1u << (t.id.thread & 31);
  unready(t);
  if (--t.b->alive == 0) {
    if (now.opt.traffic)
      for (int i = 0; i < t.b->warps; i++) flush_traffic(t.b->w[i]);
    t.b->live = false;
    now.live--;
    go_home(&t.flow);
  }
  switch_away();
}

void start_block(block& b, int index) {
  b.live = true;
  b.index = index;
  b.alive = now.threads;
  b.warps = (now.threads + 31) / 32;
  b.ready = 0;
  b.current_warp = 0;
  b.shared = shared_memory(b.slot, now.shared);
  if (!b.shared) {
    now.fault = format("%s: no memory for the blocks of the simulator", now.kernel->name);
    return;
  }
  for (barrier& bar : b.bars) bar = barrier();
  b.arrival.threads = 0;
  if (!b.threads) b.threads = new thread[max_threads_per_block]();
  for (int i = 0; i < b.warps; i++) {
    warp& w = b.w[i];
    const unsigned lanes = std::min(32u, now.threads - 32 * i);
    w.b = &b, w.index = i, w.exited = 0, w.ready = 0;
    w.lanes = lanes == 32 ? ~0u : (1u << lanes) - 1;
    w.meetings.clear();
    make_ready(w, w.lanes);
  }
  for (unsigned i = 0; i < now.threads; i++) {
    thread& t = b.threads[i];
    t.id = {(int)i, (int)now.threads, index, (int)now.grid, b.shared};
    t.w = &b.w[i / 32], t.b = &b;
    t.exited = false, t.waits = wait::nothing, t.at = place();
    t.open_group = 0;
    t.copies.clear();
    t.log.clear();
    t.memory = get_stack(b.slot * max_threads_per_block + i);
    make_context(&t.flow, t.memory.base, t.memory.bytes, thread_main);
  }
  if (now.checked) race_block_begins(b);
  now.live++;
}

void run_blocks() {
  std::vector<int> order(now.grid);
  std::iota(order.begin(), order.end(), 0);
  if (now.order == launch_state::backward) std::reverse(order.begin(), order.end());
  unsigned slots = 1;
  if (now.order == launch_state::shuffled) {
    for (unsigned i = now.grid - 1; i > 0; i--) std::swap(order[i], order[random_below(i + 1)]);
    slots = 1 + random_below(std::min(most_live, now.grid));
  }
  static std::vector<block*> all;
  while (all.size() < slots) {
    all.push_back(new block);
    all.back()->slot = all.size() - 1;
  }
  now.blocks.assign(all.begin(), all.begin() + slots);
  for (block* b : now.blocks) b->live = false, b->ready = 0;
  size_t next = 0;
  while (now.fault.empty()) {
    for (block* b : now.blocks)
      if (!b->live && next < order.size()) start_block(*b, order[next++]);
    if (now.live == 0 || !now.fault.empty()) return;
    thread* t = choose_thread();
    if (!t) {
      now.fault = now.suspicion.empty() ? std::string(now.kernel->name) + ": " + describe_waits() : now.suspicion;
      return;
    }
    go(&now.home, t);
  }
}

}  // namespace

uint64_t next_random() {
  now.random ^= now.random >> 12;  // xorshift64*
  now.random ^= now.random << 25;
  now.random ^= now.random >> 27;
  return now.random * 0x2545f4914f6cdd1du;
}

void make_ready(warp& w, uint32_t lanes) {
  w.ready |= lanes;
  w.b->ready |= 1u << w.index;
}

void unready(thread& t) {
  t.w->ready &= ~(1u << (t.id.thread & 31));
  if (!t.w->ready) t.b->ready &= ~(1u << t.w->index);
}

void switch_away() {
  thread* self = current;
  thread* t = choose_thread();
  if (t == self) return;
  if (t)
    go(&self->flow, t);
  else
    go_home(&self->flow);
  self->waits = wait::nothing;
}

void maybe_yield() {
  if (now.order == launch_state::shuffled && next_random() >> 62 == 0) switch_away();
}

// A counter must be as it was found, for the next launch.
static void check_counters() {
  for (const auto& [counter, a] : now.counters) {
    if (*counter == 0) continue;
    now.fault = format("%s: counter %s is not zero after the launch: %u of %u blocks came to vg_arrive_last, %s", now.kernel->name,
                       describe_address(counter).c_str(), *counter, a.count, describe(a.at).c_str());
    return;
  }
}

// VITGEN_SIM_LAUNCHES=1 prints a line for each launch, 2 also where its accesses
// fall together badly.
static int launches_shown() {
  static const char* mode = getenv("VITGEN_SIM_LAUNCHES");
  return mode ? atoi(mode) : 0;
}
static void print_launch() {
  if (launches_shown() > 0) fprintf(stderr, "%s: %s\n", now.kernel->name, stats_text().c_str());
  if (launches_shown() > 1 && now.checked) fprintf(stderr, "%s", traffic_text().c_str());
}

const statistics& stats() { return now.stats; }

std::string stats_text() {
  const statistics& s = now.stats;
  auto n = [](uint64_t x) { return std::to_string(x); };
  std::string out = n(now.grid) + " blocks of " + n(now.threads) + " threads, " + n(now.shared) + " bytes of shared memory; " + n(s.barriers) +
                    " barriers, " + n(s.shuffles) + " shuffles, " + n(s.copies) + " copies, " + n(s.ldmatrix) + " ldmatrix (" +
                    n(s.ldmatrix_conflicts) + " cycles lost), " + n(s.mma) + " mma, " + n(s.switches) + " switches";
  if (now.checked) out += ", " + n(s.accesses) + " accesses";
  if (now.checked && now.opt.traffic)
    out += "; shared: " + n(s.shared_requests) + " requests (" + n(s.shared_conflicts) + " cycles lost), global: " + n(s.global_requests) +
           " requests, " + n(s.global_sectors) + " sectors (" + n(s.global_sectors_needed) + " would do)";
  return out;
}

std::string launch(const kernel* k, unsigned grid, unsigned threads, size_t shared, void** params, const options& o) {
  if (!k) return "no such kernel";
  const host_call lock;
  now.kernel = k;
  now.opt = o;
  now.fault.clear();
  now.suspicion.clear();
  now.stats = statistics();
  if (grid == 0 || threads == 0) return format("%s: an empty grid: %u blocks of %u threads", k->name, grid, threads);
  if (threads > (unsigned)std::min(k->threads, max_threads_per_block))
    return format("%s: blocks of %u threads, more than its launch bound of %d", k->name, threads, k->threads);
  if (shared > o.shared_limit)
    return format("%s: %zu bytes of shared memory, more than the limit of %zu", k->name, shared, o.shared_limit);
  now.grid = grid, now.threads = threads, now.shared = shared, now.params = params;
  if (launches_shown() > 1) now.opt.traffic = true;
  now.checked = o.faults && checked(k);
  now.random = scramble(o.seed) | 1;
  now.order = o.seed == 0 ? launch_state::forward : o.seed == ~0ull ? launch_state::backward : launch_state::shuffled;
  now.live = 0, now.current_block = 0, now.budget = 0;
  now.counters.clear();
  note_launch(now.checked);
  check_launch_begins();
  traffic_launch_begins();
  if (now.checked) race_launch_begins();
  catch_signals();
  run_blocks();
  current = nullptr;
  release_signals();
  if (now.fault.empty()) now.fault = now.suspicion;
  if (now.fault.empty()) check_counters();
  now.fault = resolve_pcs(now.fault);
  print_launch();
  return now.fault;
}

}  // namespace vg_sim
