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
	Pass          string        `json:"pass"`  // update or forward: what a step is
	Batch         int           `json:"batch"` // samples of a step
	Warmup        int           `json:"warmup"`
	Steps         int           `json:"steps"`
	Input         string        `json:"input"`   // host: the batch is copied in each time; device: gathered from a data set there
	StepMS        float64       `json:"step_ms"` // median, with its input
	StepMSMin     float64       `json:"step_ms_min"`
	StepMSAll     []float64     `json:"step_ms_all"`
	SamplesPerSec float64       `json:"samples_per_sec"`
	GFLOPS        float64       `json:"gflops"` // of the work done, after pruning
	StepFLOPs     int64         `json:"step_flops"`
	UnprunedFLOPs int64         `json:"step_flops_unpruned,omitempty"` // of updates
	PeakBytes     int64         `json:"peak_rss_bytes"`                // of this process
	DeviceBytes   int64         `json:"device_bytes,omitempty"`        // allocated on a GPU
	Roofs         *roofs        `json:"roofs,omitempty"`               // what bounds kernels; not of a GPU
	BoundMS       float64       `json:"bound_ms,omitempty"`            // of a step: the bounds of all its launches
	OfBound       float64       `json:"of_bound,omitempty"`            // BoundMS / StepMS
	Kernels       []kernelTimes `json:"kernels"`
	Data          *dataBench    `json:"data,omitempty"` // updates on a real data set
}

// kernelTimes is one kernel's share of a step.
type kernelTimes struct {
	Name     string  `json:"name"`
	Pos      string  `json:"pos"`
	Layer    string  `json:"layer"`
	Launches int     `json:"launches"`
	MS       float64 `json:"ms"`      // all its launches: sum of their medians
	Percent  float64 `json:"percent"` // of all kernels
	GFLOPS   float64 `json:"gflops"`
	GBps     float64 `json:"gb_per_sec"` // against the least traffic possible
	bounded          // against the roofs
}

