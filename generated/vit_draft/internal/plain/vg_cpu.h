#ifndef VITGEN_COMMON_ABI_H
#define VITGEN_COMMON_ABI_H

// The contract between the host and a generated kernel library on the CPU.
//
// The host (Go) lays out one program as an array of launches and calls
// vg_run once per worker; the workers walk the launches together, with a
// barrier between two launches, so a whole training step costs one call per
// worker. Everything here is plain C and is mirrored by runtime/cpu.
#ifndef __CUDACC_RTC__  // which has its own, see cuda/types.cuh
#include <stddef.h>
#include <stdint.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

// What changes from step to step. Kernels read it through a pointer, so that
// a recorded program never has to be rewritten. Mirrored by runtime.StepScalars.
typedef struct vg_step {
  float lr;             // learning rate of this update
  float inv_n;          // 1 / samples of the effective batch
  float bias_corr1;     // AdamW: 1 / (1 - beta1^k), k = 1 for the first update
  float bias_corr2;     // AdamW: 1 / (1 - beta2^k)
  uint32_t seed_lo;     // Philox key
  uint32_t seed_hi;
  uint32_t micro_step;  // counts forward+backward passes since the start of training
  uint32_t dropout_on;  // 0: dropout and drop path are the identity
  float ema_weight;     // of the new parameters in their average: 1 - decay of this update
} vg_step;

typedef struct vg_launch {
  uint32_t kernel;     // index into the library's kernel table
  uint32_t arg_count;
  uint64_t first_arg;  // index into vg_program.args
} vg_launch;

// One barrier for all workers of a team; zero-initialized by the host, on a
// cache line of its own.
typedef struct vg_barrier {
  uint32_t arrived;
  uint32_t pad0[15];
  uint32_t phase;
  uint32_t pad1[15];
} vg_barrier;

typedef struct vg_program {
  const vg_launch* launches;
  void* const* args;         // every argument is a pointer
  const vg_step* step;
  char* workspace;           // shared by the workers, free for use within one launch; 64-byte aligned
  vg_barrier* barrier;
  uint64_t* launch_ns;       // NULL, or one slot a launch: nanoseconds, written by worker 0
  int32_t launch_count;
  int32_t batch;             // samples in this call, 1 .. the compiled batch
} vg_program;

// Private memory of one worker.
typedef struct vg_worker {
  int32_t index, count;
  char* scratch;             // 64-byte aligned, VG_SCRATCH_BYTES
} vg_worker;

#define VG_SCRATCH_BYTES (4u << 20)

#ifdef __cplusplus
}
#endif

#endif  // VITGEN_COMMON_ABI_H

#ifndef VITGEN_CPU_ISA_H
#define VITGEN_CPU_ISA_H

// The instruction set of one build of the kernels, and the words every other
// header is written in.
//
// The emitted file is compiled once for each instruction set: as it is
// (VG_ISA 0: any CPU), and through two short files that set
// `#pragma GCC target` and VG_ISA 1 (AVX2+FMA) or 2 (AVX-512 F, DQ, BW, VL).
// All objects meet in one binary, beside those of other models. Hence the two
// rules that keep AVX code out of a plain build's call graph: everything lives
// in an unnamed namespace (no symbol that a linker could merge), and nothing
// is taken from the C++ standard library, whose templates it would merge.
// On x86-64 the plain build is for processors without AVX2 alone. Less of the
// optimizer leaves its products as fast, and takes a third off its compile time.
#if defined(__x86_64__) && (!defined(VG_ISA) || VG_ISA == 0) && defined(__OPTIMIZE__) && !defined(__clang__)
#pragma GCC optimize("O1")
#endif
#include <stddef.h>
#include <stdint.h>

#ifndef VG_ISA
#define VG_ISA 0
#endif

#if VG_ISA == 2
#define VG_ISA_NAME avx512
#define VG_VECTOR_BYTES 64
#elif VG_ISA == 1
#define VG_ISA_NAME avx2
#define VG_VECTOR_BYTES 32
#elif VG_ISA == 0
#define VG_ISA_NAME plain
#define VG_VECTOR_BYTES 16
#else
#error "VG_ISA is 0 (plain), 1 (AVX2) or 2 (AVX-512)"
#endif

#if VG_ISA > 0
#include <immintrin.h>
#elif defined(__x86_64__)
#include <emmintrin.h>  // a fraction of immintrin.h's compile time
#endif

// The named layer only serves to tell the builds apart in profiles and traces.
#define VG_BEGIN namespace vg { inline namespace VG_ISA_NAME { namespace {
#define VG_END } } }

#define VG_CAT_(a, b) a##b
#define VG_CAT(a, b) VG_CAT_(a, b)

// VG_FN: inlined into every caller; VG_NOINLINE: one body, never cloned for a
// constant argument (a clone of the micro-kernel would cost compile time and
// instruction cache, and win nothing).
#define VG_FN inline __attribute__((always_inline))
#define VG_NOINLINE __attribute__((noinline, noclone, unused))
#define VG_UNUSED __attribute__((unused))
#define VG_LAMBDA __attribute__((always_inline))

#endif  // VITGEN_CPU_ISA_H

#ifndef VITGEN_CPU_SIMD_H
#define VITGEN_CPU_SIMD_H

// vf: a vector of floats as wide as the build's registers, with its mask (vm)
// and integer (vu) companions.
//
// Functors are templates on the value type, so the same text runs on vf here
// and on float on a GPU; only this header knows how wide vf is (4, 8 or 16).
// It is built on GCC's vector extensions, so one text serves every instruction
// set and any CPU; intrinsics appear only where the extensions have no word:
// masked memory, square roots and widening multiplication.

VG_BEGIN

constexpr int kLanes = VG_VECTOR_BYTES / 4;

typedef float vg_f32v __attribute__((vector_size(VG_VECTOR_BYTES)));
typedef int32_t vg_i32v __attribute__((vector_size(VG_VECTOR_BYTES)));
typedef uint32_t vg_u32v __attribute__((vector_size(VG_VECTOR_BYTES)));
typedef uint64_t vg_u64v __attribute__((vector_size(VG_VECTOR_BYTES)));
// The same in memory: no alignment beyond the element's.
typedef float vg_f32m __attribute__((vector_size(VG_VECTOR_BYTES), aligned(4), may_alias));
typedef uint32_t vg_u32m __attribute__((vector_size(VG_VECTOR_BYTES), aligned(4), may_alias));

// 0, 1, 2, …
VG_FN vg_i32v vg_iota() {
  vg_i32v r;
  for (int i = 0; i < kLanes; i++) r[i] = i;
  return r;
}

// One truth value a lane: all bits or none.
struct vm {
  vg_i32v v;
};
VG_FN vm operator&(vm a, vm b) { return {a.v & b.v}; }
VG_FN vm operator|(vm a, vm b) { return {a.v | b.v}; }
VG_FN vm operator!(vm a) { return {~a.v}; }

// Unsigned integers, for bit patterns and random numbers.
struct vu {
  vg_u32v v;
  vu() = default;
  VG_FN vu(uint32_t x) : v(vg_u32v{} + x) {}
  VG_FN vu(vg_u32v x) : v(x) {}
};
VG_FN vu operator+(vu a, vu b) { return a.v + b.v; }
VG_FN vu operator-(vu a, vu b) { return a.v - b.v; }
VG_FN vu operator&(vu a, vu b) { return a.v & b.v; }
VG_FN vu operator|(vu a, vu b) { return a.v | b.v; }
VG_FN vu operator^(vu a, vu b) { return a.v ^ b.v; }
VG_FN vu operator<<(vu a, int n) { return a.v << n; }
VG_FN vu operator>>(vu a, int n) { return a.v >> n; }
VG_FN vm operator>=(vu a, vu b) { return {a.v >= b.v}; }

struct vf {
  static constexpr int lanes = kLanes;
  vg_f32v v;
  vf() = default;
  VG_FN vf(float x) : v(x - vg_f32v{}) {}  // x - 0 keeps the sign of -0
  VG_FN vf(vg_f32v x) : v(x) {}
  VG_FN vf& operator+=(vf o) { v += o.v; return *this; }
  VG_FN vf& operator-=(vf o) { v -= o.v; return *this; }
  VG_FN vf& operator*=(vf o) { v *= o.v; return *this; }
};
VG_FN vf operator+(vf a, vf b) { return a.v + b.v; }
VG_FN vf operator-(vf a, vf b) { return a.v - b.v; }
VG_FN vf operator*(vf a, vf b) { return a.v * b.v; }
VG_FN vf operator/(vf a, vf b) { return a.v / b.v; }
VG_FN vf operator-(vf a) { return -a.v; }
VG_FN vm operator<(vf a, vf b) { return {a.v < b.v}; }
VG_FN vm operator<=(vf a, vf b) { return {a.v <= b.v}; }
VG_FN vm operator>(vf a, vf b) { return {a.v > b.v}; }
VG_FN vm operator>=(vf a, vf b) { return {a.v >= b.v}; }
VG_FN vm operator==(vf a, vf b) { return {a.v == b.v}; }
VG_FN vm operator!=(vf a, vf b) { return {a.v != b.v}; }

// a where the mask is set, b elsewhere.
VG_FN vf vg_select(vm m, vf a, vf b) { return m.v ? a.v : b.v; }

// a*b + c; fused where the target can (the library is built with
// -ffp-contract=fast, so this is a matter of clarity, not of rounding).
VG_FN vf vg_fma(vf a, vf b, vf c) { return a.v * b.v + c.v; }

// The larger (smaller) value; b if either is NaN.
VG_FN vf vg_max(vf a, vf b) { return a.v > b.v ? a.v : b.v; }
VG_FN vf vg_min(vf a, vf b) { return a.v < b.v ? a.v : b.v; }

VG_FN vu vg_bits(vf x) { return vu((vg_u32v)x.v); }
VG_FN vf vg_from_bits(vu x) { return vf((vg_f32v)x.v); }
VG_FN vf vg_abs(vf x) { return vg_from_bits(vg_bits(x) & vu(0x7fffffffu)); }
// |x| with the sign of s.
VG_FN vf vg_copysign(vf x, vf s) {
  return vg_from_bits((vg_bits(x) & vu(0x7fffffffu)) | (vg_bits(s) & vu(0x80000000u)));
}

VG_FN vf vg_sqrt(vf x) {
#if VG_ISA == 2
  return (vg_f32v)_mm512_maskz_sqrt_ps(0xffff, (__m512)x.v);  // all lanes; the plain form warns in GCC 12
#elif VG_ISA == 1
  return (vg_f32v)_mm256_sqrt_ps((__m256)x.v);
#elif defined(__x86_64__)
  return (vg_f32v)_mm_sqrt_ps((__m128)x.v);
#else
  for (int i = 0; i < kLanes; i++) x.v[i] = __builtin_sqrtf(x.v[i]);
  return x;
#endif
}
// One square root, which takes a fraction of a wide vector's time. The builtin on a
// float would call libm for errno's sake.
VG_FN float vg_sqrt_scalar(float x) {
#if defined(__x86_64__)
  return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
#else
  return vg_sqrt(vf(x)).v[0];
#endif
}
// Exactly rounded root, then an exactly rounded quotient.
VG_FN vf vg_rsqrt(vf x) { return vf(1.0f) / vg_sqrt(x); }

template <class V>
V vg_splat(float x);
template <>
VG_FN vf vg_splat<vf>(float x) { return vf(x); }

VG_FN vf vg_load_full(const float* p) { return (vg_f32v) * (const vg_f32m*)p; }
VG_FN void vg_store_full(float* p, vf x) { *(vg_f32m*)p = (vg_f32m)x.v; }

// Some of the lanes: 1 <= n < lanes. Nothing beyond p[n-1] is touched.
VG_FN vf vg_load_part(const float* p, int n) {
#if VG_ISA == 2
  return (vg_f32v)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif VG_ISA == 1
  return (vg_f32v)_mm256_maskload_ps(p, (__m256i)(vg_iota() < n));
#else
  vg_f32v r{};
  for (int i = 0; i < n; i++) r[i] = p[i];
  return r;
#endif
}
VG_FN void vg_store_part(float* p, vf x, int n) {
#if VG_ISA == 2
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)x.v);
#elif VG_ISA == 1
  _mm256_maskstore_ps(p, (__m256i)(vg_iota() < n), (__m256)x.v);
#else
  for (int i = 0; i < n; i++) p[i] = x.v[i];
#endif
}

// The first n values at p, zero in the lanes beyond; and the way back.
template <class V>
V vg_load(const float* p, int n);
template <>
VG_FN vf vg_load<vf>(const float* p, int n) {
  return __builtin_expect(n >= kLanes, 1) ? vg_load_full(p) : vg_load_part(p, n);
}
VG_FN void vg_store(float* p, vf x, int n) {
  if (__builtin_expect(n >= kLanes, 1))
    vg_store_full(p, x);
  else
    vg_store_part(p, x, n);
}

// vp: the place of a value and not the value. Called with vp, a functor computes
// nothing: its loads and stores only fetch the cache lines that they would touch.
// So a loop can have an epilogue's operands on their way while it multiplies.
struct vp {
  vp() = default;
  VG_FN vp(float) {}
};
VG_FN vp operator+(vp, vp) { return {}; }
VG_FN vp operator-(vp, vp) { return {}; }
VG_FN vp operator*(vp, vp) { return {}; }
template <>
VG_FN vp vg_load<vp>(const float* p, int) {
  __builtin_prefetch(p, 0, 2);  // into L2: the loops around it use L1 meanwhile
  return {};
}
VG_FN void vg_store(float* p, vp, int) { __builtin_prefetch(p, 1, 2); }
template <>
VG_FN vp vg_splat<vp>(float) { return {}; }

// Lanes >= n replaced by fill.
VG_FN vf vg_keep(vf x, int n, float fill) { return vg_select(vm{vg_iota() < n}, x, vf(fill)); }
VG_FN vf vg_or_zero(vf x, int n) { return n < kLanes ? vg_keep(x, n, 0.0f) : x; }

// Sum and maximum over the lanes, always by the same tree: lane i meets lane
// i xor lanes/2, then i xor lanes/4, …
VG_FN float vg_sum(vf x) {
  for (int s = kLanes / 2; s > 0; s /= 2) x.v += __builtin_shuffle(x.v, vg_iota() ^ s);
  return x.v[0];
}
VG_FN float vg_hmax(vf x) {
  for (int s = kLanes / 2; s > 0; s /= 2) x = vg_max(x, vf(__builtin_shuffle(x.v, vg_iota() ^ s)));
  return x.v[0];
}

// Two vectors, a and b, taken apart and put together in blocks of s lanes: low has
// the even blocks of both, at even places those of a; high has the odd ones.
struct vg_pairing {
  vg_i32v low, high;
  VG_FN explicit vg_pairing(int s) {
    const vg_i32v lane = vg_iota(), odd = (lane & s) != 0;
    low = odd ? lane - s + kLanes : lane;
    high = odd ? lane + kLanes : lane + s;
  }
};

// The sums (maxima) of kLanes vectors at once, lane i from r[i], in a third of the
// steps and without the latency of one after another: each round adds
// neighbours of two vectors and puts the results where the second one was not.
// Overwrites r.
template <class F>
VG_FN vf vg_fold_rows(vf* r, const F& f) {
#pragma GCC unroll 5
  for (int s = 1; s < kLanes; s *= 2) {
    const vg_pairing pair(s);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; i += 2 * s)
      r[i] = f(vf(__builtin_shuffle(r[i].v, r[i + s].v, pair.low)), vf(__builtin_shuffle(r[i].v, r[i + s].v, pair.high)));
  }
  return r[0];
}
VG_FN vf vg_sum_rows(vf* r) {
  return vg_fold_rows(r, [](vf a, vf b) VG_LAMBDA { return a + b; });
}
VG_FN vf vg_max_rows(vf* r) {
  return vg_fold_rows(r, [](vf a, vf b) VG_LAMBDA { return vg_max(a, b); });
}

// Turns r, a square of lanes x lanes values, along its diagonal: log2(lanes)
// rounds, each swapping the off-diagonal halves of ever larger squares. `below`:
// those of squares from that size on have been swapped.
VG_FN void vg_transpose_square(vf* r, int below = kLanes) {
#pragma GCC unroll 5
  for (int s = 1; s < below; s *= 2) {
    const vg_pairing pair(s);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; i++) {
      if (i & s) continue;
      const vg_f32v a = r[i].v, b = r[i + s].v;
      r[i].v = __builtin_shuffle(a, b, pair.low);
      r[i + s].v = __builtin_shuffle(a, b, pair.high);
    }
  }
}

// A square from memory, turned: lane l of r[i] is at(l)[i]. AVX-512 has one port for
// shuffles and two for loads that put four values where they belong.
template <class F>
VG_FN void vg_load_turned(const F& at, vf* r) {
#if VG_ISA == 2
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      __m512 x = _mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(at(i) + 4 * j));
#pragma GCC unroll 4
      for (int k = 1; k < 4; k++)
        x = _mm512_mask_broadcast_f32x4(x, (__mmask16)(0xf << 4 * k), _mm_loadu_ps(at(4 * k + i) + 4 * j));
      r[4 * j + i] = (vg_f32v)x;
    }
  vg_transpose_square(r, 4);
#else
#pragma GCC unroll 16
  for (int l = 0; l < kLanes; l++) r[l] = vg_load_full(at(l));
  vg_transpose_square(r);
#endif
}

VG_END

#endif  // VITGEN_CPU_SIMD_H

#ifndef VITGEN_CPU_CALL_H
#define VITGEN_CPU_CALL_H

// One launch as a kernel sees it, the team barrier, the walk over a program,
// and the ready-made functors.
//
// All workers enter every kernel. A kernel divides its work by worker index,
// but computes every element by steps that depend on shapes and instruction
// set alone, so the results are bitwise the same for any number of workers.
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

#endif  // VITGEN_CPU_CALL_H

#ifndef VITGEN_COMMON_PHILOX_H
#define VITGEN_COMMON_PHILOX_H

// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw,
// "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), and how vitgen maps
// one element of one dropout site to 16 of its bits. Plain C, for any host and
// for CUDA; cpu/dropout.h holds the vector form of the same function.
//
// Element i of a site draws from counter (i/128)*16 + i%16 the 16-bit half
// (i/16)%8 of the four output words, low half first. So the 128 elements of an
// aligned block need 16 evaluations, and 16 aligned neighbours share a half:
// sixteen lanes get their bits without moving any between lanes.
// Indices must stay below 2^35.
#ifndef __CUDACC_RTC__  // which has its own, see cuda/types.cuh
#include <stdint.h>
#endif

#ifdef __CUDACC__
#define VG_PORTABLE static __host__ __device__ inline
#else
#define VG_PORTABLE static inline
#endif

#define VG_PHILOX_M0 0xD2511F53u
#define VG_PHILOX_M1 0xCD9E8D57u
#define VG_PHILOX_W0 0x9E3779B9u
#define VG_PHILOX_W1 0xBB67AE85u

// x: the counter in, the four random words out.
VG_PORTABLE void vg_philox4x32(uint32_t x[4], uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; round++) {
    const uint64_t a = (uint64_t)VG_PHILOX_M0 * x[0], b = (uint64_t)VG_PHILOX_M1 * x[2];
    const uint32_t y0 = (uint32_t)(b >> 32) ^ x[1] ^ key0, y2 = (uint32_t)(a >> 32) ^ x[3] ^ key1;
    x[1] = (uint32_t)b;
    x[3] = (uint32_t)a;
    x[0] = y0;
    x[2] = y2;
    key0 += VG_PHILOX_W0;
    key1 += VG_PHILOX_W1;
  }
}

// The draw of one element, 0 .. 65535. It is dropped iff the draw is below
// round(p * 65536).
VG_PORTABLE uint32_t vg_dropout_draw(uint32_t seed_lo, uint32_t seed_hi, uint32_t micro_step, uint32_t site,
                                     uint64_t index) {
  uint32_t x[4] = {(uint32_t)((index >> 7) * 16 + (index & 15)), 0, site, micro_step};
  const uint32_t half = (uint32_t)(index >> 4) & 7;
  vg_philox4x32(x, seed_lo, seed_hi);
  return (x[half >> 1] >> (16 * (half & 1))) & 0xffffu;
}

#endif  // VITGEN_COMMON_PHILOX_H

#ifndef VITGEN_CPU_DROPOUT_H
#define VITGEN_CPU_DROPOUT_H

// Dropout and drop path: the multiplier of an element, 0 or 1/(1-p), from its
// index alone, so the backward pass computes the forward pass's mask again
// instead of reading it.
//
// One Philox evaluation a lane yields the bits of eight vectors of sixteen, and
// callers walk along rows, so vg_dropout keeps the multipliers of the 128-block
// it last met, with the end of the block before it: a vector at any offset is
// then one load.

VG_BEGIN

// The products of the lower halves of 64-bit lanes.
VG_FN vg_u64v vg_mul_low(vg_u64v a, uint32_t m) {
#if VG_ISA == 2
  return (vg_u64v)_mm512_maskz_mul_epu32(0xff, (__m512i)a, _mm512_set1_epi32((int)m));
#elif VG_ISA == 1
  return (vg_u64v)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi32((int)m));
#elif defined(__x86_64__)
  return (vg_u64v)_mm_mul_epu32((__m128i)a, _mm_set1_epi32((int)m));
#else
  return (a & 0xffffffffu) * m;
#endif
}

// vg_philox4x32 on a counter a lane. Even and odd lanes (x86 and the ARM targets
// are little-endian, so an even lane is the low half of 64 bits) go through the
// rounds apart: a product then is a pair of words in place, and what lies in the
// upper halves beside words matters to no multiplication.
VG_FN void vg_philox4x32(vu x[4], uint32_t key0, uint32_t key1) {
  vg_u64v even[4], odd[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) even[i] = (vg_u64v)x[i].v, odd[i] = even[i] >> 32;
  const auto turn = [&](vg_u64v* w) VG_LAMBDA {
    const vg_u64v p0 = vg_mul_low(w[0], VG_PHILOX_M0), p1 = vg_mul_low(w[2], VG_PHILOX_M1);
    w[0] = (p1 >> 32) ^ w[1] ^ key0;
    w[1] = p1;
    w[2] = (p0 >> 32) ^ w[3] ^ key1;
    w[3] = p0;
  };
  for (int round = 0; round < 10; round++) {
    turn(even), turn(odd);
    key0 += VG_PHILOX_W0;
    key1 += VG_PHILOX_W1;
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) x[i] = vu((vg_u32v)((even[i] & 0xffffffffu) | (odd[i] << 32)));
}

// What a kept value is multiplied by.
VG_FN float vg_inv_keep(uint32_t thr) { return 65536.0f / (float)(65536 - (int32_t)thr); }

// The 128 multipliers of one block of one site.
VG_NOINLINE void vg_dropout_block(const vg_step* step, uint32_t site, uint32_t thr, uint64_t block, float* out) {
  const vf kept = thr < 65536 ? vg_inv_keep(thr) : 0.0f;
  for (int lane = 0; lane < 16; lane += kLanes) {
    vu x[4] = {vu((vg_u32v)vg_iota() + (uint32_t)(block * 16 + lane)), 0, site, step->micro_step};
    vg_philox4x32(x, step->seed_lo, step->seed_hi);
    for (int half = 0; half < 8; half++) {
      const vu draw = (x[half >> 1] >> (16 * (half & 1))) & vu(0xffffu);
      vg_store_full(out + 16 * half + lane, vg_select(draw >= vu(thr), kept, vf(0.0f)));
    }
  }
}

// The multipliers of one dropout site. A functor holds one as a member; it
// belongs to one worker.
struct vg_dropout {
  VG_FN vg_dropout(const vg_step& s, uint32_t site, uint32_t thr)
      : step_(&s), site_(site), thr_(thr), on_(s.dropout_on && thr > 0) {}

  VG_FN bool on() const { return on_; }

  // Multipliers of elements index .. index + lanes-1; those from n on are any
  // value. All 1 while dropout is off.
  template <class V>
  VG_FN V scale(int64_t index, int n) const {
    if (!on_) return V(1.0f);
    int64_t at = index - first_;
    if (__builtin_expect(at < -before_ || at + n > 128, 0)) {
      refill(index, n);
      at = index - first_;
    }
    return vg_load_full(kept_ + 16 + at);
  }

