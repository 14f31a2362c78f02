// Streams and events.
#include "entry.h"

namespace vg_driver {
namespace {

// Waits for an event, within a capture or out of it.
void wait_event(const std::shared_ptr<Stream>& stream, Event& event) {
  if (event.capture) {
    if (!event.capture->valid) fail(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the event's capture failed");
    check(event.capture->origin != nullptr, CUDA_ERROR_CAPTURED_EVENT, "the event was recorded in a capture that has ended");
    if (!stream->capture) {  // the stream joins
      check(stream != stream->context->legacy, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "the default stream cannot be captured");
      stream->capture = event.capture;
      stream->tail.clear();
      event.capture->streams.push_back(stream);
    }
    if (stream->capture != event.capture) {
      invalidate(*stream->capture);
      invalidate(*event.capture);
      fail(CUDA_ERROR_STREAM_CAPTURE_MERGE, "the event belongs to another capture");
    }
    for (Node* node : event.tail) stream->tail.push_back(node);
    return;
  }
  if (!event.last || (event.last->op->done && !stream->capture)) return;
  if (stream->capture) {
    invalidate(*stream->capture);
    fail(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "a captured stream cannot wait for work outside the capture");
  }
  std::vector<OpPtr> after = before_next(*stream);
  after.push_back(event.last->op);
  stream->last = enqueue(stream->context, std::move(after), std::monostate());
}

void record(const std::shared_ptr<Context>& context, CUevent handle, CUstream to, unsigned flags) {
  check((flags & ~(unsigned)CU_EVENT_RECORD_EXTERNAL) == 0, CUDA_ERROR_INVALID_VALUE, "unknown flags");
  const auto event = driver().events.get(handle);
  const auto stream = find_stream(context, to);
  check(event->context == stream->context, CUDA_ERROR_INVALID_HANDLE, "event and stream belong to different contexts");
  if (stream->capture && !(flags & CU_EVENT_RECORD_EXTERNAL)) {
    check(stream->capture->valid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture has failed");
    event->capture = stream->capture;
    event->tail = stream->tail;
    return;
  }
  auto record = std::make_shared<Record>();
  record->op = submit(*stream, RecordEvent{event, record});
  if (!record->op) return;  // a node of a graph, which records when it is launched
  event->last = record;
  event->capture.reset();
  event->tail.clear();
}

// Fails for an event that only stands for a place in a capture.
void not_captured(Event& event) {
  if (!event.capture) return;
  invalidate(*event.capture);
  fail(CUDA_ERROR_CAPTURED_EVENT, "the event was recorded in a capture");
}

CUresult elapsed(float* ms, CUevent from, CUevent to) {
  check(ms != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
  const auto a = driver().events.get(from), b = driver().events.get(to);
  not_captured(*a);
  not_captured(*b);
  check(!((a->flags | b->flags) & CU_EVENT_DISABLE_TIMING), CUDA_ERROR_INVALID_HANDLE, "an event without timing");
  check(a->last && b->last, CUDA_ERROR_INVALID_HANDLE, "an event that was never recorded");
  if (!a->last->op->done || !b->last->op->done) return CUDA_ERROR_NOT_READY;
  *ms = (float)(b->last->ms - a->last->ms);
  return CUDA_SUCCESS;
}

CUresult create(CUstream* out, unsigned flags, int priority, const std::shared_ptr<Context>& context) {
  check(out != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
  check((flags & ~(unsigned)CU_STREAM_NON_BLOCKING) == 0, CUDA_ERROR_INVALID_VALUE, "unknown flags");
  auto stream = std::make_shared<Stream>();
  stream->context = context;
  stream->flags = flags;
  stream->blocking = !(flags & CU_STREAM_NON_BLOCKING);
  stream->priority = std::min(0, std::max(-5, priority));
  *out = stream->handle = driver().streams.add(stream);
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace vg_driver

using namespace vg_driver;
using ContextPtr = std::shared_ptr<Context>;

VG_API CUresult cuStreamCreate(CUstream* out, unsigned flags) {
  return entry(__func__, [&](const ContextPtr& c) { return create(out, flags, 0, c); });
}
VG_API CUresult cuStreamCreateWithPriority(CUstream* out, unsigned flags, int priority) {
  return entry(__func__, [&](const ContextPtr& c) { return create(out, flags, priority, c); });
}

// What was submitted still runs.
VG_API CUresult cuStreamDestroy_v2(CUstream handle) {
  return entry(__func__, [&](const ContextPtr&) {
    const auto stream = driver().streams.get(handle);
    if (const std::shared_ptr<Capture> capture = stream->capture) {
      invalidate(*capture);
      if (capture->origin == stream.get()) end_capture(*capture);
    }
    driver().streams.remove(handle);
  });
}

VG_API CUresult cuStreamGetFlags(CUstream handle, unsigned* flags) {
  return entry(__func__, [&](const ContextPtr& c) {
    check(flags != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *flags = find_stream(c, handle)->flags;
  });
}
VG_API CUresult cuStreamGetPriority(CUstream handle, int* priority) {
  return entry(__func__, [&](const ContextPtr& c) {
    check(priority != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *priority = find_stream(c, handle)->priority;
  });
}
VG_API CUresult cuStreamGetCtx(CUstream handle, CUcontext* out) {
  return entry(__func__, [&](const ContextPtr& c) {
    check(out != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *out = find_stream(c, handle)->context->handle;
  });
}

VG_API CUresult cuStreamSynchronize(CUstream handle) {
  return entry(__func__, [&](const ContextPtr& c) {
    const auto stream = find_stream(c, handle);
    not_while_capturing(*stream);
    forbid_in_capture();
    wait_for_stream(*stream);
    host_waited();
    return c->sticky;
  });
}

VG_API CUresult cuStreamQuery(CUstream handle) {
  return entry(__func__, [&](const ContextPtr& c) {
    const auto stream = find_stream(c, handle);
    not_while_capturing(*stream);
    forbid_in_capture();
    const bool done = poll(stream == c->legacy ? before_next(*stream) : std::vector<OpPtr>{stream->last});
    if (c->sticky != CUDA_SUCCESS) return c->sticky;
    return done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
  });
}

VG_API CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned) {
  return entry(__func__, [&](const ContextPtr& c) { wait_event(find_stream(c, handle), *driver().events.get(event)); });
}

VG_API CUresult cuLaunchHostFunc(CUstream handle, CUhostFn function, void* data) {
  return entry(__func__, [&](const ContextPtr& c) {
    check(function != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    submit(*find_stream(c, handle), HostCall{function, data});
  });
}

VG_API CUresult cuEventCreate(CUevent* out, unsigned flags) {
  return entry(__func__, [&](const ContextPtr& c) {
    check(out != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    check((flags & ~(unsigned)CU_EVENT_FLAGS_MASK) == 0, CUDA_ERROR_INVALID_VALUE, "unknown flags");
    auto event = std::make_shared<Event>();
    event->context = c;
    event->flags = flags;
    *out = event->handle = driver().events.add(event);
  });
}

VG_API CUresult cuEventDestroy_v2(CUevent event) {
  return entry(__func__, [&](const ContextPtr&) {
    driver().events.get(event);
    driver().events.remove(event);
  });
}

VG_API CUresult cuEventRecord(CUevent event, CUstream stream) {
  return entry(__func__, [&](const ContextPtr& c) { record(c, event, stream, 0); });
}
VG_API CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags) {
  return entry(__func__, [&](const ContextPtr& c) { record(c, event, stream, flags); });
}

VG_API CUresult cuEventSynchronize(CUevent handle) {
  return entry(__func__, [&](const ContextPtr& c) {
    const auto event = driver().events.get(handle);
    not_captured(*event);
    forbid_in_capture();
    if (event->last) wait_for({event->last->op});
    host_waited();
    return c->sticky;
  });
}

VG_API CUresult cuEventQuery(CUevent handle) {
  return entry(__func__, [&](const ContextPtr& c) {
    const auto event = driver().events.get(handle);
    not_captured(*event);
    forbid_in_capture();
    const bool done = !event->last || poll({event->last->op});
    if (c->sticky != CUDA_SUCCESS) return c->sticky;
    return done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
  });
}

VG_API CUresult cuEventElapsedTime(float* ms, CUevent from, CUevent to) {
  return entry(__func__, [&](const ContextPtr&) { return elapsed(ms, from, to); });
}
VG_API CUresult cuEventElapsedTime_v2(float* ms, CUevent from, CUevent to) { return cuEventElapsedTime(ms, from, to); }
