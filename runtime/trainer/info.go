package trainer

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/vitgen/vitgen/runtime"
)

// infoResult is what info --json prints.
type infoResult struct {
	Model      string         `json:"model"`
	Spec       string         `json:"spec"`
	SpecHash   string         `json:"spec_hash"`
	Vitgen     string         `json:"vitgen"`
	Image      [3]int         `json:"image"`
	Classes    int            `json:"classes"`
	Batch      int            `json:"batch"`
	Accumulate int            `json:"accumulate"`
	Target     string         `json:"target"`
	Precision  string         `json:"precision"`
	ISA        string         `json:"isa,omitempty"`  // that would be used here
	ISAs       []string       `json:"isas,omitempty"` // that are built in
	Parameters []paramInfo    `json:"parameters"`
	ParamCount int            `json:"parameter_count"`
	Step       stepInfo       `json:"step"`
	Launches   map[string]int `json:"launches"`
	Memory     memoryInfo     `json:"memory_bytes"`
	Kernels    []kernelInfo   `json:"kernels"`
	CUDA       *cudaInfo      `json:"cuda,omitempty"`
}

type paramInfo struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"`
	Count int    `json:"count"`
	Decay bool   `json:"decay"`
	Pos   string `json:"pos"`
}

// stepInfo is one update at full batch.
type stepInfo struct {
	FLOPs         int64   `json:"flops"`
	UnprunedFLOPs int64   `json:"flops_unpruned"`
	PrunedPercent float64 `json:"pruned_percent"` // fewer than unpruned
	Bytes         int64   `json:"bytes"`          // least traffic of its kernels
}

type memoryInfo struct {
	Parameters  int64 `json:"parameters"`
	Gradients   int64 `json:"gradients"`
	Optimizer   int64 `json:"optimizer"`
	Average     int64 `json:"average,omitempty"` // of the parameters: train.ema
	Activations int64 `json:"activations"`
	Workspace   int64 `json:"workspace"`
	Inputs      int64 `json:"inputs"`
	Constants   int64 `json:"constants"`
	Total       int64 `json:"total"`
}

type kernelInfo struct {
	Name     string         `json:"name"`
	Family   string         `json:"family"`
	Layer    string         `json:"layer"`
	Pos      string         `json:"pos"`
	Doc      string         `json:"doc"`
	FLOPs    int64          `json:"flops"`
	Bytes    int64          `json:"bytes"`
	Launches map[string]int `json:"launches"` // by program
}

