// Streams as queues of operations that run when the host waits for them.
//
// An operation becomes ready when all that it must come after is done. Among
// those that are ready, the random numbers of VITGEN_SIM_SEED choose; waiting
// for one stream sometimes runs what is ready in others too. What is not
// ordered by streams, events or graphs therefore comes in any order.
#include <algorithm>
#include <unordered_map>

#include "driver.h"

namespace vg_driver {
namespace {

// The operations that are left to do before `targets` are, targets included.
struct Plan {
  std::unordered_map<Op*, int> missing;               // how many come before it
  std::unordered_map<Op*, std::vector<Op*>> next;
  std::vector<OpPtr> ready;
  std::unordered_map<Op*, OpPtr> owner;

  void add(const std::vector<OpPtr>& targets) {
    std::vector<OpPtr> open = targets;
    while (!open.empty()) {
      const OpPtr op = open.back();
      open.pop_back();
      if (!op || op->done || missing.count(op.get())) continue;
      int before = 0;
      for (const OpPtr& b : op->after) {
        if (b->done) continue;
        before++;
        next[b.get()].push_back(op.get());
        open.push_back(b);
      }
      missing[op.get()] = before;
      owner[op.get()] = op;
      if (before == 0) ready.push_back(op);
    }
  }

  // Seeds 0 and ~0 take the first and the last submitted, like the simulator.
  size_t choose(Driver& d) {
    const auto earlier = [](const OpPtr& a, const OpPtr& b) { return a->number < b->number; };
    if (d.config.seed == 0) return std::min_element(ready.begin(), ready.end(), earlier) - ready.begin();
    if (d.config.seed == ~uint64_t{0}) return std::max_element(ready.begin(), ready.end(), earlier) - ready.begin();
    return d.random() % ready.size();
  }

  void run_all(Driver& d) {
    while (!ready.empty()) {
      std::swap(ready[choose(d)], ready.back());
      const OpPtr op = ready.back();
      ready.pop_back();
      run(*op);
      for (Op* n : next[op.get()]) {
        if (--missing[n] == 0) ready.push_back(owner[n]);
      }
    }
  }
};

std::vector<OpPtr> all_pending(size_t most) {
  std::vector<OpPtr> ops;
  for (const auto& [number, op] : driver().pending) {
    if (ops.size() == most) break;
    ops.push_back(op);
  }
  return ops;
}

}  // namespace

// A stream by its handle, one of which stands for the default stream, and one
// for a stream that each thread has of its own.
std::shared_ptr<Stream> find_stream(const std::shared_ptr<Context>& context, CUstream handle) {
  if (handle == nullptr || handle == CU_STREAM_LEGACY) return context->legacy;
  if (handle == CU_STREAM_PER_THREAD) {
    std::shared_ptr<Stream>& own = context->per_thread[std::this_thread::get_id()];
    if (!own) {
      own = std::make_shared<Stream>();
      own->context = context;
    }
    return own;
  }
  std::shared_ptr<Stream> stream = driver().streams.get(handle);
  check(stream->context == context, CUDA_ERROR_INVALID_HANDLE, "the stream belongs to another context");
  return stream;
}

namespace {

// Calls body with every blocking stream of a context but its default one.
template <class Body>
void each_blocking(const Context& context, Body body) {
  for (const auto& [thread, stream] : context.per_thread) body(*stream);
  for (const auto& [handle, stream] : driver().streams.all()) {
    if (stream->context.get() == &context && stream->blocking) body(*stream);
  }
}

}  // namespace

std::vector<OpPtr> before_next(Stream& stream) {
  std::vector<OpPtr> after;
  const auto add = [&after](const OpPtr& op) {
    if (op && !op->done) after.push_back(op);
  };
  add(stream.last);
  Context& context = *stream.context;
  if (&stream == context.legacy.get()) {
    each_blocking(context, [&](Stream& s) { add(s.last); });
  } else if (stream.blocking) {
    add(context.legacy->last);
  }
  return after;
}

OpPtr enqueue(const std::shared_ptr<Context>& context, std::vector<OpPtr> after, Work work) {
  Driver& d = driver();
  if (d.pending.size() >= d.config.queue) wait_for(all_pending(d.pending.size() / 2));
  if (Copy* copy = std::get_if<Copy>(&work)) prepare(*copy);
  auto op = std::make_shared<Op>();
  op->number = ++d.submitted;
  op->context = context;
  op->work = std::move(work);
  op->after = std::move(after);
  d.pending[op->number] = op;
  return op;
}

OpPtr submit(Stream& stream, Work work) {
  Context& context = *stream.context;
  if (stream.capture) {
    capture_work(stream, std::move(work));
    return nullptr;
  }
  if (&stream == context.legacy.get()) {
    each_blocking(context, [](Stream& s) {
      if (!s.capture) return;
      invalidate(*s.capture);
      fail(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "the default stream would have to wait for a stream that is being captured");
    });
  }
  const bool launch = std::holds_alternative<Launch>(work);
  stream.last = enqueue(stream.context, before_next(stream), std::move(work));
  const OpPtr op = stream.last;
  if (launch && driver().config.blocking) wait_for({op});
  return op;
}

void wait_for(const std::vector<OpPtr>& targets) {
  Driver& d = driver();
  Plan plan;
  plan.add(targets);
  if (plan.missing.empty()) return;
  if (d.config.seed != 0 && d.random() % 4 == 0) plan.add(all_pending(d.pending.size()));
  plan.run_all(d);
}

void wait_for_stream(Stream& stream) {
  std::vector<OpPtr> targets = {stream.last};
  if (&stream == stream.context->legacy.get()) targets = before_next(stream);
  wait_for(targets);
}

void wait_for_context(const Context& context) {
  std::vector<OpPtr> targets;
  for (const auto& [number, op] : driver().pending) {
    if (op->context.get() == &context) targets.push_back(op);
  }
  wait_for(targets);
}

// A program that polls must see an end, so each poll runs one operation, and
// says what was so before.
bool poll(const std::vector<OpPtr>& targets) {
  const auto left = [](const OpPtr& op) { return op && !op->done; };
  const auto found = std::find_if(targets.begin(), targets.end(), left);
  if (found == targets.end()) return true;
  OpPtr op = *found;
  for (;;) {  // to one that is ready
    const auto before = std::find_if(op->after.begin(), op->after.end(), left);
    if (before == op->after.end()) break;
    op = OpPtr(*before);
  }
  run(*op);
  return false;
}

}  // namespace vg_driver
