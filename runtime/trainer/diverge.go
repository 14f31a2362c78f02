package trainer

import (
	"fmt"
	"slices"

	"github.com/vitgen/vitgen/runtime"
)

// diverged is the end of a training whose loss is no number any more. It goes
// back to the last snapshot and repeats what followed, bit for bit, up to the
// micro-batch f; that one it runs launch by launch, to say where the first bad
// number was made.
func (t *stepper) diverged(f flight, loss float64) error {
	err := fmt.Errorf("update %d: the training loss of %d samples is %v (learning rate %g): lower train.optimizer's lr, warm it up, or set train.clip_norm",
		f.update, f.n, loss, f.lr)
	if !t.session.Code().SaysOutputs() {
		return err
	}
	fmt.Fprintf(t.err, "%s: the loss is %v; replaying the epoch to find where that comes from\n", t.prog, loss)
	return t.blame(err, f.micro)
}

// spoilt is the end of a training whose loss is still fine, but not a parameter:
// what would be saved is of no use.
func (t *training) spoilt(bad *runtime.NonFinite) error {
	err := fmt.Errorf("update %d left element %d of parameter %s (%s) %v (learning rate %g), and is not saved: lower train.optimizer's lr, warm it up, or set train.clip_norm",
		t.updates, bad.Element, bad.Param.Name, bad.Pos, bad.Value, t.lr)
	if t.batch == 0 || t.beforeUpdate == t.updates || !t.session.Code().SaysOutputs() {
		return err // nothing to repeat
	}
	return t.blame(err, t.batch-1)
}

// blame adds to an error where the first bad number was made, in a micro-batch
// of this epoch or in the one before.
func (t *stepper) blame(err error, micro int) error {
	bad, replayErr := t.repeat(micro)
	if replayErr == nil && bad != nil && bad.Param != nil && micro > t.beforeBatch {
		// The update before has spoilt a parameter although its loss was fine.
		if cause, err := t.repeat(micro - 1); err == nil && cause != nil {
			bad = cause
		}
	}
	switch {
	case replayErr != nil:
		return fmt.Errorf("%w\nthe replay failed: %v", err, replayErr)
	case bad == nil:
		return fmt.Errorf("%w\nthe replay met only finite numbers in what kernels say they write", err)
	}
	return fmt.Errorf("%w\nfirst bad number: %v", err, bad)
}

// repeat runs the epoch again up to a micro-batch and looks for the first number
// in that one that is not finite.
func (t *stepper) repeat(micro int) (*runtime.NonFinite, error) {
	if err := t.session.Restore(&t.before); err != nil {
		return nil, err
	}
	t.outliers.window, t.outliers.loss = slices.Clone(t.beforeWindow), mean{}
	at, seen := t.beforeBatch, t.beforeBatch*t.model.Batch
	for b, err := range t.sets.trainBatches(t.epoch, at) {
		if err != nil {
			return nil, err
		}
		if at == micro {
			return t.session.FindNaN(b, t.totalOf(seen))
		}
		f, err := t.submit(b, &seen)
		if err != nil {
			return nil, err
		}
		if _, _, err := f.wait(); err != nil {
			return nil, err
		}
		at++
	}
	return nil, fmt.Errorf("the epoch has no micro-batch %d", micro)
}
