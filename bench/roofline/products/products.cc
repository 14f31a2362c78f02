// Times the library's matrix products alone: plain matrices in, a plain store out.
//
//   products THREADS ROUNDS POOL_BYTES < shapes
//
// A shape is a line "KIND M N K WORKSPACE_BYTES", KIND one of nt, nn, tn and packed:
// nt with a weight that is packed already. For each round and each shape one
// line comes out: the shape's number, what FMAs in registers reached just before it
// (GFLOP/s, all threads), and the seconds of one product.
//
// Operands lie in a pool of random numbers that all products walk through in turn,
// and results in a second one, so that a product finds in the core's own cache no
// more of them than in a step.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <vector>

#include "codegen/kernels/cpu/gemm_nt.h"
#include "codegen/kernels/cpu/gemm_tn.h"
#include "runtime/cpu/roof/loops.h"
#include "runtime/cpu/threads.h"

namespace vg { inline namespace VG_ISA_NAME { namespace {

enum { kMeet, kPeak, kNT, kNN, kTN, kPacked };

struct Shape {
  int kind;
  int64_t m, n, k;
  size_t workspace;
  int64_t a() const { return m * k; }
  int64_t b() const { return kind == kPacked ? vg_gemm_shape{m, n, k}.b_size() : n * k; }
  int64_t c() const { return m * n; }
};

// Arguments of a launch.
struct Product {
  Shape shape;
  const float *a, *b;
  float* c;
};

uint64_t peak_rounds = 1 << 10;
volatile float keep;

void meet(const vg_call&) {}
void peak(const vg_call&) { keep = roof_fma(peak_rounds); }
void nt(const vg_call& call) {
  const Product& p = *call.arg<Product>(0);
  const Shape& s = p.shape;
  vg_gemm_nt<1>(call, s.m, s.n, s.k, vg_matrix{p.a, s.k}, p.b, s.k, vg_store_matrix{p.c, s.n});
}
void nn(const vg_call& call) {
  const Product& p = *call.arg<Product>(0);
  const Shape& s = p.shape;
  vg_gemm_nn<1>(call, s.m, s.n, s.k, vg_matrix{p.a, s.k}, p.b, s.n, vg_store_matrix{p.c, s.n});
}
void tn(const vg_call& call) {
  const Product& p = *call.arg<Product>(0);
  const Shape& s = p.shape;
  vg_gemm_tn<1>(call, s.m, s.n, s.k, vg_matrix{p.a, s.m}, vg_matrix{p.b, s.n}, vg_store_matrix{p.c, s.n}, vg_none{});
}
void packed(const vg_call& call) {
  const Product& p = *call.arg<Product>(0);
  const Shape& s = p.shape;
  vg_gemm_packed<1>(call, s.m, s.n, s.k, vg_matrix{p.a, s.k}, p.b, vg_store_matrix{p.c, s.n});
}
constexpr vg_kernel table[] = {meet, peak, nt, nn, tn, packed};

int kernel_of(const char* kind) {
  const char* kinds[] = {"nt", "nn", "tn", "packed"};
  for (int i = 0; i < 4; i++)
    if (!strcmp(kind, kinds[i])) return kNT + i;
  return kMeet;
}

void walk(const vg_program* program, vg_worker* worker) { vg_run(table, program, worker); }

[[noreturn]] void fail(const char* what) {
  fprintf(stderr, "products: %s\n", what);
  exit(1);
}

// Zeroed memory in huge pages where the system gives them, as a trainer's.
char* allocate(size_t bytes) {
  constexpr size_t huge = 2 << 20;
  bytes = (bytes + huge - 1) / huge * huge;
  char* p = (char*)mmap(nullptr, bytes + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) fail("not enough memory");
  p += (huge - (uintptr_t)p % huge) % huge;
  madvise(p, bytes, MADV_HUGEPAGE);
  memset(p, 0, bytes);
  return p;
}

// A trainer's team, which runs lists of launches.
struct Team {
  int count, error;
  vg_step step = {};
  vg_barrier* barrier = (vg_barrier*)allocate(sizeof(vg_barrier));
  char *workspace, *scratch;
  vg_worker* workers = (vg_worker*)allocate((size_t)count * kStride);
  vg_threads* threads;

  static constexpr size_t kStride = 64;  // a cache line for each worker

  Team(int threads, size_t workspace_bytes)
      : count(threads), workspace(allocate(workspace_bytes)), scratch(allocate((size_t)threads * VG_SCRATCH_BYTES)) {
    for (int i = 0; i < count; i++)
      *(vg_worker*)((char*)workers + (size_t)i * kStride) = {i, count, scratch + (size_t)i * VG_SCRATCH_BYTES};
    this->threads = vg_threads_start(walk, (uintptr_t)workers, kStride, count, &error);
    if (!this->threads) fail("cannot start a thread");
  }
  ~Team() { vg_threads_stop(threads); }

