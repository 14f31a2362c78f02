// Descriptions of what went wrong.
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"
#include "shadow.h"

namespace vg_sim {
namespace {

std::string vformat(const char* f, va_list args) {
  char text[2048];
  vsnprintf(text, sizeof text, f, args);
  return text;
}

std::string describe_state(const thread& t) {
  if (t.exited) return "exited";
  switch (t.waits) {
    case wait::nothing: return "did not wait";
    case wait::sync: return "wait at vg_sync, " + describe(t.at);
    case wait::sync_some: return "wait at vg_sync_some, " + describe(t.at);
    case wait::sync_warp: return "wait at vg_sync_warp, " + describe(t.at);
    case wait::shuffle: return "wait at a shuffle, " + describe(t.at);
    case wait::ldmatrix: return "wait at vg_ldmatrix4, " + describe(t.at);
    case wait::mma: return "wait at a vg_mma, " + describe(t.at);
  }
  return "";
}

}  // namespace

std::string format(const char* f, ...) {
  va_list args;
  va_start(args, f);
  std::string s = vformat(f, args);
  va_end(args);
  return s;
}

std::string describe(place p) {
  if (!p.file) return "?";
  const char* slash = strrchr(p.file, '/');
  return format("%s:%d", slash ? slash + 1 : p.file, p.line);
}

std::string describe_waits() {
  bool at_barrier = false;
  for (const block* b : now.blocks)
    for (unsigned i = 0; b->live && i < now.threads; i++) {
      const thread& t = b->threads[i];
      at_barrier |= !t.exited && (t.waits == wait::sync || t.waits == wait::sync_some);
    }
  std::string out = at_barrier ? "divergent barrier: no thread can go on" : "lanes missing: no thread can go on";
  int lines = 0;
  for (const block* b : now.blocks) {
    if (!b->live) continue;
    out += format("\n  block %d:", b->index);
    for (unsigned i = 0; i < now.threads;) {
      if (++lines > 40) return out + "\n    …";
      const std::string state = describe_state(b->threads[i]);
      unsigned j = i + 1;
      while (j < now.threads && describe_state(b->threads[j]) == state) j++;
      out += j == i + 1 ? format("\n    thread %u: ", i) : format("\n    threads %u-%u: ", i, j - 1);
      out += state;
      i = j;
    }
  }
  return out;
}

std::string describe_address(const void* p) {
  if (device.has(p)) {
    const allocation* a = find_allocation(p);
    if (!a) return format("%p (device memory, no buffer)", p);
    const long long offset = (const char*)p - a->p;
    return format("%s%+lld (%zu bytes long%s)", a->name.c_str(), offset, a->bytes, a->freed ? ", freed" : "");
  }
  if (shared.has(p) && current)
    return format("shared memory%+lld (%zu bytes long)", (long long)((const char*)p - current->id.shared), now.shared);
  return format("%p", p);
}

// Finding a line takes another program; this is no place to start one.
std::string describe_pc(const void* pc) { return format("\001%p\001", pc); }

static std::string source_line(const void* pc) {
  Dl_info info;
  if (!dladdr(pc, &info) || !info.dli_fname) return format("%p", pc);
  const size_t offset = (const char*)pc - 1 - (const char*)info.dli_fbase;
  std::string file = info.dli_fname, out = format("%s+0x%zx", info.dli_fname, offset);
  if (file.find('\'') != std::string::npos) return out;
  if (file.rfind("/proc/self/", 0) == 0) file = format("/proc/%d/", (int)getpid()) + file.substr(11);  // as another process sees it
  FILE* f = popen(format("addr2line -e '%s' 0x%zx 2>/dev/null", file.c_str(), offset).c_str(), "r");
  if (!f) return out;
  char line[1024] = "";
  if (fgets(line, sizeof line, f) && line[0] != '?') {
    line[strcspn(line, " \n")] = 0;  // also drops "(discriminator 2)"
    const char* slash = strrchr(line, '/');
    out = slash ? slash + 1 : line;
  }
  pclose(f);
  return out;
}

std::string resolve_pcs(const std::string& s) {
  std::string out;
  for (size_t i = 0; i < s.size();) {
    if (s[i] != '\001') {
      out += s[i++];
      continue;
    }
    const size_t end = s.find('\001', i + 1);
    if (end == std::string::npos) break;
    out += source_line((const void*)strtoull(s.substr(i + 1, end - i - 1).c_str(), nullptr, 16));
    i = end + 1;
  }
  return out;
}

// "kernel, block, thread: what".
static std::string by_whom(const std::string& what) {
  std::string s = now.kernel->name;
  if (current) s += format(", block %d, thread %d", current->id.block, current->id.thread);
  return s + ": " + what;
}

void suspect(const std::string& what) {
  if (now.suspicion.empty()) now.suspicion = by_whom(what);
}

[[noreturn]] static void end_launch(const std::string& what) {
  if (now.fault.empty()) now.fault = by_whom(what);
  context dead;
  current = nullptr;
  switch_context(&dead, &now.home);
  __builtin_unreachable();
}

void fault_race(const std::string& what) {
  end_launch(now.suspicion.empty() ? what : what + "\nbefore that: " + now.suspicion);
}

void fault(const char* f, ...) {
  va_list args;
  va_start(args, f);
  std::string what = vformat(f, args);
  va_end(args);
  if (!now.suspicion.empty()) now.fault = now.suspicion;
  end_launch(what);
}

}  // namespace vg_sim
