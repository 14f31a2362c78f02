package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vitgen/vitgen/bench/measure"
	"github.com/vitgen/vitgen/bench/workload"
)

// group is the comparison of one workload in one precision.
type group struct {
	Workload  string          `json:"workload"`
	Spec      string          `json:"spec"`
	Precision string          `json:"precision"`
	Batch     int             `json:"batch"`
	Counts    workload.Counts `json:"counts"`
	Rounds    int             `json:"rounds"`
	PeerFLOPs int64           `json:"peer_step_flops,omitempty"` // matrix products only
	Fastest   string          `json:"fastest_peer,omitempty"`
	Entries   []*entry        `json:"contestants"`
	Kernels   []*kernel       `json:"kernels,omitempty"` // of vitgen, slowest first
}

// entry is a contestant's result.
type entry struct {
	Name    string   `json:"name"`
	What    string   `json:"what"`
	Peer    bool     `json:"peer"`
	Command []string `json:"command"`
	Env     []string `json:"env,omitempty"`
	Failed  string   `json:"failed,omitempty"`
	Absent  string   `json:"absent,omitempty"`
	Device  string   `json:"device,omitempty"`
	// ColdFirstStepMS is the first step of a compiling peer with empty caches.
	ColdFirstStepMS float64         `json:"cold_first_step_ms,omitempty"`
	Rounds          []round         `json:"rounds,omitempty"`
	StepMS          *measure.Spread `json:"step_ms,omitempty"` // of the rounds' medians
	SamplesPerSec   float64         `json:"samples_per_sec,omitempty"`
	// Speedup compares with the fastest peer's time in the same round: 2 is
	// twice as fast.
	Speedup *measure.Spread `json:"speedup,omitempty"`
	// GPU is what nvidia-smi saw in the run before the rounds; PeakBytes there is
	// the memory that reports compare. Allocated is what the program itself says.
	GPU            *watch `json:"gpu,omitempty"`
	AllocatedBytes int64  `json:"allocated_bytes,omitempty"`
	StepFLOPs      int64  `json:"step_flops,omitempty"`
	UnprunedFLOPs  int64  `json:"step_flops_unpruned,omitempty"`
	Input          string `json:"input,omitempty"`

	kernels []kernelTime // of the last round
}

func (e *entry) out() bool { return e.Failed != "" || e.Absent != "" }

// round is one process of a contestant: its steps, each of which is in the log.
type round struct {
	StepMS measure.Spread `json:"step_ms"`
}

// reading is what a contestant prints: the trainer's `bench --json`, and the
// same keys from peers.
type reading struct {
	Device        string       `json:"device"`
	Precision     string       `json:"precision"`
	Batch         int          `json:"batch"`
	StepMS        []float64    `json:"step_ms_all"`
	FirstStepMS   float64      `json:"first_step_ms"`        // peers only
	PeakAllocated int64        `json:"peak_allocated_bytes"` // likewise
	DeviceBytes   int64        `json:"device_bytes"`         // trainers only, as all that follows
	StepFLOPs     int64        `json:"step_flops"`
	UnprunedFLOPs int64        `json:"step_flops_unpruned"`
	Input         string       `json:"input"`
	Kernels       []kernelTime `json:"kernels"`
}

// bench compares every workload in every precision.
func (r *runner) bench() {
	if why := r.spent(); why != "" {
		r.skip("bench", "training steps", why)
		return
	}
	r.findRoofs()
	for i := range r.manifest.Workloads {
		w := &r.manifest.Workloads[i]
		if len(r.set.Models) > 0 && !slices.Contains(r.set.Models, w.Name) {
			continue
		}
		flops, err := r.prepare(w)
		if err != nil {
			r.fail("bench", w.Name, err)
			continue
		}
		for _, precision := range r.set.Precisions {
			r.compareIn(w, precision, flops)
			r.save()
		}
	}
}

