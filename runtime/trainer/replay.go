package trainer

import (
	"bytes"
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
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// replayFlags are the flags of the replay command.
type replayFlags struct {
	where placement
	from  source
	base  string
	steps int
	force bool
}

// replay is the command: it makes the updates that led to a checkpoint again and
// compares what comes out, bit for bit.
func (a *app) replay(args []string) error {
	fs := a.flags("replay")
	var o replayFlags
	o.where.define(fs)
	fs.StringVar(&o.from.dir, "data-dir", "", "`directory` of the data set's files; empty: the run's")
	fs.StringVar(&o.base, "from", "", "`checkpoint` to start from; empty: the nearest one before, or the start of training")
	fs.IntVar(&o.steps, "steps", 0, "replay at least this `number` of updates; 0: those since the nearest checkpoint before")
	fs.BoolVar(&o.force, "force", false, "replay though spec, data or kernels are others")
	paths, err := a.parse(fs, args, 1)
	switch {
	case err != nil:
		return err
	case len(paths) == 0:
		return usagef("replay: a checkpoint is missing, such as runs/x/checkpoints/000920; or runs/x, for its last one")
	case o.steps < 0:
		return usagef("replay: --steps cannot be negative")
	}
	dir, err := checkpointDir(paths[0])
	if err != nil {
		return err
	}
	target, err := checkpoint.Read(dir)
	if err != nil {
		return err
	}
	r := &replayed{stepper: a.stepper(), target: target}
	if r.base, err = r.findBase(&o); err != nil {
		return err
	}
	defer r.close()
	if err := r.open(&o); err != nil {
		return err
	}
	return r.run()
}

// checkpointDir is the directory of the checkpoint that an argument names: itself,
// or the last one of a run.
func checkpointDir(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%s is a file; name a checkpoint's directory, such as runs/x/checkpoints/000920, or a run's", path)
	}
	files := checkpoint.NewRun(path)
	switch last, err := files.Last(); {
	case err == nil:
		return files.Path(last), nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	return path, nil
}

// replayed is one run of the replay command.
type replayed struct {
	stepper
	target *checkpoint.Stored
	base   *checkpoint.Stored // nil: the start of training

	first int // the update of the oldest loss that the target knows
}

func (r *replayed) close() {
	if r.session != nil {
		r.session.Close()
	}
}

// findBase reads the checkpoint to start from; nil is the start of training.
func (r *replayed) findBase(o *replayFlags) (*checkpoint.Stored, error) {
	updates := r.target.State.Updates
	if o.base != "" {
		dir, err := checkpointDir(o.base)
		if err != nil {
			return nil, err
		}
		base, err := checkpoint.Read(dir)
		if err == nil && base.State.Updates >= updates {
			err = fmt.Errorf("%s is of update %d, not before update %d of %s", dir, base.State.Updates, updates, r.target.Dir)
		}
		return base, err
	}
	if o.steps > updates {
		return nil, usagef("replay: --steps %d are more than the %d updates of %s", o.steps, updates, r.target.Dir)
	}
	// A checkpoint lies in its run's folder of them.
	files := checkpoint.NewRun(filepath.Dir(filepath.Dir(filepath.Clean(r.target.Dir))))
	all, err := files.Checkpoints()
	if err != nil {
		return nil, err
	}
	for _, u := range slices.Backward(all) {
		if u < updates && u <= updates-o.steps {
			return checkpoint.Read(files.Path(u))
		}
	}
	if init := r.target.State.Receipt.Init; init != "" {
		return nil, fmt.Errorf("%s has no earlier checkpoint, and training did not start from the seed but from %s: name one with --from", files.Dir, init)
	}
	return nil, nil
}

// open makes everything ready for the replay.
func (r *replayed) open(o *replayFlags) error {
	s := &r.target.State
	now := r.modelReceipt()
	if err := r.check(&now, o.force); err != nil {
		return err
	}
	if o.from.dir == "" {
		o.from.dir = s.Plan.DataDir
	}
	o.from.warn = r.warn
	o.from.name, o.from.metrics, o.where.seed = s.Receipt.Data, s.Plan.Metrics, s.Seed
	var err error
	if r.sets, err = o.from.load(r.model, s.Seed); err != nil {
		return err
	}
	if r.session, err = r.app.open(o.where); err != nil {
		return err
	}
	now = r.receiptOf(r.session, r.sets)
	if err := r.check(&now, o.force); err != nil {
		return err
	}
	for _, c := range s.Changes {
		if r.base == nil || c.Updates >= r.base.State.Updates {
			fmt.Fprintf(r.err, "%s: after update %d the run went on otherwise: %s\n", r.prog, c.Updates, strings.Join(c.What, "; "))
		}
	}
	if other := s.Receipt.Computes(&now); other != "" {
		fmt.Fprintf(r.err, "%s: results may differ: %s\n", r.prog, other)
	}
	r.session.SetSteps(s.Plan.PerEpoch, s.Plan.Total)
	if r.base != nil {
		base, err := r.base.Checkpoint(r.model)
		if err != nil {
			return err
		}
		if err := r.restore(base); err != nil {
			return err
		}
	}
	if err := r.sets.upload(r.app, r.session); err != nil {
		return err
	}
	if err := r.session.SetClasses(r.sets.Train.Classes()); err != nil {
		return err
	}
	r.total = s.Updates
	r.first = s.Updates - len(r.target.Losses) + 1
	r.add, r.updated = func(float64, int, int) {}, r.compareLoss
	r.holds, r.held = func(int) bool { return r.ctx.Err() != nil }, func() (bool, error) { return true, nil }
	return nil
}

func (r *replayed) check(now *checkpoint.Receipt, force bool) error {
	d := r.target.State.Receipt.Differences(now)
	if len(d) == 0 || force {
		return nil
	}
	return fmt.Errorf("%s cannot be replayed here:\n%s\nuse the program and the data that it was trained with, or see what differs with --force", r.target.Dir, strings.Join(d, "\n"))
}

// compareLoss compares the loss of the update just made with the recorded one.
func (r *replayed) compareLoss(loss float64) error {
	if r.updates < r.first {
		return nil
	}
	if was := r.target.Losses[r.updates-r.first]; was != loss {
		return fmt.Errorf("update %d: the loss is %v, it was %v", r.updates, loss, was)
	}
	return nil
}

// run replays and reports.
func (r *replayed) run() error {
	start, from := time.Now(), "the start of training"
	if r.base != nil {
		from = r.base.Dir
	}
	begun := r.updates
	fmt.Fprintln(r.out, r.banner(r.session))
	fmt.Fprintf(r.out, "%s: updates %d … %d again, from %s\n", r.target.Dir, begun+1, r.total, from)
	for r.updates < r.total {
		if err := r.ctx.Err(); err != nil {
			return fmt.Errorf("interrupted after update %d of %d; nothing has differed so far", r.updates, r.total)
		}
		if err := r.steps(); err != nil {
			return err
		}
		if r.endsEpoch() {
			r.epoch, r.batch = r.epoch+1, 0
		}
	}
	compared := min(r.total-begun, len(r.target.Losses))
	fmt.Fprintf(r.out, "%-22s %s of %s updates the same\n", "losses", comma(int64(compared)), comma(int64(r.total-begun)))
	if err := r.compareTensors(); err != nil {
		return err
	}
	fmt.Fprintf(r.out, "%s updates replayed in %.1f s: the same, bit for bit\n", comma(int64(r.total-begun)), time.Since(start).Seconds())
	return nil
}

// compareTensors compares parameters, their average, and optimizer state with
// the checkpoint's, and lists them.
func (r *replayed) compareTensors() error {
	var end runtime.Snapshot
	if err := r.session.Snapshot(&end); err != nil {
		return err
	}
	want, err := r.target.Checkpoint(r.model)
	if err != nil {
		return err
	}
	got, was := end.Files(r.model), want.Snapshot.Files(r.model)
	for _, part := range []struct {
		name     string
		got, was *safetensors.File
	}{{"parameters", got.Weights, was.Weights}, {"their average", got.Average, was.Average}, {"optimizer state", got.State, was.State}} {
		if part.got == nil || len(part.got.Tensors) == 0 {
			continue
		}
		for i, t := range part.got.Tensors {
			if err := sameTensor(&t, &part.was.Tensors[i]); err != nil {
				return fmt.Errorf("after update %d, %s: %w", r.total, part.name, err)
			}
		}
		fmt.Fprintf(r.out, "%-22s %s tensors the same\n", part.name, comma(int64(len(part.got.Tensors))))
	}
	// The end of an epoch and the start of the next are the same place.
	place := func(epoch, batch, micro, skipped int) string {
		if batch >= r.sets.train.Batches() {
			epoch, batch = epoch+1, 0
		}
		return fmt.Sprintf("micro-batch %d of epoch %d after %d in all, %d updates skipped", batch, epoch, micro, skipped)
	}
	_, _, micro := end.Counters()
	s := &r.target.State
	if now, was := place(r.epoch, r.batch, micro, r.skipped), place(s.Epoch, s.Batch, s.Micro, s.Skipped); now != was {
		return fmt.Errorf("after update %d the place in the data is %s; it was %s", r.total, now, was)
	}
	return nil
}

// sameTensor compares two F32 tensors bit for bit.
func sameTensor(got, was *safetensors.Tensor) error {
	if bytes.Equal(got.Data, was.Data) {
		return nil
	}
	a, b := got.Float32s(), was.Float32s()
	differ, first := 0, -1
	for i := range a {
		if !bytes.Equal(got.Data[4*i:4*i+4], was.Data[4*i:4*i+4]) {
			if differ++; first < 0 {
				first = i
			}
		}
	}
	return fmt.Errorf("%s differs in %d of %d elements, the first is number %d: %v, it was %v", got.Name, differ, len(a), first, a[first], b[first])
}