 private:
  VG_NOINLINE void refill(int64_t index, int n) const {
    const int64_t from = index >> 7, to = (index + n - 1) >> 7;
    for (int64_t b = from; b <= to; b++) {
      if (b * 128 == first_) continue;
      before_ = b * 128 == first_ + 128 ? 16 : 0;
      if (before_ > 0) __builtin_memcpy(kept_, kept_ + 128, 16 * sizeof(float));
      vg_dropout_block(step_, site_, thr_, (uint64_t)b, kept_ + 16);
      first_ = b * 128;
    }
  }

  const vg_step* step_;
  uint32_t site_, thr_;
  bool on_;
  mutable int64_t first_ = -((int64_t)1 << 62);  // index of kept_[16]
  mutable int64_t before_ = 0;                   // how many before it are there too: 16 or none
  mutable float kept_[16 + 128 + 16] = {};       // the last 16 are only ever read into lanes beyond n
};

template <>
VG_FN vp vg_dropout::scale<vp>(int64_t, int) const { return {}; }

// The same without a cache, for a single vector.
template <class V>
VG_FN V vg_dropout_scale(const vg_step& step, uint32_t site, uint32_t thr, int64_t index, int n) {
  return vg_dropout(step, site, thr).template scale<V>(index, n);
}

// The multiplier of a whole sample.
VG_UNUSED inline float vg_drop_path_scale(const vg_step& step, uint32_t site, uint32_t thr, int64_t sample) {
  if (!step.dropout_on || thr == 0) return 1.0f;
  const uint32_t draw = vg_dropout_draw(step.seed_lo, step.seed_hi, step.micro_step, site, (uint64_t)sample);
  return draw >= thr ? vg_inv_keep(thr) : 0.0f;
}

// The multipliers of one drop path site: a functor asks for every vector, and a
// sample has many. Belongs to one worker, as vg_dropout.
struct vg_drop_path {
  VG_FN vg_drop_path(const vg_step& s, uint32_t site, uint32_t thr) : step_(&s), site_(site), thr_(thr) {}

  template <class V>
  VG_FN V scale(int64_t sample) const {
    if (__builtin_expect(sample != sample_, 0)) draw(sample);
    return V(scale_);
  }

 private:
  VG_NOINLINE void draw(int64_t sample) const {
    scale_ = vg_drop_path_scale(*step_, site_, thr_, sample);
    sample_ = sample;
  }

  const vg_step* step_;
  uint32_t site_, thr_;
  mutable int64_t sample_ = -1;
  mutable float scale_ = 1.0f;
};

VG_END

#endif  // VITGEN_CPU_DROPOUT_H

#ifndef VITGEN_CPU_MATH_H
#define VITGEN_CPU_MATH_H

// Elementary functions and activations on vf.
//
// Every function propagates NaN, raises no trap, and holds its error bound
// over all of float (the test walks the range against libm in double):
//
//   vg_exp     2 ulp, subnormal results and overflow to infinity included
//   vg_log     2 ulp (subnormal arguments included; log 0 = -inf, log -x = NaN)
//   vg_tanh    2 ulp
//   vg_exp2_below  2.5e-7 of the value from -126 to 0
//
// The activations are bounded by 2e-7 of max(|x|, 1); GELU's and its gradient's by
// 1.2e-7, whose error is nowhere more than a few roundings. The polynomials are minimax fits (weighted
// Lawson iteration) of the functions named beside them.

VG_BEGIN

// Arguments beyond these give infinity and zero.
constexpr float kExpMax = 89.0f, kExpMin = -104.0f;

// e^x = 2^n e^r with n = round(x log2 e), |r| <= ln 2 / 2. ln 2 is subtracted in
// two parts, the first short enough that n times it is exact. Where there is no
// instruction for it, 2^n is applied in two factors, so that neither over- nor
// underflows before the product does.
VG_FN vf vg_exp(vf x) {
  x = vg_min(vf(kExpMax), x);  // in this order: NaN stays
  x = vg_max(vf(kExpMin), x);
  const vf magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const vf shifted = vg_fma(x, vf(1.44269504f), magic);
  const vf n = shifted - magic;
  vf r = vg_fma(n, vf(-0.693359375f), x);
  r = vg_fma(n, vf(2.12194440e-4f), r);
  vf p = 1.38145598e-3f;  // (e^r - 1 - r) / r^2
  p = vg_fma(p, r, vf(8.36873557e-3f));
  p = vg_fma(p, r, vf(4.16683899e-2f));
  p = vg_fma(p, r, vf(0.166665205f));
  p = vg_fma(p, r, vf(0.499999934f));
  p = vg_fma(p * r, r, r) + vf(1.0f);
#if VG_ISA == 2
  return (vg_f32v)_mm512_maskz_scalef_ps(0xffff, (__m512)p.v, (__m512)n.v);  // p 2^n, whatever n
#else
  const vg_i32v k = (vg_i32v)vg_bits(shifted).v - 0x4b400000;  // n as an integer
  const vg_i32v k1 = k >> 1, k2 = k - k1;
  const vf s1 = vg_from_bits(vu((vg_u32v)(k1 + 127) << 23));
  const vf s2 = vg_from_bits(vu((vg_u32v)(k2 + 127) << 23));
  return p * s1 * s2;
#endif
}

// e^x where it is a normal number, -87 <= x <= 88, with less ado: ln 2 in one part
// (|n| <= 127, so n times its error stays below 2.5e-7) and 2^n added to the
// exponent's bits. Beyond, anything but a trap.
VG_FN vf vg_exp_normal(vf x) {
  const vf magic = 12582912.0f;
  const vf shifted = vg_fma(x, vf(1.44269504f), magic);
  const vf r = vg_fma(shifted - magic, vf(-0.693147182f), x);
  vf p = 1.38145598e-3f;
  p = vg_fma(p, r, vf(8.36873557e-3f));
  p = vg_fma(p, r, vf(4.16683899e-2f));
  p = vg_fma(p, r, vf(0.166665205f));
  p = vg_fma(p, r, vf(0.499999934f));
  p = vg_fma(p, r, vf(1.0f));
  p = vg_fma(p, r, vf(1.0f));
  return vg_from_bits(vg_bits(p) + (vg_bits(shifted) << 23));
}

// 2^x for x that rounding at most brings above 0, as softmax has it: 0 below -126,
// where no sum that counts a 1 notices.
VG_FN vf vg_exp2_below(vf x) {
#if VG_ISA == 2
  const vf r = (vg_f32v)_mm512_maskz_reduce_ps(0xffff, (__m512)x.v, 0);  // x - n, n = round(x)
#else
  const vf magic = 12582912.0f;
  const vf shifted = x + magic;
  const vf r = x - (shifted - magic);
#endif
  vf p = 1.32647273e-3f;  // (2^r - 1) / r
  p = vg_fma(p, r, vf(9.67151299e-3f));
  p = vg_fma(p, r, vf(5.55073358e-2f));
  p = vg_fma(p, r, vf(0.240222424f));
  p = vg_fma(p, r, vf(0.693147004f));
  p = vg_fma(p, r, vf(1.0f));
#if VG_ISA == 2
  p = (vg_f32v)_mm512_maskz_scalef_ps(0xffff, (__m512)p.v, (__m512)(x - r).v);
#else
  p = vg_from_bits(vg_bits(p) + (vg_bits(shifted) << 23));
#endif
  return vg_select(x < vf(-126.0f), vf(0.0f), p);
}

// ln x = e ln 2 + ln(1+f), 1+f in [sqrt 1/2, sqrt 2].
VG_FN vf vg_log(vf x) {
  const vf tiny = 1.17549435e-38f;
  const vm subnormal = x < tiny;
  const vf y = vg_select(subnormal, x * vf(8388608.0f), x);
  // Taking the bits of sqrt(1/2) off puts the exponent's step there.
  const vg_i32v bits = (vg_i32v)vg_bits(y).v - 0x3f3504f3;
  const vg_i32v e = (bits >> 23) + (subnormal.v & -23);
  const vf f = vg_from_bits(vu((vg_u32v)((bits & 0x7fffff) + 0x3f3504f3))) - vf(1.0f);
  const vf n = vf(__builtin_convertvector(e, vg_f32v));
  vf p = -0.0763449776f;  // (ln(1+f) - f + f^2/2) / f^3
  p = vg_fma(p, f, vf(0.127615775f));
  p = vg_fma(p, f, vf(-0.131601822f));
  p = vg_fma(p, f, vf(0.142017579f));
  p = vg_fma(p, f, vf(-0.166233574f));
  p = vg_fma(p, f, vf(0.200012269f));
  p = vg_fma(p, f, vf(-0.25000821f));
  p = vg_fma(p, f, vf(0.333333317f));
  const vf f2 = f * f;
  vf t = vg_fma(f2 * f, p, n * vf(-2.12194440e-4f));
  t = vg_fma(f2, vf(-0.5f), t);
  vf r = vg_fma(n, vf(0.693359375f), f + t);
  const float inf = __builtin_inff();
  r = vg_select(x == vf(inf), x, r);
  r = vg_select(x == vf(0.0f), vf(-inf), r);
  return vg_select(x >= vf(0.0f), r, vf(__builtin_nanf("")));
}

// Small |x|: odd polynomial. Otherwise 1 - 2/(e^2|x| + 1).
VG_FN vf vg_tanh(vf x) {
  const vf a = vg_abs(x), s = x * x;
  vf p = -0.0057049872f;  // (tanh x / x - 1) / x^2
  p = vg_fma(p, s, vf(0.0206390874f));
  p = vg_fma(p, s, vf(-0.0537397151f));
  p = vg_fma(p, s, vf(0.133314422f));
  p = vg_fma(p, s, vf(-0.333332819f));
  const vf small = vg_fma(p * s, x, x);
  const vf large = vf(1.0f) - vf(2.0f) / (vg_exp(a + a) + vf(1.0f));
  return vg_copysign(vg_select(a < vf(0.625f), small, large), x);
}

VG_FN vf vg_sigmoid(vf x) { return vf(1.0f) / (vf(1.0f) + vg_exp(-x)); }

// max(x, 0), and NaN for NaN; its gradient is dy where x > 0 and 0 elsewhere,
// as PyTorch has it.
VG_FN vf vg_relu(vf x) { return vg_max(vf(0.0f), x); }
VG_FN vf vg_relu_grad(vf dy, vf x) { return vg_select(x <= vf(0.0f), vf(0.0f), dy); }

// The half of the normal distribution that GELU needs, at a = min(|x|, 13):
//   bell = exp(-a^2/2), 0 from 13 on, where it is below 1e-36;
//   ratio = Phi(-a) / bell, Mills' ratio but for a factor.
// With them Phi and its density take one exponential, and no 1 + erf cancels.
struct vg_normal {
  vf a, bell, ratio;
};
VG_FN vg_normal vg_normal_tail(vf x) {
  const vf a = vg_min(vf(13.0f), vg_abs(x));
  vf q = -3.15543531e-7f;  // Phi(-a) exp(a^2/2); the error times bell is below 2e-8
  q = vg_fma(q, a, vf(7.70878796e-6f));
  q = vg_fma(q, a, vf(-8.47710689e-5f));
  q = vg_fma(q, a, vf(5.6365307e-4f));
  q = vg_fma(q, a, vf(-2.5900912e-3f));
  q = vg_fma(q, a, vf(9.00384877e-3f));
  q = vg_fma(q, a, vf(-2.54718196e-2f));
  q = vg_fma(q, a, vf(6.19239323e-2f));
  q = vg_fma(q, a, vf(-0.13280578f));
  q = vg_fma(q, a, vf(0.249972567f));
  q = vg_fma(q, a, vf(-0.398940593f));
  q = vg_fma(q, a, vf(0.49999997f));
  return {a, vg_select(a < vf(13.0f), vg_exp_normal(vf(-0.5f) * a * a), vf(0.0f)), q};
}

// x Phi(x), Phi the normal distribution, as max(x, 0) - |x| Phi(-|x|).
VG_FN vf vg_gelu(vf x) {
  const vg_normal t = vg_normal_tail(x);
  return vg_fma(-t.a * t.bell, t.ratio, vg_relu(x));
}
// Its slope, Phi(x) + x phi(x), phi(x) = exp(-x^2/2) / sqrt(2 pi): with t = |x| phi(x) - Phi(-|x|),
// 1 + t above zero and -t below.
VG_FN vf vg_gelu_slope(vf x) {
  const vg_normal n = vg_normal_tail(x);
  const vf t = n.bell * vg_fma(vf(0.398942280f), n.a, -n.ratio);
  return vg_select(x > vf(0.0f), vf(1.0f) + t, -t);
}

// x (1 + tanh u) / 2, u = sqrt(2/pi) (x + 0.044715 x^3).
VG_FN vf vg_gelu_tanh_arg(vf x) {
  return vf(0.797884561f) * vg_fma(vf(0.044715f) * x * x, x, x);
}
VG_FN vf vg_gelu_tanh(vf x) {
  const vf half = vf(0.5f) * x;
  return vg_fma(half, vg_tanh(vg_gelu_tanh_arg(x)), half);
}
VG_FN vf vg_gelu_tanh_slope(vf x) {
  const vf t = vg_tanh(vg_gelu_tanh_arg(x));
  const vf du = vf(0.797884561f) * vg_fma(vf(3 * 0.044715f) * x, x, vf(1.0f));
  // Where tanh has saturated its slope is zero, however large x^3 is.
  const vf slope = vg_select(vg_abs(x) > vf(10.0f), vf(0.0f), (vf(1.0f) - t * t) * du);
  return vg_fma(vf(0.5f) * x, slope, vg_fma(vf(0.5f), t, vf(0.5f)));
}

// x sigmoid(x).
VG_FN vf vg_silu(vf x) { return x / (vf(1.0f) + vg_exp(-x)); }
VG_FN vf vg_silu_grad(vf dy, vf x) {
  const vf s = vg_sigmoid(x);
  return dy * s * vg_fma(x, vf(1.0f) - s, vf(1.0f));
}

// On places of values: nothing.
VG_FN vp vg_relu(vp) { return {}; }
VG_FN vp vg_relu_grad(vp, vp) { return {}; }
VG_FN vp vg_gelu(vp) { return {}; }
VG_FN vp vg_gelu_slope(vp) { return {}; }
VG_FN vp vg_gelu_tanh(vp) { return {}; }
VG_FN vp vg_gelu_tanh_slope(vp) { return {}; }
VG_FN vp vg_silu(vp) { return {}; }
VG_FN vp vg_silu_grad(vp, vp) { return {}; }

VG_END

#endif  // VITGEN_CPU_MATH_H

#ifndef VITGEN_CPU_ATTENTION_HEAD_H
#define VITGEN_CPU_ATTENTION_HEAD_H

// What every way of computing attention shares: its arguments, softmax and its
// gradient over rows, and fetching.
//
//   S = scale Q K^T,  P = softmax(S),  O = dropout(P) V,  lse = log sum exp S
//
// The forward pass keeps lse, and the backward pass recomputes P = exp(S - lse)
// and the dropout mask, so nothing of size Tq x Tk is ever stored.

VG_BEGIN

constexpr int64_t kMaxHeadDim = 512;
constexpr int64_t kMaxTokens = 16384;
constexpr int kKeyBlock = 256;              // keys in a block
constexpr int kKeyStride = kKeyBlock + 16;  // from row to row of its scores: off a power of two, so that rows do not share cache sets
constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

// Row of q: b*tq + i, at q + row*ldq + h*head_dim; rows of k and v: b*tk + j;
// lse[(b*heads + h)*tq + i]. Query row i stands at token q_first + i of q_total
// (they differ from i and tq when only some rows are computed): key j is seen
// if !causal or j <= q_first + i, and the dropout index of a weight is
// ((b*heads + h)*q_total + q_first + i)*tk + j. drop_thr 0: no dropout.
struct vg_attention_shape {
  int heads, head_dim, tq, tk, q_first, q_total;
  float scale;
  bool causal;
  uint32_t drop_site, drop_thr;

  // How many keys query row i sees.
  VG_FN int64_t seen(int64_t i) const { return causal ? vg_min64(tk, q_first + i + 1) : tk; }
  VG_FN int64_t drop_index(int64_t unit, int64_t i) const { return (unit * q_total + q_first + i) * tk; }
};

struct vg_attention_args : vg_attention_shape {
  const float *q, *k, *v;
  int64_t ldq, ldk, ldv;
  float* o;
  int64_t ldo;
  float* lse;  // may be NULL
};

struct vg_attention_grad_args : vg_attention_shape {
  const float *q, *k, *v, *o, *lse, *dout;
  int64_t ldq, ldk, ldv, ldo, lddout;
  float *dq, *dk, *dv;
  int64_t lddq, lddk, lddv;
};

// Rows of a head that are wanted soon: fetched into L2 a few at a time, between the
// tiles of products that leave memory idle. They are short and far apart, so the
// hardware foresees none of them.
struct vg_coming {
  struct part {
    const float* p;
    int64_t ld, rows;
  };
  int64_t cols;
  int count = 0;
  part parts[8] = {};

  // Head `unit` of a matrix of `rows` rows a sample; the last one added comes first.
  VG_FN void add_head(const vg_attention_shape& s, int64_t unit, const float* p, int64_t ld, int64_t rows) {
    parts[count++] = {p + unit / s.heads * rows * ld + unit % s.heads * s.head_dim, ld, rows};
  }
  // A line for every four steps of a tile.
  VG_NOINLINE void fetch(int64_t steps) {
    for (; steps > 0 && count > 0; steps -= vg_max64(1, cols / 4)) {
      part& from = parts[count - 1];
      if (from.rows == 0) {
        count--;
        continue;
      }
      for (int64_t c = 0; c < cols; c += 16) __builtin_prefetch(from.p + c, 0, 2);
      from.p += from.ld;
      from.rows--;
    }
  }
};

VG_FN void vg_zero_cols(float* row, int64_t from, int64_t to) {
  for (int64_t c = vg_round_up(from, kLanes); c < to; c += kLanes) vg_store_full(row + c, vf(0.0f));
}

// out[r] = the product of rows a_r and b_r, for at most kLanes rows.
VG_FN void vg_row_dots(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t rows, int64_t n, float* out) {
  vf part[kLanes];
  for (int64_t r = 0; r < kLanes; r++) part[r] = vf(0.0f);
  for (int64_t r = 0; r < rows; r++)
    vg_each_vector(vg_at{}, 0, n, [&](vg_at at) VG_LAMBDA {
      part[r] += vg_load<vf>(a + r * lda + at.col, at.n) * vg_load<vf>(b + r * ldb + at.col, at.n);
    });
  vg_store(out, vg_sum_rows(part), (int)rows);
}

// Which rows pass softmax together: query rows of a head, one after the other, or
// one query row's heads.
struct vg_score_rows {
  int64_t first, step;            // query rows
  int64_t drop_index, drop_step;  // of their first weights
};

// Softmax of at most kLanes rows of S, scores to base 2, in blocks `stride` apart. A
// row becomes dropout(2^(S - its maximum)) over the columns it sees, and zero beyond;
// what it sums up to without dropout comes out inverted, for O to be multiplied by.
VG_NOINLINE void vg_attention_softmax(const vg_attention_shape& s, float* row, int64_t stride, int64_t keys,
                                      const vg_score_rows& of, int rows, const vg_dropout& drop, float* inv, float* lse) {
  vf part[kLanes];
  float top[kLanes];
  for (int r = 0; r < kLanes; r++) part[r] = vf(-__builtin_inff());
  for (int r = 0; r < rows; r++)
    for (int64_t b = 0, left = s.seen(of.first + r * of.step); left > 0; b++, left -= kKeyBlock)
      vg_each_vector(vg_at{}, 0, vg_min64(kKeyBlock, left), [&](vg_at at) VG_LAMBDA {
        const vf x = vg_load_full(row + r * kKeyStride + b * stride + at.col);
        part[r] = vg_max(at.n < kLanes ? vg_keep(x, at.n, -__builtin_inff()) : x, part[r]);
      });
  const vf most = vg_max_rows(part);
  vg_store_full(top, most);
  for (int r = 0; r < rows; r++) {
    const vf base = top[r];
    vf sum = 0.0f;
    for (int64_t b = 0, left = s.seen(of.first + r * of.step); left > 0; b++, left -= kKeyBlock)
      vg_each_vector(vg_at{}, 0, vg_min64(kKeyBlock, left), [&](vg_at at) VG_LAMBDA {
        float* p = row + r * kKeyStride + b * stride + at.col;
        vf e = vg_exp2_below(vg_load_full(p) - base);
        if (at.n < kLanes) e = vg_keep(e, at.n, 0.0f);
        sum += e;
        vg_store_full(p, e * drop.scale<vf>(of.drop_index + r * of.drop_step + b * kKeyBlock + at.col, at.n));
      });
    part[r] = sum;
    for (int64_t b = 0; s.causal && b * kKeyBlock < keys; b++)
      vg_zero_cols(row + r * kKeyStride + b * stride, vg_max64(0, s.seen(of.first + r * of.step) - b * kKeyBlock), vg_min64(kKeyBlock, keys - b * kKeyBlock));
  }
  for (int r = rows; r < kLanes; r++) part[r] = vf(1.0f);
  const vf total = vg_sum_rows(part);
  vg_store_full(inv, vf(1.0f) / total);
  if (lse) vg_store(lse, vg_fma(most, vf(kLn2), vg_log(total)), rows);
}

// One row of one key block, from S and dP = dO V^T to dropout(P) and
// dS = scale P (dP m - delta), m the dropout multiplier. Columns seen .. padded
// become zero.
VG_NOINLINE void vg_attention_row_grad(float* s, float* dp, int64_t seen, int64_t padded, float scale, float lse,
                                       float delta, const vg_dropout& drop, int64_t drop_index) {
  const vf base = -lse, off = delta, factor = scale;
  vg_each_vector(vg_at{}, 0, seen, [&](vg_at at) VG_LAMBDA {
    const vf m = drop.scale<vf>(drop_index + at.col, at.n);
    const vf p = vg_exp2_below(vg_fma(vg_load_full(s + at.col), factor, base) * vf(kLog2E));
    vf dropped = p * m;
    vf ds = factor * p * (vg_load_full(dp + at.col) * m - off);
    if (at.n < kLanes) {
      dropped = vg_keep(dropped, at.n, 0.0f);
      ds = vg_keep(ds, at.n, 0.0f);
    }
    vg_store_full(s + at.col, dropped);
    vg_store_full(dp + at.col, ds);
  });
  vg_zero_cols(s, seen, padded);
  vg_zero_cols(dp, seen, padded);
}

VG_END

#endif  // VITGEN_CPU_ATTENTION_HEAD_H

#ifndef VITGEN_CPU_ATTENTION_LANES_H
#define VITGEN_CPU_ATTENTION_LANES_H

// Attention of short sequences, kLanes heads at once: lane l of every vector is the
// group's head l. A handful of tokens fills no vector and no tile; this way
// nothing has edges, and softmax needs no sums across lanes. The price is that
// rows are transposed on their way in and out.
//
// A matrix of a group is a matrix of vectors, row-major, without gaps.

VG_BEGIN

constexpr int64_t kLaneTokens = 32;  // longest sequence,
constexpr int64_t kLaneWidth = 32;   // widest head,
constexpr int64_t kLaneLeast = 3;    // and least of either, that goes this way
constexpr int64_t kLaneMatrix = kLaneTokens * kLaneTokens * kLanes;
static_assert(kLaneWidth <= kLaneTokens, "a matrix holds rows or scores");

VG_FN bool vg_lanes_suit(const vg_attention_shape& s) {
  return s.tq >= kLaneLeast && s.tq <= kLaneTokens && s.tk >= kLaneLeast && s.tk <= kLaneTokens && s.head_dim >= kLaneLeast && s.head_dim <= kLaneWidth;
}

// Heads of a group: `count` from `first` on. Lanes beyond do the last one's work
// again, and their results go nowhere.
struct vg_lane_group {
  int64_t first;
  int count;

  VG_FN int64_t unit(int lane) const { return first + vg_min64(lane, count - 1); }
};

// Where the lanes' rows begin: rows of a matrix with `rows` of them a sample.
struct vg_lane_rows {
  int64_t at[kLanes];
  int64_t ld;

  VG_FN vg_lane_rows(const vg_lane_group& g, const vg_attention_shape& s, int64_t rows, int64_t ld) : ld(ld) {
    for (int l = 0; l < kLanes; l++) at[l] = g.unit(l) / s.heads * rows * ld + g.unit(l) % s.heads * s.head_dim;
  }
  // One row a head, `stride` after the last one's; row 0 is that of head `from`.
  VG_FN vg_lane_rows(const vg_lane_group& g, int64_t from, int64_t stride) : ld(0) {
    for (int l = 0; l < kLanes; l++) at[l] = (g.unit(l) - from) * stride;
  }
};

