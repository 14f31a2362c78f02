package trainer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/checkpoint"
)

// outcome is all that a run leaves, but for how long things took: its last
// checkpoint's files, its state, its records, and what the links name.
func outcome(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := checkpoint.NewRun(dir)
	last, err := files.Last()
	if err != nil {
		t.Fatal(err)
	}
	c, err := checkpoint.Read(files.Path(last))
	if err != nil {
		t.Fatal(err)
	}
	s := c.State
	s.Untime()
	state, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{"state": string(state), "losses": fmt.Sprint(c.Losses)}
	for _, name := range []string{checkpoint.LastLink, checkpoint.BestLink} {
		if out[name], err = os.Readlink(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		out["content of "+name] = string(read(t, filepath.Join(dir, name)))
	}
	for i, r := range readRecords(t, dir) {
		r.SamplesPerSec, r.DataWait = 0, 0
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		out[fmt.Sprintf("record %d", i)] = string(line)
	}
	return out
}

// sameOutcome compares what two runs left. Optimizer state is compared by its
// checksum, which is part of the state.
func sameOutcome(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, w := range want {
		if g, ok := got[name]; !ok {
			t.Errorf("%s is missing", name)
		} else if g != w {
			t.Errorf("%s is\n%.2000s\nwithout interrupt it is\n%.2000s", name, g, w)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s should not be there: %.200s", name, got[name])
		}
	}
}

// interrupting makes a model cancel a context at its programs' nth run on the
// first worker, as Ctrl-C does.
func interrupting(m *runtime.Model, n int) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	runs, inner := 0, m.CPU[0].Entry.Go
	m.CPU[0].Entry.Go = func(p, w uintptr) {
		if runs++; runs == n {
			cancel()
		}
		inner(p, w)
	}
	return ctx
}

// dropoutRun has everything in it that a resumed run could get wrong: momentum,
// micro-batches, a partial last one, a schedule, dropout, an average, outliers.
func dropoutRun() *runtime.Model {
	return digits(100, runtime.Train{Epochs: 3, Seed: 5, Accumulate: 2,
		Optimizer: runtime.Optimizer{Kind: "adamw", LR: 0.01, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01},
		Schedule:  runtime.Schedule{Kind: "cosine", WarmupSteps: 3, FinalLR: 1e-4},
		EMA:       runtime.EMA{Decay: 0.9, Warmup: true}, SkipOutliers: runtime.SkipOutliers{Z: 0.5, Window: 5}})
}

// TestInterruptAndResume: wherever training is interrupted, and however often,
// it ends as if it had not been.
func TestInterruptAndResume(t *testing.T) {
	whole := t.TempDir()
	mustRun(t, dropoutRun(), "train", "--out", whole, "--every", "3")
	want := outcome(t, whole)
	if !strings.Contains(want["state"], `"skipped": `) || strings.Contains(want["state"], `"skipped": 0`) {
		t.Errorf("no update was skipped as an outlier\n%s", want["state"])
	}
	// One epoch is 15 passes forward and backward, 8 updates and 4 validation
	// batches: 27 runs of a program. The interrupts are after the numbers of runs
	// given, the last of them again and again.
	moments := [][]int{{3, 100}, {24, 100}, {1, 100}, {27, 100}, {81, 100}, {23, 4, 13}, {7}}
	if testing.Short() {
		moments = moments[:2]
	}
	for _, after := range moments {
		dir := t.TempDir()
		args := []string{"train", "--threads", "1", "--every", "3", "--out", dir}
		for interrupts := 0; ; interrupts++ {
			m := dropoutRun()
			status, out, stderr := run(t, interrupting(m, after[min(interrupts, len(after)-1)]), m, args...)
			if status != 0 {
				t.Fatalf("after %d: exit %d\n%s%s", after, status, out, stderr)
			}
			if !strings.Contains(out, "interrupted after") {
				break
			}
			if interrupts > 60 {
				t.Fatalf("after %d: no end of it\n%s", after, out)
			}
			args = []string{"train", "--threads", "1", "--resume", "--out", dir}
		}
		got := outcome(t, dir)
		// The number of threads is in the device's name, and does not matter.
		got["state"] = strings.Replace(got["state"], "cpu (1 thread, go)", "cpu (2 threads, go)", 1)
		sameOutcome(t, got, want)
		if t.Failed() {
			t.Fatalf("interrupted after %d runs of a program", after)
		}
	}
}

