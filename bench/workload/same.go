package workload

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// PeerFacts is what a peer's check prints.
type PeerFacts struct {
	Parameters map[string][]int `json:"parameters"`
	StepFLOPs  int64            `json:"step_flops"` // matrix products only
	Timm       string           `json:"timm"`
}

// Info is what is used of a trainer's info --json.
type Info struct {
	SpecHash   string `json:"spec_hash"`
	Batch      int    `json:"batch"`
	Accumulate int    `json:"accumulate"`
	Parameters []struct {
		Name  string `json:"name"`
		Shape []int  `json:"shape"`
	} `json:"parameters"`
}

// Shapes of the parameters, by name.
func (i *Info) Shapes() map[string][]int {
	all := map[string][]int{}
	for _, p := range i.Parameters {
		all[p.Name] = p.Shape
	}
	return all
}

// Same tells a trainer of another model or batch than the peers'.
func (w *Workload) Same(trainer *Info, peer map[string][]int) error {
	if n := trainer.Batch * trainer.Accumulate; n != w.Batch {
		return fmt.Errorf("the trainer's update is %d samples, the workload's %d", n, w.Batch)
	}
	if err := sameParameters(trainer.Shapes(), peer); err != nil {
		return fmt.Errorf("the trainer and bench/peers are different models: %w", err)
	}
	return nil
}

func sameParameters(ours, theirs map[string][]int) error {
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		if !slices.Equal(ours[name], theirs[name]) {
			return fmt.Errorf("%s is %v here and %v there", name, ours[name], theirs[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		if ours[name] == nil {
			return fmt.Errorf("%s is only there", name)
		}
	}
	return nil
}

// SameWork tells trainers of another model than the peer's by the FLOPs of a
// step: without pruning both have the same matrix products, and what PyTorch does
// not count is under a hundredth of them, unless the model is tiny.
func SameWork(trainer, peer int64, tiny bool) bool {
	tolerance := 0.02
	if tiny {
		tolerance = 0.5
	}
	return math.Abs(float64(trainer)/float64(peer)-1) < tolerance
}
