// Memory of the device and pinned memory of the host.
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <vg_sim_host.h>

#include "entry.h"

namespace vg_driver {

const Allocation* find_memory(uintptr_t p) {
  const auto& memory = driver().memory;
  auto at = memory.upper_bound(p);
  if (at == memory.begin()) return nullptr;
  const Allocation& a = (--at)->second;
  return p < a.base + a.bytes && !a.leaving ? &a : nullptr;
}

namespace {

const Allocation* holding(uintptr_t p, size_t bytes) {
  const Allocation* a = find_memory(p);
  return a && bytes <= a->base + a->bytes - p ? a : nullptr;
}

}  // namespace

bool on_device(uintptr_t p, size_t bytes) {
  const Allocation* a = holding(p, bytes);
  return a && a->kind == Allocation::Kind::device;
}

bool was_on_device(uintptr_t p, size_t bytes) {
  const auto& memory = driver().memory;
  const auto at = memory.upper_bound(p);
  if (at == memory.begin()) return false;
  const Allocation& a = std::prev(at)->second;
  return a.kind == Allocation::Kind::device && p < a.base + a.bytes && bytes <= a.base + a.bytes - p;
}

bool pinned(uintptr_t p, size_t bytes) {
  const Allocation* a = holding(p, bytes);
  return a && a->kind != Allocation::Kind::device;
}

// Gives the memory of the allocation that begins at p back.
void release(uintptr_t p) {
  const Allocation a = driver().memory.at(p);
  driver().memory.erase(p);
  if (a.kind == Allocation::Kind::device) {
    vg_sim::free((void*)a.base);
    driver().used[a.context->device] -= a.taken;
  } else if (a.kind == Allocation::Kind::pinned) {
    munmap((void*)a.base, a.taken);
  }
}

namespace {

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Whether this machine has that much memory free: simulated memory is filled
// when it is allocated, and running out of it would end more than this process.
bool host_can(size_t bytes) {
  if (bytes < size_t{64} << 20) return true;
  FILE* file = fopen("/proc/meminfo", "r");
  if (!file) return true;
  unsigned long long kib = ~0ull;
  char line[128];
  while (fgets(line, sizeof line, file)) sscanf(line, "MemAvailable: %llu", &kib);
  fclose(file);
  return kib == ~0ull || bytes / 1024 < kib / 10 * 9;
}

CUdeviceptr allocate(const std::shared_ptr<Context>& context, size_t bytes) {
  Driver& d = driver();
  check(bytes > 0, CUDA_ERROR_INVALID_VALUE, "no bytes");
  const size_t most = d.config.memory, taken = round_up(bytes, 512);
  size_t& used = d.used[context->device];
  check(bytes <= most && taken <= most - used, CUDA_ERROR_OUT_OF_MEMORY, "more than the device has left");
  check(host_can(bytes), CUDA_ERROR_OUT_OF_MEMORY, "the device would have room, but this machine has not");
  static uint64_t number = 0;
  const std::string name = "device allocation " + std::to_string(++number) + " (" + std::to_string(bytes) + " bytes)";
  void* p = vg_sim::alloc(bytes, name.c_str());
  check(p != nullptr, CUDA_ERROR_OUT_OF_MEMORY, "the host has no memory for it");
  const uintptr_t base = (uintptr_t)p;
  d.memory[base] = {Allocation::Kind::device, base, bytes, taken, context, false};
  used += taken;
  d.stats.peak = std::max(d.stats.peak, used);
  return base;
}

// The allocation that begins at p.
Allocation& allocation_at(uintptr_t p, Allocation::Kind kind, CUresult otherwise) {
  const auto at = driver().memory.find(p);
  check(at != driver().memory.end() && at->second.kind == kind && !at->second.leaving, otherwise, "not the start of such an allocation");
  return at->second;
}

// Freeing waits for everything that is under way, which may use the memory.
CUresult free_now(uintptr_t p, Allocation::Kind kind, CUresult otherwise) {
  forbid_in_capture();
  const std::shared_ptr<Context> context = allocation_at(p, kind, otherwise).context;
  wait_for_context(*context);
  host_waited();
  release(p);
  return context->sticky;
}

void* allocate_host(const std::shared_ptr<Context>& context, size_t bytes) {
  check(bytes > 0, CUDA_ERROR_INVALID_VALUE, "no bytes");
  const size_t taken = round_up(bytes, 4096);
  void* p = mmap(nullptr, taken, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check(p != MAP_FAILED, CUDA_ERROR_OUT_OF_MEMORY, "the host has no memory left");
  memset(p, 0xff, taken);  // nobody promises zeros
  driver().memory[(uintptr_t)p] = {Allocation::Kind::pinned, (uintptr_t)p, bytes, taken, context, false};
  return p;
}

}  // namespace
}  // namespace vg_driver

using namespace vg_driver;
using ContextPtr = std::shared_ptr<Context>;

VG_API CUresult cuMemAlloc_v2(CUdeviceptr* out, size_t bytes) {
  return entry(__func__, [&](const ContextPtr& context) {
    check(out != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    forbid_in_capture();
    *out = allocate(context, bytes);
  });
}

VG_API CUresult cuMemFree_v2(CUdeviceptr p) {
  return entry(__func__, [&](const ContextPtr&) {
    return p ? free_now(p, Allocation::Kind::device, CUDA_ERROR_INVALID_VALUE) : CUDA_SUCCESS;
  });
}

// The address is known at once; nothing uses it before, but the program itself.
VG_API CUresult cuMemAllocAsync(CUdeviceptr* out, size_t bytes, CUstream handle) {
  return entry(__func__, [&](const ContextPtr& context) {
    check(out != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    const auto stream = find_stream(context, handle);
    not_while_capturing(*stream);  // allocation nodes are not simulated
    *out = allocate(context, bytes);
  });
}
VG_API CUresult cuMemAllocFromPoolAsync(CUdeviceptr* out, size_t bytes, CUmemoryPool, CUstream stream) {
  return cuMemAllocAsync(out, bytes, stream);
}

VG_API CUresult cuMemFreeAsync(CUdeviceptr p, CUstream handle) {
  return entry(__func__, [&](const ContextPtr& context) {
    const auto stream = find_stream(context, handle);
    not_while_capturing(*stream);  // allocation nodes are not simulated
    allocation_at(p, Allocation::Kind::device, CUDA_ERROR_INVALID_VALUE).leaving = true;
    submit(*stream, Release{p});
  });
}

VG_API CUresult cuMemPoolTrimTo(CUmemoryPool, size_t) {
  return entry(__func__, [] {});
}
VG_API CUresult cuMemPoolSetAttribute(CUmemoryPool, int, void* value) {
  return entry(__func__, [&] { check(value != nullptr, CUDA_ERROR_INVALID_VALUE, "null"); });
}

VG_API CUresult cuMemGetInfo_v2(size_t* available, size_t* total) {
  return entry(__func__, [&](const ContextPtr& context) {
    check(available != nullptr && total != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *total = driver().config.memory;
    *available = *total - driver().used[context->device];
  });
}

VG_API CUresult cuMemGetAddressRange_v2(CUdeviceptr* base, size_t* bytes, CUdeviceptr p) {
  return entry(__func__, [&](const ContextPtr&) {
    const Allocation* a = find_memory(p);
    check(a && a->kind == Allocation::Kind::device, CUDA_ERROR_NOT_FOUND, "no memory of the device");
    if (base) *base = a->base;
    if (bytes) *bytes = a->bytes;
  });
}

VG_API CUresult cuMemHostAlloc(void** out, size_t bytes, unsigned flags) {
  return entry(__func__, [&](const ContextPtr& context) {
    check(out != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    check((flags & ~(unsigned)CU_MEMHOSTALLOC_FLAGS_MASK) == 0, CUDA_ERROR_INVALID_VALUE, "unknown flags");
    forbid_in_capture();
    *out = allocate_host(context, bytes);
  });
}
VG_API CUresult cuMemAllocHost_v2(void** out, size_t bytes) { return cuMemHostAlloc(out, bytes, 0); }

VG_API CUresult cuMemFreeHost(void* p) {
  return entry(__func__, [&](const ContextPtr&) {
    return free_now((uintptr_t)p, Allocation::Kind::pinned, CUDA_ERROR_INVALID_VALUE);
  });
}

VG_API CUresult cuMemHostRegister_v2(void* p, size_t bytes, unsigned) {
  return entry(__func__, [&](const ContextPtr& context) {
    check(p != nullptr && bytes > 0, CUDA_ERROR_INVALID_VALUE, "no bytes");
    forbid_in_capture();
    const uintptr_t base = (uintptr_t)p;
    auto& memory = driver().memory;
    const auto next = memory.lower_bound(base);
    check(!find_memory(base) && (next == memory.end() || next->first >= base + bytes),
          CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "the range holds registered memory");
    memory[base] = {Allocation::Kind::registered, base, bytes, bytes, context, false};
  });
}

VG_API CUresult cuMemHostUnregister(void* p) {
  return entry(__func__, [&](const ContextPtr&) {
    return free_now((uintptr_t)p, Allocation::Kind::registered, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
  });
}

// Kernels of the simulator reach the device's memory only.
VG_API CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr*, void*, unsigned) {
  return entry(__func__, [&](const ContextPtr&) { return CUDA_ERROR_NOT_SUPPORTED; });
}

VG_API CUresult cuPointerGetAttribute(void* data, int attribute, CUdeviceptr p) {
  return entry(__func__, [&](const ContextPtr&) {
    check(data != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    const Allocation* a = find_memory(p);
    check(a != nullptr, CUDA_ERROR_INVALID_VALUE, "memory that CUDA does not know");
    const bool device = a->kind == Allocation::Kind::device;
    switch (attribute) {
      case CU_POINTER_CONTEXT: *(CUcontext*)data = a->context->handle; return CUDA_SUCCESS;
      case CU_POINTER_MEMORY_TYPE: *(unsigned*)data = device ? CU_MEMORY_DEVICE : CU_MEMORY_HOST; return CUDA_SUCCESS;
      case CU_POINTER_DEVICE_ORDINAL: *(int*)data = a->context->device; return CUDA_SUCCESS;
      case CU_POINTER_RANGE_START_ADDR: *(CUdeviceptr*)data = a->base; return CUDA_SUCCESS;
      case CU_POINTER_RANGE_SIZE: *(size_t*)data = a->bytes; return CUDA_SUCCESS;
      case CU_POINTER_DEVICE_POINTER:
        check(device, CUDA_ERROR_INVALID_VALUE, "host memory has no address on the device");
        *(CUdeviceptr*)data = p;
        return CUDA_SUCCESS;
      case CU_POINTER_HOST_POINTER:
        check(!device, CUDA_ERROR_INVALID_VALUE, "device memory has no address on the host");
        *(void**)data = (void*)p;
        return CUDA_SUCCESS;
    }
    fail(CUDA_ERROR_INVALID_VALUE, "an attribute that is not simulated");
  });
}
