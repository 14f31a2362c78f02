//go:build linux

package sim

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWords holds ldmatrix, mma, rounding, shuffles, copies, barriers and counts
// of bank conflicts to plain formulas, and each seed to a schedule of its own.
func TestWords(t *testing.T) {
	t.Run("checked", func(t *testing.T) { must(t, link(t, "layouts", checkedFlags, "layouts.cc")) })
	t.Run("fast", func(t *testing.T) { must(t, link(t, "layouts", fastFlags, "layouts.cc")) })
	if testing.Short() {
		return
	}
	t.Run("unoptimized", func(t *testing.T) {
		must(t, link(t, "layouts", []string{"-O0", "-fsanitize=thread"}, "layouts.cc"))
	})
}

// TestPortableSwitch runs the same with the switch of threads that CPUs other
// than amd64 have.
func TestPortableSwitch(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT TESTED: the portable switch of threads is left out of a short run")
	}
	needsCompiler(t)
	objects, err := runtimeObjects()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	// The first definition that the linker meets is the one it takes; those of
	// an archive come last.
	args := []string{in("layouts.o")}
	gxx(t, append(append(append([]string{}, kernelFlags...), fastFlags...), "-I", "include", "-c", "testdata/layouts.cc", "-o", in("layouts.o"))...)
	for _, name := range []string{"fiber", "schedule", "fault"} { // that switch
		args = append(args, in(name+".o"))
		gxx(t, append(driverFlags[:len(driverFlags):len(driverFlags)], "-DVG_SIM_UCONTEXT", "-c", "runtime/"+name+".cc", "-o", in(name+".o"))...)
	}
	if out, err := exec.Command("ar", append([]string{"rc", in("runtime.a")}, objects...)...).CombinedOutput(); err != nil {
		t.Fatalf("ar: %v\n%s", err, out)
	}
	program := in("layouts")
	gxx(t, append(args, in("runtime.a"), "-ldl", "-lpthread", "-o", program)...)
	must(t, program)
}

// TestObjects loads two instrumented kernel objects into one program.
func TestObjects(t *testing.T) {
	needsCompiler(t)
	var objects []string
	for _, value := range []string{"1", "2"} {
		object, err := BuildKernels("testdata/module.cc", Options{Checked: true, Flags: []string{"-DVALUE=" + value}})
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, object)
	}
	must(t, link(t, "loader", fastFlags, "loader.cc"), objects...)
}

// TestContract: what a kernel file may not do is refused by the compiler.
func TestContract(t *testing.T) {
	needsCompiler(t)
	for want, source := range map[string]string{
		"every argument of a kernel is 8 bytes": `VG_KERNEL(32, 1) k(float* y, int n) { *y = n; } VG_EXPORT(k)`,
		"a shuffle moves 4 or 8 bytes":          `VG_KERNEL(32, 1) k(char* y) { *y = vg_shfl(*y, 0); } VG_EXPORT(k)`,
	} {
		args := append(append([]string{}, kernelFlags...), "-I", "include", "-include", "vg_sim.h", "-fsyntax-only", "-")
		cmd := exec.Command("g++", args...)
		cmd.Stdin = strings.NewReader(source)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v\n%s", source, err, out)
		}
	}
}
