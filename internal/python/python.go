// Package python finds a Python interpreter that can import what a test needs
// to hold vitgen's files against what others make of them: PyTorch, ONNX
// Runtime, TensorBoard, Pillow, safetensors. It is for tests only.
package python

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Venvs are the virtual environments that `make` makes at the top of the
// repository: that of python-check, and that of golden, which has PyTorch.
var venvs = []string{".venv-check", ".venv"}

// Find returns an interpreter that imports all the modules. Where there is
// none it skips the test, aloud, and says how to get one. The environment
// variable VITGEN_PYTHON names an interpreter to try first.
func Find(t testing.TB, modules ...string) string {
	t.Helper()
	var candidates []string
	if p := os.Getenv("VITGEN_PYTHON"); p != "" {
		candidates = append(candidates, p)
	}
	root := moduleRoot(t)
	for _, v := range venvs {
		candidates = append(candidates, filepath.Join(root, v, "bin", "python"))
	}
	for _, p := range candidates {
		if exec.Command(p, "-c", "import "+strings.Join(modules, ", ")).Run() == nil {
			return p
		}
	}
	target := "make python-check"
	if strings.Contains(strings.Join(modules, " "), "torch") {
		target = "make .venv/golden.stamp"
	}
	t.Skipf("no Python with %s; get it with `%s`", strings.Join(modules, ", "), target)
	return ""
}

// moduleRoot is the folder of go.mod, above the test's package.
func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if filepath.Dir(dir) == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
}
