package trainer

import (
	"fmt"
	"math"
	"strings"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/golden"
)

// verify is the command: it replays golden files and compares every tensor.
func (a *app) verify(args []string) error {
	fs := a.flags("verify")
	var where placement
	where.define(fs)
	var files []string
	fs.Func("golden", "golden `file`; more files may follow it", func(f string) error {
		files = append(files, f)
		return nil
	})
	others, err := a.parse(fs, args, math.MaxInt)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return usagef("verify: --golden FILE is missing")
	}
	files = append(files, others...)
	var failed []string
	s, err := a.open(where)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Fprintln(a.out, a.banner(s))
	for _, file := range files {
		rows, err := a.verifyFile(s, file)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "\n%s\n", file)
		if err := golden.WriteTable(a.out, rows); err != nil {
			return err
		}
		if !golden.AllOK(rows) {
			failed = append(failed, offenders(file, rows))
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("verification failed: %s", strings.Join(failed, "; "))
	}
	return nil
}

// offenders names a golden's tensors that miss.
func offenders(file string, rows []golden.Row) string {
	var names []string
	for _, r := range rows {
		if !r.OK {
			names = append(names, r.Name)
		}
	}
	if len(names) == 0 {
		return file + " holds nothing to check"
	}
	return file + ": " + strings.Join(names, ", ")
}

// replay is one golden going through a session.
type replay struct {
	s     *runtime.Session
	g     *golden.Golden
	check *golden.Checker
	label []int32
}

func (a *app) verifyFile(s *runtime.Session, file string) ([]golden.Row, error) {
	m := a.model
	fit := golden.Model{Image: m.Image, Classes: m.Classes, SpecSHA256: m.SpecHash}
	for _, p := range m.Params {
		fit.Params = append(fit.Params, golden.ParamInfo{Name: p.Name, Shape: p.Shape})
	}
	g, err := golden.Load(file, fit)
	if err != nil {
		return nil, err
	}
	if most := m.Batch * m.Train.Accumulate; g.Batch > most {
		return nil, fmt.Errorf("%s: its batch of %d is more than the model's %d", file, g.Batch, most)
	}
	r := &replay{s: s, g: g, check: g.NewChecker(s.Precision())}
	for _, l := range g.Label {
		r.label = append(r.label, int32(l))
	}
	if err := r.run(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r.check.Rows(), nil
}

// run computes what the golden holds: the start, then the steps from the same
// start.
func (r *replay) run() error {
	r.s.SetDropout(r.g.Dropout)
	if err := r.reset(); err != nil {
		return err
	}
	logits, err := r.s.Forward(r.g.Image, r.g.Batch)
	if err != nil {
		return err
	}
	if r.label == nil {
		r.check.Logits(golden.Float64s(logits))
		return nil
	}
	if err := r.start(logits); err != nil {
		return err
	}
	if len(r.g.Steps) == 0 {
		return nil
	}
	if err := r.reset(); err != nil {
		return err
	}
	for k := range r.g.Steps {
		if err := r.step(k + 1); err != nil {
			return err
		}
	}
	return nil
}

// reset puts the session at the golden's start.
func (r *replay) reset() error {
	for name, v := range r.g.Params {
		if err := r.s.SetParam(name, v); err != nil {
			return err
		}
	}
	return r.s.Restart(r.g.Seed)
}

// start checks logits, loss and gradients. Without dropout, evaluation and
// training must both reproduce the logits and the loss, so the worse of the
// two is handed in; with it, only training can.
func (r *replay) start(logits []float32) error {
	trained, trainLoss, err := r.gradients()
	if err != nil {
		return err
	}
	loss := trainLoss
	if r.g.Dropout {
		logits = trained
	} else {
		sum, _, err := r.s.Eval(r.g.Image, r.label, r.g.Batch)
		if err != nil {
			return err
		}
		if r.g.Loss != nil {
			loss = farther(*r.g.Loss, sum/float64(r.g.Batch), trainLoss)
		}
		if r.g.Logits != nil {
			a := golden.Compare("", logits, r.g.Logits, math.Inf(1))
			b := golden.Compare("", trained, r.g.Logits, math.Inf(1))
			if !b.OK || b.RelNorm > a.RelNorm {
				logits = trained
			}
		}
	}
	r.check.Logits(golden.Float64s(logits))
	r.check.Loss(loss)
	for _, p := range r.s.Model().Params {
		v, err := r.s.GradOf(p.Name)
		if err != nil {
			return err
		}
		r.check.Grad(p.Name, golden.Float64s(v))
	}
	return nil
}

// farther is the one of two values that is farther from want; NaN is farthest.
func farther(want, a, b float64) float64 {
	if math.Abs(a-want) >= math.Abs(b-want) || math.IsNaN(a) {
		return a
	}
	return b
}

// gradients runs the golden's batch forward and backward in micro-batches, and
// returns the logits and the mean loss that training saw.
func (r *replay) gradients() (logits []float32, loss float64, err error) {
	m, n := r.s.Model(), r.g.Batch
	for lo := 0; lo < n; lo += m.Batch {
		hi := min(lo+m.Batch, n)
		sum, _, err := r.s.Grad(r.g.Image[lo*m.ImageElems():], r.label[lo:hi], hi-lo, n)
		if err != nil {
			return nil, 0, err
		}
		part, err := r.s.Logits(hi - lo)
		if err != nil {
			return nil, 0, err
		}
		logits, loss = append(logits, part...), loss+sum
	}
	return logits, loss / float64(n), nil
}

// step replays update k.
func (r *replay) step(k int) error {
	_, loss, err := r.gradients()
	if err != nil {
		return err
	}
	r.check.StepLoss(k, loss)
	if err := r.s.Update(); err != nil {
		return err
	}
	if r.g.Steps[k-1].Params == nil {
		return nil
	}
	for _, p := range r.s.Model().Params {
		v, err := r.s.Param(p.Name)
		if err != nil {
			return err
		}
		r.check.StepParam(k, p.Name, golden.Float64s(v))
	}
	return nil
}
