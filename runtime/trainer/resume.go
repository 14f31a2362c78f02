package trainer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/checkpoint"
	"github.com/vitgen/vitgen/runtime/report"
)

// find finds the run that --resume goes on with, reads its last checkpoint, and
// takes from it what the command line does not say.
func (t *training) find(o *trainFlags) (err error) {
	t.dir = o.out
	if t.dir == "" {
		if t.dir, err = newestRun(runsDir, t.model.Name); err != nil {
			return err
		}
		if t.dir == "" {
			return fmt.Errorf("there is nothing to resume: no run of %s under %s has a checkpoint; start one without --resume, or name its directory with --out", t.model.Name, runsDir)
		}
		fmt.Fprintf(t.out, "%s is the newest run of %s\n", t.dir, t.model.Name)
	}
	if _, err := os.Stat(t.dir); err != nil {
		return fmt.Errorf("there is nothing to resume: %w; start a run there without --resume", err)
	}
	if err := t.lock(); err != nil {
		return err
	}
	t.files = checkpoint.NewRun(t.dir)
	if err := t.files.PutBack(); err != nil {
		return err
	}
	last, err := t.files.Last()
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is nothing to resume: %s has no checkpoint; start a run there without --resume", t.dir)
	} else if err != nil {
		return err
	}
	stored, err := checkpoint.Read(t.files.Path(last))
	if err != nil {
		return t.unreadable(err, last)
	}
	if u := stored.State.Updates; u != last {
		return fmt.Errorf("%s is of update %d: give it back the name %06d", stored.Dir, u, u)
	}
	now := t.modelReceipt()
	if d := stored.State.Receipt.Differences(&now); len(d) > 0 && !o.force {
		return t.differs(last, d)
	}
	if t.was, err = stored.Checkpoint(t.model); err != nil {
		return err
	}
	return o.adopt(&t.was.State)
}

// unreadable adds to what is wrong with the last checkpoint what can be done.
func (t *training) unreadable(err error, last int) error {
	all, listErr := t.files.Checkpoints()
	if listErr != nil || len(all) < 2 {
		return fmt.Errorf("%w\nit is the only checkpoint of %s", err, t.dir)
	}
	return fmt.Errorf("%w\nto go on from the one before, of update %d, move %s out of the way", err, all[len(all)-2], t.files.Path(last))
}

// differs is the error of a run that cannot go on with this program as it was.
func (t *training) differs(last int, differences []string) error {
	return fmt.Errorf("%s cannot go on as it was:\n%s\nuse the program and the data that it was trained with; with --force it goes on with these, but no longer bit for bit",
		t.files.Path(last), strings.Join(differences, "\n"))
}

// adopt makes the flags that were not given those of the run. Flags that would
// make it another run are errors.
func (o *trainFlags) adopt(s *checkpoint.State) error {
	p := &s.Plan
	for _, c := range []struct {
		flag     string
		now, was any
	}{
		{"seed", o.where.seed, s.Receipt.Seed},
		{"data", o.from.name, s.Receipt.Data},
		{"metrics", o.from.metrics, p.Metrics},
		{"best", o.best, p.Best},
	} {
		if o.given[c.flag] && c.now != c.was {
			return usagef("train: --%s %v contradicts the run, which has %v; leave it out, or start another run", c.flag, c.now, c.was)
		}
	}
	if o.given["init"] {
		return usagef("train: --init starts a run and --resume goes on with one; give one of them")
	}
	o.where.seed, o.from.name, o.from.metrics, o.best = s.Receipt.Seed, s.Receipt.Data, p.Metrics, p.Best
	if !o.given["data-dir"] {
		o.from.dir = p.DataDir
	}
	if !o.given["epochs"] && !o.given["steps"] {
		o.epochs, o.steps = p.Epochs, p.Steps
	}
	for name, v := range map[string]struct {
		flag *int
		was  int
	}{"every": {&o.every, p.Every}, "save-every": {&o.saveEvery, p.SaveEvery}, "keep-every": {&o.keepEvery, p.KeepEvery}, "patience": {&o.patience, p.Patience}} {
		if !o.given[name] {
			*v.flag = v.was
		}
	}
	return nil
}

// goOn puts training where the checkpoint was taken. done says that the run is
// over as it is.
func (t *training) goOn(o *trainFlags) (done bool, err error) {
	s := &t.was.State
	changes := s.Receipt.Differences(&t.receipt)
	if len(changes) > 0 && !o.force {
		return false, t.differs(s.Updates, changes)
	}
	if other := s.Receipt.Computes(&t.receipt); other != "" {
		changes = append(changes, other)
	}
	other, err := t.extends(s, o.force)
	if err != nil {
		return false, err
	}
	if other != "" {
		changes = append(changes, other)
	}
	t.changes = s.Changes
	if len(changes) > 0 {
		fmt.Fprintf(t.err, "%s: %s goes on, but not bit for bit as it would have:\n%s\n", t.prog, t.dir, strings.Join(changes, "\n"))
		t.changes = append(slices.Clone(s.Changes), checkpoint.Change{Updates: s.Updates, What: changes})
	}
	if err := t.restore(t.was); err != nil {
		return false, err
	}
	t.snapshot, t.was.Snapshot = *t.was.Snapshot, nil // its memory serves the next checkpoint
	t.epochSums, t.interval = meterOf(s.EpochSums, t.d2l), meterOf(s.Interval, t.d2l)
	t.trained = seconds(s.Seconds)
	t.saved, t.validated = s.Updates, s.Validated
	t.last, t.best, t.early = s.Last, s.Best, s.Early
	if err := t.files.Repair(t.was); err != nil {
		return false, err
	}
	switch {
	case t.stopped() && t.validated == t.updates:
		fmt.Fprintf(t.out, "%s stopped early after update %d; --patience 0, or more than %d, makes it go on\n", t.dir, t.updates, t.plan.Patience)
	case t.validated >= t.total:
		fmt.Fprintf(t.out, "%s has made all of its %d updates; more --epochs or --steps make it go on\n", t.dir, t.updates)
	default:
		return false, nil
	}
	return true, t.finish()
}

