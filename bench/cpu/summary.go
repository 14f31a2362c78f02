package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/vitgen/vitgen/bench/measure"
)

// entry is a contestant's result.
type entry struct {
	Name    string   `json:"name"`
	What    string   `json:"what"`
	Peer    bool     `json:"peer"`
	Command []string `json:"command"`
	Env     []string `json:"env,omitempty"`
	Failed  string   `json:"failed,omitempty"`
	Device  string   `json:"device,omitempty"`
	// ColdFirstStepMS is the first step of a compiling peer with empty caches.
	ColdFirstStepMS float64        `json:"cold_first_step_ms,omitempty"`
	Rounds          []round        `json:"rounds,omitempty"`
	StepMS          measure.Spread `json:"step_ms"` // of the rounds' medians
	SamplesPerSec   float64        `json:"samples_per_sec"`
	// Speedup compares with the fastest peer's time in the same round: 2 is
	// twice as fast.
	Speedup       *measure.Spread `json:"speedup,omitempty"`
	PeakRSS       int64           `json:"peak_rss_bytes"`            // the largest of all rounds
	StartRSS      int64           `json:"start_rss_bytes,omitempty"` // of that, before the model exists
	StepFLOPs     int64           `json:"step_flops,omitempty"`
	UnprunedFLOPs int64           `json:"step_flops_unpruned,omitempty"`
	SpecHash      string          `json:"spec_hash,omitempty"`
	// Kernels is a trainer's own profile, of the last round.
	Kernels json.RawMessage `json:"kernels,omitempty"`
}

// add takes in a round if it measured what was asked for.
func (e *entry) add(r round, read reading, s settings) error {
	switch {
	case read.Batch != s.Batch:
		return fmt.Errorf("%s: a step of %d samples, not %d", e.Name, read.Batch, s.Batch)
	case read.Precision != "fp32":
		return fmt.Errorf("%s: computes in %q, not fp32", e.Name, read.Precision)
	case len(r.StepMS) != s.Steps:
		return fmt.Errorf("%s: timed %d steps, not %d", e.Name, len(r.StepMS), s.Steps)
	case !e.Peer && !sameWork(read.UnprunedFLOPs, s.peerFLOPs):
		return fmt.Errorf("%s: a step is %d FLOPs before pruning, PyTorch's %d: %s and bench/cpu/peer_torch.py differ",
			e.Name, read.UnprunedFLOPs, s.peerFLOPs, specFile)
	}
	e.Device, e.SpecHash, e.Kernels = read.Device, read.SpecHash, read.Kernels
	e.StepFLOPs, e.UnprunedFLOPs = read.StepFLOPs, read.UnprunedFLOPs
	e.StartRSS = max(e.StartRSS, read.StartRSS)
	e.PeakRSS = max(e.PeakRSS, r.PeakRSS)
	e.Rounds = append(e.Rounds, r)
	return nil
}

// sameWork tells trainers of another model than the peer's: without pruning both
// have the same matrix products, and all that PyTorch does not count is under a
// hundredth of them.
func sameWork(trainer, peer int64) bool {
	return math.Abs(float64(trainer)/float64(peer)-1) < 0.02
}

func (e *entry) times() (ms []float64) {
	for _, r := range e.Rounds {
		ms = append(ms, r.MedianMS)
	}
	return ms
}

// summarize fills in what follows from the rounds.
func summarize(entries []*entry, batch int) error {
	for _, e := range entries {
		if e.Failed == "" {
			e.StepMS = measure.SpreadOf(e.times())
			e.SamplesPerSec = float64(batch) * 1e3 / e.StepMS.Median
		}
	}
	best := fastestPeer(entries)
	if best == nil {
		if slices.ContainsFunc(entries, func(e *entry) bool { return e.Peer }) {
			return errors.New("every peer failed, so there is nothing to compare with")
		}
		return nil // none was asked for
	}
	for _, e := range entries {
		if e.Failed != "" {
			continue
		}
		var ratios []float64
		for i, ms := range e.times() {
			ratios = append(ratios, best.Rounds[i].MedianMS/ms)
		}
		s := measure.SpreadOf(ratios)
		e.Speedup = &s
	}
	return nil
}

// fastestPeer is nil if there is none.
func fastestPeer(entries []*entry) *entry {
	return leastPeer(entries, func(e *entry) float64 { return e.StepMS.Median })
}

// leanestPeer is the peer with the smallest peak memory, or nil.
func leanestPeer(entries []*entry) *entry {
	return leastPeer(entries, func(e *entry) float64 { return float64(e.PeakRSS) })
}

func leastPeer(entries []*entry, of func(*entry) float64) (least *entry) {
	for _, e := range entries {
		if e.Peer && e.Failed == "" && (least == nil || of(e) < of(least)) {
			least = e
		}
	}
	return least
}
