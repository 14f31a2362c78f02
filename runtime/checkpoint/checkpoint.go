// Package checkpoint keeps training runs on disk, so that one that was stopped,
// killed or cut off goes on bit for bit as if it had not been.
//
//	runs/x/checkpoints/000920/weights.safetensors   parameters, PyTorch's names
//	runs/x/checkpoints/000920/average.safetensors   their average, if one is kept
//	runs/x/checkpoints/000920/state.safetensors     everything else
//	runs/x/last.safetensors, best.safetensors       links to weights or average, or copies where there are no links
//
// A checkpoint is written under another name, synced and renamed: it is there
// whole or not at all. Nothing is removed before what replaces it is safe.
//
// state.safetensors has the optimizer's state as tensors named by arena and
// parameter ("exp_avg.head.weight"), the losses of the last updates (float64,
// "losses"), and a State as JSON in its metadata, under vitgen.state, with the
// CRC-32C of that text under vitgen.state_crc32c.
package checkpoint

import (
	"encoding/json"
	"fmt"
	"math"

	"github.com/vitgen/vitgen/runtime"
)

// Version of the format that this package writes. It reads no newer one.
const Version = 1

// Checkpoint is one moment of training, between two updates.
type Checkpoint struct {
	Snapshot *runtime.Snapshot
	State    State
	Losses   []float64 // mean training losses of the last updates, up to KeptLosses; the last is of update State.Updates
}

// KeptLosses is how many updates back a checkpoint remembers losses, for replay.
const KeptLosses = 256

// State is what training knows besides parameters and optimizer state.
type State struct {
	Version int    `json:"version"`
	Updates int    `json:"updates"` // made
	Micro   int    `json:"micro"`   // passes forward and backward; counts dropout's random numbers
	Seed    uint64 `json:"seed"`    // of initialization, dropout, order and augmentation

	// The next micro-batch: number Batch of epoch Epoch, both from 0.
	Epoch int `json:"epoch"`
	Batch int `json:"batch"`

	LR        float64   `json:"lr"`         // of the last update
	EpochSums Sums      `json:"epoch_sums"` // since the epoch began
	Interval  Sums      `json:"interval"`   // since the last line of metrics.jsonl
	Validated int       `json:"validated"`  // updates before the last validation; -1: none yet
	Last      *Score    `json:"last"`       // validation
	Best      *Score    `json:"best"`       // validation
	Early     EarlyStop `json:"early_stop"`
	Skipped   int       `json:"skipped"` // updates left out as outliers
	Window    []float64 `json:"window"`  // losses that outliers are told by
	Seconds   float64   `json:"seconds"` // spent training, in all

	Plan      Plan      `json:"plan"`
	Receipt   Receipt   `json:"receipt"`
	Changes   []Change  `json:"changes,omitempty"`
	Checksums Checksums `json:"checksums"`
}

// Change is a resumption that was not on the same device or not of the same
// spec, data or kernels, after which the run is not bitwise what it would have
// been.
type Change struct {
	Updates int      `json:"updates"` // made before it
	What    []string `json:"what"`
}

// Sums are what averages of losses and accuracies are made of.
type Sums struct {
	Loss        float64 `json:"loss"` // over samples
	Correct     float64 `json:"correct"`
	Samples     int     `json:"samples"`
	MeanLoss    float64 `json:"mean_loss"` // sums of batch means
	MeanCorrect float64 `json:"mean_correct"`
	Batches     int     `json:"batches"`
	Seconds     float64 `json:"seconds"` // spent
	Waited      float64 `json:"waited"`  // of those, for data
}

// Score is the outcome of a validation.
type Score struct {
	Updates  int     `json:"updates"` // made before it
	Epoch    float64 `json:"epoch"`
	Loss     float64 `json:"loss"`
	Accuracy float64 `json:"accuracy"`
}

// EarlyStop is how long validation has not become better.
type EarlyStop struct {
	Best *float64 `json:"best"` // of the metric, when it last became better; nil: no validation yet
	Bad  int      `json:"bad"`  // validations since
}

// Plan is what the run was asked to do: the flags, with the spec's values where
// there was none. Counts are in updates, but for Epochs.
type Plan struct {
	Epochs    int    `json:"epochs"`
	PerEpoch  int    `json:"per_epoch"`
	Total     int    `json:"total"`
	Steps     int    `json:"steps"`      // --steps; 0: whole epochs
	Every     int    `json:"every"`      // between lines of metrics.jsonl
	SaveEvery int    `json:"save_every"` // 0: each epoch
	KeepEvery int    `json:"keep_every"` // 0: none but last and best
	Metrics   string `json:"metrics"`    // exact or d2l
	Best      string `json:"best"`       // accuracy or loss
	Patience  int    `json:"patience"`   // of early stopping; 0: off
	DataDir   string `json:"data_dir"`
}

// Checksums are CRC-32C of the files' tensors, to tell a file that is not the
// one that was saved.
type Checksums struct {
	Weights uint32  `json:"weights"`
	Average *uint32 `json:"average,omitempty"` // nil: there is none
	State   uint32  `json:"state"`
}

// Untime sets to zero how long things took: the rest is the same in every run.
func (s *State) Untime() {
	s.Seconds = 0
	for _, m := range []*Sums{&s.EpochSums, &s.Interval} {
		m.Seconds, m.Waited = 0, 0
	}
}

// check finds what no trainer could have written.
func (s *State) check() error {
	if s.Version != Version {
		return fmt.Errorf("format version %d; this program reads version %d: use the program that wrote it", s.Version, Version)
	}
	counts := map[string]int{
		"updates": s.Updates, "epoch": s.Epoch, "batch": s.Batch, "skipped": s.Skipped,
		"early_stop.bad": s.Early.Bad, "plan.epochs": s.Plan.Epochs, "plan.save_every": s.Plan.SaveEvery,
		"plan.keep_every": s.Plan.KeepEvery, "plan.patience": s.Plan.Patience, "plan.steps": s.Plan.Steps,
	}
	for name, n := range counts {
		if n < 0 || n > math.MaxInt32 {
			return fmt.Errorf("%s is %d", name, n)
		}
	}
	switch {
	case s.Micro < s.Updates:
		return fmt.Errorf("%d updates of %d micro-batches", s.Updates, s.Micro)
	case s.Validated < -1 || s.Validated > s.Updates:
		return fmt.Errorf("validated after update %d of %d", s.Validated, s.Updates)
	case s.Plan.PerEpoch < 1 || s.Plan.Total < 1 || s.Plan.Every < 1:
		return fmt.Errorf("the plan is %+v", s.Plan)
	case s.Plan.Metrics != "exact" && s.Plan.Metrics != "d2l":
		return fmt.Errorf("metrics are %q", s.Plan.Metrics)
	case s.Plan.Best != "accuracy" && s.Plan.Best != "loss":
		return fmt.Errorf("best is by %q", s.Plan.Best)
	}
	return nil
}

// parseState reads the JSON of a State.
func parseState(text string) (*State, error) {
	s := &State{}
	if err := json.Unmarshal([]byte(text), s); err != nil {
		return nil, fmt.Errorf("vitgen.state: %w", err)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("vitgen.state: %w", err)
	}
	return s, nil
}
