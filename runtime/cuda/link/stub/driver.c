// libcuda.a: the functions of include/cuda.h, each of which looks the installed
// driver's function up when it is first called and goes on there. A trainer
// linked with it, and not with the driver, starts on machines that have none:
// every call then fails, and vg_cuda_driver_error says why.
//
// Compile with -fvisibility=hidden: the real driver, once loaded, must never
// find these functions in the place of its own.
#include <cuda.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

// Where the driver is, by the name it is versioned under and by the one that
// only development packages install.
static const char *const names[] = {"libcuda.so.1", "libcuda.so"};

static void *library;
static char problem[512];

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void open_library(void) {
  for (size_t i = 0; i < sizeof names / sizeof *names && !library; i++) {
    library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library && i == 0) snprintf(problem, sizeof problem, "%s", dlerror());
  }
}

// Why there is no driver: the dynamic loader's words; NULL if there is one.
const char *vg_cuda_driver_error(void) {
  pthread_once(&once, open_library);
  return library ? NULL : problem;
}

// The driver's function of that name. If there is none, *result says whether
// the driver is missing or lacks the function.
static void *find(const char *name, void **known, CUresult *result) {
  void *f = __atomic_load_n(known, __ATOMIC_ACQUIRE);
  if (f) return f;
  if (vg_cuda_driver_error()) {
    *result = CUDA_ERROR_NO_DEVICE;
    return NULL;
  }
  f = dlsym(library, name);
  if (f) {
    __atomic_store_n(known, f, __ATOMIC_RELEASE);
  } else {
    *result = CUDA_ERROR_NOT_SUPPORTED;
  }
  return f;
}

// FORWARD(name, (parameters), (arguments)) defines one function. The name is
// expanded first, so that the driver is asked for the form cuda.h means.
#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)
#define FORWARD(name, parameters, arguments)                            \
  CUresult name parameters {                                            \
    static void *known;                                                 \
    CUresult result = CUDA_SUCCESS;                                     \
    void *f = find(TEXT(name), &known, &result);                        \
    return f ? ((CUresult (*) parameters)f) arguments : result;         \
  }

FORWARD(cuGetErrorString, (CUresult error, const char **text), (error, text))
FORWARD(cuGetErrorName, (CUresult error, const char **name), (error, name))

FORWARD(cuInit, (unsigned int flags), (flags))
FORWARD(cuDriverGetVersion, (int *version), (version))

FORWARD(cuDeviceGet, (CUdevice *device, int ordinal), (device, ordinal))
FORWARD(cuDeviceGetCount, (int *count), (count))
FORWARD(cuDeviceGetName, (char *name, int size, CUdevice device), (name, size, device))
FORWARD(cuDeviceTotalMem, (size_t *bytes, CUdevice device), (bytes, device))
FORWARD(cuDeviceGetAttribute, (int *value, CUdevice_attribute attribute, CUdevice device), (value, attribute, device))
FORWARD(cuDeviceCanAccessPeer, (int *can, CUdevice device, CUdevice peer), (can, device, peer))

FORWARD(cuCtxCreate, (CUcontext *context, unsigned int flags, CUdevice device), (context, flags, device))
FORWARD(cuCtxDestroy, (CUcontext context), (context))
FORWARD(cuCtxSetCurrent, (CUcontext context), (context))
FORWARD(cuCtxGetCurrent, (CUcontext *context), (context))
FORWARD(cuCtxGetDevice, (CUdevice *device), (device))
FORWARD(cuCtxSynchronize, (void), ())
FORWARD(cuCtxGetApiVersion, (CUcontext context, unsigned int *version), (context, version))
FORWARD(cuCtxEnablePeerAccess, (CUcontext peer, unsigned int flags), (peer, flags))
FORWARD(cuCtxDisablePeerAccess, (CUcontext peer), (peer))

FORWARD(cuModuleLoad, (CUmodule *module, const char *file), (module, file))
FORWARD(cuModuleLoadData, (CUmodule *module, const void *image), (module, image))
FORWARD(cuModuleLoadDataEx, (CUmodule *module, const void *image, unsigned int count, CUjit_option *options, void **values),
        (module, image, count, options, values))
FORWARD(cuModuleUnload, (CUmodule module), (module))
FORWARD(cuModuleGetFunction, (CUfunction *function, CUmodule module, const char *name), (function, module, name))