// finish does what a run that is over may not have come to, for it was killed
// after its last checkpoint: removing the ones before, and drawing.
func (t *training) finish() error {
	if err := t.files.Prune(t.best, t.plan.KeepEvery); err != nil {
		return err
	}
	saved, err := os.Stat(t.files.Path(t.updates))
	if err != nil {
		return err
	}
	if drawn, err := os.Stat(filepath.Join(t.dir, "curves.png")); err == nil && !drawn.ModTime().Before(saved.ModTime()) {
		return nil
	}
	if t.history, err = report.Resume(t.dir, t.updates); err != nil {
		return err
	}
	return t.history.Curves(t.model.Name)
}

// extends checks a changed number of updates: it must not be less than what was
// made, and, unless that is forced, the learning rate so far must not depend on
// it. other says so if it does.
func (t *training) extends(s *checkpoint.State, force bool) (other string, err error) {
	sch := &t.model.Train.Schedule
	switch {
	case t.total == s.Plan.Total:
		return "", nil
	case t.total < s.Updates:
		return "", usagef("train: %s has made %d updates; a run of %d is behind it", t.dir, s.Updates, t.total)
	case sch.Kind != "cosine" || sch.TotalSteps > 0:
		return "", nil
	}
	other = fmt.Sprintf("the learning rate of %s falls over %d updates; a run of %d would have had another one from the start", t.dir, s.Plan.Total, t.total)
	if !force {
		return "", usagef("train: %s: leave out --epochs and --steps, or go on regardless with --force", other)
	}
	return other, nil
}

// modelReceipt is what is known of a run before anything is opened.
func (a *app) modelReceipt() checkpoint.Receipt {
	m := a.model
	return checkpoint.Receipt{Model: m.Name, SpecFile: m.SpecFile, Spec: m.Spec, SpecHash: m.SpecHash, Generator: m.Generator}
}

// receiptOf is all there is to know of what a session computes on a data set.
func (a *app) receiptOf(s *runtime.Session, sets *loaders) checkpoint.Receipt {
	r := a.modelReceipt()
	r.Target = s.Code().Target
	r.Kernels = a.model.KernelHashes[r.Target]
	r.Data, r.DataHash = sets.Name, sets.Hash
	r.Samples = [2]int{sets.Train.Len(), sets.Val.Len()}
	r.Seed, r.Device, r.Precision = s.Seed(), s.Device(), s.Precision()
	if r.Target == "cpu" {
		_, r.ISA = s.Cores()
	}
	return r
}

// save writes a checkpoint and removes those that are not to be kept.
func (t *training) save() error {
	if err := t.session.Snapshot(&t.snapshot); err != nil {
		return err
	}
	if bad := t.snapshot.BadParam(t.model); bad != nil {
		return t.spoilt(bad)
	}
	// The lines that training goes on after must be there when it does.
	if err := syncFile(filepath.Join(t.dir, "metrics.jsonl")); err != nil {
		return t.stranded(err)
	}
	c := &checkpoint.Checkpoint{Snapshot: &t.snapshot, Losses: t.lastLosses(), State: checkpoint.State{
		Epoch: t.epoch, Batch: t.batch, LR: t.lr,
		EpochSums: t.epochSums.sums(), Interval: t.interval.sums(),
		Validated: t.validated, Last: t.last, Best: t.best, Early: t.early,
		Skipped: t.skipped, Window: t.outliers.window, Seconds: t.trained.Seconds(),
		Plan: t.plan, Receipt: t.receipt, Changes: t.changes,
	}}
	if err := t.files.Save(t.model, c); err != nil {
		return t.stranded(err)
	}
	t.saved = t.updates
	t.before, t.snapshot = t.snapshot, t.before
	t.allIsWell()
	if err := t.files.Prune(t.best, t.plan.KeepEvery); err != nil {
		fmt.Fprintf(t.err, "%s: an old checkpoint could not be removed: %v\n", t.prog, err)
	}
	return nil
}

// stranded says, with an error that ends training, where it can be taken up.
func (t *training) stranded(err error) error {
	if err == nil || t.saved < 0 {
		return err
	}
	return fmt.Errorf("%w\nthe checkpoint of update %d is intact; when that is mended, go on with\n    %s", err, t.saved, t.resumeCommand())
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// sums are what a checkpoint keeps of a meter.
func (t *meter) sums() checkpoint.Sums {
	return checkpoint.Sums{Loss: t.loss, Correct: t.correct, Samples: t.samples,
		MeanLoss: t.meanLoss, MeanCorrect: t.mean, Batches: t.batches, Seconds: t.busy.Seconds(), Waited: t.waited.Seconds()}
}

func meterOf(s checkpoint.Sums, d2l bool) meter {
	return meter{d2l: d2l, loss: s.Loss, correct: s.Correct, samples: s.Samples,
		meanLoss: s.MeanLoss, mean: s.MeanCorrect, batches: s.Batches, busy: seconds(s.Seconds), waited: seconds(s.Waited)}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
