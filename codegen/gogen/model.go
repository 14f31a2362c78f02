package gogen

import (
	"fmt"
	"strings"

	"github.com/dave/jennifer/jen"

	"github.com/vitgen/vitgen/codegen/plan"
	"github.com/vitgen/vitgen/spec"
)

// model writes the package's main file: the facts of the model and its use as
// a library.
func model(in Input) *jen.File {
	f := newFile(in)
	n := in.Spec.Name
	elems := 0
	for _, p := range in.Spec.Params() {
		elems += product(p.Shape)
	}
	f.PackageComment(fmt.Sprintf("Package %s is the model of %s, compiled: %s parameters, images of", n, in.File, group(elems)))
	f.PackageComment(fmt.Sprintf("%d×%d×%d, %d classes, kernels for up to %d samples a call.",
		in.Spec.Input.Channels, in.Spec.Input.Height, in.Spec.Input.Width, in.Spec.Input.Classes, in.Spec.Train.Batch))
	comment(f, "Model is the model in the memory of a device: parameters, gradients and",
		"optimizer state. Its methods return errors and never panic.")
	f.Type().Id("Model").Struct(jen.Op("*").Add(rt("Session")))

	comment(f, "New opens the device that o names and initializes the parameters as the",
		"spec says. The caller closes the model.")
	f.Func().Id("New").Params(jen.Id("o").Add(rt("Options"))).Params(jen.Op("*").Id("Model"), jen.Error()).Block(
		jen.List(jen.Id("s"), jen.Err()).Op(":=").Add(rt("NewSession")).Call(jen.Id("Describe").Call(), jen.Id("o")),
		jen.If(jen.Err().Op("!=").Nil()).Block(jen.Return(jen.Nil(), jen.Err())),
		jen.Return(jen.Op("&").Id("Model").Values(jen.Id("s")), jen.Nil()),
	)
	comment(f, "Describe returns the model's facts: parameters and where they lie, training",
		"settings, memory, kernels, and the launches of every program.")
	f.Func().Id("Describe").Params().Op("*").Add(rt("Model")).Block(
		jen.Return(jen.Op("&").Add(rt("Model")).Values(describe(in)...)),
	)
	canonicalSpec(f)
	graphONNX(f)
	constData(f, in)
	f.Add(jen.Var().Id("params").Op("=").Index().Add(rt("Param")).ValuesFunc(func(g *jen.Group) {
		for _, p := range params(in) {
			g.Line().Values(p...)
		}
		g.Line()
	}))
	f.Add(jen.Var().Id("kernels").Op("=").Index().Add(rt("Kernel")).ValuesFunc(func(g *jen.Group) {
		for _, k := range in.Plan.Kernels {
			g.Line().Values(kernel(in, k)...)
		}
		g.Line()
	}))
	return f
}

// comment writes a comment of several lines; jennifer would make a block of it.
func comment(f *jen.File, lines ...string) {
	for _, l := range lines {
		f.Comment(l)
	}
}

// canonicalSpec embeds the spec.
func canonicalSpec(f *jen.File) {
	f.Anon("embed")
	comment(f, "canonicalSpec says all that the model was compiled from: the spec in its",
		"canonical form. Its SHA-256 is SpecHash.")
	f.Comment("//")
	f.Comment("//go:embed " + SpecFile)
	f.Var().Id("canonicalSpec").String()
	f.Line()
}

// graphONNX embeds the model for export.
func graphONNX(f *jen.File) {
	comment(f, "graphONNX is the forward graph as an ONNX model without weights.", "")
	f.Comment("//go:embed " + ONNXFile)
	f.Var().Id("graphONNX").Index().Byte()
	f.Line()
}

