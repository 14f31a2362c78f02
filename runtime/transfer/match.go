package transfer

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// matcher finds where each parameter of a model comes from.
type matcher struct {
	model  *runtime.Model
	file   *safetensors.File
	o      Options
	byName map[string]*source
	head   []string // parameters of the layer that makes the logits
	values map[string][]float32
	report Report
	wrong  []string
	absent []*runtime.Param // parameters for which there is nothing
}

// match gives the values of every parameter that the file has, and what became
// of all of them.
func match(m *runtime.Model, f *safetensors.File, o Options) (map[string][]float32, *Report, error) {
	a := &matcher{model: m, file: f, o: o, head: headOf(m), values: map[string][]float32{}}
	var all []*source
	if all, a.byName, a.wrong = rename(f, o.Rename); a.byName == nil {
		return nil, nil, errors.New(a.wrong[0])
	}
	if o.ResetHead && len(a.head) == 0 {
		a.wrong = append(a.wrong, fmt.Sprintf("--reset-head: no linear layer of model %s has %d outputs", m.Name, m.Classes))
	}
	for i := range m.Params {
		a.param(&m.Params[i])
	}
	var left []*source
	for _, s := range all {
		switch {
		case s.used:
		case s.name == "":
			a.report.Unused = append(a.report.Unused, Unused{s.Name, "left out by --map"})
		default:
			left = append(left, s)
		}
	}
	a.unmatched(left)
	if o.Grid != [2]int{} && a.report.Count(Interpolated) == 0 {
		a.wrong = append(a.wrong, "--init-grid: there are no position embeddings to interpolate")
	}
	if len(a.wrong) > 0 {
		return nil, nil, fmt.Errorf("the tensors do not fit model %s (%s):\n  %s", m.Name, m.SpecFile, strings.Join(a.wrong, "\n  "))
	}
	return a.values, &a.report, nil
}

// headOf names the parameters of the last linear layer that has an output for
// each class; none if there is no such layer.
func headOf(m *runtime.Model) []string {
	for i := len(m.Params) - 1; i >= 0; i-- {
		p := &m.Params[i]
		if len(p.Shape) != 2 || p.Shape[0] != m.Classes {
			continue
		}
		names := []string{p.Name}
		if layer, ok := strings.CutSuffix(p.Name, ".weight"); ok {
			if bias, err := m.Param(layer + ".bias"); err == nil {
				names = append(names, bias.Name)
			}
		}
		return names
	}
	return nil
}

func (a *matcher) param(p *runtime.Param) {
	s := a.byName[p.Name]
	switch {
	case a.o.ResetHead && slices.Contains(a.head, p.Name):
		note := "initial values; the file has none"
		if s != nil {
			s.used = true
			note = fmt.Sprintf("initial values instead of the file's %v", s.Shape)
		}
		a.report.Params = append(a.report.Params, Param{Name: p.Name, How: Reset, Note: note})
	case s != nil:
		a.found(p, s)
	case a.join(p), a.split(p):
	default:
		a.absent = append(a.absent, p)
		a.report.Params = append(a.report.Params, Param{Name: p.Name, How: Missing, Note: "initial values"})
	}
}

// take notes where a parameter's values come from. Notes begin with the type,
// where it is not the model's.
func (a *matcher) take(p *runtime.Param, how How, v []float32, note string, from ...*source) {
	var names, notes []string
	for _, s := range from {
		s.used = true
		names = append(names, s.Name)
		if s.DType != safetensors.F32 && len(notes) == 0 {
			notes = append(notes, fmt.Sprintf("converted from %s", s.DType))
		}
	}
	if note != "" {
		notes = append(notes, note)
	}
	a.values[p.Name] = v
	a.report.Params = append(a.report.Params, Param{p.Name, how, names, strings.Join(notes, ", ")})
}

// found takes a tensor that has the parameter's name.
func (a *matcher) found(p *runtime.Param, s *source) {
	s.used = true
	to, positions := layoutOf(a.model, p)
	d := p.Shape[len(p.Shape)-1]
	switch {
	case !s.DType.IsFloat():
		a.wrong = append(a.wrong, fmt.Sprintf("%s is %s, not a floating type", called(s), s.DType))
	case positions && s.Len() > 0 && isTable(s.Shape, d):
		rows := s.Len() / d
		if rows == p.Shape[1] && a.o.Grid == [2]int{} && !a.otherGrid(rows, to) {
			a.take(p, Taken, s.Float32s(), reshaped(p, s), s)
			return
		}
		from, err := fileLayout(a.model, a.file, a.o.Grid, rows, to)
		if err != nil {
			a.wrong = append(a.wrong, fmt.Sprintf("%s has shape %v, the model wants %v: %v", called(s), s.Shape, p.Shape, err))
			return
		}
		a.take(p, Interpolated, resample(s.Float32s(), d, from, to), fmt.Sprintf("patches %v → %v", from, to), s)
	case slices.Equal(squeezed(s.Shape), squeezed(p.Shape)):
		a.take(p, Taken, s.Float32s(), reshaped(p, s), s)
	default:
		a.wrong = append(a.wrong, fmt.Sprintf("%s has shape %v, the model wants %v%s", called(s), s.Shape, p.Shape, a.hint(p, s)))
	}
}

// otherGrid reports whether the file says that its table of the right length
// is for patches in other rows and columns.
func (a *matcher) otherGrid(rows int, to layout) bool {
	from, err := fileLayout(a.model, a.file, [2]int{}, rows, to)
	_, stated := imageOf(a.file)
	return stated && err == nil && from != to
}

