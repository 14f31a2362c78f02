package trainer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/safetensors"
	"github.com/vitgen/vitgen/runtime/transfer"
)

// TestFineTune starts a run from weights under other names and with another
// head: the refusal names the flags, and the run says what became of each
// tensor.
func TestFineTune(t *testing.T) {
	long(t)
	t.Chdir(t.TempDir())
	m := digits(32, runtime.Train{Epochs: 1, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.5}})
	mustRun(t, m, "train", "--out", "first")
	if out := mustRun(t, m, "train", "--out", "again", "--steps", "1", "--init", "first"); !strings.Contains(out, "init first/best.safetensors: 2 of 2 parameters taken\n") {
		t.Errorf("a run as --init: %s", out)
	}
	f, err := safetensors.Read(filepath.Join("first", "last.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Metadata["vitgen.classes"]; got != `["0","1","2","3","4","5","6","7","8","9"]` {
		t.Errorf("the weights name the classes %s", got)
	}
	for i := range f.Tensors {
		f.Tensors[i].Name = "old." + f.Tensors[i].Name
	}
	f.Metadata["vitgen.classes"] = `["ten","nine"]`
	if err := safetensors.Write("old.safetensors", f); err != nil {
		t.Fatal(err)
	}
	status, _, errors := run(t, context.Background(), m, "train", "--out", "second", "--init", "old.safetensors")
	if _, err := os.Stat("second"); status != 1 || !strings.Contains(errors, `try --map '^old\.='`) || err == nil {
		t.Errorf("exit %d\n%s", status, errors)
	}
	args := []string{"train", "--out", "second", "--steps", "1", "--init", "old.safetensors"}
	status, out, errors := run(t, context.Background(), m, append(args, "--map", `^old\.=`)...)
	for _, want := range []string{"init old.safetensors: 2 of 2 parameters taken\n", "head.weight ← old.head.weight\n"} {
		if status != 0 || !strings.Contains(out, want) {
			t.Errorf("exit %d, no %q in\n%s%s", status, want, out, errors)
		}
	}
	if !strings.Contains(errors, "the classes of old.safetensors are ten, nine, those of the data 0, 1, 2, 3, 4, … (10)") {
		t.Errorf("other classes are not mentioned\n%s", errors)
	}
	out = mustRun(t, m, append(args, "--map", `^old\.=`, "--reset-head", "--overwrite")...)
	if !strings.Contains(out, "reset        head.weight: initial values instead of the file's [10 64]\n") {
		t.Error(out)
	}
	var receipt struct{ Init transfer.Report }
	if err := json.Unmarshal(read(t, filepath.Join("second", "run.json")), &receipt); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(read(t, "old.safetensors"))
	if receipt.Init.SHA256 != hex.EncodeToString(sum[:]) || receipt.Init.Count(transfer.Reset) != 2 {
		t.Errorf("run.json has %+v", receipt.Init)
	}
	for _, bad := range [][]string{
		{"--map", "a=b"},
		{"--init", "old.safetensors", "--map", "a"},
		{"--init", "old.safetensors", "--map", "@nowhere"},
		{"--init", "old.safetensors", "--init-grid", "3x"},
		{"--init", "old.safetensors", "--init-grid", "3x4x"},
		{"--reset-head"},
	} {
		if status, _, errors := run(t, context.Background(), m, append([]string{"train"}, bad...)...); status != 2 {
			t.Errorf("%q: exit %d\n%s", bad, status, errors)
		}
	}
}
