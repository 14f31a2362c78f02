// Runs the programs of several emitted models in the kernel simulator and
// writes what they computed, for emit_test.go. Memory that a program must write
// before it reads is poisoned.
//
//   program IN OUT SEED
//
// IN holds per model: 15 uint64 (bytes of the eleven regions, of the workspace and
// of the counters, batch, seed), then the bytes of params, image, label, const,
// half, label2 and mix. OUT gets per model: the gradient arena and the first
// `outputs` arena bytes.
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vg_sim_host.h>

#include <vector>

namespace {

enum Region { kParams, kGrads, kState0, kState1, kArena, kImage, kLabel, kConst, kHalf, kLabel2, kMix, kRegions };

struct Ref {
  int region;  // kRegions: the offset itself is the argument
  uint64_t offset;
};

struct Launch {
  const char* kernel;
  unsigned grid, block, shared;
  int first_arg, arg_count;
};

struct Model {
  const char* name;
  const Launch* launches;
  int launch_count;
  const Ref* refs;
  uint64_t outputs;
};

void must_read(void* to, uint64_t bytes, FILE* f) {
  if (fread(to, 1, bytes, f) != bytes) abort();
  vg_sim::wrote(to, bytes);
}

void run_model(const Model& m, uint64_t schedule, FILE* in, FILE* out) {
  static const char* names[] = {"params", "grads", "state0", "state1", "arena", "image", "label", "const", "half", "label2", "mix"};
  uint64_t head[kRegions + 4];
  if (fread(head, sizeof head, 1, in) != 1) abort();
  char* region[kRegions];
  for (int r = 0; r < kRegions; r++) region[r] = (char*)vg_sim::alloc(head[r] ? head[r] : 4, names[r]);
  for (int r : {kParams, kImage, kLabel, kConst, kHalf, kLabel2, kMix}) must_read(region[r], head[r], in);
  char* workspace = (char*)vg_sim::alloc(head[kRegions] + 4, "workspace");
  const uint64_t counter_bytes = head[kRegions + 1] + 4;
  char* counters = (char*)vg_sim::alloc(counter_bytes, "counters");
  memset(counters, 0, counter_bytes);
  vg_sim::wrote(counters, counter_bytes);
  vg_state* state = (vg_state*)vg_sim::alloc(sizeof(vg_state), "state");
  *state = {};
  state->batch = (int32_t)head[kRegions + 2];
  state->step.inv_n = (float)(1.0 / (double)head[kRegions + 2]);
  state->step.seed_lo = (uint32_t)head[kRegions + 3];
  state->step.seed_hi = (uint32_t)(head[kRegions + 3] >> 32);
  state->step.micro_step = 5;
  state->step.dropout_on = 1;
  vg_sim::wrote(state, sizeof *state);

  vg_sim::options options;
  options.seed = schedule;
  for (int i = 0; i < m.launch_count; i++) {
    const Launch& l = m.launches[i];
    std::vector<uint64_t> args = {(uint64_t)state, (uint64_t)workspace, (uint64_t)counters};
    for (int a = 0; a < l.arg_count; a++) {
      const Ref& r = m.refs[l.first_arg + a];
      args.push_back(r.region == kRegions ? r.offset : (uint64_t)region[r.region] + r.offset);
    }
    std::vector<void*> params;
    for (uint64_t& a : args) params.push_back(&a);
    const std::string fault = vg_sim::launch(vg_sim::find(l.kernel), l.grid, l.block, l.shared, params.data(), options);
    if (!fault.empty()) {
      fprintf(stderr, "%s: %s\n", m.name, fault.c_str());
      exit(1);
    }
  }
  fwrite(region[kGrads], 1, head[kGrads], out);
  fwrite(region[kArena], 1, m.outputs, out);
  for (char* r : region) vg_sim::free(r);
  vg_sim::free(workspace);
  vg_sim::free(counters);
  vg_sim::free(state);
}

}  // namespace
