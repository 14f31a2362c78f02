// Device and shared memory. Both lie in ranges of addresses of their own, so
// that one comparison tells what a pointer points to, and so that their flags
// and cells (shadow.h) are found by a shift. All of it is address space, which
// costs nothing until it is touched.
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <mutex>

#include "internal.h"
#include "shadow.h"

namespace vg_sim {

space device, shared;
std::recursive_mutex host_lock;

namespace {

constexpr size_t page = 4096;
constexpr size_t device_bytes = (size_t)64 << 30;
constexpr size_t slot_bytes = 1 << 20, max_slots = 8;

size_t device_used = 0;
std::vector<allocation> allocations;  // by address
bool unchecked_writes = false;        // kernels have written without the checker seeing it

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

void* map(size_t bytes, int protection) {
  void* p = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  madvise(p, bytes, MADV_DONTDUMP);
  return p;
}

// Reserves addresses for a space; with fewer where a limit is set on them.
bool reserve(space& s, size_t bytes) {
  for (; bytes >= 1 << 20; bytes /= 4) {
    char* base = (char*)map(bytes, PROT_NONE);
    uint8_t* flags = (uint8_t*)map(bytes, PROT_READ | PROT_WRITE);
    cell* cells = (cell*)map(bytes / 4 * sizeof(cell), PROT_READ | PROT_WRITE);
    if (base && flags && cells) {
      s.base = base, s.bytes = bytes, s.flags = flags, s.cells = cells;
      return true;
    }
    if (base) munmap(base, bytes);
    if (flags) munmap(flags, bytes);
    if (cells) munmap(cells, bytes / 4 * sizeof(cell));
  }
  return false;
}

// Calls f with the flags of the part of [p, p+n) that lies in device memory.
template <class F>
void for_flags(const void* p, size_t n, F f) {
  if (!device.has(p)) return;
  n = std::min(n, (size_t)(device.base + device.bytes - (const char*)p));
  uint8_t* flags = device.flags_of(p);
  for (size_t i = 0; i < n; i++) f(flags[i]);
}

}  // namespace

void* alloc(size_t bytes, const char* name) {
  const host_call lock;
  if (!device.base && !reserve(device, device_bytes)) return nullptr;
  if (bytes > device.bytes) return nullptr;
  const size_t room = round_up(std::max<size_t>(bytes, 1), 256), pages = round_up(room, page);
  if (pages + page > device.bytes - device_used) return nullptr;
  if (device_used == 0) device_used = page;  // no buffer lies at the very start: what is before it is device memory too
  char* base = device.base + device_used;
  if (mprotect(base, pages, PROT_READ | PROT_WRITE) != 0) return nullptr;
  device_used += pages + page;  // the last page stays closed
  char* p = base + pages - room;
  memset(base, poison_byte, pages);
  memset(device.flags_of(p), flag_alloc, bytes);
  allocations.push_back({p, bytes, name ? name : "", false});
  return p;
}

const allocation* find_allocation(const void* p) {
  auto next = std::upper_bound(allocations.begin(), allocations.end(), (const char*)p,
                               [](const char* q, const allocation& a) { return q < a.p; });
  if (next == allocations.begin()) return next == allocations.end() ? nullptr : &*next;
  const allocation* before = &next[-1];
  const size_t past = (const char*)p - before->p;
  if (past >= before->bytes && next != allocations.end() && (size_t)(next->p - (const char*)p) < past - before->bytes) return &*next;
  return before;
}

bool find_buffer(const void* p, void** base, size_t* bytes) {
  const host_call lock;
  const allocation* a = find_allocation(p);
  if (!a || a->freed || (const char*)p < a->p || (const char*)p >= a->p + std::max<size_t>(a->bytes, 1)) return false;
  *base = a->p;
  *bytes = a->bytes;
  return true;
}

bool free(void* p) {
  const host_call lock;
  allocation* a = const_cast<allocation*>(find_allocation(p));
  if (!a || a->p != p || a->freed) return false;
  a->freed = true;
  char* base = (char*)((uintptr_t)a->p & ~(page - 1));
  const size_t pages = round_up(a->p + std::max<size_t>(a->bytes, 1) - base, page);
  mprotect(base, pages, PROT_NONE);
  madvise(base, pages, MADV_DONTNEED);
  memset(device.flags_of(a->p), 0, a->bytes);
  return true;
}

void wrote(void* p, size_t n) {
  const host_call lock;
  for_flags(p, n, [](uint8_t& f) { f |= (f & flag_alloc) * flag_init; });
}

void poison(void* p, size_t n) {
  const host_call lock;
  memset(p, poison_byte, n);
  for_flags(p, n, [](uint8_t& f) { f &= ~(flag_init | flag_written); });
}

void forbid(void* p, size_t n) {
  const host_call lock;
  for_flags(p, n, [](uint8_t& f) { f |= flag_forbidden; });
}
void permit(void* p, size_t n) {
  const host_call lock;
  for_flags(p, n, [](uint8_t& f) { f &= ~flag_forbidden; });
}

void output(void* p, size_t n) {
  const host_call lock;
  note_launch(true);  // what kernels wrote before does not matter
  for_flags(p, n, [](uint8_t& f) { f &= ~flag_written; });
}

std::string unwritten(const void* p, size_t n) {
  const host_call lock;
  if (unchecked_writes || !device.has(p)) return "";
  const uint8_t* flags = device.flags_of(p);
  size_t first = n, count = 0;
  for (size_t i = 0; i < n; i++) {
    if (flags[i] & flag_written) continue;
    if (count++ == 0) first = i;
  }
  if (count == 0) return "";
  return format("output never written: %zu of %zu bytes, the first at %s", count, n, describe_address((const char*)p + first).c_str());
}

void note_launch(bool checked) {
  if (!checked) {
    unchecked_writes = true;
    return;
  }
  if (!unchecked_writes) return;
  // The checker has not seen what was written: all memory counts as initialized.
  unchecked_writes = false;
  for (const allocation& a : allocations)
    if (!a.freed) wrote(a.p, a.bytes);
}

void clear_cells() {
  for (const space* s : {&device, &shared})
    if (s->cells) madvise(s->cells, s->bytes / 4 * sizeof(cell), MADV_DONTNEED);
}

char* shared_memory(unsigned slot, size_t bytes) {
  static size_t opened[max_slots], used[max_slots];
  if (!shared.base && !reserve(shared, slot_bytes * max_slots)) return nullptr;
  char* end = shared.base + (slot + 1) * slot_bytes - page;
  const size_t room = round_up(bytes, 128), pages = round_up(room, page);
  if (pages > opened[slot]) {
    if (mprotect(end - pages, pages, PROT_READ | PROT_WRITE) != 0) return nullptr;
    opened[slot] = pages;
  }
  char* p = end - room;
  memset(p, poison_byte, room);
  memset(shared.flags_of(end - used[slot]), 0, used[slot]);
  memset(shared.flags_of(p), flag_alloc, bytes);
  used[slot] = room;
  return p;
}

}  // namespace vg_sim
