#include "fiber.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <vector>

#ifndef VG_SIM_OWN_SWITCH
#include <ucontext.h>
#endif

namespace vg_sim {
namespace {

constexpr size_t page = 4096, stack_bytes = 128 << 10;
// Stacks of one size would all start on the same lines of the cache. Each is
// moved by a few lines against its neighbour.
constexpr size_t colours = 61, colour_bytes = 64 * 5;

std::vector<char*> stacks;  // each: guard page, stack

}  // namespace

stack get_stack(unsigned i) {
  while (stacks.size() <= i) {
    void* p = mmap(nullptr, page + stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED || mprotect(p, page, PROT_NONE) != 0) {
      perror("vg_sim: stack of a thread");
      abort();
    }
    stacks.push_back((char*)p);
  }
  return {stacks[i] + page, stack_bytes - (i % colours) * colour_bytes};
}

bool in_stack_guard(const void* p) {
  for (char* s : stacks)
    if ((const char*)p >= s && (const char*)p < s + page) return true;
  return false;
}

#ifdef VG_SIM_OWN_SWITCH

// Pushes what a called function must preserve, changes stacks, pops the other
// flow's. The floating-point control words are the same in all flows.
asm(R"(
.text
.p2align 4
.globl vg_sim_switch_stack
.hidden vg_sim_switch_stack
.type vg_sim_switch_stack, @function
vg_sim_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size vg_sim_switch_stack, .-vg_sim_switch_stack
)");

void make_context(context* c, char* base, size_t bytes, void (*entry)()) {
  void** top = (void**)((uintptr_t)(base + bytes) & ~(uintptr_t)15);
  *--top = nullptr;         // where entry would return to; also aligns its stack
  *--top = (void*)entry;    // popped by ret
  for (int i = 0; i < 6; i++) *--top = nullptr;
  c->sp = top;
}

#else

void switch_context(context* from, const context* to) {
  if (!from->sp) from->sp = new ucontext_t;
  swapcontext((ucontext_t*)from->sp, (const ucontext_t*)to->sp);
}

void make_context(context* c, char* base, size_t bytes, void (*entry)()) {
  if (!c->sp) c->sp = new ucontext_t;
  ucontext_t* u = (ucontext_t*)c->sp;
  getcontext(u);
  u->uc_stack.ss_sp = base;
  u->uc_stack.ss_size = bytes;
  u->uc_link = nullptr;
  makecontext(u, entry, 0);
}

#endif

}  // namespace vg_sim
