// Package transfer starts a model from weights that are not quite its own:
// under other names, for another image size, with another head, or with query,
// key and value projections in one matrix instead of three. It says of every
// tensor what became of it. Weights that fit as they are need only
// runtime.Session.Load.
package transfer

import (
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// Options say what may differ between a file and the model. The zero value
// allows what loses nothing: another floating type, dimensions of 1 more or
// less, joint or separate projections of attention, and position embeddings
// for another number of patches. Error messages name each by its flag of the
// train command.
type Options struct {
	// Rename is applied to every tensor's name, in order (--map).
	Rename []Rename
	// ResetHead leaves the layer that makes the logits at its initial values,
	// whatever the file has for it (--reset-head).
	ResetHead bool
	// Partial leaves parameters that the file lacks at their initial values,
	// and tensors that the model lacks unused (--partial).
	Partial bool
	// Grid is the rows and columns of patches that the file's position
	// embeddings are for (--init-grid). 0, 0: as many as the image size in the
	// file's metadata makes, or a square.
	Grid [2]int
}

// Init replaces the session's parameters by those of a safetensors file (F32,
// or any other floating type, converted) as far as o allows, and starts
// training anew from them as Session.Load does. Parameters that are reset or
// missing keep the values that they have in the session. The names of the
// classes are the file's if its head is taken.
//
// Differences that o does not allow are one error that lists all of them, with
// the flag that would allow each, and change nothing.
func Init(s *runtime.Session, path string, o Options) (*Report, error) {
	f, sum, err := safetensors.ReadSum(path)
	if err != nil {
		return nil, err
	}
	m := s.Model()
	values, report, err := match(m, f, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var names []string
	if report.headTaken(m) {
		if names, err = m.ClassesOf(f); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	report.File, report.SHA256 = path, hex.EncodeToString(sum[:])
	for i := range m.Params {
		if v, ok := values[m.Params[i].Name]; ok {
			if err := s.SetParam(m.Params[i].Name, v); err != nil {
				return nil, err
			}
		}
	}
	if err := s.SetClasses(names); err != nil {
		return nil, err
	}
	return report, s.Restart(s.Seed())
}

// headTaken reports whether the file's logits are the model's.
func (r *Report) headTaken(m *runtime.Model) bool {
	head := headOf(m)
	for i := range r.Params {
		if slices.Contains(head, r.Params[i].Name) && r.Params[i].How != Taken {
			return false
		}
	}
	return true
}