// to = factor times rows of every lane, a column to a vector.
VG_NOINLINE void vg_gather(const float* p, const vg_lane_rows& from, int64_t rows, int64_t cols, float factor, float* to) {
  const vf by = factor;
  for (int64_t r = 0; r < rows; r++, p += from.ld, to += cols * kLanes)
    for (int64_t c = 0; c < cols; c += kLanes) {
      vf square[kLanes];
      float* out = to + c * kLanes;
      const auto at = [&](int l) VG_LAMBDA { return p + from.at[l] + c; };
      if (cols - c >= kLanes) {
        vg_load_turned(at, square);
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; i++) vg_store_full(out + i * kLanes, square[i] * by);
        continue;
      }
      for (int l = 0; l < kLanes; l++) square[l] = vg_load_part(at(l), (int)(cols - c));
      vg_transpose_square(square);
      for (int i = 0; i < cols - c; i++) vg_store_full(out + i * kLanes, square[i] * by);
    }
}

// And back, from the first `count` lanes.
VG_NOINLINE void vg_scatter(const float* in, const vg_lane_rows& to, int count, int64_t rows, int64_t cols, float* p) {
  for (int64_t r = 0; r < rows; r++, p += to.ld, in += cols * kLanes)
    for (int64_t c = 0; c < cols; c += kLanes) {
      vf square[kLanes];
      const int n = (int)vg_min64(kLanes, cols - c);
      const float* from = in + c * kLanes;
      float* const out = p + c;
      if (n == kLanes && count == kLanes) {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; i++) square[i] = vg_load_full(from + i * kLanes);
        vg_transpose_square(square);
#pragma GCC unroll 16
        for (int l = 0; l < kLanes; l++) vg_store_full(out + to.at[l], square[l]);
        continue;
      }
      for (int i = 0; i < kLanes; i++) square[i] = i < n ? vg_load_full(from + i * kLanes) : vf(0.0f);
      vg_transpose_square(square);
      for (int l = 0; l < count; l++) vg_store(out + to.at[l], square[l], n);
    }
}

// The dropout multipliers of all weights, in place of q's rows times k's.
VG_NOINLINE void vg_lane_masks(const vg_lane_group& g, const vg_attention_shape& s, const vg_dropout& drop, float* raw, float* out) {
  const int64_t n = (int64_t)s.tq * s.tk, stride = vg_round_up(n, kLanes) + kLanes;
  for (int l = 0; l < g.count; l++)
    for (int64_t e = 0; e < n; e += kLanes)
      vg_store_full(raw + l * stride + e, drop.scale<vf>(s.drop_index(g.unit(l), 0) + e, (int)vg_min64(kLanes, n - e)));
  vg_gather(raw, vg_lane_rows(g, g.first, stride), 1, n, 1.0f, out);
}

// An operand of a product: element (i, k) at p + i*row + k*step.
struct vg_lane_operand {
  const float* p;
  int64_t row, step;
};
VG_FN vg_lane_operand vg_lane_plain(const float* p, int64_t cols) { return {p, cols * kLanes, kLanes}; }
VG_FN vg_lane_operand vg_lane_turned(const float* p, int64_t cols) { return {p, kLanes, cols * kLanes}; }

// The tile of registers: R rows of A and C of B.
constexpr int kLaneTile = VG_ISA == 2 ? 5 : 3, kLaneTileLeast = VG_ISA == 2 ? 3 : 2;

struct vg_lane_steps {
  int64_t depth, a_row, a_step, b_row, b_step, out_row;
};

template <int R, int C>
VG_NOINLINE void vg_lane_tile(const vg_lane_steps& s, const float* a, const float* b, float* out) {
  vg_f32v acc[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) acc[r][c] = vg_f32v{};
  for (int64_t k = 0; k < s.depth; k++, a += s.a_step, b += s.b_step) {
    vg_f32v bv[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) bv[c] = vg_load_full(b + c * s.b_row).v;
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const vg_f32v av = vg_load_full(a + r * s.a_row).v;
#pragma GCC unroll 8
      for (int c = 0; c < C; c++) acc[r][c] = av * bv[c] + acc[r][c];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) vg_store_full(out + r * s.out_row + c * kLanes, acc[r][c]);
}

template <int R>
VG_FN void vg_lane_tile_of(int64_t cols, const vg_lane_steps& s, const float* a, const float* b, float* out) {
  if (cols == kLaneTile)
    vg_lane_tile<R, kLaneTile>(s, a, b, out);
  else if (cols == kLaneTileLeast)
    vg_lane_tile<R, kLaneTileLeast>(s, a, b, out);
  else
    vg_lane_tile<R, kLaneTileLeast + 1>(s, a, b, out);
}

// out = A B^T, rows and columns cut evenly into tiles.
VG_NOINLINE void vg_lane_product(int64_t rows, int64_t cols, int64_t depth, vg_lane_operand a, vg_lane_operand b, float* out) {
  const vg_lane_steps s = {depth, a.row, a.step, b.row, b.step, cols * kLanes};
  const int64_t tall = vg_ceil_div(rows, kLaneTile), wide = vg_ceil_div(cols, kLaneTile);
  const int64_t height = rows / tall, taller = rows % tall, width = cols / wide, wider = cols % wide;
  const float* x = a.p;
  for (int64_t i = 0; i < tall; i++) {
    const int64_t r = height + (i < taller);
    const float* y = b.p;
    float* to = out;
    for (int64_t j = 0; j < wide; j++) {
      const int64_t c = width + (j < wider);
      if (r == kLaneTile)
        vg_lane_tile_of<kLaneTile>(c, s, x, y, to);
      else if (r == kLaneTileLeast)
        vg_lane_tile_of<kLaneTileLeast>(c, s, x, y, to);
      else
        vg_lane_tile_of<kLaneTileLeast + 1>(c, s, x, y, to);
      y += c * b.row;
      to += c * kLanes;
    }
    x += r * a.row;
    out += r * s.out_row;
  }
}

// The same element of n rows or columns of vectors.
VG_FN vf vg_lane(const float* p, int64_t i) { return vg_load_full(p + i * kLanes); }
VG_FN void vg_set_lane(float* p, int64_t i, vf x) { vg_store_full(p + i * kLanes, x); }

// Dropout of softmax of the rows of S, scores to base 2, and zero for keys that a row
// does not see. m: dropout's multipliers, or NULL. Every step is taken for all
// rows before the next, which keeps more of them under way.
VG_FN void vg_lane_softmax(const vg_attention_shape& a, float* s, const float* m, float* lse) {
  vf most[kLaneTokens], inv[kLaneTokens];
  const int64_t tq = a.tq, tk = a.tk, row = tk * kLanes;
  for (int64_t i = 0; i < tq; i++) {
    most[i] = vg_lane(s + i * row, 0);
    for (int64_t j = 1; j < a.seen(i); j++) most[i] = vg_max(vg_lane(s + i * row, j), most[i]);
  }
  for (int64_t i = 0; i < tq; i++) {
    vf sum = 0.0f;
    for (int64_t j = 0; j < a.seen(i); j++) {
      const vf e = vg_exp2_below(vg_lane(s + i * row, j) - most[i]);
      vg_set_lane(s + i * row, j, e);
      sum += e;
    }
    inv[i] = sum;
    for (int64_t j = a.seen(i); j < tk; j++) vg_set_lane(s + i * row, j, vf(0.0f));
  }
  for (int64_t i = 0; i < tq; i++) {
    vg_set_lane(lse, i, vg_fma(most[i], vf(kLn2), vg_log(inv[i])));
    inv[i] = vf(1.0f) / inv[i];
  }
  for (int64_t i = 0; i < tq; i++)
    for (int64_t e = i * tk; e < (i + 1) * tk; e++)
      vg_set_lane(s, e, vg_lane(s, e) * (m ? vg_lane(m, e) * inv[i] : inv[i]));
}

// Matrices of a group in a worker's scratch.
VG_FN float* vg_lane_matrix(const vg_call& call, int i) { return (float*)call.scratch() + i * kLaneMatrix; }

VG_NOINLINE void vg_attention_lanes(const vg_call& call, const vg_attention_args& a, const vg_lane_group& g, const vg_dropout& drop) {
  float *q = vg_lane_matrix(call, 0), *k = vg_lane_matrix(call, 1), *v = vg_lane_matrix(call, 2), *s = vg_lane_matrix(call, 3);
  float *m = vg_lane_matrix(call, 4), *lse = vg_lane_matrix(call, 5), *raw = vg_lane_matrix(call, 6), *o = q;
  const int64_t tq = a.tq, tk = a.tk, d = a.head_dim;
  vg_gather(a.q, vg_lane_rows(g, a, tq, a.ldq), tq, d, a.scale * kLog2E, q);
  vg_gather(a.k, vg_lane_rows(g, a, tk, a.ldk), tk, d, 1.0f, k);
  vg_gather(a.v, vg_lane_rows(g, a, tk, a.ldv), tk, d, 1.0f, v);
  vg_lane_product(tq, tk, d, vg_lane_plain(q, d), vg_lane_plain(k, d), s);
  if (drop.on()) vg_lane_masks(g, a, drop, raw, m);
  vg_lane_softmax(a, s, drop.on() ? m : nullptr, lse);
  vg_lane_product(tq, d, tk, vg_lane_plain(s, tk), vg_lane_turned(v, d), o);
  vg_scatter(o, vg_lane_rows(g, a, tq, a.ldo), g.count, tq, d, a.o);
  if (a.lse) vg_scatter(lse, vg_lane_rows(g, 0, tq), g.count, 1, tq, a.lse);
}

// From S and dP = dO V^T of a row to dropout(P) and dS = scale P (dP m - delta), m
// the dropout multipliers, or NULL. delta is the mean of dP m with weights P, which
// O dO comes to as well. It is divided by the weights' own sum: computed from lse they
// do not quite add up to 1, and dS has to add up to 0.
VG_FN void vg_lane_row_grad(float* s, float* dp, const float* m, int64_t seen, int64_t keys, float scale, vf lse, float* p) {
  vf delta = 0.0f, sum = 0.0f;
  for (int64_t j = 0; j < seen; j++) {
    const vf x = vg_exp2_below(vg_fma(vg_lane(s, j), vf(scale), -lse) * vf(kLog2E));
    const vf by = m ? vg_lane(m, j) : vf(1.0f);
    const vf g = vg_lane(dp, j) * by;
    delta = vg_fma(x, g, delta);
    sum += x;
    vg_set_lane(p, j, x * vf(scale));
    vg_set_lane(dp, j, g);
    vg_set_lane(s, j, x * by);
  }
  delta = delta / sum;
  for (int64_t j = 0; j < seen; j++) vg_set_lane(dp, j, vg_lane(p, j) * (vg_lane(dp, j) - delta));
  for (int64_t j = seen; j < keys; j++) vg_set_lane(s, j, vf(0.0f)), vg_set_lane(dp, j, vf(0.0f));
}

VG_NOINLINE void vg_attention_grad_lanes(const vg_call& call, const vg_attention_grad_args& a, const vg_lane_group& g, const vg_dropout& drop) {
  float *q = vg_lane_matrix(call, 0), *k = vg_lane_matrix(call, 1), *v = vg_lane_matrix(call, 2), *dout = vg_lane_matrix(call, 3);
  float *s = vg_lane_matrix(call, 4), *dp = vg_lane_matrix(call, 5), *m = vg_lane_matrix(call, 6), *raw = vg_lane_matrix(call, 7);
  float *out = raw, *lse = vg_lane_matrix(call, 9), *p = vg_lane_matrix(call, 10);
  const int64_t tq = a.tq, tk = a.tk, d = a.head_dim;
  const vg_lane_rows of_q(g, a, tq, a.ldq), of_k(g, a, tk, a.ldk), of_v(g, a, tk, a.ldv), of_dout(g, a, tq, a.lddout);
  vg_gather(a.q, of_q, tq, d, 1.0f, q);
  vg_gather(a.k, of_k, tk, d, 1.0f, k);
  vg_gather(a.v, of_v, tk, d, 1.0f, v);
  vg_gather(a.dout, of_dout, tq, d, 1.0f, dout);
  vg_gather(a.lse, vg_lane_rows(g, 0, tq), 1, tq, 1.0f, lse);
  vg_lane_product(tq, tk, d, vg_lane_plain(q, d), vg_lane_plain(k, d), s);
  vg_lane_product(tq, tk, d, vg_lane_plain(dout, d), vg_lane_plain(v, d), dp);
  if (drop.on()) vg_lane_masks(g, a, drop, raw, m);
  for (int64_t i = 0; i < tq; i++) {
    const int64_t row = i * tk * kLanes;
    vg_lane_row_grad(s + row, dp + row, drop.on() ? m + row : nullptr, a.seen(i), tk, a.scale, vg_lane(lse, i), p);
  }
  vg_lane_product(tk, d, tq, vg_lane_turned(s, tk), vg_lane_turned(dout, d), out);
  vg_scatter(out, vg_lane_rows(g, a, tk, a.lddv), g.count, tk, d, a.dv);
  vg_lane_product(tk, d, tq, vg_lane_turned(dp, tk), vg_lane_turned(q, d), out);
  vg_scatter(out, vg_lane_rows(g, a, tk, a.lddk), g.count, tk, d, a.dk);
  vg_lane_product(tq, d, tk, vg_lane_plain(dp, tk), vg_lane_turned(k, d), out);
  vg_scatter(out, vg_lane_rows(g, a, tq, a.lddq), g.count, tq, d, a.dq);
}

VG_END

#endif  // VITGEN_CPU_ATTENTION_LANES_H

#ifndef VITGEN_CPU_ATTENTION_ROWS_H
#define VITGEN_CPU_ATTENTION_ROWS_H

// Attention of few query rows, as where the last block computes the class token
// alone: each is a pass over keys and values where they lie. Packing would cost
// more than the products.

VG_BEGIN

// out[j] = q k_j for n rows of a matrix; writes whole vectors.
VG_NOINLINE void vg_key_dots(const float* q, const float* k, int64_t ldk, int64_t n, int64_t d, float factor, float* out) {
  for (int64_t j = 0; j < n; j += kLanes) {
    vg_row_dots(q, 0, k + j * ldk, ldk, vg_min64(kLanes, n - j), d, out + j);
    vg_store_full(out + j, vg_load_full(out + j) * vf(factor));
  }
}

// out = factor sum of p_j v_j.
VG_NOINLINE void vg_weighted_rows(const float* p, const float* v, int64_t ldv, int64_t n, int64_t d, float factor, float* out) {
  vg_each_vector(vg_at{}, 0, d, [&](vg_at at) VG_LAMBDA {
    vf sum = 0.0f;
    for (int64_t j = 0; j < n; j++) sum = vg_fma(vf(p[j]), vg_load<vf>(v + j * ldv + at.col, at.n), sum);
    vg_store(out + at.col, sum * vf(factor), at.n);
  });
}

// Rows out_j = or += p_j x.
VG_NOINLINE void vg_outer_rows(const float* p, const float* x, int64_t n, int64_t d, float* out, int64_t ld, bool add) {
  vg_each_vector(vg_at{}, 0, d, [&](vg_at at) VG_LAMBDA {
    const vf v = vg_load<vf>(x + at.col, at.n);
    for (int64_t j = 0; j < n; j++) {
      float* to = out + j * ld + at.col;
      const vf y = v * vf(p[j]);
      vg_store(to, add ? vg_load<vf>(to, at.n) + y : y, at.n);
    }
  });
}

// Query row i of head h of sample b.
VG_NOINLINE void vg_attention_row(const vg_call& call, const vg_attention_args& a, int64_t b, int64_t h, int64_t i,
                                  const vg_dropout& drop) {
  float* s = (float*)call.scratch();
  const int64_t d = a.head_dim, unit = b * a.heads + h, row = b * a.tq + i, seen = a.seen(i);
  float inv[kLanes];
  vg_key_dots(a.q + row * a.ldq + h * d, a.k + b * a.tk * a.ldk + h * d, a.ldk, seen, d, a.scale * kLog2E, s);
  vg_attention_softmax(a, s, kKeyBlock, 0, {i, 0, a.drop_index(unit, i), 0}, 1, drop, inv, a.lse ? a.lse + unit * a.tq + i : nullptr);
  vg_weighted_rows(s, a.v + b * a.tk * a.ldv + h * d, a.ldv, seen, d, inv[0], a.o + row * a.ldo + h * d);
}

// The same row's share in dK and dV, added for all rows but the first, and its dQ.
VG_NOINLINE void vg_attention_grad_row(const vg_call& call, const vg_attention_grad_args& a, int64_t b, int64_t h,
                                       int64_t i, const vg_dropout& drop) {
  float *s = (float*)call.scratch(), *dp = s + kMaxTokens;
  const int64_t d = a.head_dim, unit = b * a.heads + h, row = b * a.tq + i, key = b * a.tk, seen = a.seen(i);
  const float *q = a.q + row * a.ldq + h * d, *k = a.k + key * a.ldk + h * d;
  const float *dout = a.dout + row * a.lddout + h * d, *o = a.o + row * a.ldo + h * d;
  float delta;
  vg_row_dots(dout, 0, o, 0, 1, d, &delta);
  vg_key_dots(q, k, a.ldk, seen, d, 1.0f, s);
  vg_key_dots(dout, a.v + key * a.ldv + h * d, a.ldv, seen, d, 1.0f, dp);
  vg_attention_row_grad(s, dp, seen, a.tk, a.scale, a.lse[unit * a.tq + i], delta, drop, a.drop_index(unit, i));
  vg_outer_rows(s, dout, a.tk, d, a.dv + key * a.lddv + h * d, a.lddv, i > 0);
  vg_outer_rows(dp, q, a.tk, d, a.dk + key * a.lddk + h * d, a.lddk, i > 0);
  vg_weighted_rows(dp, k, a.ldk, seen, d, 1.0f, a.dq + row * a.lddq + h * d);
}

VG_END

#endif  // VITGEN_CPU_ATTENTION_ROWS_H

#ifndef VITGEN_CPU_TILE_H
#define VITGEN_CPU_TILE_H

// The matrix-product core: one register-tiled micro-kernel and the packing of
// its operands. gemm.h and attention.h build everything from these.
//
// A product C = A B is cut into k-blocks of kKC, and B's k-block into panels of
// kNR columns stored [k][kNR], so that the micro-kernel reads B in order. A
// panel (66 KB on AVX-512) streams from L2 for every tile: a step reads it in
// order and at 9 bytes a cycle, which the prefetcher hides, while the panel of A
// (30 KB) stays in L1. Half the depth would have both fit L1, but C would go to
// memory and back twice as often, which costs more.
// The A operand has three layouts, told apart by the constant RS, the distance
// between rows of a tile:
//   RS = kLDA: row-major rows of one k-block, element (r, k) at r*kLDA + k. The
//     constant stride turns into address displacements, so no transposition is
//     needed: a source functor writes its rows in order. kLDA is off a power of
//     two, so that the rows of a tile do not share cache sets.
//   RS = 1: element (r, k) at k*ks + r, for an operand that is stored
//     transposed.
//   RS = 0: element (r, k) at r*ks + k, rows that are read where they lie.
//
// Register tiles: 14x32 on AVX-512 (28 of 32 registers accumulate; 16 loads
// feed 28 FMAs a step, well below two loads a cycle), 6x16 on AVX2, 4x8 plain.
// Every element of C is one chain of FMAs in the order of k, whatever the
// blocking.

VG_BEGIN

#if VG_ISA == 2
constexpr int kMR = 14;
#elif VG_ISA == 1
constexpr int kMR = 6;
#else
constexpr int kMR = 4;
#endif
constexpr int kNV = 2;             // vectors across a tile
constexpr int kNR = kNV * kLanes;  // columns of a tile
constexpr int kKC = 528;           // depth of a k-block; 512 fits, and 8 x 197 tokens in three
constexpr int kColumnPanels = 128 / kNR;  // panels of B that a panel of A meets before the next does
constexpr int kLDA = kKC + 16;
constexpr int kLine = 64 / sizeof(float);  // floats in a cache line
constexpr int kLinesAhead = 96;            // how far ahead a single tile fetches B
static_assert(kMR <= kLanes && 64 % kNR == 0, "packing and workspace formulas rely on it");

// C = (add ? C : 0) + A B over kc steps; if it adds, it fetches the tile at next
// meanwhile. The micro-kernel proper has R = kMR rows and V = kNV vectors;
// smaller ones are for the edges of small products. ldb: from row to row of B,
// kNR in a packed panel. LINES: cache lines from ahead on that it has fetched in
// every step; one is for later and goes to L2, more are for now.
template <int RS, int R = kMR, int V = kNV, int LINES = 0>
VG_NOINLINE void vg_tile(int64_t kc, const float* a, int64_t ks, const float* b, int64_t ldb, float* c, int64_t ldc,
                         bool add, const float* next, const float* ahead = nullptr) {
  vg_f32v acc[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int j = 0; j < V; j++) acc[r][j] = vg_f32v{};
  if (add) {
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
      for (int j = 0; j < V; j++) acc[r][j] = vg_load_full(c + r * ldc + j * kLanes).v;
    for (int r = 0; r < R; r++)
      for (int j = 0; j < V; j++) __builtin_prefetch(next + r * ldc + j * kLanes, 1);
  }
  for (int64_t k = 0; k < kc; k++) {
    vg_f32v bv[V];
#pragma GCC unroll 2
    for (int j = 0; j < V; j++) bv[j] = vg_load_full(b + j * kLanes).v;
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const vg_f32v av = vf(a[r * (RS == 0 ? ks : RS)]).v;
#pragma GCC unroll 2
      for (int j = 0; j < V; j++) acc[r][j] = av * bv[j] + acc[r][j];
    }
    a += RS == 1 ? ks : 1;
    b += ldb;
    for (int i = 0; i < LINES; i++, ahead += kLine) __builtin_prefetch(ahead, 0, LINES == 1 ? 2 : 3);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int j = 0; j < V; j++) vg_store_full(c + r * ldc + j * kLanes, acc[r][j]);
}

// C over one row panel and at most kColumnPanels panels of B, meanwhile fetching
// half of as many panels at ahead, unless that is NULL.
template <int RS>
VG_NOINLINE void vg_row_tiles(int64_t col_panels, int64_t kc, const float* a, int64_t ks, const float* b, float* c,
                              int64_t ldc, bool add, const float* ahead) {
  for (int64_t j = 0; j < col_panels; j++, b += kc * kNR, c += kNR) {
    if (ahead)
      vg_tile<RS, kMR, kNV, 1>(kc, a, ks, b, kNR, c, ldc, add, c + kNR, ahead + j * kc * kNR);
    else
      vg_tile<RS>(kc, a, ks, b, kNR, c, ldc, add, c + kNR);
  }
}

// What row panel i has fetched of the panels of B at next: the second and the
// third a half each.
VG_FN const float* vg_ahead(int64_t i, int64_t kc, const float* next) {
  return next && (i == 1 || i == 2) ? next + (i - 1) * kc * kLine : nullptr;
}

// C over row_panels x col_panels tiles. a_panel: elements from one row panel of
// A to the next; the panels of B follow each other, and those at after, or NULL, are
// wanted next.
template <int RS>
VG_NOINLINE void vg_tiles(int64_t row_panels, int64_t col_panels, int64_t kc, const float* a, int64_t a_panel,
                          int64_t ks, const float* b, float* c, int64_t ldc, bool add, const float* after) {
  for (int64_t j = 0; j < col_panels; j += kColumnPanels) {
    const int64_t count = vg_min64(col_panels - j, kColumnPanels);
    const float* next = j + count < col_panels ? b + (j + count) * kc * kNR : after;
    for (int64_t i = 0; i < row_panels; i++)
      vg_row_tiles<RS>(count, kc, a + i * a_panel, ks, b + j * kc * kNR, c + i * kMR * ldc + j * kNR, ldc, add,
                       vg_ahead(i, kc, next));
  }
}

// The heights of the smaller micro-kernels.
constexpr int kMost = 3 * kMR / 4, kHalf = kMR / 2, kFew = (kMR + 2) / 4;

// That of the least one for `rows` rows.
VG_FN int vg_tile_height(int64_t rows) {
  return rows > kMost ? kMR : rows > kHalf ? kMost : rows > kFew ? kHalf : kFew;
}

