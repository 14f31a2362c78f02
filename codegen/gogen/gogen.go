// Package gogen writes the Go files of a generated package with jennifer: the
// model's facts, the launches of each program, the door to the compiled
// kernels, and the trainer's main. It decides nothing; facts come from the
// spec and the plan.
package gogen

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/dave/jennifer/jen"

	"github.com/vitgen/vitgen/codegen/kernels"
	"github.com/vitgen/vitgen/codegen/plan"
	"github.com/vitgen/vitgen/spec"
)

const (
	runtimePath = "github.com/vitgen/vitgen/runtime"
	trainerPath = "github.com/vitgen/vitgen/runtime/trainer"
)

// Input is what the Go files are written from.
type Input struct {
	Spec *spec.Spec
	Plan *plan.Plan // for the CPU
	CUDA *plan.Plan // for CUDA devices; nil: not a target
	ONNX []byte     // the model for export, without weights
	File string     // base name of the spec
	Hash string     // of the spec's canonical form
	// KernelHashes are hex SHA-256 of the kernels' source, by target.
	KernelHashes map[string]string
	Header       string // first comment line of every file
	Generator    string // version of vitgen
	ImportPath   string // of the generated package

	StepFLOPsUnpruned int64
}

// SpecFile is the name of the file with the spec's canonical form.
const SpecFile = "vg_spec.yaml"

// ONNXFile is the name of the file with the model for export.
const ONNXFile = "vg_graph.onnx"

// File is one generated file, named relative to the package's folder.
type File struct {
	Name string
	Data []byte
}

// Files writes all Go files of the package, and what they embed.
func Files(in Input) ([]File, error) {
	files := []goFile{
		{in.Spec.Name + ".go", model(in)},
		{"step.go", steps(in)},
		{"cpu.go", cpu(in)},
		{"trainer/main.go", trainer(in)},
	}
	for _, isa := range kernels.ISAs {
		files = append(files,
			goFile{"cpu_" + isa.Name + ".go", cpuKernels(in, isa)},
			goFile{"internal/" + isa.Name + "/" + isa.Name + ".go", cpuEntry(in, isa)})
	}
	if in.CUDA != nil {
		files = append(files, goFile{"step_cuda.go", stepsCUDA(in)}, goFile{"cuda.go", cuda(in)})
	}
	var out []File
	for _, f := range files {
		var b bytes.Buffer
		if err := f.file.Render(&b); err != nil {
			return nil, fmt.Errorf("BUG: %s does not print: %w", f.name, err)
		}
		out = append(out, File{f.name, b.Bytes()})
	}
	out = append(out, File{SpecFile, in.Spec.Canonical()})
	if len(in.Plan.Const) > 0 {
		out = append(out, File{"const.f32", constBytes(in.Plan.Const)})
	}
	return append(out, File{ONNXFile, in.ONNX}), nil
}

type goFile struct {
	name string
	file *jen.File
}

func constBytes(v []float32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func newFile(in Input) *jen.File {
	f := jen.NewFile(in.Spec.Name)
	f.HeaderComment(in.Header)
	f.ImportName(runtimePath, "runtime")
	return f
}

func rt(name string) *jen.Statement { return jen.Qual(runtimePath, name) }

// trainer writes the main package: it hands over to runtime/trainer.
func trainer(in Input) *jen.File {
	f := jen.NewFile("main")
	f.HeaderComment(in.Header)
	f.PackageComment(fmt.Sprintf("The trainer of %s. Without arguments it lists its commands.", in.File))
	f.ImportName(in.ImportPath, in.Spec.Name)
	f.ImportName(trainerPath, "trainer")
	f.Func().Id("main").Params().Block(jen.Qual(trainerPath, "Main").Call(jen.Qual(in.ImportPath, "Describe").Call()))
	return f
}
