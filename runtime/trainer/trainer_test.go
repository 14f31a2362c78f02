package trainer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/internal/fake"
	"github.com/vitgen/vitgen/runtime/report"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// digits is a linear classifier of the embedded digits.
func digits(batch int, train runtime.Train) *runtime.Model {
	m := fake.New([3]int{1, 8, 8}, 10, batch, train)
	m.Data = runtime.Data{Name: "digits"}
	return m
}

// run runs a command in a directory of its own.
func run(t *testing.T, ctx context.Context, m *runtime.Model, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	status = Run(ctx, m, args, &out, &err)
	return status, out.String(), err.String()
}

func mustRun(t *testing.T, m *runtime.Model, args ...string) string {
	t.Helper()
	status, out, err := run(t, context.Background(), m, args...)
	if status != 0 {
		t.Fatalf("%v: exit %d\n%s%s", args, status, out, err)
	}
	return out
}

func readRecords(t *testing.T, dir string) []report.Record {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var records []report.Record
	for s := bufio.NewScanner(f); s.Scan(); {
		var r report.Record
		d := json.NewDecoder(strings.NewReader(s.Text()))
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil {
			t.Fatalf("%s: %v", s.Text(), err)
		}
		records = append(records, r)
	}
	return records
}

func TestTrain(t *testing.T) {
	t.Chdir(t.TempDir())
	sgd := runtime.Optimizer{Kind: "sgd", LR: 0.5, Momentum: 0.9}
	m := digits(32, runtime.Train{Epochs: 4, Seed: 1, Optimizer: sgd})
	out := mustRun(t, m, "train", "--threads", "2")
	for _, want := range []string{
		"fake: 650 parameters on cpu (2 threads, go), fp32\n",
		"digits: 1,442 training and 355 validation samples; 184 updates, 46 an epoch, batch 32\n",
		"epoch 1/4 ", "epoch 4/4 ",
		"curves   runs/fake/curves.png, runs/fake/curves.svg\n",
		"weights  runs/fake/last.safetensors, runs/fake/best.safetensors\n",
		"final validation accuracy 9",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	records := readRecords(t, "runs/fake")
	var epochs []report.Record
	for i, r := range records {
		if i > 0 && r.Step < records[i-1].Step {
			t.Errorf("step %d after %d", r.Step, records[i-1].Step)
		}
		if r.LR != 0.5 || r.SamplesPerSec <= 0 || r.Epoch != float64(r.Step)/46 {
			t.Errorf("record %+v", r)
		}
		if r.Kind == "epoch" {
			epochs = append(epochs, r)
		} else if r.ValLoss != nil || r.Kind != "interval" {
			t.Errorf("record %+v", r)
		}
	}
	if len(epochs) != 4 || len(records) != 12 {
		t.Fatalf("%d records, %d of epochs", len(records), len(epochs))
	}
	if last := epochs[3]; *last.ValAcc < 0.9 || *last.ValLoss > *epochs[0].ValLoss || last.Step != 184 {
		t.Errorf("the last epoch is %+v", last)
	}
	picture, err := os.Open("runs/fake/curves.png")
	if err != nil {
		t.Fatal(err)
	}
	defer picture.Close()
	if _, err := png.Decode(picture); err != nil {
		t.Error(err)
	}
	if svg, err := os.ReadFile("runs/fake/curves.svg"); err != nil || !bytes.Contains(svg, []byte("val accuracy")) {
		t.Errorf("curves.svg: %v", err)
	}

	// eval agrees with what training reported, in both ways of averaging.
	eval := mustRun(t, m, "eval", "--weights", "runs/fake/last.safetensors")
	if want := strings.TrimSpace(lineWith(t, eval, "validation loss")); !strings.Contains(want, fmt.Sprintf("accuracy %.2f %%", 100**epochs[3].ValAcc)) {
		t.Errorf("eval says %q, training ended with %v", want, *epochs[3].ValAcc)
	}
	d2l := mustRun(t, m, "eval", "--weights", "runs/fake/last.safetensors", "--metrics", "d2l")
	if lineWith(t, d2l, "validation loss") == lineWith(t, eval, "validation loss") {
		t.Error("--metrics d2l changes nothing, though the last batch is partial")
	}

	// A second run does not touch the first, and is bitwise the same.
	first := read(t, "runs/fake/last.safetensors")
	out = mustRun(t, m, "train", "--threads", "1")
	if !strings.Contains(out, "runs/fake-2/curves.png") {
		t.Errorf("the second run is not in a directory of its own\n%s", out)
	}
	if !bytes.Equal(first, read(t, "runs/fake-2/last.safetensors")) {
		t.Error("the same seed gives other weights")
	}
	mustRun(t, m, "train", "--seed", "2", "--epochs", "4", "--out", "elsewhere")
	if bytes.Equal(first, read(t, "elsewhere/last.safetensors")) {
		t.Error("another seed gives the same weights")
	}
}

func lineWith(t *testing.T, text, what string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		if strings.Contains(line, what) {
			return line
		}
	}
	t.Fatalf("no line with %q in\n%s", what, text)
	return ""
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTrainEqualsSteps replays a run by hand through a Session: partial last
// batches, accumulation, schedule and order are what they should be.
func TestTrainEqualsSteps(t *testing.T) {
	for _, accumulate := range []int{1, 3} {
		dir := filepath.Join(t.TempDir(), "run")
		train := runtime.Train{Epochs: 2, Seed: 5, Accumulate: accumulate,
			Optimizer: runtime.Optimizer{Kind: "adamw", LR: 0.01, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01},
			Schedule:  runtime.Schedule{Kind: "cosine", WarmupSteps: 3, FinalLR: 1e-4}}
		m := digits(100, train)
		mustRun(t, m, "train", "--out", dir)

		s, err := runtime.NewSession(m, runtime.Options{Device: "cpu"})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		from := source{}
		sets, err := from.load(m, 5)
		if err != nil {
			t.Fatal(err)
		}
		perEpoch := map[int]int{1: 15, 3: 5}[accumulate] // 1,442 samples
		s.SetSteps(perEpoch, 2*perEpoch)
		for epoch := range 2 {
			var images []float32
			var labels []int32
			for b, err := range sets.train.Epoch(epoch, 0) {
				if err != nil {
					t.Fatal(err)
				}
				images, labels = append(images, b.Images...), append(labels, b.Labels...)
			}
			for lo := 0; lo < len(labels); lo += 100 * accumulate {
				hi := min(lo+100*accumulate, len(labels))
				if _, _, err := s.Step(images[lo*64:hi*64], labels[lo:hi]); err != nil {
					t.Fatal(err)
				}
			}
		}
		f, err := safetensors.Read(filepath.Join(dir, "last.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range m.Params {
			want, err := s.Param(p.Name)
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range f.Tensor(p.Name).Float32s() {
				if v != want[i] {
					t.Fatalf("accumulate %d: %s[%d] is %g, by hand %g", accumulate, p.Name, i, v, want[i])
				}
			}
		}
		last := readRecords(t, dir)
		if r := last[len(last)-1]; r.Step != 2*perEpoch || r.LR >= 0.01 || r.LR < 1e-4 {
			t.Errorf("accumulate %d: the last record is %+v", accumulate, r)
		}
	}
}

// long skips a test under -short, and so under the race detector, where it would
// take long: its work is that of one goroutine on files.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("one goroutine's work on files; left out with -short")
	}
}