template <int RS, int V, int LINES = 0>
VG_FN void vg_tile_rows(int64_t rows, int64_t kc, const float* a, int64_t ks, const float* b, int64_t ldb, float* c,
                        int64_t ldc, bool add, const float* ahead = nullptr) {
  const int height = vg_tile_height(rows);
  if (height == kMR)
    vg_tile<RS, kMR, V, LINES>(kc, a, ks, b, ldb, c, ldc, add, c, ahead);
  else if (height == kMost)
    vg_tile<RS, kMost, V, LINES>(kc, a, ks, b, ldb, c, ldc, add, c, ahead);
  else if (height == kHalf)
    vg_tile<RS, kHalf, V, LINES>(kc, a, ks, b, ldb, c, ldc, add, c, ahead);
  else
    vg_tile<RS, kFew, V, LINES>(kc, a, ks, b, ldb, c, ldc, add, c, ahead);
}

// C over few rows and one panel of B. Where few rows use a panel, it comes from L3
// for the first of them at the speed of L3; so the tiles fetch the next panel, at
// ahead, which then waits in L1 and L2. They fetch evenly: a step of 14 rows takes
// as long as L3 needs for a line, and more would leave no buffers for what misses
// L1 now. A single tile fetches its own panel a little ahead, faster than the
// hardware does.
template <int RS>
VG_NOINLINE void vg_column(int64_t rows, int64_t kc, const float* a, int64_t a_panel, int64_t ks, const float* b,
                           float* c, int64_t ldc, bool add, const float* ahead) {
  if (rows <= kMR) return vg_tile_rows<RS, kNV, kNV>(rows, kc, a, ks, b, kNR, c, ldc, add, b + kLinesAhead * kLine);
  for (int64_t i = 0; i * kMR < rows; i++, a += a_panel, c += kMR * ldc) {
    if (i > kNV && rows - i * kMR >= kMR)
      vg_tile<RS>(kc, a, ks, b, kNR, c, ldc, add, c);
    else
      vg_tile_rows<RS, kNV, 1>(rows - i * kMR, kc, a, ks, b, kNR, c, ldc, add, ahead + vg_min64(i, kNV) * kc * kLine);
  }
}

// One tile of a product so small that its edges count: no more than whole vectors
// of columns, at most kNR, and less than a quarter of a panel's rows in excess.
template <int RS>
VG_NOINLINE void vg_edge_tile(int64_t rows, int64_t cols, int64_t kc, const float* a, int64_t ks, const float* b,
                              int64_t ldb, float* c, int64_t ldc, bool add) {
  if (cols > kLanes)
    vg_tile_rows<RS, kNV>(rows, kc, a, ks, b, ldb, c, ldc, add);
  else
    vg_tile_rows<RS, 1>(rows, kc, a, ks, b, ldb, c, ldc, add);
}

// All of them; B is packed.
template <int RS>
VG_NOINLINE void vg_small_tiles(int64_t rows, int64_t cols, int64_t kc, const float* a, int64_t a_panel, int64_t ks,
                                const float* b, float* c, int64_t ldc, bool add) {
  for (int64_t j = 0; j < cols; j += kNR)
    for (int64_t i = 0; i < rows; i += kMR)
      vg_edge_tile<RS>(rows - i, cols - j, kc, a + i / kMR * a_panel, ks, b + j * kc, kNR, c + i * ldc + j, ldc, add);
}

// Packs one panel of B[N,K] (row-major, so this transposes): columns
// n .. n+cols-1 of the product, depths 0 .. kc-1 from b on. Missing columns
// become zeros.
VG_NOINLINE void vg_pack_panel_nt(const float* b, int64_t ldb, int cols, int64_t kc, float* out) {
  for (int j = 0; j < kNR; j += kLanes) {
    for (int64_t k = 0; k < kc; k += kLanes) {
      const int depth = (int)vg_min64(kLanes, kc - k);
      vf square[kLanes];
      if (depth == kLanes && j + kLanes <= cols) {
        vg_load_turned([&](int i) VG_LAMBDA { return b + (j + i) * ldb + k; }, square);
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; i++) vg_store_full(out + (k + i) * kNR + j, square[i]);
        continue;
      }
      for (int i = 0; i < kLanes; i++)
        square[i] = j + i < cols ? vg_load<vf>(b + (j + i) * ldb + k, depth) : vf(0.0f);
      vg_transpose_square(square);
      for (int i = 0; i < depth; i++) vg_store_full(out + (k + i) * kNR + j, square[i]);
    }
  }
}

// Packs one panel of B[K,N] (row-major).
VG_NOINLINE void vg_pack_panel_nn(const float* b, int64_t ldb, int cols, int64_t kc, float* out) {
  for (int64_t k = 0; k < kc; k++, b += ldb, out += kNR)
    for (int j = 0; j < kNR; j += kLanes)
      vg_store_full(out + j, j < cols ? vg_load<vf>(b + j, cols - j) : vf(0.0f));
}

VG_END

#endif  // VITGEN_CPU_TILE_H

#ifndef VITGEN_CPU_ATTENTION_TILES_H
#define VITGEN_CPU_ATTENTION_TILES_H

// Attention by tiles, for heads of any size. A head's operands are packed once,
// and a few row panels at a time go all the way from scores to output, so that
// their scores stay in L1.
//
// Keys come in blocks of kKeyBlock, and so do a head's columns. S is kept as one
// kKeyStride-strided matrix a key block, which is exactly what the micro-kernel
// of tile.h reads as an A operand, straight (P V, dS K) or transposed (P^T dO,
// dS^T Q). Softmax is exact over the row, not online.

VG_BEGIN

constexpr int kColBlock = kKeyBlock;          // columns of a head that are staged together
constexpr int64_t kQueryPanels = 15;          // most row panels in a query block
constexpr int64_t kStripRows = 2 * kMR;       // go from scores to output together,
constexpr int64_t kGradStripRows = kMR;       // and in the backward pass to dQ
constexpr int64_t kScoreBytes = 3 << 19;      // S of a query block, all keys
constexpr int64_t kRowsSize = kQueryPanels * kMR * kKeyStride;
constexpr int64_t kPackSize = kKeyBlock * kMaxHeadDim;
constexpr int64_t kColBlocks = kMaxHeadDim / kColBlock;
static_assert(kKeyBlock % kNR == 0 && kKeyBlock + kMR <= kKeyStride && kKeyStride % kLanes == 0, "S is read in whole tiles");

// How a head is cut.
struct vg_attention_cut {
  int64_t d, tq, tk;

  VG_FN explicit vg_attention_cut(const vg_attention_shape& s) : d(s.head_dim), tq(s.tq), tk(s.tk) {}
  VG_FN int64_t key_blocks() const { return vg_ceil_div(tk, kKeyBlock); }
  VG_FN int64_t col_blocks() const { return vg_ceil_div(d, kColBlock); }
  VG_FN int64_t row_panels() const { return vg_ceil_div(tq, kMR); }
  // The query rows are cut evenly into blocks that keep S within bounds.
  VG_FN int64_t query_blocks() const {
    const int64_t panel = key_blocks() * kMR * kKeyStride * (int64_t)sizeof(float);
    const int64_t most = vg_max64(1, vg_min64(kQueryPanels, kScoreBytes / panel));
    return vg_ceil_div(row_panels(), most);
  }
  VG_FN vg_range query_rows(int64_t block) const {
    const vg_range p = vg_share(row_panels(), block, query_blocks());
    return {p.begin * kMR, vg_min64(tq, p.end * kMR)};
  }
  VG_FN int64_t keys(int64_t block) const { return vg_min64(kKeyBlock, tk - block * kKeyBlock); }
  // All keys' operands are packed at once, for as many strips of query rows as
  // there are, if they fit; else each key block's when all rows' turn has come.
  VG_FN bool kept() const { return vg_round_up(tk, kNR) * vg_round_up(d, kNR) <= kPackSize; }
  VG_FN int64_t pack_at(int64_t block) const { return kept() ? block * kKeyBlock * vg_round_up(d, kNR) : 0; }
  VG_FN int64_t cols(int64_t block) const { return vg_min64(kColBlock, d - block * kColBlock); }
};

// Takes pieces of a worker's scratch.
struct vg_bump {
  float* next;
  VG_FN float* take(int64_t n) {
    float* p = next;
    next += vg_round_up(n, 16);
    return p;
  }
};

// Rows as A operands, one kKeyStride-strided matrix of kRowsSize a column block,
// times factor. Rows beyond are what lay there: they only meet results that
// nobody reads.
VG_NOINLINE void vg_stage_rows(const float* src, int64_t ld, int64_t rows, int64_t d, float factor, float* out) {
  for (int64_t c = 0; c < d; c += kColBlock, out += kRowsSize)
    for (int64_t r = 0; r < rows; r++)
      vg_each_vector(vg_at{}, 0, vg_min64(kColBlock, d - c), [&](vg_at at) VG_LAMBDA {
        vg_store_full(out + r * kKeyStride + at.col, vg_load<vf>(src + r * ld + c + at.col, at.n) * vf(factor));
      });
}

// And back, of one column block: out = or += the rows of a result. factor(r):
// what row r is multiplied by.
template <class F>
VG_FN void vg_unstage_rows(const float* src, int64_t rows, int64_t cols, float* out, int64_t ld, bool add, const F& factor) {
  for (int64_t r = 0; r < rows; r++) {
    const vf by = factor(r);
    vg_each_vector(vg_at{}, 0, cols, [&](vg_at at) VG_LAMBDA {
      const vf x = vg_load_full(src + r * kKeyStride + at.col) * by;
      float* to = out + r * ld + at.col;
      vg_store(to, add ? vg_load<vf>(to, at.n) + x : x, at.n);
    });
  }
}
VG_NOINLINE void vg_unstage_rows(const float* src, int64_t rows, int64_t cols, float* out, int64_t ld, bool add) {
  vg_unstage_rows(src, rows, cols, out, ld, add, [](int64_t) VG_LAMBDA { return vf(1.0f); });
}

// All panels of B[n,k] or B[k,n].
VG_FN void vg_pack_nt(const float* b, int64_t ldb, int64_t n, int64_t k, float* out) {
  for (int64_t j = 0; j < n; j += kNR) vg_pack_panel_nt(b + j * ldb, ldb, (int)vg_min64(kNR, n - j), k, out + j * k);
}
VG_FN void vg_pack_nn(const float* b, int64_t ldb, int64_t n, int64_t k, float* out) {
  for (int64_t j = 0; j < n; j += kNR) vg_pack_panel_nn(b + j, ldb, (int)vg_min64(kNR, n - j), k, out + j * k);
}

// A product's tiles, one panel of B after the other, and what is fetched meanwhile.
// b_depth: how deep B is packed, k or more.
template <int RS>
VG_NOINLINE void vg_head_tiles(int64_t rows, int64_t cols, int64_t k, const float* a, int64_t a_panel, int64_t ks,
                               const float* b, int64_t b_depth, float* c, bool add, vg_coming* coming) {
  for (int64_t j = 0; j < cols; j += kNR)
    for (int64_t i = 0; i < rows; i += kMR) {
      vg_edge_tile<RS>(rows - i, cols - j, k, a + i / kMR * a_panel, ks, b + j * b_depth, kNR, c + i * kKeyStride + j, kKeyStride, add);
      coming->fetch(k);
    }
}
// out = or += A B for A with `rows` staged rows.
VG_FN void vg_rows_times(const float* a, int64_t rows, const float* b, int64_t b_depth, int64_t n, int64_t k, float* out, bool add, vg_coming* coming) {
  vg_head_tiles<kKeyStride>(rows, n, k, a, kMR * kKeyStride, 1, b, b_depth, out, add, coming);
}
// out = A^T B for A with k staged rows, m columns of which are used.
VG_FN void vg_cols_times(const float* a, int64_t m, const float* b, int64_t n, int64_t k, float* out, vg_coming* coming) {
  vg_head_tiles<1>(m, n, k, a, kMR, kKeyStride, b, k, out, false, coming);
}

// S of n staged query rows and the first `keys` keys of a key block, whose keys are
// packed; likewise dP. d deep.
VG_FN void vg_scores(const float* q, int64_t n, const float* pack, int64_t keys, int64_t d, float* s, vg_coming* coming) {
  for (int64_t c = 0; c < d; c += kColBlock, q += kRowsSize)
    vg_rows_times(q, n, pack + c * kNR, d, keys, vg_min64(kColBlock, d - c), s, c > 0, coming);
}

// The forward pass of the query rows [rows) of head h of sample b.
VG_NOINLINE void vg_attention_block(const vg_call& call, const vg_attention_args& a, int64_t b, int64_t h,
                                    vg_range rows, const vg_dropout& drop, vg_coming* coming) {
  const vg_attention_cut cut(a);
  vg_bump scratch = {(float*)call.scratch()};
  float *q = scratch.take(kColBlocks * kRowsSize), *o = scratch.take(kColBlocks * kRowsSize);
  float *k_pack = scratch.take(kPackSize), *v_pack = scratch.take(kPackSize), *s = scratch.next;
  const int64_t count = rows.end - rows.begin, d = a.head_dim, unit = b * a.heads + h, first = b * a.tq + rows.begin;
  const float *k = a.k + b * a.tk * a.ldk + h * d, *v = a.v + b * a.tk * a.ldv + h * d;
  const int64_t strip = cut.kept() ? kStripRows : count;
  float inv[kQueryPanels * kMR + kLanes];
  int64_t k_packed = 0, v_packed = 0;

  vg_stage_rows(a.q + first * a.ldq + h * d, a.ldq, count, d, a.scale * kLog2E, q);
  for (int64_t r = 0; r < count; r += strip) {
    const int64_t n = vg_min64(strip, count - r), row = rows.begin + r;
    const int64_t seen = a.seen(row + n - 1), stride = vg_round_up(n, kMR) * kKeyStride;
    for (int64_t i = 0; i * kKeyBlock < seen; i++) {
      if (!cut.kept() || i == k_packed) vg_pack_nt(k + i * kKeyBlock * a.ldk, a.ldk, cut.keys(i), d, k_pack + cut.pack_at(i)), k_packed = i + 1;
      vg_scores(q + r * kKeyStride, n, k_pack + cut.pack_at(i), vg_min64(kKeyBlock, seen - i * kKeyBlock), d, s + i * stride, coming);
    }
    for (int64_t x = 0; x < n; x += kLanes)
      vg_attention_softmax(a, s + x * kKeyStride, stride, seen, {row + x, 1, a.drop_index(unit, row + x), a.tk},
                           (int)vg_min64(kLanes, n - x), drop, inv + x, a.lse ? a.lse + unit * a.tq + row + x : nullptr);
    for (int64_t i = 0; i * kKeyBlock < seen; i++) {
      if (!cut.kept() || i == v_packed) vg_pack_nn(v + i * kKeyBlock * a.ldv, a.ldv, d, cut.keys(i), v_pack + cut.pack_at(i)), v_packed = i + 1;
      for (int64_t c = 0; c < cut.col_blocks(); c++)
        vg_rows_times(s + i * stride, n, v_pack + cut.pack_at(i) + c * kColBlock * cut.keys(i), cut.keys(i), cut.cols(c),
                      vg_min64(kKeyBlock, seen - i * kKeyBlock), o + c * kRowsSize, i > 0, coming);
    }
    for (int64_t c = 0; c < cut.col_blocks(); c++)
      vg_unstage_rows(o + c * kRowsSize, n, cut.cols(c), a.o + (first + r) * a.ldo + h * d + c * kColBlock, a.ldo, false,
                      [&](int64_t x) VG_LAMBDA { return vf(inv[x]); });
  }
}

// What the backward pass of one block of query rows works in.
struct vg_attention_buffers {
  float *q, *dout;                       // staged rows
  float *q_pack, *dout_pack;             // the same rows as B operands
  float *kt_pack, *vt_pack, *k_pack;     // one key block
  float *s, *dp, *product;

  VG_FN explicit vg_attention_buffers(vg_bump m) {
    q = m.take(kColBlocks * kRowsSize), dout = m.take(kColBlocks * kRowsSize);
    q_pack = m.take(kQueryPanels * kMR * kMaxHeadDim), dout_pack = m.take(kQueryPanels * kMR * kMaxHeadDim);
    kt_pack = m.take(kPackSize), vt_pack = m.take(kPackSize), k_pack = m.take(kPackSize);
    s = m.take(kRowsSize), dp = m.take(kRowsSize), product = m.take((kKeyBlock + kMR) * kKeyStride);
  }
};

// The share of query rows [rows) in dK and dV of head h: added to those of the
// first `written` key blocks, and stored as those of the others. Writes dQ.
// Returns how many key blocks there are values of now.
VG_NOINLINE int64_t vg_attention_grad_block(const vg_call& call, const vg_attention_grad_args& a, int64_t b, int64_t h,
                                            vg_range rows, int64_t written, const vg_dropout& drop, vg_coming* coming) {
  const vg_attention_cut cut(a);
  const vg_attention_buffers m(vg_bump{(float*)call.scratch()});
  const int64_t count = rows.end - rows.begin, d = a.head_dim, unit = b * a.heads + h, first = b * a.tq + rows.begin;
  const float* q = a.q + first * a.ldq + h * d;
  const float* dout = a.dout + first * a.lddout + h * d;
  const float* o = a.o + first * a.ldo + h * d;
  const int64_t blocks = vg_ceil_div(a.seen(rows.end - 1), kKeyBlock);
  float delta[kQueryPanels * kMR + kLanes];
  for (int64_t r = 0; r < count; r += kLanes)
    vg_row_dots(dout + r * a.lddout, a.lddout, o + r * a.ldo, a.ldo, vg_min64(kLanes, count - r), d, delta + r);

  vg_stage_rows(q, a.ldq, count, d, 1.0f, m.q);
  vg_stage_rows(dout, a.lddout, count, d, 1.0f, m.dout);
  vg_pack_nn(q, a.ldq, d, count, m.q_pack);
  vg_pack_nn(dout, a.lddout, d, count, m.dout_pack);
  for (int64_t i = 0; i < blocks; i++) {
    const int64_t keys = cut.keys(i), key = b * a.tk + i * kKeyBlock, padded = vg_round_up(keys, kMR);
    const float *k = a.k + key * a.ldk + h * d, *v = a.v + key * a.ldv + h * d;
    vg_pack_nt(k, a.ldk, keys, d, m.kt_pack);
    vg_pack_nt(v, a.ldv, keys, d, m.vt_pack);
    vg_pack_nn(k, a.ldk, d, keys, m.k_pack);
    for (int64_t r = 0; r < count; r += kGradStripRows) {
      const int64_t n = vg_min64(kGradStripRows, count - r), row = rows.begin + r;
      const int64_t most = vg_max64(0, vg_min64(keys, a.seen(row + n - 1) - i * kKeyBlock));
      float *s = m.s + r * kKeyStride, *dp = m.dp + r * kKeyStride;
      vg_scores(m.q + r * kKeyStride, n, m.kt_pack, most, d, s, coming);
      vg_scores(m.dout + r * kKeyStride, n, m.vt_pack, most, d, dp, coming);
      for (int64_t x = 0; x < n; x++) {
        const int64_t seen = vg_max64(0, vg_min64(keys, a.seen(row + x) - i * kKeyBlock));
        vg_attention_row_grad(s + x * kKeyStride, dp + x * kKeyStride, seen, padded, a.scale, a.lse[unit * a.tq + row + x], delta[r + x],
                              drop, a.drop_index(unit, row + x) + i * kKeyBlock);
      }
      for (int64_t c = 0; c < cut.col_blocks(); c++) {
        vg_rows_times(dp, n, m.k_pack + c * kColBlock * keys, keys, cut.cols(c), most, m.product, false, coming);
        vg_unstage_rows(m.product, n, cut.cols(c), a.dq + (first + r) * a.lddq + h * d + c * kColBlock, a.lddq, i > 0);
      }
    }
    for (int64_t c = 0; c < cut.col_blocks(); c++) {
      const int64_t cols = cut.cols(c), to = h * d + c * kColBlock;
      vg_cols_times(m.s, keys, m.dout_pack + c * kColBlock * count, cols, count, m.product, coming);
      vg_unstage_rows(m.product, keys, cols, a.dv + key * a.lddv + to, a.lddv, i < written);
      vg_cols_times(m.dp, keys, m.q_pack + c * kColBlock * count, cols, count, m.product, coming);
      vg_unstage_rows(m.product, keys, cols, a.dk + key * a.lddk + to, a.lddk, i < written);
    }
  }
  return blocks;
}

// Zeros rows `from` to `to` of a head in a matrix.
VG_FN void vg_zero_rows(float* p, int64_t ld, int64_t cols, int64_t from, int64_t to) {
  for (int64_t r = from; r < to; r++) __builtin_memset(p + r * ld, 0, sizeof(float) * (size_t)cols);
}

VG_NOINLINE void vg_attention_grad_head(const vg_call& call, const vg_attention_grad_args& a, int64_t b, int64_t h,
                                        const vg_dropout& drop, vg_coming* coming) {
  const vg_attention_cut cut(a);
  int64_t written = 0;
  for (int64_t i = 0; i < cut.query_blocks(); i++)
    written = vg_attention_grad_block(call, a, b, h, cut.query_rows(i), written, drop, coming);
  // Keys that no query sees.
  vg_zero_rows(a.dk + b * a.tk * a.lddk + h * a.head_dim, a.lddk, a.head_dim, written * kKeyBlock, a.tk);
  vg_zero_rows(a.dv + b * a.tk * a.lddv + h * a.head_dim, a.lddv, a.head_dim, written * kKeyBlock, a.tk);
}

VG_END

#endif  // VITGEN_CPU_ATTENTION_TILES_H

#ifndef VITGEN_CPU_ATTENTION_H
#define VITGEN_CPU_ATTENTION_H

// Scaled dot-product attention over whole sequences, forward and backward, each
// head in the way that suits its shape: by tiles, few query rows one by one, short
// sequences many heads at once.
//
// One unit of work is a group of kLanes short heads, or a block of query rows of
// one head of one sample (forward), or a whole head (backward: its blocks add to
// the same dK and dV, in order).

VG_BEGIN

constexpr int64_t kFewRows = 2;  // up to which query rows are taken one by one

// How the heads of a launch are divided: into groups, all of them, or each into
// blocks. The shape of a head decides it and not their number, so that a sample has
// the same bits in every batch.
struct vg_attention_units {
  int64_t heads, groups, blocks;

  VG_FN vg_attention_units(const vg_call& call, const vg_attention_shape& s, int64_t blocks)
      : heads((int64_t)call.batch() * s.heads), groups(vg_lanes_suit(s) ? vg_ceil_div(heads, kLanes) : 0), blocks(blocks) {}
  VG_FN int64_t count() const { return groups > 0 ? groups : heads * blocks; }
  VG_FN vg_lane_group group(int64_t u) const { return {u * kLanes, (int)vg_min64(kLanes, heads - u * kLanes)}; }
  VG_FN int64_t head(int64_t u) const { return u / blocks; }
  VG_FN int64_t block(int64_t u) const { return u % blocks; }
};

VG_NOINLINE void vg_attention(const vg_call& call, const vg_attention_args& a) {
  const vg_attention_cut cut(a);
  const vg_attention_units units(call, a, a.tq <= kFewRows ? a.tq : cut.query_blocks());
  const vg_dropout drop(call.step(), a.drop_site, a.drop_thr);
  const vg_range mine = call.share(units.count());
  for (int64_t u = mine.begin; u < mine.end; u++) {
    if (units.groups > 0) {
      vg_attention_lanes(call, a, units.group(u), drop);
      continue;
    }
    const int64_t head = units.head(u), next = units.head(u + 1), b = head / a.heads, h = head % a.heads;
    if (a.tq <= kFewRows) {
      vg_attention_row(call, a, b, h, units.block(u), drop);
      continue;
    }
    vg_coming coming = {a.head_dim};
    if (u + 1 < mine.end && next != head) {
      coming.add_head(a, next, a.v, a.ldv, a.tk);
      coming.add_head(a, next, a.k, a.ldk, a.tk);
      coming.add_head(a, next, a.q, a.ldq, a.tq);
    }
    if (units.block(u) == 0) coming.add_head(a, head, a.o, a.ldo, a.tq);
    vg_attention_block(call, a, b, h, cut.query_rows(units.block(u)), drop, &coming);
  }
}

