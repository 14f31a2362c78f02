// How a call fails, and the handles that programs hold.
#pragma once
#include <sys/mman.h>

#include <memory>
#include <string>
#include <unordered_map>

#include "cuda_api.h"

namespace vg_driver {

// Thrown where a call finds that it must fail; the wrapper around every entry
// point (entry.h) returns the code.
struct Failure {
  CUresult code;
  std::string why;  // for people, printed with VITGEN_SIM_VERBOSE=1
};
[[noreturn]] inline void fail(CUresult code, std::string why = "") { throw Failure{code, std::move(why)}; }
inline void check(bool ok, CUresult code, const char* why) {
  if (!ok) fail(code, why);
}

// A number that is nobody's address, given out once only: a stale handle is
// never taken for a new one. It lies in address space of our own, since Go
// keeps handles in pointer types and looks closely at what a pointer points to.
inline void* next_handle() {
  constexpr size_t space = size_t{1} << 30, step = 64;
  static char* const base = [] {
    void* p = mmap(nullptr, space, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? nullptr : static_cast<char*>(p);
  }();
  static size_t used = 0;
  check(base != nullptr && used + step < space, CUDA_ERROR_OUT_OF_MEMORY, "no handles left");
  used += step;
  return base + used;
}

// The live objects of one type.
template <class Handle, class T>
class Handles {
 public:
  Handle add(std::shared_ptr<T> object) {
    const auto handle = static_cast<Handle>(next_handle());
    live_[handle] = std::move(object);
    return handle;
  }
  bool has(Handle handle) const { return live_.count(handle) != 0; }
  std::shared_ptr<T> get(Handle handle, CUresult otherwise = CUDA_ERROR_INVALID_HANDLE) const {
    const auto found = live_.find(handle);
    check(found != live_.end(), otherwise, "no such object, or it was destroyed");
    return found->second;
  }
  void remove(Handle handle) { live_.erase(handle); }
  const std::unordered_map<Handle, std::shared_ptr<T>>& all() const { return live_; }

 private:
  std::unordered_map<Handle, std::shared_ptr<T>> live_;
};

}  // namespace vg_driver
