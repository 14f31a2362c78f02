// Attention and its gradient against the definition in double: one program for
// each way to multiply and to store (TEST_MATH, TEST_E); SMALL leaves the larger
// cases out. Arguments: the names of cases to run; none: all.
#include "../../cuda/attention_grad.cuh"

#include "attention_check.h"

using check::Array;
using check::gather;
using check::near;
using check::Random;
using check::Results;
using check::Shape;
using check::Tensors;
using check::text;
using check::that;

using E = TEST_E;
constexpr vg_math kMath = vg_math::TEST_MATH;
// Relative errors allowed, forward and backward.
constexpr double kForward = kMath == vg_math::bf16 || sizeof(E) == 2 ? 1e-2 : kMath == vg_math::tf32 ? 1e-3 : 2e-6;
constexpr double kBackward = kMath == vg_math::bf16 || sizeof(E) == 2 ? 2e-2 : kMath == vg_math::tf32 ? 2e-3 : 1e-5;

struct Case {
  const char* name;
  Shape shape;
  check::Launch forward, grad;
  int threads, grad_threads, tiles, key_tiles;
};
std::vector<Case> cases;

#define CALL const vg_call c{state, workspace, counters, vg_block_index(), vg_block_count()}
#define BEGIN const vg_state *state, char *workspace, uint32_t *counters

