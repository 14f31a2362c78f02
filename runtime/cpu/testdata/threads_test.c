// Runs teams of threads through rounds that follow at once, after a moment's
// work and after sleep, with a program that is freed right behind its round, as
// the host may. Built with the thread sanitizer where there is one.
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../threads.h"

#define MOST 64

struct vg_worker {
  int index, visits;
  char pad[56];
};

struct vg_program {
  int step;
  int parts[MOST];
};

static int failures;

static void expect(int ok, const char* what, int count, int round) {
  if (ok) return;
  if (failures++ < 20) printf("%d workers, round %d: %s\n", count, round, what);
}

// Plain writes: only the team's own order keeps them apart.
static void entry(const struct vg_program* p, struct vg_worker* w) {
  w->visits++;
  ((struct vg_program*)p)->parts[w->index] = p->step * (w->index + 1);
}

// Whether a signal from outside may be delivered to a worker, and whether one of
// its own faults would be held back.
static void masks(const struct vg_program* p, struct vg_worker* w) {
  sigset_t now;
  pthread_sigmask(SIG_SETMASK, NULL, &now);
  ((struct vg_program*)p)->parts[w->index] = sigismember(&now, SIGPROF) && sigismember(&now, SIGINT) && !sigismember(&now, SIGSEGV);
}

static void rest(int round) {
  const struct timespec naps[] = {{0, 0}, {0, 20000}, {0, 100000}, {0, 300000}};
  if (round % 8 >= 4) nanosleep(&naps[round % 4], NULL);
}

static void rounds(int count, int n) {
  static struct vg_worker workers[MOST];
  memset(workers, 0, sizeof workers);
  for (int i = 0; i < count; i++) workers[i].index = i;
  int error;
  vg_threads* t = vg_threads_start(entry, (uintptr_t)workers, sizeof *workers, count, &error);
  expect(t && error == 0, "the threads do not start", count, 0);
  if (!t) return;
  for (int round = 1; round <= n; round++) {
    struct vg_program* p = calloc(1, sizeof *p);
    p->step = round;
    rest(round);
    vg_threads_run(t, (uintptr_t)p);
    for (int i = 0; i < count; i++) {
      expect(p->parts[i] == round * (i + 1), "a worker has not done its part", count, round);
      expect(workers[i].visits == round, "a worker has not been there once", count, round);
    }
    free(p);
  }
  rest(n);
  vg_threads_stop(t);
}

int main(void) {
  const int counts[] = {1, 2, 3, 7, MOST};
  for (int i = 0; i < 5; i++) rounds(counts[i], counts[i] < MOST ? 1000 : 40);
  for (int i = 0; i < 50; i++) rounds(4, i % 3);
  vg_threads_stop(NULL);

  struct vg_worker workers[2] = {{.index = 0}, {.index = 1}};
  struct vg_program p = {0};
  int error;
  vg_threads* t = vg_threads_start(masks, (uintptr_t)workers, sizeof *workers, 2, &error);
  if (t) vg_threads_run(t, (uintptr_t)&p);
  vg_threads_stop(t);
  expect(p.parts[1], "its signal mask is wrong", 2, 0);
  expect(!p.parts[0], "the caller's signal mask has changed", 2, 0);
  printf("%d failures\n", failures);
  return failures > 0;
}
