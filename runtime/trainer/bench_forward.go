package trainer

import (
	"fmt"
	"slices"
	"time"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/rng"
)

// Of a benchResult's Pass.
const (
	passUpdate  = "update"
	passForward = "forward"
)

// checkForward refuses flags of bench that say nothing about what is timed.
func checkForward(forward bool, batch int, dataName string, stream bool) error {
	switch {
	case !forward && batch != 0:
		return usagef("bench: --batch is of --forward; an update's is the spec's")
	case forward && (stream || dataName != "" && dataName != noData):
		return usagef("bench: --stream and --data are about training steps, and --forward makes none")
	case batch < 0:
		return usagef("bench: --batch must be positive")
	}
	return nil
}

// forward times inference of batch images; 0: the spec's batch.
func (r *benchResult) forward(s *runtime.Session, batch int) error {
	m := s.Model()
	r.Pass, r.Input, r.Batch = passForward, "host", batch
	if batch == 0 {
		r.Batch = m.Batch
	}
	if err := r.timeForward(s); err != nil {
		return err
	}
	return r.profile(s, min(r.Batch, m.Batch), runtime.Forward)
}

// timeForward times Session.Forward, the call that a program makes for the logits
// of new images: copying them in and the logits out are part of it.
func (r *benchResult) timeForward(s *runtime.Session) error {
	images := make([]float32, r.Batch*s.Model().ImageElems())
	random := rng.New(1, "bench")
	for i := range images {
		images[i] = float32(random.Normal())
	}
	for n := range r.Warmup + r.Steps {
		begin := time.Now()
		if _, err := s.Forward(images, r.Batch); err != nil {
			return err
		}
		if n >= r.Warmup {
			r.StepMSAll = append(r.StepMSAll, milliseconds(time.Since(begin)))
		}
	}
	r.StepFLOPs = s.Code().FLOPs(runtime.Forward) * int64(r.Batch) / int64(s.Model().Batch)
	r.figures(r.StepFLOPs)
	return nil
}

// figures fills in what follows from the times of steps of so many FLOPs.
func (r *benchResult) figures(flops int64) {
	r.StepMS, r.StepMSMin = median(r.StepMSAll), slices.Min(r.StepMSAll)
	r.SamplesPerSec = float64(r.Batch) / r.StepMS * 1000
	r.GFLOPS = float64(flops) / r.StepMS / 1e6
}

// what is timed, for people.
func (r *benchResult) what() string {
	if r.Pass == passForward {
		return fmt.Sprintf("logits of %d samples", r.Batch)
	}
	return fmt.Sprintf("update of %d samples", r.Batch)
}
