// What the kernel tests share: guarded buffers, a team of threads, and
// comparisons that count as failures unless they clearly hold.
#pragma once
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <functional>
#include <string>
#include <vector>

#include "../cpu/vitgen.h"

namespace check { namespace {

int failures = 0, checks = 0;

void that(bool ok, const std::string& what) {
  checks++;
  if (ok) return;
  if (++failures <= 20) printf("FAIL %s\n", what.c_str());
}

[[maybe_unused]] int finish() {
  printf("%d checks, %d failures\n", checks, failures);
  return failures > 0 || checks == 0;
}

template <class... A>
[[maybe_unused]] std::string text(const char* format, A... a) {
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

// n values between guards; poisoned with NaN until written.
struct Buffer {
  static constexpr size_t guard = 64;
  std::vector<float> raw;
  size_t n;

  explicit Buffer(size_t count) : raw(count + 2 * guard, kCanary), n(count) { poison(); }
  Buffer(size_t count, Random& r) : Buffer(count) {
    for (size_t i = 0; i < n; i++) p()[i] = r.uniform();
  }
  float* p() { return raw.data() + guard; }
  const float* p() const { return raw.data() + guard; }
  float& operator[](size_t i) { return p()[i]; }
  float operator[](size_t i) const { return p()[i]; }
  void poison() {
    for (size_t i = 0; i < n; i++) p()[i] = NAN;
  }
  void fill(float x) {
    for (size_t i = 0; i < n; i++) p()[i] = x;
  }
  bool intact() const {
    for (size_t i = 0; i < guard; i++)
      if (raw[i] != kCanary || raw[guard + n + i] != kCanary) return false;
    return true;
  }
  static constexpr float kCanary = -7.654321e30f;
};

// A block of bytes at a 64-byte boundary with a guard behind it.
struct Bytes {
  char* p;
  size_t n;
  explicit Bytes(size_t count = VG_SCRATCH_BYTES) : n(count) {
    if (posix_memalign((void**)&p, 64, n + 256) != 0) abort();
    memset(p, 0xff, n + 256);  // NaN
  }
  Bytes(const Bytes&) = delete;
  ~Bytes() { free(p); }
  bool intact() const {
    for (size_t i = 0; i < 256; i++)
      if ((unsigned char)p[n + i] != 0xff) return false;
    return true;
  }
};

// One launch of a kernel by a team.
struct Team {
  vg_step step = {};
  int batch = 1;
  size_t workspace = 0;
  std::function<void(const vg::vg_call&)> kernel;

  struct Member {
    const vg_program* prog;
    vg_worker w;
  };
  // The kernel table holds plain functions; this one finds its closure in the
  // arguments.
  static void enter(const vg::vg_call& call) { (*call.arg<std::function<void(const vg::vg_call&)>>(0))(call); }
  static void* walk(void* member) {
    static const vg::vg_kernel table[] = {enter};
    Member* m = (Member*)member;
    vg::vg_run(table, m->prog, &m->w);
    return nullptr;
  }

  // Runs the kernel with `count` workers and checks the guards behind workspace
  // and scratch.
  void run(int count, const std::string& what) {
    Bytes space(workspace);
    vg_barrier barrier = {};
    const vg_launch launch = {0, 1, 0};
    void* args[] = {&kernel};
    uint64_t ns = 0;
    const vg_program prog = {&launch, args, &step, space.p, &barrier, &ns, 1, batch};
    // Poisoned once; from then on every run meets what the last one left.
    static std::vector<Bytes> scratch(8);
    std::vector<Member> members;
    for (int i = 0; i < count; i++) members.push_back({&prog, {i, count, scratch[(size_t)i].p}});
    std::vector<pthread_t> threads((size_t)count);
    for (int i = 1; i < count; i++) pthread_create(&threads[(size_t)i], nullptr, walk, &members[(size_t)i]);
    walk(&members[0]);
    for (int i = 1; i < count; i++) pthread_join(threads[(size_t)i], nullptr);
    that(space.intact(), what + ": wrote beyond the workspace");
    for (const Bytes& b : scratch) that(b.intact(), what + ": wrote beyond the scratch");
    that(ns > 0, what + ": launch not timed");
  }

  // Runs with several team sizes, and twice with one: outputs must be complete,
  // within their guards, and the same to the bit.
  void run_all(const std::string& what, const std::vector<Buffer*>& outputs) {
    std::vector<std::vector<float>> first;
    for (int count : {1, 2, 3, 7, 1}) {
      for (Buffer* b : outputs) b->poison();
      run(count, what);
      for (size_t i = 0; i < outputs.size(); i++) {
        that(outputs[i]->intact(), text("%s: output %zu wrote beyond its end, %d workers", what.c_str(), i, count));
        if (first.size() == i)
          first.push_back(outputs[i]->raw);
        else
          that(memcmp(first[i].data(), outputs[i]->raw.data(), first[i].size() * sizeof(float)) == 0,
               text("%s: output %zu differs between 1 and %d workers", what.c_str(), i, count));
      }
    }
  }
};

// ||got - want|| / ||want|| within tolerance; NaN and zero references fail
// unless met exactly.
[[maybe_unused]] void close(const std::string& what, const float* got, const std::vector<double>& want, double tolerance) {
  double diff = 0, norm = 0;
  for (size_t i = 0; i < want.size(); i++) {
    diff += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  const double error = diff == 0 ? 0 : sqrt(diff / norm);
  that(error <= tolerance, text("%s: relative error %.3g above %.1g", what.c_str(), error, tolerance));
}

} }  // namespace check
