package golden

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime/safetensors"
)

// encode returns the toy golden's file after a change.
func encode(t testing.TB, g *Golden, change func(*safetensors.File)) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x")
	if err := Write(path, g, toy); err != nil {
		t.Fatal(err)
	}
	file, err := safetensors.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	change(file)
	var b bytes.Buffer
	if err := safetensors.Encode(&b, file); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRefuse: what does not fit is refused by file, tensor and reason.
func TestRefuse(t *testing.T) {
	meta := func(key, value string) func(*safetensors.File) {
		return func(f *safetensors.File) { f.Metadata[key] = value }
	}
	drop := func(names ...string) func(*safetensors.File) {
		return func(f *safetensors.File) {
			f.Tensors = slices.DeleteFunc(f.Tensors, func(x safetensors.Tensor) bool { return slices.Contains(names, x.Name) })
		}
	}
	add := func(x safetensors.Tensor) func(*safetensors.File) {
		return func(f *safetensors.File) {
			drop(x.Name)(f)
			f.Tensors = append(f.Tensors, x)
		}
	}
	f64 := safetensors.FromFloat64s
	tests := []struct {
		name   string
		change func(*safetensors.File)
		want   string
	}{
		{"not a golden", func(f *safetensors.File) { f.Metadata = nil }, "not a golden file"},
		{"other version", meta("vitgen.golden", "2"), `"vitgen.golden" is "2"`},
		{"other spec", meta("spec_sha256", "def"), "made for spec def, this is spec abc"},
		{"unknown metadata", meta("vitgen.x", ""), `metadata "vitgen.x": unknown key`},
		{"bad tolerance", meta("tolerance", `{"loss": 2}`), `metadata "tolerance": "loss": 2 is no tolerance`},
		{"twice tolerance", meta("tolerance", `{"loss": 0.1, "loss": 0.2}`), "duplicate or misplaced loss"},
		{"tolerance text", meta("tolerance", `{"loss": 0.1} x`), "text after"},
		{"tolerance list", meta("tolerance", `[]`), "not a JSON object"},
		{"idle tolerance", meta("tolerance", `{"grad.v.": 0.1}`), `"grad.v." is neither an entry`},
		{"seed alone", meta("vitgen.seed", "1"), "go together"},
		{"dropout alone", meta("vitgen.dropout", "on"), "go together"},
		{"dropout word", meta("vitgen.dropout", "yes"), `"yes" is neither`},
		{"bad seed", meta("vitgen.seed", "-1"), `metadata "vitgen.seed": strconv`},
		{"batch alone", meta("batch", "2"), `metadata "batch" is for goldens with "formula"`},
		{"formula without batch", meta("formula", "{}"), `needs "batch"`},
		{"bad formula", meta("formula", `{"image": [1]}`), `"image": [1] is not [scale, offset]`},
		{"huge formula", meta("formula", `{"image": [1e39, 0]}`), "within float32"},
		{"no image", drop("image"), `tensor "image" is missing`},
		{"no parameter", drop("param.w.bias"), `tensor "param.w.bias" is missing`},
		{"no label", drop("label"), `tensor "label" is missing`},
		{"no gradient", drop("grad.w.bias"), `tensor "grad.w.bias" is missing`},
		{"no norm", drop("grad_norm.w.weight", "grad.w.bias"), `tensor "grad_norm.w.weight" is missing`},
		{"no sample", drop("step2.param_sample.w.weight"), `tensor "step2.param_sample.w.weight" is missing`},
		{"step gap", drop("step1.loss", "step1.param.w.bias", "step1.param_norm.w.weight", "step1.param_sample.w.weight"), `tensor "step2.loss" belongs to no step`},
		{"both forms", add(f64("grad.w.weight", []int{3, 4}, make([]float64, 12))), `tensor "grad.w.weight": the file has it whole and by`},
		{"left-over parameter", add(f64("param.v", []int{1}, []float64{1})), `tensor "param.v" is left over: this model has no such parameter`},
		{"left-over gradient", add(f64("grad.v", []int{1}, []float64{1})), `tensor "grad.v" is left over`},
		{"left-over step", add(f64("step1.param.v", []int{1}, []float64{1})), `tensor "step1.param.v" belongs to no step`},
		{"other name", add(f64("logit", []int{1}, []float64{1})), `tensor "logit" is not an entry of a golden file`},
		{"parameter shape", add(f64("param.w.bias", []int{4}, make([]float64, 4))), `tensor "param.w.bias": shape [4], this model's is [3]`},
		{"image shape", add(f64("image", []int{2, 4}, make([]float64, 8))), `tensor "image": shape [2 4], this model's is [? 1 2 2]`},
		{"empty batch", add(f64("image", []int{0, 1, 2, 2}, nil)), `tensor "image": shape [0 1 2 2]`},
		{"logits shape", add(f64("logits", []int{6}, make([]float64, 6))), `tensor "logits": shape [6], this model's is [2 3]`},
		{"loss shape", add(f64("loss", []int{1}, []float64{1})), `tensor "loss": shape [1], this model's is []`},
		{"wide parameter", add(f64("param.w.bias", []int{3}, []float64{1, 0.1, 2})), `tensor "param.w.bias": element 1, 0.1, is not a float32`},
		{"NaN", add(f64("grad.w.bias", []int{3}, []float64{1, 0.1, math.NaN()})), `tensor "grad.w.bias": element 2 is NaN`},
		{"integer loss", add(safetensors.FromInt64s("loss", nil, []int64{1})), `tensor "loss": dtype I64`},
		{"float label", add(f64("label", []int{2}, []float64{0, 1})), `tensor "label": dtype F64, must be I64`},
		{"label range", add(safetensors.FromInt64s("label", []int{2}, []int64{0, 3})), `tensor "label": element 1 is 3, outside the model's 3 classes`},
		{"label shape", add(safetensors.FromInt64s("label", []int{3}, []int64{0, 1, 1})), `tensor "label": shape [3]`},
	}
	m := toy
	m.SpecSHA256 = "abc"
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bad.safetensors")
			if err := os.WriteFile(path, encode(t, toyGolden(), tt.change), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load(path, m)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), path+": ") {
				t.Errorf("error %v\nwant %s and %s", err, path, tt.want)
			}
		})
	}
}