// TestResumeFinds: without --out the newest run of the model is taken, aloud.
func TestResumeFinds(t *testing.T) {
	long(t)
	t.Chdir(t.TempDir())
	m := func() *runtime.Model { return digits(32, runtime.Train{Epochs: 2}) }
	status, _, stderr := run(t, context.Background(), m(), "train", "--resume")
	if status != 1 || !strings.Contains(stderr, "nothing to resume: no run of fake under runs has a checkpoint") {
		t.Errorf("exit %d: %s", status, stderr)
	}
	for range 2 {
		i := m()
		run(t, interrupting(i, 20), i, "train", "--threads", "1")
	}
	other := m()
	other.Name = "other"
	run(t, interrupting(other, 20), other, "train", "--threads", "1", "--out", "runs/zother")
	out := mustRun(t, m(), "train", "--resume")
	for _, want := range []string{"runs/fake-2 is the newest run of fake\n", "runs/fake-2 goes on after update 10 (epoch 0.2174)\n", "epoch 2/2"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	// What is finished stays finished.
	before := outcome(t, "runs/fake-2")
	out = mustRun(t, m(), "train", "--resume", "--out", "runs/fake-2")
	if !strings.Contains(out, "has made all of its 92 updates") {
		t.Errorf("resumed once more:\n%s", out)
	}
	sameOutcome(t, outcome(t, "runs/fake-2"), before)
	// Killed after its last checkpoint, it is finished: links, pruning, curves.
	if err := errors.Join(os.Remove("runs/fake-2/curves.png"), os.Remove("runs/fake-2/last.safetensors"),
		os.CopyFS("runs/fake-2/checkpoints/000050", os.DirFS("runs/fake-2/checkpoints/000092"))); err != nil {
		t.Fatal(err)
	}
	mustRun(t, m(), "train", "--resume", "--out", "runs/fake-2")
	sameOutcome(t, outcome(t, "runs/fake-2"), before)
	if _, err := os.Stat("runs/fake-2/checkpoints/000050"); err == nil {
		t.Error("an old checkpoint was not removed")
	}
	if _, err := os.Stat("runs/fake-2/curves.png"); err != nil {
		t.Error(err)
	}
	// More epochs go on; fewer than were made cannot be.
	out = mustRun(t, m(), "train", "--resume", "--out", "runs/fake-2", "--epochs", "3")
	if !strings.Contains(out, "epoch 3/3") {
		t.Errorf("with more epochs:\n%s", out)
	}
	if status, _, stderr := run(t, context.Background(), m(), "train", "--resume", "--out", "runs/fake-2", "--epochs", "1"); status != 2 || !strings.Contains(stderr, "has made 138 updates; a run of 46 is behind it") {
		t.Errorf("exit %d: %s", status, stderr)
	}
}

// TestResumeRefuses: nothing goes on that would be another run, and nothing
// good is written over.
func TestResumeRefuses(t *testing.T) {
	long(t)
	t.Chdir(t.TempDir())
	train := runtime.Train{Epochs: 2, Seed: 3, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.1, Momentum: 0.9}, Schedule: runtime.Schedule{Kind: "cosine"}}
	model := func() *runtime.Model {
		m := digits(32, train)
		m.Spec, m.KernelHashes = "train:\n  lr: 0.1\nseed: 3\n", map[string]string{"cpu": "0123456789abcdef"}
		return m
	}
	first := model()
	run(t, interrupting(first, 20), first, "train", "--threads", "1", "--out", "x")
	if err := os.MkdirAll("empty", 0o755); err != nil {
		t.Fatal(err)
	}
	before := outcomeOfInterrupted(t, "x")

	spec := model()
	spec.Spec, spec.SpecHash = "train:\n  lr: 0.2\nseed: 3\n", "beef"
	kernels := model()
	kernels.KernelHashes["cpu"] = "fedcba9876543210"
	foreign := model()
	foreign.Name, foreign.SpecFile = "other", "other.yaml"
	for _, c := range []struct {
		model *runtime.Model
		args  string
		want  []string
	}{
		{model(), "train --out x", []string{"x holds what an earlier run left (checkpoints/000010)", "--resume", "--overwrite"}},
		{model(), "train --resume --out nowhere", []string{"nothing to resume", "nowhere"}},
		{model(), "train --resume --out empty", []string{"nothing to resume: empty has no checkpoint"}},
		{model(), "train --resume --out x --seed 4", []string{"--seed 4 contradicts the run, which has 3"}},
		{model(), "train --resume --out x --data synthetic", []string{"--data synthetic contradicts"}},
		{model(), "train --resume --out x --metrics d2l", []string{"--metrics d2l contradicts"}},
		{model(), "train --resume --out x --best loss", []string{"--best loss contradicts"}},
		{model(), "train --resume --out x --init y", []string{"--init starts a run"}},
		{model(), "train --resume --out x --overwrite", []string{"give one of them"}},
		{model(), "train --resume --out x --epochs 3", []string{"falls over 92 updates", "--force"}},
		{model(), "train --out y --force", []string{"--force belongs to --resume"}},
		{spec, "train --resume --out x", []string{"x/checkpoints/000010 cannot go on", "the spec was another (hash f00d, now beef)", "-   lr: 0.1", "+   lr: 0.2", "--force"}},
		{kernels, "train --resume --out x", []string{"its cpu kernels are others: 0123456789ab by vitgen test, fedcba987654 by"}},
		{foreign, "train --resume --out x", []string{"it is of model fake (fake.yaml), this program trains other (other.yaml)"}},
	} {
		status, _, stderr := run(t, context.Background(), c.model, strings.Fields(c.args)...)
		if status == 0 {
			t.Errorf("%s: goes on", c.args)
		}
		for _, want := range c.want {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: no %q in\n%s", c.args, want, stderr)
			}
		}
	}
	sameOutcome(t, outcomeOfInterrupted(t, "x"), before)

	// A second trainer stays out.
	unlock, _, err := lockDir("x")
	if err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := run(t, context.Background(), model(), "train", "--resume", "--out", "x"); status != 1 || !strings.Contains(stderr, "another trainer is at work in x") {
		t.Errorf("exit %d: %s", status, stderr)
	}
	unlock()

	// Forced, it goes on, and the checkpoint says so.
	status, _, stderr := run(t, context.Background(), kernels, "train", "--resume", "--out", "x", "--force")
	if status != 0 || !strings.Contains(stderr, "not bit for bit") {
		t.Errorf("exit %d: %s", status, stderr)
	}
	c, err := checkpoint.Read("x/checkpoints/000092")
	if err != nil {
		t.Fatal(err)
	}
	if ch := c.State.Changes; len(ch) != 1 || ch[0].Updates != 10 || !strings.Contains(ch[0].What[0], "kernels are others") {
		t.Errorf("the changes are %+v", ch)
	}

	_, _, stderr = run(t, context.Background(), kernels, "train", "--resume", "--out", "x", "--force", "--epochs", "3")
	if c, err = checkpoint.Read("x/checkpoints/000138"); err != nil || len(c.State.Changes) != 2 || !strings.Contains(c.State.Changes[1].What[0], "falls over 92 updates") {
		t.Errorf("%v, %s", err, stderr)
	}
	if _, _, stderr = run(t, context.Background(), kernels, "replay", "x"); !strings.Contains(stderr, "after update 92 the run went on otherwise: the learning rate of x falls over 92 updates") {
		t.Errorf("replayed: %s", stderr)
	}

	// Overwritten, nothing of it is left.
	mustRun(t, model(), "train", "--steps", "4", "--out", "x", "--overwrite")
	if all, err := checkpoint.NewRun("x").Checkpoints(); err != nil || len(all) != 1 || all[0] != 4 {
		t.Errorf("checkpoints %v, %v", all, err)
	}
}

