package kernels

import "testing"

// TestCUDAAttention runs attention and its gradient on the kernel simulator and
// compares them with a double-precision reference: all maths and storages, whole
// and tiled sequences, pruned query rows, causal masks, odd and padded rows,
// partial batches, NaN in each input, and dropout whose mask must be exact.
// Several orders of blocks and threads must give the same bits, and no ldmatrix
// may meet bank conflicts. "checked" does the small cases again with every access
// to memory watched.
func TestCUDAAttention(t *testing.T) {
	const checked = "-fsanitize=thread,alignment"
	runtime := simObjects(t)
	for _, test := range []struct {
		math, storage string
		flags         []string
	}{
		{"fp32", "float", nil},
		{"tf32", "float", nil},
		{"bf16", "vg_bf16", nil},
		{"fp32", "vg_bf16", []string{"-DSMALL"}},
		{"tf32", "vg_bf16", []string{"-DSMALL"}},
		{"bf16", "float", []string{"-DSMALL"}},
		{"tf32", "float", []string{"-DSMALL", "-g", checked}},
		{"bf16", "vg_bf16", []string{"-DSMALL", "-g", checked}},
	} {
		watched := len(test.flags) > 0 && test.flags[len(test.flags)-1] == checked
		name := test.math + " of " + test.storage
		if watched {
			name = "checked/" + name
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if watched && testing.Short() {
				t.Skip("NOT TESTED: memory accesses are not watched in a short run")
			}
			flags := append([]string{"-O1", "-DTEST_MATH=" + test.math, "-DTEST_E=" + test.storage}, test.flags...)
			t.Logf("%s", output(t, simProgram(t, runtime, "attention", flags...)))
		})
	}
}
