package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeNVCC answers as nvcc 13.0.88 does; its ptxas prints the log of the file
// ptxas.log.
const fakeNVCC = `#!/bin/sh
[ "$1" = --version ] && { echo 'Cuda compilation tools, release 13.0, V13.0.88'; exit; }
kind=$1
while [ "$1" != -o ]; do shift; done
echo output > "$2"
[ $kind = -cubin ] && cat "$LOG" >&2
exit 0
`

const source = `#include "vg_cuda.h"

// vit.yaml:20:5 patch
// grid 36, block 128, shared 1024 bytes
VG_KERNEL(128, 1) k00_patchify(int* p) {
}

// vit.yaml:33:15 blks.0.mlp
// grid 20, block 256, shared 98304 bytes
VG_KERNEL(256, 2) k01_gemm(int* p) {
}
`

const goodLog = `ptxas info    : Compiling entry function 'k01_gemm' for 'sm_80'
ptxas info    : Function properties for k01_gemm
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 96 registers, used 1 barriers, 360 bytes cmem[0]
ptxas info    : Compiling entry function 'k00_patchify' for 'sm_80'
ptxas info    : Function properties for k00_patchify
    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 360 bytes cmem[0]
`

// inRepository makes a folder like the repository's root, with one example.
func inRepository(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	write(t, "generated/vit/kernels.cu", source)
	write(t, "generated/vit/vg_cuda.h", "")
	write(t, "bench/ptxas/.keep", "")
	write(t, "nvcc", fakeNVCC)
	write(t, "ptxas.log", goodLog)
	log, err := filepath.Abs("ptxas.log")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("LOG", log)
	t.Setenv("VITGEN_NVCC", "./nvcc")
	t.Setenv("VITGEN_CACHE", "off")
	t.Setenv("VITGEN_UPDATE", "")
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o777); err != nil {
		t.Fatal(err)
	}
}

// runTool returns what the tool printed and its error's text.
func runTool(t *testing.T, args ...string) (out, failure string) {
	t.Helper()
	var b strings.Builder
	if err := run(t.Context(), args, &b); err != nil {
		failure = err.Error()
	}
	return b.String(), failure
}

