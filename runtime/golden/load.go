package golden

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/vitgen/vitgen/runtime/formula"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// maxFormulaImage bounds the image elements a formula may ask for, since no
// file size does.
const maxFormulaImage = 1 << 24

// maxReported is how many faults one error lists.
const maxReported = 10

// Error lists what is wrong with a golden file.
type Error struct {
	Path   string
	Faults []string // each names its tensor or metadata key
}

func (e *Error) Error() string {
	var b strings.Builder
	for i, f := range e.Faults {
		if i == maxReported {
			fmt.Fprintf(&b, "\n%s: golden: and %d more faults", e.Path, len(e.Faults)-i)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s: golden: %s", e.Path, f)
	}
	return b.String()
}

// Load reads the golden file at path and checks that it fits m. The error is
// the file system's, a *safetensors.Error, or an *Error.
func Load(path string, m Model) (*Golden, error) {
	file, err := safetensors.Read(path)
	if err != nil {
		return nil, err
	}
	return decode(path, file, m)
}

// reader takes a file apart; entries it never took are left over.
type reader struct {
	file   *safetensors.File
	model  Model
	taken  map[string]bool
	faults []string
}

func decode(path string, file *safetensors.File, m Model) (*Golden, error) {
	if m.Image[0] <= 0 || m.Image[1] <= 0 || m.Image[2] <= 0 || m.Classes <= 0 || len(m.Params) == 0 {
		panic(fmt.Sprintf("BUG: golden: incomplete model: image %v, %d classes, %d parameters", m.Image, m.Classes, len(m.Params)))
	}
	r := &reader{file: file, model: m, taken: map[string]bool{}}
	g := &Golden{Path: path}
	for _, p := range m.Params {
		g.order = append(g.order, p.Name)
	}
	r.metadata(g)
	if len(r.faults) == 0 { // of another kind of file, the tensors are no news
		if g.Formula == nil {
			r.inputs(g)
		} else {
			r.computed(g)
		}
		r.outputs(g)
		r.leftOver()
		r.tolerances(g)
	}
	if len(r.faults) > 0 {
		return nil, &Error{Path: path, Faults: r.faults}
	}
	return g, nil
}

func (r *reader) fault(format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// take finds an entry and counts it as known; nil if the file lacks it.
func (r *reader) take(name string) *safetensors.Tensor {
	r.taken[name] = true
	return r.file.Tensor(name)
}

// shaped reports whether t has the shape; a dimension of -1 fits any but 0.
func (r *reader) shaped(t *safetensors.Tensor, shape ...int) bool {
	ok := slices.EqualFunc(t.Shape, shape, func(got, want int) bool {
		return got == want || want == -1 && got > 0
	})
	if !ok {
		r.fault("tensor %q: shape %v, this model's is %s", t.Name, t.Shape, strings.ReplaceAll(fmt.Sprint(shape), "-1", "?"))
	}
	return ok
}

// floats reads an F32 or F64 tensor of finite numbers; nil after a fault or
// for a nil tensor.
func (r *reader) floats(t *safetensors.Tensor, shape ...int) []float64 {
	if t == nil || !r.shaped(t, shape...) {
		return nil
	}
	if t.DType != safetensors.F32 && t.DType != safetensors.F64 {
		r.fault("tensor %q: dtype %s, must be F32 or F64", t.Name, t.DType)
		return nil
	}
	v := t.Float64s()
	for i, x := range v {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			r.fault("tensor %q: element %d is %v", t.Name, i, x)
			return nil
		}
	}
	return v
}

// input is floats for a tensor that the model computes with: float32, required.
func (r *reader) input(name string, shape ...int) []float32 {
	t := r.take(name)
	if t == nil {
		r.fault("tensor %q is missing", name)
		return nil
	}
	wide := r.floats(t, shape...)
	out := make([]float32, len(wide))
	for i, v := range wide {
		if out[i] = float32(v); float64(out[i]) != v {
			r.fault("tensor %q: element %d, %v, is not a float32: the model would compute with another number", name, i, v)
			return nil
		}
	}
	return out
}

// scalar reads an optional number.
func (r *reader) scalar(name string) *float64 {
	v := r.floats(r.take(name))
	if v == nil {
		return nil
	}
	return &v[0]
}

func (r *reader) inputs(g *Golden) {
	c, h, w := r.model.Image[0], r.model.Image[1], r.model.Image[2]
	if g.Image = r.input("image", -1, c, h, w); len(g.Image) > 0 {
		g.Batch = len(g.Image) / (c * h * w)
	}
	if t := r.take("label"); t != nil && g.Batch > 0 && r.shaped(t, g.Batch) {
		if t.DType != safetensors.I64 {
			r.fault("tensor %q: dtype %s, must be I64", t.Name, t.DType)
			return
		}
		g.Label = t.Int64s()
		for i, l := range g.Label {
			if l < 0 || l >= int64(r.model.Classes) {
				r.fault("tensor %q: element %d is %d, outside the model's %d classes", t.Name, i, l, r.model.Classes)
			}
		}
	}
	g.Params = map[string][]float32{}
	for _, p := range r.model.Params {
		g.Params[p.Name] = r.input("param."+p.Name, p.Shape...)
	}
}

// computed makes the inputs by formula.
func (r *reader) computed(g *Golden) {
	pixels := r.model.Image[0] * r.model.Image[1] * r.model.Image[2]
	if g.Batch > maxFormulaImage/pixels {
		r.fault("metadata \"batch\": %d images of %d values are too many", g.Batch, pixels)
		return
	}
	left := map[string]bool{}
	for name := range g.Formula {
		left[name] = true
	}
	fill := func(name string, n int) []float32 {
		f, ok := g.Formula[name]
		if !ok {
			r.fault("metadata \"formula\": no entry for %q", name)
			return nil
		}
		delete(left, name)
		out := make([]float32, n)
		formula.Fill(out, name, f.Scale, f.Offset)
		return out
	}
	g.Image = fill("image", g.Batch*pixels)
	g.Label = formula.Labels(g.Batch, r.model.Classes)
	g.Params = map[string][]float32{}
	for _, p := range r.model.Params {
		g.Params[p.Name] = fill(p.Name, p.Elems())
	}
	for _, name := range sortedKeys(left) {
		r.fault("metadata \"formula\": %q is no parameter of this model", name)
	}
}

func (r *reader) outputs(g *Golden) {
	if t := r.take("logits"); t != nil && g.Batch > 0 {
		g.Logits = r.floats(t, g.Batch, r.model.Classes)
	}
	g.Loss = r.scalar("loss")
	g.Grads = r.part("grad")
	for k := 1; ; k++ {
		s := Step{Loss: r.scalar(stepLoss(k)), Params: r.part(stepParams(k))}
		if s.Loss == nil && s.Params == nil {
			break
		}
		g.Steps = append(g.Steps, s)
	}
	if g.Label == nil && len(r.faults) == 0 && (g.Loss != nil || g.Grads != nil || g.Steps != nil) {
		r.fault("tensor \"label\" is missing: a loss, gradients and steps need it")
	}
}

// part reads <part>.<name>, or its norm and sample, for every parameter: all
// of them or none.
func (r *reader) part(part string) map[string]Expected {
	out := map[string]Expected{}
	var missing []string
	for _, p := range r.model.Params {
		all, nrm, smp := r.take(whole(part, p.Name)), r.take(normOf(part, p.Name)), r.take(sampleOf(part, p.Name))
		switch {
		case all != nil && (nrm != nil || smp != nil):
			r.fault("tensor %q: the file has it whole and by norm or sample", all.Name)
		case all != nil:
			out[p.Name] = Expected{Whole: r.floats(all, p.Shape...)}
		case nrm != nil && smp != nil:
			e := Expected{Sample: r.floats(smp, -1)}
			if v := r.floats(nrm); v != nil {
				e.Norm = v[0]
			}
			out[p.Name] = e
		case nrm != nil:
			missing = append(missing, sampleOf(part, p.Name))
		case smp != nil:
			missing = append(missing, normOf(part, p.Name))
		default:
			missing = append(missing, whole(part, p.Name))
		}
	}
	if len(missing) == len(r.model.Params) && len(out) == 0 && !r.partly(part) {
		return nil
	}
	for _, name := range missing {
		r.fault("tensor %q is missing, though others of its kind are there", name)
	}
	return out
}

// partly reports whether the file has any norm or sample of the part.
func (r *reader) partly(part string) bool {
	return slices.ContainsFunc(r.file.Tensors, func(t safetensors.Tensor) bool {
		return strings.HasPrefix(t.Name, part+"_norm.") || strings.HasPrefix(t.Name, part+"_sample.")
	})
}

// leftOver faults every entry that nothing took.
func (r *reader) leftOver() {
	for i := range r.file.Tensors {
		name := r.file.Tensors[i].Name
		switch {
		case r.taken[name]:
		case strings.HasPrefix(name, "step"):
			r.fault("tensor %q belongs to no step: steps count from 1 without gaps and hold \"loss\" and \"param.<name>\" of this model's parameters", name)
		case strings.HasPrefix(name, "param.") || strings.HasPrefix(name, "grad"):
			r.fault("tensor %q is left over: this model has no such parameter%s", name, r.because(name))
		default:
			r.fault("tensor %q is not an entry of a golden file", name)
		}
	}
}

// because explains a left-over input of a golden whose inputs are computed.
func (r *reader) because(name string) string {
	if _, ok := r.file.Metadata["formula"]; ok && strings.HasPrefix(name, "param.") {
		return ", or its formula stands in for it"
	}
	return ""
}
