package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// Stored is a checkpoint on disk whose state has been read and whose tensors
// have been looked at, but not compared with any model.
type Stored struct {
	Dir    string
	State  State
	Losses []float64
	files  runtime.SnapshotFiles
}

// Read reads the checkpoint in a directory. Errors name the file and what is
// wrong with it.
func Read(dir string) (*Stored, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is a file; a checkpoint is a directory such as runs/x/checkpoints/000920", dir)
	}
	c := &Stored{Dir: dir}
	state, err := readPart(dir, StateFile)
	if err != nil {
		return nil, err
	}
	c.files.State = state
	if err := c.takeState(); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, StateFile), err)
	}
	if c.files.Weights, err = readPart(dir, WeightsFile); err != nil {
		return nil, err
	}
	if c.State.Checksums.Average != nil {
		if c.files.Average, err = readPart(dir, AverageFile); err != nil {
			return nil, err
		}
	}
	parts := [3]part{{WeightsFile, c.files.Weights}, {AverageFile, c.files.Average}, {StateFile, withLosses(state, c.Losses)}}
	got, want := checksums(parts), c.State.Checksums
	average := want.Average != nil && *got.Average != *want.Average
	for i, differ := range []bool{got.Weights != want.Weights, average, got.State != want.State} {
		if differ {
			return nil, fmt.Errorf("%s: its checksum is not the one in %s: it was changed, or damaged on the disk",
				filepath.Join(dir, parts[i].name), StateFile)
		}
	}
	return c, nil
}

// readPart reads one file of a checkpoint.
func readPart(dir, name string) (*safetensors.File, error) {
	f, err := safetensors.Read(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no %s: it is not a checkpoint, or not all of one", dir, name)
	}
	return f, err
}

// takeState takes out of the state file what is not optimizer state.
func (c *Stored) takeState() error {
	f := c.files.State
	text, ok := f.Metadata[stateKey]
	if !ok {
		return fmt.Errorf("its metadata has no %s: no trainer of vitgen wrote it", stateKey)
	}
	if sum := f.Metadata[stateSumKey]; sum != textSum(text) {
		return fmt.Errorf("the checksum of %s is %s, it should be %s: it was changed, or damaged on the disk", stateKey, textSum(text), sum)
	}
	state, err := parseState(text)
	if err != nil {
		return err
	}
	losses := f.Tensor(lossesName)
	switch {
	case losses == nil || losses.DType != safetensors.F64:
		return fmt.Errorf("it has no tensor %q of F64", lossesName)
	case len(losses.Shape) != 1 || losses.Len() > min(KeptLosses, state.Updates):
		return fmt.Errorf("%d updates have losses of shape %v", state.Updates, losses.Shape)
	}
	c.State, c.Losses = *state, losses.Float64s()
	f.Tensors = slices.DeleteFunc(f.Tensors, func(t safetensors.Tensor) bool { return t.Name == lossesName })
	return nil
}

// withLosses is a state file as it was written.
func withLosses(state *safetensors.File, losses []float64) *safetensors.File {
	tensors := append(slices.Clip(state.Tensors), safetensors.FromFloat64s(lossesName, []int{len(losses)}, losses))
	return &safetensors.File{Tensors: tensors}
}

// Checkpoint makes the checkpoint one of a model; the error lists the tensors
// that do not fit it.
func (c *Stored) Checkpoint(m *runtime.Model) (*Checkpoint, error) {
	s := &c.State
	snapshot, err := runtime.NewSnapshot(m, c.files, s.Seed, s.Updates, s.Micro)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Dir, err)
	}
	return &Checkpoint{Snapshot: snapshot, State: c.State, Losses: c.Losses}, nil
}
