// The environment, and the chips it can choose from.
#include "config.h"

#include <stdlib.h>
#include <string.h>

namespace vg_driver {
namespace {

constexpr int KiB = 1 << 10, MiB = 1 << 20;

// Numbers as the chips report them.
const Chip chips[] = {
    {"h100", "NVIDIA H100 80GB HBM3", 9, 0, 132, 84929347584u, 228 * KiB, 227 * KiB, KiB, 2048, 32, 50 * MiB, 1980000, 2619000, 5120},
    {"h200", "NVIDIA H200", 9, 0, 132, 150119710720u, 228 * KiB, 227 * KiB, KiB, 2048, 32, 60 * MiB, 1980000, 3201000, 6144},
    {"b200", "NVIDIA B200", 10, 0, 148, 191503433728u, 228 * KiB, 227 * KiB, KiB, 2048, 32, 126 * MiB, 1965000, 3996000, 8192},
    {"a100", "NVIDIA A100-SXM4-80GB", 8, 0, 108, 84974239744u, 164 * KiB, 163 * KiB, KiB, 2048, 32, 40 * MiB, 1410000, 1593000, 5120},
    {"rtx4090", "NVIDIA GeForce RTX 4090", 8, 9, 128, 25393692672u, 100 * KiB, 99 * KiB, KiB, 1536, 24, 72 * MiB, 2520000, 10501000, 384},
    {"v100", "Tesla V100-SXM2-16GB", 7, 0, 80, 16935682048u, 96 * KiB, 96 * KiB, 0, 2048, 32, 6 * MiB, 1530000, 877000, 4096},
};

const char* env(const char* name) {
  const char* v = getenv(name);
  return v && *v ? v : nullptr;
}

// A whole number, with K, M or G behind it for multiples of 1024.
uint64_t number(Config& c, const char* name, uint64_t otherwise) {
  const char* text = env(name);
  if (!text) return otherwise;
  char* end = nullptr;
  uint64_t x = strtoull(text, &end, 0);
  const char* units = "KMG";
  if (const char* unit = *end ? strchr(units, *end) : nullptr) {
    x <<= 10 * (unit - units + 1);
    end++;
  }
  if (*end || *text == '-') c.mistake = std::string(name) + "=" + text + " is not a number";
  return x;
}

const Chip* find_chip(Config& c) {
  const char* key = env("VITGEN_SIM_DEVICE");
  if (!key) return &chips[0];
  std::string known;
  for (const Chip& chip : chips) {
    if (!strcmp(chip.key, key)) return &chip;
    known += std::string(known.empty() ? "" : ", ") + chip.key;
  }
  c.mistake = std::string("VITGEN_SIM_DEVICE=") + key + " is unknown; there are " + known;
  return &chips[0];
}

}  // namespace

Config read_config() {
  Config c;
  c.chip = find_chip(c);
  c.devices = (int)number(c, "VITGEN_SIM_DEVICES", 1);
  c.memory = number(c, "VITGEN_SIM_MEMORY", c.chip->memory);
  c.seed = number(c, "VITGEN_SIM_SEED", 1);
  c.driver_version = (int)number(c, "VITGEN_SIM_DRIVER", 13000);
  c.init_error = (int)number(c, "VITGEN_SIM_INIT", 0);
  c.queue = number(c, "VITGEN_SIM_QUEUE", 4096);
  c.faults = number(c, "VITGEN_SIM_FAULTS", 1) != 0;
  c.check_host = number(c, "VITGEN_SIM_HOST_CHECK", 1) != 0;
  c.blocking = number(c, "CUDA_LAUNCH_BLOCKING", 0) != 0;
  c.verbose = number(c, "VITGEN_SIM_VERBOSE", 0) != 0;
  if (const char* file = env("VITGEN_SIM_STATS")) c.stats = file;
  if (const char* file = env("VITGEN_SIM_TRACE")) c.trace = file;
  return c;
}

}  // namespace vg_driver