// FULL is the batch the kernels are for, BATCH that of the run.
#define ATTENTION(NAME, HEADS, DIM, TQ, TK, FIRST, TOTAL, CAUSAL, DROPOUT, FULL, BATCH, PAD) \
  using NAME##_config = vg_attention_config<kMath, HEADS, DIM, TQ, TK, FIRST, TOTAL, CAUSAL, DROPOUT>; \
  using NAME##_grad_config = \
      vg_attention_grad_config<kMath, HEADS, DIM, TQ, TK, FIRST, TOTAL, CAUSAL, DROPOUT, (int)sizeof(E)>; \
  VG_KERNEL(NAME##_config::threads + 32, 1) NAME##_forward(BEGIN, const vg_attention_args<E>* a) { \
    CALL; \
    vg_attention<NAME##_config>(c, vg_attention_args<E>(*a)); \
  } \
  VG_EXPORT(NAME##_forward) \
  VG_KERNEL(NAME##_grad_config::threads + 32, 1) NAME##_grad(BEGIN, const vg_attention_grad_args<E>* a) { \
    CALL; \
    vg_attention_grad<NAME##_grad_config>(c, vg_attention_grad_args<E>(*a)); \
  } \
  VG_EXPORT(NAME##_grad) \
  static const bool NAME##_listed = (cases.push_back({#NAME, \
      {HEADS, DIM, TQ, TK, FIRST, TOTAL, CAUSAL, DROPOUT, FULL, BATCH, PAD}, \
      {#NAME "_forward", NAME##_config::blocks(FULL), NAME##_config::shared_bytes, \
       NAME##_config::workspace_bytes(FULL), 0}, \
      {#NAME "_grad", NAME##_grad_config::blocks(FULL), NAME##_grad_config::shared_bytes, \
       NAME##_grad_config::workspace_bytes(FULL), 0}, \
      NAME##_config::threads, NAME##_grad_config::threads, NAME##_config::tiles, NAME##_grad_config::key_tiles}), true);

ATTENTION(few, 3, 16, 5, 5, 0, 5, false, true, 3, 2, 0)
ATTENTION(odd, 3, 5, 20, 27, 7, 27, true, true, 2, 1, 1)
ATTENTION(one, 2, 8, 1, 1, 0, 1, false, false, 1, 1, 0)
ATTENTION(vit, 2, 64, 37, 37, 0, 37, false, true, 3, 2, 0)
ATTENTION(cls, 4, 64, 1, 37, 0, 37, false, true, 3, 2, 0)
ATTENTION(plain, 1, 32, 50, 50, 0, 50, true, false, 1, 1, 8)
#ifndef SMALL
ATTENTION(causal, 2, 32, 70, 100, 30, 100, true, true, 1, 1, 0)
ATTENTION(wide, 2, 80, 40, 40, 0, 40, false, true, 1, 1, 0)
ATTENTION(large, 1, 64, 197, 197, 0, 197, false, true, 1, 1, 0)
ATTENTION(d128, 1, 128, 130, 130, 0, 130, false, true, 1, 1, 0)
ATTENTION(d136, 1, 136, 20, 40, 2, 30, false, true, 1, 1, 0)
ATTENTION(d256, 2, 256, 40, 70, 30, 70, true, true, 1, 1, 0)
ATTENTION(tiled, 1, 32, 600, 600, 0, 600, false, true, 1, 1, 0)
ATTENTION(tiled_causal, 1, 16, 300, 530, 230, 530, true, true, 1, 1, 0)
#endif

// Runs a kernel in several orders, which must agree to the bit and write every
// output. The last order has a warp more in a block than the kernel asks for, and
// the one before it a single block if `any_grid`, when blocks loop over heads.
template <class Args>
bool run(const std::string& what, const check::Launch& l, int threads, const vg_state& now, const Args& values,
         const std::vector<check::Output>& outputs, int orders, bool any_grid = false) {
  vg_state* state = (vg_state*)vg_sim::alloc(sizeof(vg_state), "state");
  Args* args = (Args*)vg_sim::alloc(sizeof(Args), "arguments");
  char* workspace = (char*)vg_sim::alloc((size_t)l.workspace, "workspace");
  *state = now, *args = values;
  vg_sim::wrote(state, sizeof *state), vg_sim::wrote(args, sizeof *args);
  std::vector<std::vector<char>> first;
  bool ok = true;
  const uint64_t seeds[] = {1, ~0ull, 0, 2};
  for (int i = 0; i < orders && ok; i++) {
    vg_sim::options options;
    options.seed = seeds[i];
    vg_sim::poison(workspace, (size_t)l.workspace);
    for (const check::Output& out : outputs) vg_sim::poison(out.p, out.bytes);
    const unsigned blocks = any_grid && i == 2 ? 1u : (unsigned)l.blocks, block = (unsigned)(threads + (i == 3 ? 32 : 0));
    const std::string fault = vg_sim::run(vg_sim::find(l.kernel.c_str()), blocks, block, (size_t)l.shared, options,
                                          (const vg_state*)state, workspace, (uint32_t*)nullptr, (const Args*)args);
    that(ok = fault == "", what + text(", seed %d: ", (int)options.seed) + fault);
    that(vg_sim::stats().ldmatrix_conflicts == 0, what + ": bank conflicts");
    for (size_t k = 0; k < outputs.size() && ok; k++) {
      const char* p = (const char*)outputs[k].p;
      if (i == 0) first.push_back(std::vector<char>(p, p + outputs[k].bytes));
      const bool same = memcmp(first[k].data(), p, outputs[k].bytes) == 0;
      that(same, what + text(", seed %d: other bits in ", (int)options.seed) + outputs[k].name);
    }
  }
  vg_sim::free(state), vg_sim::free(args), vg_sim::free(workspace);
  return ok;
}

vg_attention_args<E> forward_args(const Tensors<E>& x, uint32_t thr, bool lse) {
  return {x.q.p, x.k, x.v, x.ldq, x.ldk, x.ldk, x.o.p, x.ldo, lse ? x.lse.p : nullptr, 1 / sqrtf((float)x.s.dim),
          check::kWeightSite, thr};
}
vg_attention_grad_args<E> grad_args(const Tensors<E>& x, uint32_t thr) {
  return {x.q.p, x.k, x.v, x.o.p, x.dout.p, x.lse.p, x.ldq, x.ldk, x.ldk, x.ldo, x.ldo, x.dq.p, x.dk, x.dv, x.ldq, x.ldk, x.ldk,
          1 / sqrtf((float)x.s.dim), check::kWeightSite, thr};
}
// What of an array belongs to samples of this run.
template <class X>
check::Output used(const Array<X>& a, const Shape& s) {
  return {a.p, a.n / (size_t)s.full * (size_t)s.batch * sizeof(X), a.name};
}

bool forward(const Case& c, const Tensors<E>& x, const vg_state& state, uint32_t thr, int orders = 1) {
  return run(c.name + text(" forward"), c.forward, c.threads, state, forward_args(x, thr, true),
             {used(x.o, x.s), used(x.lse, x.s)}, orders);
}
bool backward(const Case& c, const Tensors<E>& x, const vg_state& state, uint32_t thr, int orders = 1) {
  std::vector<check::Output> outputs = {used(x.dq, x.s)};
  if (!x.fused) outputs.push_back(used(x.dkv, x.s));
  return run(c.name + text(" gradient"), c.grad, c.grad_threads, state, grad_args(x, thr), outputs, orders, true);
}

void compare(const std::string& what, const Tensors<E>& x, const Results& want, double forward, double backward) {
  const Shape& s = x.s;
  near(what + ": o", gather(x.o.p, s.batch * s.tq, x.ldo, s.width()), want.o, forward);
  near(what + ": lse", gather(x.lse.p, 1, 0, s.batch * s.heads * s.tq), want.lse, forward);
  near(what + ": dv", gather(x.dv, s.batch * s.tk, x.ldk, s.width()), want.dv, backward);
  if (s.tk == 1) return;  // softmax is constant, its gradient is all cancellation
  near(what + ": dq", gather(x.dq.p, s.batch * s.tq, x.ldq, s.width()), want.dq, backward);
  near(what + ": dk", gather(x.dk, s.batch * s.tk, x.ldk, s.width()), want.dk, backward);
}

// With V (or dO) a piece of the identity, O (dV) is a piece of dropout(P) itself,
// zero exactly where the definition drops.
void masks(const Case& c, Tensors<E>& x, const vg_state& state) {
  const Shape& s = x.s;
  const int64_t heads = s.batch * s.heads;
  // Of a long sequence: its beginning, its end, and what lies halfway.
  const int most = s.tk > s.tq ? s.tk : s.tq, step = most <= 2 * s.dim ? s.dim : (most - s.dim) / 2;
  for (int base = 0; base < most; base += step) {
    for (int64_t h = 0; h < heads; h++)
      for (int d = 0; d < s.dim; d++) {
        for (int j = 0; j < s.tk; j++) check::assign(x.v[s.at(h, s.tk, j, x.ldk, d)], j == base + d ? 1.0f : 0.0f);
        for (int i = 0; i < s.tq; i++) check::assign(x.dout[s.at(h, s.tq, i, x.ldo, d)], i == base + d ? 1.0f : 0.0f);
      }
    if (!forward(c, x, state, check::kWeightThr) || !backward(c, x, state, check::kWeightThr)) return;
    int wrong = 0;
    for (int64_t h = 0; h < heads; h++)
      for (int i = 0; i < s.tq; i++)
        for (int j = 0; j < s.tk; j++) {
          const bool kept = j < s.seen(i) && check::kept(state, check::kWeightSite, check::kWeightThr, s.index(h, i, j));
          if (j >= base && j < base + s.dim) wrong += (check::number(x.o[s.at(h, s.tq, i, x.ldo, j - base)]) != 0) != kept;
          if (i >= base && i < base + s.dim) wrong += (check::number(x.dv[s.at(h, s.tk, j, x.ldk, i - base)]) != 0) != kept;
        }
    that(wrong == 0, c.name + text(": %d weights are dropped that should not be, or kept", wrong));
  }
}

// One NaN in an input reaches what depends on it, and nothing else.
void not_a_number(const Case& c, Tensors<E>& x, const vg_state& state) {
  const Shape& s = x.s;
  E* const inputs[] = {x.q.p + s.at(0, s.tq, s.tq / 2, x.ldq, s.dim / 2), x.k + s.at(0, s.tk, s.tk / 2, x.ldk, s.dim / 2),
                       x.v + s.at(0, s.tk, s.tk / 2, x.ldk, s.dim / 2), x.dout.p + s.at(0, s.tq, s.tq / 2, x.ldo, s.dim / 2)};
  for (int i = 0; i < 4; i++) {
    const E before = *inputs[i];
    check::assign(*inputs[i], NAN);
    if (sizeof(E) == 2) memset(inputs[i], 0xff, 2);
    if (forward(c, x, state, 0) && backward(c, x, state, 0))
      compare(c.name + text(", NaN %d", i), x, reference(x, state, 0), kForward, kBackward);
    *inputs[i] = before;
  }
}

void test(const Case& c) {
  Random r((uint64_t)(c.shape.tq * 131 + c.shape.tk + c.shape.dim));
  Tensors<E> x(c.shape, r);
  vg_state state = check::state(c.shape.batch);
  const uint32_t thr = c.shape.dropout ? check::kWeightThr : 0;
  const bool small = c.shape.tq * c.shape.tk < 8000;
  if (!forward(c, x, state, thr, small ? 4 : 2) || !backward(c, x, state, thr, small ? 4 : 2)) return;
  compare(c.name, x, reference(x, state, thr), kForward, kBackward);
  if (c.shape.dropout && small) {
    state.step.dropout_on = 0;  // as in evaluation
    if (forward(c, x, state, thr) && backward(c, x, state, thr))
      compare(c.name + text(", dropout off"), x, reference(x, state, 0), kForward, kBackward);
    state.step.dropout_on = 1;
  }
  if (!c.shape.causal && small) not_a_number(c, x, state);
  run(c.name + text(" without lse"), c.forward, c.threads, state, forward_args(x, thr, false), {used(x.o, x.s)}, 1);
  if (c.shape.dropout && sizeof(E) == (kMath == vg_math::bf16 ? 2 : 4)) masks(c, x, state);
}

int main(int argc, char** argv) {
  int known = 0;
  for (const Case& c : cases) {
    bool wanted = argc == 1;
    for (int i = 1; i < argc; i++) wanted |= !strcmp(argv[i], c.name);
    if (!wanted) continue;
    known++;
    test(c);
    printf("%-12s %d and %d blocks of %d and %d threads, %d and %d bytes, %d and %d tiles of keys\n", c.name, (int)c.forward.blocks,
           (int)c.grad.blocks, c.threads, c.grad_threads, c.forward.shared, c.grad.shared, c.tiles, c.key_tiles);
  }
  that(known == (argc == 1 ? (int)cases.size() : argc - 1), "a case is not known");
  return check::finish();
}
