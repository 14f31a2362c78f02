// Package cpu prints a plan as the C++ file of the CPU target. The kernel
// bodies are the library's (codegen/kernels); what is printed here is what is
// particular to a model: functors, shapes, and the kernel table.
package cpu

import (
	"bytes"
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

// Files returns the CPU sources of a plan: the kernels once, two files that
// compile them again for wider vectors, and the library headers.
func Files(p *plan.Plan, header string) []File {
	files := []File{{"kernels_cpu.cc", source(p, header)}}
	for _, isa := range kernels.ISAs {
		if isa.Target != "" {
			files = append(files, File{"kernels_" + isa.Name + "_amd64.cc", again(header, isa)})
		}
	}
	return append(files, File{"vg_cpu.h", kernels.CPUHeader()}, File{"vg_abi.h", kernels.ABIHeader()})
}

// again prints the file that compiles kernels_cpu.cc for another instruction
// set. The pragma must precede every declaration.
//
// Built with CGO_CXXFLAGS=-DVG_PLAIN_ONLY a package has its plain kernels alone,
// in a third of the compile time: meant for tests and debugging.
func again(header string, isa kernels.ISA) []byte {
	return fmt.Appendf(nil, "// %s\n#if defined(__x86_64__) && !defined(VG_PLAIN_ONLY)\n%s#endif\n", header, isa.Wrapper("kernels_cpu.cc"))
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
	entry(&w, p.Name)
	return w.Bytes()
}

// entry prints the run function of this instruction set and, once, the one
// that chooses among them.
func entry(w io.Writer, name string) {
	fmt.Fprintf(w, `
extern "C" void VG_CAT(vg_%[1]s_run_, VG_ISA_NAME)(const vg_program* p, vg_worker* w) { vg::vg_run(vg::table, p, w); }

#if VG_ISA == 0
#include <stdlib.h>
#include <string.h>

// VG_PLAIN_ONLY leaves the other instruction sets out, to compile faster.
#if defined(__x86_64__) && !defined(VG_PLAIN_ONLY)
#define VG_WIDE 1
#else
#define VG_WIDE 0
#endif

extern "C" void vg_%[1]s_run_avx2(const vg_program*, vg_worker*);
extern "C" void vg_%[1]s_run_avx512(const vg_program*, vg_worker*);

// The widest instruction set of this processor; VITGEN_ISA may name a lower one.
extern "C" int vg_%[1]s_isa(void) {
  int isa = 0;
#if VG_WIDE
  const char* ask = getenv("VITGEN_ISA");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  isa = avx512 ? 2 : avx2 ? 1 : 0;
  if (ask && !strcmp(ask, "plain")) isa = 0;
  if (ask && !strcmp(ask, "avx2") && isa > 1) isa = 1;
#endif
  return isa;
}

extern "C" void vg_%[1]s_run(const vg_program* p, vg_worker* w) {
#if VG_WIDE
  static const int isa = vg_%[1]s_isa();
  if (isa == 2) return vg_%[1]s_run_avx512(p, w);
  if (isa == 1) return vg_%[1]s_run_avx2(p, w);
#endif
  vg_%[1]s_run_plain(p, w);
}
#endif
`, name)
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
