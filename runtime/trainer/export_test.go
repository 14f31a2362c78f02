package trainer

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/internal/onnxpb"
	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/onnx"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// exportable is a model with an ONNX graph, and a weights file of its.
func exportable(t *testing.T) (m *runtime.Model, weights string) {
	t.Helper()
	m = digits(8, runtime.Train{Epochs: 1, Seed: 1})
	value := func(name string) (v onnxpb.Message) {
		v.String(onnxpb.ValueName, name)
		return v
	}
	var opset, graph, model onnxpb.Message
	opset.Int(onnxpb.OpsetVersion, 17)
	model.Bytes(onnxpb.ModelOpsetImport, opset)
	graph.Bytes(onnxpb.GraphInput, value("image"))
	graph.Bytes(onnxpb.GraphOutput, value("logits"))
	model.Bytes(onnxpb.ModelGraph, graph)
	m.ONNX = model
	params := make([]float32, m.ParamElems)
	for i := range params {
		params[i] = float32(i) / 7
	}
	weights = filepath.Join(t.TempDir(), "w.safetensors")
	if err := safetensors.Write(weights, m.WeightsFile(params, []string{"zero", "one"})); err != nil {
		t.Fatal(err)
	}
	return m, weights
}

func TestExport(t *testing.T) {
	m, weights := exportable(t)
	m.Data.Mean, m.Data.Std = []float64{0.1}, []float64{0.3}
	t.Chdir(t.TempDir())
	out := mustRun(t, m, "export", "--weights", weights, "--onnx", "m.onnx", "--safetensors", "half.safetensors", "--dtype", "f16")
	info, err := os.Stat("m.onnx")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"fake: 650 parameters of " + weights + "\n",
		fmt.Sprintf("m.onnx: %s bytes, ONNX with operator set 17, image [batch,1,8,8] to logits [batch,10]\n", comma(info.Size())),
		"divided by 255, less [0.1], over [0.3]",
		`InferenceSession("m.onnx")`, `model.run(["logits"], {"image": image})`,
		"half.safetensors: ", " bytes, safetensors in f16\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	whole, err := safetensors.Read(weights)
	if err != nil {
		t.Fatal(err)
	}
	half, err := safetensors.Read("half.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range whole.Tensors {
		h := half.Tensors[i]
		if h.Name != w.Name || h.DType != safetensors.F16 || !slices.Equal(h.Shape, w.Shape) {
			t.Errorf("%s %s%v of %s%v", h.Name, h.DType, h.Shape, w.Name, w.Shape)
		}
		for j, x := range w.Float64s() {
			if y := h.Float64s()[j]; math.Abs(y-x) > 0x1p-11*math.Abs(x) {
				t.Errorf("%s[%d] is %v, was %v", w.Name, j, y, x)
			}
		}
	}
	for _, f := range []*safetensors.File{whole, half} {
		if got := f.Metadata[runtime.ClassesKey]; got != `["zero","one"]` {
			t.Errorf("the classes are %s", got)
		}
	}
	model, err := os.ReadFile("m.onnx")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{string(onnxpb.Entry(runtime.ClassesKey, `["zero","one"]`)),
		"head.weight", string(whole.Tensor("head.weight").Data), "head.bias", string(whole.Tensor("head.bias").Data)} {
		if !strings.Contains(string(model), want) {
			t.Errorf("the ONNX file lacks %.20q…", want)
		}
	}
	if d, err := onnx.Describe(model); err != nil || d != (onnx.Info{Opset: 17, Input: "image", Output: "logits"}) {
		t.Errorf("%+v, %v", d, err)
	}
	// Half precision can be exported again, and float32 comes back bit for bit.
	mustRun(t, m, "export", "--weights", "half.safetensors", "--safetensors", "again.safetensors", "--dtype", "f16")
	mustRun(t, m, "export", "--weights", weights, "--safetensors", "copy.safetensors")
	for a, b := range map[string]string{"half.safetensors": "again.safetensors", weights: "copy.safetensors"} {
		x, err := os.ReadFile(a)
		y, err2 := os.ReadFile(b)
		if err != nil || err2 != nil || string(x) != string(y) {
			t.Errorf("%s and %s differ: %v, %v", a, b, err, err2)
		}
	}
}

func TestExportRefuses(t *testing.T) {
	m, weights := exportable(t)
	t.Chdir(t.TempDir())
	for _, dir := range []string{"empty", "a.dir"} {
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(weights, "link"); err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Read(weights)
	if err != nil {
		t.Fatal(err)
	}
	head := f.Tensor("head.bias")
	*head = safetensors.FromFloat32s("head.bias", []int{10}, []float32{0, 0, 0, 1e6, 0, 0, 0, 0, 0, 0})
	if err := safetensors.Write("large", f); err != nil {
		t.Fatal(err)
	}
	f.Tensors = slices.DeleteFunc(f.Tensors, func(t safetensors.Tensor) bool { return t.Name == "head.bias" })
	if err := safetensors.Write("incomplete", f); err != nil {
		t.Fatal(err)
	}
	old := *m
	old.ONNX = nil
	tests := []struct {
		name   string
		model  *runtime.Model
		args   []string
		status int
		want   string
	}{
		{"no weights", m, []string{"--onnx", "out"}, 2, "--weights FILE is missing"},
		{"nothing to write", m, []string{"--weights", weights}, 2, "say what to write"},
		{"type", m, []string{"--weights", weights, "--safetensors", "out", "--dtype", "int8"}, 2, "want f32, f16 or bf16"},
		{"type of ONNX", m, []string{"--weights", weights, "--onnx", "out", "--dtype", "f16"}, 2, "ONNX files hold f32"},
		{"one file twice", m, []string{"--weights", weights, "--onnx", "out", "--safetensors", "./out"}, 2, "are both out"},
		{"onto itself", m, []string{"--weights", weights, "--safetensors", "link"}, 2, "link is the file to export"},
		{"no file", m, []string{"--weights", "nowhere", "--onnx", "out"}, 1, "nowhere: no such file"},
		{"no run", m, []string{"--weights", "empty", "--onnx", "out"}, 1, "empty has no weights: a run has best.safetensors, a checkpoint weights.safetensors"},
		{"foreign weights", m, []string{"--weights", "incomplete", "--onnx", "out"}, 1, "missing head.bias [10]"},
		{"too large for half", m, []string{"--weights", "large", "--safetensors", "out", "--dtype", "f16"}, 1, `out is not written: safetensors: tensor "head.bias": element 3 is 1e+06, too large for F16`},
		{"old package", &old, []string{"--weights", weights, "--onnx", "out"}, 1, "fake: the package has no ONNX graph; compile the spec again"},
		{"directory", m, []string{"--weights", weights, "--onnx", "a.dir"}, 1, "a.dir"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, _, stderr := run(t, context.Background(), tt.model, append([]string{"export"}, tt.args...)...)
			if status != tt.status || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit %d, want %d with %q\n%s", status, tt.status, tt.want, stderr)
			}
			if _, err := os.Lstat("out"); err == nil {
				t.Error("something was written")
				os.Remove("out")
			}
		})
	}
}