func wantIn(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// The table is written on demand, compared otherwise, and drift fails.
func TestTable(t *testing.T) {
	inRepository(t)
	_, failure := runTool(t)
	wantIn(t, failure, "bench/ptxas/table.md is missing; VITGEN_UPDATE=1 make check-cuda writes it")
	t.Setenv("VITGEN_UPDATE", "1")
	out, failure := runTool(t)
	wantIn(t, out, "vit            2 kernels, at most 96 registers, 0 bytes spilled", "wrote bench/ptxas/table.md")
	if failure != "" {
		t.Error(failure)
	}
	table, err := os.ReadFile(tableFile)
	if err != nil {
		t.Fatal(err)
	}
	wantIn(t, string(table), "nvcc 13.0.88 compiles", "\n## vit\n\n| kernel | for | grid | threads | shared | sm_80 | sm_90 | sm_100 | stack | spills |\n",
		"\n| k00_patchify | vit.yaml:20:5 | 36 | 128 | 1024 | 32 · 16 · 100 % | 32 · 16 · 100 % | 32 · 16 · 100 % | 16 | 0 |\n",
		"\n| k01_gemm | vit.yaml:33:15 | 20 | 256 | 98304 | 96 · 1 · 12 % | 96 · 2 · 25 % | 96 · 2 · 25 % | 0 | 0 |\n")

	t.Setenv("VITGEN_UPDATE", "")
	out, failure = runTool(t)
	wantIn(t, out, "bench/ptxas/table.md is up to date")
	if failure != "" {
		t.Error(failure)
	}
	write(t, "ptxas.log", strings.Replace(goodLog, "Used 96", "Used 97", 1))
	_, failure = runTool(t)
	wantIn(t, failure, "- vit | k01_gemm | vit.yaml:33:15 | 20 | 256 | 98304 | 96 · 1", "+ vit | k01_gemm | vit.yaml:33:15 | 20 | 256 | 98304 | 97 · 1",
		"bench/ptxas/table.md is stale")
	if strings.Contains(failure, "k00_patchify") {
		t.Error("an equal row is listed:\n", failure)
	}
	// Another nvcc gives other numbers, which are not compared.
	write(t, "nvcc", strings.Replace(fakeNVCC, "V13.0.88", "V12.9.1", 1))
	out, failure = runTool(t)
	wantIn(t, out, "SKIPPED: comparison with bench/ptxas/table.md, which is of nvcc 13.0.88, not 12.9.1")
	if failure != "" {
		t.Error(failure)
	}
	// Packages given by hand are checked, and not compared.
	write(t, "nvcc", fakeNVCC)
	if out, failure := runTool(t, "generated/vit"); failure != "" || strings.Contains(out, "table.md") {
		t.Error(out, failure)
	}
}

// Each fault is found, and named with its kernel.
func TestFaults(t *testing.T) {
	for _, test := range []struct{ name, source, log, want string }{
		{"spill", source, strings.Replace(goodLog, "    0 bytes stack frame, 0 bytes spill stores, 0", "    8 bytes stack frame, 8 bytes spill stores, 12", 1),
			"vit, sm_90, k01_gemm: spills registers: 8 bytes stored, 12 loaded"},
		{"spill in a function", source, goodLog + "ptxas info    : Function properties for _Z3fooPKfi\n    0 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads\n",
			"vit, sm_80, _Z3fooPKfi: spills registers: 4 bytes stored, 4 loaded"},
		{"serialization", source, "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to … in the function 'k01_gemm'\n" + goodLog,
			"vit, sm_100: ptxas info    : (C7510) Potential Performance Loss"},
		{"warning", source, "ptxas warning : Value of threads per SM for entry k01_gemm is out of range. .minnctapersm will be ignored\n" + goodLog,
			"vit, sm_100: ptxas warning : Value of threads per SM"},
		{"shared memory on one chip", strings.Replace(source, "98304", "200000", 1), goodLog,
			"vit, sm_80, k01_gemm: takes 200000 bytes of shared memory; a block can have 166912"},
		{"static shared memory counts", strings.Replace(source, "98304", "166912", 1), strings.Replace(goodLog, "1 barriers,", "1 barriers, 16 bytes smem,", 1),
			"vit, sm_80, k01_gemm: takes 166928 bytes of shared memory; a block can have 166912"},
		{"registers", strings.NewReplacer("block 256", "block 1024", "VG_KERNEL(256", "VG_KERNEL(1024", "98304", "0").Replace(source), goodLog,
			"vit, sm_80, k01_gemm: cannot be launched: 1024 threads of 96 registers"},
		{"launch", strings.Replace(source, "block 256", "block 512", 1), goodLog,
			"vit, source, k01_gemm: compiled for blocks of 256 threads, launched with 512"},
		{"no comment", strings.Replace(source, "// grid 20, block 256", "// grid twenty, block 256", 1), goodLog,
			`vit, source, k01_gemm: no comment "grid …, block …, shared … bytes" above it`},
		{"unknown kernel", strings.Replace(source, "VG_KERNEL(128, 1) k00_patchify", "VG_KERNEL(128, 1) k00_other", 1), goodLog,
			"vit, sm_80, k00_patchify: is no kernel of the source"},
		{"missing kernel", source, goodLog[:strings.Index(goodLog, "ptxas info    : Compiling entry function 'k00")],
			"vit, sm_80, k00_patchify: ptxas does not mention it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inRepository(t)
			write(t, "generated/vit/kernels.cu", test.source)
			write(t, "ptxas.log", test.log)
			_, failure := runTool(t, "generated/vit")
			wantIn(t, failure, test.want)
			if strings.HasPrefix(test.name, "shared") && strings.Contains(failure, "sm_90") {
				t.Error("a fault where there is none:\n", failure)
			}
		})
	}
}

// Without nvcc it says so, and succeeds; with one that is named and wrong, not.
func TestSkips(t *testing.T) {
	inRepository(t)
	t.Setenv("VITGEN_NVCC", "none")
	out, failure := runTool(t)
	if !strings.HasPrefix(out, "SKIPPED: ") || failure != "" {
		t.Error(out, failure)
	}
	t.Setenv("VITGEN_NVCC", "missing/nvcc")
	_, failure = runTool(t)
	wantIn(t, failure, "VITGEN_NVCC missing/nvcc: no such file or command")
	_, failure = runTool(t, "-arch", "sm_87")
	wantIn(t, failure, "what a multiprocessor of sm_87 has is not known here")
	// The pinned toolchain goes before what else is found.
	t.Setenv("VITGEN_NVCC", "")
	t.Setenv("PATH", "/usr/bin:/bin")
	write(t, ".venv-cuda/lib/python3.11/site-packages/nvidia/cu13/bin/nvcc", fakeNVCC)
	out, failure = runTool(t, "generated/vit")
	wantIn(t, out, ".venv-cuda/lib/python3.11/site-packages/nvidia/cu13/bin/nvcc), for sm_80, sm_90, sm_100")
	if failure != "" {
		t.Error(failure)
	}
	// No example is a mistake, not success.
	if err := os.Remove("generated/vit/kernels.cu"); err != nil {
		t.Fatal(err)
	}
	_, failure = runTool(t)
	wantIn(t, failure, "no generated/*/kernels.cu; run this from the repository's root")
}

// Errors of the compiler come by kernel.
func TestCompileError(t *testing.T) {
	inRepository(t)
	write(t, "nvcc", strings.Replace(fakeNVCC, "kind=$1", "echo 'kernels.cu(10): error: wrong'; exit 2", 1))
	_, failure := runTool(t)
	wantIn(t, failure, "generated/vit: vit.yaml:33:15: kernel k01_gemm: nvcc: error: wrong (kernels.cu:10)")
}
