package runtime

import (
	"cmp"
	"fmt"
	"maps"
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
	arena, err := s.model.ParamsOf(f)
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

// ParamsOf gathers the parameters from a weights file, laid out as the region
// Params. Unless every parameter is there in its shape and nothing else is, one
// error lists all differences.
func (m *Model) ParamsOf(f *safetensors.File) ([]float32, error) {
	arenas, err := m.gather(f, "")
	if err != nil {
		return nil, err
	}
	return arenas[0], nil
}

// gather reads arenas that are laid out by parameter: one for each prefix, whose
// tensors are named by the prefix and the parameter. Together they must be all
// that the file has.
func (m *Model) gather(f *safetensors.File, prefixes ...string) ([][]float32, error) {
	arenas := make([][]float32, len(prefixes))
	used := map[string]bool{}
	var wrong []string
	for k, prefix := range prefixes {
		arenas[k] = make([]float32, m.ParamElems)
		for i := range m.Params {
			p := &m.Params[i]
			name := prefix + p.Name
			used[name] = true
			switch t := f.Tensor(name); {
			case t == nil:
				wrong = append(wrong, fmt.Sprintf("missing %s %v", name, p.Shape))
			case !slices.Equal(t.Shape, p.Shape):
				wrong = append(wrong, fmt.Sprintf("%s has shape %v, the model wants %v", name, t.Shape, p.Shape))
			case !t.DType.IsFloat():
				wrong = append(wrong, fmt.Sprintf("%s is %s, not a floating type", name, t.DType))
			default:
				copy(arenas[k][p.Offset:], t.Float32s())
			}
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
	return arenas, nil
}

// ImageKey is the metadata key under which weights files note the size of the
// model's images: channels, height and width, with commas between them.
const ImageKey = "vitgen.image"

// scatter is the other way round: the file with the tensors of the arenas.
func (m *Model) scatter(arenas [][]float32, prefixes ...string) *safetensors.File {
	f := &safetensors.File{Metadata: map[string]string{
		"format":           "pt",
		"vitgen.model":     m.Name,
		ImageKey:           fmt.Sprintf("%d,%d,%d", m.Image[0], m.Image[1], m.Image[2]),
		"vitgen.spec_hash": m.SpecHash,
		"vitgen.version":   m.Generator,
	}}
	for k, prefix := range prefixes {
		for i := range m.Params {
			p := &m.Params[i]
			f.Tensors = append(f.Tensors, safetensors.FromFloat32s(prefix+p.Name, p.Shape, arenas[k][p.Offset:p.Offset+p.Elems()]))
		}
	}
	slices.SortFunc(f.Tensors, func(a, b safetensors.Tensor) int { return cmp.Compare(a.Name, b.Name) })
	return f
}

// WeightsFile is the other way round: the file that Save writes of parameters
// laid out so, in float32; names are those of the classes, or nil.
func (m *Model) WeightsFile(arena []float32, names []string) *safetensors.File {
	f := m.scatter([][]float32{arena}, "")
	maps.Copy(f.Metadata, ClassesMetadata(names))
	return f
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
	return safetensors.Write(path, s.model.WeightsFile(arena, s.classes))
}
