package trainer

import (
	"fmt"
	"math"
	"time"

	"github.com/vitgen/vitgen/runtime"
)

// flight is a micro-batch that was submitted and whose loss is not known yet.
type flight struct {
	pending runtime.Pending
	micro   int  // of the epoch, from 0
	n       int  // samples
	update  int  // the update it belongs to
	ends    bool // it completes the update
	lr      float64
}

// trainEpoch goes through the training samples once, or up to the last update.
// Where the device works by itself, the next micro-batch is submitted before the
// loss of the last one is looked at, so that the device never waits.
func (t *training) trainEpoch(epoch int) error {
	t.epoch, t.interval = meter{d2l: t.d2l}, meter{d2l: t.d2l}
	if err := t.session.Snapshot(&t.before); err != nil {
		return err
	}
	t.progress.start(fmt.Sprintf("epoch %d/%d", epoch+1, t.epochs), min(t.perEpoch, t.total-t.session.Updates()))
	t.mark = time.Now()
	defer t.tick()
	var waiting flight
	micro, seen := 0, 0
	for b, err := range t.sets.trainBatches(epoch, 0) {
		if err != nil {
			return err
		}
		now, err := t.submit(b, &seen)
		if err != nil {
			return err
		}
		now.micro = micro
		micro++
		last := now.ends && (t.session.Updates() == t.total || t.ctx.Err() != nil)
		if t.session.Pipelined() {
			now, waiting = waiting, now
		}
		if err := t.settle(epoch, now); err != nil {
			return err
		}
		if last {
			break
		}
	}
	return t.settle(epoch, waiting)
}

// submit starts a micro-batch; seen is how many samples of the epoch came
// before it.
func (t *training) submit(b runtime.Samples, seen *int) (f flight, err error) {
	f.n, f.update = b.Len(), t.session.Updates()+1
	if f.lr, err = t.session.LR(); err != nil {
		return f, err
	}
	if f.pending, err = t.session.Submit(b, t.totalOf(*seen)); err != nil {
		return f, err
	}
	*seen += f.n
	f.ends = t.session.Updates() == f.update
	return f, nil
}

// totalOf is the size of the effective batch that the epoch's sample number seen
// belongs to: up to accumulate micro-batches, and in the end what remains.
func (t *training) totalOf(seen int) int {
	effective := t.model.Batch * t.model.Train.Accumulate
	return min(effective, t.sets.Train.Len()-(seen-seen%effective))
}

// settle waits for a micro-batch and accounts for it.
func (t *training) settle(epoch int, f flight) error {
	if !f.pending.Valid() {
		return nil
	}
	sum, correct, err := f.pending.Wait()
	if err != nil {
		return err
	}
	if loss := sum / float64(f.n); math.IsNaN(loss) || math.IsInf(loss, 0) {
		return t.diverged(epoch, f, loss)
	}
	t.epoch.add(sum, correct, f.n)
	t.interval.add(sum, correct, f.n)
	if !f.ends {
		return nil
	}
	t.updates, t.lr = f.update, f.lr
	return t.afterUpdate()
}