// dq, dk and dv are written in full.
VG_NOINLINE void vg_attention_grad(const vg_call& call, const vg_attention_grad_args& a) {
  const vg_attention_units units(call, a, 1);
  const vg_dropout drop(call.step(), a.drop_site, a.drop_thr);
  const vg_range mine = call.share(units.count());
  for (int64_t u = mine.begin; u < mine.end; u++) {
    if (units.groups > 0) {
      vg_attention_grad_lanes(call, a, units.group(u), drop);
      continue;
    }
    const int64_t head = units.head(u), b = head / a.heads, h = head % a.heads;
    if (a.tq <= kFewRows) {
      for (int64_t i = 0; i < a.tq; i++) vg_attention_grad_row(call, a, b, h, i, drop);
      continue;
    }
    vg_coming coming = {a.head_dim};
    if (u + 1 < mine.end) {
      coming.add_head(a, head + 1, a.v, a.ldv, a.tk);
      coming.add_head(a, head + 1, a.k, a.ldk, a.tk);
      coming.add_head(a, head + 1, a.q, a.ldq, a.tq);
      coming.add_head(a, head + 1, a.o, a.ldo, a.tq);
      coming.add_head(a, head + 1, a.dout, a.lddout, a.tq);
    }
    coming.add_head(a, head, a.dk, a.lddk, a.tk);
    coming.add_head(a, head, a.dv, a.lddv, a.tk);
    coming.add_head(a, head, a.dq, a.lddq, a.tq);
    vg_attention_grad_head(call, a, b, h, drop, &coming);
  }
}

VG_END

#endif  // VITGEN_CPU_ATTENTION_H

#ifndef VITGEN_CPU_GEMM_PACK_H
#define VITGEN_CPU_GEMM_PACK_H

// What products are made of besides tiles: their shape, which says where packed
// operands lie and what workspace that takes, and the packing of A and B.
//
// Packing is a loop around a source functor, so it is a template; what it gives the
// loops of gemm.h is the same struct for every source.

VG_BEGIN

constexpr int64_t kSharedRows = 512;
constexpr int64_t kOwnPanels = 4;                // row panels of an A that every worker packs for itself
constexpr int64_t kTurnRows = 129;               // fewer would fill few columns of a tile
constexpr int64_t kSlabRows = 256;               // fewer make too few panels for the workers
constexpr int64_t kPrivateColumns = 60000;       // beyond, one panel's rows of C would not fit the scratch
constexpr int64_t kRowPanels = 16;               // most row panels in a block
constexpr int64_t kBlockBytes = 5 << 18;         // C of a row block, kept between k-blocks: about L2
constexpr int64_t kSlab = 2 * kKC;               // depth packed at a time where K is long
constexpr int64_t kRowsAhead = 2;                // how far ahead of packing rows are fetched: whole ones,
constexpr int64_t kPiecesAhead = 8;              // and those of which a block's columns are read
constexpr int64_t kColPanel = kKC * kMR + kLanes;  // a packed panel of A^T, with room for the last vector's overhang
static_assert(kColPanel <= kMR * kLDA, "both layouts of A use the workspace formula of the larger");

struct vg_gemm_shape {
  int64_t m, n, k;
  VG_FN int64_t row_panels() const { return vg_ceil_div(m, kMR); }
  VG_FN int64_t col_panels() const { return vg_ceil_div(n, kNR); }
  VG_FN int64_t k_blocks() const { return vg_ceil_div(k, kKC); }
  VG_FN int64_t depth(int64_t kb) const { return vg_min64(kKC, k - kb * kKC); }
  // Row panels in a block whose C is kept in scratch between k-blocks.
  VG_FN int64_t block_panels() const {
    if (k_blocks() == 1) return kRowPanels;
    return vg_max64(1, vg_min64(kRowPanels, kBlockBytes / (n * kMR * (int64_t)sizeof(float))));
  }
  VG_FN bool shares_a() const { return m <= kSharedRows || n > kPrivateColumns; }
  // Packed B: k-block kb, column panel p.
  VG_FN int64_t b_at(int64_t kb, int64_t p) const { return kb * kKC * width() + p * kNR * depth(kb); }
  VG_FN int64_t width() const { return col_panels() * kNR; }
  VG_FN int64_t b_size() const { return k * width(); }
  VG_FN bool owns_a() const { return row_panels() <= kOwnPanels && row_panels() * k_blocks() <= kRowPanels; }
  // Packed A of few rows: k-block kb, row panel p of `panel` elements. In the
  // workspace it lies behind B, even where B lies elsewhere.
  VG_FN int64_t a_at(int64_t kb, int64_t p, int64_t panel) const { return (kb * row_panels() + p) * panel; }
  VG_FN int64_t a_begin() const { return vg_round_up(b_size(), 16); }
  // What a product with all of B packed needs of the workspace, in floats.
  VG_FN int64_t packed_size() const {
    return shares_a() ? a_begin() + a_at(k_blocks(), 0, kMR * kLDA) : b_size();
  }
  // In slabs: one slab of B, then C, then the sums of A's columns.
  VG_FN int64_t slab_c_at() const { return kSlab * width(); }
  VG_FN int64_t slab_c_ld() const { return width() + 16; }
  VG_FN int64_t slab_sum_at() const { return slab_c_at() + row_panels() * kMR * slab_c_ld(); }
  VG_FN int64_t slab_size() const { return slab_sum_at() + row_panels() * kLanes; }
  VG_FN bool in_slabs() const { return m >= kSlabRows && slab_size() < packed_size(); }
  // tn of a few rows, all of A^T, and many columns: better computed as C^T.
  VG_FN bool turns() const { return m >= kTurnRows && m <= kSharedRows && n >= 2 * m; }
  VG_FN vg_gemm_shape turned() const { return {n, m, k}; }
  // Bytes of workspace; tn alone turns and goes by slabs. Over all instruction sets
  // kernels.GemmWorkspaceBytes bounds it, and WeightGradWorkspaceBytes that of tn.
  VG_FN int64_t workspace_bytes(bool tn) const {
    const vg_gemm_shape s = tn && turns() ? turned() : *this;
    return (int64_t)sizeof(float) * (tn && s.in_slabs() ? s.slab_size() : s.packed_size());
  }
};

// A sink of sums, whatever its type; none: nobody wants them.
struct vg_sum_sink {
  const void* sink;
  void (*add)(const void* sink, const vf* sum, vg_at at);
  VG_FN bool wanted() const { return add != nullptr; }
  VG_FN void operator()(const vf& sum, vg_at at) const { add(sink, &sum, at); }
};
template <class S>
VG_NOINLINE void vg_sum_to(const void* sink, const vf* sum, vg_at at) {
  (*(const S*)sink)(*sum, at);
}
template <class S>
VG_FN vg_sum_sink vg_sums_to(const S& sink) {
  if constexpr (vg_wanted<S>)
    return {&sink, vg_sum_to<S>};
  else
    return {nullptr, nullptr};
}

// Packs row panels of A[M,K] read through a source. Layout RS = kLDA.
struct vg_row_packer {
  static constexpr int rs = kLDA;
  static constexpr int64_t panel = kMR * kLDA, ks = 1;
  const void* a;
  void (*rows)(const void* a, const vg_gemm_shape& s, int64_t panel0, int64_t panels, int64_t kb, float* out);

  VG_FN void begin(int64_t) const {}
  VG_FN void pack(const vg_gemm_shape& s, int64_t panel0, int64_t panels, int64_t kb, float* out) const {
    rows(a, s, panel0, panels, kb, out);
  }
  VG_FN void end(const vg_gemm_shape&, int64_t, int64_t) const {}
};

template <int T, class A>
VG_NOINLINE void vg_pack_rows(const void* source, const vg_gemm_shape& s, int64_t panel0, int64_t panels, int64_t kb,
                              float* out) {
  const A& a = *(const A*)source;
  const int64_t first = panel0 * kMR, last = first + panels * kMR, k0 = kb * kKC;
  for (int64_t r = first; r < last; r++, out += kLDA) {
    if (r + kRowsAhead < s.m) vg_fetch_source(a, vg_at_row<T>(r + kRowsAhead), k0, k0 + s.depth(kb));
    if (r < s.m)
      vg_each_vector(vg_at_row<T>(r), k0, k0 + s.depth(kb),
                     [&](vg_at at) VG_LAMBDA { vg_store_full(out + at.col - k0, vg_value(a, at)); });
    else
      __builtin_memset(out, 0, sizeof(float) * (size_t)s.depth(kb));
  }
}

// Packs row panels of A^T, A[K,M] read through a source: a vector of kMR
// columns becomes one step of a panel. Layout RS = 1. On the way it sums each
// row of A^T, block by block of k, so that the sum's error grows with the block
// and not with K.
struct vg_col_packer {
  static constexpr int rs = 1;
  static constexpr int64_t panel = kColPanel, ks = kMR;
  const void* a;
  void (*columns)(const void* a, const vg_gemm_shape& s, int64_t panel0, int64_t panels, int64_t kb, float* out,
                  vf* sum);
  vg_sum_sink row_sum;
  vf sum[kRowPanels];

  VG_FN void begin(int64_t panels) {
    for (int64_t p = 0; p < panels; p++) sum[p] = vf(0.0f);
  }
  VG_FN void pack(const vg_gemm_shape& s, int64_t panel0, int64_t panels, int64_t kb, float* out) {
    columns(a, s, panel0, panels, kb, out, sum);
  }
  // Adds what earlier slabs summed, and leaves the sum for the next.
  VG_FN void carry(float* kept, int64_t panels, bool add) {
    if (!row_sum.wanted()) return;
    for (int64_t p = 0; p < panels; p++) {
      if (add) sum[p] += vg_load_full(kept + p * kLanes);
      vg_store_full(kept + p * kLanes, sum[p]);
    }
  }
  VG_FN void end(const vg_gemm_shape& s, int64_t panel0, int64_t panels) const {
    if (!row_sum.wanted()) return;
    for (int64_t p = 0; p < panels; p++) {
      const int64_t col = (panel0 + p) * kMR;
      row_sum(sum[p], vg_at{0, 0, 0, (int32_t)col, (int32_t)vg_min64(kMR, s.m - col)});
    }
  }
};

template <int T, class A, bool Sum>
VG_NOINLINE void vg_pack_columns(const void* source, const vg_gemm_shape& s, int64_t panel0, int64_t panels,
                                 int64_t kb, float* out, vf* sum) {
  const A& a = *(const A*)source;
  vf part[Sum ? kRowPanels : 1];
  if (Sum)
    for (int64_t p = 0; p < panels; p++) part[p] = vf(0.0f);
  for (int64_t k = 0; k < s.depth(kb); k++) {
    vg_at at = vg_at_row<T>(kb * kKC + k);
    if (kb * kKC + k + kPiecesAhead < s.k)
      vg_fetch_source(a, vg_at_row<T>(kb * kKC + k + kPiecesAhead), panel0 * kMR,
                      vg_min64(s.m, (panel0 + panels) * kMR));
    for (int64_t p = 0; p < panels; p++) {
      at.col = (int32_t)((panel0 + p) * kMR);
      at.n = (int)vg_min64(kMR, s.m - at.col);
      const vf x = vg_value(a, at);
      // Lanes beyond kMR fall into the next step, which overwrites them.
      vg_store_full(out + p * kColPanel + k * kMR, x);
      if (Sum) part[p] += x;
    }
  }
  if (Sum)
    for (int64_t p = 0; p < panels; p++) sum[p] += part[p];
}
template <int T, class A, class S>
VG_FN vg_col_packer vg_columns_of(const A& a, const S& row_sum) {
  return {&a, vg_pack_columns<T, A, vg_wanted<S>>, vg_sums_to(row_sum), {}};
}

// What packs B returns where it lies packed. Packs B for nt and nn: a matrix in
// memory.
struct vg_weight_packer {
  static constexpr bool packs = true;
  const float* b;
  int64_t ldb;
  bool transposed;  // B[N,K]

  VG_NOINLINE const float* operator()(const vg_call& call, const vg_gemm_shape& s, float* out) const {
    const int64_t panels = s.col_panels();
    const vg_range mine = call.share(s.k_blocks() * panels);
    for (int64_t u = mine.begin; u < mine.end; u++) {
      const int64_t kb = u / panels, p = u % panels, k = kb * kKC, n = p * kNR;
      const int cols = (int)vg_min64(kNR, s.n - n);
      float* to = out + s.b_at(kb, p);
      if (transposed)
        vg_pack_panel_nt(b + n * ldb + k, ldb, cols, s.depth(kb), to);
      else
        vg_pack_panel_nn(b + k * ldb + n, ldb, cols, s.depth(kb), to);
    }
    return out;
  }
};

// B that lies packed already.
struct vg_packed_weight {
  static constexpr bool packs = false;
  const float* b;
  VG_FN const float* operator()(const vg_call&, const vg_gemm_shape&, float*) const { return b; }
};

// Packs rows of B[K,N] read through a source.
struct vg_source_packer {
  static constexpr bool packs = true;
  const void* b;
  void (*rows)(const void* b, const vg_call& call, const vg_gemm_shape& s, int64_t from, int64_t to, float* out);
  vg_sum_sink col_sum;  // over (0, n) of the sums over k of b

  VG_FN const float* operator()(const vg_call& call, const vg_gemm_shape& s, float* out) const {
    pack(call, s, 0, s.k, out);
    return out;
  }
  // Rows `from` (the first of a k-block) to `to`.
  VG_FN void pack(const vg_call& call, const vg_gemm_shape& s, int64_t from, int64_t to, float* out) const {
    rows(b, call, s, from, to, out);
  }

  // After a barrier: sums what was packed, block by block of k, panels shared among
  // the workers. kept: width() floats for what earlier slabs summed.
  VG_NOINLINE void packed(const vg_call& call, const vg_gemm_shape& s, int64_t from, int64_t to, const float* packed,
                          float* kept) const {
    if (!col_sum.wanted()) return;
    const vg_range mine = call.share(s.col_panels());
    for (int64_t col = mine.begin * kNR; col < mine.end * kNR; col += kLanes) {
      vf sum = from > 0 ? vg_load_full(kept + col) : vf(0.0f);
      for (int64_t k0 = from; k0 < to; k0 += kKC) {
        const int64_t depth = s.depth(k0 / kKC);
        const float* p = packed + (k0 - from) * s.width() + col / kNR * kNR * depth + col % kNR;
        vf part = 0.0f;
        for (int64_t k = 0; k < depth; k++, p += kNR) part += vg_load_full(p);
        sum += part;
      }
      if (to == s.k) {
        if (col < s.n) col_sum(sum, vg_at{0, 0, 0, (int32_t)col, (int32_t)vg_min64(kLanes, s.n - col)});
      } else {
        vg_store_full(kept + col, sum);
      }
    }
  }
};

template <int T, class B>
VG_NOINLINE void vg_pack_source(const void* source, const vg_call& call, const vg_gemm_shape& s, int64_t from,
                                int64_t to_k, float* out) {
  const B& b = *(const B*)source;
  const vg_range mine = call.share(vg_ceil_div(to_k - from, 16));
  const int64_t last = vg_min64(from + mine.end * 16, to_k), width = s.width();
  for (int64_t k = from + mine.begin * 16; k < last; k++) {
    const int64_t kb = k / kKC, step = kNR * s.depth(kb);
    float* to = out + (kb * kKC - from) * width + (k % kKC) * kNR;
    if (k + kRowsAhead < last) vg_fetch_source(b, vg_at_row<T>(k + kRowsAhead), 0, s.n);
    vg_each_vector(vg_at_row<T>(k), 0, s.n, [&](vg_at at) VG_LAMBDA {
      vg_store_full(to + at.col / kNR * step + at.col % kNR, vg_value(b, at));
    });
    for (int64_t col = vg_round_up(s.n, kLanes); col < width; col += kLanes)
      vg_store_full(to + col / kNR * step + col % kNR, vf(0.0f));
  }
}
template <int T, class B, class S>
VG_FN vg_source_packer vg_source_of(const B& b, const S& col_sum) {
  return {&b, vg_pack_source<T, B>, vg_sums_to(col_sum)};
}

VG_END

#endif  // VITGEN_CPU_GEMM_PACK_H

#ifndef VITGEN_CPU_GEMM_H
#define VITGEN_CPU_GEMM_H

// Matrix products with fused sources and epilogues.
//
//   nt   C[M,N] = A[M,K] B[N,K]^T   a linear layer: B is its weight
//   nn   C[M,N] = A[M,K] B[K,N]     its gradient to the input
//   tn   C[M,N] = A[K,M]^T B[K,N]   its gradient to the weight
//
// A (and B in tn) come from source functors, C goes to a sink; each is called
// once for every element. Only the loops around functors are templates, the
// innermost: packing, and the epilogue over a piece of C. All others are compiled
// once for a model and call those through pointers, a few times a row panel; the
// arithmetic is tile.h's.
//
// gemm_nt.h and gemm_tn.h have the entries, and do what is narrow in ways of their
// own; this is how the others go.
//
// B is packed into the shared workspace by all workers together; after a
// barrier each worker multiplies its rows. vg_gemm_packed finds it packed
// already, by vg_pack_weight, and does the rest alike:
//   - M large: a worker packs its own rows of A, one k-block of a row block at
//     a time, into private scratch, and multiplies it with all of B. On the last
//     k-block it does so by 128 columns of one row panel, and lets the epilogue
//     run over them at once, in L1: what the epilogue reads and writes in memory
//     is fetched before the multiplication and arrives behind it, and so does B
//     for the next 128 columns. A row block is at most 16 panels, fewer when its
//     part of C, kept between k-blocks, would outgrow L2.
//   - M small (kSharedRows): A is packed once into the workspace too, and the
//     workers split both the rows and the columns. Where nobody packs B and A has
//     so few rows that packing them takes no longer than a barrier (kOwnPanels),
//     every worker packs them for itself. The tiles of one panel of B have the
//     next one fetched: it is used too little to hide L3 otherwise.
//   - tn over a long K (a large batch): K passes in slabs, so that only a slab of
//     B is packed at a time and stays in cache, and C is kept in the workspace
//     between slabs. Chosen when it needs less memory than all of B.
// Panels and k-blocks lie at fixed places, so neither the split nor the number
// of workers shows in the result.

VG_BEGIN

// Lets the epilogue run over a finished piece of C, row by row.
template <int T, class E>
VG_FN void vg_epilogue(const E& epilogue, const float* c, int64_t ldc, vg_range rows, vg_range cols) {
  for (int64_t r = rows.begin; r < rows.end; r++, c += ldc)
    vg_each_vector(vg_at_row<T>(r), cols.begin, cols.end,
                   [&](vg_at at) VG_LAMBDA { epilogue(vg_load_full(c + at.col - cols.begin), at); });
}

// Has what the epilogue will read and write fetched.
template <int T, class E>
VG_NOINLINE void vg_fetch_sink_rows(const void* sink, vg_range rows, vg_range cols) {
  for (int64_t r = rows.begin; r < rows.end; r++)
    vg_fetch_sink(*(const E*)sink, vg_at_row<T>(r), cols.begin, cols.end);
}

// An epilogue whatever its type, by panels of C and without the padding.
struct vg_panel_sink {
  const void* sink;
  void (*run)(const void* sink, const float* c, int64_t ldc, vg_range rows, vg_range cols);
  void (*fetch)(const void* sink, vg_range rows, vg_range cols);

  static VG_FN vg_range part(int64_t all, int64_t size, int64_t first, int64_t count) {
    return {first * size, vg_min64(all, (first + count) * size)};
  }
  // The piece of C at row panel p0 and column panel q0.
  VG_FN void panels(const vg_gemm_shape& s, const float* c, int64_t ldc, int64_t p0, int64_t panels, int64_t q0,
                    int64_t col_panels) const {
    run(sink, c, ldc, part(s.m, kMR, p0, panels), part(s.n, kNR, q0, col_panels));
  }
  VG_FN void fetch_panel(const vg_gemm_shape& s, int64_t p, int64_t q0, int64_t col_panels) const {
    fetch(sink, part(s.m, kMR, p, 1), part(s.n, kNR, q0, col_panels));
  }
};
template <int T, class E>
VG_NOINLINE void vg_run_epilogue(const void* sink, const float* c, int64_t ldc, vg_range rows, vg_range cols) {
  vg_epilogue<T>(*(const E*)sink, c, ldc, rows, cols);
}
template <int T, class E>
VG_FN vg_panel_sink vg_panels_to(const E& sink) {
  return {&sink, vg_run_epilogue<T, E>, vg_fetch_sink_rows<T, E>};
}

// Each worker's rows of A are its own. One row block: row panels p0 on.
template <class P>
VG_NOINLINE void vg_gemm_row_block(const vg_call& call, const vg_gemm_shape& s, P& packer, const float* b,
                                   const vg_panel_sink& epilogue, int64_t p0, int64_t panels) {
  float* a = (float*)call.scratch();
  float* c = a + kRowPanels * kMR * kLDA;
  const int64_t last = s.k_blocks() - 1, q_all = s.col_panels();
  const int64_t ldc = (last > 0 ? q_all : kColumnPanels) * kNR + 16;
  packer.begin(panels);
  for (int64_t kb = 0; kb < last; kb++) {
    packer.pack(s, p0, panels, kb, a);
    vg_tiles<P::rs>(panels, q_all, s.depth(kb), a, P::panel, P::ks, b + s.b_at(kb, 0), c, ldc, kb > 0, nullptr);
  }
  packer.pack(s, p0, panels, last, a);
  for (int64_t q0 = 0; q0 < q_all; q0 += kColumnPanels) {
    const int64_t q = vg_min64(kColumnPanels, q_all - q0);
    for (int64_t i = 0; i < panels; i++) {
      float* ci = last > 0 ? c + i * kMR * ldc + q0 * kNR : c;
      epilogue.fetch_panel(s, p0 + i, q0, q);
      vg_row_tiles<P::rs>(q, s.depth(last), a + i * P::panel, P::ks, b + s.b_at(last, q0), ci, ldc, last > 0,
                          vg_ahead(i, s.depth(last), b + s.b_at(last, q0 + q)));
      epilogue.panels(s, ci, ldc, p0 + i, 1, q0, q);
    }
  }
  packer.end(s, p0, panels);
}

// Calls f(first panel, panels) for blocks of at most `most` of this worker's row
// panels.
template <class F>
VG_FN void vg_each_row_block(const vg_call& call, const vg_gemm_shape& s, int64_t most, const F& f) {
  const vg_range mine = call.share(s.row_panels());
  const int64_t blocks = vg_ceil_div(mine.end - mine.begin, most);
  for (int64_t i = 0; i < blocks; i++) {
    const vg_range part = vg_share(mine.end - mine.begin, i, blocks);
    f(mine.begin + part.begin, part.end - part.begin);
  }
}

// K in slabs: B is packed a slab at a time; a worker's rows of C and the sums of
// its columns of A wait in the workspace.
VG_NOINLINE void vg_gemm_by_slabs(const vg_call& call, const vg_gemm_shape& s, vg_col_packer& pack_a,
                                  const vg_source_packer& pack_b, const vg_panel_sink& epilogue) {
  using PA = vg_col_packer;
  float* b = (float*)call.workspace();
  float *c = b + s.slab_c_at(), *sums = b + s.slab_sum_at(), *a = (float*)call.scratch();
  const int64_t ldc = s.slab_c_ld();
  for (int64_t from = 0; from < s.k; from += kSlab) {
    const int64_t to = vg_min64(s.k, from + kSlab);
    if (from > 0) call.barrier();  // nobody reads the last slab any more
    pack_b.pack(call, s, from, to, b);
    call.barrier();
    pack_b.packed(call, s, from, to, b, sums);
    vg_each_row_block(call, s, kRowPanels, [&](int64_t p, int64_t panels) {
      const int64_t kb0 = from / kKC, kbs = vg_ceil_div(to - from, kKC), q_all = s.col_panels();
      pack_a.begin(panels);
      for (int64_t i = 0; i < kbs; i++) pack_a.pack(s, p, panels, kb0 + i, a + i * kRowPanels * PA::panel);
      // Some columns at a time: their part of C stays in L2 through the slab.
      for (int64_t q0 = 0; q0 < q_all; q0 += kColumnPanels) {
        const int64_t q = vg_min64(kColumnPanels, q_all - q0);
        float* cq = c + p * kMR * ldc + q0 * kNR;
        for (int64_t i = 0; i < kbs; i++) {
          const float* bq = b + i * kKC * s.width() + q0 * kNR * s.depth(kb0 + i);
          vg_tiles<PA::rs>(panels, q, s.depth(kb0 + i), a + i * kRowPanels * PA::panel, PA::panel, PA::ks, bq, cq, ldc,
                           kb0 + i > 0, bq + q * kNR * s.depth(kb0 + i));
        }
        if (to == s.k) epilogue.panels(s, cq, ldc, p, panels, q0, q);
      }
      pack_a.carry(sums + p * kLanes, panels, from > 0);
      if (to == s.k) pack_a.end(s, p, panels);
    });
  }
}

