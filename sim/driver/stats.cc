// What happened, counted: for tests that say how a program may use the device.
#include <stdio.h>
#include <unistd.h>

#include "entry.h"

namespace vg_driver {
namespace {

// The name of an entry point without the version of its interface.
std::string base_name(const std::string& name) {
  const size_t at = name.rfind("_v");
  return at != std::string::npos && at + 3 == name.size() ? name.substr(0, at) : name;
}

// How often these calls succeeded.
uint64_t count(const Stats& s, std::initializer_list<const char*> names) {
  const auto times = [](const std::map<std::string, uint64_t>& calls, const char* name) {
    const auto at = calls.find(name);
    return at == calls.end() ? 0 : at->second;
  };
  uint64_t sum = 0;
  for (const char* name : names) sum += times(s.calls, name) - times(s.failed, name);
  return sum;
}

// A JSON object being written, a field a line.
struct Json {
  std::string text = "{";
  void raw(const std::string& key, const std::string& value) {
    text += std::string(text.size() > 1 ? "," : "") + "\n  \"" + key + "\": " + value;
  }
  void number(const std::string& key, uint64_t value) { raw(key, std::to_string(value)); }
  std::string end() const { return text + "\n}\n"; }
};

std::string quoted(const std::string& s) {
  std::string out = "\"";
  for (const char c : s) {
    char escaped[8];
    if ((unsigned char)c < 32) {
      snprintf(escaped, sizeof escaped, "\\u%04x", c);
      out += escaped;
    } else {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out + "\"";
}

std::string object(const std::map<std::string, uint64_t>& counts) {
  std::string out = "{";
  for (const auto& [name, n] : counts) out += (out.size() > 1 ? ", " : "") + quoted(name) + ": " + std::to_string(n);
  return out + "}";
}

std::string list(const std::vector<GraphStats>& graphs) {
  std::string out = "[";
  for (const GraphStats& g : graphs) {
    char text[200];
    snprintf(text, sizeof text, "%s{\"nodes\": %zu, \"kernels\": %zu, \"copies\": %zu, \"memsets\": %zu, \"launches\": %zu}",
             out.size() > 1 ? ", " : "", g.nodes, g.kernels, g.copies, g.fills, g.launches);
    out += text;
  }
  return out + "]";
}

}  // namespace

std::string stats_json() {
  const Driver& d = driver();
  const Stats& s = d.stats;
  size_t used = 0;
  for (const size_t bytes : d.used) used += bytes;
  Json j;
  j.number("launches", count(s, {"cuLaunchKernel", "cuLaunchKernelEx"}));
  j.number("graph_launches", count(s, {"cuGraphLaunch"}));
  j.number("graph_instantiations", count(s, {"cuGraphInstantiate", "cuGraphInstantiateWithFlags"}));
  j.number("allocations", count(s, {"cuMemAlloc", "cuMemAllocAsync", "cuMemHostAlloc", "cuMemHostRegister"}));
  j.number("frees", count(s, {"cuMemFree", "cuMemFreeAsync", "cuMemFreeHost", "cuMemHostUnregister"}));
  j.number("host_waits", s.host_waits);
  j.number("kernels_run", s.kernels);
  static const char* const kinds[] = {"h2d", "d2h", "d2d", "h2h"};
  for (int i = 0; i < 4; i++) {
    j.number(std::string(kinds[i]) + "_copies", s.copies[i]);
    j.number(std::string(kinds[i]) + "_bytes", s.bytes[i]);
  }
  j.number("memsets_run", s.fills);
  j.number("device_bytes", used);
  j.number("device_bytes_peak", s.peak);
  j.number("pending", d.pending.size());
  j.raw("graphs", list(s.graphs));
  j.raw("calls", object(s.calls));
  j.raw("failed", object(s.failed));
  j.raw("fault", quoted(d.fault));
  return j.end();
}

// Complete at any time: a reader sees the file of before or of after.
void write_stats() {
  const std::string& name = driver().config.stats;
  if (name.empty()) return;
  const std::string next = name + "." + std::to_string(getpid());
  FILE* file = fopen(next.c_str(), "w");
  if (!file) return;
  const std::string text = stats_json();
  const bool ok = fwrite(text.data(), 1, text.size(), file) == text.size();
  if (fclose(file) == 0 && ok) rename(next.c_str(), name.c_str());
}

// Programs may end without telling, as Go's do, so the numbers are written
// whenever the host waits.
void host_waited() {
  driver().stats.host_waits++;
  write_stats();
}

void trace(const std::string& line) {
  const std::string& name = driver().config.trace;
  if (name.empty()) return;
  static FILE* const file = fopen(name.c_str(), "w");
  if (!file) return;
  fprintf(file, "%s\n", line.c_str());
  fflush(file);
}

CUresult finish(const char* name, CUresult result, const std::string& why) {
  Driver& d = driver();
  const std::string base = base_name(name);
  d.stats.calls[base]++;
  if (result != CUDA_SUCCESS && result != CUDA_ERROR_NOT_READY) {
    d.stats.failed[base]++;
    if (d.config.verbose) {
      fprintf(stderr, "vitgen simulated device: %s: error %d%s%s\n", name, (int)result, why.empty() ? "" : ": ", why.c_str());
    }
  }
  trace(std::string(name) + (result == CUDA_SUCCESS ? "" : ": error " + std::to_string((int)result)));
  return result;
}

namespace {
__attribute__((destructor)) void at_exit() { write_stats(); }
}  // namespace

}  // namespace vg_driver

using namespace vg_driver;

// The text of the first fault of a kernel, or "". Not of CUDA.
VG_API const char* vg_sim_last_fault() {
  Driver& d = driver();
  std::lock_guard<std::mutex> hold(d.lock);
  static thread_local std::string text;
  text = d.fault;
  return text.c_str();
}

// The statistics as JSON. Not of CUDA.
VG_API const char* vg_sim_stats() {
  Driver& d = driver();
  std::lock_guard<std::mutex> hold(d.lock);
  static thread_local std::string text;
  text = stats_json();
  return text.c_str();
}
