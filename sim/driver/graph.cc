// Graphs: what a capture gave, made executable and launched.
#include "entry.h"

namespace vg_driver {
namespace {

int type_of(const Work& work) {
  if (std::holds_alternative<Launch>(work)) return CU_NODE_KERNEL;
  if (std::holds_alternative<Copy>(work)) return CU_NODE_MEMCPY;
  if (std::holds_alternative<Fill>(work)) return CU_NODE_MEMSET;
  if (std::holds_alternative<HostCall>(work)) return CU_NODE_HOST;
  if (std::holds_alternative<RecordEvent>(work)) return CU_NODE_EVENT_RECORD;
  return CU_NODE_EMPTY;
}

CUgraphExec instantiate(const std::shared_ptr<Context>& context, const Graph& graph) {
  Driver& d = driver();
  auto exec = std::make_shared<GraphExec>();
  exec->context = context;
  exec->number = d.stats.graphs.size();
  GraphStats stats;
  for (const auto& node : graph.nodes) {
    auto copy = std::make_shared<Node>();
    copy->work = node->work;
    copy->index = exec->nodes.size();
    for (const Node* before : node->after) copy->after.push_back(exec->nodes[before->index].get());
    exec->index[node->handle] = copy->index;
    exec->nodes.push_back(copy);
    const int type = type_of(node->work);
    stats.nodes++;
    stats.kernels += type == CU_NODE_KERNEL;
    stats.copies += type == CU_NODE_MEMCPY;
    stats.fills += type == CU_NODE_MEMSET;
  }
  d.stats.graphs.push_back(stats);
  return exec->handle = d.execs.add(exec);
}

// Submits a graph's nodes, each after those it must come after, and all after
// what the stream and the graph's former launch have submitted.
void launch(GraphExec& exec, Stream& stream) {
  Driver& d = driver();
  not_while_capturing(stream);  // graphs within graphs are not simulated
  check(exec.context == stream.context, CUDA_ERROR_INVALID_VALUE, "graph and stream belong to different contexts");
  std::vector<OpPtr> start = before_next(stream);
  if (exec.last && !exec.last->done) start.push_back(exec.last);
  const OpPtr begin = enqueue(stream.context, std::move(start), std::monostate());
  std::vector<OpPtr> ops;
  for (const auto& node : exec.nodes) {
    std::vector<OpPtr> after;
    for (const Node* before : node->after) after.push_back(ops[before->index]);
    if (after.empty()) after.push_back(begin);
    Work work = node->work;
    RecordEvent* const event = std::get_if<RecordEvent>(&work);
    std::shared_ptr<Record> record;
    if (event) event->record = record = std::make_shared<Record>();
    const std::shared_ptr<Event> recorded = event ? event->event : nullptr;
    ops.push_back(enqueue(stream.context, std::move(after), std::move(work)));
    if (recorded) {
      record->op = ops.back();
      recorded->last = record;
    }
  }
  ops.push_back(begin);
  stream.last = exec.last = enqueue(stream.context, std::move(ops), std::monostate());
  d.stats.graphs[exec.number].launches++;
  if (d.config.blocking) wait_for({stream.last});
}

CUresult exec_update(CUgraphExec handle, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v2* params) {
  check(params != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
  const auto exec = driver().execs.get(handle);
  const auto at = exec->index.find(node);
  check(at != exec->index.end(), CUDA_ERROR_INVALID_VALUE, "the graph has no such node");
  Node& own = *exec->nodes[at->second];
  check(std::holds_alternative<Launch>(own.work), CUDA_ERROR_INVALID_VALUE, "not a kernel node");
  own.work = make_launch(params->func, {params->gridDimX, params->gridDimY, params->gridDimZ},
                         {params->blockDimX, params->blockDimY, params->blockDimZ}, params->sharedMemBytes, params->kernelParams,
                         params->extra);
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace vg_driver

using namespace vg_driver;
using ContextPtr = std::shared_ptr<Context>;

VG_API CUresult cuGraphDestroy(CUgraph handle) {
  return entry(__func__, [&](const ContextPtr&) {
    const auto graph = driver().graphs.get(handle, CUDA_ERROR_INVALID_VALUE);
    for (const auto& node : graph->nodes) driver().nodes.remove(node->handle);
    driver().graphs.remove(handle);
  });
}

// nodes may be null: then *count gets how many there are.
VG_API CUresult cuGraphGetNodes(CUgraph handle, CUgraphNode* nodes, size_t* count) {
  return entry(__func__, [&](const ContextPtr&) {
    check(count != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    const auto graph = driver().graphs.get(handle, CUDA_ERROR_INVALID_VALUE);
    const size_t there = graph->nodes.size(), room = nodes ? *count : 0;
    for (size_t i = 0; i < room; i++) nodes[i] = i < there ? graph->nodes[i]->handle : nullptr;
    if (!nodes || there < room) *count = there;
  });
}

VG_API CUresult cuGraphNodeGetType(CUgraphNode node, int* type) {
  return entry(__func__, [&](const ContextPtr&) {
    check(type != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *type = type_of(driver().nodes.get(node, CUDA_ERROR_INVALID_VALUE)->work);
  });
}

VG_API CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode handle, CUDA_KERNEL_NODE_PARAMS_v2* params) {
  return entry(__func__, [&](const ContextPtr&) {
    check(params != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    const auto node = driver().nodes.get(handle, CUDA_ERROR_INVALID_VALUE);
    Launch* launch = std::get_if<Launch>(&node->work);
    check(launch != nullptr, CUDA_ERROR_INVALID_VALUE, "not a kernel node");
    node->param_pointers.clear();
    for (uint64_t& a : launch->args) node->param_pointers.push_back(&a);
    *params = {};
    params->func = launch->function->handle;
    params->gridDimX = launch->grid;
    params->blockDimX = launch->block;
    params->gridDimY = params->gridDimZ = params->blockDimY = params->blockDimZ = 1;
    params->sharedMemBytes = (unsigned)launch->shared;
    params->kernelParams = node->param_pointers.data();
  });
}

VG_API CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v2* params) {
  return entry(__func__, [&](const ContextPtr&) { return exec_update(exec, node, params); });
}

VG_API CUresult cuGraphInstantiateWithFlags(CUgraphExec* out, CUgraph handle, unsigned long long) {
  return entry(__func__, [&](const ContextPtr& context) {
    check(out != nullptr, CUDA_ERROR_INVALID_VALUE, "null");
    *out = instantiate(context, *driver().graphs.get(handle, CUDA_ERROR_INVALID_VALUE));
  });
}

// The form of CUDA 11, with room for an error message.
VG_API CUresult cuGraphInstantiate_v2(CUgraphExec* out, CUgraph handle, CUgraphNode* node, char* log, size_t bytes) {
  if (node) *node = nullptr;
  if (log && bytes) *log = 0;
  return cuGraphInstantiateWithFlags(out, handle, 0);
}

VG_API CUresult cuGraphUpload(CUgraphExec exec, CUstream stream) {
  return entry(__func__, [&](const ContextPtr& context) {
    driver().execs.get(exec);
    find_stream(context, stream);
  });
}

VG_API CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
  return entry(__func__, [&](const ContextPtr& context) {
    launch(*driver().execs.get(exec), *find_stream(context, stream));
    return context->sticky;
  });
}

VG_API CUresult cuGraphExecDestroy(CUgraphExec handle) {
  return entry(__func__, [&](const ContextPtr&) {
    driver().execs.get(handle);
    driver().execs.remove(handle);
  });
}
