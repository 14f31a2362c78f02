// What an operation does when its time has come.
#include <string.h>
#include <time.h>
#include <vg_sim_host.h>

#include "driver.h"

namespace vg_driver {

thread_local bool in_host_call = false;

namespace {

double now_ms() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

bool overlap(uintptr_t a, size_t an, uintptr_t b, size_t bn) { return a < b + bn && b < a + an; }

// Calls body with every pending copy that reads pinned host memory.
template <class Body>
void each_host_read(Body body) {
  for (const auto& [number, op] : driver().pending) {
    Copy* copy = std::get_if<Copy>(&op->work);
    if (copy && copy->checked) body(*copy);
  }
}

std::string hex(uintptr_t p) {
  char text[32];
  snprintf(text, sizeof text, "0x%llx", (unsigned long long)p);
  return text;
}

// The context fails from now on, with this.
void fault(Context& context, CUresult code, const std::string& text) {
  Driver& d = driver();
  if (d.fault.empty()) d.fault = text;
  if (context.sticky == CUDA_SUCCESS) context.sticky = code;
  fprintf(stderr, "vitgen simulated device: %s\n", text.c_str());
  trace("fault: " + text);
}

// The code a device would give for a fault, of which the simulator knows more.
CUresult fault_code(const std::string& text) {
  const auto says = [&text](const char* word) { return text.find(word) != std::string::npos; };
  if (says("misaligned")) return CUDA_ERROR_MISALIGNED_ADDRESS;
  for (const char* word : {"out of bounds", "use after free", "null pointer", "not on the device", "not global memory"}) {
    if (says(word)) return CUDA_ERROR_ILLEGAL_ADDRESS;
  }
  return CUDA_ERROR_LAUNCH_FAILED;
}

void perform(Op& op, Launch& launch) {
  Driver& d = driver();
  const uint64_t number = ++d.launched;
  vg_sim::options options;
  options.seed = d.config.seed;
  // Another order in each launch, and the same one when the program runs again.
  if (options.seed != 0 && options.seed != ~uint64_t{0}) {
    options.seed = (options.seed * 0x9e3779b97f4a7c15u ^ number * 0xd1342543de82ef95u) >> 1 | 1;
  }
  options.faults = d.config.faults;
  options.shared_limit = (size_t)d.config.chip->shared_optin;
  std::vector<void*> params;
  for (uint64_t& a : launch.args) params.push_back(&a);
  trace("run " + launch.function->name + " grid " + std::to_string(launch.grid) + " block " + std::to_string(launch.block) +
        " shared " + std::to_string(launch.shared));
  d.stats.kernels++;
  const std::string text =
      vg_sim::launch(launch.function->kernel, launch.grid, launch.block, launch.shared, params.data(), options);
  if (!text.empty()) fault(*op.context, fault_code(text), "launch " + std::to_string(number) + ": " + text);
}

// The host's memory must not have changed since the copy was submitted: on a
// device the copy might have read before or after.
bool unchanged(Op& op, const Copy& copy) {
  if (!copy.checked || host_sum(copy.from, copy.bytes) == copy.sum) return true;
  fault(*op.context, CUDA_ERROR_LAUNCH_FAILED,
        "host buffer " + hex(copy.from) + " changed while a copy of " + std::to_string(copy.bytes) +
            " bytes from it was pending: wait for the copy before writing to the buffer again");
  return false;
}

void perform(Op& op, Copy& copy) {
  Driver& d = driver();
  static const char* const names[] = {"H2D", "D2H", "D2D", "H2H"};
  const int kind = (int)copy.kind;
  trace(std::string("run copy ") + names[kind] + " " + std::to_string(copy.bytes) + " bytes");
  const bool to_device = copy.kind == Copy::Kind::h2d || copy.kind == Copy::Kind::d2d;
  const bool from_device = copy.kind == Copy::Kind::d2h || copy.kind == Copy::Kind::d2d;
  // A graph may be older than what happened to its memory.
  const bool to_there = to_device ? was_on_device(copy.to, copy.bytes) : !copy.pinned || pinned(copy.to, copy.bytes);
  const bool from_there = from_device ? was_on_device(copy.from, copy.bytes) : !copy.pinned || pinned(copy.from, copy.bytes);
  if (!to_there || !from_there) {
    return fault(*op.context, CUDA_ERROR_ILLEGAL_ADDRESS, std::string(names[kind]) + " copy of memory that was freed");
  }
  if (d.config.check_host && !unchanged(op, copy)) return;
  const void* from = copy.staged ? copy.staged->data() : (const void*)copy.from;
  memmove((void*)copy.to, from, copy.bytes);
  if (to_device) {
    vg_sim::wrote((void*)copy.to, copy.bytes);
  } else {
    // What waits to be copied from there is meant to be what came now.
    each_host_read([&copy](Copy& later) {
      if (&later != &copy && overlap(copy.to, copy.bytes, later.from, later.bytes)) later.sum = host_sum(later.from, later.bytes);
    });
  }
  d.stats.copies[kind]++;
  d.stats.bytes[kind] += copy.bytes;
}

void perform(Op& op, Fill& fill) {
  const size_t bytes = fill.count * fill.width;
  trace("run fill " + std::to_string(bytes) + " bytes");
  if (!was_on_device(fill.to, bytes)) return fault(*op.context, CUDA_ERROR_ILLEGAL_ADDRESS, "memset of memory that was freed");
  char* p = (char*)fill.to;
  for (size_t i = 0; i < fill.count; i++) memcpy(p + i * fill.width, &fill.value, fill.width);
  vg_sim::wrote(p, bytes);
  driver().stats.fills++;
}

void perform(Op&, HostCall& call) {
  in_host_call = true;
  call.function(call.data);
  in_host_call = false;
  // It may have filled the buffers of copies that come after it.
  each_host_read([](Copy& later) { later.sum = host_sum(later.from, later.bytes); });
}

void perform(Op&, RecordEvent& record) { record.record->ms = now_ms(); }
void perform(Op&, Release& r) { release(r.base); }
void perform(Op&, std::monostate&) {}

}  // namespace

uint64_t host_sum(uintptr_t p, size_t bytes) {
  const char* from = (const char*)p;
  uint64_t sum = bytes, word = 0;
  const auto add = [&sum](uint64_t x) { sum = (sum ^ x) * 0x9e3779b97f4a7c15u, sum ^= sum >> 29; };
  for (; bytes >= 8; from += 8, bytes -= 8) {
    memcpy(&word, from, 8);
    add(word);
  }
  word = 0;
  memcpy(&word, from, bytes);
  add(word);
  return sum;
}

// Notes what the host's memory holds, or spoils what the copy will overwrite, so
// that a host that reads too early gets neither the new nor a former result.
void prepare(Copy& copy) {
  if (!driver().config.check_host) return;
  if (copy.staged || !pinned(copy.kind == Copy::Kind::h2d ? copy.from : copy.to, copy.bytes)) return;
  if (copy.kind == Copy::Kind::h2d) {
    copy.checked = true;
    copy.sum = host_sum(copy.from, copy.bytes);
  }
  if (copy.kind == Copy::Kind::d2h) {
    bool read = false;
    for (const auto& [number, op] : driver().pending) read = read || std::holds_alternative<HostCall>(op->work);
    each_host_read([&](const Copy& earlier) { read = read || overlap(copy.to, copy.bytes, earlier.from, earlier.bytes); });
    if (!read) memset((void*)copy.to, 0xff, copy.bytes);
  }
}

void run(Op& op) {
  // After a fault nothing runs any more, but waiting ends, and memory goes back.
  const bool works = op.context->sticky == CUDA_SUCCESS || std::holds_alternative<Release>(op.work);
  if (works) {
    std::visit([&op](auto& work) { perform(op, work); }, op.work);
  }
  op.done = true;
  op.after.clear();
  op.work = std::monostate();
  driver().pending.erase(op.number);  // the caller holds the operation
}

}  // namespace vg_driver
