//go:build cgo

// The loops for any CPU, and the threads. The other
// instruction sets come from two short files that include this one.
#include "roof.h"

#include "loops.h"

#if VG_ISA == 2
#define ROOF_WORK roof_work_avx512
#elif VG_ISA == 1
#define ROOF_WORK roof_work_avx2
#else
#define ROOF_WORK roof_work_plain
#endif

namespace {
__attribute__((unused)) volatile float keep;  // results, so that no loop is optimized away
}

// One thread's part of roof_run; returns its work.
extern "C" double ROOF_WORK(int op, char* data, size_t bytes, uint64_t rounds) {
  roof_vec* p = (roof_vec*)data;
  const size_t n = bytes / sizeof(roof_vec);
  if (op == ROOF_FMA) {
    keep = roof_fma(rounds);
    return kRoofFlops * (double)rounds;
  }
  for (uint64_t r = 0; r < rounds; r++) {
    if (op == ROOF_READ) keep = roof_read(p, n);
    if (op == ROOF_WRITE) roof_write(p, n, 0.1f + (float)(r % 7));
    if (op == ROOF_COPY) roof_copy(p, p + n / 2, n / 2);
  }
  return (double)bytes * (double)rounds;
}

#if VG_ISA == 0
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#if defined(__x86_64__)
#define ROOF_WIDE 1
extern "C" double roof_work_avx2(int op, char* data, size_t bytes, uint64_t rounds);
extern "C" double roof_work_avx512(int op, char* data, size_t bytes, uint64_t rounds);
#endif

namespace {

double now() {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// Puts the calling thread on the i-th of the cores this process may use: threads
// that live for milliseconds the system often leaves on one. Where that cannot be
// asked for, they stay where they are.
void take_core(int i) {
#ifdef __linux__
  cpu_set_t allowed, one;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) == 0) return;
  i %= CPU_COUNT(&allowed);
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &allowed) || i-- > 0) continue;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
    return;
  }
#else
  (void)i;
#endif
}

struct Team {
  int isa, op, threads;
  char* data;
  size_t bytes;
  uint64_t rounds;
  int ready, failed;  // how many threads stand at the start; whether some never will
};

struct Member {
  Team* team;
  int index;
  double begin, end, work;
  pthread_t thread;
};

double work(const Team* t, char* data) {
#ifdef ROOF_WIDE
  if (t->isa == 2) return roof_work_avx512(t->op, data, t->bytes, t->rounds);
  if (t->isa == 1) return roof_work_avx2(t->op, data, t->bytes, t->rounds);
#endif
  return roof_work_plain(t->op, data, t->bytes, t->rounds);
}

// Waits for the others, works, and notes when.
void* member(void* arg) {
  Member* m = (Member*)arg;
  Team* t = m->team;
  take_core(m->index);
  __atomic_add_fetch(&t->ready, 1, __ATOMIC_ACQ_REL);
  while (__atomic_load_n(&t->ready, __ATOMIC_ACQUIRE) < t->threads) {
    if (__atomic_load_n(&t->failed, __ATOMIC_ACQUIRE)) return nullptr;
    sched_yield();
  }
  m->begin = now();
  m->work = work(t, t->data + (size_t)m->index * t->bytes);
  m->end = now();
  return nullptr;
}

}  // namespace

extern "C" roof_result roof_run(int isa, int op, int threads, uintptr_t data, size_t bytes, uint64_t rounds) {
  Team team = {isa, op, threads, (char*)data, bytes, rounds, 0, 0};
  Member* members = (Member*)calloc((size_t)threads, sizeof(Member));
  if (!members) return {0, 0, 0};
  int started = 0;
  for (; started < threads; started++) {
    Member* m = &members[started];
    m->team = &team, m->index = started;
    if (pthread_create(&m->thread, nullptr, member, m) != 0) break;
  }
  if (started < threads) __atomic_store_n(&team.failed, 1, __ATOMIC_RELEASE);
  double begin = 0, end = 0, least = 0, done = 0;
  for (int i = 0; i < started; i++) {
    const Member* m = &members[i];
    pthread_join(m->thread, nullptr);
    begin = i == 0 || m->begin < begin ? m->begin : begin;
    end = m->end > end ? m->end : end;
    least = i == 0 || m->end - m->begin < least ? m->end - m->begin : least;
    done += m->work;
  }
  free(members);
  if (team.failed) return {0, 0, 0};
  return {end - begin, least, done};
}
#endif
