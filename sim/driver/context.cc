// Contexts: created ones, and the one each device has for all who ask for it.
// Each thread has a stack of them, whose top is current.
#include <algorithm>

#include "entry.h"

namespace vg_driver {
namespace {

thread_local std::vector<CUcontext> stack;

std::shared_ptr<Context> make_context(int device, unsigned flags, bool primary) {
  auto context = std::make_shared<Context>();
  context->device = device;
  context->flags = flags;
  context->primary = primary;
  context->legacy = std::make_shared<Stream>();
  context->legacy->context = context;
  context->handle = driver().contexts.add(context);
  return context;
}

template <class Handle, class T>
void remove_all(Handles<Handle, T>& handles, const Context& context) {
  std::vector<Handle> gone;
  for (const auto& [handle, object] : handles.all()) {
    if (object->context.get() == &context) gone.push_back(handle);
  }
  for (const Handle handle : gone) handles.remove(handle);
}

// A context takes everything made in it along. What has not run yet runs first.
void destroy(const std::shared_ptr<Context>& context) {
  Driver& d = driver();
  wait_for_context(*context);
  for (const auto& capture : std::vector<std::shared_ptr<Capture>>(d.captures)) {
    if (capture->origin->context == context) end_capture(*capture);
  }
  for (const auto& [handle, module] : d.modules.all()) {
    if (module->context != context) continue;
    for (const auto& [name, function] : module->functions) d.functions.remove(function->handle);
  }
  remove_all(d.modules, *context);
  remove_all(d.streams, *context);
  remove_all(d.events, *context);
  remove_all(d.execs, *context);
  for (auto at = d.memory.begin(); at != d.memory.end();) {
    const Allocation& a = (at++)->second;
    if (a.context == context) release(a.base);
  }
  d.contexts.remove(context->handle);
  context->legacy.reset();  // which holds the context
  context->per_thread.clear();
  write_stats();
}

CUresult create(CUcontext* out, unsigned flags, CUdevice device) {
  check(out != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
  check((flags & ~(unsigned)CU_CTX_FLAGS_MASK) == 0, CUDA_ERROR_INVALID_VALUE, "unknown flags");
  check_device(device);
  *out = make_context(device, flags, false)->handle;
  stack.push_back(*out);
  return CUDA_SUCCESS;
}

}  // namespace

std::shared_ptr<Context> current_context() {
  check(!stack.empty() && stack.back() != nullptr, CUDA_ERROR_INVALID_CONTEXT, "this thread has no current context");
  return driver().contexts.get(stack.back(), CUDA_ERROR_CONTEXT_IS_DESTROYED);
}

std::shared_ptr<Context> find_context(CUcontext handle) {
  return handle ? driver().contexts.get(handle, CUDA_ERROR_INVALID_CONTEXT) : current_context();
}

}  // namespace vg_driver

using namespace vg_driver;

VG_API CUresult cuCtxCreate_v2(CUcontext* out, unsigned flags, CUdevice device) {
  return entry(__func__, [&] { return create(out, flags, device); });
}
VG_API CUresult cuCtxCreate_v3(CUcontext* out, void* affinity, int affinities, unsigned flags, CUdevice device) {
  return entry(__func__, [&] {
    check(affinity == nullptr && affinities == 0, CUDA_ERROR_NOT_SUPPORTED, "execution affinity is not simulated");
    return create(out, flags, device);
  });
}
VG_API CUresult cuCtxCreate_v4(CUcontext* out, void* params, unsigned flags, CUdevice device) {
  return entry(__func__, [&] {
    check(params == nullptr, CUDA_ERROR_NOT_SUPPORTED, "context parameters are not simulated");
    return create(out, flags, device);
  });
}

VG_API CUresult cuCtxDestroy_v2(CUcontext handle) {
  return entry(__func__, [&] {
    const auto context = driver().contexts.get(handle, CUDA_ERROR_INVALID_CONTEXT);
    check(!context->primary, CUDA_ERROR_INVALID_CONTEXT, "a primary context is released, not destroyed");
    forbid_in_capture();
    destroy(context);
    if (!stack.empty() && stack.back() == handle) stack.pop_back();
  });
}

VG_API CUresult cuCtxGetCurrent(CUcontext* out) {
  return entry(__func__, [&] {
    check(out != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *out = stack.empty() ? nullptr : stack.back();
  });
}

VG_API CUresult cuCtxSetCurrent(CUcontext handle) {
  return entry(__func__, [&] {
    if (handle) find_context(handle);
    if (!stack.empty()) stack.pop_back();
    if (handle) stack.push_back(handle);
  });
}

VG_API CUresult cuCtxPushCurrent_v2(CUcontext handle) {
  return entry(__func__, [&] {
    check(handle != nullptr, CUDA_ERROR_INVALID_CONTEXT, "null");
    find_context(handle);
    stack.push_back(handle);
  });
}

VG_API CUresult cuCtxPopCurrent_v2(CUcontext* out) {
  return entry(__func__, [&] {
    check(!stack.empty(), CUDA_ERROR_INVALID_CONTEXT, "this thread has no current context");
    if (out) *out = stack.back();
    stack.pop_back();
  });
}

VG_API CUresult cuCtxGetDevice(CUdevice* device) {
  return entry(__func__, [&] {
    check(device != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *device = current_context()->device;
  });
}

VG_API CUresult cuCtxGetFlags(unsigned* flags) {
  return entry(__func__, [&] {
    check(flags != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *flags = current_context()->flags;
  });
}

VG_API CUresult cuCtxGetApiVersion(CUcontext handle, unsigned* version) {
  return entry(__func__, [&] {
    check(version != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    find_context(handle);
    *version = 3020;
  });
}

VG_API CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  return entry(__func__, [&](const std::shared_ptr<Context>&) {
    if (least) *least = 0;
    if (greatest) *greatest = -5;
  });
}

VG_API CUresult cuCtxGetLimit(size_t* value, int limit) {
  return entry(__func__, [&](const std::shared_ptr<Context>&) {
    check(value != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    check(limit == 0, CUDA_ERROR_UNSUPPORTED_LIMIT, "only the stack size is known");
    *value = 1024;
  });
}
VG_API CUresult cuCtxSetLimit(int limit, size_t) {
  return entry(__func__, [&](const std::shared_ptr<Context>&) {
    check(limit == 0, CUDA_ERROR_UNSUPPORTED_LIMIT, "only the stack size is known");
  });
}

VG_API CUresult cuCtxSynchronize() {
  return entry(__func__, [&](const std::shared_ptr<Context>& context) {
    forbid_in_capture();
    for (const auto& capture : driver().captures) {
      if (capture->origin->context != context) continue;
      invalidate(*capture);
      fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a stream of the context is being captured");
    }
    wait_for_context(*context);
    host_waited();
    return context->sticky;
  });
}

VG_API CUresult cuDevicePrimaryCtxRetain(CUcontext* out, CUdevice device) {
  return entry(__func__, [&] {
    check(out != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    check_device(device);
    Driver& d = driver();
    if (!d.primary[device]) d.primary[device] = make_context(device, 0, true)->handle;
    d.primary_users[device]++;
    *out = d.primary[device];
  });
}

namespace vg_driver {
namespace {

void reset_primary(CUdevice device) {
  Driver& d = driver();
  if (!d.primary[device]) return;
  destroy(d.contexts.get(d.primary[device]));
  d.primary[device] = nullptr;
  d.primary_users[device] = 0;
}

}  // namespace
}  // namespace vg_driver

VG_API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  return entry(__func__, [&] {
    check_device(device);
    check(driver().primary_users[device] > 0, CUDA_ERROR_INVALID_CONTEXT, "nobody retains the primary context");
    if (--driver().primary_users[device] == 0) reset_primary(device);
  });
}

VG_API CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
  return entry(__func__, [&] {
    check_device(device);
    reset_primary(device);
  });
}

VG_API CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags) {
  return entry(__func__, [&] {
    check_device(device);
    check((flags & ~(unsigned)CU_CTX_FLAGS_MASK) == 0, CUDA_ERROR_INVALID_VALUE, "unknown flags");
    const CUcontext handle = driver().primary[device];
    if (handle) driver().contexts.get(handle)->flags = flags;
  });
}

VG_API CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
  return entry(__func__, [&] {
    check(flags != nullptr && active != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    check_device(device);
    const CUcontext handle = driver().primary[device];
    *active = handle != nullptr;
    *flags = handle ? driver().contexts.get(handle)->flags : 0;
  });
}

VG_API CUresult cuCtxEnablePeerAccess(CUcontext, unsigned) {
  return entry(__func__, [&](const std::shared_ptr<Context>&) { return CUDA_ERROR_NOT_SUPPORTED; });
}
VG_API CUresult cuCtxDisablePeerAccess(CUcontext) {
  return entry(__func__, [&](const std::shared_ptr<Context>&) { return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED; });
}
