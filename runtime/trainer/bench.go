package trainer

import (
	"encoding/json"
	"fmt"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/rng"
)

// benchResult is what bench --json prints.
type benchResult struct {
	Model         string        `json:"model"`
	SpecHash      string        `json:"spec_hash"`
	Device        string        `json:"device"`
	Precision     string        `json:"precision"`
	Batch         int           `json:"batch"` // samples of an update
	Warmup        int           `json:"warmup"`
	Steps         int           `json:"steps"`
	StepMS        float64       `json:"step_ms"` // median, with copying the batch in
	StepMSMin     float64       `json:"step_ms_min"`
	StepMSAll     []float64     `json:"step_ms_all"`
	SamplesPerSec float64       `json:"samples_per_sec"`
	GFLOPS        float64       `json:"gflops"` // of the work done, after pruning
	StepFLOPs     int64         `json:"step_flops"`
	UnprunedFLOPs int64         `json:"step_flops_unpruned"`
	PeakBytes     int64         `json:"peak_rss_bytes"` // of this process
	Kernels       []kernelTimes `json:"kernels"`
}

// kernelTimes is one kernel's share of an update.
type kernelTimes struct {
	Name     string  `json:"name"`
	Pos      string  `json:"pos"`
	Layer    string  `json:"layer"`
	Launches int     `json:"launches"`
	MS       float64 `json:"ms"`      // all its launches: sum of their medians
	Percent  float64 `json:"percent"` // of all kernels
	GFLOPS   float64 `json:"gflops"`
	GBps     float64 `json:"gb_per_sec"` // against the least traffic possible
}

// bench is the command.
func (a *app) bench(args []string) error {
	fs := a.flags("bench")
	var where placement
	where.define(fs)
	where.defineSeed(fs)
	steps := fs.Int("steps", 10, "`number` of updates to time")
	warmup := fs.Int("warmup", 3, "`number` of updates before that")
	asJSON := fs.Bool("json", false, "print one JSON object")
	if _, err := a.parse(fs, args, 0); err != nil {
		return err
	}
	if *steps < 1 || *warmup < 0 {
		return usagef("bench: --steps must be positive and --warmup not negative")
	}
	s, err := a.open(where)
	if err != nil {
		return err
	}
	defer s.Close()
	s.SetSteps(0, *steps+*warmup)
	r := &benchResult{
		Model: a.model.Name, SpecHash: a.model.SpecHash, Device: s.Device(), Precision: s.Precision(),
		Batch: a.model.Batch * a.model.Train.Accumulate, Warmup: *warmup, Steps: *steps,
		StepFLOPs: a.model.Pruned.StepFLOPs, UnprunedFLOPs: a.model.Pruned.StepFLOPsUnpruned,
	}
	if err := r.time(s); err != nil {
		return err
	}
	if err := r.profile(s); err != nil {
		return err
	}
	r.PeakBytes = peakBytes()
	if *asJSON {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return a.printBench(s, r)
}

// time runs the updates on one random batch: never zeros, on which processors
// run faster. The learning rate goes by the schedule; the loss is not looked at.
func (r *benchResult) time(s *runtime.Session) error {
	m := s.Model()
	random := rng.New(1, "bench")
	images, labels := make([]float32, r.Batch*m.ImageElems()), make([]int32, r.Batch)
	for i := range images {
		images[i] = float32(random.Normal())
	}
	for i := range labels {
		labels[i] = int32(random.Intn(m.Classes))
	}
	for i := range r.Warmup + r.Steps {
		start := time.Now()
		if _, _, err := s.Step(images, labels); err != nil {
			return err
		}
		if i >= r.Warmup {
			r.StepMSAll = append(r.StepMSAll, milliseconds(time.Since(start)))
		}
	}
	r.StepMS, r.StepMSMin = median(r.StepMSAll), slices.Min(r.StepMSAll)
	r.SamplesPerSec = float64(r.Batch) / r.StepMS * 1000
	r.GFLOPS = float64(r.StepFLOPs) * float64(m.Train.Accumulate) / r.StepMS / 1e6
	return nil
}

// profileRuns is the number of profiled passes whose median counts.
const profileRuns = 5

// profile times the launches of a micro-batch's Grad and of Update.
func (r *benchResult) profile(s *runtime.Session) error {
	m := s.Model()
	kernels := make([]kernelTimes, len(m.Kernels))
	var total float64
	for _, id := range []runtime.ProgramID{runtime.Grad, runtime.Update} {
		times := make([][]float64, len(m.Programs[id]))
		for range profileRuns {
			d, err := s.Profile(id, m.Batch)
			if err != nil {
				return err
			}
			for i := range d {
				times[i] = append(times[i], milliseconds(d[i]))
			}
		}
		for i, l := range m.Programs[id] {
			k := &kernels[l.Kernel]
			k.Launches++
			k.MS += median(times[i])
			total += median(times[i])
		}
	}
	for i := range kernels {
		k, of := &kernels[i], &m.Kernels[i]
		if k.Launches == 0 {
			continue // only in Forward or Eval
		}
		k.Name, k.Pos, k.Layer = of.Name, of.Pos, of.Layer
		if k.MS > 0 {
			k.GFLOPS = float64(of.FLOPs) * float64(k.Launches) / k.MS / 1e6
			k.GBps = float64(of.Bytes) * float64(k.Launches) / k.MS / 1e6
			k.Percent = 100 * k.MS / total
		}
		r.Kernels = append(r.Kernels, *k)
	}
	slices.SortStableFunc(r.Kernels, func(a, b kernelTimes) int {
		switch {
		case a.MS > b.MS:
			return -1
		case a.MS < b.MS:
			return 1
		}
		return 0
	})
	return nil
}

func (a *app) printBench(s *runtime.Session, r *benchResult) error {
	fmt.Fprintln(a.out, a.banner(s))
	fmt.Fprintf(a.out, "update of %d samples: %.2f ms (median of %d, least %.2f), %.1f samples/s, %.1f GFLOP/s, peak memory %s\n\n",
		r.Batch, r.StepMS, r.Steps, r.StepMSMin, r.SamplesPerSec, r.GFLOPS, bytesText(r.PeakBytes))
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "ms\t%\tGFLOP/s\tGB/s\tlaunches\t  kernel")
	for _, k := range r.Kernels {
		fmt.Fprintf(w, "%.3f\t%.1f\t%.1f\t%.1f\t%d\t  %s  %s  %s\n", k.MS, k.Percent, k.GFLOPS, k.GBps, k.Launches, k.Name, k.Pos, k.Layer)
	}
	return w.Flush()
}

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// median of a list that is not empty.
func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// peakBytes is the most memory this process had resident; Linux counts KiB.
func peakBytes() int64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Maxrss * rssUnit
}

// bytesText is a size for people.
func bytesText(n int64) string {
	switch {
	case n == 0:
		return "0"
	case n < 1e5:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
