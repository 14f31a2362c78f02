// Fibers: the simulated threads of a block, each with a stack of its own, on one
// OS thread.
#pragma once
#include <stddef.h>
#include <stdint.h>

// VG_SIM_UCONTEXT: what other CPUs use, for its test.
#if defined(__x86_64__) && !defined(VG_SIM_UCONTEXT)
#define VG_SIM_OWN_SWITCH
extern "C" __attribute__((visibility("hidden"))) void vg_sim_switch_stack(void** from, void* to);
#endif

namespace vg_sim {

// A suspended flow of control: where its stack stands, with its registers on it.
struct context {
  void* sp = nullptr;
};

// Saves the running flow in `from` and goes on with `to`.
#ifdef VG_SIM_OWN_SWITCH
inline void switch_context(context* from, const context* to) { vg_sim_switch_stack(&from->sp, to->sp); }
#else
void switch_context(context* from, const context* to);
#endif
// Makes `c` a flow that starts with entry() on the given stack. entry never returns.
void make_context(context* c, char* stack, size_t bytes, void (*entry)());

// Stacks, kept for the next launch once made. Below each lies a page that
// cannot be touched.
struct stack {
  char* base;
  size_t bytes;
};
stack get_stack(unsigned i);
// Whether p lies in the guard page of a stack.
bool in_stack_guard(const void* p);

}  // namespace vg_sim