// How `count` workers stand over the tiles: rows of the grid whose largest share is
// smallest. Of two such, the one with more rows if all of A would crowd L2, which
// every column of workers reads for each panel of B.
VG_UNUSED inline int64_t vg_grid_rows(const vg_gemm_shape& s, int64_t count) {
  const bool long_a = s.m * s.k * (int64_t)sizeof(float) > kBlockBytes / 2;
  int64_t best = 1, least = INT64_MAX;
  for (int64_t rows = 1; rows <= count; rows++) {
    if (count % rows != 0) continue;
    const int64_t share = vg_ceil_div(s.row_panels(), rows) * vg_ceil_div(s.col_panels(), count / rows);
    if (share < least || (long_a && share == least)) {
      least = share;
      best = rows;
    }
  }
  return best;
}

// Packs this worker's part of A, all of k.
template <class P>
VG_FN void vg_pack_all(const vg_call& call, const vg_gemm_shape& s, P& packer, float* a) {
  const vg_range mine = call.share(s.row_panels());
  for (int64_t p = mine.begin; p < mine.end; p += kRowPanels) {
    const int64_t panels = vg_min64(kRowPanels, mine.end - p);
    packer.begin(panels);
    for (int64_t kb = 0; kb < s.k_blocks(); kb++) packer.pack(s, p, panels, kb, a + s.a_at(kb, p, P::panel));
    packer.end(s, p, panels);
  }
}

// A lies packed at a; a worker has a rectangle of tiles.
template <class P>
VG_NOINLINE void vg_gemm_by_grid(const vg_call& call, const vg_gemm_shape& s, const float* a, const float* b,
                                 const vg_panel_sink& epilogue) {
  float* c = (float*)call.scratch() + kRowPanels * kMR * kLDA;
  const int64_t grid_rows = vg_grid_rows(s, call.count());
  const int64_t grid_cols = call.count() / grid_rows;
  const vg_range ps = vg_share(s.row_panels(), call.index() / grid_cols, grid_rows);
  const vg_range qs = vg_share(s.col_panels(), call.index() % grid_cols, grid_cols);
  const int64_t ldc = kColumnPanels * kNR + 16;
  for (int64_t p = ps.begin; p < ps.end; p += kRowPanels) {
    const int64_t panels = vg_min64(kRowPanels, ps.end - p), rows = vg_min64(panels * kMR, s.m - p * kMR);
    for (int64_t q0 = qs.begin; q0 < qs.end; q0 += kColumnPanels) {
      const int64_t q = vg_min64(kColumnPanels, qs.end - q0);
      for (int64_t j = 0; j < q; j++)
        for (int64_t kb = 0; kb < s.k_blocks(); kb++) {
          const float* next = b + (kb + 1 < s.k_blocks() ? s.b_at(kb + 1, q0 + j) : s.b_at(0, q0 + j + 1));
          vg_column<P::rs>(rows, s.depth(kb), a + s.a_at(kb, p, P::panel), P::panel, P::ks, b + s.b_at(kb, q0 + j),
                           c + j * kNR, ldc, kb > 0, next);
        }
      epilogue.panels(s, c, ldc, p, panels, q0, q);
    }
  }
}

template <class PA, class PB>
VG_NOINLINE void vg_gemm(const vg_call& call, const vg_gemm_shape& s, PA& pack_a, const PB& pack_b,
                         const vg_panel_sink& epilogue) {
  const float* b = pack_b(call, s, (float*)call.workspace());
  if (s.shares_a()) {
    vg_worker alone = {0, 1, call.scratch()};
    const bool own_a = !PB::packs && s.owns_a();
    float* a = own_a ? (float*)call.scratch() : (float*)call.workspace() + s.a_begin();
    vg_pack_all(own_a ? vg_call{call.prog, call.launch, &alone} : call, s, pack_a, a);
    if (!own_a) call.barrier();
    vg_gemm_by_grid<PA>(call, s, a, b, epilogue);
  } else {
    if (PB::packs) call.barrier();
    vg_each_row_block(call, s, s.block_panels(), [&](int64_t p, int64_t panels) VG_LAMBDA {
      vg_gemm_row_block(call, s, pack_a, b, epilogue, p, panels);
    });
  }
}

// Packs B[N,K] for any number of vg_gemm_packed. out has room for
// vg_gemm_shape::b_size() elements, which kernels.PackedWeightBytes bounds over
// all instruction sets.
VG_FN void vg_pack_weight(const vg_call& call, int64_t N, int64_t K, const float* B, int64_t ldb, float* out) {
  vg_weight_packer{B, ldb, true}(call, vg_gemm_shape{1, N, K}, out);
}

VG_END

#endif  // VITGEN_CPU_GEMM_H

#ifndef VITGEN_CPU_GEMM_NT_H
#define VITGEN_CPU_GEMM_NT_H

// A B^T and A B, a linear layer and its gradient to the input: as gemm.h has it,
// or, with a small weight, without its detours.
//
// A tile of a narrow layer takes a few hundred cycles, so that copying its rows of
// A, and waiting for others to pack B, would cost a quarter of it. Rows of A are
// read where they lie if a matrix in memory is their source. So is B[K,N]; of a
// B[N,K], every worker packs what it needs for itself. The result has the bits
// that gemm.h's way would give it.

VG_BEGIN

constexpr int64_t kSmallB = 1 << 14;  // elements of a small weight
static_assert(kSmallB * sizeof(float) <= VG_SCRATCH_BYTES / 2, "packed in scratch");

// Where a panel of an operand lies: rows of A, or steps of B, ld apart.
struct vg_panel {
  const float* p;
  int64_t ld;
};

// A: a matrix in memory, or NULL, and what packs it.
struct vg_small_a {
  const vg_matrix* matrix;
  vg_row_packer packer;

  // Row panel p, packed into `packed` if need be, as the last one is if it lacks rows.
  VG_FN vg_panel panel(const vg_gemm_shape& s, int64_t p, float* packed) const {
    if (matrix && (p + 1) * kMR <= s.m) return {matrix->p + p * kMR * matrix->ld, matrix->ld};
    packer.pack(s, p, 1, 0, packed);
    return {packed, kLDA};
  }
};

// B: a matrix in memory, [K,N] or transposed [N,K], or all of it packed.
struct vg_small_b {
  const float* b;
  int64_t ldb;
  bool transposed, packed;

  VG_FN explicit vg_small_b(const vg_weight_packer& w) : b(w.b), ldb(w.ldb), transposed(w.transposed), packed(false) {}
  VG_FN explicit vg_small_b(const vg_packed_weight& w) : b(w.b), ldb(0), transposed(false), packed(true) {}

  VG_FN bool in_place(const vg_gemm_shape& s, int64_t q) const { return !transposed && (q + 1) * kNR <= s.n; }
  // Packs column panels qs, as far as they are not read where they lie.
  VG_FN void pack(const vg_gemm_shape& s, vg_range qs, float* out) const {
    for (int64_t q = qs.begin; q < qs.end && !packed; q++, out += kNR * s.k) {
      const int cols = (int)vg_min64(kNR, s.n - q * kNR);
      if (transposed)
        vg_pack_panel_nt(b + q * kNR * ldb, ldb, cols, s.k, out);
      else if (!in_place(s, q))
        vg_pack_panel_nn(b + q * kNR, ldb, cols, s.k, out);
    }
  }
  // Column panel q, where pack put it, or where it was.
  VG_FN vg_panel panel(const vg_gemm_shape& s, vg_range qs, int64_t q, const float* out) const {
    if (packed) return {b + s.b_at(0, q), kNR};
    if (in_place(s, q)) return {b + q * kNR, ldb};
    return {out + (q - qs.begin) * kNR * s.k, kNR};
  }
};

// Few rows are divided by columns too, so that all workers have some: not if that
// would have a source called more than once for an element.
VG_NOINLINE void vg_gemm_small(const vg_call& call, const vg_gemm_shape& s, const vg_small_a& a, const vg_small_b& b,
                               const vg_panel_sink& epilogue) {
  const bool by_columns = a.matrix && s.m <= kSharedRows;
  const int64_t grid_rows = by_columns ? vg_grid_rows(s, call.count()) : call.count();
  const int64_t grid_cols = call.count() / grid_rows;
  const vg_range ps = vg_share(s.row_panels(), call.index() / grid_cols, grid_rows);
  const vg_range qs = vg_share(s.col_panels(), call.index() % grid_cols, grid_cols);
  constexpr int64_t ldc = kColumnPanels * kNR + 16;
  float *packed_a = (float*)call.scratch(), *c = packed_a + kMR * kLDA, *packed_b = c + kMR * ldc;
  b.pack(s, qs, packed_b);
  for (int64_t p = ps.begin; p < ps.end; p++) {
    const vg_panel ap = a.panel(s, p, packed_a);
    for (int64_t q0 = qs.begin; q0 < qs.end; q0 += kColumnPanels) {
      const int64_t q1 = vg_min64(q0 + kColumnPanels, qs.end);
      for (int64_t q = q0; q < q1; q++) {
        const vg_panel bq = b.panel(s, qs, q, packed_b);
        vg_tile<0>(s.k, ap.p, ap.ld, bq.p, bq.ld, c + (q - q0) * kNR, ldc, false, c);
      }
      epilogue.panels(s, c, ldc, p, 1, q0, q1 - q0);
    }
  }
}

template <int T, class A, class W, class E>
VG_FN void vg_gemm_rows(const vg_call& call, const vg_gemm_shape& s, const A& a, const W& weight, const E& epilogue) {
  vg_row_packer pack_a = {&a, vg_pack_rows<T, A>};
  if (s.k <= kKC && s.b_size() <= kSmallB) {
    const vg_matrix* matrix = nullptr;
    if constexpr (vg_same<A, vg_matrix>) matrix = &a;
    vg_gemm_small(call, s, {matrix, pack_a}, vg_small_b(weight), vg_panels_to<T>(epilogue));
  } else {
    vg_gemm(call, s, pack_a, weight, vg_panels_to<T>(epilogue));
  }
}

// a: source over (m, k), rows of T tokens; B[N,K] with ldb elements from row to
// row; epilogue: sink over (m, n).
template <int T, class A, class E>
VG_FN void vg_gemm_nt(const vg_call& call, int64_t M, int64_t N, int64_t K, const A& a, const float* B, int64_t ldb,
                      const E& epilogue) {
  vg_gemm_rows<T>(call, vg_gemm_shape{M, N, K}, a, vg_weight_packer{B, ldb, true}, epilogue);
}

// The same with B[K,N].
template <int T, class A, class E>
VG_FN void vg_gemm_nn(const vg_call& call, int64_t M, int64_t N, int64_t K, const A& a, const float* B, int64_t ldb,
                      const E& epilogue) {
  vg_gemm_rows<T>(call, vg_gemm_shape{M, N, K}, a, vg_weight_packer{B, ldb, false}, epilogue);
}

// vg_gemm_nt with B as vg_pack_weight left it, and the same bits.
template <int T, class A, class E>
VG_FN void vg_gemm_packed(const vg_call& call, int64_t M, int64_t N, int64_t K, const A& a, const float* B,
                          const E& epilogue) {
  vg_gemm_rows<T>(call, vg_gemm_shape{M, N, K}, a, vg_packed_weight{B}, epilogue);
}

VG_END

#endif  // VITGEN_CPU_GEMM_NT_H

#ifndef VITGEN_CPU_REDUCE_H
#define VITGEN_CPU_REDUCE_H

// Reductions in a fixed order: column sums, means over tokens, and sums of
// everything. Long sums are cut into chunks at places that depend on the
// extent alone; workers fill one partial result a chunk in the workspace, and
// after a barrier the partials are added in order. So the result is the same
// for any number of workers, and the rounding error grows with the chunk, not
// with the whole.

VG_BEGIN

// Rows are cut into at most this many chunks, which bounds both the workspace
// and the workers that can help.
constexpr int64_t kMaxChunks = 64;

struct vg_chunks {
  int64_t rows, per, count;
  VG_FN explicit vg_chunks(int64_t n) : rows(n), per(vg_ceil_div(n, kMaxChunks)), count(vg_ceil_div(n, per)) {}
  VG_FN vg_range operator[](int64_t i) const { return {i * per, vg_min64(rows, (i + 1) * per)}; }
};

// Workspace of a sum over rows; kernels.ColumnSumWorkspaceBytes bounds it.
VG_FN int64_t vg_column_sum_workspace(int64_t rows, int64_t cols) {
  return (int64_t)sizeof(float) * vg_chunks(rows).count * vg_round_up(cols, 16);
}

// Adds `count` partial rows, `stride` apart, column by column into a sink. The
// caller has put a barrier behind the writing of the partials.
template <class Y>
VG_NOINLINE void vg_add_partials(const vg_call& call, const float* partial, int64_t count, int64_t stride,
                                 int64_t cols, const Y& y) {
  const vg_range mine = call.share(vg_ceil_div(cols, kLanes));
  vg_each_vector(vg_at{}, mine.begin * kLanes, vg_min64(cols, mine.end * kLanes), [&](vg_at at) VG_LAMBDA {
    vf sum = vg_load<vf>(partial + at.col, at.n);
    for (int64_t i = 1; i < count; i++) sum += vg_load<vf>(partial + i * stride + at.col, at.n);
    y(sum, at);
  });
}

// Sums of few rows: a chunk would be a row, so the workers divide the columns.
template <int T, class X, class Y>
VG_NOINLINE void vg_short_column_sum(const vg_call& call, int64_t rows, int64_t cols, const X& x, const Y& y) {
  constexpr int64_t vectors = 4, width = vectors * kLanes;
  const vg_range mine = call.share(vg_ceil_div(cols, width));
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t first = u * width, last = vg_min64(cols, first + width);
    vf sum[vectors] = {};
    for (int64_t r = 0; r < rows; r++)
      vg_each_vector(vg_at_row<T>(r), first, last,
                     [&](vg_at at) VG_LAMBDA { sum[(at.col - first) / kLanes] += vg_value(x, at); });
    vg_each_vector(vg_at{}, first, last, [&](vg_at at) VG_LAMBDA { y(sum[(at.col - first) / kLanes], at); });
  }
}

// Sums over rows: x is a source over (row, col), rows of T tokens; y a sink over
// (row = 0, col).
template <int T, class X, class Y>
VG_NOINLINE void vg_column_sum(const vg_call& call, int64_t rows, int64_t cols, const X& x, const Y& y) {
  if (rows <= kMaxChunks) return vg_short_column_sum<T>(call, rows, cols, x, y);
  float* partial = (float*)call.workspace();
  const int64_t stride = vg_round_up(cols, 16);
  const vg_chunks chunks(rows);
  const vg_range mine = call.share(chunks.count);
  for (int64_t i = mine.begin; i < mine.end; i++) {
    float* out = partial + i * stride;
    const vg_range c = chunks[i];
    for (int64_t r = c.begin; r < c.end; r++)
      vg_each_vector(vg_at_row<T>(r), 0, cols, [&](vg_at at) VG_LAMBDA {
        const vf v = vg_value(x, at);
        vg_store(out + at.col, r == c.begin ? v : vg_load<vf>(out + at.col, at.n) + v, at.n);
      });
  }
  call.barrier();
  vg_add_partials(call, partial, chunks.count, stride, cols, y);
}

// Sums over the tokens of each sample: x is a source over (row = b*T + t, col),
// y a sink over (row = b, col).
template <int T, class X, class Y>
VG_NOINLINE void vg_token_sum(const vg_call& call, int64_t batch, int64_t cols, const X& x, const Y& y) {
  constexpr int64_t vectors = 8, width = vectors * kLanes;
  const int64_t blocks = vg_ceil_div(cols, width);
  const vg_range mine = call.share(batch * blocks);
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t b = u / blocks, first = u % blocks * width, last = vg_min64(cols, first + width);
    vf sum[vectors] = {};
    for (int64_t t = 0; t < T; t++)
      vg_each_vector(vg_at_row<T>(b * T + t), first, last,
                     [&](vg_at at) VG_LAMBDA { sum[(at.col - first) / kLanes] += vg_value(x, at); });
    vg_each_vector(vg_at{b, (int32_t)b, 0, 0, 0}, first, last,
                   [&](vg_at at) VG_LAMBDA { y(sum[(at.col - first) / kLanes], at); });
  }
}

// Elements summed in single precision before double takes over.
constexpr int64_t kSumChunk = 16384;

// Workspace of a sum of n terms; kernels.SumWorkspaceBytes bounds it.
VG_FN int64_t vg_sum_workspace(int64_t n) { return (int64_t)sizeof(double) * vg_ceil_div(n, kSumChunk); }

// out = the sum of x[i]^2 over a flat array of any length. A chunk is summed in
// single precision, the chunks in double and in order.
VG_NOINLINE void vg_sumsq(const vg_call& call, int64_t n, const float* x, float* out) {
  constexpr int ways = 4;  // independent chains: the adder's latency
  double* partial = (double*)call.workspace();
  const int64_t chunks = vg_ceil_div(n, kSumChunk);
  const vg_range mine = call.share(chunks);
  for (int64_t c = mine.begin; c < mine.end; c++) {
    const int64_t last = vg_min64(n, (c + 1) * kSumChunk);
    int64_t i = c * kSumChunk;
    vf sum[ways] = {};
    const auto add = [&](vf& to, int64_t at, int lanes) VG_LAMBDA {
      const vf v = vg_load<vf>(x + at, lanes);
      to = vg_fma(v, v, to);
    };
    for (; i + ways * kLanes <= last; i += ways * kLanes)
      for (int k = 0; k < ways; k++) add(sum[k], i + k * kLanes, kLanes);
    for (; i < last; i += kLanes) add(sum[0], i, (int)vg_min64(kLanes, last - i));
    partial[c] = (double)vg_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
  }
  call.barrier();
  if (call.index() != 0) return;
  double total = 0;
  for (int64_t c = 0; c < chunks; c++) total += partial[c];
  *out = (float)total;
}

VG_END

#endif  // VITGEN_CPU_REDUCE_H

#ifndef VITGEN_CPU_GEMM_TN_H
#define VITGEN_CPU_GEMM_TN_H

// A^T B, the gradient to a weight: as gemm.h has it, or turned, C^T = B^T A, where A
// has few columns and B many.
//
// For a narrow layer, whose matrices have few columns and many rows, both are
// read where they lie: columns of A are what the micro-kernel wants of an operand
// with RS = 1, and rows of B are as good as a packed panel while they are short.
// K is cut into chunks at places that depend on it alone; partial products add
// up in order after a barrier. So a worker reads rows that, in a training step, it
// has mostly written itself, and once. What is narrow and not a matrix in memory, or
// narrower than a tile, is copied a chunk at a time, each by one worker.

VG_BEGIN

constexpr int64_t kThinRow = 256;        // longer rows put the steps of a tile on too many pages
constexpr int64_t kThinDepth = 512;      // least of a chunk where there are several
constexpr int64_t kCopyDepth = 128;      // the same of one that is copied
constexpr int64_t kCopyColumns = 64;     // of B, most that is copied
static_assert(2 * kTurnRows > kThinRow, "what turns is not thin: its workspace is another");
constexpr int64_t kThinSums = 4;         // vectors of column sums at once: the adder's latency

// The product in chunks. The workspace holds a C for each, and sums of A's columns.
struct vg_thin : vg_gemm_shape {
  int64_t depth;  // least of a chunk where there are several
  VG_FN explicit vg_thin(const vg_gemm_shape& s, int64_t least = kThinDepth) : vg_gemm_shape(s), depth(least) {}
  VG_FN int64_t chunks() const { return vg_max64(1, k / depth); }
  VG_FN vg_range chunk(int64_t i) const { return vg_share(k, i, chunks()); }
  VG_FN int64_t c_ld() const { return vg_round_up(n, 16); }
  VG_FN int64_t c_at(int64_t i) const { return i * m * c_ld(); }
  VG_FN int64_t sum_ld() const { return vg_round_up(m, 16); }
  VG_FN int64_t sum_at(int64_t i) const { return c_at(chunks()) + i * sum_ld(); }

  // Does not ask for k, which is known at run time only: so the compiler drops the
  // way that is not taken. The workspace suffices, as a packed A and B would take
  // more than the chunks do.
  VG_FN bool suits(int64_t lda, int64_t ldb) const {
    return m >= kMR && n >= kNR && m < kSlabRows && lda <= kThinRow && ldb <= kThinRow;
  }
  VG_FN bool suits_copies() const { return m < kTurnRows && n <= kCopyColumns; }
};

// Tiles at the lower and right edge begin early enough to end with the matrix.
// They compute rows and columns of their neighbours again, for nobody.
struct vg_thin_tile {
  int64_t row, rows, col, cols;  // of C, the new part
  int64_t from_row, from_col;    // where the tile begins

  VG_FN vg_thin_tile(const vg_gemm_shape& s, int64_t p, int64_t q) : row(p * kMR), col(q * kNR) {
    rows = vg_min64(kMR, s.m - row), cols = vg_min64(kNR, s.n - col);
    from_row = vg_min64(row, s.m - vg_tile_height(rows));
    from_col = vg_min64(col, s.n - vg_round_up(cols, kLanes));
  }
};

// Row panel p of the product over depths k, by way of one tile's scratch.
template <class E>
VG_FN void vg_thin_panel(const vg_gemm_shape& s, const vg_matrix& a, const vg_matrix& b, vg_range k, int64_t p,
                         float* tile, const E& epilogue) {
  for (int64_t q = 0; q < s.col_panels(); q++) {
    const vg_thin_tile t(s, p, q);
    vg_edge_tile<1>(t.rows, t.cols, k.end - k.begin, a.p + k.begin * a.ld + t.from_row, a.ld,
                    b.p + k.begin * b.ld + t.from_col, b.ld, tile, kNR, false);
    vg_run_epilogue<1, E>(&epilogue, tile + (t.row - t.from_row) * kNR + t.col - t.from_col, kNR,
                          vg_range{t.row, t.row + t.rows}, vg_range{t.col, t.col + t.cols});
  }
}

// Sums of A's columns over depths k.
template <class S>
VG_NOINLINE void vg_thin_sums(const vg_gemm_shape& s, const vg_matrix& a, vg_range k, const S& sums) {
  for (int64_t col = 0; col < s.m; col += kThinSums * kLanes) {
    vf sum[kThinSums];
    int n[kThinSums];
    for (int i = 0; i < kThinSums; i++) {
      sum[i] = vf(0.0f);
      n[i] = (int)vg_max64(0, vg_min64(kLanes, s.m - col - i * kLanes));
    }
    const float* row = a.p + k.begin * a.ld + col;
    for (int64_t i = k.begin; i < k.end; i++, row += a.ld)
      for (int j = 0; j < kThinSums; j++)
        if (n[j] > 0) sum[j] += vg_load<vf>(row + j * kLanes, n[j]);
    for (int i = 0; i < kThinSums && n[i] > 0; i++) sums(sum[i], vg_at{0, 0, 0, (int32_t)(col + i * kLanes), n[i]});
  }
}

// Adds the chunks' products up.
template <class E>
VG_NOINLINE void vg_thin_add(const vg_call& call, const vg_thin& s, const E& epilogue) {
  const float* c = (const float*)call.workspace();
  const vg_range mine = call.share(s.m);
  for (int64_t r = mine.begin; r < mine.end; r++)
    vg_each_vector(vg_at_row<1>(r), 0, s.n, [&](vg_at at) VG_LAMBDA {
      const float* p = c + r * s.c_ld() + at.col;
      vf sum = vg_load_full(p);
      for (int64_t i = 1; i < s.chunks(); i++) sum += vg_load_full(p + s.c_at(i));
      epilogue(sum, at);
    });
}

// Where there are several chunks, adds up what all workers have left.
template <class E, class S>
VG_FN void vg_thin_finish(const vg_call& call, const vg_thin& s, const E& epilogue, const S& row_sum) {
  if (s.chunks() == 1) return;
  call.barrier();
  vg_thin_add(call, s, epilogue);
  if (vg_wanted<S>)
    vg_add_partials(call, (const float*)call.workspace() + s.sum_at(0), s.chunks(), s.sum_ld(), s.m, row_sum);
}

