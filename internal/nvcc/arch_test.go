package nvcc

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseArchs(t *testing.T) {
	got, err := ParseArchs([]string{"sm_80", "sm_90a", "sm_100f", "sm_80"})
	if err != nil || strings.Join(got, " ") != "sm_80 sm_90a sm_100f" {
		t.Error(got, err)
	}
	for _, bad := range [][]string{{}, {""}, {"80"}, {"compute_80"}, {"sm_75"}, {"sm_8"}, {"sm_80", "sm_"}, {"sm_90b"}} {
		if got, err := ParseArchs(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

// By hand, with what each is bound by.
func TestBlocksPerSM(t *testing.T) {
	for _, test := range []struct {
		arch                       string
		threads, registers, shared int
		want                       int
	}{
		{"sm_80", 256, 32, 0, 8},     // threads: 2048
		{"sm_86", 256, 32, 0, 6},     // threads: 1536
		{"sm_80", 32, 16, 0, 32},     // blocks
		{"sm_86", 32, 16, 0, 16},     // blocks
		{"sm_80", 256, 128, 0, 2},    // registers: 4·floor(16384/4096) = 16 warps
		{"sm_80", 256, 129, 0, 1},    // 12 warps
		{"sm_80", 128, 168, 0, 3},    // 12 warps
		{"sm_80", 1024, 64, 0, 1},    // exactly all
		{"sm_80", 1024, 65, 0, 0},    // cannot be launched
		{"sm_80", 256, 64, 98304, 1}, // shared: 164 KiB / 97 KiB
		{"sm_90", 256, 64, 98304, 2}, // shared: 228 KiB / 97 KiB
		{"sm_80", 256, 64, 163<<10 + 1, 0},
		{"sm_80", 256, 64, 163 << 10, 1},
		{"sm_90", 256, 64, 227 << 10, 1},
		{"sm_80", 1025, 16, 0, 0},
		{"sm_80", 100, 16, 0, 16}, // four warps each
	} {
		l, ok := LimitsOf(test.arch)
		if got := l.BlocksPerSM(test.threads, test.registers, test.shared); !ok || got != test.want {
			t.Errorf("%+v: got %d", test, got)
		}
	}
	l, _ := LimitsOf("sm_80")
	if got := l.Occupancy(2, 256); got != 0.25 {
		t.Error(got)
	}
}

// The CUDA toolkit has a header that computes the same; where it is there, the
// two must agree.
func TestBlocksPerSMAgainstToolkit(t *testing.T) {
	c := compilerOf(t, NVCC)
	include := filepath.Join(filepath.Dir(filepath.Dir(c.Path)), "include")
	if !isFile(filepath.Join(include, "cuda_occupancy.h")) {
		t.Skip("this CUDA toolkit has no cuda_occupancy.h")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "occupancy")
	if err := os.WriteFile(program+".cc", []byte(occupancyProgram), 0o666); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("g++", "-I", include, "-o", program, program+".cc").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var asked, want strings.Builder
	r := rand.New(rand.NewPCG(1, 2))
	for _, arch := range slices.Sorted(maps.Keys(limits)) {
		l := limits[arch]
		cc := number(strings.TrimPrefix(arch, "sm_"))
		for range 2000 {
			threads, registers, shared := 1+r.IntN(1024), 1+r.IntN(255), r.IntN(l.BlockShared+1)
			if r.IntN(2) == 0 {
				shared = 0
			}
			fmt.Fprintln(&asked, cc/10, cc%10, l.Threads, l.Shared, l.BlockShared, threads, registers, shared)
			fmt.Fprintln(&want, l.BlocksPerSM(threads, registers, shared))
		}
	}
	cmd := exec.Command(program)
	cmd.Stdin = strings.NewReader(asked.String())
	got, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(string(got), "\n"), strings.Split(want.String(), "\n")
	if len(gotLines) != len(wantLines) {
		t.Fatalf("%d answers to %d questions", len(gotLines), len(wantLines))
	}
	for i, q := range strings.Split(asked.String(), "\n") {
		if gotLines[i] != wantLines[i] {
			t.Fatalf("%s: toolkit %s, here %s", q, gotLines[i], wantLines[i])
		}
	}
}

const occupancyProgram = `
#include <cuda_occupancy.h>
#include <stdio.h>
int main() {
  cudaOccDeviceProp p;
  p.maxThreadsPerBlock = 1024, p.regsPerBlock = p.regsPerMultiprocessor = 65536, p.warpSize = 32;
  p.sharedMemPerBlock = 48 * 1024, p.reservedSharedMemPerBlock = 1024, p.numSms = 100;
  int threads, registers, shared, max_shared, block_shared;
  while (scanf("%d %d %d %d %d %d %d %d", &p.computeMajor, &p.computeMinor, &p.maxThreadsPerMultiprocessor, &max_shared,
               &block_shared, &threads, &registers, &shared) == 8) {
    p.sharedMemPerMultiprocessor = max_shared, p.sharedMemPerBlockOptin = block_shared;
    cudaOccFuncAttributes a;
    a.maxThreadsPerBlock = 1024, a.numRegs = registers, a.sharedSizeBytes = 0;
    a.partitionedGCConfig = PARTITIONED_GC_OFF, a.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    a.maxDynamicSharedSizeBytes = block_shared, a.numBlockBarriers = 1;
    cudaOccDeviceState s;
    s.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
    cudaOccResult r;
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&r, &p, &a, &s, threads, shared)) return 1;
    printf("%d\n", r.activeBlocksPerMultiprocessor);
  }
}
`
