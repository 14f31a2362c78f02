// Copies and fills.
//
// What waits for what is as in CUDA: a plain copy between host and device goes
// through the default stream and the host waits for it; an asynchronous one
// reads or writes pinned memory when its turn comes; from pageable memory it
// takes a copy at once, and to pageable memory the host waits. Copies within the
// device and fills never make the host wait.
#include <string.h>

#include "entry.h"

namespace vg_driver {
namespace {

using Kind = Copy::Kind;

void check_device_range(uintptr_t p, size_t bytes, const char* side) {
  const Allocation* a = find_memory(p);
  check(a && a->kind == Allocation::Kind::device, CUDA_ERROR_INVALID_VALUE, side);
  check(on_device(p, bytes), CUDA_ERROR_INVALID_VALUE, "the range ends outside its allocation");
}

void check_host_range(uintptr_t p, size_t bytes) {
  check(p != 0, CUDA_ERROR_INVALID_VALUE, "null");
  const Allocation* a = find_memory(p);
  check(!a || a->kind != Allocation::Kind::device, CUDA_ERROR_INVALID_VALUE, "memory of the device where the host's is asked for");
  check(!a || pinned(p, bytes), CUDA_ERROR_INVALID_VALUE, "the range ends outside its pinned allocation");
}

Copy make_copy(Kind kind, uintptr_t to, uintptr_t from, size_t bytes) {
  if (kind == Kind::h2d || kind == Kind::d2d) {
    check_device_range(to, bytes, "the destination is no memory of the device");
  } else {
    check_host_range(to, bytes);
  }
  if (kind == Kind::d2h || kind == Kind::d2d) {
    check_device_range(from, bytes, "the source is no memory of the device");
  } else {
    check_host_range(from, bytes);
  }
  Copy copy{};
  copy.kind = kind;
  copy.to = to;
  copy.from = from;
  copy.bytes = bytes;
  return copy;
}

// Which kind of copy two addresses of the unified address space ask for.
Kind kind_of(uintptr_t to, uintptr_t from) {
  const Allocation *t = find_memory(to), *f = find_memory(from);
  const bool to_device = t && t->kind == Allocation::Kind::device, from_device = f && f->kind == Allocation::Kind::device;
  if (to_device) return from_device ? Kind::d2d : Kind::h2d;
  return from_device ? Kind::d2h : Kind::h2h;
}

CUresult copy_now(const std::shared_ptr<Context>& context, Kind kind, uintptr_t to, uintptr_t from, size_t bytes) {
  if (bytes == 0) return CUDA_SUCCESS;
  forbid_in_capture();
  const OpPtr op = submit(*context->legacy, make_copy(kind, to, from, bytes));
  if (kind == Kind::d2d) return CUDA_SUCCESS;
  wait_for({op});
  host_waited();
  return context->sticky;
}

CUresult copy_async(const std::shared_ptr<Context>& context, Kind kind, uintptr_t to, uintptr_t from, size_t bytes, CUstream handle) {
  const std::shared_ptr<Stream> stream = find_stream(context, handle);
  if (bytes == 0) return CUDA_SUCCESS;
  Copy copy = make_copy(kind, to, from, bytes);
  const bool pageable_from = (kind == Kind::h2d || kind == Kind::h2h) && !pinned(from, bytes);
  const bool pageable_to = (kind == Kind::d2h || kind == Kind::h2h) && !pinned(to, bytes);
  // A graph would use memory whose owner knows nothing of it.
  if (pageable_from || pageable_to) not_while_capturing(*stream);
  copy.pinned = !pageable_from && !pageable_to;
  if (pageable_from) {
    const char* bytes_from = (const char*)from;
    copy.staged = std::make_shared<std::vector<char>>(bytes_from, bytes_from + bytes);
  }
  const OpPtr op = submit(*stream, std::move(copy));
  if (pageable_to) {
    wait_for({op});
    host_waited();
  }
  return context->sticky;
}

void fill(const std::shared_ptr<Context>& context, uintptr_t to, uint32_t value, int width, size_t count, CUstream handle) {
  const std::shared_ptr<Stream> stream = find_stream(context, handle);
  if (count == 0) return;
  check(to % width == 0, CUDA_ERROR_INVALID_VALUE, "the address is not aligned to the element");
  check(count <= SIZE_MAX / width, CUDA_ERROR_INVALID_VALUE, "too many elements");
  check_device_range(to, count * width, "the destination is no memory of the device");
  submit(*stream, Fill{to, value, width, count});
}

}  // namespace
}  // namespace vg_driver

using namespace vg_driver;
using ContextPtr = std::shared_ptr<Context>;

VG_API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
  return entry(__func__, [&](const ContextPtr& c) { return copy_now(c, Copy::Kind::h2d, to, (uintptr_t)from, bytes); });
}
VG_API CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
  return entry(__func__, [&](const ContextPtr& c) { return copy_now(c, Copy::Kind::d2h, (uintptr_t)to, from, bytes); });
}
VG_API CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return entry(__func__, [&](const ContextPtr& c) { return copy_now(c, Copy::Kind::d2d, to, from, bytes); });
}
VG_API CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return entry(__func__, [&](const ContextPtr& c) { return copy_now(c, kind_of(to, from), to, from, bytes); });
}

VG_API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream s) {
  return entry(__func__, [&](const ContextPtr& c) { return copy_async(c, Copy::Kind::h2d, to, (uintptr_t)from, bytes, s); });
}
VG_API CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream s) {
  return entry(__func__, [&](const ContextPtr& c) { return copy_async(c, Copy::Kind::d2h, (uintptr_t)to, from, bytes, s); });
}
VG_API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream s) {
  return entry(__func__, [&](const ContextPtr& c) { return copy_async(c, Copy::Kind::d2d, to, from, bytes, s); });
}
VG_API CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream s) {
  return entry(__func__, [&](const ContextPtr& c) { return copy_async(c, kind_of(to, from), to, from, bytes, s); });
}

// Between contexts of one device, which is all that can be copied here.
VG_API CUresult cuMemcpyPeer(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t bytes) {
  return entry(__func__, [&](const ContextPtr& c) {
    find_context(to_context);
    find_context(from_context);
    return copy_now(c, Copy::Kind::d2d, to, from, bytes);
  });
}
VG_API CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t bytes,
                                  CUstream s) {
  return entry(__func__, [&](const ContextPtr& c) {
    find_context(to_context);
    find_context(from_context);
    return copy_async(c, Copy::Kind::d2d, to, from, bytes, s);
  });
}

VG_API CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) {
  return entry(__func__, [&](const ContextPtr& c) { fill(c, to, value, 1, count, nullptr); });
}
VG_API CUresult cuMemsetD16_v2(CUdeviceptr to, unsigned short value, size_t count) {
  return entry(__func__, [&](const ContextPtr& c) { fill(c, to, value, 2, count, nullptr); });
}
VG_API CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned value, size_t count) {
  return entry(__func__, [&](const ContextPtr& c) { fill(c, to, value, 4, count, nullptr); });
}
VG_API CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream s) {
  return entry(__func__, [&](const ContextPtr& c) { fill(c, to, value, 1, count, s); });
}
VG_API CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream s) {
  return entry(__func__, [&](const ContextPtr& c) { fill(c, to, value, 2, count, s); });
}
VG_API CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream s) {
  return entry(__func__, [&](const ContextPtr& c) { fill(c, to, value, 4, count, s); });
}
