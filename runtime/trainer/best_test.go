package trainer

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/checkpoint"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// TestJudge: which validation is best, and when there were too many that were
// no better.
func TestJudge(t *testing.T) {
	scores := []checkpoint.Score{{Loss: 2, Accuracy: 0.5}, {Loss: 1.9, Accuracy: 0.5}, {Loss: 2.5, Accuracy: 0.505}, {Loss: 1.5, Accuracy: 0.4}, {Loss: 1.6, Accuracy: 0.52}, {Loss: 1.7, Accuracy: 0.52}}
	for _, c := range []struct {
		by       string
		minDelta float64
		best     string // of each score: b if it is the best so far
		bad      []int  // after each score
	}{
		{"accuracy", 0, "bbb.b.", []int{0, 1, 0, 1, 0, 1}},
		{"accuracy", 0.01, "bbb.b.", []int{0, 1, 2, 3, 0, 1}},
		{"loss", 0, "bb.b..", []int{0, 0, 1, 0, 1, 2}},
		{"loss", 0.15, "bb.b..", []int{0, 1, 2, 0, 1, 2}},
	} {
		m := digits(32, runtime.Train{EarlyStop: runtime.EarlyStop{MinDelta: c.minDelta}})
		tr := &training{stepper: stepper{app: &app{model: m}}, plan: checkpoint.Plan{Best: c.by, Patience: 3}}
		got := ""
		for i, s := range scores {
			s.Updates = i
			if tr.judge(s) {
				got += "b"
			} else {
				got += "."
			}
			if tr.early.Bad != c.bad[i] || tr.stopped() != (c.bad[i] >= 3) {
				t.Errorf("%s, %g: after %d validations %+v, stopped %t", c.by, c.minDelta, i+1, tr.early, tr.stopped())
			}
		}
		if got != c.best || tr.best.Updates != strings.LastIndex(got, "b") || tr.last.Updates != 5 {
			t.Errorf("%s: best are %s, want %s", c.by, got, c.best)
		}
	}
}

// TestEarlyStop: a run that becomes no better ends, says why, and goes on only
// when told to.
func TestEarlyStop(t *testing.T) {
	dir := t.TempDir()
	m := func() *runtime.Model {
		return digits(32, runtime.Train{Epochs: 9, EarlyStop: runtime.EarlyStop{Patience: 2}, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 1e-30}})
	}
	out := mustRun(t, m(), "train", "--out", dir)
	if !strings.Contains(out, "epoch 3/9") || strings.Contains(out, "epoch 4/9") || !strings.Contains(out, "stopped early: the last 2 validations were no better\n") {
		t.Errorf("no early stop in\n%s", out)
	}
	if out = mustRun(t, m(), "train", "--out", dir, "--resume"); !strings.Contains(out, "stopped early after update 138; --patience 0, or more than 2, makes it go on") {
		t.Errorf("resumed:\n%s", out)
	}
	out = mustRun(t, m(), "train", "--out", dir, "--resume", "--patience", "4")
	if !strings.Contains(out, "epoch 5/9") || strings.Contains(out, "epoch 6/9") || !strings.Contains(out, "the last 4 validations were no better") {
		t.Errorf("with more patience:\n%s", out)
	}
	if out = mustRun(t, m(), "train", "--out", dir, "--resume", "--patience", "0"); !strings.Contains(out, "epoch 9/9") || strings.Contains(out, "stopped") {
		t.Errorf("with no end of patience:\n%s", out)
	}
	for _, bad := range []string{"--patience -2", "--best luck", "--save-every -1", "--keep-every -1"} {
		if status, _, stderr := run(t, context.Background(), m(), append([]string{"train"}, strings.Fields(bad)...)...); status != 2 {
			t.Errorf("%s: exit %d, %s", bad, status, stderr)
		}
	}
}

// TestAverageIsValidated: where an average is kept, it is what validation
// measures and what last and best name.
func TestAverageIsValidated(t *testing.T) {
	dir := t.TempDir()
	m := func() *runtime.Model {
		return digits(32, runtime.Train{Epochs: 2, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.5, Momentum: 0.9}, EMA: runtime.EMA{Decay: 0.99}})
	}
	mustRun(t, m(), "train", "--out", dir)
	for _, link := range []string{"last.safetensors", "best.safetensors"} {
		if to, err := os.Readlink(dir + "/" + link); err != nil || to != "checkpoints/000092/average.safetensors" {
			t.Errorf("%s names %s, %v", link, to, err)
		}
	}
	records := readRecords(t, dir)
	want := records[len(records)-1]
	s, err := runtime.NewSession(m(), runtime.Options{Device: "cpu"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sets, err := (&source{}).load(m(), 0)
	if err != nil {
		t.Fatal(err)
	}
	measured := map[string]float64{}
	for _, name := range []string{"average", "weights"} {
		if err := s.Load(dir + "/checkpoints/000092/" + name + ".safetensors"); err != nil {
			t.Fatal(err)
		}
		e, err := evaluate(s, sets)
		if err != nil {
			t.Fatal(err)
		}
		measured[name] = e.score(false).loss
	}
	if measured["average"] != *want.ValLoss || measured["weights"] == *want.ValLoss {
		t.Errorf("validation measured %v; the average gives %v, the weights %v", *want.ValLoss, measured["average"], measured["weights"])
	}
	if f, err := safetensors.Read(dir + "/last.safetensors"); err != nil || f.Metadata["vitgen.classes"] == "" {
		t.Errorf("no classes in the average, %v", err)
	}
}
