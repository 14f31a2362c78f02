package cudaenv

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime/cuda/link"
)

func unset(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		t.Setenv(n, "") // which puts it back in the end
		os.Unsetenv(n)
	}
}

func TestEnv(t *testing.T) {
	unset(t, "CGO_CFLAGS", "CGO_LDFLAGS")
	dir := filepath.Join(t.TempDir(), "a b", "cuda") // blanks in paths happen
	env, err := Env(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"CGO_CFLAGS='-I" + dir + "/include' -O2 -g", "CGO_LDFLAGS='-L" + dir + "' -O2 -g"}
	if strings.Join(env, "\n") != strings.Join(want, "\n") {
		t.Errorf("settings %q, want %q", env, want)
	}
	header, err := os.ReadFile(filepath.Join(dir, "include", "cuda.h"))
	if err != nil || !bytes.Equal(header, link.Header) {
		t.Errorf("the header is not there: %v", err)
	}

	// A program links with it and runs, whether or not there is a driver.
	source := filepath.Join(t.TempDir(), "main.c")
	program := strings.TrimSuffix(source, ".c")
	if err := os.WriteFile(source, []byte("#include <cuda.h>\nint main(void) { CUresult r = cuInit(0); return r == CUDA_SUCCESS || r == CUDA_ERROR_NO_DEVICE ? 0 : (int)r; }\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := run("cc", source, "-I"+filepath.Join(dir, "include"), "-L"+dir, "-lcuda", "-ldl", "-lpthread", "-o", program); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	out, err := exec.Command("nm", "-D", "--defined-only", program).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("cuInit")) {
		t.Errorf("a driver could find the program's cuInit in the place of its own: %v\n%s", err, out)
	}
}

// TestEnvAgain: what is made stays, what is stale or gone is made anew.
func TestEnvAgain(t *testing.T) {
	dir := t.TempDir()
	lib := filepath.Join(dir, "libcuda.a")
	made := func() os.FileInfo {
		t.Helper()
		if _, err := Env(dir); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(lib)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	first := made()
	if !os.SameFile(first, made()) {
		t.Error("the library is made twice")
	}
	if err := os.WriteFile(filepath.Join(dir, "version"), []byte("old"), 0o666); err != nil {
		t.Fatal(err)
	}
	second := made()
	if os.SameFile(first, second) {
		t.Error("a stale library stays")
	}
	if err := os.Remove(lib); err != nil {
		t.Fatal(err)
	}
	made()
	if names, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(names) != 3 {
		t.Errorf("left in the folder: %v %v", names, err)
	}
}

func TestSetting(t *testing.T) {
	unset(t, "CGO_CFLAGS")
	for _, c := range []struct{ set, want string }{
		{"", "CGO_CFLAGS=-I/x "},
		{"-O3", "CGO_CFLAGS=-I/x -O3"},
		{"-I/x -O3", "CGO_CFLAGS=-I/x -O3"}, // settings taken from an earlier Env
		{"-I/xy", "CGO_CFLAGS=-I/x -I/xy"},
	} {
		t.Setenv("CGO_CFLAGS", c.set)
		if got, err := setting("CGO_CFLAGS", "-I/x"); got != c.want || err != nil {
			t.Errorf("with %q: %q %v, want %q", c.set, got, err, c.want)
		}
	}
	if _, err := setting("CGO_CFLAGS", "-I/it's"); err == nil {
		t.Error("a quote is accepted")
	}
}

// TestCompilerFails: its own words reach the user.
func TestCompilerFails(t *testing.T) {
	t.Setenv("CC", "/no/such/compiler")
	if _, err := Env(t.TempDir()); err == nil || !strings.Contains(err.Error(), "/no/such/compiler") {
		t.Errorf("error %v", err)
	}
}
