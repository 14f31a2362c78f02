package trainer

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/data"
)

// digitFolder writes some of the embedded digits as PNG files, a folder for each
// digit; broken says which of a digit's files end too early.
func digitFolder(t *testing.T, each int, broken func(i int) bool) string {
	t.Helper()
	dir := t.TempDir()
	split, err := data.Open(data.Config{Name: "digits", Image: [3]int{1, 8, 8}, Classes: 10})
	if err != nil {
		t.Fatal(err)
	}
	var count [10]int
	img := image.NewGray(image.Rect(0, 0, 8, 8))
	for i := range split.Train.Len() {
		label, err := split.Train.Sample(i, img.Pix)
		if err != nil {
			t.Fatal(err)
		}
		n := count[label]
		if count[label]++; n >= each {
			continue
		}
		var file bytes.Buffer
		if err := png.Encode(&file, img); err != nil {
			t.Fatal(err)
		}
		b := file.Bytes()
		if broken(n) {
			b = b[:len(b)-20]
		}
		class := filepath.Join(dir, fmt.Sprint(label))
		if err := os.MkdirAll(class, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(class, fmt.Sprintf("%03d.png", n)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestImageFolder trains on pictures of which some are broken, and learns.
func TestImageFolder(t *testing.T) {
	long(t)
	dir := digitFolder(t, 60, func(i int) bool { return i%6 == 1 })
	m := digits(32, runtime.Train{Epochs: 12, Seed: 3, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.1, Momentum: 0.9}})
	m.Data = runtime.Data{Name: "image_folder", Resize: [2]int{8, 8}, Fit: "crop", ValPart: 0.25, Augment: runtime.Augment{Padding: 1}}
	out := filepath.Join(t.TempDir(), "run")
	status, text, stderr := run(t, context.Background(), m, "train", "--data-dir", dir, "--out", out)
	if status != 0 {
		t.Fatalf("exit %d\n%s%s", status, text, stderr)
	}
	if !strings.Contains(text, "image_folder: 450 training and 150 validation samples; 180 updates") || !strings.Contains(text, "left out 100 samples that cannot be read") {
		t.Error(text)
	}
	if n := strings.Count(stderr, "the file is truncated; left out ("); n < 10 || n > 20 { // each part is told of for itself
		t.Errorf("%d warnings\n%s", n, stderr)
	}
	accuracy := regexp.MustCompile(`final validation accuracy ([0-9.]+) %`).FindStringSubmatch(text)
	if accuracy == nil || len(accuracy[1]) < 5 || accuracy[1] < "70" {
		t.Errorf("it has not learnt: %q\n%s", accuracy, text)
	}
	text = mustRun(t, m, "eval", "--data-dir", dir, "--weights", filepath.Join(out, "last.safetensors"), "--out", t.TempDir())
	if !strings.Contains(text, accuracy[1]) {
		t.Errorf("eval has another accuracy than %s\n%s", accuracy[1], text)
	}
	status, _, stderr = run(t, context.Background(), m, "train", "--data-dir", dir, "--out", t.TempDir(), "--strict")
	if status != 1 || !regexp.MustCompile(regexp.QuoteMeta(dir)+`.[0-9].[0-9]+\.png: PNG: the file is truncated`).MatchString(stderr) {
		t.Errorf("strict: exit %d\n%s", status, stderr)
	}
}
