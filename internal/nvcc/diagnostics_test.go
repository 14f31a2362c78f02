package nvcc

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// explained runs what a compiler printed through the mapping.
func explained(log string, ptx string) error {
	u := &unit{in: &Input{Compiler: &Compiler{Kind: NVCC, Path: "/usr/bin/nvcc", Version: "12.4.131"}}, arch: "sm_90", index: Kernels([]byte(joinedSource))}
	return u.explain(log, errors.New("exit status 2"), []byte(ptx))
}

func TestExplain(t *testing.T) {
	const compiler = "nvcc 12.4.131 (/usr/bin/nvcc)"
	for _, test := range []struct{ name, log, ptx, want string }{
		{name: "two lines of a kernel, and a warning", log: `kernels.cu(12): error: expected a ";"
  }
  ^

kernels.cu(17): warning #177-D: variable "unused" was declared but never referenced

Remark: The warnings can be suppressed with "-diag-suppress <warning-number>"

kernels.cu(18): error #20: identifier "q" is undefined
2 errors detected in the compilation of "kernels.cu".
`, want: `my model.yaml:20:5: kernel k00_patchify: nvcc: error: expected a ";" (kernels.cu:12)
my model.yaml:21:5: kernel k01_gemm_tn: nvcc: error: identifier "q" is undefined (kernels.cu:18)`},
		{name: "library, instantiated for a kernel", log: `vg_cuda.h(200): error: class "k00_e" has no member "missing"
          detected during:
            instantiation of "int lib_fn(T) [with T=k00_e]" at line 203
            instantiation of "int lib_outer(T) [with T=k00_e]" at line 18 of kernels.cu

`, want: `my model.yaml:21:5: kernel k01_gemm_tn: nvcc: error: class "k00_e" has no member "missing" (vg_cuda.h:200)`},
		{name: "library, of its own", log: `vg_cuda.h(200): error: expected an expression

kernels.cu(12): error: at line 18 of kernels.cu
`, want: `vg_cuda.h:200: nvcc: error: expected an expression
my model.yaml:20:5: kernel k00_patchify: nvcc: error: at line 18 of kernels.cu (kernels.cu:12)`},
		{name: "missing header", log: "kernels.cu:4:10: fatal error: vg_cuda.h: No such file or directory\ncompilation terminated.\n",
			want: "kernels.cu:4: nvcc: error: vg_cuda.h: No such file or directory"},
		{name: "ptxas names the kernel", log: "ptxas error   : Entry function 'k01_k02' uses too much shared data (0x61a80 bytes, 0xc000 max)\n",
			want: "my model.yaml:21:5: kernel k01_k02: ptxas: error: Entry function 'k01_k02' uses too much shared data (0x61a80 bytes, 0xc000 max)"},
		{name: "ptxas names a line of the PTX", log: "ptxas kernels.ptx, line 4; error   : Unknown modifier '.bar'\nptxas fatal   : Ptx assembly aborted due to errors\n",
			ptx:  ".version 9.0\n.visible .entry k00_patchify(\n){\n  foo.bar;\n}\n.visible .entry k01_k02(\n",
			want: "my model.yaml:20:5: kernel k00_patchify: ptxas: error: Unknown modifier '.bar'"},
		{name: "a line of ptxas and no PTX", log: "ptxas kernels.ptx, line 4; error   : Unknown modifier '.bar'\n",
			want: "ptxas: error: Unknown modifier '.bar'"},
		{name: "nothing to map", log: "nvcc error   : 'cicc' died due to signal 11 (Invalid memory reference)\n",
			want: compiler + ", for sm_90: exit status 2\n  nvcc error   : 'cicc' died due to signal 11 (Invalid memory reference)"},
		{name: "silence", want: compiler + ", for sm_90: exit status 2"},
		{name: "no host compiler", log: "gcc: No such file or directory\nnvcc fatal   : Failed to preprocess host compiler properties.\n",
			want: compiler + " needs a C++ compiler to read source with, and finds none: install g++ (Debian: apt-get install g++), or name one with NVCC_PREPEND_FLAGS=-ccbin=PATH\n  gcc: No such file or directory\n  nvcc fatal   : Failed to preprocess host compiler properties."},
		{name: "chip", log: "nvcc fatal   : Unsupported gpu architecture 'compute_100'\n",
			want: compiler + " does not know sm_90: leave it out of --arch, or take a CUDA release that has it"},
		{name: "half an installation", log: "cc1plus: fatal error: cuda_runtime.h: No such file or directory\ncompilation terminated.\n",
			want: "the installation of " + compiler + " is incomplete; from PyPI it takes all of nvidia-cuda-nvcc, nvidia-nvvm, nvidia-cuda-crt and nvidia-cuda-runtime, of the same CUDA release\n  cc1plus: fatal error: cuda_runtime.h: No such file or directory\n  compilation terminated."},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, explained(test.log, test.ptx).Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A page of errors is cut.
func TestManyErrors(t *testing.T) {
	got := explained(strings.Repeat("kernels.cu(12): error: a\nkernels.cu(18): error: b\n", 15), "").Error()
	if lines := strings.Split(got, "\n"); len(lines) != maxDiagnostics+1 || lines[maxDiagnostics] != "… and 10 more errors" {
		t.Errorf("got %d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}

func TestParsePtxas(t *testing.T) {
	functions, remarks := parsePtxas(`ptxas info    : 0 bytes gmem
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to insufficient register resources for the wgmma pipeline in the function 'k07_gemm'
ptxas info    : Compiling entry function 'k07_gemm' for 'sm_90a'
ptxas info    : Function properties for k07_gemm
    2544 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 2544 bytes cumulative stack size, 160 bytes smem, 360 bytes cmem[0]
ptxas info    : Compile time = 84.743 ms
ptxas info    : Compiling entry function 'k01_scale' for 'sm_90a'
ptxas info    : Function properties for k01_scale
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers, 360 bytes cmem[0]
ptxas info    : Function properties for _Z3fooPKfi
    0 bytes stack frame, 3196 bytes spill stores, 3348 bytes spill loads
`)
	want := []Resources{
		{Function: "_Z3fooPKfi", SpillStores: 3196, SpillLoads: 3348},
		{Function: "k01_scale", Entry: true, Registers: 8},
		{Function: "k07_gemm", Entry: true, Registers: 64, Stack: 2544, SpillStores: 12, SpillLoads: 16, Shared: 160, Barriers: 1},
	}
	if diff := cmp.Diff(want, functions); diff != "" {
		t.Error(diff)
	}
	if len(remarks) != 1 || !strings.Contains(remarks[0], "(C7510)") {
		t.Errorf("remarks %q", remarks)
	}
}