// outcomeOfInterrupted is outcome of a run without a validation.
func outcomeOfInterrupted(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all[path] = string(read(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestResumeBroken: a checkpoint that is damaged stops the run before it has
// written anything, and says how to go on.
func TestResumeBroken(t *testing.T) {
	long(t)
	m := func() *runtime.Model { return digits(32, runtime.Train{Epochs: 2}) }
	dir := t.TempDir()
	mustRun(t, m(), "train", "--out", dir, "--keep-every", "46")
	for _, name := range []string{"weights.safetensors", "state.safetensors"} {
		path := filepath.Join(dir, "checkpoints", "000092", name)
		good := read(t, path)
		flipped := bytes.Clone(good)
		flipped[len(flipped)-1] ^= 1
		for what, bad := range map[string][]byte{"cut off": good[:len(good)/2], "a header alone": good[:9], "flipped": flipped, "empty": nil, "text": []byte("not tensors at all, but a text")} {
			if err := os.WriteFile(path, bad, 0o644); err != nil {
				t.Fatal(err)
			}
			before := outcomeOfInterrupted(t, dir)
			status, _, stderr := run(t, context.Background(), m(), "train", "--resume", "--out", dir, "--epochs", "3")
			if status != 1 || !strings.Contains(stderr, path) || !strings.Contains(stderr, "to go on from the one before, of update 46, move "+filepath.Dir(path)+" out of the way") {
				t.Errorf("%s %s: exit %d: %s", name, what, status, stderr)
			}
			sameOutcome(t, outcomeOfInterrupted(t, dir), before)
		}
		if err := os.WriteFile(path, good, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// As said: out of the way, the run goes on from the one before.
	if err := os.RemoveAll(filepath.Join(dir, "checkpoints", "000092")); err != nil {
		t.Fatal(err)
	}
	whole := t.TempDir()
	mustRun(t, m(), "train", "--out", whole, "--keep-every", "46")
	mustRun(t, m(), "train", "--resume", "--out", dir)
	sameOutcome(t, outcome(t, dir), outcome(t, whole))
}