template <class E, class S>
VG_NOINLINE void vg_gemm_thin(const vg_call& call, const vg_thin& s, const vg_matrix& a, const vg_matrix& b,
                              const E& epilogue, const S& row_sum) {
  float *parts = (float*)call.workspace(), *tile = (float*)call.scratch();
  const int64_t panels = s.row_panels(), chunks = s.chunks();
  const vg_range mine = call.share(chunks * panels);
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t i = u / panels, p = u % panels;
    if (chunks == 1) {
      vg_thin_panel(s, a, b, s.chunk(i), p, tile, epilogue);
      if (vg_wanted<S> && p == 0) vg_thin_sums(s, a, s.chunk(i), row_sum);
    } else {
      vg_thin_panel(s, a, b, s.chunk(i), p, tile, vg_store_matrix{parts + s.c_at(i), s.c_ld()});
      if (vg_wanted<S> && p == 0) vg_thin_sums(s, a, s.chunk(i), vg_store_matrix{parts + s.sum_at(i), 0});
    }
  }
  vg_thin_finish(call, s, epilogue, row_sum);
}

// Copies rows k of a source into a matrix in scratch, with zeros up to whole vectors.
template <int T, class A>
VG_NOINLINE void vg_copy_rows(const A& a, vg_range k, int64_t cols, float* out, int64_t ld) {
  for (int64_t r = k.begin; r < k.end; r++, out += ld)
    vg_each_vector(vg_at_row<T>(r), 0, cols,
                   [&](vg_at at) VG_LAMBDA { vg_store_full(out + at.col, vg_or_zero(vg_value(a, at), at.n)); });
}

// One chunk of the product, of matrices in scratch: all rows and columns.
template <class E, class S>
VG_FN void vg_thin_chunk(const vg_gemm_shape& s, const vg_matrix& a, const vg_matrix& b, int64_t depth, float* tile,
                         const E& epilogue, const S& row_sum) {
  for (int64_t r = 0; r < s.m; r += kMR)
    for (int64_t c = 0; c < s.n; c += kNR) {
      vg_edge_tile<1>(s.m - r, s.n - c, depth, a.p + r, a.ld, b.p + c, b.ld, tile, kNR, false);
      vg_run_epilogue<1, E>(&epilogue, tile, kNR, vg_range{r, vg_min64(s.m, r + kMR)},
                            vg_range{c, vg_min64(s.n, c + kNR)});
    }
  if constexpr (vg_wanted<S>) vg_thin_sums(s, a, vg_range{0, depth}, row_sum);
}

// A and B are any sources.
template <int T, class A, class B, class E, class S>
VG_NOINLINE void vg_gemm_copied(const vg_call& call, const vg_thin& s, const A& a, const B& b, const E& epilogue,
                                const S& row_sum) {
  // A tile reads a few columns beyond A, whose products nobody uses.
  const int64_t lda = vg_round_up(s.m, 16) + 16, ldb = vg_round_up(s.n, 16), chunks = s.chunks();
  float *parts = (float*)call.workspace(), *tile = (float*)call.scratch();
  const vg_range mine = call.share(chunks);
  for (int64_t i = mine.begin; i < mine.end; i++) {
    const vg_range k = s.chunk(i);
    const int64_t depth = k.end - k.begin;
    const vg_matrix ac = {tile + kMR * kNR, lda}, bc = {ac.p + depth * lda, ldb};
    vg_copy_rows<T>(a, k, s.m, (float*)ac.p, lda);
    vg_copy_rows<T>(b, k, s.n, (float*)bc.p, ldb);
    if (chunks == 1)
      vg_thin_chunk(s, ac, bc, depth, tile, epilogue, row_sum);
    else if constexpr (vg_wanted<S>)
      vg_thin_chunk(s, ac, bc, depth, tile, vg_store_matrix{parts + s.c_at(i), s.c_ld()},
                    vg_store_matrix{parts + s.sum_at(i), 0});
    else
      vg_thin_chunk(s, ac, bc, depth, tile, vg_store_matrix{parts + s.c_at(i), s.c_ld()}, row_sum);
  }
  vg_thin_finish(call, s, epilogue, row_sum);
}

// The sink of C behind a product that computes C^T.
template <class E>
struct vg_turned {
  const E& sink;
};

template <int T, class E>
VG_FN void vg_epilogue(const vg_turned<E>& turned, const float* c, int64_t ldc, vg_range rows, vg_range cols) {
  for (int64_t col = cols.begin; col < cols.end; col += kLanes)
    for (int64_t r = rows.begin; r < rows.end; r += kLanes) {
      const int n = (int)vg_min64(kLanes, rows.end - r);
      vf square[kLanes];
      for (int i = 0; i < kLanes; i++)
        square[i] = i < n ? vg_load_full(c + (r - rows.begin + i) * ldc + col - cols.begin) : vf(0.0f);
      vg_transpose_square(square);
      for (int i = 0; i < kLanes && col + i < cols.end; i++) {
        vg_at at = vg_at_row<T>(col + i);
        at.col = (int32_t)r, at.n = n;
        turned.sink(square[i], at);
      }
    }
}
template <class E>
VG_FN void vg_fetch_sink(const vg_turned<E>&, vg_at, int64_t, int64_t) {}  // the rows are not its

// C^T = B^T A. The packing that every worker does for itself, of rows of the
// result, is the cheaper one, and many rows divide more evenly.
template <int T, class A, class B, class E, class S>
VG_FN void vg_gemm_turned(const vg_call& call, const vg_gemm_shape& s, const A& a, const B& b, const E& epilogue,
                          const S& row_sum) {
  const vg_gemm_shape t = s.turned();
  const vg_source_packer pack_a = vg_source_of<T>(a, row_sum);
  vg_col_packer pack_b = vg_columns_of<T>(b, vg_none{});
  const vg_turned<E> sink = {epilogue};
  if (t.in_slabs()) {
    vg_gemm_by_slabs(call, t, pack_b, pack_a, vg_panels_to<1>(sink));
  } else {
    vg_gemm(call, t, pack_b, pack_a, vg_panels_to<1>(sink));
    pack_a.packed(call, t, 0, t.k, (const float*)call.workspace(), nullptr);
  }
}

// a: source over (k, m), b: source over (k, n), rows of T tokens; epilogue: sink
// over (m, n); row_sum: sink over (0, m) of the sums over k of a, or vg_none.
template <int T, class A, class B, class E, class S>
VG_FN void vg_gemm_tn(const vg_call& call, int64_t M, int64_t N, int64_t K, const A& a, const B& b, const E& epilogue,
                      const S& row_sum) {
  const vg_gemm_shape s = {M, N, K};
  if constexpr (vg_same<A, vg_matrix> && vg_same<B, vg_matrix>)
    if (const vg_thin t(s); t.suits(a.ld, b.ld)) return vg_gemm_thin(call, t, a, b, epilogue, row_sum);
  if (const vg_thin t(s, kCopyDepth); t.suits_copies())
    return vg_gemm_copied<T>(call, t, a, b, epilogue, row_sum);
  if (s.turns()) return vg_gemm_turned<T>(call, s, a, b, epilogue, row_sum);
  const vg_source_packer pack_b = vg_source_of<T>(b, vg_none{});
  vg_col_packer pack_a = vg_columns_of<T>(a, row_sum);
  if (s.in_slabs())
    vg_gemm_by_slabs(call, s, pack_a, pack_b, vg_panels_to<1>(epilogue));
  else
    vg_gemm(call, s, pack_a, pack_b, vg_panels_to<1>(epilogue));
}

VG_END

#endif  // VITGEN_CPU_GEMM_TN_H

#ifndef VITGEN_CPU_HEADS_H
#define VITGEN_CPU_HEADS_H

// Products head by head: columns h of the operands by rows h of the weight, [N,K]
// each.
//
//   head_linear      y_h[M,N]  = x_h[M,K] w_h[N,K]^T
//   head_linear_t    y_h[M,K]  = x_h[M,N] w_h[N,K]
//   head_linear_dw   dw_h[N,K] = dy_h[M,N]^T x_h[M,K]
//
// The rows M are few, often one a sample, so workers share heads and columns of the
// result, not rows: each packs what it needs for itself, and nobody waits. head_linear
// reads the weight where it lies, in dot products: turning it to be packed would cost
// more than a few rows take. Results depend neither on how the work is shared nor on
// the number of rows. vg_matrix operands have the columns of all heads; the sink is
// over all of the result.

VG_BEGIN

constexpr int kDotRows = kLanes < 16 ? 2 : 4, kDotCols = kLanes / kDotRows;
constexpr int64_t kHeadColumns = 2 * kNR;        // columns of a head that a worker takes at a time
constexpr int64_t kHeadLD = kHeadColumns + 16;
constexpr int64_t kHeadRows = kRowPanels * kMR;  // rows of A packed at a time
static_assert(kDotRows * kDotCols == kLanes && kColPanel <= kMR * kLDA, "a tile's results fill a vector; both forms of A fit");

// The products of R rows of A with C rows of B, each of n elements, times factor: R x C
// sums grow over the lanes of vectors, to be folded at the end. Both operands are
// read along their rows, where the micro-kernel of tile.h would have one of them
// turned.
template <int R, int C>
VG_NOINLINE void vg_dot_tile(const float* const* a, const float* const* b, int64_t n, float factor, float* out) {
  vf sum[kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; i++) sum[i] = vf(0.0f);
  vg_each_vector(vg_at{}, 0, n, [&](vg_at at) VG_LAMBDA {
    vf x[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) x[r] = vg_load<vf>(a[r] + at.col, at.n);
#pragma GCC unroll 16
    for (int c = 0; c < C; c++) {
      const vf y = vg_load<vf>(b[c] + at.col, at.n);
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) sum[r * C + c] = vg_fma(x[r], y, sum[r * C + c]);
    }
  });
  vg_store_full(out, vg_sum_rows(sum) * vf(factor));
}

// A tile of C = factor A B^T. At the edges the last row stands for those that are missing.
template <int R, int C>
VG_FN void vg_dot_edge(const float* a, int64_t lda, int64_t rows, const float* b, int64_t ldb, int64_t cols, int64_t n,
                       float factor, float* c, int64_t ldc) {
  const float *ar[R], *br[C];
  float dots[kLanes];
  for (int r = 0; r < R; r++) ar[r] = a + vg_min64(r, rows - 1) * lda;
  for (int j = 0; j < C; j++) br[j] = b + vg_min64(j, cols - 1) * ldb;
  vg_dot_tile<R, C>(ar, br, n, factor, dots);
  const size_t bytes = sizeof(float) * (size_t)vg_min64(C, cols);
  for (int r = 0; r < R && r < rows; r++) __builtin_memcpy(c + r * ldc, dots + r * C, bytes);
}

// C = factor A B^T for few rows of A. Rows of B pass once.
VG_NOINLINE void vg_dots(const float* a, int64_t lda, int64_t rows, const float* b, int64_t ldb, int64_t cols,
                         int64_t n, float factor, float* c, int64_t ldc) {
  if (rows == 1) {
    for (int64_t j = 0; j < cols; j += kLanes)
      vg_dot_edge<1, kLanes>(a, lda, 1, b + j * ldb, ldb, cols - j, n, factor, c + j, ldc);
    return;
  }
  for (int64_t j = 0; j < cols; j += kDotCols)
    for (int64_t i = 0; i < rows; i += kDotRows)
      vg_dot_edge<kDotRows, kDotCols>(a + i * lda, lda, rows - i, b + j * ldb, ldb, cols - j, n, factor,
                                     c + i * ldc + j, ldc);
}

// Columns of a row-major matrix as the micro-kernel reads B: in place, if they are
// whole vectors, else packed.
struct vg_columns {
  const float* p;
  int64_t ld;

  VG_FN vg_columns(const float* b, int64_t ldb, int64_t rows, int64_t cols, float* pack) : p(b), ld(ldb) {
    if (cols % kLanes == 0) return;
    vg_pack_panel_nn(b, ldb, (int)cols, rows, pack);
    p = pack, ld = kNR;
  }
};

// What a worker has in its scratch.
struct vg_head_buffers {
  float *a, *b, *c;
  VG_FN explicit vg_head_buffers(const vg_call& call) {
    a = (float*)call.scratch();
    b = a + kRowPanels * kMR * kLDA;
    c = b + kKC * kHeadColumns;
  }
};

// Calls f(h, columns) for this worker's pieces of `width` columns a head.
template <class F>
VG_FN void vg_each_head_piece(const vg_call& call, int64_t heads, int64_t width, const F& f) {
  const int64_t pieces = vg_ceil_div(width, kHeadColumns);
  const vg_range mine = call.share(heads * pieces);
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t from = u % pieces * kHeadColumns;
    f(u / pieces, vg_range{from, vg_min64(width, from + kHeadColumns)});
  }
}

// C = (add ? C : 0) + A B for packed rows of A and `depth` rows of b.
VG_NOINLINE void vg_head_tiles(const vg_head_buffers& m, int64_t rows, const float* b, int64_t ldb, int64_t cols,
                               int64_t depth, bool add) {
  for (int64_t j = 0; j < cols; j += kNR) {
    const int64_t width = vg_min64(kNR, cols - j);
    const vg_columns panel(b + j, ldb, depth, width, m.b);
    for (int64_t i = 0; i < rows; i += kMR)
      vg_edge_tile<kLDA>(rows - i, width, depth, m.a + i * kLDA, 1, panel.p, panel.ld, m.c + i * kHeadLD + j, kHeadLD, add);
  }
}

// y_h[M,N] = x_h[M,K] b_h, b_h[K,N] the rows h of b.
VG_NOINLINE void vg_head_product(const vg_call& call, int64_t heads, int64_t M, int64_t N, int64_t K, const vg_matrix& x,
                                 const vg_matrix& b, const vg_panel_sink& sink) {
  const vg_head_buffers m(call);
  vg_each_head_piece(call, heads, N, [&](int64_t h, vg_range cols) VG_LAMBDA {
    for (int64_t r = 0; r < M; r += kHeadRows) {
      const int64_t rows = vg_min64(kHeadRows, M - r);
      for (int64_t k = 0; k < K; k += kKC) {
        const vg_matrix piece = {x.p + r * x.ld + h * K + k, x.ld};
        const int64_t depth = vg_min64(kKC, K - k);
        vg_pack_rows<1, vg_matrix>(&piece, vg_gemm_shape{rows, N, depth}, 0, vg_ceil_div(rows, kMR), 0, m.a);
        vg_head_tiles(m, rows, b.p + (h * K + k) * b.ld + cols.begin, b.ld, cols.end - cols.begin, depth, k > 0);
      }
      sink.run(sink.sink, m.c, kHeadLD, vg_range{r, r + rows}, vg_range{h * N + cols.begin, h * N + cols.end});
    }
  });
}

// y_h[M,N] = x_h[M,K] b_h^T, b_h[N,K] the rows h of b.
VG_NOINLINE void vg_head_dots(const vg_call& call, int64_t heads, int64_t M, int64_t N, int64_t K, const vg_matrix& x,
                              const vg_matrix& b, const vg_panel_sink& sink) {
  const vg_head_buffers m(call);
  vg_each_head_piece(call, heads, N, [&](int64_t h, vg_range cols) VG_LAMBDA {
    const float* rows_b = b.p + (h * N + cols.begin) * b.ld;
    for (int64_t r = 0; r < M; r += kHeadRows) {
      const int64_t rows = vg_min64(kHeadRows, M - r);
      vg_dots(x.p + r * x.ld + h * K, x.ld, rows, rows_b, b.ld, cols.end - cols.begin, K, 1.0f, m.c, kHeadLD);
      sink.run(sink.sink, m.c, kHeadLD, vg_range{r, r + rows}, vg_range{h * N + cols.begin, h * N + cols.end});
    }
  });
}

template <int T, class E>
VG_FN void vg_head_linear(const vg_call& call, int64_t heads, int64_t M, int64_t N, int64_t K, const vg_matrix& x,
                          const float* w, int64_t ldw, const E& epilogue) {
  vg_head_dots(call, heads, M, N, K, x, vg_matrix{w, ldw}, vg_panels_to<T>(epilogue));
}

template <int T, class E>
VG_FN void vg_head_linear_t(const vg_call& call, int64_t heads, int64_t M, int64_t N, int64_t K, const vg_matrix& x,
                            const float* w, int64_t ldw, const E& epilogue) {
  vg_head_product(call, heads, M, K, N, x, vg_matrix{w, ldw}, vg_panels_to<T>(epilogue));
}

VG_NOINLINE void vg_head_weight_grad(const vg_call& call, int64_t heads, int64_t M, int64_t N, int64_t K, const vg_matrix& dy,
                                     const vg_matrix& x, const vg_panel_sink& sink) {
  const vg_head_buffers m(call);
  vg_each_head_piece(call, heads, K, [&](int64_t h, vg_range cols) VG_LAMBDA {
    const int64_t width = cols.end - cols.begin;
    for (int64_t n = 0; n < N; n += kHeadRows) {
      const int64_t rows = vg_min64(kHeadRows, N - n), at = h * N + n;
      const vg_gemm_shape s = {rows, width, M};
      const vg_matrix columns = {dy.p + at, dy.ld};
      for (int64_t kb = 0; kb < s.k_blocks(); kb++) {
        const int64_t depth = s.depth(kb);
        const float* b = x.p + kb * kKC * x.ld + h * K + cols.begin;
        vg_pack_columns<1, vg_matrix, false>(&columns, s, 0, s.row_panels(), kb, m.a, nullptr);
        for (int64_t j = 0; j < width; j += kNR) vg_pack_panel_nn(b + j, x.ld, (int)vg_min64(kNR, width - j), depth, m.b + j * depth);
        vg_small_tiles<1>(rows, width, depth, m.a, kColPanel, kMR, m.b, m.c, kHeadLD, kb > 0);
      }
      sink.run(sink.sink, m.c, kHeadLD, vg_range{at, at + rows}, cols);
    }
  });
}

template <class E>
VG_FN void vg_head_linear_dw(const vg_call& call, int64_t heads, int64_t M, int64_t N, int64_t K, const vg_matrix& dy,
                             const vg_matrix& x, const E& epilogue) {
  vg_head_weight_grad(call, heads, M, N, K, dy, x, vg_panels_to<1>(epilogue));
}

VG_END

#endif  // VITGEN_CPU_HEADS_H

#ifndef VITGEN_CPU_LATENT_H
#define VITGEN_CPU_LATENT_H

// Attention whose heads share keys and values, both of them the tokens x, as
// absorbed projections leave it: heads are as wide as x, and query rows are few.
//
//   S_h = scale Q_h X^T,  P_h = softmax(S_h),  O_h = dropout(P_h) X
//
// The heads of one query row make up the rows of A, so X is read once for all of
// them, in place. Scores of a panel of heads lie as attention.h has those of query
// rows, and softmax and its gradient are the same.

VG_BEGIN

// In vg_attention_shape head_dim is the width of x. Head h of query row i of sample
// b: q + (b*tq + i)*ldq + h*head_dim, and alike in o and its gradient. With sums o has
// behind its heads' columns one for each: what the weights sum up to after dropout.
struct vg_latent_shape : vg_attention_shape {
  bool sums;
  const float *q, *x;
  int64_t ldq, ldx;

  // Into how many panels the heads are cut, of `most` or fewer.
  VG_FN int64_t panels(int64_t most) const { return vg_ceil_div(heads, most); }
  VG_FN int64_t drop_row(int64_t b, int64_t h, int64_t i) const { return drop_index(b * heads + h, i); }
};

struct vg_latent_args : vg_latent_shape {
  float* o;
  int64_t ldo;
  float* lse;  // may be NULL
};

struct vg_latent_grad_args : vg_latent_shape {
  const float *o, *lse, *dout;
  int64_t ldo, lddout;
  float *dq, *dx;
  int64_t lddq, lddx;
};

constexpr int64_t kScorePanel = kMR * kKeyStride;  // scores of a panel of heads with a block of keys

// What one panel works in.
struct vg_latent_buffers {
  float *s, *ds, *tile, *pack, *pack_q;
  VG_FN vg_latent_buffers(const vg_call& call, int64_t key_blocks) {
    vg_bump m = {(float*)call.scratch()};
    tile = m.take(kMR * kNR);
    pack = m.take(kKeyBlock * kNR), pack_q = m.take(kMR * kNR);
    s = m.take(key_blocks * kScorePanel), ds = m.take(key_blocks * kScorePanel);
  }
};

// Products of `rows` heads, D apart, with all keys that are seen, times factor.
VG_FN void vg_latent_scores(const vg_latent_shape& a, const float* q, int64_t rows, const float* x, int64_t seen,
                            float factor, float* s) {
  for (int64_t j = 0; j < seen; j += kKeyBlock, s += kScorePanel)
    vg_dots(q, a.head_dim, rows, x + j * a.ldx, a.ldx, vg_min64(kKeyBlock, seen - j), a.head_dim, factor, s, kKeyStride);
}

// tile = columns from `col` on of P X.
VG_FN void vg_latent_mix(const vg_latent_shape& a, const float* p, int64_t rows, const float* x, int64_t seen,
                         int64_t col, int64_t cols, const vg_latent_buffers& m) {
  for (int64_t j = 0; j < seen; j += kKeyBlock, p += kScorePanel) {
    const int64_t keys = vg_min64(kKeyBlock, seen - j);
    const vg_columns panel(x + j * a.ldx + col, a.ldx, keys, cols, m.pack);
    vg_edge_tile<kKeyStride>(rows, cols, keys, p, 1, panel.p, panel.ld, m.tile, kNR, j > 0);
  }
}

// Sum of a row of scores.
VG_FN float vg_latent_sum(const float* p, int64_t seen) {
  vf sum = 0.0f;
  for (int64_t left = seen; left > 0; left -= kKeyBlock, p += kScorePanel)
    vg_each_vector(vg_at{}, 0, vg_min64(kKeyBlock, left), [&](vg_at at) VG_LAMBDA { sum += vg_load<vf>(p + at.col, at.n); });
  return vg_sum(sum);
}

// Heads h0 .. h0+rows-1 of query row i of sample b.
VG_NOINLINE void vg_latent_panel(const vg_call& call, const vg_latent_args& a, int64_t b, int64_t i, int64_t h0,
                                 int64_t rows, const vg_dropout& drop) {
  const vg_latent_buffers m(call, vg_ceil_div(a.tk, kKeyBlock));
  const int64_t d = a.head_dim, row = b * a.tq + i, seen = a.seen(i);
  const float* x = a.x + b * a.tk * a.ldx;
  float* o = a.o + row * a.ldo;
  float inv[kLanes], lse[kLanes];
  vg_latent_scores(a, a.q + row * a.ldq + h0 * d, rows, x, seen, a.scale * kLog2E, m.s);
  vg_attention_softmax(a, m.s, kScorePanel, seen, {i, 0, a.drop_row(b, h0, i), (int64_t)a.q_total * a.tk},
                       (int)rows, drop, inv, lse);
  for (int64_t r = 0; r < rows; r++) {
    if (a.lse) a.lse[(b * a.heads + h0 + r) * a.tq + i] = lse[r];
    // Without dropout it is 1, and exactly so: forward passes without sums rely on it.
    if (a.sums) o[a.heads * d + h0 + r] = drop.on() ? vg_latent_sum(m.s + r * kKeyStride, seen) * inv[r] : 1.0f;
  }
  for (int64_t col = 0; col < d; col += kNR) {
    const int64_t cols = vg_min64(kNR, d - col);
    vg_latent_mix(a, m.s, rows, x, seen, col, cols, m);
    for (int64_t r = 0; r < rows; r++)
      vg_each_vector(vg_at{}, 0, cols, [&](vg_at at) VG_LAMBDA {
        vg_store(o + (h0 + r) * d + col + at.col, vg_load_full(m.tile + r * kNR + at.col) * vf(inv[r]), at.n);
      });
  }
}

VG_NOINLINE void vg_latent_attention(const vg_call& call, const vg_latent_args& a) {
  const vg_dropout drop(call.step(), a.drop_site, a.drop_thr);
  // Heads are independent here: where samples are few, fewer pass together.
  const int64_t units = (int64_t)call.batch() * a.tq, share = vg_ceil_div(units * a.heads, call.count());
  const int64_t most = vg_min64(kMR, share), panels = a.panels(most);
  const vg_range mine = call.share(units * panels);
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t row = u / panels;
    const vg_range heads = vg_share(a.heads, u % panels, panels);
    vg_latent_panel(call, a, row / a.tq, row % a.tq, heads.begin, heads.end - heads.begin, drop);
  }
}

