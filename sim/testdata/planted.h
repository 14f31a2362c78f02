// Planted faults: each kernel takes `bad` last. With bad = 1 it has a fault, with
// 0 it is the correct twin; nothing else differs.
#pragma once
#include "../../codegen/kernels/cuda/call.cuh"

#include <vg_sim_host.h>

#include <initializer_list>

struct planted {
  const char* name;
  std::string (*run)(const vg_sim::options&, uint64_t bad);
  planted* next;
  static inline planted* first = nullptr;
  planted(const char* n, std::string (*r)(const vg_sim::options&, uint64_t)) : name(n), run(r), next(first) { first = this; }
};

// A case: its body gets `o` and `bad`, and returns the fault.
#define CASE(name)                                                         \
  static std::string name##_case(const vg_sim::options& o, uint64_t bad);  \
  static planted name##_planted{#name, name##_case};                       \
  static std::string name##_case([[maybe_unused]] const vg_sim::options& o, [[maybe_unused]] uint64_t bad)

// A buffer of n elements, filled with 0, 1, 2, ….
template <class E>
E* filled(size_t n, const char* name) {
  E* p = (E*)vg_sim::alloc(n * sizeof(E), name);
  for (size_t i = 0; i < n; i++) p[i] = (E)i;
  vg_sim::wrote(p, n * sizeof(E));
  return p;
}
template <class E>
E* fresh(size_t n, const char* name) {
  return (E*)vg_sim::alloc(n * sizeof(E), name);
}
inline uint32_t* zero_counters(size_t n) {
  uint32_t* p = (uint32_t*)vg_sim::alloc(n * 4, "counters");
  for (size_t i = 0; i < n; i++) p[i] = 0;
  vg_sim::wrote(p, n * 4);
  return p;
}

// Runs kernel k as vg_sim::run does.
#define RUN(k, ...) vg_sim::run(vg_sim::find(#k), __VA_ARGS__)
