// cuInit, the devices, and what they say about themselves.
#include <stdio.h>
#include <string.h>

#include "entry.h"

namespace vg_driver {

// Never destroyed: the process may still call while it exits.
Driver& driver() {
  static Driver* const d = [] {
    auto* made = new Driver;
    made->config = read_config();
    made->random.seed(made->config.seed);
    return made;
  }();
  return *d;
}

void check_device(CUdevice device) {
  check(device >= 0 && device < driver().config.devices, CUDA_ERROR_INVALID_DEVICE, "no such device");
}

namespace {

// One row of cuDeviceGetAttribute.
struct Attribute {
  int number;
  int64_t value;
};

int64_t attribute(int number, CUdevice device) {
  const Chip& c = *driver().config.chip;
  const Attribute rows[] = {
      {1, 1024},                             // threads per block
      {2, 1024}, {3, 1024}, {4, 64},         // block
      {5, 2147483647}, {6, 65535}, {7, 65535},  // grid
      {8, 48 << 10},                         // shared memory per block
      {9, 64 << 10},                         // constant memory
      {10, 32},                              // warp
      {11, 2147483647},                      // pitch
      {12, 65536},                           // registers per block
      {13, c.clock_khz},
      {14, 512},                             // texture alignment
      {15, 1},                               // copies overlap
      {16, c.multiprocessors},
      {17, 0}, {18, 0},                      // no run time limit; not integrated
      {19, 0},                               // kernels do not reach the host's memory
      {20, 0},                               // compute mode: default
      {21, 131072}, {22, 131072}, {23, 65536}, {24, 16384}, {25, 16384}, {26, 16384},  // textures
      {27, 32768}, {28, 32768}, {29, 2048}, {30, 512},
      {31, 1},                               // concurrent kernels
      {32, 1},                               // ECC
      {33, 1 + device}, {34, 0},             // PCI bus, device
      {35, 0},
      {36, c.memory_clock_khz}, {37, c.memory_bus_bits}, {38, c.l2_bytes},
      {39, c.threads_per_multiprocessor},
      {40, 3},                               // copy engines
      {41, 1},                               // unified addressing
      {42, 32768}, {43, 2048},
      {50, 0},                               // PCI domain
      {75, c.major}, {76, c.minor},
      {78, 1}, {79, 1}, {80, 1},             // stream priorities, L1 caches
      {81, c.shared_per_multiprocessor},
      {82, 65536},                           // registers per multiprocessor
      {83, 0},                               // no managed memory
      {87, 2}, {90, 1},
      {95, 0},                               // no cooperative launch
      {97, c.shared_optin},
      {99, 1},                               // host memory can be registered
      {106, c.blocks_per_multiprocessor},
      {111, c.shared_reserved},
      {115, 1},                              // memory pools
      {120, 0}, {127, 0},                    // no clusters, no tensor maps: the simulator has neither
  };
  for (const Attribute& row : rows) {
    if (row.number == number) return row.value;
  }
  check(number > 0 && number < 148, CUDA_ERROR_INVALID_VALUE, "no such attribute");
  return 0;
}

// Copies a text into a buffer as far as it fits.
void give(char* to, int size, const std::string& text) {
  check(to != nullptr && size > 0, CUDA_ERROR_INVALID_VALUE, "no buffer");
  snprintf(to, (size_t)size, "%s", text.c_str());
}

}  // namespace
}  // namespace vg_driver

using namespace vg_driver;

VG_API CUresult cuInit(unsigned flags) {
  Driver& d = driver();
  std::lock_guard<std::mutex> hold(d.lock);
  if (!d.config.mistake.empty()) {
    fprintf(stderr, "vitgen simulated device: %s\n", d.config.mistake.c_str());
    return finish(__func__, CUDA_ERROR_UNKNOWN, d.config.mistake);
  }
  if (d.config.init_error) return finish(__func__, (CUresult)d.config.init_error, "VITGEN_SIM_INIT");
  if (flags != 0) return finish(__func__, CUDA_ERROR_INVALID_VALUE, "flags must be 0");
  d.initialized = true;
  d.primary.resize(d.config.devices);
  d.primary_users.resize(d.config.devices);
  d.pools.resize(d.config.devices);
  d.used.resize(d.config.devices);
  return finish(__func__, CUDA_SUCCESS, "");
}

// Works before cuInit, as it does with real drivers.
VG_API CUresult cuDriverGetVersion(int* version) {
  if (!version) return CUDA_ERROR_INVALID_VALUE;
  *version = driver().config.driver_version;
  return CUDA_SUCCESS;
}

VG_API CUresult cuDeviceGetCount(int* count) {
  return entry(__func__, [&] {
    check(count != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *count = driver().config.devices;
  });
}

VG_API CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  return entry(__func__, [&] {
    check(device != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    check_device(ordinal);
    *device = ordinal;
  });
}

VG_API CUresult cuDeviceGetName(char* name, int size, CUdevice device) {
  return entry(__func__, [&] {
    check_device(device);
    give(name, size, std::string(driver().config.chip->name) + " (simulated)");
  });
}

VG_API CUresult cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
  return entry(__func__, [&] {
    check(uuid != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    check_device(device);
    memset(uuid->bytes, 0, sizeof uuid->bytes);
    memcpy(uuid->bytes, "vitgen-sim", 10);
    uuid->bytes[15] = (char)device;
  });
}
VG_API CUresult cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) { return cuDeviceGetUuid(uuid, device); }

VG_API CUresult cuDeviceGetPCIBusId(char* id, int size, CUdevice device) {
  return entry(__func__, [&] {
    check_device(device);
    char text[32];
    snprintf(text, sizeof text, "0000:%02X:00.0", 1 + device);
    give(id, size, text);
  });
}

VG_API CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  return entry(__func__, [&] {
    check(bytes != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    check_device(device);
    *bytes = driver().config.memory;
  });
}

VG_API CUresult cuDeviceGetAttribute(int* value, int number, CUdevice device) {
  return entry(__func__, [&] {
    check(value != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    check_device(device);
    *value = (int)attribute(number, device);
  });
}

VG_API CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice device) {
  return entry(__func__, [&] {
    check(major != nullptr && minor != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    check_device(device);
    *major = driver().config.chip->major;
    *minor = driver().config.chip->minor;
  });
}

// The devices share nothing.
VG_API CUresult cuDeviceCanAccessPeer(int* can, CUdevice device, CUdevice peer) {
  return entry(__func__, [&] {
    check(can != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    check_device(device);
    check_device(peer);
    *can = 0;
  });
}

VG_API CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice device) {
  return entry(__func__, [&] {
    check(pool != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    check_device(device);
    CUmemoryPool& own = driver().pools[device];
    if (!own) own = static_cast<CUmemoryPool>(next_handle());
    *pool = own;
  });
}
VG_API CUresult cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice device) { return cuDeviceGetDefaultMemPool(pool, device); }
