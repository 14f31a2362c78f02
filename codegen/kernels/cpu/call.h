// One launch as a kernel sees it, the team barrier, the walk over a program,
// and the ready-made functors.
//
// All workers enter every kernel. A kernel divides its work by worker index,
// but computes every element by steps that depend on shapes and instruction
// set alone, so the results are bitwise the same for any number of workers.
#pragma once
#include "../common/abi.h"
#include "simd.h"
#include <sched.h>
#include <time.h>

VG_BEGIN

// Where a vector of elements stands. row = sample*T + token for rows that run
// over a batch of sequences; n of the lanes, starting at column col, are valid.
struct vg_at {
  int64_t row;
  int32_t sample, token;
  int32_t col, n;
};

template <int T>
VG_FN vg_at vg_at_row(int64_t row) {
  return {row, (int32_t)(row / T), (int32_t)(row % T), 0, kLanes};
}

VG_FN void vg_pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// A pause is about 140 cycles on recent x86: this many are some 4 us, what equal
// shares of a short launch drift apart. After that the core is offered to others.
// Where nobody wants it that costs nothing; where more threads than cores do,
// whoever the others wait for is among them.
constexpr int kBarrierSpins = 64;

VG_NOINLINE void vg_barrier_wait(vg_barrier* b, int count) {
  const uint32_t phase = __atomic_load_n(&b->phase, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&b->arrived, 1, __ATOMIC_ACQ_REL) == (uint32_t)count) {
    __atomic_store_n(&b->arrived, 0, __ATOMIC_RELAXED);  // nobody arrives again before phase moves
    __atomic_store_n(&b->phase, phase + 1, __ATOMIC_RELEASE);
    return;
  }
  for (int spins = 0; __atomic_load_n(&b->phase, __ATOMIC_ACQUIRE) == phase; spins++) {
    if (spins < kBarrierSpins)
      vg_pause();
    else
      sched_yield();
  }
}

struct vg_range {
  int64_t begin, end;
};

// Share number `part` of `parts` nearly equal ones of 0 .. n-1.
VG_FN vg_range vg_share(int64_t n, int64_t part, int64_t parts) { return {n * part / parts, n * (part + 1) / parts}; }

VG_FN int64_t vg_min64(int64_t a, int64_t b) { return a < b ? a : b; }
VG_FN int64_t vg_max64(int64_t a, int64_t b) { return a > b ? a : b; }
VG_FN int64_t vg_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
VG_FN int64_t vg_round_up(int64_t a, int64_t b) { return vg_ceil_div(a, b) * b; }

struct vg_call {
  const vg_program* prog;
  const vg_launch* launch;
  vg_worker* w;

  template <class P>
  VG_FN P* arg(int i) const { return (P*)prog->args[launch->first_arg + (uint64_t)i]; }
  VG_FN int batch() const { return prog->batch; }
  VG_FN const vg_step& step() const { return *prog->step; }
  VG_FN char* workspace() const { return prog->workspace; }
  VG_FN char* scratch() const { return w->scratch; }
  VG_FN int index() const { return w->index; }
  VG_FN int count() const { return w->count; }
  // Everything any worker wrote before it is seen by all after it.
  VG_FN void barrier() const {
    if (w->count > 1) vg_barrier_wait(prog->barrier, w->count);
  }
  // This worker's part of n equal units.
  VG_FN vg_range share(int64_t n) const { return vg_share(n, w->index, w->count); }
};

typedef void (*vg_kernel)(const vg_call&);

VG_UNUSED inline uint64_t vg_now_ns() {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// Walks the program. Called once by every worker of the team.
VG_UNUSED inline void vg_run(const vg_kernel* table, const vg_program* prog, vg_worker* w) {
  const bool timed = prog->launch_ns != nullptr && w->index == 0;
  uint64_t start = timed ? vg_now_ns() : 0;
  for (int32_t i = 0; i < prog->launch_count; i++) {
    const vg_call call = {prog, prog->launches + i, w};
    table[call.launch->kernel](call);
    call.barrier();
    if (timed) {
      const uint64_t end = vg_now_ns();
      prog->launch_ns[i] = end - start;
      start = end;
    }
  }
}

// Calls f(at) for every vector of a row: whole vectors first, with a count the
// compiler knows, then the rest.
template <class F>
VG_FN void vg_each_vector(vg_at at, int64_t begin, int64_t end, const F& f) {
  int64_t col = begin;
  for (; col + kLanes <= end; col += kLanes) {
    at.col = (int32_t)col;
    at.n = kLanes;
    f(at);
  }
  if (col < end) {
    at.col = (int32_t)col;
    at.n = (int32_t)(end - col);
    f(at);
  }
}

// Source: the matrix at p, ld elements from row to row.
struct vg_matrix {
  const float* p;
  int64_t ld;
  template <class V>
  VG_FN V operator()(vg_at at) const { return vg_load<V>(p + at.row * ld + at.col, at.n); }
};

// Sink: stores to the matrix at p.
struct vg_store_matrix {
  float* p;
  int64_t ld;
  template <class V>
  VG_FN void operator()(V x, vg_at at) const { vg_store(p + at.row * ld + at.col, x, at.n); }
};

// Sink: adds to the matrix at p.
struct vg_add_matrix {
  float* p;
  int64_t ld;
  template <class V>
  VG_FN void operator()(V x, vg_at at) const {
    float* q = p + at.row * ld + at.col;
    vg_store(q, vg_load<V>(q, at.n) + x, at.n);
  }
};

// Sink of an output that nobody wants: the kernel does not compute it.
struct vg_none {
  template <class V>
  VG_FN void operator()(V, vg_at) const {}
};
template <class S>
constexpr bool vg_wanted = true;
template <>
constexpr bool vg_wanted<vg_none> = false;

// Whether two sources are of one kind.
template <class A, class B>
constexpr bool vg_same = false;
template <class A>
constexpr bool vg_same<A, A> = true;

// A source read without a template at each place of use.
template <class S>
VG_FN vf vg_value(const S& s, vg_at at) { return s.template operator()<vf>(at); }

// Has what a source reads (a sink reads and writes) in columns begin .. end-1 of
// the row fetched into L2, a cache line at a time.
template <class S>
VG_FN void vg_fetch_source(const S& s, vg_at at, int64_t begin, int64_t end) {
  at.n = kLanes;
  for (int64_t col = begin; col < end; col += 16) {
    at.col = (int32_t)col;
    (void)s.template operator()<vp>(at);
  }
}
template <class S>
VG_FN void vg_fetch_sink(const S& s, vg_at at, int64_t begin, int64_t end) {
  at.n = kLanes;
  for (int64_t col = begin; col < end; col += 16) {
    at.col = (int32_t)col;
    s(vp{}, at);
  }
}

VG_END
