package gogen

import (
	"fmt"
	"strings"

	"github.com/dave/jennifer/jen"

	"github.com/vitgen/vitgen/codegen/plan"
)

// programDocs say what each program does.
var programDocs = map[string]string{
	"forward": "image → logits, without dropout",
	"eval":    "image, label → logits, loss and hits, without dropout",
	"grad":    "image, label → loss, hits and gradients: the forward and backward pass of a training step",
	"update":  "gradients → parameters and optimizer state",
}

// steps writes step.go: the launches of every program, in order.
func steps(in Input) *jen.File {
	f := newFile(in)
	f.Comment("The kernels, by their place in the kernel table.")
	f.Const().DefsFunc(func(g *jen.Group) {
		for i, k := range in.Plan.Kernels {
			if i == 0 {
				g.Id(goName(k)).Op("=").Iota()
			} else {
				g.Id(goName(k))
			}
		}
	})
	f.Comment("record lists the launches of one program.")
	f.Func().Id("record").Params(jen.Id("list").Func().Params(jen.Op("*").Add(rt("Recorder")))).Add(rt("Program")).Block(
		jen.Var().Id("r").Add(rt("Recorder")),
		jen.Id("list").Call(jen.Op("&").Id("r")),
		jen.Return(jen.Id("r").Dot("Launches")),
	)
	for _, p := range in.Plan.Programs {
		f.Comment(fmt.Sprintf("%s: %s.", p.Name, programDocs[p.Name]))
		f.Func().Id(p.Name).Params(jen.Id("r").Op("*").Add(rt("Recorder"))).BlockFunc(func(g *jen.Group) {
			last := ""
			for _, l := range p.Launches {
				pos := fmt.Sprintf("%s:%d:%d", in.File, l.Pos.Line, l.Pos.Col)
				if from := pos + l.Layer; from != last {
					g.Id("r").Dot("From").Call(jen.Lit(pos), jen.Lit(l.Layer))
					last = from
				}
				g.Id("r").Dot("Launch").CallFunc(func(g *jen.Group) {
					g.Id(goName(l.Kernel))
					for _, a := range l.Args {
						g.Add(ref(a))
					}
				})
			}
		})
	}
	return f
}

// goName is a kernel's constant: k07GemmNt.
func goName(k *plan.Kernel) string {
	parts := strings.Split(k.Name, "_")
	for i := 1; i < len(parts); i++ {
		parts[i] = strings.ToUpper(parts[i][:1]) + parts[i][1:]
	}
	return strings.Join(parts, "")
}

func ref(r plan.Ref) *jen.Statement {
	return rt(string(r.Region)).Dot("At").Call(jen.Lit(int(r.Offset)))
}
