package trainer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/vitgen/vitgen/runtime/checkpoint"
	"github.com/vitgen/vitgen/runtime/report"
)

// runsDir is where runs are that were not given a directory.
const runsDir = "runs"

// start makes the run's directory with its run.json, or takes up the one that
// goes on, and says what will happen.
func (t *training) start(o *trainFlags) (err error) {
	if t.was == nil {
		if err := t.makeDir(o); err != nil {
			return err
		}
	}
	if err := t.writeRun(o); err != nil {
		return err
	}
	if t.was == nil {
		t.history, err = report.Open(t.dir)
	} else {
		t.history, err = report.Resume(t.dir, t.updates)
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(t.out, t.banner(t.session))
	fmt.Fprintf(t.out, "%s: %s training and %s validation samples; %s updates, %s an epoch, batch %s\n",
		t.sets.Name, comma(int64(t.sets.Train.Len())), comma(int64(t.sets.Val.Len())),
		comma(int64(t.total)), comma(int64(t.plan.PerEpoch)), batchText(t.model))
	if t.was != nil {
		fmt.Fprintf(t.out, "%s goes on after update %d (epoch %.4g)\n", t.dir, t.updates, t.epochsMade())
	}
	t.showOnBoard()
	t.progress = newProgress(t.err)
	return nil
}

// makeDir makes the directory of a new run: a fresh one under runs, or --out,
// unless that holds what another run has left.
func (t *training) makeDir(o *trainFlags) (err error) {
	if t.dir = o.out; t.dir == "" {
		if t.dir, err = newRunDir(runsDir, t.model.Name); err != nil {
			return err
		}
	} else if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return err
	}
	if err := t.lock(); err != nil {
		return err
	}
	t.files = checkpoint.NewRun(t.dir)
	there, err := t.files.Holds()
	if err != nil {
		return err
	}
	if there != "" && !o.overwrite {
		return fmt.Errorf("%s holds what an earlier run left (%s): go on with that run with --resume, start anew over it with --overwrite, or choose another --out", t.dir, there)
	}
	for _, name := range []string{"curves.png", "curves.svg"} {
		if err := os.Remove(filepath.Join(t.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return t.files.Clear()
}

// lock keeps other trainers out of the directory as long as this one runs.
func (t *training) lock() error {
	unlock, busy, err := lockDir(t.dir)
	if busy {
		return fmt.Errorf("another trainer is at work in %s", t.dir)
	}
	t.unlock = unlock
	return err
}

// newRunDir makes runs/name, or runs/name-2, … if that is there already.
func newRunDir(parent, name string) (string, error) {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	for i := 1; ; i++ {
		dir := filepath.Join(parent, name)
		if i > 1 {
			dir = fmt.Sprintf("%s-%d", dir, i)
		}
		if err := os.Mkdir(dir, 0o755); !errors.Is(err, fs.ErrExist) {
			return dir, err
		}
	}
}

// newestRun is the run of a model under a directory whose last checkpoint is the
// newest; "" if there is none.
func newestRun(parent, model string) (string, error) {
	entries, err := os.ReadDir(parent)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	best, newest := "", time.Time{}
	for _, e := range entries {
		dir := filepath.Join(parent, e.Name())
		var run struct{ Model string }
		text, err := os.ReadFile(filepath.Join(dir, "run.json"))
		if err != nil || json.Unmarshal(text, &run) != nil || run.Model != model {
			continue
		}
		files := checkpoint.NewRun(dir)
		last, err := files.Last()
		if err != nil {
			continue
		}
		info, err := os.Stat(files.Path(last))
		if err == nil && info.ModTime().After(newest) {
			best, newest = dir, info.ModTime()
		}
	}
	return best, nil
}

// writeRun writes run.json: what this run trains, and with what.
func (t *training) writeRun(o *trainFlags) error {
	type object = map[string]any
	m, p, r := t.model, &t.plan, &t.receipt
	opt, sch := m.Train.Optimizer, m.Train.Schedule
	path := filepath.Join(t.dir, "run.json")
	var init any = t.init
	if t.was != nil { // what became of the weights it started from is known to the first start alone
		var before struct{ Init json.RawMessage }
		if text, err := os.ReadFile(path); err == nil && json.Unmarshal(text, &before) == nil {
			init = before.Init
		}
	}
	text, err := json.MarshalIndent(object{
		"model": m.Name, "spec": m.SpecFile, "spec_hash": m.SpecHash, "vitgen": m.Generator,
		"device": r.Device, "precision": r.Precision, "seed": r.Seed,
		"data": r.Data, "data_hash": r.DataHash, "metrics": p.Metrics, "init": init,
		"epochs": p.Epochs, "updates": p.Total, "batch": m.Batch, "accumulate": m.Train.Accumulate,
		"save_every": p.SaveEvery, "keep_every": p.KeepEvery, "best": p.Best, "patience": p.Patience,
		"clip_norm": m.Train.ClipNorm,
		"optimizer": object{
			"kind": opt.Kind, "lr": opt.LR, "momentum": opt.Momentum, "nesterov": opt.Nesterov,
			"beta1": opt.Beta1, "beta2": opt.Beta2, "eps": opt.Eps, "weight_decay": opt.WeightDecay,
		},
		"schedule": object{
			"kind": sch.Kind, "warmup_steps": sch.WarmupSteps, "steps": sch.TotalSteps, "final_lr": sch.FinalLR,
			"every": sch.Every, "every_unit": sch.EveryUnit, "gamma": sch.Gamma,
		},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("run.json: %w", err)
	}
	return renameio.WriteFile(path, append(text, '\n'), 0o644)
}

// resumeCommand is what a user types to go on with the run.
func (t *training) resumeCommand() string {
	return fmt.Sprintf("%s train --resume --out %s", shellWord(os.Args[0]), shellWord(t.dir))
}

// shellWord quotes a word for a shell where it needs that.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+=:,@%", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
