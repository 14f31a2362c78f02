// Kernels: those linked into this program, and those of shared objects.
#include <dlfcn.h>
#include <string.h>

#include "internal.h"

// Defined by a kernel file that is linked into the program, if there is one.
extern "C" __attribute__((weak)) const vg_sim_module* vg_sim_module_init(const vg_sim_api*);

namespace vg_sim {

struct library {
  void* handle = nullptr;
  const vg_sim_module* module = nullptr;
};

namespace {

const vg_sim_module* program() {
  static const vg_sim_module* m = vg_sim_module_init ? vg_sim_module_init(&api) : nullptr;
  return m;
}

std::vector<library*> libraries;

const kernel* find_in(const vg_sim_module* m, const char* name) {
  if (!m) return nullptr;
  for (const vg_sim_kernel* k = *m->first; k; k = k->next)
    if (strcmp(k->name, name) == 0) return static_cast<const kernel*>(k);
  return nullptr;
}

bool contains(const vg_sim_module* m, const vg_sim_kernel* kernel) {
  if (!m) return false;
  for (const vg_sim_kernel* k = *m->first; k; k = k->next)
    if (k == kernel) return true;
  return false;
}

}  // namespace

const kernel* find(const char* name) {
  const host_call lock;
  const kernel* k = find_in(program(), name);
  for (size_t i = 0; !k && i < libraries.size(); i++) k = find_in(libraries[i]->module, name);
  return k;
}
const kernel* find(const library* l, const char* name) { return find_in(l->module, name); }

library* load(const char* path, std::string* error) {
  const host_call lock;
  void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    *error = dlerror();
    return nullptr;
  }
  auto init = (const vg_sim_module* (*)(const vg_sim_api*))dlsym(handle, "vg_sim_module_init");
  const vg_sim_module* m = init ? init(&api) : nullptr;
  if (!m || m->version != VG_SIM_ABI_VERSION) {
    *error = std::string(path) + (m ? ": made for another version of the simulator" : ": not a kernel object of the simulator");
    dlclose(handle);
    return nullptr;
  }
  library* l = new library;
  l->handle = handle;
  l->module = m;
  libraries.push_back(l);
  return l;
}

void unload(library* l) {
  const host_call lock;
  if (!l) return;
  for (size_t i = 0; i < libraries.size(); i++)
    if (libraries[i] == l) libraries.erase(libraries.begin() + i);
  dlclose(l->handle);
  delete l;
}

const char* name(const kernel* k) { return k->name; }
int max_threads(const kernel* k) { return k->threads; }
int param_count(const kernel* k) { return k->params; }

bool checked(const kernel* k) {
  const host_call lock;
  if (contains(program(), k)) return program()->checked;
  for (const library* l : libraries)
    if (contains(l->module, k)) return l->module->checked;
  return false;
}

}  // namespace vg_sim
