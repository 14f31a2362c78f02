// Streams and events: nothing runs before somebody waits for it, and what is
// not ordered comes in any order.
#include <thread>
#include <vector>

#include "cases.h"

namespace {

struct Buffers {
  CUdeviceptr device;
  int* host;
};

Buffers buffers() {
  Buffers b;
  OK(cuMemAlloc_v2(&b.device, 4000));
  OK(cuMemAllocHost_v2((void**)&b.host, 4000));
  return b;
}

void lazy() {
  start();
  Buffers b = buffers();
  CUstream s;
  OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
  OK(cuMemsetD8Async(b.device, 1, 4000, s));
  b.host[0] = 5;
  OK(cuMemcpyDtoHAsync_v2(b.host, b.device, 4000, s));
  CHECK(b.host[0] == -1);  // neither the old nor the new value
  // The default stream does not wait for a stream that does not block.
  int x = 0;
  OK(cuMemcpyHtoD_v2(b.device, &x, 0));
  CHECK(b.host[0] == -1);
  OK(cuStreamSynchronize(s));
  CHECK(b.host[0] == 0x01010101 && b.host[999] == 0x01010101);
  // It does for one that blocks.
  CUstream t;
  OK(cuStreamCreate(&t, 0));
  OK(cuMemsetD8Async(b.device, 2, 4000, t));
  OK(cuMemcpyDtoH_v2(&x, b.device, 4));
  CHECK(x == 0x02020202);
  OK(cuStreamDestroy_v2(t));
  WANT(ERROR_INVALID_HANDLE, cuStreamSynchronize(t));
  WANT(ERROR_INVALID_HANDLE, cuStreamSynchronize((CUstream)0x1234));
}

void pageable() {
  start();
  Buffers b = buffers();
  CUstream s;
  OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
  int x = 1, y = 0;
  OK(cuMemcpyHtoDAsync_v2(b.device, &x, 4, s));
  x = 2;  // the copy was taken already
  OK(cuMemcpyDtoHAsync_v2(&y, b.device, 4, s));
  CHECK(y == 1);  // pageable memory: the host has waited
}

// Pinned memory that changes under a copy.
void host_race() {
  start();
  Buffers b = buffers();
  CUstream s;
  OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
  b.host[0] = 1;
  OK(cuMemcpyHtoDAsync_v2(b.device, b.host, 4000, s));
  b.host[0] = 2;
  WANT(ERROR_LAUNCH_FAILED, cuStreamSynchronize(s));
  CHECK(strstr(vg_sim_last_fault(), "changed while a copy") != nullptr);
}

// The same with the check off: the device gets what came later.
void host_race_unchecked() {
  start();
  Buffers b = buffers();
  CUstream s;
  OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
  b.host[0] = 1;
  OK(cuMemcpyHtoDAsync_v2(b.device, b.host, 4000, s));
  b.host[0] = 2;
  int x = 0;
  OK(cuStreamSynchronize(s));
  OK(cuMemcpyDtoH_v2(&x, b.device, 4));
  CHECK(x == 2);
}

// What the device itself puts into pinned memory before a copy is no race.
void through_host() {
  start();
  Buffers b = buffers();
  CUdeviceptr other;
  OK(cuMemAlloc_v2(&other, 4000));
  CUstream s;
  OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
  OK(cuMemsetD8Async(b.device, 3, 4000, s));
  OK(cuMemcpyDtoHAsync_v2(b.host, b.device, 4000, s));
  OK(cuMemcpyHtoDAsync_v2(other, b.host, 4000, s));
  OK(cuMemcpyDtoHAsync_v2(b.host, other, 4000, s));
  OK(cuStreamSynchronize(s));
  CHECK(b.host[999] == 0x03030303);
  OK(cuLaunchHostFunc(s, [](void* p) { *(int*)p = 9; }, b.host));
  OK(cuMemcpyHtoDAsync_v2(other, b.host, 4000, s));
  int x = 0;
  OK(cuStreamSynchronize(s));
  OK(cuMemcpyDtoH_v2(&x, other, 4));
  CHECK(x == 9);
}

void events() {
  start();
  Buffers b = buffers();
  CUstream s, t;
  OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
  OK(cuStreamCreate(&t, CU_STREAM_NON_BLOCKING));
  CUevent a, z, plain;
  OK(cuEventCreate(&a, 0));
  OK(cuEventCreate(&z, 0));
  OK(cuEventCreate(&plain, CU_EVENT_DISABLE_TIMING));
  OK(cuEventSynchronize(a));  // never recorded: nothing to wait for
  OK(cuEventQuery(a));
  OK(cuEventRecord(a, s));
  OK(cuMemsetD8Async(b.device, 4, 4000, s));
  OK(cuEventRecord(z, s));
  float ms = -1;
  WANT(ERROR_NOT_READY, cuEventElapsedTime(&ms, a, z));
  OK(cuStreamWaitEvent(t, z, 0));
  OK(cuMemcpyDtoHAsync_v2(b.host, b.device, 4000, t));
  OK(cuStreamSynchronize(t));
  CHECK(b.host[7] == 0x04040404);
  OK(cuEventElapsedTime(&ms, a, z));
  CHECK(ms >= 0 && ms < 60000);
  OK(cuEventRecord(plain, s));
  OK(cuEventSynchronize(plain));
  WANT(ERROR_INVALID_HANDLE, cuEventElapsedTime(&ms, a, plain));
  // Polling comes to an end.
  OK(cuMemsetD8Async(b.device, 5, 4000, s));
  OK(cuEventRecord(z, s));
  WANT(ERROR_NOT_READY, cuEventQuery(z));
  int polls = 1;
  while (cuEventQuery(z) == CUDA_ERROR_NOT_READY) polls++;
  CHECK(polls < 10);
  OK(cuStreamQuery(s));
  OK(cuEventDestroy_v2(z));
  WANT(ERROR_INVALID_HANDLE, cuEventRecord(z, s));
}

// Two streams without an order between them: prints what came last.
void unordered() {
  start();
  Buffers b = buffers();
  CUstream s, t;
  OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
  OK(cuStreamCreate(&t, CU_STREAM_NON_BLOCKING));
  for (int i = 0; i < 16; i++) {
    OK(cuMemsetD8Async(b.device + i, 1, 1, s));
    OK(cuMemsetD8Async(b.device + i, 2, 1, t));
  }
  OK(cuCtxSynchronize());
  unsigned char x[16];
  OK(cuMemcpyDtoH_v2(x, b.device, 16));
  for (int i = 0; i < 16; i++) printf("%d", x[i]);
  printf("\n");
}

// Work that nobody waits for piles up only so far.
void long_queue() {
  start();
  Buffers b = buffers();
  CUstream s;
  OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
  for (int i = 0; i < 20000; i++) OK(cuMemsetD8Async(b.device, (unsigned char)i, 4, s));
  CHECK(strstr(vg_sim_stats(), "\"pending\": 20000") == nullptr);
  OK(cuStreamSynchronize(s));
}

// Threads with a stream each in one context.
void threads() {
  const CUcontext context = start();
  std::vector<std::thread> all;
  for (int i = 0; i < 4; i++) {
    all.emplace_back([=] {
      OK(cuCtxSetCurrent(context));
      Buffers b = buffers();
      CUstream s;
      OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
      for (int n = 0; n < 200; n++) {
        OK(cuMemsetD8Async(b.device, (unsigned char)(n + i), 4000, s));
        OK(cuMemcpyDtoHAsync_v2(b.host, b.device, 4000, s));
        OK(cuStreamSynchronize(s));
        CHECK(b.host[999] == (int)(0x01010101u * (unsigned)((n + i) & 0xff)));
      }
      OK(cuMemFree_v2(b.device));
    });
  }
  for (std::thread& t : all) t.join();
}

void in_host_call() {
  start();
  CUstream s;
  static int result = -1;
  OK(cuStreamCreate(&s, 0));
  OK(cuLaunchHostFunc(s, [](void*) { result = cuCtxSynchronize(); }, nullptr));
  OK(cuStreamSynchronize(s));
  CHECK(result == CUDA_ERROR_NOT_PERMITTED);
}

}  // namespace

const Case stream_cases[] = {{"lazy", lazy},
                             {"pageable", pageable},
                             {"host_race", host_race},
                             {"host_race_unchecked", host_race_unchecked},
                             {"through_host", through_host},
                             {"events", events},
                             {"unordered", unordered},
                             {"long_queue", long_queue},
                             {"threads", threads},
                             {"in_host_call", in_host_call},
                             {nullptr, nullptr}};
