package trainer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
)

// What a directory stands for: the best there is.
func TestWeightsIn(t *testing.T) {
	dir := t.TempDir()
	check := func(want string) {
		t.Helper()
		if got, err := weightsIn(dir); got != filepath.Join(dir, want) || err != nil {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	}
	for _, name := range []string{"weights.safetensors", "average.safetensors", "last.safetensors", "best.safetensors"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o666); err != nil {
			t.Fatal(err)
		}
		check(name) // each is preferred to those before
	}
}

// A run can be named where its weights are wanted.
func TestRunAsWeights(t *testing.T) {
	long(t)
	t.Chdir(t.TempDir())
	m := digits(32, runtime.Train{Epochs: 1, Seed: 1})
	mustRun(t, m, "train")
	if out := mustRun(t, m, "export", "--weights", "runs/fake", "--safetensors", "copy"); !strings.Contains(out, "of runs/fake/best.safetensors\n") {
		t.Errorf("exported something else:\n%s", out)
	}
	if run, file := mustRun(t, m, "eval", "--weights", "runs/fake"), mustRun(t, m, "eval", "--weights", "runs/fake/best.safetensors"); run != file {
		t.Errorf("of the run\n%s\nof its best\n%s", run, file)
	}
}
