#include "threads.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

// A run follows the last one closely or not at all: the host reads a loss and
// writes a batch in between. For so long a thread waits with its eyes open;
// waking a sleeping one takes tens of microseconds.
#define SPIN_NS 100000
#define SPINS_PER_LOOK 32     // between two looks at the clock
#define STACK_BYTES (1 << 20)  // some C libraries give a thread less than kernels want

typedef struct {
  vg_threads* team;
  struct vg_worker* worker;
  pthread_t thread;
} member;

// What one thread writes and another reads while it spins has a cache line of
// its own, or two: processors fetch lines in pairs.
struct vg_threads {
  vg_entry entry;
  int count;
  struct vg_worker* first;
  const struct vg_program* program;  // of the round; NULL: end
  pthread_mutex_t lock;              // for those who sleep
  pthread_cond_t wake;
  _Alignas(128) uint32_t round;     // counts what has been published
  _Alignas(128) uint32_t sleepers;
  _Alignas(128) uint32_t done;      // threads that have finished the round
  _Alignas(128) member members[];   // of workers 1 ..
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// Waits until *word is not, or is, `value`, with eyes open, for SPIN_NS. Whether
// that came about.
static int spin(const uint32_t* word, uint32_t value, int wanted) {
  for (int64_t end = 0;;) {
    for (int i = 0; i < SPINS_PER_LOOK; i++) {
      if ((__atomic_load_n(word, __ATOMIC_ACQUIRE) == value) == wanted) return 1;
      relax();
    }
    const int64_t now = now_ns();
    if (end == 0) end = now + SPIN_NS;
    if (now >= end) return 0;
  }
}

// Publishing and going to sleep are ordered among themselves: either the
// publisher sees the sleeper, or the sleeper sees the new round.
static void publish(vg_threads* t, const struct vg_program* program) {
  t->program = program;
  __atomic_add_fetch(&t->round, 1, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&t->sleepers, __ATOMIC_SEQ_CST) == 0) return;
  pthread_mutex_lock(&t->lock);
  pthread_cond_broadcast(&t->wake);
  pthread_mutex_unlock(&t->lock);
}

static void await_round_after(vg_threads* t, uint32_t seen) {
  if (spin(&t->round, seen, 0)) return;
  pthread_mutex_lock(&t->lock);
  __atomic_add_fetch(&t->sleepers, 1, __ATOMIC_SEQ_CST);
  while (__atomic_load_n(&t->round, __ATOMIC_SEQ_CST) == seen) pthread_cond_wait(&t->wake, &t->lock);
  __atomic_sub_fetch(&t->sleepers, 1, __ATOMIC_SEQ_CST);
  pthread_mutex_unlock(&t->lock);
}

static void* thread_main(void* arg) {
  const member* m = arg;
  vg_threads* t = m->team;
  for (uint32_t round = 0;; round++) {
    await_round_after(t, round);
    if (!t->program) return NULL;
    t->entry(t->program, m->worker);
    __atomic_add_fetch(&t->done, 1, __ATOMIC_RELEASE);
  }
}

// Signals are the host's business: its threads take those that come from
// outside. A fault of the thread's own must not be blocked.
static void block_signals(sigset_t* before) {
  sigset_t all;
  sigfillset(&all);
  const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&all, faults[i]);
  pthread_sigmask(SIG_SETMASK, &all, before);
}

vg_threads* vg_threads_start(vg_entry entry, uintptr_t workers, uintptr_t stride, int count, int* error) {
  vg_threads* t;
  if ((*error = posix_memalign((void**)&t, 128, sizeof *t + (size_t)count * sizeof *t->members)) != 0) return NULL;
  *t = (vg_threads){.entry = entry, .count = 1, .first = (struct vg_worker*)workers};
  pthread_mutex_init(&t->lock, NULL);
  pthread_cond_init(&t->wake, NULL);
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, STACK_BYTES);
  sigset_t before;
  block_signals(&before);  // threads inherit the mask
  for (int i = 1; i < count; i++) {
    member* m = &t->members[i - 1];
    m->team = t;
    m->worker = (struct vg_worker*)(workers + (uintptr_t)i * stride);
    if ((*error = pthread_create(&m->thread, &attr, thread_main, m)) != 0) break;
    t->count++;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attr);
  if (*error == 0) return t;
  vg_threads_stop(t);
  return NULL;
}

void vg_threads_run(vg_threads* t, uintptr_t program) {
  const uint32_t others = (uint32_t)t->count - 1;
  if (others > 0) {
    __atomic_store_n(&t->done, 0, __ATOMIC_RELAXED);
    publish(t, (const struct vg_program*)program);
  }
  t->entry((const struct vg_program*)program, t->first);
  while (!spin(&t->done, others, 1)) sched_yield();
}

void vg_threads_stop(vg_threads* t) {
  if (!t) return;
  publish(t, NULL);
  for (int i = 1; i < t->count; i++) pthread_join(t->members[i - 1].thread, NULL);
  pthread_cond_destroy(&t->wake);
  pthread_mutex_destroy(&t->lock);
  free(t);
}
