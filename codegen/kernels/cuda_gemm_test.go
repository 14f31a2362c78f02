package kernels

import "testing"

// TestCUDAProducts runs the matrix products on the kernel simulator and compares
// them with a double-precision reference: all kinds and maths, every way that
// operands are loaded, ragged and unaligned sizes, partial batches, splits,
// column sums and a fused epilogue. Several orders of blocks and threads must
// give the same bits, and no ldmatrix may meet bank conflicts. "checked" does
// some of it again with every access to memory watched.
func TestCUDAProducts(t *testing.T) {
	runtime := simObjects(t)
	t.Run("plain", func(t *testing.T) {
		t.Parallel()
		t.Logf("%s", output(t, simProgram(t, runtime, "gemm", "-O2")))
	})
	t.Run("checked", func(t *testing.T) {
		t.Parallel()
		if testing.Short() {
			t.Skip("NOT TESTED: memory accesses are not watched in a short run")
		}
		t.Logf("%s", output(t, simProgram(t, runtime, "gemm", "-O1", "-g", "-fsanitize=thread,alignment", "-DSMALL")))
	})
}
