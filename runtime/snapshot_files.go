package runtime

import (
	"fmt"
	"slices"

	"github.com/vitgen/vitgen/runtime/safetensors"
)

// SnapshotFiles is a Snapshot as a checkpoint keeps it. Weights and Average
// have PyTorch's state_dict names; State names tensors by the arena and the
// parameter: "exp_avg.head.weight".
type SnapshotFiles struct {
	Weights *safetensors.File
	Average *safetensors.File // nil: the model keeps none
	State   *safetensors.File
}

// Files writes the snapshot's numbers as files, bit for bit, with the names of
// the classes. The counters and the seed are not among them.
func (t *Snapshot) Files(m *Model) SnapshotFiles {
	f := SnapshotFiles{Weights: m.WeightsFile(t.params, t.classes)}
	if t.average != nil {
		f.Average = m.WeightsFile(t.average, t.classes)
	}
	names := m.statePrefixes()
	f.State = m.scatter(t.state[:len(names)], names...)
	return f
}

// NewSnapshot is the snapshot of a model that Files wrote, with its seed and
// counters. If the model keeps an average and the files have none, it begins
// with the parameters. The error lists all tensors that are missing, too many or of
// another shape.
func NewSnapshot(m *Model, f SnapshotFiles, seed uint64, updates, micro int) (*Snapshot, error) {
	if updates < 0 || micro < updates {
		return nil, fmt.Errorf("%d updates of %d micro-batches", updates, micro)
	}
	t := &Snapshot{seed: seed, updates: updates, micro: micro}
	var err error
	if t.params, err = m.ParamsOf(f.Weights); err != nil {
		return nil, fmt.Errorf("weights: %w", err)
	}
	switch {
	case m.Train.EMA.Decay == 0:
	case f.Average == nil:
		t.average = slices.Clone(t.params) // as if it began here
	default:
		if t.average, err = m.ParamsOf(f.Average); err != nil {
			return nil, fmt.Errorf("average: %w", err)
		}
	}
	if t.classes, err = m.ClassesOf(f.Weights); err != nil {
		return nil, fmt.Errorf("weights: %w", err)
	}
	state, err := m.gather(f.State, m.statePrefixes()...)
	if err != nil {
		return nil, fmt.Errorf("optimizer state: %w", err)
	}
	copy(t.state[:], state)
	return t, nil
}

// Counters are the seed, the updates made, and the passes forward and backward.
func (t *Snapshot) Counters() (seed uint64, updates, micro int) { return t.seed, t.updates, t.micro }

// statePrefixes are the beginnings of the names of optimizer state.
func (m *Model) statePrefixes() []string {
	names := make([]string, len(m.StateNames))
	for i, n := range m.StateNames {
		names[i] = n + "."
	}
	return names
}
