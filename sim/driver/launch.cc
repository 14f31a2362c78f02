// Functions, their attributes, and launches.
#include <vg_sim_host.h>

#include <algorithm>

#include "entry.h"

namespace vg_driver {
namespace {

constexpr int static_limit = 48 << 10;  // bytes of dynamic shared memory without asking

int max_block(const Function& f) { return std::min(1024, vg_sim::max_threads(f.kernel)); }

// What a compiler could use at most within the launch bounds; the real number
// is in the tables that nvcc makes.
int registers(const Function& f) {
  const int threads = std::max(32, (max_block(f) + 31) / 32 * 32);
  return std::min(255, 65536 / threads / 8 * 8);
}

int get_attribute(const Function& f, int attribute) {
  const Chip& chip = *driver().config.chip;
  switch (attribute) {
    case CU_FUNC_MAX_THREADS_PER_BLOCK: return max_block(f);
    case CU_FUNC_SHARED_SIZE_BYTES:
    case CU_FUNC_CONST_SIZE_BYTES:
    case CU_FUNC_LOCAL_SIZE_BYTES:
    case CU_FUNC_CACHE_MODE_CA: return 0;
    case CU_FUNC_NUM_REGS: return registers(f);
    case CU_FUNC_PTX_VERSION: return 80;
    case CU_FUNC_BINARY_VERSION: return 10 * chip.major + chip.minor;
    case CU_FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES: return f.max_dynamic_shared;
    case CU_FUNC_PREFERRED_SHARED_MEMORY_CARVEOUT: return f.carveout;
  }
  fail(CUDA_ERROR_INVALID_VALUE, "no such attribute");
}

void set_attribute(Function& f, int attribute, int value) {
  switch (attribute) {
    case CU_FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      check(value >= 0 && value <= driver().config.chip->shared_optin, CUDA_ERROR_INVALID_VALUE,
            "more shared memory than a block of this device can have");
      f.max_dynamic_shared = value;
      return;
    case CU_FUNC_PREFERRED_SHARED_MEMORY_CARVEOUT:
      check(value >= -1 && value <= 100, CUDA_ERROR_INVALID_VALUE, "not a percentage");
      f.carveout = value;
      return;
  }
  fail(CUDA_ERROR_INVALID_VALUE, "an attribute that cannot be set");
}

// Blocks that fit on a multiprocessor, by threads and shared memory.
int occupancy(const Function& f, int block, size_t shared) {
  const Chip& chip = *driver().config.chip;
  check(block > 0, CUDA_ERROR_INVALID_VALUE, "no threads");
  if (block > max_block(f) || shared > (size_t)std::max(static_limit, f.max_dynamic_shared)) return 0;
  const int threads = (block + 31) / 32 * 32;
  const int bytes = (int)((shared + chip.shared_reserved + 127) / 128 * 128);
  int blocks = std::min(chip.blocks_per_multiprocessor, chip.threads_per_multiprocessor / threads);
  blocks = std::min(blocks, 65536 / (registers(f) * threads));
  return bytes ? std::min(blocks, chip.shared_per_multiprocessor / bytes) : blocks;
}

CUresult launch(const std::shared_ptr<Context>& context, CUfunction f, Dim grid, Dim block, unsigned shared, CUstream handle,
                void** params, void** extra) {
  const std::shared_ptr<Stream> stream = find_stream(context, handle);
  submit(*stream, make_launch(f, grid, block, shared, params, extra));
  return context->sticky;
}

}  // namespace

// The arguments are read now, as the caller may change them afterwards.
Launch make_launch(CUfunction handle, Dim grid, Dim block, unsigned shared, void** params, void** extra) {
  const auto f = driver().functions.get(handle);
  check(grid.x > 0 && grid.x < 1u << 31 && block.x > 0, CUDA_ERROR_INVALID_VALUE, "an empty or too large grid or block");
  check(grid.y == 1 && grid.z == 1 && block.y == 1 && block.z == 1, CUDA_ERROR_INVALID_VALUE, "grids and blocks have one dimension here");
  check(block.x <= (unsigned)max_block(*f), CUDA_ERROR_INVALID_VALUE, "more threads than the kernel's launch bound");
  check(shared <= (unsigned)f->max_dynamic_shared, CUDA_ERROR_INVALID_VALUE,
        "more dynamic shared memory than CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES allows");
  check(extra == nullptr, CUDA_ERROR_NOT_SUPPORTED, "arguments are passed by kernelParams here");
  const int count = vg_sim::param_count(f->kernel);
  check(count == 0 || params != nullptr, CUDA_ERROR_INVALID_VALUE, "no arguments");
  Launch launch{f, grid.x, block.x, shared, {}};
  for (int i = 0; i < count; i++) {
    check(params[i] != nullptr, CUDA_ERROR_INVALID_VALUE, "a missing argument");
    launch.args.push_back(*(const uint64_t*)params[i]);
  }
  return launch;
}

}  // namespace vg_driver

using namespace vg_driver;
using ContextPtr = std::shared_ptr<Context>;

VG_API CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                               unsigned shared, CUstream stream, void** params, void** extra) {
  return entry(__func__, [&](const ContextPtr& context) {
    return launch(context, f, {gx, gy, gz}, {bx, by, bz}, shared, stream, params, extra);
  });
}

VG_API CUresult cuLaunchKernelEx(const CUlaunchConfig* c, CUfunction f, void** params, void** extra) {
  return entry(__func__, [&](const ContextPtr& context) {
    check(c != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    check(c->numAttrs == 0, CUDA_ERROR_NOT_SUPPORTED, "launch attributes are not simulated");
    return launch(context, f, {c->gridDimX, c->gridDimY, c->gridDimZ}, {c->blockDimX, c->blockDimY, c->blockDimZ},
                  c->sharedMemBytes, c->hStream, params, extra);
  });
}

VG_API CUresult cuFuncGetAttribute(int* value, int attribute, CUfunction f) {
  return entry(__func__, [&](const ContextPtr&) {
    check(value != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *value = get_attribute(*driver().functions.get(f), attribute);
  });
}

VG_API CUresult cuFuncSetAttribute(CUfunction f, int attribute, int value) {
  return entry(__func__, [&](const ContextPtr&) { set_attribute(*driver().functions.get(f), attribute, value); });
}

VG_API CUresult cuFuncSetCacheConfig(CUfunction f, int) {
  return entry(__func__, [&](const ContextPtr&) { driver().functions.get(f); });
}

VG_API CUresult cuFuncGetName(const char** name, CUfunction f) {
  return entry(__func__, [&](const ContextPtr&) {
    check(name != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *name = driver().functions.get(f)->name.c_str();
  });
}

VG_API CUresult cuFuncGetModule(CUmodule* module, CUfunction f) {
  return entry(__func__, [&](const ContextPtr&) {
    check(module != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *module = driver().functions.get(f)->module;
  });
}

VG_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction f, int block, size_t shared) {
  return entry(__func__, [&](const ContextPtr&) {
    check(blocks != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *blocks = occupancy(*driver().functions.get(f), block, shared);
  });
}
VG_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, CUfunction f, int block, size_t shared, unsigned) {
  return cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, f, block, shared);
}
