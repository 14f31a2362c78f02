// Runs probes on device 0, through the CUDA runtime.
#pragma once
#include <cuda_runtime.h>

static void ok(cudaError_t e, const char* what) {
  if (e != cudaSuccess) die(what, cudaGetErrorString(e));
}

struct runner {
  uint32_t *in, *out;
  char* scratch;
  cudaDeviceProp properties;

  explicit runner(const uint32_t* host_in) {
    ok(cudaGetDeviceProperties(&properties, 0), "device 0");
    ok(cudaMalloc((void**)&in, probe_in_words * 4), "cudaMalloc");
    ok(cudaMalloc((void**)&out, probe_out_words * 4), "cudaMalloc");
    ok(cudaMalloc((void**)&scratch, probe_scratch_bytes), "cudaMalloc");
    ok(cudaMemcpy(in, host_in, probe_in_words * 4, cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  const char* device() const { return properties.name; }

  void operator()(const probe& p, uint32_t* host_out) {
    ok(cudaMemset(out, 0, probe_out_words * 4), "cudaMemset");
    ok(cudaMemset(scratch, 0, probe_scratch_bytes), "cudaMemset");
    uint64_t words = probe_in_words;
    void* params[] = {&in, &out, &scratch, &words};
    ok(cudaFuncSetAttribute((const void*)p.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)p.shared), p.name);
    ok(cudaLaunchKernel((const void*)p.kernel, dim3(p.grid), dim3(p.block), params, p.shared, 0), p.name);
    ok(cudaDeviceSynchronize(), p.name);
    ok(cudaMemcpy(host_out, out, probe_out_words * 4, cudaMemcpyDeviceToHost), "cudaMemcpy");
  }
};
