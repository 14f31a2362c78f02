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
	"pack":    "parameters → the packed weights that forward and eval read; due when parameters have changed",
}

// steps writes step.go: the launches of every program, in order.
func steps(in Input) *jen.File {
	f := newFile(in)
	f.Comment("The kernels, by their place in the kernel table.")
	var names []string
	for _, k := range in.Plan.Kernels {
		names = append(names, goName("", k.Name))
	}
	constants(f, names)
	f.Comment("record lists the launches of one program.")
	f.Func().Id("record").Params(jen.Id("list").Func().Params(jen.Op("*").Add(rt("Recorder")))).Add(rt("Program")).Block(
		jen.Var().Id("r").Add(rt("Recorder")),
		jen.Id("list").Call(jen.Op("&").Id("r")),
		jen.Return(jen.Id("r").Dot("Launches")),
	)
	addressHelpers(f, in)
	for _, p := range in.Plan.All() {
		f.Comment(fmt.Sprintf("%s: %s.", p.Name, programDocs[p.Name]))
		f.Func().Id(p.Name).Params(jen.Id("r").Op("*").Add(rt("Recorder"))).BlockFunc(func(g *jen.Group) {
			w := launchWriter{in: in, g: g}
			for _, l := range p.Launches {
				w.launch(goName("", l.Kernel.Name), l.Args, l)
			}
		})
	}
	return f
}

// constants numbers the kernels.
func constants(f *jen.File, names []string) {
	f.Const().DefsFunc(func(g *jen.Group) {
		for i, name := range names {
			if i == 0 {
				g.Id(name).Op("=").Iota()
			} else {
				g.Id(name)
			}
		}
	})
}

// launchWriter prints launches, and where they come from when that changes.
type launchWriter struct {
	in   Input
	g    *jen.Group
	last string
}

// launch prints one launch of one or more kernels; the first names the place.
func (w *launchWriter) launch(kernel string, args []plan.Ref, parts ...plan.Launch) {
	at := parts[0]
	pos := fmt.Sprintf("%s:%d:%d", w.in.File, at.Pos.Line, at.Pos.Col)
	if from := pos + at.Layer; from != w.last {
		w.g.Id("r").Dot("From").Call(jen.Lit(pos), jen.Lit(at.Layer))
		w.last = from
	}
	for _, l := range parts {
		doc := l.Kernel.Doc
		if len(parts) > 1 {
			doc = fmt.Sprintf("%s   %s:%d:%d %s", doc, w.in.File, l.Pos.Line, l.Pos.Col, l.Layer)
		}
		w.g.Comment(doc)
	}
	w.g.Id("r").Dot("Launch").CallFunc(func(g *jen.Group) {
		g.Id(kernel)
		for _, a := range args {
			g.Add(address(w.in.Plan, a))
		}
	})
}

// goName is a kernel's constant: k07GemmNt, or cudaK07GemmNt.
func goName(prefix, kernel string) string {
	parts := strings.Split(kernel, "_")
	for i := range parts {
		if i > 0 || prefix != "" {
			parts[i] = strings.ToUpper(parts[i][:1]) + parts[i][1:]
		}
	}
	return prefix + strings.Join(parts, "")
}

func ref(r plan.Ref) *jen.Statement {
	return rt(string(r.Region)).Dot("At").Call(jen.Lit(int(r.Offset)))
}

// named are the regions laid out by parameter, and what an address in them is
// called in generated code.
var named = map[plan.Region]string{plan.Params: "param", plan.Grads: "grad", plan.State0: "state0", plan.State1: "state1", plan.Average: "average", plan.Half: "half"}

// address prints a launch's argument: a parameter (its gradient, its state) by
// name, anything else by its offset.
func address(p *plan.Plan, r plan.Ref) jen.Code {
	fn, ok := named[r.Region]
	if !ok {
		return ref(r)
	}
	size := 4 // bytes of an element
	if r.Region == plan.Half {
		size = 2
	}
	elem := int(r.Offset) / size
	for _, q := range p.Layout.Params {
		if q.Offset <= elem && elem < q.Offset+product(q.Shape) {
			at := jen.Id(fn + "At").Call(jen.Lit(q.Name))
			if rest := int(r.Offset) - size*q.Offset; rest != 0 {
				at = jen.Id(fn+"At").Call(jen.Lit(q.Name), jen.Lit(rest))
			}
			return at
		}
	}
	return ref(r)
}

// addressHelpers writes the functions that address prints calls of, those that
// are called.
func addressHelpers(f *jen.File, in Input) {
	used := map[plan.Region]bool{}
	for _, p := range []*plan.Plan{in.Plan, in.CUDA} {
		if p == nil {
			continue
		}
		for _, pr := range p.All() {
			for _, l := range pr.Launches {
				for _, a := range l.Args {
					used[a.Region] = true
				}
			}
		}
	}
	for _, r := range []plan.Region{plan.Params, plan.Grads, plan.State0, plan.State1, plan.Average, plan.Half} {
		if !used[r] {
			continue
		}
		fn := named[r] + "At"
		f.Comment(fmt.Sprintf("%s is where the parameter lies in region %s, or bytes behind its start.", fn, r))
		f.Func().Id(fn).Params(jen.Id("name").String(), jen.Id("bytes").Op("...").Int64()).Add(rt("Ref")).Block(
			jen.Return(rt("ParamRef").Call(jen.Id("params"), rt(string(r)), jen.Id("name"), jen.Id("bytes").Op("..."))))
	}
}