// compareIn compares one workload in one precision.
func (r *runner) compareIn(w *workload.Workload, precision string, flops int64) {
	name := w.Name + " " + precision
	if why := r.spent(); why != "" {
		r.skip("bench", name, why)
		return
	}
	if r.model(w.Name+"-"+precision) == nil {
		r.skip("bench", name, "its trainer is not among the binaries")
		return
	}
	began := time.Now()
	g := &group{Workload: w.Name, Spec: w.Spec, Precision: precision, Batch: w.Batch, Counts: r.counts(w), PeerFLOPs: flops}
	r.compare(g, r.field(w, precision))
	r.res.setGroup(g)
	if m := r.model(w.Name + "-" + precision); m != nil {
		if err := r.kernels(g, m); err != nil {
			r.fail("bench", name+": kernels", err)
		}
	}
	c := check{Step: "bench", Name: name, Status: passed, Why: g.verdict(), Seconds: time.Since(began).Seconds()}
	for _, e := range g.Entries {
		switch {
		case e.Failed == "":
		case !e.Peer:
			c.Status, c.Why = failed, e.Name+": "+e.Failed
		default:
			r.skip("bench", name+": "+e.Name, e.Failed)
		}
	}
	if g.Rounds == 0 && c.Status == passed {
		c.Status, c.Why = skipped, cmp.Or(r.spent(), "nobody took part")
	}
	r.note(c)
}

// compare lets the contestants take turns, A B C A B C …, so that whatever else
// the machine does falls on all alike. Whoever fails is out, with its reason. A
// run before the rounds fills caches and shows how much memory each takes.
func (r *runner) compare(g *group, all []contestant) {
	for _, c := range all {
		e := &entry{Name: c.name, What: c.what, Peer: c.peer, Command: c.argv, Env: c.env, Absent: c.absent}
		g.Entries = append(g.Entries, e)
		if !e.out() {
			r.first(g, c, e)
		}
	}
	for range r.set.Rounds {
		if r.spent() != "" {
			break
		}
		for i, c := range all {
			if e := g.Entries[i]; !e.out() {
				r.turn(g, c, e)
			}
		}
		g.Rounds++
	}
	g.summarize()
}

// first is the run before the rounds.
func (r *runner) first(g *group, c contestant, e *entry) {
	if why := r.spent(); why != "" {
		e.Absent = why
		return
	}
	cold := c.cold()
	// Of a flag that is given twice the last one counts. JAX takes most of the
	// GPU's memory beforehand unless told not to.
	c.argv = append(slices.Clone(c.argv), "--warmup", "1", "--steps", "2")
	c.env = append(slices.Clone(c.env), "XLA_PYTHON_CLIENT_PREALLOCATE=false")
	stop := r.watchGPU()
	read, err := r.start(g, c, "first")
	e.GPU = stop()
	if err != nil {
		e.Failed = err.Error()
		logf("%s %s  %-22s failed: %s\n", g.Workload, g.Precision, c.name, lastLine(e.Failed))
		return
	}
	e.AllocatedBytes = max(read.PeakAllocated, read.DeviceBytes)
	remark := ""
	if cold {
		e.ColdFirstStepMS = read.FirstStepMS
		remark = fmt.Sprintf("%.1f s to the end of the first step, from an empty cache", read.FirstStepMS/1e3)
	}
	logf("%s %s  %-22s %6.0f MB  %s\n", g.Workload, g.Precision, c.name, float64(e.memory())/1e6, remark)
}

func (e *entry) memory() int64 {
	if e.GPU != nil {
		return e.GPU.PeakBytes
	}
	return e.AllocatedBytes
}

// start runs a contestant's process.
func (r *runner) start(g *group, c contestant, turn string) (read reading, err error) {
	log := strings.Join([]string{"bench", g.Workload, g.Precision, c.name, turn}, "-")
	out, _, err := r.process(log, 30*time.Minute, c.env, c.argv...)
	if err != nil {
		return read, err
	}
	if err := json.Unmarshal(out, &read); err != nil {
		return read, fmt.Errorf("its output is no JSON object: %w", err)
	}
	return read, nil
}

