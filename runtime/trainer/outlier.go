package trainer

import (
	"math"
	"slices"

	"github.com/vitgen/vitgen/runtime"
)

// outliers tells losses that are far above the last ones, whose updates are
// better left out: a broken label or picture may undo hours of training.
type outliers struct {
	runtime.SkipOutliers
	window []float64 // the last losses, whether their updates were made or not
	loss   mean      // of the update in progress
}

// on reports whether the spec asks for it.
func (o *outliers) on() bool { return o.Z > 0 && o.Window > 0 }

// odd reports whether a loss is more than Z standard deviations above the mean
// of the window, and adds it to the window. While that is not full, nothing is
// odd. Odd losses count too, so that a lasting change of level is soon accepted.
func (o *outliers) odd(loss float64) bool {
	odd := false
	if n := float64(len(o.window)); len(o.window) >= o.Window {
		var sum, squares float64
		for _, v := range o.window {
			sum += v
		}
		for _, v := range o.window {
			squares += (v - sum/n) * (v - sum/n)
		}
		odd = loss > sum/n+o.Z*math.Sqrt(squares/n)
		o.window = slices.Delete(o.window, 0, 1)
	}
	o.window = append(o.window, loss)
	return odd
}

// watch runs a micro-batch and, where it completes its update, makes that or
// leaves it out. Unlike Submit it must know the loss in between, so the device
// waits for the host.
func (t *stepper) watch(b runtime.Samples, f *flight, total int) (err error) {
	o := &t.outliers
	if f.sum, f.correct, err = t.session.GradSamples(b, total); err != nil {
		return err
	}
	f.known = true
	o.loss.sum += f.sum
	if o.loss.n += f.n; o.loss.n < total || math.IsNaN(o.loss.sum) || math.IsInf(o.loss.sum, 0) {
		return nil // what is no number is for settle to find
	}
	loss := o.loss.sum / float64(o.loss.n)
	o.loss = mean{}
	if f.skipped = o.odd(loss); f.skipped {
		return t.session.Skip()
	}
	return t.session.Update()
}
