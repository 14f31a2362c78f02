// Bad accesses that nothing checks, in kernels that are not instrumented, end
// in a signal. While a launch runs it becomes the launch's fault.
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "internal.h"

namespace vg_sim {
namespace {

constexpr int caught[] = {SIGSEGV, SIGBUS, SIGFPE};
constexpr size_t stack_size = 64 << 10;

struct sigaction before[3];
stack_t stack_before;
bool own_stack = false;
pid_t runner = 0;  // the OS thread of the launch

void pass_on(int i, siginfo_t* info, void* registers) {
  const struct sigaction& a = before[i];
  if (a.sa_flags & SA_SIGINFO) return a.sa_sigaction(caught[i], info, registers);
  if (a.sa_handler != SIG_DFL && a.sa_handler != SIG_IGN) return a.sa_handler(caught[i]);
  sigaction(caught[i], &a, nullptr);  // happens again on return, then as without us
}

void on_signal(int signal, siginfo_t* info, void* registers) {
  if (current && syscall(SYS_gettid) == runner && info->si_code > 0) {
#ifdef __x86_64__
    const void* pc = (const void*)(((const ucontext_t*)registers)->uc_mcontext.gregs[REG_RIP] + 1);
#else
    const void* pc = nullptr;
#endif
    if (signal == SIGFPE) fault("integer division by zero, at %s", describe_pc(pc).c_str());
    // The hardware does not tell the address of an access it has no rule for.
    if (info->si_code == SI_KERNEL) fault("misaligned vector access, or no address at all, at %s", describe_pc(pc).c_str());
    if (in_stack_guard(info->si_addr)) fault("stack overflow of a simulated thread, at %s", describe_pc(pc).c_str());
    fault("out of bounds: touches %s, where no memory is, at %s", describe_address(info->si_addr).c_str(), describe_pc(pc).c_str());
  }
  for (int i = 0; i < 3; i++)
    if (caught[i] == signal) pass_on(i, info, registers);
}

}  // namespace

void catch_signals() {
  static void* own = mmap(nullptr, stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  runner = syscall(SYS_gettid);
  // A handler may not run on the stack that has overflowed.
  sigaltstack(nullptr, &stack_before);
  own_stack = stack_before.ss_flags & SS_DISABLE;
  if (own_stack) {
    stack_t s = {};
    s.ss_sp = own, s.ss_size = stack_size;
    sigaltstack(&s, nullptr);
  }
  struct sigaction a = {};
  a.sa_sigaction = on_signal;
  // NODEFER: fault() leaves the handler for good.
  a.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int i = 0; i < 3; i++) sigaction(caught[i], &a, &before[i]);
}

void release_signals() {
  for (int i = 0; i < 3; i++) sigaction(caught[i], &before[i], nullptr);
  if (own_stack) sigaltstack(&stack_before, nullptr);
}

}  // namespace vg_sim