func TestTrainSteps(t *testing.T) {
	dir := t.TempDir()
	out := mustRun(t, digits(32, runtime.Train{Epochs: 4}), "train", "--steps", "50", "--every", "7", "--out", dir)
	records := readRecords(t, dir)
	last := records[len(records)-1]
	if last.Step != 50 || last.Kind != "epoch" || last.ValAcc == nil {
		t.Errorf("the last record is %+v\n%s", last, out)
	}
	var at []int
	for _, r := range records {
		if r.Kind == "interval" {
			at = append(at, r.Step)
		}
	}
	// An epoch has 46 updates; intervals are counted from its start.
	if want := []int{7, 14, 21, 28, 35, 42, 46, 50}; !slices.Equal(at, want) {
		t.Errorf("intervals end after updates %v, want %v", at, want)
	}
	if !strings.Contains(out, "epoch 1.087/2") {
		t.Errorf("no partial epoch in\n%s", out)
	}
}

// TestTrainInit: --init starts from the weights given.
func TestTrainInit(t *testing.T) {
	long(t)
	dir := t.TempDir()
	m := digits(32, runtime.Train{Epochs: 3, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.5}})
	mustRun(t, m, "train", "--out", dir)
	trained := readRecords(t, dir)
	mustRun(t, m, "train", "--out", dir, "--overwrite", "--steps", "1", "--init", filepath.Join(dir, "best.safetensors"))
	if again := readRecords(t, dir); again[0].TrainLoss > 0.8*trained[0].TrainLoss {
		t.Errorf("train loss starts with %g, before it started with %g", again[0].TrainLoss, trained[0].TrainLoss)
	}
}

