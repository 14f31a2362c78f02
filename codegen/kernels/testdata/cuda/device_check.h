// What the tests of CUDA kernels share: arrays in simulated device memory,
// launches in several orders and grids that must agree to the bit, and
// comparisons that count as failures unless they clearly hold. Include it after
// the kernels.
#pragma once
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <vg_sim_host.h>

#include <string>
#include <vector>

namespace check {

inline int failures = 0, checks = 0;

inline void that(bool ok, const std::string& what) {
  checks++;
  if (ok) return;
  if (++failures <= 20) printf("FAIL %s\n", what.c_str());
}

inline int finish() {
  printf("%d checks, %d failures\n", checks, failures);
  return failures > 0 || checks == 0;
}

template <class... A>
std::string text(const char* format, A... a) {
  char s[256];
  snprintf(s, sizeof s, format, a...);
  return s;
}

// A generator of its own, so that the tests do not lean on the code they test.
struct Random {
  uint64_t s;
  explicit Random(uint64_t seed) : s(seed * 0x9E3779B97F4A7C15u + 1) {}
  uint32_t next() {
    s = s * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(s >> 33);
  }
  float uniform() { return (float)next() / 1073741824.0f - 1.0f; }  // -1 .. 1
};

inline float number(float x) { return x; }
inline float number(vg_bf16 x) {
  const uint32_t bits = (uint32_t)x.bits << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
inline void assign(float& to, float x) { to = x; }
inline void assign(int32_t& to, float x) { to = (int32_t)x; }
inline void assign(vg_bf16& to, float x) {  // to nearest even
  uint32_t bits;
  memcpy(&bits, &x, 4);
  to.bits = (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

// What a launch may write to.
struct Output {
  void* p;
  size_t bytes;
  std::string name;
};

// n values in device memory; NaN until written.
template <class E>
struct Array {
  E* p;
  size_t n;
  std::string name;

  Array(size_t count, const char* what) : n(count), name(what) {
    p = (E*)vg_sim::alloc(count * sizeof(E), what);
    if (!p) printf("FAIL out of memory for %s\n", what), failures++;
  }
  Array(size_t count, const char* what, Random& r, float scale = 1, float offset = 0) : Array(count, what) {
    for (size_t i = 0; i < n; i++) assign(p[i], r.uniform() * scale + offset);
    wrote();
  }
  Array(const Array&) = delete;
  ~Array() { vg_sim::free(p); }
  void wrote() { vg_sim::wrote(p, n * sizeof(E)); }
  E& operator[](size_t i) { return p[i]; }
  double at(size_t i) const { return (double)number(p[i]); }
  operator Output() const { return {p, n * sizeof(E), name}; }
  // From element `first` on, nobody may read or write.
  void forbid(size_t first) {
    if (first < n) vg_sim::poison(p + first, (n - first) * sizeof(E)), vg_sim::forbid(p + first, (n - first) * sizeof(E));
  }
  void permit() { vg_sim::permit(p, n * sizeof(E)); }
};

// A kernel with its grid and what its launch needs.
struct Launch {
  std::string kernel;
  int64_t blocks;
  int shared;
  int64_t workspace;
  int counters;
};

inline vg_state state(int batch) {
  vg_state s{};
  s.batch = batch;
  s.step.inv_n = 1.0f / (float)(batch + 3);
  s.step.seed_lo = 0x1234567u, s.step.seed_hi = 0x89abcdefu, s.step.micro_step = 17, s.step.dropout_on = 1;
  return s;
}

// Runs a kernel in several orders and grids. Each time every output must be
// written whole and have the same bits, unless `initial` holds what the outputs
// are before a launch; and the counters must be left at zero.
template <class... A>
void run(const std::string& what, const Launch& l, const vg_state& s, const std::vector<Output>& outputs, A... args) {
  struct Order {
    int64_t blocks;
    uint64_t seed;
  };
  const Order orders[] = {{l.blocks, 1}, {1, 2}, {3, 3}, {l.blocks, ~0ull}, {l.blocks + 5, 4}};
  const vg_sim::kernel* kernel = vg_sim::find(l.kernel.c_str());
  if (!kernel) return that(false, what + ": no kernel " + l.kernel);
  vg_state* state = (vg_state*)vg_sim::alloc(sizeof(vg_state), "state");
  *state = s;
  vg_sim::wrote(state, sizeof *state);
  char* workspace = (char*)vg_sim::alloc((size_t)l.workspace, "workspace");
  uint32_t* counters = (uint32_t*)vg_sim::alloc(sizeof(uint32_t) * (size_t)l.counters, "counters");
  memset(counters, 0, sizeof(uint32_t) * (size_t)l.counters);
  vg_sim::wrote(counters, sizeof(uint32_t) * (size_t)l.counters);
  std::vector<std::vector<char>> first;
  for (const Order& o : orders) {
    const std::string which = what + text(" (%d blocks, seed %d)", (int)o.blocks, (int)o.seed);
    vg_sim::poison(workspace, (size_t)l.workspace);
    for (const Output& out : outputs) vg_sim::poison(out.p, out.bytes), vg_sim::output(out.p, out.bytes);
    vg_sim::options options;
    options.seed = o.seed;
    const std::string fault = vg_sim::run(kernel, (unsigned)o.blocks, 256, (size_t)l.shared, options,
                                          (const vg_state*)state, workspace, counters, args...);
    that(fault == "", which + ": " + fault);
    if (fault != "") break;
    for (int i = 0; i < l.counters; i++) that(counters[i] == 0, which + ": a counter is left");
    for (size_t i = 0; i < outputs.size(); i++) {
      const std::string missing = vg_sim::unwritten(outputs[i].p, outputs[i].bytes);
      that(missing == "", which + ": " + missing);
      const char* p = (const char*)outputs[i].p;
      if (first.size() <= i) first.push_back(std::vector<char>(p, p + outputs[i].bytes));
      that(memcmp(first[i].data(), p, outputs[i].bytes) == 0, which + ": other bits in " + outputs[i].name);
    }
  }
  vg_sim::free(state), vg_sim::free(workspace), vg_sim::free(counters);
}

// |got - want| in the Euclidean norm, relative to |want|.
template <class E>
void close(const std::string& what, const Array<E>& got, const std::vector<double>& want, double tolerance) {
  double error = 0, size = 0;
  for (size_t i = 0; i < want.size(); i++)
    error += pow(got.at(i) - want[i], 2), size += want[i] * want[i];
  error = sqrt(error), size = sqrt(size);
  that(error <= tolerance * size, what + ": " + got.name + text(" differs by %.3g", size > 0 ? error / size : error));
}

// Whether an element of a site is kept, by the portable Philox.
inline bool kept(const vg_state& s, uint32_t site, uint32_t thr, uint64_t index) {
  return vg_dropout_draw(s.step.seed_lo, s.step.seed_hi, s.step.micro_step, site, index) >= thr;
}

}  // namespace check