FORWARD(cuFuncGetAttribute, (int *value, CUfunction_attribute attribute, CUfunction function), (value, attribute, function))
FORWARD(cuFuncSetAttribute, (CUfunction function, CUfunction_attribute attribute, int value), (function, attribute, value))
FORWARD(cuLaunchKernel,
        (CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z, unsigned int block_x,
         unsigned int block_y, unsigned int block_z, unsigned int shared_bytes, CUstream stream, void **arguments, void **extra),
        (function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream, arguments, extra))

FORWARD(cuMemGetInfo, (size_t *free, size_t *total), (free, total))
FORWARD(cuMemAlloc, (CUdeviceptr *pointer, size_t bytes), (pointer, bytes))
FORWARD(cuMemFree, (CUdeviceptr pointer), (pointer))
FORWARD(cuMemGetAddressRange, (CUdeviceptr *base, size_t *bytes, CUdeviceptr pointer), (base, bytes, pointer))
FORWARD(cuMemAllocHost, (void **pointer, size_t bytes), (pointer, bytes))
FORWARD(cuMemFreeHost, (void *pointer), (pointer))
FORWARD(cuPointerGetAttribute, (void *value, CUpointer_attribute attribute, CUdeviceptr pointer), (value, attribute, pointer))

FORWARD(cuMemcpy, (CUdeviceptr to, CUdeviceptr from, size_t bytes), (to, from, bytes))
FORWARD(cuMemcpyPeer, (CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t bytes),
        (to, to_context, from, from_context, bytes))
FORWARD(cuMemcpyHtoD, (CUdeviceptr to, const void *from, size_t bytes), (to, from, bytes))
FORWARD(cuMemcpyDtoH, (void *to, CUdeviceptr from, size_t bytes), (to, from, bytes))
FORWARD(cuMemcpyDtoD, (CUdeviceptr to, CUdeviceptr from, size_t bytes), (to, from, bytes))
FORWARD(cuMemcpyAsync, (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream), (to, from, bytes, stream))
FORWARD(cuMemcpyPeerAsync,
        (CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t bytes, CUstream stream),
        (to, to_context, from, from_context, bytes, stream))
FORWARD(cuMemcpyHtoDAsync, (CUdeviceptr to, const void *from, size_t bytes, CUstream stream), (to, from, bytes, stream))
FORWARD(cuMemcpyDtoHAsync, (void *to, CUdeviceptr from, size_t bytes, CUstream stream), (to, from, bytes, stream))
FORWARD(cuMemcpyDtoDAsync, (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream), (to, from, bytes, stream))
FORWARD(cuMemsetD8, (CUdeviceptr to, unsigned char value, size_t count), (to, value, count))
FORWARD(cuMemsetD32, (CUdeviceptr to, unsigned int value, size_t count), (to, value, count))
FORWARD(cuMemsetD8Async, (CUdeviceptr to, unsigned char value, size_t count, CUstream stream), (to, value, count, stream))
FORWARD(cuMemsetD32Async, (CUdeviceptr to, unsigned int value, size_t count, CUstream stream), (to, value, count, stream))

FORWARD(cuStreamCreate, (CUstream *stream, unsigned int flags), (stream, flags))
FORWARD(cuStreamDestroy, (CUstream stream), (stream))
FORWARD(cuStreamQuery, (CUstream stream), (stream))
FORWARD(cuStreamSynchronize, (CUstream stream), (stream))
FORWARD(cuStreamBeginCapture, (CUstream stream, CUstreamCaptureMode mode), (stream, mode))
FORWARD(cuStreamEndCapture, (CUstream stream, CUgraph *graph), (stream, graph))

FORWARD(cuGraphInstantiateWithFlags, (CUgraphExec *exec, CUgraph graph, unsigned long long flags), (exec, graph, flags))
FORWARD(cuGraphLaunch, (CUgraphExec exec, CUstream stream), (exec, stream))
FORWARD(cuGraphExecDestroy, (CUgraphExec exec), (exec))
FORWARD(cuGraphDestroy, (CUgraph graph), (graph))

FORWARD(cuEventCreate, (CUevent *event, unsigned int flags), (event, flags))
FORWARD(cuEventDestroy, (CUevent event), (event))
FORWARD(cuEventRecord, (CUevent event, CUstream stream), (event, stream))
FORWARD(cuEventQuery, (CUevent event), (event))
FORWARD(cuEventSynchronize, (CUevent event), (event))
FORWARD(cuEventElapsedTime, (float *milliseconds, CUevent start, CUevent end), (milliseconds, start, end))
