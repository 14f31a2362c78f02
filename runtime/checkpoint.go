package runtime

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/vitgen/vitgen/runtime/safetensors"
)

// Load replaces the parameters by those of a safetensors file under PyTorch's
// state_dict names (F32, or any other floating type, converted) and starts
// training anew from them: their average becomes the same, optimizer state and
// counters become zero, and the names of the classes are the file's. Unless
// every parameter is there in its shape and nothing else is, one error lists all
// differences and nothing is changed.
func (s *Session) Load(path string) (err error) {
	defer recovered("load", &err)
	f, err := safetensors.Read(path)
	if err != nil {
		return err
	}
	if err := s.lock(); err != nil {
		return err
	}
	defer s.mu.Unlock()
	arena, err := s.model.arenaFrom(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	names, err := s.model.ClassesOf(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := s.dev.Write(Params.At(0), asBytes(arena)); err != nil {
		return err
	}
	s.classes = names
	return s.restart()
}

// arenaFrom gathers the parameter arena from a file's tensors.
func (m *Model) arenaFrom(f *safetensors.File) ([]float32, error) {
	arena := make([]float32, m.ParamElems)
	used := map[string]bool{}
	var wrong []string
	for i := range m.Params {
		p := &m.Params[i]
		used[p.Name] = true
		switch t := f.Tensor(p.Name); {
		case t == nil:
			wrong = append(wrong, fmt.Sprintf("missing %s %v", p.Name, p.Shape))
		case !slices.Equal(t.Shape, p.Shape):
			wrong = append(wrong, fmt.Sprintf("%s has shape %v, the model wants %v", p.Name, t.Shape, p.Shape))
		case !t.DType.IsFloat():
			wrong = append(wrong, fmt.Sprintf("%s is %s, not a floating type", p.Name, t.DType))
		default:
			copy(arena[p.Offset:], t.Float32s())
		}
	}
	var extra []string
	for i := range f.Tensors {
		if t := &f.Tensors[i]; !used[t.Name] {
			extra = append(extra, fmt.Sprintf("unknown %s %v", t.Name, t.Shape))
		}
	}
	sort.Strings(extra)
	wrong = append(wrong, extra...)
	if len(wrong) > 0 {
		return nil, fmt.Errorf("the tensors do not fit model %s (%s):\n  %s", m.Name, m.SpecFile, strings.Join(wrong, "\n  "))
	}
	return arena, nil
}

// Save writes the parameters as a safetensors file under PyTorch's state_dict
// names, with the names of the classes if there are any, replacing the file at
// once or not at all.
func (s *Session) Save(path string) (err error) {
	defer recovered("save", &err)
	if err := s.lock(); err != nil {
		return err
	}
	defer s.mu.Unlock()
	arena := make([]float32, s.model.ParamElems)
	if err := s.dev.Read(asBytes(arena), Params.At(0)); err != nil {
		return err
	}
	f := &safetensors.File{Metadata: map[string]string{
		"format":           "pt",
		"vitgen.model":     s.model.Name,
		"vitgen.image":     fmt.Sprintf("%d,%d,%d", s.model.Image[0], s.model.Image[1], s.model.Image[2]),
		"vitgen.spec_hash": s.model.SpecHash,
		"vitgen.version":   s.model.Generator,
	}}
	if len(s.classes) > 0 {
		text, err := json.Marshal(s.classes)
		if err != nil {
			return err
		}
		f.Metadata[classesKey] = string(text)
	}
	for i := range s.model.Params {
		p := &s.model.Params[i]
		f.Tensors = append(f.Tensors, safetensors.FromFloat32s(p.Name, p.Shape, arena[p.Offset:p.Offset+p.Elems()]))
	}
	return safetensors.Write(path, f)
}
