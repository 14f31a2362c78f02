package trainer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/internal/python"
	"github.com/vitgen/vitgen/runtime"
)

func parseResult(t *testing.T, text []byte) (r evalResult) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return r
}

// TestEval: what the command prints and writes is what evaluate found.
func TestEval(t *testing.T) {
	long(t)
	t.Chdir(t.TempDir())
	m := digits(32, runtime.Train{Epochs: 1, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.1}})
	s, sets := trained(t, m)
	if err := s.Save("w.safetensors"); err != nil {
		t.Fatal(err)
	}
	e, err := evaluate(s, sets)
	if err != nil {
		t.Fatal(err)
	}
	out := mustRun(t, m, "eval", "--weights", "w.safetensors")
	exact := fmt.Sprintf("validation loss %.4f, accuracy %.2f %%  (exact: means over samples)\n", e.exact.loss, 100*e.exact.accuracy)
	d2l := fmt.Sprintf("validation loss %.4f, accuracy %.2f %%  (d2l: means of batch means)\n", e.d2l.loss, 100*e.d2l.accuracy)
	for _, want := range []string{"digits: 355 validation samples\n" + exact + d2l, "class  samples  correct  accuracy  most often taken for\n",
		"files    w-eval/confusion.png, w-eval/confusion.svg, w-eval/mistakes.png, w-eval/eval.json\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if other := mustRun(t, m, "eval", "--weights", "w.safetensors", "--metrics", "d2l"); !strings.Contains(other, d2l+exact) {
		t.Errorf("with --metrics d2l, not first %q in\n%s", d2l, other)
	}

	printed := mustRun(t, m, "eval", "--weights", "w.safetensors", "--json", "--out", "deep/er", "--metrics", "d2l")
	written := read(t, "deep/er/eval.json")
	if printed != string(written) {
		t.Errorf("--json prints\n%s, eval.json has\n%s", printed, written)
	}
	r := parseResult(t, written)
	if r.Samples != 355 || r.Metrics != "d2l" || float64(r.Loss) != e.d2l.loss || float64(r.Exact.Accuracy) != e.exact.accuracy ||
		r.D2L != r.scoreResult || r.Model != "fake" || r.Data != "digits" || r.Weights != "w.safetensors" {
		t.Errorf("%+v", r)
	}
	if len(r.Classes) != 10 || len(r.Confusion) != 10 || len(r.Mistakes) != maxMistakes {
		t.Fatalf("%d classes, %d rows, %d mistakes", len(r.Classes), len(r.Confusion), len(r.Mistakes))
	}
	samples := 0
	for k, c := range r.Classes {
		row := 0
		for guess, n := range r.Confusion[k] {
			row += n
			if n != e.confusion[k][guess] {
				t.Errorf("label %d, guess %d: %d, want %d", k, guess, n, e.confusion[k][guess])
			}
		}
		if c.Name != fmt.Sprint(k) || c.Samples != row || c.Correct != r.Confusion[k][k] || float64(c.Accuracy) != float64(c.Correct)/float64(row) {
			t.Errorf("class %d: %+v of a row with %d", k, c, row)
		}
		line := fmt.Sprintf("\n%d      %7d  %7d  %6.2f %%", k, c.Samples, c.Correct, 100*c.Accuracy)
		if !strings.Contains(out, line) {
			t.Errorf("no %q in\n%s", line, out)
		}
		samples += row
	}
	if samples != 355 {
		t.Errorf("the matrix has %d samples", samples)
	}
	for _, name := range r.Files {
		if strings.HasSuffix(name, ".png") {
			if p, err := png.Decode(bytes.NewReader(read(t, name))); err != nil || p.Bounds().Dx() < 500 {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if svg := read(t, "deep/er/confusion.svg"); !bytes.Contains(svg, []byte(fmt.Sprintf("fake on digits: %.2f %% of 355 right", 100*e.exact.accuracy))) {
		t.Error("confusion.svg has another title")
	}
	if left, _ := filepath.Glob("*/.*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Weights that are no numbers are told as such, in JSON too.
func TestEvalOfBrokenWeights(t *testing.T) {
	long(t)
	t.Chdir(t.TempDir())
	m := digits(32, runtime.Train{Epochs: 1})
	s, _ := trained(t, m)
	if err := s.SetParam("head.bias", []float32{0, 0, 0, float32(math.NaN()), 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if err := s.Save("nan.safetensors"); err != nil {
		t.Fatal(err)
	}
	out := mustRun(t, m, "eval", "--weights", "nan.safetensors", "--json")
	if !strings.Contains(out, `"loss": null`) {
		t.Error(out)
	}
	parseResult(t, []byte(out))
	if text := mustRun(t, m, "eval", "--weights", "nan.safetensors"); !strings.Contains(text, "validation loss NaN") {
		t.Error(text)
	}
}

// Weights with the names of other classes are evaluated, with a warning.
func TestEvalOfOtherClasses(t *testing.T) {
	long(t)
	t.Chdir(t.TempDir())
	m := digits(32, runtime.Train{Epochs: 1})
	s, _ := trained(t, m)
	for _, c := range []struct{ names, want string }{
		{"0 1 2 3 4 5 6 7 8 9", ""},
		{"cat dog", "trained on the classes cat, dog; the data set has 0, 1, 2,"},
	} {
		if err := s.SetClasses(strings.Fields(c.names)); err != nil {
			t.Fatal(err)
		}
		if err := s.Save("w.safetensors"); err != nil {
			t.Fatal(err)
		}
		status, _, stderr := run(t, context.Background(), m, "eval", "--weights", "w.safetensors")
		if status != 0 || !strings.Contains(stderr, c.want) || c.want == "" && stderr != "" {
			t.Errorf("%s: exit %d, %q", c.names, status, stderr)
		}
	}
}

// Where nothing can be written, or the user has had enough, that is said, and
// nothing is left behind.
func TestEvalStops(t *testing.T) {
	t.Chdir(t.TempDir())
	m := digits(32, runtime.Train{Epochs: 1})
	s, _ := trained(t, m)
	if err := s.Save("w.safetensors"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := run(t, context.Background(), m, "eval", "--weights", "w.safetensors", "--out", "file/x"); status != 1 || !strings.Contains(stderr, "give another directory with --out") {
		t.Errorf("exit %d, %s", status, stderr)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if status, out, stderr := run(t, ctx, m, "eval", "--weights", "w.safetensors"); status != 1 || !strings.Contains(stderr, "interrupted; nothing was written") || out != "" {
		t.Errorf("exit %d\n%s%s", status, out, stderr)
	}
	if _, err := os.Stat("w-eval"); err == nil {
		t.Error("an empty directory is left")
	}
}

// What an evaluation has not, an earlier one's files must not pretend.
func TestEvalFilesAreOfOneEvaluation(t *testing.T) {
	long(t)
	dir := t.TempDir()
	m := digits(32, runtime.Train{Epochs: 1, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.1}})
	s, sets := trained(t, m)
	e, err := evaluate(s, sets)
	if err != nil {
		t.Fatal(err)
	}
	a := &app{model: m}
	if files, err := e.write(dir, a.evalResult(e, s, sets, "exact"), sets); err != nil || len(files) != 4 {
		t.Fatal(files, err)
	}
	e.confusion, e.mistakes = nil, nil // as with thousands of classes, all right
	files, err := e.write(dir, a.evalResult(e, s, sets, "exact"), sets)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if there, _ := filepath.Glob(filepath.Join(dir, "*")); len(there) != 1 {
		t.Errorf("the directory has %v", there)
	}
}

func TestClassTable(t *testing.T) {
	r := evalResult{}
	for k := range 100 {
		r.Classes = append(r.Classes, classResult{fmt.Sprintf("c%d", k), 10, 10 - k%10, number(float64(10-k%10) / 10)})
	}
	r.Classes[9].Samples, r.Classes[9].Correct, r.Classes[9].Accuracy = 0, 0, number(math.NaN())
	var out strings.Builder
	r.printClasses(&out)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 22 || !strings.HasPrefix(lines[0], "the 20 worst of 100 classes") || !strings.HasPrefix(lines[2], "c19 ") || !strings.HasPrefix(lines[11], "c8 ") {
		t.Errorf("the table is\n%s", out.String())
	}
	// A class without samples has no accuracy, and one without mistakes is
	// taken for nothing else.
	r = evalResult{Classes: []classResult{{"a", 0, 0, number(math.NaN())}, {"b", 2, 2, 1}, {"c", 3, 0, 0}}, Confusion: [][]int{{0, 0, 0}, {0, 2, 0}, {1, 2, 0}}}
	out.Reset()
	r.printClasses(&out)
	lines = strings.Split(out.String(), "\n")
	if !strings.Contains(lines[1], "–") || strings.Contains(lines[2], "×") || !strings.HasSuffix(lines[3], "b (2×)") {
		t.Errorf("the table is\n%s", out.String())
	}
}

// TestTrainForTensorBoard: a training run leaves scalars and pictures of what it
// misclassifies.
func TestTrainForTensorBoard(t *testing.T) {
	py := python.Find(t, "tensorboard")
	dir := t.TempDir()
	m := digits(32, runtime.Train{Epochs: 3, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.1}})
	mustRun(t, m, "train", "--out", dir)
	out, err := exec.Command(py, "-c", `
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
a = EventAccumulator(sys.argv[1]); a.Reload()
print([(e.step, e.width, e.height) for e in a.Images("val/misclassified")])
print([e.step for e in a.Scalars("val/accuracy")], a.Scalars("val/accuracy")[-1].value)
print(sorted(a.Tags()["scalars"]))
`, dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	lines = lines[max(0, len(lines)-3):]
	if lines[0] != "[(46, 528, 568), (92, 528, 568), (138, 528, 568)]" {
		t.Errorf("the images are %s", lines[0])
	}
	records := readRecords(t, dir)
	if want := fmt.Sprintf("[46, 92, 138] %.5f", *records[len(records)-1].ValAcc); !strings.HasPrefix(lines[1], want[:len(want)-1]) {
		t.Errorf("the accuracies are %s, want %s", lines[1], want)
	}
	if lines[2] != "['data_wait', 'lr', 'samples_per_sec', 'train/epoch_loss', 'train/loss', 'val/accuracy', 'val/loss']" {
		t.Errorf("the scalars are %s", lines[2])
	}
}