// turn is a contestant's process in a round.
func (r *runner) turn(g *group, c contestant, e *entry) {
	turn := fmt.Sprintf("round%d", g.Rounds+1)
	read, err := r.start(g, c, turn)
	if err == nil {
		err = e.add(read, g, r.manifest.Rehearsal)
	}
	if err != nil {
		e.Failed = err.Error()
		logf("%s %s  %-22s %s failed: %s\n", g.Workload, g.Precision, c.name, turn, lastLine(e.Failed))
		return
	}
	logf("%s %s  %-22s %s %9.3f ms\n", g.Workload, g.Precision, c.name, turn, e.Rounds[len(e.Rounds)-1].StepMS.Median)
}

// add takes in a round if it measured what was asked for.
func (e *entry) add(read reading, g *group, rehearsal bool) error {
	switch {
	case read.Batch != g.Batch:
		return fmt.Errorf("a step of %d samples, not %d", read.Batch, g.Batch)
	case read.Precision != g.Precision:
		return fmt.Errorf("computes in %q, not %s", read.Precision, g.Precision)
	case len(read.StepMS) != g.Counts.Steps:
		return fmt.Errorf("timed %d steps, not %d", len(read.StepMS), g.Counts.Steps)
	case !e.Peer && g.PeerFLOPs > 0 && !workload.SameWork(read.UnprunedFLOPs, g.PeerFLOPs, rehearsal):
		return fmt.Errorf("a step is %d FLOPs before pruning, PyTorch's %d: %s and bench/peers/vit.py differ", read.UnprunedFLOPs, g.PeerFLOPs, g.Spec)
	}
	e.Device, e.Input, e.kernels = read.Device, read.Input, read.Kernels
	e.StepFLOPs, e.UnprunedFLOPs = read.StepFLOPs, read.UnprunedFLOPs
	e.AllocatedBytes = max(e.AllocatedBytes, read.PeakAllocated, read.DeviceBytes)
	e.Rounds = append(e.Rounds, round{measure.SpreadOf(read.StepMS)})
	return nil
}

// summarize fills in what follows from the rounds. Whoever is still in has all of
// them.
func (g *group) summarize() {
	for _, e := range g.Entries {
		if len(e.Rounds) > 0 {
			s := measure.SpreadOf(e.times())
			e.StepMS, e.SamplesPerSec = &s, float64(g.Batch)*1e3/s.Median
		}
	}
	best := g.fastest()
	if best == nil {
		return
	}
	g.Fastest = best.Name
	for _, e := range g.Entries {
		if e.out() {
			continue
		}
		var ratios []float64
		for i, ms := range e.times() {
			ratios = append(ratios, best.Rounds[i].StepMS.Median/ms)
		}
		s := measure.SpreadOf(ratios)
		e.Speedup = &s
	}
}

func (e *entry) times() (ms []float64) {
	for _, r := range e.Rounds {
		ms = append(ms, r.StepMS.Median)
	}
	return ms
}

// fastest is the fastest peer, or nil.
func (g *group) fastest() (best *entry) {
	for _, e := range g.Entries {
		if e.Peer && !e.out() && e.StepMS != nil && (best == nil || e.StepMS.Median < best.StepMS.Median) {
			best = e
		}
	}
	return best
}

// find returns a contestant that has times, or nil.
func (g *group) find(name string) *entry {
	for _, e := range g.Entries {
		if e.Name == name && !e.out() && e.StepMS != nil {
			return e
		}
	}
	return nil
}

// verdict is the comparison in a line.
func (g *group) verdict() string {
	e := g.find(ours)
	if e == nil {
		return ""
	}
	text := fmt.Sprintf("%.3f ms, %.0f samples/s", e.StepMS.Median, e.SamplesPerSec)
	if e.Speedup != nil {
		text += fmt.Sprintf(", %.2f× as fast as %s", e.Speedup.Median, g.Fastest)
	}
	return text
}
