package cpu

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestThreads runs the C team with kernels in C, once as it is and once under
// the thread sanitizer, which sees what Go's race detector cannot.
func TestThreads(t *testing.T) {
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	for name, flags := range map[string][]string{
		"plain":     {"-O2"},
		"sanitizer": {"-O1", "-g", "-fsanitize=thread"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bin := filepath.Join(t.TempDir(), "threads")
			args := append(flags, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o", bin,
				filepath.Join("testdata", "threads_test.c"), "threads.c", "-lpthread")
			if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
				if name == "sanitizer" && !sanitizes(t, cc) {
					t.Skipf("NOT TESTED: %s has no thread sanitizer", cc)
				}
				t.Fatalf("%s: %v\n%s", cc, err, out)
			}
			if out, err := exec.Command(bin).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// sanitizes says whether the compiler can link with the thread sanitizer.
func sanitizes(t *testing.T, cc string) bool {
	dir := t.TempDir()
	src := filepath.Join(dir, "empty.c")
	if err := os.WriteFile(src, []byte("int main(void) { return 0; }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return exec.Command(cc, "-fsanitize=thread", "-o", filepath.Join(dir, "empty"), src).Run() == nil
}
