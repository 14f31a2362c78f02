// What the test programs of the simulated driver share: prototypes of what they
// call, and checks.
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cuda_api.h"

extern "C" {
CUresult cuInit(unsigned);
CUresult cuDriverGetVersion(int*);
CUresult cuDeviceGetCount(int*);
CUresult cuDeviceGet(CUdevice*, int);
CUresult cuDeviceGetName(char*, int, CUdevice);
CUresult cuDeviceGetAttribute(int*, int, CUdevice);
CUresult cuDeviceTotalMem_v2(size_t*, CUdevice);
CUresult cuDevicePrimaryCtxRetain(CUcontext*, CUdevice);
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice);
CUresult cuCtxCreate_v2(CUcontext*, unsigned, CUdevice);
CUresult cuCtxDestroy_v2(CUcontext);
CUresult cuCtxGetCurrent(CUcontext*);
CUresult cuCtxSetCurrent(CUcontext);
CUresult cuCtxPushCurrent_v2(CUcontext);
CUresult cuCtxPopCurrent_v2(CUcontext*);
CUresult cuCtxSynchronize();
CUresult cuMemAlloc_v2(CUdeviceptr*, size_t);
CUresult cuMemFree_v2(CUdeviceptr);
CUresult cuMemAllocAsync(CUdeviceptr*, size_t, CUstream);
CUresult cuMemFreeAsync(CUdeviceptr, CUstream);
CUresult cuMemGetInfo_v2(size_t*, size_t*);
CUresult cuMemGetAddressRange_v2(CUdeviceptr*, size_t*, CUdeviceptr);
CUresult cuMemAllocHost_v2(void**, size_t);
CUresult cuMemFreeHost(void*);
CUresult cuPointerGetAttribute(void*, int, CUdeviceptr);
CUresult cuMemcpyHtoD_v2(CUdeviceptr, const void*, size_t);
CUresult cuMemcpyDtoH_v2(void*, CUdeviceptr, size_t);
CUresult cuMemcpyDtoD_v2(CUdeviceptr, CUdeviceptr, size_t);
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr, const void*, size_t, CUstream);
CUresult cuMemcpyDtoHAsync_v2(void*, CUdeviceptr, size_t, CUstream);
CUresult cuMemcpy(CUdeviceptr, CUdeviceptr, size_t);
CUresult cuMemsetD32_v2(CUdeviceptr, unsigned, size_t);
CUresult cuMemsetD8Async(CUdeviceptr, unsigned char, size_t, CUstream);
CUresult cuStreamCreate(CUstream*, unsigned);
CUresult cuStreamDestroy_v2(CUstream);
CUresult cuStreamSynchronize(CUstream);
CUresult cuStreamQuery(CUstream);
CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned);
CUresult cuStreamBeginCapture_v2(CUstream, int);
CUresult cuStreamEndCapture(CUstream, CUgraph*);
CUresult cuStreamIsCapturing(CUstream, int*);
CUresult cuLaunchHostFunc(CUstream, CUhostFn, void*);
CUresult cuEventCreate(CUevent*, unsigned);
CUresult cuEventDestroy_v2(CUevent);
CUresult cuEventRecord(CUevent, CUstream);
CUresult cuEventRecordWithFlags(CUevent, CUstream, unsigned);
CUresult cuEventSynchronize(CUevent);
CUresult cuEventQuery(CUevent);
CUresult cuEventElapsedTime(float*, CUevent, CUevent);
CUresult cuGraphInstantiateWithFlags(CUgraphExec*, CUgraph, unsigned long long);
CUresult cuGraphLaunch(CUgraphExec, CUstream);
CUresult cuGraphDestroy(CUgraph);
CUresult cuGraphExecDestroy(CUgraphExec);
CUresult cuGraphGetNodes(CUgraph, CUgraphNode*, size_t*);
CUresult cuGraphNodeGetType(CUgraphNode, int*);
CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode, CUDA_KERNEL_NODE_PARAMS_v2*);
CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec, CUgraphNode, const CUDA_KERNEL_NODE_PARAMS_v2*);
CUresult cuModuleLoadData(CUmodule*, const void*);
CUresult cuModuleLoadDataEx(CUmodule*, const void*, unsigned, int*, void**);
CUresult cuModuleLoad(CUmodule*, const char*);
CUresult cuModuleUnload(CUmodule);
CUresult cuModuleGetFunction(CUfunction*, CUmodule, const char*);
CUresult cuFuncGetAttribute(int*, int, CUfunction);
CUresult cuFuncSetAttribute(CUfunction, int, int);
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int*, CUfunction, int, size_t);
CUresult cuLaunchKernel(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void**, void**);
CUresult cuGetErrorName(int, const char**);
CUresult cuGetProcAddress_v2(const char*, void**, int, uint64_t, int*);
const char* vg_sim_last_fault();
const char* vg_sim_stats();
}

inline const char* error_name(int e) {
  const char* text = nullptr;
  return cuGetErrorName(e, &text) == CUDA_SUCCESS ? text : "?";
}

// The call must give this result.
#define WANT(result, call)                                                                                         \
  do {                                                                                                             \
    const int got_ = (call);                                                                                       \
    if (got_ != CUDA_##result) {                                                                                   \
      printf("%s:%d: %s: %s, want CUDA_%s\n", __FILE__, __LINE__, #call, error_name(got_), #result);               \
      exit(1);                                                                                                     \
    }                                                                                                              \
  } while (0)
#define OK(call) WANT(SUCCESS, call)
#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) {                                               \
      printf("%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);  \
      exit(1);                                                        \
    }                                                                 \
  } while (0)

struct Case {
  const char* name;
  void (*run)();
};
extern const Case memory_cases[], stream_cases[], kernel_cases[], capture_cases[];

// cuInit and a context for device 0.
inline CUcontext start() {
  CUcontext context;
  OK(cuInit(0));
  OK(cuCtxCreate_v2(&context, 0, 0));
  return context;
}

// A kernel of the file in VITGEN_CUDA_IMAGE.
inline CUmodule load_module() {
  FILE* file = fopen(getenv("VITGEN_CUDA_IMAGE"), "rb");
  CHECK(file != nullptr);
  static char bytes[8 << 20];
  CHECK(fread(bytes, 1, sizeof bytes, file) > 0);
  fclose(file);
  CUmodule module;
  OK(cuModuleLoadData(&module, bytes));
  return module;
}
inline CUfunction find_function(const char* name) {
  CUfunction f;
  OK(cuModuleGetFunction(&f, load_module(), name));
  return f;
}

// Launches with arguments of 8 bytes each.
template <class... A>
CUresult launch(CUfunction f, unsigned grid, unsigned block, unsigned shared, CUstream s, A... args) {
  static_assert(((sizeof(A) == 8) && ...), "8 bytes");
  void* params[] = {&args...};
  return cuLaunchKernel(f, grid, 1, 1, block, 1, 1, shared, s, params, nullptr);
}
