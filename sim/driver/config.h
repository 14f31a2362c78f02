// What the environment chooses: the chip, and how the simulation behaves.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <string>

namespace vg_driver {

// What a chip answers to cuDeviceGetAttribute and how much fits on it.
struct Chip {
  const char* key;  // as in VITGEN_SIM_DEVICE
  const char* name;
  int major, minor, multiprocessors;
  size_t memory;
  int shared_per_multiprocessor, shared_optin, shared_reserved;  // bytes
  int threads_per_multiprocessor, blocks_per_multiprocessor;
  int l2_bytes, clock_khz, memory_clock_khz, memory_bus_bits;
};

struct Config {
  const Chip* chip = nullptr;  // VITGEN_SIM_DEVICE
  int devices = 1;             // VITGEN_SIM_DEVICES
  size_t memory = 0;           // VITGEN_SIM_MEMORY; of each device
  uint64_t seed = 1;           // VITGEN_SIM_SEED
  int driver_version = 13000;  // VITGEN_SIM_DRIVER
  int init_error = 0;          // VITGEN_SIM_INIT
  size_t queue = 4096;         // VITGEN_SIM_QUEUE: operations that may wait before some are run
  bool faults = true;          // VITGEN_SIM_FAULTS: check the accesses of instrumented kernels
  bool check_host = true;      // VITGEN_SIM_HOST_CHECK
  bool blocking = false;       // CUDA_LAUNCH_BLOCKING, as real drivers have it
  bool verbose = false;        // VITGEN_SIM_VERBOSE: why calls fail
  std::string stats, trace;    // VITGEN_SIM_STATS, VITGEN_SIM_TRACE: files
  std::string mistake;         // what is wrong with these variables
};

Config read_config();

}  // namespace vg_driver
