package trainer

import (
	"fmt"
	"time"

	"github.com/vitgen/vitgen/runtime"
)

// noData is the --data of a bench that measures no data set.
const noData = "none"

// dataBench is what training steps on a real data set wait for.
type dataBench struct {
	Name    string  `json:"name"`
	Missing string  `json:"missing,omitempty"` // why it was not measured
	Input   string  `json:"input,omitempty"`   // host or device, as of the whole bench
	Updates int     `json:"updates,omitempty"`
	StepMS  float64 `json:"step_ms,omitempty"` // mean, with loading, augmentation and waiting
	Times   float64 `json:"times,omitempty"`   // StepMS over the mean update on one random batch: on the CPU, loading takes time from computing
	Wait    float64 `json:"wait"`              // share, 0 … 1, of the time that was spent waiting for data
	Skipped int     `json:"skipped,omitempty"` // samples that could not be read
}

// measureData trains for as many updates as the rest of the bench made, from the
// initial weights, on the data set and with its loader and augmentation, and
// counts the time that steps wait for their batches. Where the spec's data set
// is not at hand, that is what it reports; one that was asked for must be there.
func (r *benchResult) measureData(a *app, s *runtime.Session, from *source, stream bool) error {
	if from.name == noData {
		return nil
	}
	name := from.name
	if name == "" {
		name = a.model.Data.Name
	}
	sets, err := from.load(a.model, s.Seed())
	if err != nil {
		if from.name != "" {
			return err
		}
		r.Data = &dataBench{Name: name, Missing: err.Error()}
		return nil
	}
	if !stream {
		if err := sets.upload(a, s); err != nil {
			return err
		}
	}
	d := &dataBench{Name: name, Input: "host", Updates: r.Steps}
	if sets.resident {
		d.Input = "device"
	}
	if err := s.Init(s.Seed()); err != nil {
		return err
	}
	if err := d.run(a, s, sets, r.Warmup); err != nil {
		return err
	}
	d.Skipped = sets.skipped()
	d.Times = d.StepMS / average(r.StepMSAll)
	r.Data = d
	return nil
}

// run trains, and measures all but the first updates.
func (d *dataBench) run(a *app, s *runtime.Session, sets *loaders, warmup int) error {
	t := &stepper{app: a, session: s, sets: sets, total: warmup + d.Updates}
	s.SetSteps((sets.train.Batches()+a.model.Train.Accumulate-1)/a.model.Train.Accumulate, t.total)
	begin, waited := time.Now(), sets.train.Waited()
	t.add = func(float64, int, int) {}
	t.updated = func(float64) error {
		if t.updates == warmup {
			begin, waited = time.Now(), sets.train.Waited()
		}
		return nil
	}
	t.holds = func(int) bool { return false }
	t.held = func() (end bool, err error) { return false, nil }
	for ; t.updates < t.total; t.epoch, t.batch = t.epoch+1, 0 {
		if err := t.steps(); err != nil {
			return err
		}
		if err := a.ctx.Err(); err != nil {
			return err
		}
	}
	spent := time.Since(begin)
	d.Updates = t.updates - warmup
	d.StepMS = milliseconds(spent) / float64(d.Updates)
	d.Wait = (sets.train.Waited() - waited).Seconds() / spent.Seconds()
	return nil
}

// line is a dataBench for people.
func (d *dataBench) line() string {
	if d.Missing != "" {
		return "waits for data: not measured: " + d.Missing
	}
	text := fmt.Sprintf("waits for data %.1f %% of the time: %s, %d updates of %.3f ms, %.2f times that on one batch", 100*d.Wait, d.Name, d.Updates, d.StepMS, d.Times)
	if d.Input == "device" {
		text += ", kept on the device"
	}
	if d.Skipped > 0 {
		text += fmt.Sprintf("; %d samples cannot be read", d.Skipped)
	}
	return text
}

// average is the mean of a list that is not empty.
func average(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}
