package golden

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/vitgen/vitgen/runtime/safetensors"
)

// Write puts g at path, whole or not at all, in a form that Load(path, m)
// accepts; inputs as F32 (or not at all, where g.Formula is set), everything
// else as F64.
func Write(path string, g *Golden, m Model) error {
	e := encoder{model: m, file: &safetensors.File{Metadata: metadata(g)}}
	e.inputs(g)
	e.outputs(g)
	if e.err != nil {
		return fmt.Errorf("%s: golden: %w", path, e.err)
	}
	slices.SortFunc(e.file.Tensors, func(a, b safetensors.Tensor) int { return cmp.Compare(a.Name, b.Name) })
	if _, err := decode(path, e.file, m); err != nil {
		return err
	}
	return safetensors.Write(path, e.file)
}

type encoder struct {
	model Model
	file  *safetensors.File
	err   error // the first
}

// fits reports whether n elements fill the shape, and keeps an error if not.
func (e *encoder) fits(name string, n int, shape []int) bool {
	if want := (ParamInfo{Shape: shape}).Elems(); n != want && e.err == nil {
		e.err = fmt.Errorf("tensor %q: %d elements for shape %v", name, n, shape)
	}
	return e.err == nil
}

func (e *encoder) f32(name string, v []float32, shape ...int) {
	if e.fits(name, len(v), shape) {
		e.file.Tensors = append(e.file.Tensors, safetensors.FromFloat32s(name, shape, v))
	}
}

func (e *encoder) f64(name string, v []float64, shape ...int) {
	if e.fits(name, len(v), shape) {
		e.file.Tensors = append(e.file.Tensors, safetensors.FromFloat64s(name, shape, v))
	}
}

func (e *encoder) scalar(name string, v *float64) {
	if v != nil {
		e.f64(name, []float64{*v})
	}
}

func (e *encoder) inputs(g *Golden) {
	if g.Formula != nil {
		return
	}
	e.f32("image", g.Image, g.Batch, e.model.Image[0], e.model.Image[1], e.model.Image[2])
	if g.Label != nil && e.fits("label", len(g.Label), []int{g.Batch}) {
		e.file.Tensors = append(e.file.Tensors, safetensors.FromInt64s("label", []int{g.Batch}, g.Label))
	}
	for _, p := range e.model.Params {
		e.f32("param."+p.Name, g.Params[p.Name], p.Shape...)
	}
}

func (e *encoder) outputs(g *Golden) {
	if g.Logits != nil {
		e.f64("logits", g.Logits, g.Batch, e.model.Classes)
	}
	e.scalar("loss", g.Loss)
	e.part("grad", g.Grads)
	for i, s := range g.Steps {
		e.scalar(stepLoss(i+1), s.Loss)
		e.part(stepParams(i+1), s.Params)
	}
}

func (e *encoder) part(part string, all map[string]Expected) {
	if all == nil {
		return
	}
	for _, p := range e.model.Params {
		x := all[p.Name]
		if x.Sample != nil {
			e.f64(normOf(part, p.Name), []float64{x.Norm})
			e.f64(sampleOf(part, p.Name), x.Sample, len(x.Sample))
			continue
		}
		e.f64(whole(part, p.Name), x.Whole, p.Shape...)
	}
}

func metadata(g *Golden) map[string]string {
	m := map[string]string{"vitgen.golden": "1"}
	optional := func(key, value string, present bool) {
		if present {
			m[key] = value
		}
	}
	optional("torch", g.Torch, g.Torch != "")
	optional("spec_sha256", g.SpecSHA256, g.SpecSHA256 != "")
	optional("tolerance", text(g.Tolerances), len(g.Tolerances) > 0)
	for precision, tolerances := range g.Coarse {
		optional("tolerance."+precision, text(tolerances), len(tolerances) > 0)
	}
	optional("vitgen.dropout", "on", g.Dropout)
	optional("vitgen.seed", strconv.FormatUint(g.Seed, 10), g.Dropout)
	if g.Formula != nil {
		pairs := map[string][2]float64{}
		for name, f := range g.Formula {
			pairs[name] = [2]float64{f.Scale, f.Offset}
		}
		m["formula"] = text(pairs)
		m["batch"] = strconv.Itoa(g.Batch)
	}
	return m
}

// text is a JSON object with sorted keys.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil { // only a NaN or an infinity in it
		panic("BUG: golden: metadata does not encode: " + err.Error())
	}
	return string(b)
}
