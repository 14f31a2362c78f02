// Capture, graphs, and what is not allowed meanwhile.
#include <thread>

#include "cases.h"

namespace {

struct World {
  CUfunction add;
  CUstream s, t;
  CUdeviceptr x;
  float* host;
};

World world() {
  World w;
  start();
  w.add = find_function("add");
  OK(cuStreamCreate(&w.s, CU_STREAM_NON_BLOCKING));
  OK(cuStreamCreate(&w.t, CU_STREAM_NON_BLOCKING));
  OK(cuMemAlloc_v2(&w.x, 4096));
  OK(cuMemsetD32_v2(w.x, 0, 1024));
  OK(cuMemAllocHost_v2((void**)&w.host, 4096));
  OK(cuCtxSynchronize());
  return w;
}

CUresult add(const World& w, CUstream s, CUdeviceptr x, uint64_t k) { return launch(w.add, 1, 128, 0, s, x, x, uint64_t{100}, k); }

float value(CUdeviceptr x) {
  float v = -1;
  OK(cuCtxSynchronize());
  OK(cuMemcpyDtoH_v2(&v, x, 4));
  return v;
}

CUgraphExec instantiate(CUgraph graph) {
  CUgraphExec exec;
  OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
  return exec;
}

// A step as a trainer makes it: copy in, kernels, copy out.
void graph() {
  World w = world();
  CUgraph g;
  int status;
  OK(cuStreamBeginCapture_v2(w.s, CU_CAPTURE_THREAD_LOCAL));
  OK(cuStreamIsCapturing(w.s, &status));
  CHECK(status == CU_CAPTURE_ACTIVE);
  OK(cuMemcpyHtoDAsync_v2(w.x, w.host, 400, w.s));
  OK(add(w, w.s, w.x, 1));
  OK(add(w, w.s, w.x, 10));
  OK(cuMemcpyDtoHAsync_v2(w.host + 512, w.x, 400, w.s));
  OK(cuStreamEndCapture(w.s, &g));
  CHECK(value(w.x) == 0);  // nothing has run
  size_t nodes = 0;
  OK(cuGraphGetNodes(g, nullptr, &nodes));
  CHECK(nodes == 4);
  CUgraphNode list[4];
  OK(cuGraphGetNodes(g, list, &nodes));
  int type;
  OK(cuGraphNodeGetType(list[1], &type));
  CHECK(type == CU_NODE_KERNEL);
  const CUgraphExec exec = instantiate(g);
  for (int step = 0; step < 2; step++) {
    w.host[0] = (float)(100 * step);
    OK(cuGraphLaunch(exec, w.s));
    CHECK(w.host[512] != w.host[512]);  // NaN until the host waits
    OK(cuStreamSynchronize(w.s));
    CHECK(w.host[512] == (float)(100 * step + 11));
  }
  CUDA_KERNEL_NODE_PARAMS_v2 params;
  OK(cuGraphKernelNodeGetParams_v2(list[1], &params));
  CHECK(params.func == w.add && params.gridDimX == 1 && params.blockDimX == 128);
  CHECK(*(CUdeviceptr*)params.kernelParams[0] == w.x && *(uint64_t*)params.kernelParams[3] == 1);
  uint64_t k = 2;
  void* changed[] = {params.kernelParams[0], params.kernelParams[1], params.kernelParams[2], &k};
  params.kernelParams = changed;
  OK(cuGraphExecKernelNodeSetParams_v2(exec, list[1], &params));
  OK(cuGraphLaunch(exec, w.s));
  OK(cuStreamSynchronize(w.s));
  CHECK(w.host[512] == 112);
  OK(cuGraphDestroy(g));
  OK(cuGraphLaunch(exec, w.s));  // does not need the graph any more
  OK(cuGraphExecDestroy(exec));
  CHECK(value(w.x) == 112);
  WANT(ERROR_INVALID_HANDLE, cuGraphLaunch(exec, w.s));
}

// A graph does not overlap itself, in whatever streams it is launched.
void two_streams() {
  World w = world();
  CUgraph g;
  OK(cuStreamBeginCapture_v2(w.s, CU_CAPTURE_GLOBAL));
  OK(launch(w.add, 1, 128, 0, w.s, w.x, w.x + 1024, uint64_t{100}, uint64_t{1}));
  OK(launch(w.add, 1, 128, 0, w.s, w.x + 1024, w.x, uint64_t{100}, uint64_t{1}));
  OK(cuStreamEndCapture(w.s, &g));
  const CUgraphExec exec = instantiate(g);
  for (int i = 0; i < 10; i++) {
    OK(cuGraphLaunch(exec, w.s));
    OK(cuGraphLaunch(exec, w.t));
  }
  CHECK(value(w.x) == 40);
}

// A second stream joins through events; the graph keeps the order they made.
void fork() {
  World w = world();
  CUevent a, b;
  OK(cuEventCreate(&a, CU_EVENT_DISABLE_TIMING));
  OK(cuEventCreate(&b, CU_EVENT_DISABLE_TIMING));
  CUgraph g;
  OK(cuStreamBeginCapture_v2(w.s, CU_CAPTURE_GLOBAL));
  OK(add(w, w.s, w.x, 1));
  OK(cuEventRecord(a, w.s));
  OK(cuStreamWaitEvent(w.t, a, 0));
  OK(launch(w.add, 1, 128, 0, w.t, w.x, w.x + 1024, uint64_t{100}, uint64_t{5}));  // from w.x, on the other stream
  OK(launch(w.add, 1, 128, 0, w.s, w.x, w.x + 2048, uint64_t{100}, uint64_t{7}));
  OK(cuEventRecord(b, w.t));
  OK(cuStreamWaitEvent(w.s, b, 0));
  OK(launch(w.add, 1, 128, 0, w.s, w.x + 1024, w.x, uint64_t{100}, uint64_t{100}));
  OK(cuStreamEndCapture(w.s, &g));
  const CUgraphExec exec = instantiate(g);
  for (int i = 0; i < 20; i++) OK(cuGraphLaunch(exec, w.s));
  CHECK(value(w.x) == 20 * 106);
  CHECK(value(w.x + 2048) == 19 * 106 + 8);
  // A stream that is not joined again.
  OK(cuStreamBeginCapture_v2(w.s, CU_CAPTURE_GLOBAL));
  OK(cuEventRecord(a, w.s));
  OK(cuStreamWaitEvent(w.t, a, 0));
  OK(add(w, w.t, w.x, 1));
  WANT(ERROR_STREAM_CAPTURE_UNMATCHED, cuStreamEndCapture(w.t, &g));
  WANT(ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(w.s, &g));
  OK(cuStreamBeginCapture_v2(w.s, CU_CAPTURE_GLOBAL));
  OK(cuEventRecord(a, w.s));
  OK(cuStreamWaitEvent(w.t, a, 0));
  OK(add(w, w.t, w.x, 1));
  WANT(ERROR_STREAM_CAPTURE_UNJOINED, cuStreamEndCapture(w.s, &g));
  OK(add(w, w.t, w.x, 1));  // free again
  CHECK(value(w.x) == 20 * 106 + 1);
}

// Runs a call during a capture: it must give this result and spoil the capture.
template <class Call>
void spoils(const World& w, int result, Call call, int line) {
  CUgraph g = (CUgraph)1;
  int status;
  OK(cuStreamBeginCapture_v2(w.s, CU_CAPTURE_GLOBAL));
  OK(add(w, w.s, w.x, 1));
  const int got = call();
  if (got != result) {
    printf("capture.cc:%d: %s, want %s\n", line, error_name(got), error_name(result));
    exit(1);
  }
  OK(cuStreamIsCapturing(w.s, &status));
  CHECK(status == CU_CAPTURE_INVALIDATED);
  WANT(ERROR_STREAM_CAPTURE_INVALIDATED, add(w, w.s, w.x, 1));
  WANT(ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(w.s, &g));
  CHECK(g == nullptr);
}
#define SPOILS(result, call) spoils(w, CUDA_##result, [&] { return call; }, __LINE__)

void illegal() {
  World w = world();
  float v;
  CUdeviceptr p;
  void* h;
  CUevent e, in, outside;
  CUmodule m;
  OK(cuEventCreate(&e, 0));
  OK(cuEventCreate(&in, 0));
  OK(cuEventCreate(&outside, 0));
  SPOILS(ERROR_STREAM_CAPTURE_UNSUPPORTED, cuStreamSynchronize(w.s));
  SPOILS(ERROR_STREAM_CAPTURE_UNSUPPORTED, cuCtxSynchronize());
  SPOILS(ERROR_STREAM_CAPTURE_UNSUPPORTED, cuStreamQuery(w.s));
  SPOILS(ERROR_STREAM_CAPTURE_UNSUPPORTED, cuMemcpyDtoH_v2(&v, w.x, 4));
  SPOILS(ERROR_STREAM_CAPTURE_UNSUPPORTED, cuMemcpyHtoD_v2(w.x, &v, 4));
  SPOILS(ERROR_STREAM_CAPTURE_UNSUPPORTED, cuMemAlloc_v2(&p, 16));
  SPOILS(ERROR_STREAM_CAPTURE_UNSUPPORTED, cuMemFree_v2(w.x));
  SPOILS(ERROR_STREAM_CAPTURE_UNSUPPORTED, cuMemAllocHost_v2(&h, 16));
  SPOILS(ERROR_STREAM_CAPTURE_UNSUPPORTED, cuMemAllocAsync(&p, 16, w.s));
  SPOILS(ERROR_STREAM_CAPTURE_UNSUPPORTED, cuModuleLoad(&m, getenv("VITGEN_CUDA_IMAGE")));
  SPOILS(ERROR_STREAM_CAPTURE_UNSUPPORTED, cuEventSynchronize(e));
  SPOILS(ERROR_STREAM_CAPTURE_UNSUPPORTED, cuMemcpyHtoDAsync_v2(w.x, &v, 4, w.s));  // pageable
  const auto captured = [&] {
    OK(cuEventRecord(in, w.s));
    return cuEventSynchronize(in);
  };
  SPOILS(ERROR_CAPTURED_EVENT, captured());
  OK(cuEventRecord(outside, w.t));
  SPOILS(ERROR_STREAM_CAPTURE_ISOLATION, cuStreamWaitEvent(w.s, outside, 0));
  // A global capture forbids it to other threads too.
  CUcontext context;
  OK(cuCtxGetCurrent(&context));
  const auto elsewhere = [&] {
    CUresult result;
    std::thread([&] {
      OK(cuCtxSetCurrent(context));
      result = cuMemAlloc_v2(&p, 16);
    }).join();
    return result;
  };
  SPOILS(ERROR_STREAM_CAPTURE_UNSUPPORTED, elsewhere());
  OK(elsewhere());

  // The default stream would wait for a blocking stream that is captured.
  CUstream blocking;
  CUgraph g;
  OK(cuStreamCreate(&blocking, 0));
  OK(cuStreamBeginCapture_v2(blocking, CU_CAPTURE_RELAXED));
  WANT(ERROR_STREAM_CAPTURE_IMPLICIT, add(w, nullptr, w.x, 1));
  WANT(ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(blocking, &g));
  // A thread-local capture is no business of another thread, nor ended by it.
  OK(cuStreamBeginCapture_v2(w.s, CU_CAPTURE_THREAD_LOCAL));
  OK(elsewhere());
  std::thread([&] {
    OK(cuCtxSetCurrent(context));
    WANT(ERROR_STREAM_CAPTURE_WRONG_THREAD, cuStreamEndCapture(w.s, &g));
  }).join();
  OK(cuStreamEndCapture(w.s, &g));
  CHECK(value(w.x) == 0);
}

// Staging memory that is filled again while a launched graph has yet to read it.
void graph_race() {
  World w = world();
  CUgraph g;
  OK(cuStreamBeginCapture_v2(w.s, CU_CAPTURE_GLOBAL));
  OK(cuMemcpyHtoDAsync_v2(w.x, w.host, 400, w.s));
  OK(add(w, w.s, w.x, 1));
  OK(cuStreamEndCapture(w.s, &g));
  const CUgraphExec exec = instantiate(g);
  CUevent e;
  OK(cuEventCreate(&e, 0));
  w.host[0] = 1;
  OK(cuGraphLaunch(exec, w.s));
  OK(cuEventRecord(e, w.s));
  OK(cuEventSynchronize(e));
  w.host[0] = 2;  // allowed now
  OK(cuGraphLaunch(exec, w.s));
  w.host[0] = 3;
  WANT(ERROR_LAUNCH_FAILED, cuStreamSynchronize(w.s));
}

// A graph that outlives the memory it copies.
void freed(bool host) {
  World w = world();
  CUgraph g;
  OK(cuStreamBeginCapture_v2(w.s, CU_CAPTURE_GLOBAL));
  OK(cuMemcpyHtoDAsync_v2(w.x, w.host, 400, w.s));
  OK(cuStreamEndCapture(w.s, &g));
  const CUgraphExec exec = instantiate(g);
  OK(cuGraphLaunch(exec, w.s));
  OK(host ? cuMemFreeHost(w.host) : cuMemFree_v2(w.x));  // waits first
  OK(cuGraphLaunch(exec, w.s));
  WANT(ERROR_ILLEGAL_ADDRESS, cuStreamSynchronize(w.s));
}
void freed_device() { freed(false); }
void freed_host() { freed(true); }

// An event in a graph, recorded each time that the graph is launched.
void timed_graph() {
  World w = world();
  CUgraph g;
  CUevent a, b;
  OK(cuEventCreate(&a, 0));
  OK(cuEventCreate(&b, 0));
  OK(cuStreamBeginCapture_v2(w.s, CU_CAPTURE_GLOBAL));
  OK(cuEventRecordWithFlags(a, w.s, CU_EVENT_RECORD_EXTERNAL));
  OK(add(w, w.s, w.x, 1));
  OK(cuEventRecordWithFlags(b, w.s, CU_EVENT_RECORD_EXTERNAL));
  OK(cuStreamEndCapture(w.s, &g));
  const CUgraphExec exec = instantiate(g);
  for (int i = 0; i < 2; i++) {
    OK(cuGraphLaunch(exec, w.s));
    OK(cuEventSynchronize(b));
    float ms = -1;
    OK(cuEventElapsedTime(&ms, a, b));
    CHECK(ms > 0);
  }
}

}  // namespace

const Case capture_cases[] = {{"graph", graph}, {"two_streams", two_streams}, {"fork", fork}, {"illegal", illegal},
                              {"graph_race", graph_race}, {"freed_device", freed_device}, {"freed_host", freed_host},
                              {"timed_graph", timed_graph}, {nullptr, nullptr}};
