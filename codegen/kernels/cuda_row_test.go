package kernels

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// simPrograms test what is neither a matrix product nor attention.
var simPrograms = []string{"row", "pointwise", "reduce", "optimizer", "data"}

// TestCUDARowKernels runs the test programs on the kernel simulator. They
// compare each kernel with a reference in double, forbid every row beyond the
// batch, and demand the same bits in several orders of blocks and threads and in
// grids of several sizes. "checked" runs smaller shapes with every access to
// memory watched: for bounds, initialization, alignment and races.
func TestCUDARowKernels(t *testing.T) {
	runtime := simObjects(t)
	for _, name := range simPrograms {
		t.Run("plain/"+name, func(t *testing.T) {
			t.Parallel()
			t.Logf("%s", output(t, simProgram(t, runtime, name, "-O1")))
		})
		t.Run("checked/"+name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() {
				t.Skip("NOT TESTED: memory accesses are not watched in a short run")
			}
			t.Logf("%s", output(t, simProgram(t, runtime, name, "-O1", "-g", "-fsanitize=thread,alignment", "-DSMALL")))
		})
	}
}

// simObjects compiles the simulator's runtime.
func simObjects(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	var objects []string
	for _, file := range simRuntime(t) {
		object := filepath.Join(dir, strings.TrimSuffix(filepath.Base(file), ".cc")+".o")
		simCompile(t, "-O2", "-c", file, "-o", object)
		objects = append(objects, object)
	}
	return objects
}

// simProgram builds testdata/cuda/name_test.cc with a runtime that simObjects
// made. Only the program is instrumented, and nothing of the compiler's own
// sanitizers is linked.
func simProgram(t *testing.T, runtime []string, name string, flags ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	args := append([]string{"-DVG_SIM", "-fno-strict-aliasing", "-Werror"}, flags...)
	simCompile(t, append(args, "-c", filepath.Join("testdata", "cuda", name+"_test.cc"), "-o", program+".o")...)
	simCompile(t, append([]string{program + ".o", "-o", program, "-ldl", "-lpthread"}, runtime...)...)
	return program
}

func simCompile(t *testing.T, args ...string) {
	t.Helper()
	args = append([]string{"-std=c++17", "-Wall", "-Wextra", "-fvisibility=hidden", "-I", "../../sim/include"}, args...)
	if out, err := exec.Command("g++", args...).CombinedOutput(); err != nil {
		t.Fatalf("g++ %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
