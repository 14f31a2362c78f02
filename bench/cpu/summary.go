package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/vitgen/vitgen/bench/measure"
	"github.com/vitgen/vitgen/bench/workload"
)

// group is the comparison of a row.
type group struct {
	Name      string          `json:"name"`
	What      string          `json:"what"`
	Spec      string          `json:"spec"`
	Batch     int             `json:"batch"`
	Inference bool            `json:"inference,omitempty"`
	Counts    workload.Counts `json:"counts"`
	Rounds    int             `json:"rounds"`
	// Of the peers' model.
	Parameters int   `json:"parameter_tensors"`
	PeerFLOPs  int64 `json:"peer_step_flops,omitempty"` // matrix products only
	// Fastest is the peer that speedups compare with, Leanest that of least peak memory.
	Fastest string   `json:"fastest_peer,omitempty"`
	Leanest string   `json:"leanest_peer,omitempty"`
	Without string   `json:"without,omitempty"` // who could take no part, and why
	Entries []*entry `json:"contestants"`

	tiny          bool
	speed, memory goals
}

// entry is a contestant's result.
type entry struct {
	Name    string   `json:"name"`
	What    string   `json:"what"`
	Peer    bool     `json:"peer"`
	Command []string `json:"command"`
	Env     []string `json:"env,omitempty"`
	Failed  string   `json:"failed,omitempty"`
	// Rested says that a peer was so slow in the first round that it had no other.
	Rested bool   `json:"rested,omitempty"`
	Device string `json:"device,omitempty"`
	// ColdFirstStepMS is the first step of a compiling peer with empty caches.
	ColdFirstStepMS float64        `json:"cold_first_step_ms,omitempty"`
	Rounds          []round        `json:"rounds,omitempty"`
	StepMS          measure.Spread `json:"step_ms"` // of the rounds' medians
	SamplesPerSec   float64        `json:"samples_per_sec"`
	// Speedup compares with the fastest peer's time in the same round: 2 is
	// twice as fast.
	Speedup *measure.Spread `json:"speedup,omitempty"`
	// Memory compares the rounds' peak memory with the leanest peer's: 0.5 is half
	// of it.
	Memory        *measure.Spread `json:"memory,omitempty"`
	PeakRSS       int64           `json:"peak_rss_bytes"`            // median of the rounds
	StartRSS      int64           `json:"start_rss_bytes,omitempty"` // of that, before the model exists
	StepFLOPs     int64           `json:"step_flops,omitempty"`
	UnprunedFLOPs int64           `json:"step_flops_unpruned,omitempty"`
	SpecHash      string          `json:"spec_hash,omitempty"`
	// Kernels is a trainer's own profile, of the last round.
	Kernels json.RawMessage `json:"kernels,omitempty"`
}

// add takes in a round if it measured what was asked for.
func (e *entry) add(r round, read reading, g *group) error {
	switch {
	case read.Batch != g.Batch:
		return fmt.Errorf("%s: a step of %d samples, not %d", e.Name, read.Batch, g.Batch)
	case read.Precision != "fp32":
		return fmt.Errorf("%s: computes in %q, not fp32", e.Name, read.Precision)
	case len(read.StepMS) != g.Counts.Steps:
		return fmt.Errorf("%s: timed %d steps, not %d", e.Name, len(read.StepMS), g.Counts.Steps)
	case r.PeakRSS <= 0:
		return fmt.Errorf("%s: does not say how much memory it took", e.Name)
	case !e.Peer && !g.Inference && !workload.SameWork(read.UnprunedFLOPs, g.PeerFLOPs, g.tiny):
		return fmt.Errorf("%s: a step is %d FLOPs before pruning, PyTorch's %d: %s and bench/peers/vit.py differ",
			e.Name, read.UnprunedFLOPs, g.PeerFLOPs, g.Spec)
	}
	e.Device, e.SpecHash, e.Kernels = read.Device, read.SpecHash, read.Kernels
	e.StepFLOPs, e.UnprunedFLOPs = read.StepFLOPs, read.UnprunedFLOPs
	e.StartRSS = max(e.StartRSS, read.StartRSS)
	e.Rounds = append(e.Rounds, r)
	return nil
}

// summarize fills in what follows from the rounds.
func (g *group) summarize() error {
	for _, e := range g.Entries {
		if e.Failed == "" {
			e.StepMS = measure.SpreadOf(each(e.Rounds, (*round).ms))
			e.PeakRSS = int64(measure.Median(each(e.Rounds, (*round).rss)))
			e.SamplesPerSec = float64(g.Batch) * 1e3 / e.StepMS.Median
		}
	}
	fast, lean := g.fastest(), g.leanest()
	if fast == nil {
		if slices.ContainsFunc(g.Entries, func(e *entry) bool { return e.Peer }) {
			return errors.New("every peer failed, so there is nothing to compare with")
		}
		return nil // none was asked for
	}
	g.Fastest, g.Leanest = fast.Name, lean.Name
	for _, e := range g.Entries {
		if e.Failed == "" {
			e.Speedup = ratios(fast.Rounds, e.Rounds)
			s := measure.SpreadOf(each(e.Rounds, func(r *round) float64 { return r.rss() / float64(lean.PeakRSS) }))
			e.Memory = &s
		}
	}
	return nil
}

func each(rounds []round, of func(*round) float64) (all []float64) {
	for i := range rounds {
		all = append(all, of(&rounds[i]))
	}
	return all
}

// ratios divide the times of the rounds that both have.
func ratios(a, b []round) *measure.Spread {
	var all []float64
	for i := range min(len(a), len(b)) {
		all = append(all, a[i].ms()/b[i].ms())
	}
	s := measure.SpreadOf(all)
	return &s
}

// fastest is the peer that speeds are compared with, or nil. One that rested was
// slower than another; it counts if all others failed since.
func (g *group) fastest() *entry {
	time := func(e *entry) float64 { return e.StepMS.Median }
	if e := g.leastPeer(time, func(e *entry) bool { return !e.Rested }); e != nil {
		return e
	}
	return g.leastPeer(time, nil)
}

// leanest is the peer with the smallest peak memory, or nil; memory hardly
// changes from round to round, so that one round shows it.
func (g *group) leanest() *entry {
	return g.leastPeer(func(e *entry) float64 { return float64(e.PeakRSS) }, nil)
}

// leastPeer is the first peer of the smallest figure, of those that did not fail
// and that count; nil if there is none.
func (g *group) leastPeer(of func(*entry) float64, counts func(*entry) bool) (best *entry) {
	for _, e := range g.Entries {
		if e.Peer && e.Failed == "" && (counts == nil || counts(e)) && (best == nil || of(e) < of(best)) {
			best = e
		}
	}
	return best
}

// find returns a contestant that did not fail, or nil.
func (g *group) find(name string) *entry {
	for _, e := range g.Entries {
		if e.Name == name && e.Failed == "" {
			return e
		}
	}
	return nil
}
