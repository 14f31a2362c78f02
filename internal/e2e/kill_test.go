package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/runtime/checkpoint"
	"github.com/vitgen/vitgen/runtime/report"
)

// killed is examples/vit_tiny.yaml with all that training may keep from step to
// step: an average of the parameters, images that are varied and mixed, losses
// that outliers are told by.
func killed(t *testing.T) *model {
	src, err := os.ReadFile(filepath.Join(root, "examples", "vit_tiny.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(src), "\ndata: digits\n", killedData, 1)
	text = strings.Replace(text, "\n  clip_norm: 1.0\n", killedTrain, 1)
	if !strings.Contains(text, killedData) || !strings.Contains(text, killedTrain) {
		t.Fatal("examples/vit_tiny.yaml has another data or train section")
	}
	return compile(t, mustParse(t, "killed.yaml", []byte(text)), passes.Options{}, plainOnly)
}

const (
	killedTrain = "\n  clip_norm: 1.0\n  ema: 0.95\n  skip_outliers: {z: 2, window: 10}\n"
	killedData  = "\ndata: {digits: {augment: {random_crop: 1, mixup: 0.2}}}\n"
)

// Training that is killed again and again, at any moment, ends with the same
// parameters, optimizer state, records and links as training that was not, bit
// for bit.
func TestKill(t *testing.T) {
	m := killed(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		saveEvery string
		kills     int
	}{{"1", 25}, {"7", 25}} {
		args := []string{"train", "--threads", "1", "--steps", "30", "--every", "5", "--save-every", c.saveEvery}
		whole := filepath.Join(t.TempDir(), "whole")
		start := time.Now()
		if out, status := m.run(t, nil, append(args, "--out", whole)...); status != 0 {
			t.Fatalf("exit %d\n%s", status, out)
		}
		took := time.Since(start)
		want := leftBy(t, whole)

		kills, runs, saving, fruitless := 0, 0, 0, 0
		for kills < c.kills {
			dir := filepath.Join(t.TempDir(), "killed")
			runs++
			for done := false; !done; {
				files := checkpoint.NewRun(dir)
				before, err := files.Last()
				argv := append(args, "--out", dir)
				if err == nil {
					argv = []string{"train", "--threads", "1", "--resume", "--out", dir}
				}
				if kills == c.kills { // it has suffered enough
					if out, status := m.run(t, nil, argv...); status != 0 {
						t.Fatalf("after %d kills: exit %d\n%s", kills, status, out)
					}
					break
				}
				// At any moment, or soon after it has saved something new.
				wait := time.Duration(rng.Float64() * float64(took) / 4)
				var saved func() bool
				if rng.IntN(2) == 1 {
					wait /= 8
					saved = func() bool { now, err := files.Last(); return err == nil && now != before }
				}
				done = killAfter(t, m, saved, wait, argv)
				if !done {
					kills++
				}
				if half, _ := filepath.Glob(filepath.Join(dir, "checkpoints", ".tmp-*")); len(half) > 0 {
					saving++
				}
				if after, err := files.Last(); err != nil || after == before {
					fruitless++
				}
			}
			got := leftBy(t, dir)
			for name, w := range want {
				if got[name] != w {
					t.Errorf("--save-every %s, %d kills: %s is\n%.3000s\nwithout kills it is\n%.3000s", c.saveEvery, kills, name, got[name], w)
				}
			}
			if len(got) != len(want) {
				t.Errorf("--save-every %s: %d things are left, without kills %d", c.saveEvery, len(got), len(want))
			}
			if t.Failed() {
				return
			}
		}
		t.Logf("--save-every %s: %d kills in %d runs of %v each, %d of them while saving, %d before anything new was saved", c.saveEvery, kills, runs, took.Round(time.Millisecond), saving, fruitless)
	}
}

// killAfter starts a trainer and kills it a while after something (nil: its
// start); done says that it had ended by itself.
func killAfter(t *testing.T, m *model, something func() bool, d time.Duration, args []string) (done bool) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(m.bin, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for waiting := true; waiting; {
		pause := time.Millisecond
		if something == nil || something() {
			pause, waiting = d, false
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("%v: %v\n%s", args, err, out.String())
			}
			return true
		case <-time.After(pause):
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		return (<-ended) == nil
	}
	if err := <-ended; err == nil {
		return true // just so
	} else if cmd.ProcessState.Exited() {
		t.Fatalf("%v: %v\n%s", args, err, out.String())
	}
	return false
}

// leftBy is all that a run leaves, but for how long things took.
func leftBy(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := checkpoint.NewRun(dir)
	all, err := files.Checkpoints()
	if err != nil || len(all) == 0 {
		t.Fatalf("checkpoints %v: %v", all, err)
	}
	left := map[string]string{"checkpoints": fmt.Sprint(all)}
	for _, updates := range all {
		c, err := checkpoint.Read(files.Path(updates))
		if err != nil {
			t.Fatal(err)
		}
		c.State.Untime()
		state, err := json.Marshal(c.State) // with the checksum of the optimizer's state
		if err != nil {
			t.Fatal(err)
		}
		left[fmt.Sprintf("state of %d", updates)] = string(state)
		left[fmt.Sprintf("losses of %d", updates)] = fmt.Sprint(c.Losses)
	}
	for _, name := range []string{checkpoint.LastLink, checkpoint.BestLink} {
		path := filepath.Join(dir, name)
		if left[name], err = os.Readlink(path); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		left["content of "+name] = fmt.Sprintf("SHA-256 %x", sha256.Sum256(content))
	}
	text, err := os.ReadFile(filepath.Join(dir, "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var r report.Record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		r.SamplesPerSec, r.DataWait = 0, 0
		untimed, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		left["metrics"] += string(untimed) + "\n"
	}
	return left
}
