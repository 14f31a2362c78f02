// Package cuda prints a plan as the CUDA source of a generated package. The
// kernel bodies are the library's (codegen/kernels/cuda); what is printed here
// is what is particular to a model: functors, shapes, tiles and launches.
//
// It decides nothing: tiles, grids and which kernels share a launch come from
// codegen/plan.
package cuda

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/vitgen/vitgen/codegen/cxx"
	"github.com/vitgen/vitgen/codegen/kernels"
	"github.com/vitgen/vitgen/codegen/plan"
)

// File is one file of the generated package.
type File struct {
	Name string
	Data []byte
}

// Files returns the CUDA source of a plan and the library it includes.
func Files(p *plan.Plan, header string) []File {
	return []File{{"kernels.cu", Source(p, header)}, {"vg_cuda.h", kernels.CUDAHeader()}}
}

// Source prints the kernels of a plan.
func Source(p *plan.Plan, header string) []byte {
	var w bytes.Buffer
	fmt.Fprintf(&w, "// %s\n//\n", header)
	fmt.Fprintf(&w, "// The kernels of %s for CUDA, in the order of their first launch. Matrix products\n", p.File)
	fmt.Fprintf(&w, "// multiply in %s. n is the number of samples of a call, at most %d. Kernel bodies\n", p.Math, p.Batch)
	fmt.Fprint(&w, "// are in vg_cuda.h. Kernels that share a launch are functions, called by a kernel\n")
	fmt.Fprint(&w, "// that gives each a range of its blocks.\n")
	fmt.Fprint(&w, "#include \"vg_cuda.h\"\n")
	programs(&w, p)
	fixed(&w, p)
	return w.Bytes()
}

// programs prints the kernels that programs launch.
func programs(w io.Writer, p *plan.Plan) {
	joined := p.Device.Joined()
	printed := map[*plan.Kernel]bool{}
	for _, k := range p.Device.Kernels {
		if len(k.Parts) == 0 {
			continue // fixed prints it
		}
		for _, q := range k.Parts {
			if !printed[q.Kernel] {
				printed[q.Kernel] = true
				part(w, p, k, q.Kernel, joined[q.Kernel])
			}
		}
		if joined[k.Parts[0].Kernel] {
			together(w, k)
		}
	}
}

// part prints one kernel of the plan: a comment with the YAML lines it comes
// from, its functors, and its function or, if it is never joined to others, its
// __global__ function.
func part(w io.Writer, p *plan.Plan, d *plan.DeviceKernel, k *plan.Kernel, joined bool) {
	fmt.Fprint(w, "\n")
	for _, u := range cxx.Uses(p.File, k) {
		fmt.Fprintf(w, "// %s\n", u)
	}
	fmt.Fprintf(w, "// %s\n", k.Doc)
	if !joined {
		fmt.Fprintf(w, "// %s\n", launchText(d))
	}
	e := newEmitter(k, p.Math)
	var functors []string
	for _, f := range k.Functors {
		members := cxx.Functor(w, k, f, e)
		functors = append(functors, fmt.Sprintf("  const %s %s%s;\n", cxx.StructName(k, f), f.Name, cxx.Init(members)))
	}
	var body bytes.Buffer
	e.body(&body)
	for _, line := range e.types {
		fmt.Fprintln(w, line)
	}
	params := e.params("", !joined)
	if joined {
		fmt.Fprintf(w, "VG_FN void %s(%s) {\n", partName(k), strings.Join(append([]string{"const vg_call& c"}, params...), ", "))
	} else {
		resident := e.resident
		if resident == "" {
			resident = fmt.Sprint(d.PerSM)
		}
		signature(w, d, resident, params)
		call(w)
	}
	for _, f := range functors {
		io.WriteString(w, f)
	}
	w.Write(body.Bytes())
	fmt.Fprint(w, "}\n")
	if !joined {
		fmt.Fprintf(w, "VG_EXPORT(%s)\n", d.Name)
	}
}

// partName is the function of a kernel that shares launches. It may have some of
// its own too, so the plain name belongs to the __global__ function.
func partName(k *plan.Kernel) string { return k.Name + "_part" }

// launchText tells how a kernel is launched. The tools that check occupancy
// read it.
func launchText(d *plan.DeviceKernel) string {
	return fmt.Sprintf("grid %d, block %d, shared %d bytes", d.Grid, d.Threads, d.Shared)
}

// signature prints the head of a __global__ function.
func signature(w io.Writer, d *plan.DeviceKernel, resident string, params []string) {
	fmt.Fprintf(w, "VG_KERNEL(%d, %s) %s(const vg_state* __restrict__ state, char* workspace, uint32_t* counters", d.Threads, resident, d.Name)
	for i, p := range params {
		if i%4 == 0 {
			fmt.Fprintf(w, ",\n    %s", p)
		} else {
			fmt.Fprintf(w, ", %s", p)
		}
	}
	fmt.Fprint(w, ") {\n")
}

// together prints the kernel that runs several in one launch.
func together(w io.Writer, d *plan.DeviceKernel) {
	fmt.Fprint(w, "\n")
	if len(d.Parts) > 1 {
		fmt.Fprintf(w, "// One launch for %d kernels that wait for nothing of each other.\n", len(d.Parts))
	}
	fmt.Fprintf(w, "// %s\n", launchText(d))
	var params []string
	calls := make([]string, len(d.Parts))
	for i, q := range d.Parts {
		prefix := ""
		if len(d.Parts) > 1 {
			prefix = fmt.Sprintf("%c_", 'a'+i)
		}
		params = append(params, newEmitter(q.Kernel, "").params(prefix, true)...)
		args := []string{"c"}
		for _, a := range q.Kernel.Args {
			args = append(args, prefix+a.Name)
		}
		calls[i] = fmt.Sprintf("%s(%s);", partName(q.Kernel), strings.Join(args, ", "))
	}
	signature(w, d, fmt.Sprint(d.PerSM), params)
	fmt.Fprint(w, "  const int block = vg_block_index();\n")
	for i, q := range d.Parts {
		blocks, condition := q.Kernel.Part.Blocks, ""
		if i < len(d.Parts)-1 {
			condition = fmt.Sprintf("if (block < %d) ", q.FirstBlock+blocks)
		}
		if i > 0 {
			condition = "} else " + condition
		}
		fmt.Fprintf(w, "  %s{\n    const vg_call c{state, workspace%s, counters%s, block%s, %d};\n    %s\n", condition,
			plus(q.Workspace), plus(int64(q.Counters)), minus(q.FirstBlock), blocks, calls[i])
	}
	fmt.Fprintf(w, "  }\n}\nVG_EXPORT(%s)\n", d.Name)
}

func plus(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" + %d", n)
}

func minus(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" - %d", n)
}