  // Runs kernels[i] on products[i] one after the other; nanoseconds of each.
  std::vector<uint64_t> run(const std::vector<uint32_t>& kernels, std::vector<Product>& products) {
    std::vector<vg_launch> launches;
    std::vector<void*> args;
    for (size_t i = 0; i < kernels.size(); i++) {
      launches.push_back({kernels[i], 1, i});
      args.push_back(&products[i]);
    }
    std::vector<uint64_t> ns(kernels.size());
    const vg_program program = {launches.data(), args.data(), &step, workspace, barrier, ns.data(), (int32_t)ns.size(), 1};
    vg_threads_run(threads, (uintptr_t)&program);
    return ns;
  }
};

// Memory that is handed out piece by piece, again from the start at its end.
struct Pool {
  float* data;
  int64_t size, next = 0;

  explicit Pool(int64_t elements) : data((float*)allocate((size_t)elements * sizeof(float))), size(elements) {}
  void randomize() {
    uint64_t s = 1;
    for (int64_t i = 0; i < size; i++) {
      s = s * 6364136223846793005u + 1442695040888963407u;
      data[i] = (float)(int32_t)(s >> 32) * 0x1p-31f;
    }
  }
  float* take(int64_t elements) {
    if (next + elements > size) next = 0;
    float* p = data + next;
    next += vg_round_up(elements, 16);
    return p;
  }
};

// The peak, and a shape's product so often that the clock can tell.
struct Reading {
  double peak_gflops, seconds;
};

Reading measure(Team& team, const Shape& s, int64_t launches, Pool& in, Pool& out) {
  std::vector<uint32_t> kernels = {kMeet, kPeak};
  std::vector<Product> products(2);
  for (int64_t i = 0; i < launches; i++) {
    kernels.push_back((uint32_t)s.kind);
    const float* a = in.take(s.a());
    products.push_back({s, a, in.take(s.b()), out.take(s.c())});
  }
  const std::vector<uint64_t> ns = team.run(kernels, products);
  double total = 0;
  for (size_t i = 2; i < ns.size(); i++) total += (double)ns[i];
  return {team.count * (double)peak_rounds * kRoofFlops / (double)ns[1], total / (double)launches * 1e-9};
}

std::vector<Shape> read_shapes() {
  std::vector<Shape> shapes;
  char kind[8];
  long m, n, k, workspace;
  while (scanf("%7s %ld %ld %ld %ld", kind, &m, &n, &k, &workspace) == 5) {
    const int kernel = kernel_of(kind);
    if (kernel == kMeet || m < 1 || n < 1 || k < 1 || workspace < 0) fail("a shape makes no sense");
    shapes.push_back({kernel, m, n, k, (size_t)workspace});
  }
  if (shapes.empty() || !feof(stdin)) fail("cannot read the shapes");
  return shapes;
}

constexpr double kPeakSeconds = 2e-3;    // of one measurement of the peak
constexpr double kLeastSeconds = 1e-3;   // of one measurement of a product
constexpr int64_t kMostLaunches = 256;

int measure_all(int threads, int rounds, int64_t pool_elements) {
  const std::vector<Shape> shapes = read_shapes();
  size_t workspace = 0;
  int64_t operands = pool_elements, results = pool_elements / 2;
  for (const Shape& s : shapes) {
    workspace = workspace > s.workspace ? workspace : s.workspace;
    operands = vg_max64(operands, s.a() + s.b() + 32);
    results = vg_max64(results, s.c());
  }
  Team team(threads, workspace);
  Pool in(operands), out(results);
  in.randomize();
  // A round to warm up, which also says how much work a measurement needs.
  std::vector<int64_t> launches;
  for (const Shape& s : shapes) {
    Reading r = measure(team, s, 1, in, out);
    while (team.count * (double)peak_rounds * kRoofFlops / r.peak_gflops * 1e-9 < kPeakSeconds) {
      peak_rounds *= 2;
      r = measure(team, s, 1, in, out);
    }
    launches.push_back(vg_max64(1, vg_min64(kMostLaunches, (int64_t)(kLeastSeconds / r.seconds) + 1)));
  }
  for (int round = 0; round < rounds; round++)
    for (size_t i = 0; i < shapes.size(); i++) {
      const Reading r = measure(team, shapes[i], launches[i], in, out);
      printf("%zu %.6g %.9g\n", i, r.peak_gflops, r.seconds);
    }
  return 0;
}

} } }  // namespace vg

int main(int argc, char** argv) {
  const int threads = argc == 4 ? atoi(argv[1]) : 0, rounds = argc == 4 ? atoi(argv[2]) : 0;
  const long pool = argc == 4 ? atol(argv[3]) : 0;
  if (threads < 1 || threads > 1024 || rounds < 1 || pool < 0) {
    fprintf(stderr, "usage: products THREADS ROUNDS POOL_BYTES < shapes\n");
    return 2;
  }
  return vg::measure_all(threads, rounds, pool / (long)sizeof(float));
}