// bench is the command.
func (a *app) bench(args []string) error {
	fs := a.flags("bench")
	var where placement
	where.define(fs)
	where.defineSeed(fs)
	steps := fs.Int("steps", 10, "`number` of updates, or forward passes, to time")
	warmup := fs.Int("warmup", 3, "`number` of them before that")
	forward := fs.Bool("forward", false, "time inference instead: the logits of a batch of images")
	batch := fs.Int("batch", 0, "`number` of images of a forward pass; 0: the spec's batch")
	stream := fs.Bool("stream", false, "send each batch from the host, even to a device that could keep the data set")
	asJSON := fs.Bool("json", false, "print one JSON object")
	from := source{warn: a.warn}
	from.defineData(fs, "data set `name` to measure the waiting for data with; empty: the spec's; none: do not")
	if _, err := a.parse(fs, args, 0); err != nil {
		return err
	}
	if *steps < 1 || *warmup < 0 {
		return usagef("bench: --steps must be positive and --warmup not negative")
	}
	if err := checkForward(*forward, *batch, from.name, *stream); err != nil {
		return err
	}
	s, err := a.open(where)
	if err != nil {
		return err
	}
	defer s.Close()
	r := &benchResult{
		Model: a.model.Name, SpecHash: a.model.SpecHash, Device: s.Device(), Precision: s.Precision(), Warmup: *warmup, Steps: *steps,
	}
	if *forward {
		err = r.forward(s, *batch)
	} else {
		err = r.updates(a, s, &from, *stream)
	}
	if err != nil {
		return err
	}
	if *asJSON {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return a.printBench(s, r)
}

// updates times training steps.
func (r *benchResult) updates(a *app, s *runtime.Session, from *source, stream bool) error {
	r.Pass, r.Batch = passUpdate, a.model.Batch*a.model.Train.Accumulate
	r.StepFLOPs, r.UnprunedFLOPs = s.Code().FLOPs(runtime.Grad), a.model.StepFLOPsUnpruned
	s.SetSteps(0, r.Steps+r.Warmup)
	if err := r.time(s, stream || !s.CanUpload()); err != nil {
		return err
	}
	if err := r.profile(s, a.model.Batch, runtime.Grad, runtime.Update); err != nil {
		return err
	}
	return r.measureData(a, s, from, stream)
}

// time runs the updates on one random batch: never zeros, on which processors
// run faster. The learning rate goes by the schedule; the loss is not looked at,
// only waited for. Of a device that works by itself the next update is submitted
// before that, as in training; an update's time is from the end of the one
// before to its own.
func (r *benchResult) time(s *runtime.Session, stream bool) error {
	m := s.Model()
	b, err := r.input(s, stream)
	if err != nil {
		return err
	}
	var waiting runtime.Pending
	last := time.Now()
	done := 0
	wait := func(p runtime.Pending) error {
		if !p.Valid() {
			return nil
		}
		if _, _, err := p.Wait(); err != nil {
			return err
		}
		now := time.Now()
		if done >= r.Warmup {
			r.StepMSAll = append(r.StepMSAll, milliseconds(now.Sub(last)))
		}
		last = now
		done++
		return nil
	}
	for range r.Warmup + r.Steps {
		var now runtime.Pending
		for lo := 0; lo < r.Batch; lo += m.Batch {
			if now, err = s.Submit(b.Part(lo, lo+m.Batch, m.ImageElems()), r.Batch); err != nil {
				return err
			}
		}
		if s.Pipelined() {
			now, waiting = waiting, now
		}
		if err := wait(now); err != nil {
			return err
		}
	}
	if err := wait(waiting); err != nil {
		return err
	}
	r.figures(r.StepFLOPs * int64(m.Train.Accumulate))
	return nil
}

// input makes the batch: floats on the host, or a data set on the device.
func (r *benchResult) input(s *runtime.Session, stream bool) (b runtime.Samples, err error) {
	m := s.Model()
	random := rng.New(1, "bench")
	if !stream {
		r.Input = "device"
		noise := &noise{shape: m.Image, pixels: make([]uint8, r.Batch*m.ImageElems()), labels: make([]int, r.Batch)}
		for i := range noise.pixels {
			noise.pixels[i] = uint8(random.Intn(256))
		}
		for i := range noise.labels {
			noise.labels[i] = random.Intn(m.Classes)
			b.Index = append(b.Index, int32(i))
		}
		table := make([]float32, 256*m.Image[0])
		for i := range table {
			table[i] = float32(random.Normal())
		}
		return b, s.Upload(noise, table)
	}
	r.Input = "host"
	b.Images, b.Labels = make([]float32, r.Batch*m.ImageElems()), make([]int32, r.Batch)
	for i := range b.Images {
		b.Images[i] = float32(random.Normal())
	}
	for i := range b.Labels {
		b.Labels[i] = int32(random.Intn(m.Classes))
	}
	return b, nil
}

// noise is a data set of random images.
type noise struct {
	shape  [3]int
	pixels []uint8
	labels []int
}

func (n *noise) Len() int      { return len(n.labels) }
func (n *noise) Shape() [3]int { return n.shape }

func (n *noise) Sample(i int, pixels []uint8) (int, error) {
	copy(pixels, n.pixels[i*len(pixels):])
	return n.labels[i], nil
}

// profileRuns is the number of profiled passes whose median counts.
const profileRuns = 5

// profile notes how much memory the steps took, and times the launches of their
// programs on n samples, a micro-batch at most.
func (r *benchResult) profile(s *runtime.Session, n int, programs ...runtime.ProgramID) (err error) {
	r.PeakBytes, r.DeviceBytes = peakBytes(), s.DeviceBytes() // before roofs take memory
	if r.Roofs, err = measureRoofs(s.Cores()); err != nil {
		return err
	}
	m, code := s.Model(), s.Code()
	kernels := make([]kernelTimes, len(code.Kernels))
	var total float64
	for _, id := range programs {
		times := make([][]float64, len(code.Programs[id]))
		perStep := float64(r.Batch) / float64(n)
		if id == runtime.Update {
			perStep = 1
		}
		for range profileRuns {
			d, err := s.Profile(id, n)
			if err != nil {
				return err
			}
			for i := range d {
				times[i] = append(times[i], milliseconds(d[i]))
			}
		}
		for i, l := range code.Programs[id] {
			k := &kernels[l.Kernel]
			k.Launches++
			k.MS += median(times[i])
			total += median(times[i])
			if r.Roofs != nil {
				var ms float64
				ms, k.Bound = r.Roofs.bound(code.Kernels[l.Kernel].Work(n, m.Batch))
				k.BoundMS += ms
				r.BoundMS += ms * perStep
			}
		}
	}
	r.OfBound = r.BoundMS / r.StepMS
	for i := range kernels {
		k, of := &kernels[i], &code.Kernels[i]
		if k.Launches == 0 {
			continue // only in other programs
		}
		k.Name, k.Pos, k.Layer = of.Name, of.Pos, of.Layer
		if k.MS > 0 {
			flops, bytes := of.Work(n, m.Batch)
			k.GFLOPS = float64(flops) * float64(k.Launches) / k.MS / 1e6
			k.GBps = float64(bytes) * float64(k.Launches) / k.MS / 1e6
			k.Percent = 100 * k.MS / total
			k.OfBound = k.BoundMS / k.MS
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
	memory := bytesText(r.PeakBytes)
	if r.DeviceBytes > 0 {
		memory = fmt.Sprintf("%s on the device, %s on the host", bytesText(r.DeviceBytes), memory)
	}
	fmt.Fprintf(a.out, "%s: %.3f ms (median of %d, least %.3f), %.1f samples/s, %.1f GFLOP/s, peak memory %s\n",
		r.what(), r.StepMS, r.Steps, r.StepMSMin, r.SamplesPerSec, r.GFLOPS, memory)
	if r.Roofs != nil {
		fmt.Fprintln(a.out, r.boundLine())
	}
	if r.Data != nil {
		fmt.Fprintln(a.out, r.Data.line())
	}
	fmt.Fprintln(a.out)
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	bound, ofBound := "", ""
	if r.Roofs != nil {
		bound = "% of bound\t"
	}
	fmt.Fprintln(w, "ms\t%\tGFLOP/s\tGB/s\t"+bound+"launches\t  kernel")
	for _, k := range r.Kernels {
		if r.Roofs != nil {
			ofBound = fmt.Sprintf("%s %.1f\t", k.Bound, 100*k.OfBound)
		}
		fmt.Fprintf(w, "%.3f\t%.1f\t%.1f\t%.1f\t%s%d\t  %s  %s  %s\n", k.MS, k.Percent, k.GFLOPS, k.GBps, ofBound, k.Launches, k.Name, k.Pos, k.Layer)
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
