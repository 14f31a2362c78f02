package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/vitgen/vitgen/bench/measure"
)

// reading is what a contestant prints: the trainer's `bench --json`, and the
// same keys from peers.
type reading struct {
	Device        string          `json:"device"`
	Precision     string          `json:"precision"`
	Batch         int             `json:"batch"`
	SpecHash      string          `json:"spec_hash"`     // trainers only
	StepMS        []float64       `json:"step_ms_all"`   // each timed step
	FirstStepMS   float64         `json:"first_step_ms"` // peers only
	StepFLOPs     int64           `json:"step_flops"`    // trainers only, as the next two
	UnprunedFLOPs int64           `json:"step_flops_unpruned"`
	Kernels       json.RawMessage `json:"kernels"`
	StartRSS      int64           `json:"start_rss_bytes"` // peers only: with libraries loaded and no model yet
}

// round is one process of a contestant.
type round struct {
	MedianMS float64   `json:"median_ms"`
	StepMS   []float64 `json:"step_ms"`
	PeakRSS  int64     `json:"peak_rss_bytes"`
}

// measureRound runs a contestant once.
func measureRound(ctx context.Context, c contestant) (round, reading, error) {
	var r reading
	out, u, err := measure.Process{Argv: c.argv, Env: c.env}.Run(ctx)
	if err != nil {
		return round{}, r, err
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return round{}, r, fmt.Errorf("%s: its output is no JSON object: %w", strings.Join(c.argv, " "), err)
	}
	if len(r.StepMS) == 0 {
		return round{}, r, fmt.Errorf("%s: no step_ms_all in its output", strings.Join(c.argv, " "))
	}
	return round{MedianMS: measure.Median(r.StepMS), StepMS: r.StepMS, PeakRSS: u.PeakRSS}, r, nil
}

// compare lets the contestants take turns, A B C A B C …, so that whatever else
// the machine does falls on all alike. A peer that fails is out, with its
// reason; a trainer that fails ends the comparison.
func compare(ctx context.Context, all []contestant, s settings, log func(format string, args ...any)) ([]*entry, error) {
	var entries []*entry
	for _, c := range all {
		entries = append(entries, &entry{Name: c.name, What: c.what, Peer: c.peer, Command: c.argv, Env: c.env})
	}
	if err := warmCaches(ctx, all, entries, log); err != nil {
		return nil, err
	}
	for n := range s.Rounds {
		for i, c := range all {
			e := entries[i]
			if e.Failed != "" {
				continue
			}
			r, read, err := measureRound(ctx, c)
			if err == nil {
				err = e.add(r, read, s)
			}
			if err != nil {
				if !c.peer || ctx.Err() != nil {
					return nil, err
				}
				e.Failed = err.Error()
				log("round %d of %d  %-16s failed: %v\n", n+1, s.Rounds, c.name, err)
				continue
			}
			log("round %d of %d  %-16s %9.1f ms  %6.0f MB\n", n+1, s.Rounds, c.name, r.MedianMS, float64(r.PeakRSS)/1e6)
		}
	}
	return entries, summarize(entries, s.Batch)
}

// warmCaches has the compiling peers compile, once for each mode, with as many
// compiler processes as PyTorch likes.
func warmCaches(ctx context.Context, all []contestant, entries []*entry, log func(string, ...any)) error {
	var done []string
	for i, c := range all {
		cold := entries[i]
		if c.compileMode == "" || slices.Contains(done, c.compileMode) {
			continue
		}
		done = append(done, c.compileMode)
		log("cold torch.compile, mode %s …", c.compileMode)
		c.argv = append(slices.Clone(c.argv), "--warmup", "0", "--steps", "1") // the last ones count
		c.env = slices.DeleteFunc(slices.Clone(c.env), func(v string) bool { return v == noCompilers })
		_, read, err := measureRound(ctx, c)
		switch {
		case ctx.Err() != nil:
			return err
		case err != nil:
			cold.Failed = err.Error()
			log(" failed: %v\n", err)
		default:
			cold.ColdFirstStepMS = read.FirstStepMS
			log(" %.1f s to the end of the first step\n", read.FirstStepMS/1e3)
		}
	}
	return nil
}
