// How the accesses of a warp fall together: bank conflicts of shared memory, and
// 32-byte sectors of global memory.
//
// Simulated lanes run one at a time, so the accesses of one instruction do not
// come together. Each lane keeps a log until its warp meets; then the accesses
// that different lanes made at one place for the same time, counted from the
// last meeting, are taken for one instruction's.
#include <string.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "internal.h"

namespace vg_sim {
namespace {

constexpr size_t longest_log = 1 << 14;

struct loss {
  bool is_shared;
  uint64_t requests, conflicts, sectors, needed;
};
std::map<where, loss> losses;

struct at_turn {
  where at;
  uint32_t turn;  // the how manieth time the lane was there
  int lane;
  const logged* access;
};

size_t count_distinct(std::vector<uintptr_t>& v) {
  std::sort(v.begin(), v.end());
  return std::unique(v.begin(), v.end()) - v.begin();
}

// Shared memory serves 32 banks of 4 bytes in a cycle: 4 bytes of 32 lanes, 8
// of 16 or 16 of 8. A bank serves one word; lanes that want the same word share.
uint64_t lost_cycles(const at_turn* first, const at_turn* end) {
  const int lanes = first->access->bytes > 8 ? 8 : first->access->bytes > 4 ? 16 : 32;
  uint64_t lost = 0;
  for (int phase = 0; phase < 32; phase += lanes) {
    std::vector<uintptr_t> words[32];
    for (const at_turn* e = first; e < end; e++) {
      if (e->lane < phase || e->lane >= phase + lanes) continue;
      const uintptr_t from = (uintptr_t)e->access->p / 4, to = ((uintptr_t)e->access->p + e->access->bytes + 3) / 4;
      for (uintptr_t word = from; word < to; word++) words[word % 32].push_back(word);
    }
    size_t cycles = 1;
    for (auto& bank : words) cycles = std::max(cycles, count_distinct(bank));
    lost += cycles - 1;
  }
  return lost;
}

void account(const at_turn* first, const at_turn* end) {
  loss& l = losses[first->at];
  l.is_shared = first->access->is_shared;
  l.requests++;
  statistics& s = now.stats;
  if (l.is_shared) {
    const uint64_t lost = lost_cycles(first, end);
    l.conflicts += lost, s.shared_conflicts += lost, s.shared_requests++;
    return;
  }
  std::vector<uintptr_t> sectors, bytes;
  for (const at_turn* e = first; e < end; e++)
    for (uintptr_t p = (uintptr_t)e->access->p; p < (uintptr_t)e->access->p + e->access->bytes; p++) {
      bytes.push_back(p);
      if (sectors.empty() || sectors.back() != p / 32) sectors.push_back(p / 32);
    }
  const uint64_t moved = count_distinct(sectors), needed = (count_distinct(bytes) + 31) / 32;
  l.sectors += moved, s.global_sectors += moved;
  l.needed += needed, s.global_sectors_needed += needed;
  s.global_requests++;
}

}  // namespace

void traffic_launch_begins() { losses.clear(); }

void log_access(const void* p, size_t n, bool writes, bool is_shared, where at) {
  thread& t = *current;
  if (t.log.size() < longest_log && n <= 16) t.log.push_back({at, (uint8_t)n, writes, is_shared, (const char*)p});
}

void flush_traffic(warp& w) {
  std::vector<at_turn> all;
  for (int l = 0; l < 32; l++) {
    if (!(w.lanes >> l & 1)) continue;
    std::map<std::pair<where, int>, uint32_t> turns;
    for (const logged& a : w.b->threads[w.index * 32 + l].log)
      all.push_back({a.at, turns[{a.at, a.bytes * 4 + a.writes * 2 + a.is_shared}]++, l, &a});
  }
  auto key = [](const at_turn& e) {
    return std::make_tuple(e.at, e.turn, e.access->bytes, e.access->writes, e.access->is_shared, e.lane);
  };
  std::sort(all.begin(), all.end(), [&](const at_turn& x, const at_turn& y) { return key(x) < key(y); });
  for (size_t i = 0, j; i < all.size(); i = j) {
    const logged& a = *all[i].access;
    for (j = i + 1; j < all.size(); j++) {
      const logged& b = *all[j].access;
      if (all[j].at != all[i].at || all[j].turn != all[i].turn || b.bytes != a.bytes || b.writes != a.writes || b.is_shared != a.is_shared) break;
    }
    account(&all[i], &all[i] + (j - i));
  }
  for (int l = 0; l < 32; l++)
    if (w.lanes >> l & 1) w.b->threads[w.index * 32 + l].log.clear();
}

std::string traffic_text() {
  std::vector<std::pair<where, loss>> sorted;
  for (const auto& [at, l] : losses)
    if (l.conflicts || l.sectors > l.needed) sorted.push_back({at, l});
  std::sort(sorted.begin(), sorted.end(), [](const auto& x, const auto& y) {
    return x.second.conflicts + x.second.sectors - x.second.needed > y.second.conflicts + y.second.sectors - y.second.needed;
  });
  std::string out;
  for (const auto& [at, l] : sorted) {
    out += describe(at);
    if (l.is_shared)
      out += format(": %llu cycles lost to bank conflicts in %llu requests\n", (unsigned long long)l.conflicts, (unsigned long long)l.requests);
    else
      out += format(": %llu sectors moved, %llu would do, in %llu requests\n", (unsigned long long)l.sectors,
                    (unsigned long long)l.needed, (unsigned long long)l.requests);
  }
  return resolve_pcs(out);
}

}  // namespace vg_sim