// constData embeds the compiler's tables.
func constData(f *jen.File, in Input) {
	if len(in.Plan.Const) == 0 {
		return
	}
	f.Comment("//go:embed const.f32")
	f.Var().Id("constF32").Index().Byte()
	f.Comment("constData decodes the tables the compiler computed: little-endian float32.")
	f.Func().Id("constData").Params().Index().Float32().Block(
		jen.Id("v").Op(":=").Make(jen.Index().Float32(), jen.Len(jen.Id("constF32")).Op("/").Lit(4)),
		jen.For(jen.Id("i").Op(":=").Range().Id("v")).Block(
			jen.Id("v").Index(jen.Id("i")).Op("=").Qual("math", "Float32frombits").Call(
				jen.Qual("encoding/binary", "LittleEndian").Dot("Uint32").Call(jen.Id("constF32").Index(jen.Lit(4).Op("*").Id("i"), jen.Empty()))),
		),
		jen.Return(jen.Id("v")),
	)
}

// field is one line of a struct literal, kept in the order written.
func field(name string, v jen.Code) jen.Code { return jen.Line().Id(name).Op(":").Add(v) }

func describe(in Input) []jen.Code {
	s, p := in.Spec, in.Plan
	fields := []jen.Code{
		field("Name", jen.Lit(s.Name)),
		field("SpecFile", jen.Lit(in.File)),
		field("Spec", jen.Id("canonicalSpec")),
		field("SpecHash", jen.Lit(in.Hash)),
		field("Generator", jen.Lit(in.Generator)),
		field("KernelHashes", hashes(in.KernelHashes)),
		field("Image", jen.Index(jen.Lit(3)).Int().Values(jen.Lit(s.Input.Channels), jen.Lit(s.Input.Height), jen.Lit(s.Input.Width))),
		field("Classes", jen.Lit(s.Input.Classes)),
		field("Batch", jen.Lit(s.Train.Batch)),
		field("Params", jen.Id("params")),
		field("ParamElems", jen.Lit(p.Layout.Elems)),
		field("DecayElems", jen.Lit(p.Layout.DecayElems)),
	}
	if names := stateNames(s.Train.Optimizer); len(names) > 0 {
		fields = append(fields, field("StateNames", jen.Index().String().ValuesFunc(func(g *jen.Group) {
			for _, n := range names {
				g.Lit(n)
			}
		})))
	}
	fields = append(fields,
		field("Train", train(s)),
		field("Data", data(s.Data)),
		field("ArenaBytes", jen.Lit(int(p.ArenaBytes))),
		field("WorkspaceBytes", jen.Lit(int(p.WorkspaceBytes))),
		field("Outputs", rt("Outputs").Values(
			field("Logits", ref(p.Outputs["logits"])),
			field("Loss", ref(p.Outputs["loss"])),
			field("Correct", ref(p.Outputs["correct"])), jen.Line())),
		field("Kernels", jen.Id("kernels")),
		field("Programs", programs(p)),
		pack(p),
		field("StepFLOPsUnpruned", jen.Lit(int(in.StepFLOPsUnpruned))),
	)
	if len(p.Const) > 0 {
		fields = append(fields, field("ConstData", jen.Id("constData")))
	}
	fields = append(fields, field("ONNX", jen.Id("graphONNX")))
	fields = append(fields, field("CPU", jen.Id("cpuCode")))
	if in.CUDA != nil {
		fields = append(fields, field("CUDA", jen.Id("cudaCode").Call()))
	}
	return append(fields, jen.Line())
}

func programs(p *plan.Plan) jen.Code {
	return jen.Index(rt("NumPrograms")).Add(rt("Program")).ValuesFunc(func(g *jen.Group) {
		for _, pr := range p.Programs {
			g.Line().Add(rt(programID(pr.Name))).Op(":").Id("record").Call(jen.Id(pr.Name))
		}
		g.Line()
	})
}

// pack is the field of the pack program, or nothing.
func pack(p *plan.Plan) jen.Code {
	if p.Pack == nil {
		return jen.Null()
	}
	return field("Pack", jen.Id("record").Call(jen.Id(p.Pack.Name)))
}

// programID is the runtime's constant for a program: Grad.
func programID(name string) string { return strings.ToUpper(name[:1]) + name[1:] }

