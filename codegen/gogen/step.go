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
	addressHelpers(f, in.Plan)
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
				g.Comment(l.Kernel.Doc)
				g.Id("r").Dot("Launch").CallFunc(func(g *jen.Group) {
					g.Id(goName(l.Kernel))
					for _, a := range l.Args {
						g.Add(address(in.Plan, a))
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

// named are the regions laid out by parameter, and what an address in them is
// called in generated code.
var named = map[plan.Region]string{plan.Params: "param", plan.Grads: "grad", plan.State0: "state0", plan.State1: "state1"}

// address prints a launch's argument: a parameter (its gradient, its state) by
// name, anything else by its offset.
func address(p *plan.Plan, r plan.Ref) jen.Code {
	fn, ok := named[r.Region]
	if !ok {
		return ref(r)
	}
	elem := int(r.Offset / 4)
	for _, q := range p.Layout.Params {
		if q.Offset <= elem && elem < q.Offset+product(q.Shape) {
			at := jen.Id(fn + "At").Call(jen.Lit(q.Name))
			if rest := int(r.Offset) - 4*q.Offset; rest != 0 {
				at = jen.Id(fn+"At").Call(jen.Lit(q.Name), jen.Lit(rest))
			}
			return at
		}
	}
	return ref(r)
}

// addressHelpers writes the functions that address prints calls of, those that
// are called.
func addressHelpers(f *jen.File, p *plan.Plan) {
	used := map[plan.Region]bool{}
	for _, pr := range p.Programs {
		for _, l := range pr.Launches {
			for _, a := range l.Args {
				used[a.Region] = true
			}
		}
	}
	for _, r := range []plan.Region{plan.Params, plan.Grads, plan.State0, plan.State1} {
		if !used[r] {
			continue
		}
		fn := named[r] + "At"
		f.Comment(fmt.Sprintf("%s is where the parameter lies in region %s, or bytes behind its start.", fn, r))
		f.Func().Id(fn).Params(jen.Id("name").String(), jen.Id("bytes").Op("...").Int64()).Add(rt("Ref")).Block(
			jen.Return(rt("ParamRef").Call(jen.Id("params"), rt(string(r)), jen.Id("name"), jen.Id("bytes").Op("..."))))
	}
}
