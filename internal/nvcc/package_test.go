package nvcc

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Writes the architecture it was asked for where PTX should be.
const echoScript = `for a in "$@"; do case $a in -arch=*) arch=$a;; esac; done
while [ "$1" != -o ]; do shift; done
grep -q BROKEN kernels.cu && { echo 'kernels.cu(2): error: broken'; exit 2; }
echo "ptx $arch" > "$2"`

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

func readFile(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func listPTX(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "kernels.sm_*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range names {
		names[i] = filepath.Base(names[i])
	}
	return strings.Join(names, " ")
}

func compilePackage(t *testing.T, dir string, c *Compiler, archs ...string) error {
	t.Helper()
	p, err := ReadPackage(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Compile(t.Context(), c, nil, archs)
	return err
}

func TestPackage(t *testing.T) {
	c := fakeNVCC(t, t.TempDir(), echoScript)
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"kernels.cu": "#include \"vg_cuda.h\"\n#include \"absent.h\"\n", "vg_cuda.h": "# include \"deep.h\"\n", "deep.h": "", "other.h": "",
		"kernels.sm_99.ptx": "// my own\n",
	})
	p, err := ReadPackage(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]byte{"vg_cuda.h": []byte("# include \"deep.h\"\n"), "deep.h": {}}, p.Headers); diff != "" {
		t.Error(diff)
	}
	if err := compilePackage(t, dir, c, "sm_80", "sm_90"); err != nil {
		t.Fatal(err)
	}
	line, rest, _ := strings.Cut(readFile(t, dir, "kernels.sm_90.ptx"), "\n")
	if line != Stamp(p.Source, p.Headers) || rest != "ptx -arch=compute_90\n" {
		t.Errorf("%q %q", line, rest)
	}
	if archs, err := p.Compiled(); err != nil || strings.Join(archs, " ") != "sm_80 sm_90" {
		t.Error(archs, err)
	}
	// Again: an equal file is not touched.
	before, _ := os.Stat(filepath.Join(dir, "kernels.sm_80.ptx"))
	if err := compilePackage(t, dir, c, "sm_80"); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(filepath.Join(dir, "kernels.sm_80.ptx"))
	if err != nil || !os.SameFile(before, after) {
		t.Error("written again:", err)
	}
	// Only what was asked for is left, and what is not ours.
	if got := listPTX(t, dir); got != "kernels.sm_80.ptx kernels.sm_99.ptx" {
		t.Error(got)
	}
	if stale, err := RemoveStale(dir); err != nil || len(stale) > 0 {
		t.Error(stale, err)
	}
	// A header is part of the source.
	writeFiles(t, dir, map[string]string{"deep.h": "int x;"})
	if stale, err := RemoveStale(dir); err != nil || len(stale) != 1 {
		t.Error(stale, err)
	}
	if got := listPTX(t, dir); got != "kernels.sm_99.ptx" {
		t.Error(got)
	}
	// After an error nothing of the old source is left.
	if err := compilePackage(t, dir, c, "sm_80"); err != nil {
		t.Fatal(err)
	}
	writeFiles(t, dir, map[string]string{"kernels.cu": "BROKEN\n"})
	var e *Error
	if err := compilePackage(t, dir, c, "sm_80"); !errors.As(err, &e) {
		t.Error(err)
	}
	if got := listPTX(t, dir); got != "kernels.sm_99.ptx" {
		t.Error(got)
	}
	writeFiles(t, dir, map[string]string{"kernels.cu": "\n"})
	if err := compilePackage(t, dir, c, "sm_99"); err == nil || !strings.Contains(err.Error(), "kernels.sm_99.ptx exists and was not written by vitgen; remove it") {
		t.Error(err)
	}
	// Nor where there is no source any more.
	if err := compilePackage(t, dir, c, "sm_80"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "kernels.cu")); err != nil {
		t.Fatal(err)
	}
	if stale, err := RemoveStale(dir); err != nil || len(stale) != 1 {
		t.Error(stale, err)
	}
	if _, err := ReadPackage(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
