package gogen

import (
	"fmt"

	"github.com/dave/jennifer/jen"

	"github.com/vitgen/vitgen/codegen/plan"
)

const cudaPath = "github.com/vitgen/vitgen/runtime/cuda"

// cuda writes the file that a build with -tags cuda adds: the compiled kernels,
// and the device that runs them.
func cuda(in Input) *jen.File {
	f := newFile(in)
	f.HeaderComment("//go:build cuda")
	f.Anon(cudaPath)
	f.ImportName("embed", "embed")
	comment(f, "images holds kernels.cu, and what it has been compiled to: kernels.sm_80.ptx for",
		"one. The compiler writes these files where it finds nvcc or NVRTC.", "", "//go:embed kernels.*")
	f.Var().Id("images").Qual("embed", "FS")
	f.Func().Id("init").Params().Block(
		jen.Id("cudaImages").Op("=").Func().Params().Qual("io/fs", "FS").Block(jen.Return(jen.Id("images"))))
	return f
}

// stepsCUDA writes step_cuda.go: what a CUDA device needs to know of the
// model, and the launches of every program. It holds no code of CUDA's, so that
// every build can tell what a step would launch.
func stepsCUDA(in Input) *jen.File {
	f := newFile(in)
	d := in.CUDA.Device
	f.Comment("cudaImages returns the compiled kernels; nil in a build without -tags cuda.")
	f.Var().Id("cudaImages").Func().Params().Qual("io/fs", "FS")
	f.Comment("cudaCode says how a CUDA device runs the model.")
	f.Func().Id("cudaCode").Params().Op("*").Add(rt("CUDACode")).Block(
		jen.Return(jen.Op("&").Add(rt("CUDACode")).Values(codeCUDA(in.CUDA)...)))
	f.Add(jen.Var().Id("cudaKernels").Op("=").Index().Add(rt("CUDAKernel")).ValuesFunc(func(g *jen.Group) {
		for _, k := range d.Kernels {
			g.Line().Values(kernelCUDA(in, k)...)
		}
		g.Line()
	}))
	f.Comment("The kernels, by their place in the kernel table.")
	var names []string
	for _, k := range d.Kernels {
		names = append(names, goName("cuda", k.Name))
	}
	constants(f, names)
	for _, p := range d.Programs {
		f.Comment(fmt.Sprintf("%s on a CUDA device: %s.", p.Name, programDocs[p.Name]))
		f.Func().Id(p.Name + "CUDA").Params(jen.Id("r").Op("*").Add(rt("Recorder"))).BlockFunc(func(g *jen.Group) {
			w := launchWriter{in: in, g: g}
			for _, l := range p.Launches {
				w.launch(goName("cuda", l.Kernel.Name), l.Args, l.Parts...)
			}
		})
	}
	return f
}

func codeCUDA(p *plan.Plan) []jen.Code {
	d := p.Device
	half := 0
	if p.Math == "bf16" {
		half = p.Layout.Elems
	}
	return []jen.Code{
		field("Precision", jen.Lit(p.Math)),
		field("Kernels", jen.Id("cudaKernels")),
		field("Programs", jen.Index(rt("NumPrograms")).Add(rt("Program")).ValuesFunc(func(g *jen.Group) {
			for _, pr := range d.Programs {
				g.Line().Add(rt(programID(pr.Name))).Op(":").Id("record").Call(jen.Id(pr.Name + "CUDA"))
			}
			g.Line()
		})),
		field("ArenaBytes", jen.Lit(int(p.ArenaBytes))),
		field("WorkspaceBytes", jen.Lit(int(d.WorkspaceBytes))),
		field("Counters", jen.Lit(d.Counters)),
		field("HalfElems", jen.Lit(half)),
		field("Gather", jen.Lit(d.Gather.Index)),
		field("Halve", jen.Lit(index(d.Halve))),
		field("Images", jen.Id("cudaImages")),
		jen.Line(),
	}
}

func index(k *plan.DeviceKernel) int {
	if k == nil {
		return -1
	}
	return k.Index
}

func kernelCUDA(in Input, k *plan.DeviceKernel) []jen.Code {
	facts := []jen.Code{jen.Id("Name").Op(":").Lit(k.Name)}
	if len(k.Parts) == 0 {
		facts = append(facts, jen.Id("Family").Op(":").Lit("pointwise"))
	} else {
		first := k.Parts[0].Kernel
		u := first.Uses[0]
		facts = append(facts, jen.Id("Family").Op(":").Lit(first.Family.String()),
			jen.Id("Layer").Op(":").Lit(u.Layer), jen.Id("Pos").Op(":").Lit(fmt.Sprintf("%s:%d:%d", in.File, u.Pos.Line, u.Pos.Col)),
			jen.Id("Doc").Op(":").Lit(k.Doc()), jen.Id("FLOPs").Op(":").Lit(int(k.FLOPs())),
			jen.Id("Bytes").Op(":").Lit(int(k.Bytes().Total)), jen.Id("FixedBytes").Op(":").Lit(int(k.Bytes().Fixed)),
			jen.Id("Outs").Op(":").Add(outs(k.Parts...)))
	}
	return []jen.Code{
		jen.Id("Kernel").Op(":").Add(rt("Kernel")).Values(facts...),
		jen.Id("Grid").Op(":").Lit(k.Grid), jen.Id("Block").Op(":").Lit(k.Threads), jen.Id("Shared").Op(":").Lit(k.Shared),
	}
}
