// Runs probes on the kernel simulator.
#pragma once
#include <vg_sim_host.h>

struct runner {
  uint32_t *in, *out;
  char* scratch;
  vg_sim::options options;

  explicit runner(const uint32_t* host_in) {
    in = (uint32_t*)vg_sim::alloc(probe_in_words * 4, "in");
    out = (uint32_t*)vg_sim::alloc(probe_out_words * 4, "out");
    scratch = (char*)vg_sim::alloc(probe_scratch_bytes, "scratch");
    memcpy(in, host_in, probe_in_words * 4);
    vg_sim::wrote(in, probe_in_words * 4);
    if (const char* seed = getenv("VITGEN_SIM_SEED")) options.seed = strtoull(seed, nullptr, 0);
  }
  const char* device() const { return "the kernel simulator"; }

  void operator()(const probe& p, uint32_t* host_out) {
    memset(out, 0, probe_out_words * 4);
    vg_sim::wrote(out, probe_out_words * 4);
    memset(scratch, 0, probe_scratch_bytes);
    vg_sim::wrote(scratch, probe_scratch_bytes);
    const vg_sim::kernel* kernel = vg_sim::find(p.name);
    if (!kernel) die(p.name, "is not exported");
    uint64_t words = probe_in_words;
    const std::string fault = vg_sim::run(kernel, p.grid, p.block, p.shared, options, (const uint32_t*)in, out, scratch, words);
    if (!fault.empty()) die(p.name, fault.c_str());
    memcpy(host_out, out, probe_out_words * 4);
  }
};
