// What the checker knows of every byte of device and shared memory.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace vg_sim {

// One byte of flags for each byte of memory.
enum : uint8_t {
  flag_alloc = 1,      // belongs to a buffer, or to the block's shared memory
  flag_init = 2,       // has been written, by host or kernel
  flag_written = 4,    // by a kernel since output()
  flag_forbidden = 8,  // by forbid()
  flag_async = 16,     // target of an asynchronous copy on its way
};

// Who touched four bytes last (race.cc).
struct cell {
  uint64_t w, r;        // when and by whom it was written and read
  uint32_t lanes;       // of the warp that read at r
  uint32_t w_at, r_at;  // where in the kernel
  uint32_t link;        // to a list of readers, or to a cell for each of the four bytes
};

struct space {
  char* base = nullptr;
  size_t bytes = 0;
  uint8_t* flags = nullptr;  // [bytes]
  cell* cells = nullptr;     // [bytes / 4]

  bool has(const void* p) const { return (size_t)((const char*)p - base) < bytes; }
  uint8_t* flags_of(const void* p) const { return flags + ((const char*)p - base); }
};

extern space device, shared;  // memory.cc

// The first of n flags that has not all bits of mask; n if there is none.
inline size_t first_without(const uint8_t* f, size_t n, uint8_t mask) {
  size_t i = 0;
  const uint64_t all = 0x0101010101010101u * mask;
  for (uint64_t x; i + 8 <= n; i += 8) {
    __builtin_memcpy(&x, f + i, 8);
    if ((x & all) != all) break;
  }
  while (i < n && (f[i] & mask) == mask) i++;
  return i;
}

// Whether one of n flags has one of the bits of mask.
inline bool any_of(const uint8_t* f, size_t n, uint8_t mask) {
  for (size_t i = 0; i < n; i++)
    if (f[i] & mask) return true;
  return false;
}

}  // namespace vg_sim
