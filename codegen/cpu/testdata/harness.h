// Runs the programs of several emitted models on given inputs and writes what
// they computed, for emit_test.go. Memory that a program must write before it
// reads is filled with NaN first.
//
//   program IN OUT WORKERS
//
// IN holds per model: 15 uint64 (bytes of the eleven regions, of the workspace and
// of counters that only CUDA has, batch, seed), then the bytes of params, image,
// label, const, half, label2 and mix.
// OUT gets per model: the gradient arena and the first `outputs` arena bytes.
#pragma once
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

namespace {

enum Region { kParams, kGrads, kState0, kState1, kArena, kImage, kLabel, kConst, kHalf, kLabel2, kMix, kRegions };

struct Ref {
  int region;  // kRegions: the offset itself is the argument
  uint64_t offset;
};

struct Model {
  const vg_launch* launches;
  int launch_count;
  const Ref* refs;
  int ref_count;
  uint64_t outputs;
};

struct Walker {
  const vg::vg_kernel* table;
  const vg_program* program;
  vg_worker worker;
  static void* run(void* self) {
    Walker* w = (Walker*)self;
    vg::vg_run(w->table, w->program, &w->worker);
    return nullptr;
  }
};

char* poisoned(uint64_t bytes) {
  char* p = (char*)aligned_alloc(64, (bytes + 127) / 64 * 64);
  memset(p, 0xff, (bytes + 127) / 64 * 64);
  return p;
}

void must_read(void* to, uint64_t bytes, FILE* f) {
  if (fread(to, 1, bytes, f) != bytes) abort();
}

void run_model(const Model& m, const vg::vg_kernel* table, int workers, FILE* in, FILE* out) {
  uint64_t head[kRegions + 4];
  must_read(head, sizeof head, in);
  char* region[kRegions];
  for (int r = 0; r < kRegions; r++) region[r] = poisoned(head[r]);
  for (int r : {kParams, kImage, kLabel, kConst, kHalf, kLabel2, kMix}) must_read(region[r], head[r], in);
  std::vector<void*> args((size_t)m.ref_count);
  for (int i = 0; i < m.ref_count; i++)
    args[(size_t)i] = m.refs[i].region == kRegions ? (void*)m.refs[i].offset : region[m.refs[i].region] + m.refs[i].offset;
  vg_step step = {};
  step.inv_n = (float)(1.0 / (double)head[kRegions + 2]);
  step.seed_lo = (uint32_t)head[kRegions + 3];
  step.seed_hi = (uint32_t)(head[kRegions + 3] >> 32);
  step.micro_step = 5;
  step.dropout_on = 1;
  vg_barrier barrier = {};
  vg_program program = {m.launches, args.data(), &step, poisoned(head[kRegions]), &barrier, nullptr,
                        m.launch_count, (int32_t)head[kRegions + 2]};
  std::vector<Walker> walkers;
  for (int i = 0; i < workers; i++) walkers.push_back({table, &program, {i, workers, poisoned(VG_SCRATCH_BYTES)}});
  std::vector<pthread_t> threads((size_t)workers);
  for (int i = 1; i < workers; i++) pthread_create(&threads[(size_t)i], nullptr, Walker::run, &walkers[(size_t)i]);
  Walker::run(&walkers[0]);
  for (int i = 1; i < workers; i++) pthread_join(threads[(size_t)i], nullptr);
  fwrite(region[kGrads], 1, head[kGrads], out);
  fwrite(region[kArena], 1, m.outputs, out);
  for (char* r : region) free(r);
  for (Walker& w : walkers) free(w.worker.scratch);
  free(program.workspace);
}

}  // namespace