// TestRefuseFormula: the same for goldens whose inputs are computed.
func TestRefuseFormula(t *testing.T) {
	g := toyGolden()
	g.Formula = map[string]Formula{"image": {1, 0}, "w.weight": {1, 0}, "w.bias": {1, 0}}
	meta := func(key, value string) func(*safetensors.File) {
		return func(f *safetensors.File) { f.Metadata[key] = value }
	}
	tests := []struct {
		change func(*safetensors.File)
		want   string
	}{
		{meta("formula", `{"image": [1, 0], "w.weight": [1, 0]}`), `no entry for "w.bias"`},
		{meta("formula", `{"image": [1, 0], "w.weight": [1, 0], "w.bias": [1, 0], "v": [1, 0]}`), `"v" is no parameter of this model`},
		{meta("batch", "1000000000"), `metadata "batch": 1000000000 images of 4 values are too many`},
		{meta("batch", "0"), `metadata "batch": 0 is no batch size`},
		{meta("batch", "2.5"), `metadata "batch": strconv`},
		{func(f *safetensors.File) {
			f.Tensors = append(f.Tensors, safetensors.FromFloat32s("param.w.bias", []int{3}, make([]float32, 3)))
		}, "or its formula stands in for it"},
	}
	for _, tt := range tests {
		file, err := safetensors.Parse(encode(t, g, tt.change))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode("f", file, toy); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want %s", err, tt.want)
		}
	}
}

// TestManyFaults: a golden of another model lists its faults up to a bound.
func TestManyFaults(t *testing.T) {
	for path, m := range committed(t) {
		m.Params = []ParamInfo{{"other", []int{1}}}
		_, err := Load(path, m)
		if err == nil || strings.Count(err.Error(), "\n") != maxReported || !strings.Contains(err.Error(), "more faults") {
			t.Errorf("%s against another model: %v", path, err)
		}
	}
}

// TestTruncated: no prefix of a golden loads, and the error names the file.
func TestTruncated(t *testing.T) {
	data := encode(t, toyGolden(), func(*safetensors.File) {})
	path := filepath.Join(t.TempDir(), "cut.safetensors")
	for n := range data {
		if err := os.WriteFile(path, data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path, toy); err == nil || !strings.HasPrefix(err.Error(), path+": ") {
			t.Fatalf("%d of %d bytes: %v", n, len(data), err)
		}
	}
}

// TestWriteRefuses: a golden that Load would refuse is not written.
func TestWriteRefuses(t *testing.T) {
	tests := map[string]func(*Golden){
		`tensor "param.w.bias": 2 elements for shape [3]`: func(g *Golden) { g.Params["w.bias"] = []float32{1, 2} },
		`tensor "label": 1 elements`:                      func(g *Golden) { g.Label = g.Label[:1] },
		`tensor "logits": element 0 is NaN`:               func(g *Golden) { g.Logits[0] = math.NaN() },
		`"grad.v" is neither an entry`:                    func(g *Golden) { g.Tolerances = map[string]float64{"grad.v": 0.1} },
		`tensor "grad.w.bias": 0 elements`:                func(g *Golden) { delete(g.Grads, "w.bias") },
	}
	for want, change := range tests {
		g := toyGolden()
		change(g)
		dir := t.TempDir()
		err := Write(filepath.Join(dir, "x"), g, toy)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("error %v, want %s", err, want)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("left %s behind", left[0].Name())
		}
	}
}

// FuzzLoad: no bytes make Load panic, accept nonsense or lose the file name. With
// inputs of kilobytes, run it with -fuzzminimizetime 10x.
func FuzzLoad(f *testing.F) {
	g := toyGolden()
	f.Add(encode(f, g, func(*safetensors.File) {}))
	g.Formula = map[string]Formula{"image": {1, 0}, "w.weight": {1, 0}, "w.bias": {1, 0}}
	f.Add(encode(f, g, func(*safetensors.File) {}))
	tiny, _ := json.Marshal(map[string]any{"__metadata__": map[string]string{"vitgen.golden": "1", "tolerance": "{}"}})
	f.Add(append(append([]byte{byte(len(tiny)), 0, 0, 0, 0, 0, 0, 0}, tiny...), 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := safetensors.Parse(data)
		if err != nil {
			return
		}
		g, err := decode("fuzz", file, toy)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "fuzz: golden: ") {
				t.Fatalf("error without file: %v", err)
			}
			return
		}
		if len(g.Image) != 4*g.Batch || len(g.Params["w.bias"]) != 3 {
			t.Fatalf("accepted with %d image values for batch %d", len(g.Image), g.Batch)
		}
		for _, row := range g.NewChecker("fp32").Rows() {
			if row.OK {
				t.Fatalf("%s passes though nothing was computed", row.Name)
			}
		}
	})
}
