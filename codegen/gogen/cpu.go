package gogen

import (
	"fmt"
	"strings"

	"github.com/dave/jennifer/jen"

	"github.com/vitgen/vitgen/codegen/kernels"
)

// cpu writes the file that has the kernels of each instruction set.
func cpu(in Input) *jen.File {
	f := newFile(in)
	var tags []string
	for _, isa := range kernels.ISAs {
		tags = append(tags, tag(isa))
	}
	comment(f, "cpuCode is the CPU kernels that are built in: for all instruction sets, of which the",
		"best is used that the machine has; or, with build tags, for those of them that are",
		"named: "+strings.Join(tags, ", ")+". Their source is internal/plain/kernels_cpu.cc.")
	f.Var().Id("cpuCode").Add(rt("CPUCode"))
	return f
}

// cpuKernels writes the file that adds the kernels of one instruction set, if they
// are built in.
func cpuKernels(in Input, isa kernels.ISA) *jen.File {
	f := newFile(in)
	f.HeaderComment("//go:build " + constraint(isa))
	path := in.ImportPath + "/internal/" + isa.Name
	f.ImportName(path, isa.Name)
	f.Func().Id("init").Params().Block(
		jen.Id("cpuCode").Op("=").Append(jen.Id("cpuCode"), rt("CPUKernels").Values(
			jen.Id("ISA").Op(":").Lit(isa.Name),
			jen.Id("Entry").Op(":").Add(rt("CPUEntry")).Values(jen.Id("C").Op(":").Qual(path, "Entry").Call()),
		)))
	return f
}

// cpuEntry writes the cgo file of one instruction set: flags, a declaration, and
// the address of the function that runs programs. Workers enter the kernels from C,
// not through Go.
func cpuEntry(in Input, isa kernels.ISA) *jen.File {
	f := jen.NewFile(isa.Name)
	f.HeaderComment(in.Header)
	f.HeaderComment("//go:build " + constraint(isa))
	f.PackageComment(fmt.Sprintf("Package %s is the kernels of %s for the CPU, compiled for the instruction set %[1]s.", isa.Name, in.File))
	run := fmt.Sprintf("vg_%s_run_%s", in.Spec.Name, isa.Name)
	abi := "vg_abi.h"
	if isa.Target != "" {
		abi = "../plain/" + abi
	}
	f.CgoPreamble(fmt.Sprintf(`#cgo CXXFLAGS: %s
#cgo LDFLAGS: -lm
#include %q

void %s(const vg_program* p, vg_worker* w);`, strings.Join(kernels.CompileFlags, " "), abi, run))
	f.Comment("Entry is the address of the C function that a worker enters.")
	f.Func().Id("Entry").Params().Qual("unsafe", "Pointer").Block(
		jen.Return(jen.Qual("unsafe", "Pointer").Call(jen.Qual("C", run))))
	return f
}

func tag(isa kernels.ISA) string { return "vitgen_" + isa.Name }

// constraint says when an instruction set is built in: when its tag is given, or
// none is. Elsewhere than on amd64 there is only plain, which tags cannot remove.
func constraint(isa kernels.ISA) string {
	var others []string
	for _, other := range kernels.ISAs {
		if other.Name != isa.Name {
			others = append(others, tag(other))
		}
	}
	wanted := fmt.Sprintf("%s || !(%s)", tag(isa), strings.Join(others, " || "))
	if isa.Target == "" {
		return "!amd64 || " + wanted
	}
	return "amd64 && (" + wanted + ")"
}