// TestMain makes the test binary a trainer where a test asks for one.
func TestMain(m *testing.M) {
	if os.Getenv("VITGEN_TEST_TRAINER") != "" {
		Main(digits(32, runtime.Train{Epochs: 100000}))
	}
	os.Exit(m.Run())
}

// TestSignal interrupts a trainer as a user does.
func TestSignal(t *testing.T) {
	dir := t.TempDir()
	child := exec.Command(os.Args[0], "train", "--out", dir)
	child.Env = append(os.Environ(), "VITGEN_TEST_TRAINER=1")
	pipe, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		out.WriteString(lines.Text() + "\n")
		if strings.HasPrefix(lines.Text(), "epoch ") && !strings.Contains(out.String(), "\nepoch 2") {
			if err := child.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := child.Wait(); err != nil || !strings.Contains(out.String(), "interrupted after update ") {
		t.Errorf("%v\n%s", err, out.String())
	}
	if want := fmt.Sprintf("    %s train --resume --out %s\n", os.Args[0], dir); !strings.Contains(out.String(), want) {
		t.Errorf("no %q in\n%s", want, out.String())
	}
	if _, err := safetensors.Read(filepath.Join(dir, "last.safetensors")); err != nil {
		t.Error(err)
	}
}

// TestDivergence: a loss that is no number stops training and names the step.
func TestDivergence(t *testing.T) {
	dir := t.TempDir()
	m := digits(32, runtime.Train{Epochs: 3, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 1e38}})
	status, out, stderr := run(t, context.Background(), m, "train", "--out", dir, "--save-every", "1")
	if status != 1 || !strings.Contains(stderr, "update 3: the training loss of 32 samples is") || !strings.Contains(stderr, "learning rate 1e+38") {
		t.Errorf("exit %d\n%s%s", status, out, stderr)
	}
	if got, err := os.Readlink(filepath.Join(dir, "last.safetensors")); err != nil || got != "checkpoints/000002/weights.safetensors" {
		t.Errorf("the last weights are %s, %v", got, err)
	}

	// What an update spoilt is not saved, though its loss was fine.
	m.Train.Optimizer.LR = 1e39 // infinite in float32
	dir = t.TempDir()
	status, out, stderr = run(t, context.Background(), m, "train", "--out", dir, "--save-every", "1")
	for _, want := range []string{"update 1 left element 0 of parameter head.weight (fake.yaml:3:5)", "is not saved", "first bad number: k03_sgd"} {
		if status != 1 || !strings.Contains(stderr, want) {
			t.Errorf("exit %d, no %q in\n%s%s", status, want, out, stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "checkpoints")); err == nil {
		t.Error("it is saved")
	}
}

func TestUsage(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("broken.safetensors", []byte("not a file of tensors"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := digits(32, runtime.Train{Epochs: 1})
	noData := digits(32, runtime.Train{Epochs: 1})
	noData.Data.Name = ""
	mnist := digits(32, runtime.Train{Epochs: 1})
	mnist.Data.Name = "mnist"
	forever := digits(32, runtime.Train{})
	cosine := digits(32, runtime.Train{Schedule: runtime.Schedule{Kind: "step", EveryUnit: "epochs", Every: 0}})
	for _, c := range []struct {
		model  *runtime.Model
		args   string
		status int
		want   string
	}{
		{m, "", 2, "a command is missing"},
		{m, "trian", 2, `unknown command "trian"; did you mean train?`},
		{m, "xyzzyx", 2, "help lists them"},
		{m, "train --epoch 3", 2, "flag provided but not defined: -epoch"},
		{m, "train --epochs three", 2, `invalid value "three"`},
		{m, "train --epochs -1", 2, "cannot be negative"},
		{m, "train --metrics exakt", 2, "exact or d2l"},
		{m, "train now", 2, `unexpected argument "now"`},
		{forever, "train", 2, "give --epochs or --steps"},
		{m, "train --device cuda", 1, "built without CUDA support; build it with `vitgen build fake.yaml --target cpu,cuda`, or use --device cpu"},
		{m, "train --threads -2", 1, "-2 threads"},
		{m, "train --data digit", 1, "did you mean digits?"},
		{m, "train --data fashion_mnist --data-dir nowhere", 1, "not in nowhere: put there the four files"},
		{noData, "train", 1, "names no data set: give one with --data"},
		{mnist, "train", 1, "train-images-idx3-ubyte"},
		{cosine, "train --epochs 1", 1, "positive interval"},
		{m, "train --init missing.safetensors", 1, "missing.safetensors"},
		{m, "train --init broken.safetensors", 1, "broken.safetensors"},
		{m, "eval", 2, "--weights FILE is missing"},
		{m, "eval --weights broken.safetensors", 1, "broken.safetensors"},
		{m, "verify", 2, "--golden FILE is missing"},
		{m, "verify --golden broken.safetensors", 1, "broken.safetensors"},
		{m, "verify --golden missing.safetensors", 1, "missing.safetensors"},
		{m, "bench --steps 0", 2, "--steps must be positive"},
		{m, "bench --batch 8", 2, "--batch is of --forward"},
		{m, "bench --forward --batch -8", 2, "--batch must be positive"},
		{m, "bench --forward --data digits", 2, "--forward makes none"},
		{m, "info extra", 2, `unexpected argument "extra"`},
	} {
		status, _, stderr := run(t, context.Background(), c.model, strings.Fields(c.args)...)
		if status != c.status || !strings.Contains(stderr, c.want) {
			t.Errorf("%q: exit %d, want %d, with %q in\n%s", c.args, status, c.status, c.want, stderr)
		}
	}
	if _, err := os.Stat("runs"); err == nil {
		t.Error("a failed command left a directory behind")
	}
	for _, args := range [][]string{{"help"}, {"--help"}, {"train", "-h"}, {"verify", "--help"}} {
		out := mustRun(t, m, args...)
		if !strings.Contains(out, "train") && !strings.Contains(out, "--golden") {
			t.Errorf("%v prints\n%s", args, out)
		}
	}
}

func TestPrecisionIsSaidAloud(t *testing.T) {
	m := digits(32, runtime.Train{Precision: "bf16"})
	_, out, stderr := run(t, context.Background(), m, "bench", "--steps", "1")
	if !strings.Contains(stderr, "the spec asks for bf16") || !strings.Contains(out, ", fp32") {
		t.Errorf("%s%s", out, stderr)
	}
}

func TestComma(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 6457866: "6,457,866", -1234: "-1,234"} {
		if got := comma(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
}
