// Prints what the kernels of this build need of the workspace, a formula and
// its arguments a line, for the Go side to check its bounds against.
#include <stdio.h>

#include "vg_cpu.h"
#include "vg_abi.h"  // both may be included

int main() {
  using namespace vg;
  const long long sizes[] = {1, 7, 10, 14, 37, 64, 65, 255, 256, 257, 512, 513, 768, 2048, 4736, 60000, 60001};
  for (long long m : sizes)
    for (long long n : sizes)
      for (long long k : sizes) {
        const vg_gemm_shape s = {m, n, k};
        printf("gemm %lld %lld %lld %lld\n", m, n, k, (long long)s.workspace_bytes(false));
        if (m == 1) printf("packed %lld %lld 0 %lld\n", n, k, (long long)sizeof(float) * (long long)s.b_size());
        printf("weight_grad %lld %lld %lld %lld\n", m, n, k, (long long)s.workspace_bytes(true));
      }
  for (long long r : sizes)
    for (long long c : sizes) {
      printf("column_sum %lld %lld 0 %lld\n", r, c, (long long)vg_column_sum_workspace(r, c));
      printf("layernorm_grad %lld %lld 0 %lld\n", r, c, (long long)vg_layernorm_grad_workspace(r, c));
    }
  for (long long n : sizes) printf("sum %lld 0 0 %lld\n", n * n, (long long)vg_sum_workspace(n * n));
  printf("limits %lld %lld %lld 0\n", (long long)kMaxRow, (long long)kMaxTokens, (long long)kMaxHeadDim);
}
