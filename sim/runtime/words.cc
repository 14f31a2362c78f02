// The words by which threads meet: barriers, shuffles, asynchronous copies, and
// the arrival of blocks. Copies land as late as they may: when they are waited for.
#include <string.h>

#include "internal.h"

namespace vg_sim {

bool meet(wait kind, int detail, uint32_t mask, const lane_args& args, place at) {
  thread& t = *current;
  warp& w = *t.w;
  const int lane = t.id.thread & 31;
  const uint32_t bit = 1u << lane;
  t.at = at;
  if (!(mask & bit)) fault("partial mask: %08x does not name lane %d, which takes part, at %s", mask, lane, describe(at).c_str());
  if (mask & ~w.lanes)
    fault("partial warp: mask %08x names lanes that the warp does not have (it has %08x), at %s", mask, w.lanes, describe(at).c_str());
  if (mask & w.exited) fault("lanes missing: mask %08x names lanes that have exited (%08x), at %s", mask, w.exited, describe(at).c_str());
  meeting* m = nullptr;
  for (meeting& other : w.meetings) {
    if (!(other.mask & mask)) continue;
    if (other.mask != mask || other.kind != kind || other.detail != detail || !same(other.at, at))
      fault("lanes missing, the warp has diverged: lane %d came to %s with mask %08x, lanes %08x wait at %s with mask %08x", lane,
            describe(at).c_str(), mask, other.arrived, describe(other.at).c_str(), other.mask);
    m = &other;
  }
  if (!m) {
    w.meetings.push_back({kind, detail, mask, 0, at});
    m = &w.meetings.back();
  }
  m->arrived |= bit;
  w.args[lane] = args;
  if (m->arrived == mask) return true;
  t.waits = kind;
  unready(t);
  switch_away();
  return false;
}

void leave(uint32_t mask) {
  warp& w = *current->w;
  if (now.opt.traffic && mask == w.lanes) flush_traffic(w);
  for (size_t i = 0; i < w.meetings.size(); i++) {
    if (w.meetings[i].mask != mask) continue;
    w.meetings[i] = w.meetings.back();
    w.meetings.pop_back();
    break;
  }
  make_ready(w, mask);
  maybe_yield();
}

void do_sync(int id, int count, place at) {
  thread& t = *current;
  block& b = *t.b;
  barrier& bar = b.bars[id];
  t.at = at;
  if (bar.expected == 0) {
    bar.expected = count;
    bar.at = at;
  } else if (bar.expected != count) {
    fault("divergent barrier %d: thread came to %s for %d threads, others wait at %s for %d", id, describe(at).c_str(), count,
          describe(bar.at).c_str(), bar.expected);
  } else if (id == 0 && !same(bar.at, at)) {
    fault("divergent barrier: thread came to vg_sync at %s, others wait at %s", describe(at).c_str(), describe(bar.at).c_str());
  }
  bar.lanes[t.w->index] |= 1u << (t.id.thread & 31);
  if (++bar.arrived < count) {
    t.waits = id ? wait::sync_some : wait::sync;
    unready(t);
    switch_away();
    return;
  }
  now.stats.barriers++;
  for (int i = 0; i < b.warps; i++) {
    if (!bar.lanes[i]) continue;
    if (bar.lanes[i] != b.w[i].lanes)
      fault("divergent barrier: lanes %08x of warp %d, but not all of it, came to barrier %d at %s", bar.lanes[i], i, id, describe(at).c_str());
    if (now.opt.traffic) flush_traffic(b.w[i]);
    make_ready(b.w[i], bar.lanes[i]);
  }
  if (now.checked) race_sync(b, bar.lanes);
  bar = barrier();
  maybe_yield();
}

namespace {

void word_sync(int id, int count, const char* file, int line) {
  const entry inside;
  const place at{file, line};
  if (id == 0) return do_sync(0, current->id.threads, at);
  if (id < 0 || id >= max_barriers) fault("there is no barrier %d, at %s", id, describe(at).c_str());
  if (count <= 0 || count % 32 || count > current->id.threads)
    fault("barrier %d for %d threads: not whole warps of the block's %d threads, at %s", id, count, current->id.threads,
          describe(at).c_str());
  do_sync(id, count, at);
}

void word_sync_warp(const char* file, int line) {
  const entry inside;
  const uint32_t all = current->w->lanes;
  if (!meet(wait::sync_warp, 0, all, {}, {file, line})) return;
  if (now.checked) race_sync_warp(*current->w);
  leave(all);
}

void word_shuffle(void* x, int bytes, int from, uint32_t mask, const char* file, int line) {
  const entry inside;
  const place at{file, line};
  if (!(mask >> (from & 31) & 1)) fault("partial mask: shuffle from lane %d, which mask %08x does not name, at %s", from, mask, describe(at).c_str());
  if (!meet(wait::shuffle, bytes, mask, {x, nullptr, nullptr, from}, at)) return;
  now.stats.shuffles++;
  warp& w = *current->w;
  uint64_t values[32];
  for (int l = 0; l < 32; l++)
    if (mask >> l & 1) memcpy(&values[l], w.args[l].p, bytes);
  for (int l = 0; l < 32; l++)
    if (mask >> l & 1) memcpy(w.args[l].p, &values[w.args[l].from], bytes);
  leave(mask);
}

// The first of the block's threads tells what it gave; the others must agree.
void check_arrival(uint32_t* counter, uint32_t count, uint32_t* slot, place at) {
  auto& a = current->b->arrival;
  if (a.threads++ == 0) a.counter = counter, a.count = count, a.slot = slot;
  if (a.counter != counter || a.count != count || a.slot != slot)
    fault("threads of a block call vg_arrive_last with different arguments, at %s", describe(at).c_str());
  if (a.threads == current->id.threads) a.threads = 0;
  if ((uintptr_t)counter % 4 || (uintptr_t)slot % 4) fault("misaligned: counter or slot of vg_arrive_last, at %s", describe(at).c_str());
}

bool arrive(uint32_t* counter, uint32_t count, uint32_t* slot, place at) {
  check_counter(counter, at);
  arrivals& a = now.counters.insert({counter, {count, at, {}}}).first->second;
  if (a.count != count)
    fault("vg_arrive_last for %u blocks on %s, where others came for %u, at %s", count, describe_address(counter).c_str(), a.count,
          describe(at).c_str());
  if (*counter >= count)
    fault("counter %s is %u before the last of %u blocks came, at %s", describe_address(counter).c_str(), *counter, count, describe(at).c_str());
  const bool last = ++*counter == count;
  if (last) *counter = 0;
  if (now.checked) race_arrive(a, last);
  check_shared(slot, 4, true, at, "vg_arrive_last writes");
  *slot = last;
  return last;
}

bool word_arrive_last(uint32_t* counter, uint32_t count, uint32_t* slot, const char* file, int line) {
  const entry inside;
  const place at{file, line};
  check_arrival(counter, count, slot, at);
  do_sync(0, current->id.threads, at);
  if (current->id.thread == 0) arrive(counter, count, slot, at);
  do_sync(0, current->id.threads, at);
  check_shared(slot, 4, false, at, "vg_arrive_last reads");
  const bool last = *slot != 0;
  do_sync(0, current->id.threads, at);
  return last;
}

void word_cp_async(void* to, const void* from, int bytes, bool valid, const char* file, int line) {
  const entry inside;
  const place at{file, line};
  thread& t = *current;
  t.at = at;
  if ((uintptr_t)to % bytes) fault("misaligned: cp.async of %d bytes to %s, at %s", bytes, describe_address(to).c_str(), describe(at).c_str());
  if ((uintptr_t)from % bytes) fault("misaligned: cp.async of %d bytes from %s, at %s", bytes, describe_address(from).c_str(), describe(at).c_str());
  if (valid) check_global(from, bytes, false, at, "cp.async reads");
  check_shared(to, bytes, true, at, "cp.async writes");
  copy_begins(to, bytes);
  now.stats.copies++;
  memset(to, poison_byte, bytes);
  t.copies.push_back({(char*)to, (const char*)from, (uint32_t)bytes, t.open_group, valid, at});
}

void word_cp_async_commit(const char*, int) { current->open_group++; }

void word_cp_async_wait(int groups, const char*, int) {
  const entry inside;
  thread& t = *current;
  if (t.open_group >= (uint32_t)groups) land_copies(t, t.open_group - groups);
}

}  // namespace

// Groups start from 1: group g is complete once all before g+1 have landed.
void land_copies(thread& t, uint32_t before) {
  size_t n = 0;
  while (n < t.copies.size() && t.copies[n].group < before) {
    const copy& c = t.copies[n++];
    copy_lands(c);
    if (c.valid)
      memcpy(c.to, c.from, c.bytes);
    else
      memset(c.to, 0, c.bytes);
  }
  t.copies.erase(t.copies.begin(), t.copies.begin() + n);
}

const vg_sim_api api = {
    VG_SIM_ABI_VERSION, (vg_sim_thread* const*)&current, word_sync, word_sync_warp, word_shuffle, word_arrive_last,
    word_cp_async, word_cp_async_commit, word_cp_async_wait, word_ldmatrix, word_mma, word_access, word_misaligned,
};

}  // namespace vg_sim