func floats(v []float64) jen.Code {
	if len(v) == 0 {
		return jen.Nil()
	}
	return jen.Index().Float64().ValuesFunc(func(g *jen.Group) {
		for _, x := range v {
			g.Lit(x)
		}
	})
}

// stateNames are the optimizer's state arenas, named as in PyTorch.
func stateNames(o spec.Optimizer) []string {
	switch {
	case o.Kind == "adamw":
		return []string{"exp_avg", "exp_avg_sq"}
	case o.Momentum != 0:
		return []string{"momentum_buffer"}
	}
	return nil
}

func params(in Input) [][]jen.Code {
	var out [][]jen.Code
	for i, p := range in.Spec.Params() {
		at := in.Plan.Layout.Params[i]
		dims := jen.Index().Int().ValuesFunc(func(g *jen.Group) {
			for _, d := range p.Shape {
				g.Lit(d)
			}
		})
		init := rt("Init").Values(jen.Id("Kind").Op(":").Lit(p.Init.Kind), jen.Id("A").Op(":").Lit(p.Init.A),
			jen.Id("B").Op(":").Lit(p.Init.B), jen.Id("FanIn").Op(":").Lit(p.Init.FanIn))
		out = append(out, []jen.Code{
			jen.Id("Name").Op(":").Lit(p.Name), jen.Id("Shape").Op(":").Add(dims),
			jen.Id("Offset").Op(":").Lit(at.Offset), jen.Id("Init").Op(":").Add(init),
			jen.Id("Decay").Op(":").Lit(at.Decay), jen.Id("Pos").Op(":").Lit(fmt.Sprintf("%s:%d:%d", in.File, p.Pos.Line, p.Pos.Col)),
		})
	}
	return out
}

func kernel(in Input, k *plan.Kernel) []jen.Code {
	u := k.Uses[0]
	return []jen.Code{
		jen.Id("Name").Op(":").Lit(k.Name), jen.Id("Family").Op(":").Lit(k.Family.String()),
		jen.Id("Layer").Op(":").Lit(u.Layer), jen.Id("Pos").Op(":").Lit(fmt.Sprintf("%s:%d:%d", in.File, u.Pos.Line, u.Pos.Col)),
		jen.Id("Doc").Op(":").Lit(k.Doc), jen.Id("FLOPs").Op(":").Lit(int(k.FLOPs)),
		jen.Id("Bytes").Op(":").Lit(int(k.Bytes.Total)), jen.Id("FixedBytes").Op(":").Lit(int(k.Bytes.Fixed)),
		jen.Id("Outs").Op(":").Add(outs(plan.PartUse{Kernel: k})),
	}
}

// outs lists what the parts of a launch write.
func outs(parts ...plan.PartUse) jen.Code {
	return jen.Index().Add(rt("Span")).ValuesFunc(func(g *jen.Group) {
		for _, p := range parts {
			for i, a := range p.Kernel.Args {
				if a.Type == plan.Out && a.Span.Cols > 0 {
					g.Add(span(p.FirstArg+i, a))
				}
			}
		}
	})
}

func span(arg int, a plan.Arg) jen.Code {
	fields := []jen.Code{jen.Id("Arg").Op(":").Lit(arg), jen.Id("Elems").Op(":").Lit(a.Span.Cols)}
	if a.Span.Rows > 1 {
		fields = append(fields, jen.Id("Rows").Op(":").Lit(a.Span.Rows))
	}
	if a.Span.LD != int64(a.Span.Cols) {
		fields = append(fields, jen.Id("Stride").Op(":").Lit(int(a.Span.LD)))
	}
	if a.Span.PerSample {
		fields = append(fields, jen.Id("PerSample").Op(":").True())
	}
	if a.Narrow {
		fields = append(fields, jen.Id("Half").Op(":").True())
	}
	return jen.Values(fields...)
}

func product(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

// group writes a number with commas: 6,457,866.
func group(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
