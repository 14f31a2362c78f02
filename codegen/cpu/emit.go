// Package cpu prints a plan as the C++ file of the CPU target. The kernel
// bodies are the library's (codegen/kernels); what is printed here is what is
// particular to a model: functors, shapes, and the kernel table.
package cpu

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/vitgen/vitgen/codegen/cxx"
	"github.com/vitgen/vitgen/codegen/kernels"
	"github.com/vitgen/vitgen/codegen/plan"
)

// File is one file of the generated package.
type File struct {
	Name string
	Data []byte
}

// Sources are the files that say what the kernels compute. They lie in the package
// of the plain kernels; the others include them from there.
var Sources = []string{dir(kernels.ISAs[0]) + "kernels_cpu.cc", dir(kernels.ISAs[0]) + "vg_cpu.h", dir(kernels.ISAs[0]) + "vg_abi.h"}

// dir is where the package for an instruction set lies. It is a package of its own
// because the Go tool compiles the C++ of one package file by file, and packages
// side by side.
func dir(isa kernels.ISA) string { return "internal/" + isa.Name + "/" }

// Files returns the CPU sources of a plan: the kernels once, two files that
// compile them again for wider vectors, and the library headers.
func Files(p *plan.Plan, header string) []File {
	texts := [][]byte{source(p, header), kernels.CPUHeader(), kernels.ABIHeader()}
	var files []File
	sum := sha256.New()
	for i, text := range texts {
		files = append(files, File{Sources[i], text})
		sum.Write(text)
	}
	for _, isa := range kernels.ISAs {
		if isa.Target != "" {
			files = append(files, File{dir(isa) + "kernels_" + isa.Name + "_amd64.cc", again(header, isa, sum.Sum(nil))})
		}
	}
	return files
}

// again prints the file that compiles kernels_cpu.cc for another instruction
// set. The pragma must precede every declaration.
func again(header string, isa kernels.ISA, sum []byte) []byte {
	return fmt.Appendf(nil, `// %s
//
// The kernels again, for %s. The Go tool sees a change of this package's own files
// only, so here is the SHA-256 of the others, kernels_cpu.cc, vg_cpu.h and vg_abi.h:
// %x
%s`, header, isa.Name, sum, isa.Wrapper("../plain/kernels_cpu.cc"))
}

func source(p *plan.Plan, header string) []byte {
	var w bytes.Buffer
	fmt.Fprintf(&w, "// %s\n//\n", header)
	fmt.Fprintf(&w, "// The kernels of %s for the CPU: %d of them, in the order of their first launch.\n", p.File, len(p.Kernels))
	fmt.Fprintf(&w, "// n is the number of samples of a call, at most %d. Kernel bodies are in vg_cpu.h.\n", p.Batch)
	fmt.Fprint(&w, "#ifndef VG_ISA\n#define VG_ISA 0\n#endif\n#include \"vg_cpu.h\"\n\nVG_BEGIN\n")
	for _, k := range p.Kernels {
		kernel(&w, p.File, k)
	}
	fmt.Fprint(&w, "\nconst vg_kernel table[] = {\n")
	for _, k := range p.Kernels {
		fmt.Fprintf(&w, "    %s,\n", k.Name)
	}
	fmt.Fprint(&w, "};\n\nVG_END\n")
	fmt.Fprintf(&w, `
extern "C" void VG_CAT(vg_%s_run_, VG_ISA_NAME)(const vg_program* p, vg_worker* w) { vg::vg_run(vg::table, p, w); }
`, p.Name)
	return w.Bytes()
}

// kernel prints one kernel: a comment with the YAML lines it comes from, its
// functors, its function.
func kernel(w io.Writer, file string, k *plan.Kernel) {
	fmt.Fprint(w, "\n")
	for _, u := range cxx.Uses(file, k) {
		fmt.Fprintf(w, "// %s\n", u)
	}
	fmt.Fprintf(w, "// %s\n", k.Doc)
	e := &emitter{cxx.Names{K: k, Integer: "%s"}}
	var functors []string
	for _, f := range k.Functors {
		members := cxx.Functor(w, k, f, e)
		functors = append(functors, fmt.Sprintf("  const %s %s%s;\n", cxx.StructName(k, f), f.Name, cxx.Init(members)))
	}
	fmt.Fprintf(w, "void %s(const vg_call& c) {\n", k.Name)
	e.arguments(w)
	for _, f := range functors {
		io.WriteString(w, f)
	}
	e.body(w)
	fmt.Fprint(w, "}\n")
}
