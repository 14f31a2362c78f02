package trainer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/onnx"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// export writes weights for other programs to read. It needs no device.
func (a *app) export(args []string) error {
	fs := a.flags("export")
	var trained weightsFlag
	trained.define(fs)
	onnxFile := fs.String("onnx", "", "`file` to write: the model for inference in ONNX, with the weights")
	tensorsFile := fs.String("safetensors", "", "`file` to write: the weights under PyTorch's state_dict names")
	dtype := fs.String("dtype", "f32", "`type` of the numbers of --safetensors: f32, f16 or bf16")
	if _, err := a.parse(fs, args, 0); err != nil {
		return err
	}
	to, ok := map[string]safetensors.DType{"f32": safetensors.F32, "f16": safetensors.F16, "bf16": safetensors.BF16}[*dtype]
	switch {
	case *onnxFile == "" && *tensorsFile == "":
		return usagef("export: say what to write: --onnx FILE, --safetensors FILE or both")
	case !ok:
		return usagef("export: --dtype %s: want f32, f16 or bf16", *dtype)
	case to != safetensors.F32 && *tensorsFile == "":
		return usagef("export: --dtype is for --safetensors; ONNX files hold f32")
	case *onnxFile != "" && filepath.Clean(*onnxFile) == filepath.Clean(*tensorsFile):
		return usagef("export: --onnx and --safetensors are both %s", *onnxFile)
	}
	from, err := trained.file("export")
	if err != nil {
		return err
	}
	for _, out := range []string{*onnxFile, *tensorsFile} {
		if sameFile(from, out) {
			return usagef("export: %s is the file to export; name another one to write", out)
		}
	}
	e, err := a.read(from)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s: %s parameters of %s\n", a.model.Name, comma(int64(a.model.ParamCount())), from)
	howTo := ""
	if *onnxFile != "" { // first: it is what may be refused
		if howTo, err = e.onnx(*onnxFile); err != nil {
			return err
		}
	}
	if *tensorsFile != "" {
		if err := e.safetensors(*tensorsFile, to); err != nil {
			return err
		}
	}
	fmt.Fprint(a.out, howTo)
	return nil
}

// exporter has what is exported.
type exporter struct {
	*app
	params  []float32 // laid out as the region Params
	classes []string  // their names, or nil
}

// read reads weights, of any floating type, and checks that they are the
// model's.
func (a *app) read(path string) (*exporter, error) {
	f, err := safetensors.Read(path)
	if err != nil {
		return nil, err
	}
	params, err := a.model.ParamsOf(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	classes, err := a.model.ClassesOf(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &exporter{app: a, params: params, classes: classes}, nil
}

// onnx writes the model and says how to run it.
func (e *exporter) onnx(path string) (howTo string, err error) {
	m := e.model
	info, err := onnx.Describe(m.ONNX)
	if err != nil {
		return "", fmt.Errorf("%s: %w", m.Name, err)
	}
	var weights []onnx.Tensor
	for i := range m.Params {
		p := &m.Params[i]
		weights = append(weights, onnx.Tensor{Name: p.Name, Shape: p.Shape, Data: e.params[p.Offset : p.Offset+p.Elems()]})
	}
	size, err := onnx.Write(path, m.ONNX, runtime.ClassesMetadata(e.classes), weights)
	switch {
	case errors.Is(err, onnx.ErrTooBig):
		return "", fmt.Errorf("%s is not written: %w; safetensors files have no such limit", path, err)
	case err != nil:
		return "", err
	}
	fmt.Fprintf(e.out, "%s: %s bytes, ONNX with operator set %d, %s [batch,%d,%d,%d] to %s [batch,%d]\n",
		path, comma(size), info.Opset, info.Input, m.Image[0], m.Image[1], m.Image[2], info.Output, m.Classes)
	return fmt.Sprintf(`
In Python, with onnxruntime and numpy; image holds float32 pixels, channels
first, %s:

    import onnxruntime
    model = onnxruntime.InferenceSession(%q)
    logits, = model.run([%q], {%q: image})
`, normalization(&m.Data), path, info.Output, info.Input), nil
}

// normalization says what is done to pixels.
func normalization(d *runtime.Data) string {
	if len(d.Mean) == 0 {
		return "divided by 255"
	}
	return fmt.Sprintf("divided by 255, less %v, over %v", d.Mean, d.Std)
}

// safetensors writes the weights in the element type given.
func (e *exporter) safetensors(path string, to safetensors.DType) error {
	file := e.model.WeightsFile(e.params, e.classes)
	for i := range file.Tensors {
		t := &file.Tensors[i]
		narrow, err := t.Convert(to)
		if err != nil {
			return fmt.Errorf("%s is not written: %w", path, err)
		}
		*t = narrow
	}
	if err := safetensors.Write(path, file); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.out, "%s: %s bytes, safetensors in %s\n", path, comma(info.Size()), strings.ToLower(string(to)))
	return nil
}

// sameFile reports whether two paths are one existing file, through links too.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
