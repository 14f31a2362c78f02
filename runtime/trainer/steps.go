package trainer

import (
	"fmt"
	"math"
	"slices"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/checkpoint"
)

// stepper goes through the training samples, update by update. Training, replay
// and the search for a learning rate are made of it.
type stepper struct {
	*app
	session *runtime.Session
	sets    *loaders
	total   int // updates of the whole run

	// The next micro-batch whose loss is to be known: number batch of epoch
	// epoch, both from 0.
	epoch, batch int
	updates      int     // whose losses are known
	lr           float64 // of the last of them
	loss         mean    // of the update in progress
	losses       []float64
	outliers     outliers
	skipped      int // updates left out as such

	// The last time that all was well: where this epoch was entered, or the last
	// checkpoint in it was taken. A search for the cause of a NaN starts there.
	before       runtime.Snapshot
	beforeUpdate int // updates made
	beforeBatch  int
	beforeWindow []float64

	// add accounts for a micro-batch, updated for an update with its mean loss;
	// both are called in order, perhaps after later steps were submitted.
	add     func(lossSum float64, correct, n int)
	updated func(loss float64) error
	// holds says whether to wait for an update's loss before anything else is
	// submitted; held is called then, and may save, or end the epoch here.
	holds func(update int) bool
	held  func() (end bool, err error)
}

// stepper makes one that is not wired to anything yet.
func (a *app) stepper() stepper {
	return stepper{app: a, outliers: outliers{SkipOutliers: a.model.Train.SkipOutliers}}
}

// mean is a mean in the making.
type mean struct {
	sum float64
	n   int
}

// flight is a micro-batch that was submitted and whose loss is not known yet.
type flight struct {
	pending runtime.Pending
	micro   int  // of the epoch, from 0
	n       int  // samples
	update  int  // the update it belongs to
	ends    bool // it completes the update
	lr      float64

	// Where outliers are watched for, the outcome is known from the start.
	known, skipped bool
	sum            float64
	correct        int
}

// wait is the sum of the losses and how many samples were classified correctly.
func (f *flight) wait() (sum float64, correct int, err error) {
	if f.known {
		return f.sum, f.correct, nil
	}
	return f.pending.Wait()
}

// steps goes through what is left of the epoch, or up to the last update. Where
// the device works by itself, the next micro-batch is submitted before the loss
// of the last one is looked at, so that the device never waits.
func (t *stepper) steps() error {
	if t.session.Updates() >= t.total {
		return nil
	}
	if t.updates == 0 || t.beforeUpdate != t.updates || t.beforeBatch != t.batch {
		if err := t.session.Snapshot(&t.before); err != nil {
			return err
		}
		t.allIsWell()
	}
	var waiting flight
	micro, seen := t.batch, t.batch*t.model.Batch
	for b, err := range t.sets.trainBatches(t.epoch, t.batch) {
		if err != nil {
			return err
		}
		now, err := t.submit(b, &seen)
		if err != nil {
			return err
		}
		now.micro = micro
		micro++
		hold := now.ends && (now.update == t.total || t.holds(now.update))
		if t.session.Pipelined() && !hold {
			now, waiting = waiting, now
		} else if err := t.settle(waiting); err != nil {
			return err
		} else {
			waiting = flight{}
		}
		if err := t.settle(now); err != nil {
			return err
		}
		if !hold {
			continue
		}
		if end, err := t.held(); err != nil || end || t.updates == t.total {
			return err
		}
	}
	return t.settle(waiting)
}

// allIsWell notes what belongs to the snapshot before.
func (t *stepper) allIsWell() {
	t.beforeUpdate, t.beforeBatch, t.beforeWindow = t.updates, t.batch, slices.Clone(t.outliers.window)
}

// submit starts a micro-batch; seen is how many samples of the epoch came
// before it.
func (t *stepper) submit(b runtime.Samples, seen *int) (f flight, err error) {
	f.n, f.update = b.Len(), t.session.Updates()+1
	if f.lr, err = t.session.LR(); err != nil {
		return f, err
	}
	if total := t.totalOf(*seen); t.outliers.on() {
		err = t.watch(b, &f, total)
	} else {
		f.pending, err = t.session.Submit(b, total)
	}
	if err != nil {
		return f, err
	}
	*seen += f.n
	f.ends = t.session.Updates() == f.update
	return f, nil
}

// totalOf is the size of the effective batch that the epoch's sample number seen
// belongs to: up to accumulate micro-batches, and in the end what remains.
func (t *stepper) totalOf(seen int) int {
	effective := t.model.Batch * t.model.Train.Accumulate
	return min(effective, t.sets.Train.Len()-(seen-seen%effective))
}

// settle waits for a micro-batch and accounts for it.
func (t *stepper) settle(f flight) error {
	if f.n == 0 {
		return nil
	}
	sum, correct, err := f.wait()
	if err != nil {
		return err
	}
	if loss := sum / float64(f.n); math.IsNaN(loss) || math.IsInf(loss, 0) {
		return t.diverged(f, loss)
	}
	t.add(sum, correct, f.n)
	t.batch = f.micro + 1
	t.loss.sum += sum
	t.loss.n += f.n
	if !f.ends {
		return nil
	}
	loss := t.loss.sum / float64(t.loss.n)
	t.loss = mean{}
	t.updates, t.lr = f.update, f.lr
	if f.skipped {
		t.skipped++
	}
	if t.losses = append(t.losses, loss); len(t.losses) >= 2*checkpoint.KeptLosses {
		t.losses = append(t.losses[:0], t.lastLosses()...)
	}
	return t.updated(loss)
}

// lastLosses are the losses that a checkpoint keeps.
func (t *stepper) lastLosses() []float64 {
	return t.losses[max(0, len(t.losses)-checkpoint.KeptLosses):]
}

// endsEpoch reports whether all of the epoch's samples have been seen.
func (t *stepper) endsEpoch() bool { return t.batch >= t.sets.train.Batches() }

// restore puts session and stepper where a checkpoint was taken.
func (t *stepper) restore(c *checkpoint.Checkpoint) error {
	s := &c.State
	if s.Batch > t.sets.train.Batches() {
		return fmt.Errorf("the checkpoint was taken after micro-batch %d of an epoch; %s has %d of them", s.Batch, t.sets.Name, t.sets.train.Batches())
	}
	if err := t.session.Restore(c.Snapshot); err != nil {
		return err
	}
	t.epoch, t.batch, t.updates, t.lr = s.Epoch, s.Batch, s.Updates, s.LR
	t.losses, t.skipped = append(t.losses[:0], c.Losses...), s.Skipped
	t.outliers.window = slices.Clone(s.Window)
	return nil
}