// Scores of a panel to dropout(P), and dP to dS.
VG_NOINLINE void vg_latent_softmax_grad(const vg_latent_grad_args& a, int64_t b, int64_t i, int64_t h0, int64_t rows,
                                        const vg_dropout& drop, const vg_latent_buffers& m) {
  const int64_t d = a.head_dim, row = b * a.tq + i, seen = a.seen(i);
  const float *o = a.o + row * a.ldo, *dout = a.dout + row * a.lddout;
  float delta[kLanes];
  vg_row_dots(dout + h0 * d, d, o + h0 * d, d, rows, d, delta);
  for (int64_t r = 0; r < rows; r++) {
    const int64_t h = h0 + r;
    const float dsum = a.sums ? dout[a.heads * d + h] : 0.0f;
    if (a.sums) delta[r] += dsum * o[a.heads * d + h];
    for (int64_t j = 0, at = r * kKeyStride; j < seen; j += kKeyBlock, at += kScorePanel) {
      const int64_t keys = vg_min64(kKeyBlock, seen - j);
      for (int64_t k = 0; a.sums && k < keys; k++) m.ds[at + k] += dsum;
      vg_attention_row_grad(m.s + at, m.ds + at, keys, vg_round_up(keys, kMR), a.scale, a.lse[(b * a.heads + h) * a.tq + i],
                            delta[r], drop, a.drop_row(b, h, i) + j);
    }
  }
}

// Columns of dX for all keys that are seen: dropout(P)^T dO + dS^T Q.
VG_FN void vg_latent_scatter(const vg_latent_grad_args& a, const float* dout, const float* q, int64_t rows, int64_t seen,
                             int64_t col, int64_t cols, bool add, float* dx, const vg_latent_buffers& m) {
  const vg_columns by_p(dout + col, a.head_dim, rows, cols, m.pack);
  const vg_columns by_ds(q + col, a.head_dim, rows, cols, m.pack_q);
  for (int64_t j = 0, keys; j < seen; j += keys) {
    const int64_t in = j % kKeyBlock, at = j / kKeyBlock * kScorePanel + in;
    keys = vg_min64(kMR, vg_min64(seen - j, kKeyBlock - in));
    vg_edge_tile<1>(keys, cols, rows, m.s + at, kKeyStride, by_p.p, by_p.ld, m.tile, kNR, false);
    vg_edge_tile<1>(keys, cols, rows, m.ds + at, kKeyStride, by_ds.p, by_ds.ld, m.tile, kNR, true);
    for (int64_t r = 0; r < keys; r++)
      vg_each_vector(vg_at{}, 0, cols, [&](vg_at v) VG_LAMBDA {
        float* to = dx + (j + r) * a.lddx + col + v.col;
        const vf y = vg_load_full(m.tile + r * kNR + v.col);
        vg_store(to, add ? vg_load<vf>(to, v.n) + y : y, v.n);
      });
  }
}

// dQ of heads h0 .. h0+rows-1 of query row i, and their share in dX, stored or added.
VG_NOINLINE void vg_latent_grad_panel(const vg_call& call, const vg_latent_grad_args& a, int64_t b, int64_t i,
                                      int64_t h0, int64_t rows, bool add, const vg_dropout& drop) {
  const vg_latent_buffers m(call, vg_ceil_div(a.tk, kKeyBlock));
  const int64_t d = a.head_dim, row = b * a.tq + i, seen = a.seen(i);
  const float* x = a.x + b * a.tk * a.ldx;
  const float *q = a.q + row * a.ldq + h0 * d, *dout = a.dout + row * a.lddout + h0 * d;
  float *dq = a.dq + row * a.lddq + h0 * d, *dx = a.dx + b * a.tk * a.lddx;
  vg_latent_scores(a, q, rows, x, seen, 1.0f, m.s);
  vg_latent_scores(a, dout, rows, x, seen, 1.0f, m.ds);
  vg_latent_softmax_grad(a, b, i, h0, rows, drop, m);
  for (int64_t col = 0; col < d; col += kNR) {
    const int64_t cols = vg_min64(kNR, d - col);
    vg_latent_mix(a, m.ds, rows, x, seen, col, cols, m);
    for (int64_t r = 0; r < rows; r++)
      vg_each_vector(vg_at{}, 0, cols, [&](vg_at at) VG_LAMBDA {
        vg_store(dq + r * d + col + at.col, vg_load_full(m.tile + r * kNR + at.col), at.n);
      });
    vg_latent_scatter(a, dout, q, rows, seen, col, cols, add, dx, m);
  }
}

// dq and dx are written in full.
VG_NOINLINE void vg_latent_attention_grad(const vg_call& call, const vg_latent_grad_args& a) {
  const vg_dropout drop(call.step(), a.drop_site, a.drop_thr);
  const int64_t panels = a.panels(kMR);
  const vg_range mine = call.share(call.batch());
  for (int64_t b = mine.begin; b < mine.end; b++)
    for (int64_t u = 0; u < a.tq * panels; u++) {
      const vg_range heads = vg_share(a.heads, u % panels, panels);
      vg_latent_grad_panel(call, a, b, u / panels, heads.begin, heads.end - heads.begin, u > 0, drop);
      if (u == 0) vg_zero_rows(a.dx + b * a.tk * a.lddx, a.lddx, a.head_dim, a.seen(0), a.tk);
    }
}

VG_END

#endif  // VITGEN_CPU_LATENT_H

#ifndef VITGEN_CPU_OPTIMIZER_H
#define VITGEN_CPU_OPTIMIZER_H

// Optimizer updates over a flat range of the parameter arena, in one pass:
// each element is read and written once. The formulas are PyTorch's
// (torch.optim.SGD with dampening 0, torch.optim.AdamW); learning rate and bias
// corrections come from the step, and clip points to the factor that
// vg_clip_scale computed, or is NULL. average, if not NULL, is the moving average
// of the parameters, which takes its share of the new ones in the same pass:
// average += ema_weight (p - average), with the step's ema_weight.

VG_BEGIN

// Runs f(i, lanes) over a flat array of n elements.
template <class F>
VG_FN void vg_flat(const vg_call& call, int64_t n, const F& f) {
  const vg_range mine = call.share(vg_ceil_div(n, kLanes));
  const int64_t last = vg_min64(n, mine.end * kLanes);
  int64_t i = mine.begin * kLanes;
  for (; i + kLanes <= last; i += kLanes) f(i, kLanes);
  if (i < last) f(i, (int)(last - i));
}

VG_FN void vg_average(float* average, vf param, vf share, int lanes) {
  const vf before = vg_load<vf>(average, lanes);
  vg_store(average, vg_fma(share, param - before, before), lanes);
}

// d = clip g + weight_decay p;  m = momentum m + d;
// p -= lr (nesterov ? d + momentum m : m).
// m starts at zero, which gives PyTorch's m = d at the first update. m NULL: no
// momentum, p -= lr d.
template <bool nesterov>
VG_NOINLINE void vg_sgd(const vg_call& call, int64_t n, float* p, const float* g, float* m, float momentum,
                        float weight_decay, const float* clip, float* average = nullptr) {
  const vf lr = call.step().lr, factor = clip ? *clip : 1.0f, mu = momentum, wd = weight_decay;
  const vf share = call.step().ema_weight;
  vg_flat(call, n, [&](int64_t i, int lanes) VG_LAMBDA {
    const vf param = vg_load<vf>(p + i, lanes);
    vf d = vg_fma(wd, param, factor * vg_load<vf>(g + i, lanes));
    if (m) {
      const vf buf = vg_fma(mu, vg_load<vf>(m + i, lanes), d);
      vg_store(m + i, buf, lanes);
      d = nesterov ? vg_fma(mu, buf, d) : buf;
    }
    const vf next = param - lr * d;
    vg_store(p + i, next, lanes);
    if (average) vg_average(average + i, next, share, lanes);
  });
}

// p *= 1 - lr weight_decay;  m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2;
// p -= lr bias_corr1 m / (sqrt(v bias_corr2) + eps), with the bias corrections
// of vg_step: 1 / (1 - beta^k).
// The betas are double because 1 - beta2 would lose its digits in float.
VG_NOINLINE void vg_adamw(const vg_call& call, int64_t n, float* p, const float* g, float* m, float* v, double beta1,
                          double beta2, float eps, float weight_decay, const float* clip, float* average = nullptr) {
  const vg_step& step = call.step();
  const vf factor = clip ? *clip : 1.0f, decay = (float)(1.0 - (double)step.lr * (double)weight_decay);
  const vf rest1 = (float)(1.0 - beta1), keep2 = (float)beta2, rest2 = (float)(1.0 - beta2);
  const vf corr2 = step.bias_corr2, size = step.lr * step.bias_corr1, epsilon = eps;
  const vf share = step.ema_weight;
  vg_flat(call, n, [&](int64_t i, int lanes) VG_LAMBDA {
    const vf grad = factor * vg_load<vf>(g + i, lanes);
    const vf m0 = vg_load<vf>(m + i, lanes), v0 = vg_load<vf>(v + i, lanes);
    const vf m1 = vg_fma(rest1, grad - m0, m0);
    const vf v1 = vg_fma(rest2 * grad, grad, keep2 * v0);
    vg_store(m + i, m1, lanes);
    vg_store(v + i, v1, lanes);
    const vf update = m1 / (vg_sqrt(v1 * corr2) + epsilon);
    const vf next = decay * vg_load<vf>(p + i, lanes) - size * update;
    vg_store(p + i, next, lanes);
    if (average) vg_average(average + i, next, share, lanes);
  });
}

// The factor that brings a gradient of squared norm *sumsq down to max_norm; 1
// if it is not above. A NaN norm gives 1: the NaN itself must reach the loss.
VG_NOINLINE void vg_clip_scale(const vg_call& call, const float* sumsq, float max_norm, float* out) {
  if (call.index() != 0) return;
  const float norm = vg_sqrt_scalar(*sumsq);
  *out = norm > max_norm ? max_norm / norm : 1.0f;
}

VG_END

#endif  // VITGEN_CPU_OPTIMIZER_H

#ifndef VITGEN_CPU_PATCHIFY_H
#define VITGEN_CPU_PATCHIFY_H

// Cuts images into rows of patches, so that a convolution whose kernel equals
// its stride becomes a matrix product.
#include <string.h>


VG_BEGIN

// y over (row = b*T + t, col = (c*P + u)*P + v) of image [batch,C,H,W]: patch t
// = i*(W/P) + j, pixel (c, i*P + u, j*P + v). A row is gathered in scratch, run
// by run of P pixels, so that y sees whole vectors whatever P is.
template <class Y>
VG_NOINLINE void vg_patchify(const vg_call& call, int C, int H, int W, int P, const float* image, const Y& y) {
  const int across = W / P, tokens = H / P * across;
  const int64_t cols = (int64_t)C * P * P;
  float* gathered = (float*)call.scratch();
  const vg_range mine = call.share((int64_t)call.batch() * tokens);
  for (int64_t row = mine.begin; row < mine.end; row++) {
    const int64_t b = row / tokens;
    const int t = (int)(row % tokens), i = t / across, j = t % across;
    float* to = gathered;
    for (int c = 0; c < C; c++)
      for (int u = 0; u < P; u++, to += P)
        memcpy(to, image + ((b * C + c) * H + i * P + u) * W + j * P, sizeof(float) * P);
    vg_each_vector(vg_at{row, (int32_t)b, t, 0, 0}, 0, cols,
                   [&](vg_at at) VG_LAMBDA { y(vg_load<vf>(gathered + at.col, at.n), at); });
  }
}

VG_END

#endif  // VITGEN_CPU_PATCHIFY_H

#ifndef VITGEN_CPU_POINTWISE_H
#define VITGEN_CPU_POINTWISE_H

// What no other family has taken in: a body run over every element of a
// matrix, and the transposition of two axes.

VG_BEGIN

// Columns of a unit of work: short rows go whole, one long row is divided.
constexpr int64_t kPointwiseColumns = 4096;

// Runs body(at) over rows x cols, rows of T tokens.
template <int T, class F>
VG_NOINLINE void vg_pointwise(const vg_call& call, int64_t rows, int64_t cols, const F& body) {
  const int64_t blocks = vg_ceil_div(cols, kPointwiseColumns);
  const vg_range mine = call.share(rows * blocks);
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t col = u % blocks * kPointwiseColumns;
    vg_each_vector(vg_at_row<T>(u / blocks), col, vg_min64(cols, col + kPointwiseColumns),
                   [&](vg_at at) VG_LAMBDA { body.template operator()<vf>(at); });
  }
}

// y[b,c,t] = x[b,t,c] for x [batch,T,C] in memory; y: sink over (row = b*C + c,
// sample = b, token = c, col = t). Squares of lanes x lanes, turned in registers.
template <class Y>
VG_NOINLINE void vg_transpose(const vg_call& call, int64_t batch, int64_t T, int64_t C, const float* x, const Y& y) {
  const int64_t blocks = vg_ceil_div(C, kLanes);
  const vg_range mine = call.share(batch * blocks);
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t b = u / blocks, c = u % blocks * kLanes;
    const int channels = (int)vg_min64(kLanes, C - c);
    for (int64_t t = 0; t < T; t += kLanes) {
      const int tokens = (int)vg_min64(kLanes, T - t);
      vf square[kLanes];
      for (int i = 0; i < kLanes; i++)
        square[i] = i < tokens ? vg_load<vf>(x + (b * T + t + i) * C + c, channels) : vf(0.0f);
      vg_transpose_square(square);
      for (int i = 0; i < channels; i++)
        y(square[i], vg_at{b * C + c + i, (int32_t)b, (int32_t)(c + i), (int32_t)t, tokens});
    }
  }
}

VG_END

#endif  // VITGEN_CPU_POINTWISE_H

#ifndef VITGEN_CPU_ROW_H
#define VITGEN_CPU_ROW_H

// Kernels that see a whole row at once: layer norm and its gradient, and
// cross-entropy with its gradient. A row passes through the worker's scratch,
// so sources are read once and every further pass runs in L1. Rows are at most
// kMaxRow wide.

VG_BEGIN

constexpr int64_t kMaxRow = 1 << 18;

// y = (x - mean) / sqrt(var + eps) * gamma + beta over each row, var the biased
// variance about the computed mean. x: source, y: sink over (row, col), rows of
// T tokens. gamma, beta, mean[rows] and rstd[rows] may be NULL.
template <int T, class X, class Y>
VG_NOINLINE void vg_layernorm(const vg_call& call, int64_t rows, int64_t cols, const X& x, const float* gamma,
                              const float* beta, float eps, float* mean, float* rstd, const Y& y) {
  float* row = (float*)call.scratch();
  const float inv = 1.0f / (float)cols;
  const vg_range mine = call.share(rows);
  for (int64_t r = mine.begin; r < mine.end; r++) {
    const vg_at start = vg_at_row<T>(r);
    vf sum = 0.0f, squares = 0.0f;
    vg_each_vector(start, 0, cols, [&](vg_at at) VG_LAMBDA {
      const vf v = vg_or_zero(vg_value(x, at), at.n);
      vg_store_full(row + at.col, v);
      sum += v;
    });
    const float mu = vg_sum(sum) * inv;
    vg_each_vector(start, 0, cols, [&](vg_at at) VG_LAMBDA {
      const vf d = vg_or_zero(vg_load_full(row + at.col) - vf(mu), at.n);
      vg_store_full(row + at.col, d);
      squares += d * d;
    });
    const float rs = 1.0f / vg_sqrt_scalar(vg_sum(squares) * inv + eps);
    if (mean) mean[r] = mu;
    if (rstd) rstd[r] = rs;
    vg_each_vector(start, 0, cols, [&](vg_at at) VG_LAMBDA {
      vf v = vg_load_full(row + at.col) * vf(rs);
      if (gamma) v *= vg_load<vf>(gamma + at.col, at.n);
      if (beta) v += vg_load<vf>(beta + at.col, at.n);
      y(v, at);
    });
  }
}

// Workspace of vg_layernorm_grad; kernels.LayerNormGradWorkspaceBytes bounds it.
VG_FN int64_t vg_layernorm_grad_workspace(int64_t rows, int64_t cols) { return 2 * vg_column_sum_workspace(rows, cols); }

// The gradient of vg_layernorm, with h = (x - mean) rstd and g = dy gamma:
//   dx = rstd (g - avg(g) - h avg(g h)),  dgamma = sum dy h,  dbeta = sum dy.
// dy, x: sources, dx: sink over (row, col); dgamma, dbeta: sinks over (0, col).
// Workspace: two partial rows a chunk of rows.
template <int T, class DY, class X, class DX, class G, class B>
VG_NOINLINE void vg_layernorm_grad(const vg_call& call, int64_t rows, int64_t cols, const DY& dy, const X& x,
                                   const float* mean, const float* rstd, const float* gamma, const DX& dx,
                                   const G& dgamma, const B& dbeta) {
  constexpr bool wanted = vg_wanted<G> || vg_wanted<B>;
  const int64_t width = vg_round_up(cols, 16);
  float* h = (float*)call.scratch();
  float* g = h + width;
  float* partial = (float*)call.workspace();
  const float inv = 1.0f / (float)cols;
  const vg_chunks chunks(rows);
  const vg_range mine = call.share(chunks.count);
  for (int64_t i = mine.begin; i < mine.end; i++) {
    float* pg = partial + 2 * i * width;
    float* pb = pg + width;
    const vg_range c = chunks[i];
    if (wanted) __builtin_memset(pg, 0, sizeof(float) * 2 * (size_t)width);
    for (int64_t r = c.begin; r < c.end; r++) {
      const vg_at start = vg_at_row<T>(r);
      const vf mu = mean[r], rs = rstd[r];
      vf sum_g = 0.0f, sum_gh = 0.0f;
      vg_each_vector(start, 0, cols, [&](vg_at at) VG_LAMBDA {
        const vf d = vg_or_zero(vg_value(dy, at), at.n);
        const vf hv = vg_or_zero((vg_value(x, at) - mu) * rs, at.n);
        const vf gv = gamma ? d * vg_load<vf>(gamma + at.col, at.n) : d;
        vg_store_full(h + at.col, hv);
        vg_store_full(g + at.col, gv);
        sum_g += gv;
        sum_gh += gv * hv;
        if (vg_wanted<G>) vg_store_full(pg + at.col, vg_load_full(pg + at.col) + d * hv);
        if (vg_wanted<B>) vg_store_full(pb + at.col, vg_load_full(pb + at.col) + d);
      });
      const vf avg_g = vg_sum(sum_g) * inv, avg_gh = vg_sum(sum_gh) * inv;
      vg_each_vector(start, 0, cols, [&](vg_at at) VG_LAMBDA {
        dx(rs * (vg_load_full(g + at.col) - avg_g - vg_load_full(h + at.col) * avg_gh), at);
      });
    }
  }
  if (!wanted) return;
  call.barrier();
  if (vg_wanted<G>) vg_add_partials(call, partial, chunks.count, 2 * width, cols, dgamma);
  if (vg_wanted<B>) vg_add_partials(call, partial + width, chunks.count, 2 * width, cols, dbeta);
}

// log(sum exp) of a row held in scratch, relative to its maximum, and what else
// cross-entropy needs.
struct vg_row_softmax {
  float max, sum, total;  // sum: of exp(z - max); total: of z - max
  int64_t argmax;         // lowest index of the maximum; -1 with a NaN among the values
};

VG_NOINLINE void vg_softmax_row(float* z, int64_t cols, vg_row_softmax* out) {
  vf most = -__builtin_inff(), sum = 0.0f, total = 0.0f;
  vg_each_vector(vg_at{}, 0, cols, [&](vg_at at) VG_LAMBDA {
    const vf v = vg_load_full(z + at.col);
    most = vg_max(at.n < kLanes ? vg_keep(v, at.n, -__builtin_inff()) : v, most);
  });
  out->max = vg_hmax(most);
  out->argmax = -1;
  for (int64_t i = cols - 1; i >= 0; i--)
    if (z[i] == out->max) out->argmax = i;
  vg_each_vector(vg_at{}, 0, cols, [&](vg_at at) VG_LAMBDA {
    const vf d = vg_or_zero(vg_load_full(z + at.col) - vf(out->max), at.n);
    const vf e = vg_or_zero(vg_exp(d), at.n);
    vg_store_full(z + at.col, e);
    total += d;
    sum += e;
  });
  out->sum = vg_sum(sum);
  out->total = vg_sum(total);
  if (!(out->sum >= 1.0f)) out->argmax = -1;
}

// Two classes share a row: mix is the part of the first. A second class without
// a part is not looked at.
struct vg_mixed_label {
  const int32_t* label;
  const int32_t* label2;
  const float* mix;
};

// What a row is to be: class y, or y and y2 with parts mix and rest, where `two`.
struct vg_target {
  int64_t y, y2;
  float mix, rest;
  bool two;

  VG_FN bool valid(int64_t classes) const {
    return y >= 0 && y < classes && (!two || (y2 >= 0 && y2 < classes));
  }
};
VG_FN vg_target vg_target_of(const int32_t* label, int64_t r) { return {label[r], label[r], 1.0f, 0.0f, false}; }
VG_FN vg_target vg_target_of(const vg_mixed_label& l, int64_t r) {
  const float mix = l.label[r] == l.label2[r] ? 1.0f : l.mix[r];
  return {l.label[r], l.label2[r], mix, 1.0f - mix, mix != 1.0f};
}

// Softmax cross-entropy of batch rows of logits against labels, with PyTorch's
// label smoothing (target (1-s) onehot + s/classes, onehot the mixture of two
// where a row has a vg_mixed_label):
//   loss    [batch], not averaged
//   correct [batch], 1 if the lowest index of the largest logit is the (first) label; may be NULL
//   dlogits sink over (row, col): (softmax - target) * step.inv_n; vg_none for none
// Label -1 ignores the row: loss, gradient and correct are 0. Any other label
// out of range is the caller's mistake and yields NaN, never a stray read.
template <class Z, class L, class D>
VG_NOINLINE void vg_cross_entropy(const vg_call& call, int64_t classes, const Z& logits, const L& label, float smoothing,
                                   float* loss, float* correct, const D& dlogits) {
  float* z = (float*)call.scratch();
  const float share = smoothing / (float)classes;
  const vg_range mine = call.share(call.batch());
  for (int64_t r = mine.begin; r < mine.end; r++) {
    const vg_at start = vg_at_row<1>(r);
    vg_each_vector(start, 0, classes, [&](vg_at at) VG_LAMBDA { vg_store_full(z + at.col, vg_value(logits, at)); });
    const vg_target to = vg_target_of(label, r);
    const bool ignored = to.y == -1, valid = to.valid(classes);
    float zy = valid ? z[to.y] : __builtin_nanf("");
    if (valid && to.two) zy = to.mix * zy + to.rest * z[to.y2];
    vg_row_softmax s;
    vg_softmax_row(z, classes, &s);
    const float log_sum = vg_log(vf(s.sum)).v[0];
    const float nll = log_sum - (zy - s.max), uniform = log_sum - s.total / (float)classes;
    // Without smoothing the second term must not meet an infinite logit.
    loss[r] = ignored ? 0.0f : smoothing > 0 ? (1 - smoothing) * nll + smoothing * uniform : nll;
    if (correct) correct[r] = to.y >= 0 && s.argmax == to.y ? 1.0f : 0.0f;
    const float scale = ignored ? 0.0f : valid ? call.step().inv_n : __builtin_nanf("");
    if (vg_wanted<D>)
      vg_each_vector(start, 0, classes, [&](vg_at at) VG_LAMBDA {
        const vm hit = {vg_iota() + at.col == (int32_t)to.y};
        vf target = vg_select(hit, vf((1 - smoothing) * to.mix + share), vf(share));
        if (to.two) {
          const vm hit2 = {vg_iota() + at.col == (int32_t)to.y2};
          target = vg_select(hit2, vf((1 - smoothing) * to.rest + share), target);
        }
        const vf d = (vg_load_full(z + at.col) / vf(s.sum) - target) * vf(scale);
        dlogits(ignored ? vf(0.0f) : d, at);  // not 0 * d: an ignored row may hold NaN
      });
  }
}

VG_END

#endif  // VITGEN_CPU_ROW_H

#ifndef VITGEN_CPU_VITGEN_H
#define VITGEN_CPU_VITGEN_H

// The whole CPU kernel library: what an emitted kernel file includes.

#endif  // VITGEN_CPU_VITGEN_H

