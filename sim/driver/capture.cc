// Stream capture: operations become nodes of a graph instead of being run.
#include <algorithm>
#include <set>

#include "entry.h"

namespace vg_driver {
namespace {

thread_local int thread_mode = CU_CAPTURE_GLOBAL;

// Whether this thread's calls could disturb a capture, in the sense of
// cuThreadExchangeStreamCaptureMode.
bool disturbs(const Capture& c) {
  if (c.mode == CU_CAPTURE_RELAXED || thread_mode == CU_CAPTURE_RELAXED) return false;
  if (c.thread == std::this_thread::get_id()) return true;
  return c.mode == CU_CAPTURE_GLOBAL && thread_mode == CU_CAPTURE_GLOBAL;
}

// Whether all of a capture's nodes come before the end of the stream it ends in.
bool joined(const Capture& c) {
  std::set<Node*> before;
  std::vector<Node*> open = c.origin->tail;
  while (!open.empty()) {
    Node* node = open.back();
    open.pop_back();
    if (!before.insert(node).second) continue;
    open.insert(open.end(), node->after.begin(), node->after.end());
  }
  return before.size() == c.graph->nodes.size();
}

}  // namespace

void forbid_in_capture() {
  bool any = false;
  for (const auto& capture : driver().captures) {
    if (!disturbs(*capture)) continue;
    any = true;
    invalidate(*capture);
  }
  if (any) fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a stream is being captured");
}

void invalidate(Capture& c) { c.valid = false; }

void not_while_capturing(Stream& stream) {
  if (!stream.capture) return;
  invalidate(*stream.capture);
  fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the stream is being captured");
}

void end_capture(Capture& c) {
  for (const auto& stream : c.streams) {
    stream->capture.reset();
    stream->tail.clear();
  }
  c.streams.clear();
  c.origin = nullptr;
  auto& all = driver().captures;
  all.erase(std::remove_if(all.begin(), all.end(), [&c](const auto& other) { return other.get() == &c; }), all.end());
}

void capture_work(Stream& stream, Work work) {
  Capture& c = *stream.capture;
  check(c.valid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture has failed");
  auto node = std::make_shared<Node>();
  node->work = std::move(work);
  node->after = stream.tail;
  node->index = c.graph->nodes.size();
  node->handle = driver().nodes.add(node);
  c.graph->nodes.push_back(node);
  stream.tail = {node.get()};
}

}  // namespace vg_driver

using namespace vg_driver;
using ContextPtr = std::shared_ptr<Context>;

VG_API CUresult cuStreamBeginCapture_v2(CUstream handle, int mode) {
  return entry(__func__, [&](const ContextPtr& context) {
    check(mode >= CU_CAPTURE_GLOBAL && mode <= CU_CAPTURE_RELAXED, CUDA_ERROR_INVALID_VALUE, "unknown mode");
    const auto stream = find_stream(context, handle);
    check(stream != context->legacy, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the default stream cannot be captured");
    not_while_capturing(*stream);
    auto capture = std::make_shared<Capture>();
    capture->mode = mode;
    capture->thread = std::this_thread::get_id();
    capture->origin = stream.get();
    capture->graph = std::make_shared<Graph>();
    capture->streams = {stream};
    stream->capture = capture;
    stream->tail.clear();
    driver().captures.push_back(capture);
  });
}

VG_API CUresult cuStreamEndCapture(CUstream handle, CUgraph* out) {
  return entry(__func__, [&](const ContextPtr& context) {
    check(out != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *out = nullptr;
    const auto stream = find_stream(context, handle);
    const std::shared_ptr<Capture> capture = stream->capture;
    check(capture != nullptr, CUDA_ERROR_INVALID_VALUE, "the stream is not being captured");
    if (capture->origin != stream.get()) {
      invalidate(*capture);
      fail(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "the capture began in another stream");
    }
    check(capture->mode == CU_CAPTURE_RELAXED || capture->thread == std::this_thread::get_id(),
          CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "the capture began in another thread");
    const bool valid = capture->valid, complete = joined(*capture);
    capture->valid = valid && complete;
    end_capture(*capture);
    if (!capture->valid) {
      for (const auto& node : capture->graph->nodes) driver().nodes.remove(node->handle);
    }
    check(valid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "a call during the capture was not allowed");
    check(complete, CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "the stream does not wait for another that joined the capture");
    *out = capture->graph->handle = driver().graphs.add(capture->graph);
  });
}

VG_API CUresult cuStreamIsCapturing(CUstream handle, int* status) {
  return entry(__func__, [&](const ContextPtr& context) {
    check(status != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    const auto stream = find_stream(context, handle);
    const Capture* c = stream->capture.get();
    *status = !c ? CU_CAPTURE_NONE : c->valid ? CU_CAPTURE_ACTIVE : CU_CAPTURE_INVALIDATED;
  });
}

VG_API CUresult cuThreadExchangeStreamCaptureMode(int* mode) {
  return entry(__func__, [&] {
    check(mode != nullptr && *mode >= CU_CAPTURE_GLOBAL && *mode <= CU_CAPTURE_RELAXED, CUDA_ERROR_INVALID_VALUE, "unknown mode");
    std::swap(*mode, thread_mode);
  });
}
