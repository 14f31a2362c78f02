// What every entry point does before and after its own business.
#pragma once
#include <new>
#include <type_traits>

#include "driver.h"

namespace vg_driver {

extern thread_local bool in_host_call;  // within a function given to cuLaunchHostFunc

// Notes a call's result; returns it.
CUresult finish(const char* name, CUresult result, const std::string& why);

// Runs an entry point's body: a lambda that returns nothing or a CUresult, and
// fails by throwing Failure. One that takes a context gets the calling thread's
// current one, and is not called at all once a kernel in it has failed.
template <class Body>
CUresult entry(const char* name, Body&& body) {
  constexpr bool in_context = std::is_invocable_v<Body, const std::shared_ptr<Context>&>;
  if (in_host_call) return CUDA_ERROR_NOT_PERMITTED;
  Driver& d = driver();
  std::lock_guard<std::mutex> hold(d.lock);
  try {
    check(d.initialized, CUDA_ERROR_NOT_INITIALIZED, "cuInit was not called");
    if constexpr (in_context) {
      const std::shared_ptr<Context> context = current_context();
      if (context->sticky != CUDA_SUCCESS) fail(context->sticky, "an earlier operation failed");
      if constexpr (std::is_void_v<std::invoke_result_t<Body, const std::shared_ptr<Context>&>>) {
        body(context);
        return finish(name, CUDA_SUCCESS, "");
      } else {
        return finish(name, body(context), "");
      }
    } else {
      if constexpr (std::is_void_v<std::invoke_result_t<Body>>) {
        body();
        return finish(name, CUDA_SUCCESS, "");
      } else {
        return finish(name, body(), "");
      }
    }
  } catch (const Failure& f) {
    return finish(name, f.code, f.why);
  } catch (const std::bad_alloc&) {
    return finish(name, CUDA_ERROR_OUT_OF_MEMORY, "the host has no memory left");
  }
}

}  // namespace vg_driver
