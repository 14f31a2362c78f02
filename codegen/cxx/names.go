package cxx

import (
	"fmt"
	"io"
	"strings"

	"github.com/vitgen/vitgen/codegen/plan"
	"github.com/vitgen/vitgen/ir"
)

// Names is what a kernel's function calls its arguments and functors, as
// expressions of the library's calls. It implements Args for a function that has
// them as locals or parameters, and a vg_call c.
type Names struct {
	K       *plan.Kernel
	Integer string // format of an integer argument as a uint32_t: "%s" if it is one
}

func (n Names) Pointer(i int, _ plan.ArgType) string { return n.K.Args[i].Name }
func (n Names) Int(i int) string                     { return fmt.Sprintf(n.Integer, n.K.Args[i].Name) }
func (n Names) Step(field string) string             { return "c.step()." + field }
func (n Names) StepRef() string                      { return "c.step()" }

// Ptr is argument i as a pointer, or nullptr for -1.
func (n Names) Ptr(i int) string {
	if i < 0 {
		return "nullptr"
	}
	return n.K.Args[i].Name
}

// IntOr0 is argument i as an integer, or 0 for -1.
func (n Names) IntOr0(i int) string {
	if i < 0 {
		return "0"
	}
	return n.Int(i)
}

// Source is an operand as a source functor.
func (n Names) Source(o plan.Operand) string {
	if o.Functor != nil {
		return o.Functor.Name
	}
	return fmt.Sprintf("vg_matrix{%s, %d}", n.Ptr(o.Arg), o.LD)
}

// Sink is a functor, or the sink that takes nothing.
func (n Names) Sink(f *plan.Functor) string {
	if f == nil {
		return "vg_none{}"
	}
	return f.Name
}

// Row is the sink that stores one row at argument i; -1: nobody wants it.
func (n Names) Row(i int) string {
	if i < 0 {
		return "vg_none{}"
	}
	return fmt.Sprintf("vg_store_matrix{%s, 0}", n.Ptr(i))
}

// Labels is what the rows of a loss are to be: one class each, or two that share
// a row.
func (n Names) Labels(b *plan.CrossEntropy) string {
	if b.Label2 < 0 {
		return n.Ptr(b.Label)
	}
	return fmt.Sprintf("vg_mixed_label{%s, %s, %s}", n.Ptr(b.Label), n.Ptr(b.Label2), n.Ptr(b.Mix))
}

// Optimizer prints the calls that update the parameter arena, one for each range
// of it. more are further arguments of a target's own that point into the arena.
func (n Names) Optimizer(w io.Writer, b *plan.Optimizer, more ...int) {
	attr := func(key string) float64 { return b.Attrs.Get(key).(float64) }
	for _, r := range b.Ranges() {
		at := func(i int) string {
			if i < 0 || r.From == 0 {
				return n.Ptr(i)
			}
			return fmt.Sprintf("%s + %d", n.Ptr(i), r.From)
		}
		args := []string{"c", fmt.Sprint(r.N), at(b.P), at(b.G)}
		var function string
		switch b.Op {
		case ir.OpSGD:
			function = "vg_sgd<false>"
			args = append(args, "nullptr", "0.0f")
		case ir.OpSGDMomentum:
			function = fmt.Sprintf("vg_sgd<%v>", b.Attrs.Get("nesterov"))
			args = append(args, at(b.S0), Float(attr("momentum")))
		case ir.OpAdamW:
			function = "vg_adamw"
			args = append(args, at(b.S0), at(b.S1), Double(attr("beta1")), Double(attr("beta2")), Float(attr("eps")))
		default:
			panic("BUG: no optimizer text for " + b.Op.String())
		}
		args = append(args, Float(r.Decay), n.Ptr(b.Clip))
		for _, i := range more {
			args = append(args, at(i))
		}
		if b.Average >= 0 {
			args = append(args, at(b.Average))
		}
		fmt.Fprintf(w, "  %s(%s);\n", function, strings.Join(args, ", "))
	}
}
