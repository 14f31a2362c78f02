package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
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
	PeakRSS       int64           `json:"peak_rss_bytes"`  // at the end of the timed steps
	StartRSS      int64           `json:"start_rss_bytes"` // peers only: with libraries loaded and no model yet
}

// round is one process of a contestant.
type round struct {
	StepMS  measure.Spread `json:"step_ms"` // of its timed steps
	PeakRSS int64          `json:"peak_rss_bytes"`
}

func (r *round) ms() float64  { return r.StepMS.Median }
func (r *round) rss() float64 { return float64(r.PeakRSS) }

// measureRound runs a contestant once.
func measureRound(ctx context.Context, c contestant) (round, reading, error) {
	var r reading
	out, _, err := measure.Process{Argv: c.argv, Env: c.env}.Run(ctx)
	if err != nil {
		return round{}, r, err
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return round{}, r, fmt.Errorf("%s: its output is no JSON object: %w", strings.Join(c.argv, " "), err)
	}
	if len(r.StepMS) == 0 {
		return round{}, r, fmt.Errorf("%s: no step_ms_all in its output", strings.Join(c.argv, " "))
	}
	return round{StepMS: measure.SpreadOf(r.StepMS), PeakRSS: r.PeakRSS}, r, nil
}

// restBeyond is how many times as long as the fastest peer's a peer's first round
// may take; whoever takes longer leaves the machine to the others after it.
const restBeyond = 1.15

// compare lets the contestants take turns, A B C A B C …, so that whatever else
// the machine does falls on all alike. A peer that fails is out, with its
// reason; a trainer that fails ends the comparison.
func (g *group) compare(ctx context.Context, all []contestant, log func(format string, args ...any)) error {
	for _, c := range all {
		g.Entries = append(g.Entries, &entry{Name: c.name, What: c.what, Peer: c.peer, Command: c.argv, Env: c.env})
	}
	if err := g.warmCaches(ctx, all, log); err != nil {
		return err
	}
	for n := range g.Rounds {
		for i, c := range all {
			e := g.Entries[i]
			if e.Failed != "" || e.Rested {
				continue
			}
			turn := fmt.Sprintf("%s, round %d of %d  %-16s", g.Name, n+1, g.Rounds, c.name)
			r, read, err := measureRound(ctx, c)
			if err == nil {
				err = e.add(r, read, g)
			}
			if err != nil {
				if !c.peer || ctx.Err() != nil {
					return err
				}
				e.Failed = err.Error()
				log("%s failed: %v\n", turn, err)
				continue
			}
			log("%s %9.3f ms  %6.0f MB\n", turn, r.ms(), float64(r.PeakRSS)/1e6)
		}
		if n == 0 {
			g.restSlow()
		}
	}
	return g.summarize()
}

// restSlow looks at the first round.
func (g *group) restSlow() {
	best := g.leastPeer(func(e *entry) float64 { return e.Rounds[0].ms() }, nil)
	for _, e := range g.Entries {
		if e.Peer && e.Failed == "" {
			e.Rested = e.Rounds[0].ms() > restBeyond*best.Rounds[0].ms()
		}
	}
}

// warmCaches has the compiling peers compile, with as many compiler processes as
// PyTorch likes. What was compiled before, for the compile row, is not again.
func (g *group) warmCaches(ctx context.Context, all []contestant, log func(string, ...any)) error {
	var done []string
	for i, c := range all {
		if c.cache == "" || slices.Contains(done, c.cache) {
			continue
		}
		if _, err := os.Stat(c.cache); err == nil {
			continue
		}
		done = append(done, c.cache)
		cold := g.Entries[i]
		log("%s, cold caches  %-16s", g.Name, c.name)
		ms, err := coldStep(ctx, c)
		switch {
		case ctx.Err() != nil:
			return err
		case err != nil:
			cold.Failed = err.Error()
			log(" failed: %v\n", err)
		default:
			cold.ColdFirstStepMS = ms
			log(" %8.1f s to the end of the first step\n", ms/1e3)
		}
	}
	return nil
}

// coldStep is the time of a contestant's first step, whose cache is empty.
func coldStep(ctx context.Context, c contestant) (ms float64, err error) {
	c.argv = append(slices.Clone(c.argv), "--warmup", "1", "--steps", "1") // the last ones count
	c.env = slices.DeleteFunc(slices.Clone(c.env), func(v string) bool { return v == noCompilers })
	_, read, err := measureRound(ctx, c)
	return read.FirstStepMS, err
}