// hint says what would accept another shape.
func (a *matcher) hint(p *runtime.Param, s *source) string {
	switch {
	case slices.Contains(a.head, p.Name) && len(s.Shape) == len(p.Shape) && slices.Equal(s.Shape[1:], p.Shape[1:]):
		return fmt.Sprintf(", for %d classes: --reset-head starts the head anew", a.model.Classes)
	case len(p.Shape) == 3 && len(s.Shape) == 3 && p.Shape[1] > 1 && p.Shape[1] != s.Shape[1] && p.Shape[2] == s.Shape[2]:
		return ": not interpolated, as its rows are not the model's class tokens and patches"
	}
	return ""
}

// isTable reports whether a shape is [T, d], but for dimensions of 1.
func isTable(shape []int, d int) bool {
	return len(shape) >= 2 && shape[len(shape)-1] == d && len(squeezed(shape[:len(shape)-1])) <= 1
}

// squeezed is a shape without dimensions of 1.
func squeezed(shape []int) []int {
	return slices.DeleteFunc(slices.Clone(shape), func(d int) bool { return d == 1 })
}

func reshaped(p *runtime.Param, s *source) string {
	if slices.Equal(p.Shape, s.Shape) {
		return ""
	}
	return fmt.Sprintf("shape %v instead of %v", p.Shape, s.Shape)
}

// called is a tensor's name after renaming, with its own if that is another.
func called(s *source) string {
	if s.name == s.Name {
		return s.Name
	}
	return fmt.Sprintf("%s (%s in the file)", s.name, s.Name)
}

// The usual names of attention's projections, as the spec language gives them.
const joint = "qkv"

var separate = []string{"W_q", "W_k", "W_v"}

// cutLayer cuts blocks.0.attn.qkv.weight at a layer's name.
func cutLayer(name, layer string) (before, after string, ok bool) {
	for _, kind := range []string{".weight", ".bias"} {
		if before, ok := strings.CutSuffix(name, layer+kind); ok && (before == "" || strings.HasSuffix(before, ".")) {
			return before, kind, true
		}
	}
	return "", "", false
}

// join makes a joint projection of three.
func (a *matcher) join(p *runtime.Param) bool {
	before, after, ok := cutLayer(p.Name, joint)
	if !ok || p.Shape[0]%3 != 0 {
		return false
	}
	part := slices.Clone(p.Shape)
	part[0] /= 3
	var from []*source
	var v []float32
	for _, name := range separate {
		s := a.byName[before+name+after]
		if s == nil || !slices.Equal(s.Shape, part) || !s.DType.IsFloat() {
			return false
		}
		from, v = append(from, s), append(v, s.Float32s()...)
	}
	a.take(p, Joined, v, "", from...)
	return true
}

// split takes a part of a joint projection.
func (a *matcher) split(p *runtime.Param) bool {
	for i, name := range separate {
		before, after, ok := cutLayer(p.Name, name)
		if !ok {
			continue
		}
		s := a.byName[before+joint+after]
		whole := slices.Clone(p.Shape)
		whole[0] *= 3
		if s == nil || !slices.Equal(s.Shape, whole) || !s.DType.IsFloat() {
			return false
		}
		n := p.Elems()
		a.take(p, Split, s.Float32s()[i*n:(i+1)*n], fmt.Sprintf("rows %d … %d", i*p.Shape[0], (i+1)*p.Shape[0]-1), s)
		return true
	}
	return false
}

// unmatched are parameters that the file lacks and tensors that the model
// lacks: accepted if that is what was asked for, else wrong.
func (a *matcher) unmatched(left []*source) {
	if a.o.Partial {
		for _, s := range left {
			a.report.Unused = append(a.report.Unused, Unused{s.Name, "the model has no " + s.name})
		}
		return
	}
	for _, p := range a.absent {
		a.wrong = append(a.wrong, fmt.Sprintf("missing %s %v", p.Name, p.Shape))
	}
	for _, s := range left {
		a.wrong = append(a.wrong, fmt.Sprintf("unknown %s %v", called(s), s.Shape))
	}
	if rule := a.prefixRule(left); rule != "" {
		a.wrong = append(a.wrong, fmt.Sprintf("hint: the names differ in what they begin with: try --map '%s'", rule))
	}
	if len(a.absent)+len(left) > 0 {
		a.wrong = append(a.wrong, "hint: --map OLD=NEW renames, OLD= with a pattern for the whole name leaves out; --partial keeps initial values for what is missing and ignores what is unknown")
	}
}

// prefixRule is a rename that takes away or adds a prefix so that at least
// half of the absent parameters are found; "" if there is none.
func (a *matcher) prefixRule(left []*source) string {
	if len(a.absent) == 0 {
		return ""
	}
	names := map[string]bool{}
	for _, s := range left {
		names[s.name] = true
	}
	first := a.absent[0].Name
	for _, s := range left {
		var rule string
		var try func(param string) string // what the file would call it
		if prefix, ok := strings.CutSuffix(s.name, first); ok && prefix != "" {
			rule, try = "^"+escape(prefix)+"=", func(p string) string { return prefix + p }
		} else if prefix, ok := strings.CutSuffix(first, s.name); ok && prefix != "" && len(a.values) == 0 {
			// Which renames all there are, also those that have their place.
			rule, try = "^="+prefix, func(p string) string { return strings.TrimPrefix(p, prefix) }
		} else {
			continue
		}
		hits := 0
		for _, p := range a.absent {
			if names[try(p.Name)] {
				hits++
			}
		}
		if 2*hits >= len(a.absent) {
			return rule
		}
	}
	return ""
}

// escape writes a name as a pattern that matches it.
func escape(name string) string { return strings.ReplaceAll(name, ".", `\.`) }
