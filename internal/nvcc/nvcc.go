// Package nvcc turns the emitted kernels.cu of a model into PTX, the portable
// machine code of NVIDIA chips. It finds a compiler (nvcc, or NVRTC where there
// is no nvcc), runs it, keeps results in a cache by content, and reports errors
// by kernel and spec line. It knows the comments that mark kernels in a source
// file, and nothing else of models or of the code that is generated for them.
package nvcc

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// SourceName is the file of a generated package that holds its CUDA kernels.
const SourceName = "kernels.cu"

// Input is one source file and what to make of it.
type Input struct {
	Source   []byte
	Headers  map[string][]byte // by the name they are included with
	Archs    []string          // sm_80, …; PTX for each
	Cubin    bool              // machine code too, and the registers it takes
	Compiler *Compiler
	Cache    *Cache        // nil: none
	Timeout  time.Duration // of one run of the compiler; 0: DefaultTimeout
}

// DefaultTimeout is far above what the largest model takes.
const DefaultTimeout = 15 * time.Minute

// Report says what a compilation did.
type Report struct {
	Archs    []ArchReport // in the order of Input.Archs
	Warnings []Diagnostic
	Took     time.Duration
}

// ArchReport is the part of one architecture.
type ArchReport struct {
	Arch      string
	Cached    bool        // nothing had to be compiled
	Functions []Resources // with Input.Cubin and nvcc: what each function takes
	Remarks   []string    // with Input.Cubin and nvcc: ptxas's warnings and remarks on lost performance
}

// Cached reports whether all came from the cache.
func (r *Report) Cached() bool {
	return !slices.ContainsFunc(r.Archs, func(a ArchReport) bool { return !a.Cached })
}

// Compile returns kernels.sm_80.ptx and so on, and with Input.Cubin
// kernels.sm_80.cubin. The first line of PTX is Stamp's. Mistakes in the source
// come back as *Error.
func Compile(ctx context.Context, in Input) (map[string][]byte, Report, error) {
	start := time.Now()
	units := make([]*unit, len(in.Archs))
	sem := make(chan struct{}, max(1, runtime.GOMAXPROCS(0)))
	var wg sync.WaitGroup
	for i, arch := range in.Archs {
		units[i] = &unit{in: &in, arch: arch, index: Kernels(in.Source)}
		wg.Go(func() {
			sem <- struct{}{}
			defer func() { <-sem }()
			units[i].err = units[i].build(ctx)
		})
	}
	wg.Wait()
	return collect(&in, units, start)
}

// collect puts the architectures' parts together. The same mistake is in all of
// them, and is reported once.
func collect(in *Input, units []*unit, start time.Time) (map[string][]byte, Report, error) {
	report := Report{}
	files := map[string][]byte{}
	stamp := Stamp(in.Source, in.Headers) + "\n"
	var failed []Diagnostic
	var other []error
	for _, u := range units {
		var e *Error
		if errors.As(u.err, &e) {
			failed = append(failed, e.Diagnostics...)
		} else if u.err != nil {
			other = append(other, u.err)
		}
		report.Warnings = append(report.Warnings, u.warnings...)
		report.Archs = append(report.Archs, ArchReport{u.arch, u.cached, u.functions, u.remarks})
		files[PTXName(u.arch)] = append([]byte(stamp), u.ptx...)
		if in.Cubin {
			files["kernels."+u.arch+".cubin"] = u.cubin
		}
	}
	report.Warnings = distinct(report.Warnings)
	report.Took = time.Since(start)
	if len(failed) > 0 {
		return nil, report, &Error{Diagnostics: distinct(failed)}
	}
	if len(other) > 0 {
		return nil, report, other[0]
	}
	return files, report, nil
}

// PTXName names the PTX of an architecture.
func PTXName(arch string) string { return "kernels." + arch + ".ptx" }

// Stamp is the first line of PTX that was made of this source: a comment with
// the SHA-256 of kernels.cu and of each header. Its beginning up to the first
// comma depends on kernels.cu alone.
func Stamp(source []byte, headers map[string][]byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%x", stampStart, sha256.Sum256(source))
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		fmt.Fprintf(&b, ", %s sha256:%x", name, sha256.Sum256(headers[name]))
	}
	return b.String()
}

const stampStart = "// vitgen " + SourceName + " sha256:"

// unit is the compilation for one architecture.
type unit struct {
	in    *Input
	arch  string
	index []Kernel

	ptx, cubin []byte
	cached     bool
	warnings   []Diagnostic
	functions  []Resources
	remarks    []string
	err        error
}

// build makes the PTX and, of it, the machine code: what ptxas says is then of
// the very PTX that a driver will translate.
func (u *unit) build(ctx context.Context) error {
	u.cached = true
	ptx, err := u.step(ctx, "ptx", nil)
	if err != nil {
		return err
	}
	u.ptx = ptx.Output
	u.warnings = u.diagnostics(ptx.Log, "warning", nil)
	if !u.in.Cubin {
		return nil
	}
	cubin, err := u.step(ctx, "cubin", ptx.Output)
	if err != nil {
		return err
	}
	u.cubin = cubin.Output
	u.warnings = append(u.warnings, u.diagnostics(cubin.Log, "warning", ptx.Output)...)
	u.functions, u.remarks = parsePtxas(cubin.Log)
	return nil
}

// step takes one output from the cache or from the compiler.
func (u *unit) step(ctx context.Context, kind string, ptx []byte) (result, error) {
	job := job{
		kind: kind, arch: u.arch, ptx: ptx,
		source: u.in.Source, headers: u.in.Headers, timeout: u.in.Timeout,
	}
	if job.timeout == 0 {
		job.timeout = DefaultTimeout
	}
	key := u.in.Compiler.key(&job)
	if r, ok := u.in.Cache.get(key); ok {
		return r, nil
	}
	u.cached = false
	r, err := u.in.Compiler.run(ctx, &job)
	if err != nil {
		if kind == "ptx" {
			ptx = r.Output
		}
		return r, u.explain(r.Log, err, ptx)
	}
	u.in.Cache.put(key, r)
	return r, nil
}

// result is one output with what the compiler said.
type result struct {
	Output []byte
	Log    string
}
