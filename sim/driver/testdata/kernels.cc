// Modules, launches, their limits, and faults.
#include "cases.h"

namespace {

void launches() {
  start();
  const CUfunction add = find_function("add");
  const int n = 1000;
  CUdeviceptr x, y;
  OK(cuMemAlloc_v2(&x, n * 4));
  OK(cuMemAlloc_v2(&y, n * 4));
  float host[n];
  for (int i = 0; i < n; i++) host[i] = (float)i;
  OK(cuMemcpyHtoD_v2(x, host, n * 4));
  uint64_t k = 3, count = n;
  void* params[] = {&x, &y, &count, &k};
  OK(cuLaunchKernel(add, 8, 1, 1, 128, 1, 1, 0, nullptr, params, nullptr));
  k = 100, count = 0;  // the arguments were taken at the call
  OK(launch(add, 8, 128, 0, nullptr, y, y, uint64_t{n}, uint64_t{1}));
  OK(cuMemcpyDtoH_v2(host, y, n * 4));
  for (int i = 0; i < n; i++) CHECK(host[i] == (float)i + 4);
  int value;
  OK(cuFuncGetAttribute(&value, CU_FUNC_MAX_THREADS_PER_BLOCK, add));
  CHECK(value == 128);
  WANT(ERROR_INVALID_VALUE, launch(add, 8, 129, 0, nullptr, y, y, count, k));
  WANT(ERROR_INVALID_VALUE, launch(add, 0, 128, 0, nullptr, y, y, count, k));
  WANT(ERROR_INVALID_VALUE, cuLaunchKernel(add, 8, 2, 1, 128, 1, 1, 0, nullptr, params, nullptr));
  WANT(ERROR_INVALID_HANDLE, launch((CUfunction)0x99, 8, 128, 0, nullptr, y, y, count, k));
  OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, add, 128, 100 << 10 >> 2));
  CHECK(value >= 1);
}

void modules() {
  start();
  const CUmodule a = load_module(), b = load_module();
  CHECK(a != b);
  CUfunction f;
  WANT(ERROR_NOT_FOUND, cuModuleGetFunction(&f, a, "nothing"));
  OK(cuModuleGetFunction(&f, a, "add"));
  OK(cuModuleUnload(a));
  WANT(ERROR_INVALID_HANDLE, cuModuleGetFunction(&f, a, "add"));
  WANT(ERROR_INVALID_HANDLE, launch(f, 1, 32, 0, nullptr, uint64_t{0}, uint64_t{0}, uint64_t{0}, uint64_t{0}));
  OK(cuModuleGetFunction(&f, b, "add"));
  CUmodule m;
  WANT(ERROR_FILE_NOT_FOUND, cuModuleLoad(&m, "/nowhere/kernels.so"));
  OK(cuModuleLoad(&m, getenv("VITGEN_CUDA_IMAGE")));

  static const char ptx[] = "//\n.version 8.0\n.target sm_80\n";
  static char log[300], garbage[4096] = "hello";
  int options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log, (void*)sizeof log};
  WANT(ERROR_NO_BINARY_FOR_GPU, cuModuleLoadDataEx(&m, ptx, 2, options, values));
  CHECK(strstr(log, "PTX; the simulated device runs shared objects") != nullptr);
  CHECK((size_t)values[1] == strlen(log) + 1);
  WANT(ERROR_INVALID_IMAGE, cuModuleLoadData(&m, garbage));
  garbage[0] = 0x7f, memcpy(garbage + 1, "ELF", 3), garbage[4] = 2, garbage[16] = 3, garbage[18] = (char)190;
  WANT(ERROR_NO_BINARY_FOR_GPU, cuModuleLoadData(&m, garbage));  // e_machine: a cubin
}

void old_chip() {  // VITGEN_SIM_DEVICE=v100
  start();
  CUmodule m;
  WANT(ERROR_NO_BINARY_FOR_GPU, cuModuleLoad(&m, getenv("VITGEN_CUDA_IMAGE")));
}

void shared_memory() {
  start();
  const CUfunction tail = find_function("tail");
  CUdeviceptr y;
  OK(cuMemAlloc_v2(&y, 256 * 4));
  float host[256];
  int limit = 0;
  OK(cuDeviceGetAttribute(&limit, 97, 0));
  const auto run = [&](unsigned bytes) { return launch(tail, 1, 256, bytes, nullptr, y, uint64_t{bytes}); };
  OK(run(48 << 10));
  WANT(ERROR_INVALID_VALUE, run((48 << 10) + 16));
  WANT(ERROR_INVALID_VALUE, cuFuncSetAttribute(tail, CU_FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES, limit + 1));
  OK(cuFuncSetAttribute(tail, CU_FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES, limit));
  OK(run(limit));
  OK(cuMemcpyDtoH_v2(host, y, sizeof host));
  for (const float x : host) CHECK(x == 7.0f);
  int blocks = 0;
  OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, tail, 256, limit));
  CHECK(blocks == 1);
}

void sticky() {
  const CUcontext context = start();
  const CUfunction diverge = find_function("diverge");
  CUdeviceptr y, z;
  OK(cuMemAlloc_v2(&y, 4096));
  OK(launch(diverge, 1, 64, 0, nullptr, y));  // it has not run yet
  WANT(ERROR_LAUNCH_FAILED, cuCtxSynchronize());
  WANT(ERROR_LAUNCH_FAILED, cuCtxSynchronize());
  WANT(ERROR_LAUNCH_FAILED, cuMemAlloc_v2(&z, 16));
  WANT(ERROR_LAUNCH_FAILED, launch(diverge, 1, 64, 0, nullptr, y));
  CHECK(strstr(vg_sim_last_fault(), "diverge") != nullptr);
  OK(cuCtxDestroy_v2(context));
  start();  // another context works
  OK(cuMemAlloc_v2(&z, 16));
}

// The kernel object is instrumented.
void out_of_bounds() {
  start();
  const CUfunction beyond = find_function("beyond");
  CUdeviceptr y;
  OK(cuMemAlloc_v2(&y, 100 * 4));
  OK(launch(beyond, 1, 64, 0, nullptr, y, uint64_t{99}));
  OK(cuCtxSynchronize());
  OK(launch(beyond, 1, 64, 0, nullptr, y, uint64_t{100}));
  WANT(ERROR_ILLEGAL_ADDRESS, cuCtxSynchronize());
}

}  // namespace

const Case kernel_cases[] = {{"launches", launches}, {"modules", modules}, {"old_chip", old_chip},
                             {"shared_memory", shared_memory}, {"sticky", sticky}, {"out_of_bounds", out_of_bounds},
                             {nullptr, nullptr}};
