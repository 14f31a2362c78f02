package trainer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/checkpoint"
	"github.com/vitgen/vitgen/runtime/onnx"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// export writes weights for other programs to read. It needs no device.
func (a *app) export(args []string) error {
	fs := a.flags("export")
	weights := fs.String("weights", "", "safetensors `file` under PyTorch's state_dict names, a checkpoint's directory, or a run's")
	onnxFile := fs.String("onnx", "", "`file` to write: the model for inference in ONNX, with the weights")
	tensorsFile := fs.String("safetensors", "", "`file` to write: the weights under PyTorch's state_dict names")
	dtype := fs.String("dtype", "f32", "`type` of the numbers of --safetensors: f32, f16 or bf16")
	if _, err := a.parse(fs, args, 0); err != nil {
		return err
	}
	to, ok := map[string]safetensors.DType{"f32": safetensors.F32, "f16": safetensors.F16, "bf16": safetensors.BF16}[*dtype]
	switch {
	case *weights == "":
		return usagef("export: --weights FILE is missing%s", trainedWeights())
	case *onnxFile == "" && *tensorsFile == "":
		return usagef("export: say what to write: --onnx FILE, --safetensors FILE or both")
	case !ok:
		return usagef("export: --dtype %s: want f32, f16 or bf16", *dtype)
	case to != safetensors.F32 && *tensorsFile == "":
		return usagef("export: --dtype is for --safetensors; ONNX files hold f32")
	case *onnxFile != "" && filepath.Clean(*onnxFile) == filepath.Clean(*tensorsFile):
		return usagef("export: --onnx and --safetensors are both %s", *onnxFile)
	}
	from, err := weightsIn(*weights)
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
	fmt.Fprintf(a.out, "%s: %s parameters of %s\n", a.model.Name, comma(e.params), from)
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
	file   *safetensors.File // the weights in float32, with all that is known of them
	params int64
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
	e := &exporter{app: a, file: a.model.WeightsFile(params, classes)}
	for i := range a.model.Params {
		e.params += int64(a.model.Params[i].Elems())
	}
	return e, nil
}

// onnx writes the model and says how to run it.
func (e *exporter) onnx(path string) (howTo string, err error) {
	m := e.model
	info, err := onnx.Describe(m.ONNX)
	if err != nil {
		return "", fmt.Errorf("%s: %w", m.Name, err)
	}
	var weights []onnx.Tensor
	for i := range e.file.Tensors {
		t := &e.file.Tensors[i]
		weights = append(weights, onnx.Tensor{Name: t.Name, Shape: t.Shape, Data: t.Float32s()})
	}
	metadata := map[string]string{}
	if names, ok := e.file.Metadata[runtime.ClassesKey]; ok {
		metadata[runtime.ClassesKey] = names
	}
	size, err := onnx.Write(path, m.ONNX, metadata, weights)
	if err != nil {
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
	for i := range e.file.Tensors {
		t := &e.file.Tensors[i]
		narrow, err := t.Convert(to)
		if err != nil {
			return fmt.Errorf("%s is not written: %w", path, err)
		}
		*t = narrow
	}
	if err := safetensors.Write(path, e.file); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.out, "%s: %s bytes, safetensors in %s\n", path, comma(info.Size()), strings.ToLower(string(to)))
	return nil
}

// weightsIn gives the weights file that a path stands for: itself; of a
// checkpoint, the average if one is kept, which is what validation measured; of
// a run, the best.
func weightsIn(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return path, err
	}
	names := []string{checkpoint.BestLink, checkpoint.LastLink, checkpoint.AverageFile, checkpoint.WeightsFile}
	for _, name := range names {
		file := filepath.Join(path, name)
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s has no weights: a run has %s, a checkpoint %s", path, names[0], names[3])
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