// info is the command.
func (a *app) info(args []string) error {
	fs := a.flags("info")
	target, chip := "cpu", runtime.DefaultChip
	if len(a.model.CPU) == 0 && a.model.CUDA != nil {
		target = "cuda"
	}
	fs.StringVar(&target, "target", target, "`target` to describe: cpu or cuda; no GPU is needed")
	fs.StringVar(&target, "device", target, "the same")
	fs.StringVar(&chip, "chip", chip, "GPU that times are predicted for: `"+chipKeys()+"`")
	ckpt := fs.String("checkpoint", "", "`directory` of a checkpoint, or of a run for its last one: say what it is of instead")
	asJSON := fs.Bool("json", false, "print one JSON object")
	if _, err := a.parse(fs, args, 0); err != nil {
		return err
	}
	if *ckpt != "" {
		return a.infoCheckpoint(*ckpt, target, *asJSON)
	}
	if err := a.model.Check(); err != nil {
		return err
	}
	target, _, _ = strings.Cut(target, ":") // cuda:0 names a device
	r, err := describe(a.model, target, chip)
	if err != nil {
		return err
	}
	if *asJSON {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return r.print(a.out)
}

func describe(m *runtime.Model, target, chip string) (*infoResult, error) {
	code, err := m.Code(target)
	if err != nil {
		return nil, err
	}
	r := &infoResult{
		Model: m.Name, Spec: m.SpecFile, SpecHash: m.SpecHash, Vitgen: m.Generator,
		Image: m.Image, Classes: m.Classes, Batch: m.Batch, Accumulate: m.Train.Accumulate,
		Target: target, Precision: code.Precision, Launches: map[string]int{},
	}
	if target == "cpu" {
		r.ISAs = m.CPU.ISAs()
		if best, err := m.CPU.Best(); err == nil {
			r.ISA = best.ISA
		}
	}
	for i := range m.Params {
		p := &m.Params[i]
		r.Parameters = append(r.Parameters, paramInfo{p.Name, p.Shape, p.Elems(), p.Decay, p.Pos})
		r.ParamCount += p.Elems()
	}
	for _, k := range code.Kernels {
		r.Kernels = append(r.Kernels, kernelInfo{k.Name, k.Family, k.Layer, k.Pos, k.Doc, k.FLOPs, k.Bytes, map[string]int{}})
	}
	r.Step = stepInfo{FLOPs: code.FLOPs(runtime.Grad), UnprunedFLOPs: m.StepFLOPsUnpruned}
	if u := r.Step.UnprunedFLOPs; u > 0 {
		r.Step.PrunedPercent = 100 * float64(u-r.Step.FLOPs) / float64(u)
	}
	for id, program := range code.Programs {
		name := runtime.ProgramID(id)
		r.count(name.String(), program)
		for _, l := range program {
			if name == runtime.Grad || name == runtime.Update {
				r.Step.Bytes += code.Kernels[l.Kernel].Bytes
			}
		}
	}
	if len(code.Pack) > 0 {
		r.count("pack", code.Pack)
	}
	r.Memory = memoryOf(code)
	if target == "cuda" {
		if r.CUDA, err = predict(m.CUDA, chip); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func memoryOf(c *runtime.Code) memoryInfo {
	b := c.Regions
	i := memoryInfo{
		Parameters: b[runtime.Params] + b[runtime.Half], Gradients: b[runtime.Grads], Optimizer: b[runtime.State0] + b[runtime.State1],
		Average: b[runtime.Average], Activations: b[runtime.Arena], Workspace: c.WorkspaceBytes,
		Inputs: b[runtime.Image] + b[runtime.Label] + b[runtime.Label2] + b[runtime.Mix], Constants: b[runtime.Const],
	}
	i.Total = c.WorkspaceBytes
	for _, n := range b {
		i.Total += n
	}
	return i
}

// count notes a program's launches.
func (r *infoResult) count(name string, program runtime.Program) {
	r.Launches[name] = len(program)
	for _, l := range program {
		r.Kernels[l.Kernel].Launches[name]++
	}
}

func (r *infoResult) print(out io.Writer) error {
	accumulate := ""
	if r.Accumulate > 1 {
		accumulate = fmt.Sprintf(" × %d", r.Accumulate)
	}
	fmt.Fprintf(out, "%s  (%s, %.12s, vitgen %s)\n", r.Model, r.Spec, r.SpecHash, r.Vitgen)
	fmt.Fprintf(out, "images %d×%d×%d, %d classes, batch %d%s\n\n", r.Image[0], r.Image[1], r.Image[2], r.Classes, r.Batch, accumulate)

	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "parameter\tshape\tcount\tdecay\tspec")
	for _, p := range r.Parameters {
		decay := "-"
		if p.Decay {
			decay = "yes"
		}
		fmt.Fprintf(w, "%s\t%v\t%s\t%s\t%s\n", p.Name, p.Shape, comma(int64(p.Count)), decay, p.Pos)
	}
	fmt.Fprintf(w, "total\t\t%s\t\t\n\f", comma(int64(r.ParamCount)))

	fmt.Fprintln(w, "step at full batch, forward and backward\t")
	fmt.Fprintf(w, "  FLOPs\t%s\n", comma(r.Step.FLOPs))
	fmt.Fprintf(w, "  FLOPs without row pruning\t%s\t(%.1f %% fewer with it)\n", comma(r.Step.UnprunedFLOPs), r.Step.PrunedPercent)
	fmt.Fprintf(w, "  bytes, each operand once\t%s\n", comma(r.Step.Bytes))
	for id := range runtime.NumPrograms {
		fmt.Fprintf(w, "  launches of %s\t%d\n", id, r.Launches[id.String()])
	}
	if n := r.Launches["pack"]; n > 0 {
		fmt.Fprintf(w, "  launches of pack\t%d\t(before forward and eval, when parameters have changed)\n", n)
	}
	if len(r.ISAs) > 0 {
		use := "none of them runs here"
		if r.ISA != "" {
			use = "here: " + r.ISA
		}
		fmt.Fprintf(w, "  instruction sets built in\t%s\t(%s)\n", strings.Join(r.ISAs, ", "), use)
	}
	fmt.Fprint(w, "\f")

	fmt.Fprintln(w, "memory\t")
	for _, m := range []struct {
		what  string
		bytes int64
	}{
		{"parameters", r.Memory.Parameters}, {"gradients", r.Memory.Gradients}, {"optimizer state", r.Memory.Optimizer},
		{"average", r.Memory.Average}, {"activations", r.Memory.Activations}, {"workspace", r.Memory.Workspace}, {"inputs", r.Memory.Inputs},
		{"constants", r.Memory.Constants}, {"total", r.Memory.Total},
	} {
		if m.what == "average" && m.bytes == 0 {
			continue // few models keep one
		}
		fmt.Fprintf(w, "  %s\t%s\n", m.what, bytesText(m.bytes))
	}
	fmt.Fprint(w, "\f")
	if r.CUDA != nil {
		r.CUDA.print(w)
		return w.Flush()
	}

	fmt.Fprintln(w, "kernel\tspec\tMFLOP\tMB\tlaunches: forward, eval, grad, update, pack\twhat")
	for _, k := range r.Kernels {
		fmt.Fprintf(w, "%s\t%s\t%.2f\t%.2f\t%d %d %d %d %d\t%s: %s\n", k.Name, k.Pos, float64(k.FLOPs)/1e6, float64(k.Bytes)/1e6,
			k.Launches["forward"], k.Launches["eval"], k.Launches["grad"], k.Launches["update"], k.Launches["pack"], k.Layer, k.Doc)
	}
	return w.Flush()
}
