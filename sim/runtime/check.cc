// Checks the accesses of instrumented kernels, one by one, before they happen.
#include <dlfcn.h>
#include <string.h>

#include <map>

#include "internal.h"
#include "shadow.h"

namespace vg_sim {
namespace {

constexpr where is_word = 1u << 31;  // else an offset from the kernel's entry
std::vector<place> places;
std::map<std::pair<const char*, int>, where> place_numbers;

const char* verb(bool writes) { return writes ? "writes" : "reads"; }

// What is wrong with an access whose flags are not all in order. Returns if the
// launch may go on for now (suspect).
void bad_range(const char* p, size_t n, const uint8_t* flags, const std::string& what, const std::string& at) {
  const size_t i = first_without(flags, n, flag_alloc);
  const char* name = !shared.has(p) ? "global memory" : "shared memory";
  if (i < n) {
    const allocation* a = device.has(p) ? find_allocation(p + i) : nullptr;
    const bool freed = a && a->freed && p + i >= a->p && p + i < a->p + a->bytes;
    fault("%s: %s %zu bytes at %s of %s, at %s", freed ? "use after free" : "out of bounds", what.c_str(), n,
          describe_address(p).c_str(), name, at.c_str());
  }
  if (any_of(flags, n, flag_forbidden))
    fault("forbidden: %s %zu bytes at %s, which the host has closed, at %s", what.c_str(), n, describe_address(p).c_str(), at.c_str());
  if (any_of(flags, n, flag_async))
    fault("unwaited cp.async: %s %zu bytes at %s while an asynchronous copy to it is on its way, at %s", what.c_str(), n,
          describe_address(p).c_str(), at.c_str());
  const size_t j = first_without(flags, n, flag_init);
  suspect(format("uninitialized %s: %s %zu bytes at %s; nobody has written %s, at %s", name, what.c_str(), n,
                 describe_address(p).c_str(), describe_address(p + j).c_str(), at.c_str()));
}

// The common part of all checks of a range of device or shared memory.
template <class Describe>
void check_range(space& s, const char* p, size_t n, bool writes, where at, Describe what) {
  now.stats.accesses++;
  uint8_t* flags = s.flags_of(p);
  const uint8_t need = writes ? flag_alloc : flag_alloc | flag_init;
  if ((size_t)(s.base + s.bytes - p) < n || first_without(flags, n, need) < n || any_of(flags, n, flag_forbidden | flag_async))
    bad_range(p, n, flags, what(), describe(at));
  check_races(s, p, n, writes, at);
  if (writes)
    for (size_t i = 0; i < n; i++) flags[i] |= flag_init | flag_written;
  if (now.opt.traffic) log_access(p, n, writes, &s == &shared, at);
}

// Constants of the kernel's file and of libraries are neither device memory nor
// the thread's own, and are fine.
bool in_program(const void* p) {
  static uintptr_t known[64];  // pages
  const uintptr_t page = (uintptr_t)p >> 12;
  uintptr_t& slot = known[page % 64];
  if (slot == page + 1) return true;
  Dl_info info;
  if (!dladdr(p, &info)) return false;
  slot = page + 1;
  return true;
}

[[noreturn]] void elsewhere(const void* p, size_t n, bool writes, const void* pc) {
  if (shared.has(p))
    fault("out of bounds: %s %zu bytes at %s, far off or of another block, at %s", verb(writes), n,
          describe_address(p).c_str(), describe(here(pc)).c_str());
  if ((uintptr_t)p < 1 << 16) fault("null pointer: %s %zu bytes at %p, at %s", verb(writes), n, p, describe(here(pc)).c_str());
  fault("not on the device: %s %zu bytes at %p, which is neither global nor shared memory (host memory?), at %s", verb(writes), n, p, describe(here(pc)).c_str());
}

}  // namespace

void check_launch_begins() {
  places.clear();
  place_numbers.clear();
}

where here(place at) {
  if (!places.empty() && places.back().file == at.file && places.back().line == at.line) return is_word | (places.size() - 1);
  auto found = place_numbers.find({at.file, at.line});
  if (found != place_numbers.end()) return found->second;
  const where n = is_word | places.size();
  places.push_back(at);
  return place_numbers[{at.file, at.line}] = n;
}

where here(const void* pc) { return (uint32_t)((uintptr_t)pc - (uintptr_t)now.kernel->run) & ~is_word; }

std::string describe(where at) {
  if (at & is_word) return describe(places[at & ~is_word]);
  const int32_t offset = (int32_t)(at << 1) >> 1;
  return describe_pc((const char*)now.kernel->run + offset);
}

void word_access(const void* p, size_t n, unsigned how, const void* pc) {
  if (inside_runtime || !now.checked) return;
  thread& t = *current;
  if ((size_t)((const char*)p - t.memory.base) < t.memory.bytes) return;  // a local variable
  const entry inside;
  const bool writes = how & vg_sim_writes;
  space* s = device.has(p) ? &device : nullptr;
  if (!s && (size_t)((const char*)p - t.id.shared + 4096) < now.shared + 8192) s = &shared;
  if (!s) {
    if (in_program(p)) return;
    elsewhere(p, n, writes, pc);
  }
  if (!(how & vg_sim_unaligned) && (uintptr_t)p % n)
    fault("misaligned: %s %zu bytes at %s, at %s", verb(writes), n, describe_address(p).c_str(), describe(here(pc)).c_str());
  check_range(*s, (const char*)p, n, writes, here(pc), [&] { return std::string(verb(writes)); });
  if (now.order == launch_state::shuffled && now.budget-- == 0) {
    now.budget = random_below(1000);
    switch_away();
  }
}

void word_misaligned(const void* p, size_t alignment, const char* type, const char* file, unsigned line) {
  if (inside_runtime || !now.checked) return;
  const entry inside;
  fault("misaligned: accesses a %s at %s, which is not %zu-byte aligned, at %s", type, describe_address(p).c_str(), alignment,
        describe(place{file, (int)line}).c_str());
}

void check_global(const void* p, size_t n, bool writes, place at, const char* what) {
  if (!device.has(p)) fault("%s %p, which is not global memory, at %s", what, p, describe(at).c_str());
  if (now.checked) return check_range(device, (const char*)p, n, writes, here(at), [&] { return std::string(what); });
  const uint8_t* flags = device.flags_of(p);  // bounds are known without instrumentation
  if (first_without(flags, n, flag_alloc) < n) bad_range((const char*)p, n, flags, what, describe(at));
}

void check_shared(const void* p, size_t n, bool writes, place at, const char* what) {
  const size_t offset = (const char*)p - current->id.shared;
  if (offset > now.shared || now.shared - offset < n)
    fault("out of bounds: %s %zu bytes at %s, at %s", what, n, describe_address(p).c_str(), describe(at).c_str());
  if (now.checked) check_range(shared, (const char*)p, n, writes, here(at), [&] { return std::string(what); });
}

// Counters are touched by vg_arrive_last alone, which needs no order.
void check_counter(const uint32_t* counter, place at) {
  if (!device.has(counter)) fault("vg_arrive_last on %p, which is not global memory, at %s", counter, describe(at).c_str());
  const uint8_t* flags = device.flags_of(counter);
  if (first_without(flags, 4, now.checked ? flag_alloc | flag_init : flag_alloc) < 4)
    bad_range((const char*)counter, 4, flags, "vg_arrive_last on", describe(at));
}

void copy_begins(void* to, size_t n) {
  if (!now.checked) return;
  uint8_t* flags = shared.flags_of(to);
  for (size_t i = 0; i < n; i++) flags[i] = (flags[i] & ~flag_init) | flag_async;
}

void copy_lands(const copy& c) {
  if (!now.checked) return;
  uint8_t* flags = shared.flags_of(c.to);
  for (size_t i = 0; i < c.bytes; i++) flags[i] = (flags[i] & ~flag_async) | flag_init;
  check_races(shared, c.to, c.bytes, true, here(c.at));
  if (c.valid) check_races(device, c.from, c.bytes, false, here(c.at));
}

}  // namespace vg_sim
