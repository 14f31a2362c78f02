// Names of errors, and addresses of entry points by name.
#include <dlfcn.h>
#include <string.h>

#include <string>

#include "cuda_api.h"

VG_API CUresult cuGetErrorName(int error, const char** text) {
  if (!text) return CUDA_ERROR_INVALID_VALUE;
  switch (error) {
#define VG_ERROR(name, number, description) \
  case number: *text = "CUDA_" #name; return CUDA_SUCCESS;
    VG_CUDA_ERRORS(VG_ERROR)
#undef VG_ERROR
  }
  *text = nullptr;
  return CUDA_ERROR_INVALID_VALUE;
}

VG_API CUresult cuGetErrorString(int error, const char** text) {
  if (!text) return CUDA_ERROR_INVALID_VALUE;
  switch (error) {
#define VG_ERROR(name, number, description) \
  case number: *text = description; return CUDA_SUCCESS;
    VG_CUDA_ERRORS(VG_ERROR)
#undef VG_ERROR
  }
  *text = nullptr;
  return CUDA_ERROR_INVALID_VALUE;
}

namespace {

// Entry points whose interface a version of CUDA changed: from `version` on, the
// plain name means `symbol`. Later rows win.
struct Changed {
  const char* name;
  int version;
  const char* symbol;
};
const Changed changed[] = {
    {"cuCtxCreate", 3020, "cuCtxCreate_v2"},
    {"cuCtxCreate", 11040, "cuCtxCreate_v3"},
    {"cuCtxCreate", 12050, "cuCtxCreate_v4"},
    {"cuGraphInstantiate", 11000, "cuGraphInstantiate_v2"},
    {"cuGraphInstantiate", 12000, "cuGraphInstantiateWithFlags"},
    {"cuGetProcAddress", 11030, "cuGetProcAddress"},
    {"cuGetProcAddress", 12000, "cuGetProcAddress_v2"},
};

void* find(const std::string& name, int version) {
  const char* symbol = nullptr;
  for (const Changed& c : changed) {
    if (name == c.name && version >= c.version) symbol = c.symbol;
  }
  void* self = nullptr;
  Dl_info info;
  if (dladdr((void*)&cuGetErrorName, &info)) self = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  if (!self) return nullptr;
  void* found = symbol ? dlsym(self, symbol) : nullptr;
  if (!found) found = dlsym(self, (name + "_v2").c_str());
  if (!found) found = dlsym(self, name.c_str());
  dlclose(self);
  return found;
}

}  // namespace

VG_API CUresult cuGetProcAddress_v2(const char* name, void** out, int version, uint64_t, int* status) {
  if (!name || !out) return CUDA_ERROR_INVALID_VALUE;
  *out = strncmp(name, "cu", 2) == 0 ? find(name, version) : nullptr;
  if (status) *status = *out ? CU_PROC_SUCCESS : CU_PROC_NOT_FOUND;
  return *out ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
VG_API CUresult cuGetProcAddress(const char* name, void** out, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, out, version, flags, nullptr);
}
