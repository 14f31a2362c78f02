// Devices, contexts, memory and plain copies.
#include <thread>

#include "cases.h"

namespace {

int attribute(int number) {
  int value = -1;
  OK(cuDeviceGetAttribute(&value, number, 0));
  return value;
}

void before_init() {
  int n;
  CUdeviceptr p;
  WANT(ERROR_NOT_INITIALIZED, cuDeviceGetCount(&n));
  WANT(ERROR_NOT_INITIALIZED, cuMemAlloc_v2(&p, 16));
  OK(cuDriverGetVersion(&n));
  CHECK(n == 13000);
  WANT(ERROR_INVALID_VALUE, cuInit(1));
}

void devices() {
  OK(cuInit(0));
  int n;
  OK(cuDeviceGetCount(&n));
  CHECK(n == 1);
  CUdevice device;
  WANT(ERROR_INVALID_DEVICE, cuDeviceGet(&device, 1));
  OK(cuDeviceGet(&device, 0));
  char name[100];
  OK(cuDeviceGetName(name, sizeof name, device));
  size_t total;
  OK(cuDeviceTotalMem_v2(&total, device));
  // The Go test compares this line for each chip.
  printf("%s; sm_%d%d; %d SMs; %d opt-in; %d per SM; %d; %zu\n", name, attribute(75), attribute(76), attribute(16),
         attribute(97), attribute(81), attribute(8), total);
  CHECK(attribute(10) == 32 && attribute(1) == 1024);
  int value;
  WANT(ERROR_INVALID_VALUE, cuDeviceGetAttribute(&value, 1000, 0));
  void* f = nullptr;
  int status = -1;
  OK(cuGetProcAddress_v2("cuMemAlloc", &f, 12000, 0, &status));
  CHECK(f == (void*)&cuMemAlloc_v2 && status == 0);
  OK(cuGetProcAddress_v2("cuCtxCreate", &f, 11000, 0, &status));
  CHECK(f == (void*)&cuCtxCreate_v2);
  WANT(ERROR_NOT_FOUND, cuGetProcAddress_v2("cuNoSuchThing", &f, 12000, 0, &status));
}

void no_device() {
  OK(cuInit(0));
  int n = -1;
  OK(cuDeviceGetCount(&n));
  CHECK(n == 0);
  CUdevice device;
  WANT(ERROR_INVALID_DEVICE, cuDeviceGet(&device, 0));
  CUcontext context;
  WANT(ERROR_INVALID_DEVICE, cuCtxCreate_v2(&context, 0, 0));
}

void init_error() { WANT(ERROR_NO_DEVICE, cuInit(0)); }

void contexts() {
  OK(cuInit(0));
  CUdeviceptr p;
  WANT(ERROR_INVALID_CONTEXT, cuMemAlloc_v2(&p, 16));
  WANT(ERROR_INVALID_CONTEXT, cuCtxSynchronize());
  CUcontext a, b, c;
  OK(cuCtxCreate_v2(&a, 0, 0));
  OK(cuMemAlloc_v2(&p, 16));
  // Every thread has a current context of its own.
  std::thread([a, p] {
    CUdeviceptr q;
    WANT(ERROR_INVALID_CONTEXT, cuMemAlloc_v2(&q, 16));
    OK(cuCtxSetCurrent(a));
    OK(cuMemAlloc_v2(&q, 16));
    OK(cuMemFree_v2(p));
  }).join();
  OK(cuDevicePrimaryCtxRetain(&b, 0));
  OK(cuDevicePrimaryCtxRetain(&c, 0));
  CHECK(b == c && b != a);
  OK(cuCtxPushCurrent_v2(b));
  OK(cuCtxGetCurrent(&c));
  CHECK(c == b);
  OK(cuCtxPopCurrent_v2(&c));
  OK(cuCtxGetCurrent(&c));
  CHECK(c == a);
  OK(cuDevicePrimaryCtxRelease_v2(0));
  OK(cuDevicePrimaryCtxRelease_v2(0));
  WANT(ERROR_INVALID_CONTEXT, cuDevicePrimaryCtxRelease_v2(0));
  WANT(ERROR_INVALID_CONTEXT, cuCtxSetCurrent(b));
  OK(cuCtxDestroy_v2(a));
  WANT(ERROR_INVALID_CONTEXT, cuCtxDestroy_v2(a));
  WANT(ERROR_INVALID_CONTEXT, cuCtxSynchronize());
}

// VITGEN_SIM_MEMORY is 1 MiB.
void out_of_memory() {
  const CUcontext context = start();
  size_t available, total;
  OK(cuMemGetInfo_v2(&available, &total));
  CHECK(available == 1 << 20 && total == 1 << 20);
  CUdeviceptr a, b, c;
  WANT(ERROR_OUT_OF_MEMORY, cuMemAlloc_v2(&a, (1 << 20) + 1));
  WANT(ERROR_INVALID_VALUE, cuMemAlloc_v2(&a, 0));
  OK(cuMemAlloc_v2(&a, 1 << 19));
  OK(cuMemAlloc_v2(&b, (1 << 19) - 512));
  CHECK(a % 256 == 0 && b % 256 == 0);
  OK(cuMemGetInfo_v2(&available, &total));
  CHECK(available == 512);
  WANT(ERROR_OUT_OF_MEMORY, cuMemAlloc_v2(&c, 513));
  OK(cuMemFree_v2(b));
  WANT(ERROR_INVALID_VALUE, cuMemFree_v2(b));
  WANT(ERROR_INVALID_VALUE, cuMemFree_v2(a + 256));
  OK(cuMemFree_v2(0));
  CUstream s;
  OK(cuStreamCreate(&s, 0));
  OK(cuMemAllocAsync(&c, 1 << 18, s));
  OK(cuMemsetD8Async(c, 0, 1 << 18, s));  // comes before the free, if not at once
  OK(cuMemFreeAsync(c, s));
  WANT(ERROR_INVALID_VALUE, cuMemFreeAsync(c, s));
  WANT(ERROR_INVALID_VALUE, cuMemsetD8Async(c, 0, 1, s));
  OK(cuStreamSynchronize(s));
  OK(cuCtxDestroy_v2(context));
  CHECK(strstr(vg_sim_stats(), "\"device_bytes\": 0,") != nullptr);
}

void copies() {
  start();
  CUdeviceptr a, b, base;
  size_t bytes;
  OK(cuMemAlloc_v2(&a, 4000));
  OK(cuMemAlloc_v2(&b, 4000));
  OK(cuMemGetAddressRange_v2(&base, &bytes, a + 100));
  CHECK(base == a && bytes == 4000);
  int x[1000], y[1000] = {};
  for (int i = 0; i < 1000; i++) x[i] = i;
  OK(cuMemcpyHtoD_v2(a, x, 4000));
  OK(cuMemcpyDtoD_v2(b + 400, a, 3600));
  OK(cuMemsetD32_v2(b, 77, 100));
  OK(cuMemcpyDtoH_v2(y, b, 4000));
  for (int i = 0; i < 1000; i++) CHECK(y[i] == (i < 100 ? 77 : i - 100));
  WANT(ERROR_INVALID_VALUE, cuMemcpyHtoD_v2(a, x, 4001));
  WANT(ERROR_INVALID_VALUE, cuMemcpyHtoD_v2(a + 4, x, 4000));
  WANT(ERROR_INVALID_VALUE, cuMemcpyHtoD_v2((CUdeviceptr)y, x, 4));
  WANT(ERROR_INVALID_VALUE, cuMemcpyDtoH_v2((void*)b, a, 4));
  WANT(ERROR_INVALID_VALUE, cuMemcpyHtoD_v2(b, (const void*)a, 4));
  WANT(ERROR_INVALID_VALUE, cuMemsetD32_v2(a + 2, 0, 1));
  OK(cuMemcpy((CUdeviceptr)y, a, 4000));
  CHECK(!memcmp(x, y, 4000));
  unsigned type = 0;
  OK(cuPointerGetAttribute(&type, CU_POINTER_MEMORY_TYPE, a + 8));
  CHECK(type == CU_MEMORY_DEVICE);
  void* pinned;
  OK(cuMemAllocHost_v2(&pinned, 64));
  OK(cuPointerGetAttribute(&type, CU_POINTER_MEMORY_TYPE, (CUdeviceptr)pinned));
  CHECK(type == CU_MEMORY_HOST);
  WANT(ERROR_INVALID_VALUE, cuMemcpyHtoD_v2(a, pinned, 65));
  OK(cuMemFreeHost(pinned));
  WANT(ERROR_INVALID_VALUE, cuMemFreeHost(pinned));
  WANT(ERROR_INVALID_VALUE, cuPointerGetAttribute(&type, CU_POINTER_MEMORY_TYPE, (CUdeviceptr)x));
}

}  // namespace

const Case memory_cases[] = {{"before_init", before_init}, {"devices", devices},       {"no_device", no_device},
                             {"init_error", init_error},   {"contexts", contexts},     {"out_of_memory", out_of_memory},
                             {"copies", copies},           {nullptr, nullptr}};
