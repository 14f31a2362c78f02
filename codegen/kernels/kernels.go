// Package kernels holds the kernel library that generated trainers are built
// from: real C++ headers, compilable where they lie, embedded here and handed
// out as text. It knows how much workspace the kernels need, and nothing of
// models, graphs or the generated code that calls the headers.
package kernels

import (
	"bytes"
	"embed"
	"fmt"
	"path"
	"regexp"
	"strings"
)

//go:embed common/*.h cpu/*.h cuda/*.cuh
var files embed.FS

// An ISA is one instruction set that the CPU kernels are compiled for.
type ISA struct {
	Name   string // as in VG_ISA_NAME: plain, avx2, avx512
	Level  int    // the value of VG_ISA
	Target string // what #pragma GCC target gets; empty for plain
}

// ISAs lists the instruction sets of a build, the plainest first. All but the
// first exist on amd64 only.
var ISAs = []ISA{
	{"plain", 0, ""},
	{"avx2", 1, "avx2,fma"},
	{"avx512", 2, "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"},
}

// Wrapper is a source file that compiles include, the emitted kernels, for this
// instruction set. Plain needs none: the kernels compile for it as they are.
func (isa ISA) Wrapper(include string) []byte {
	return fmt.Appendf(nil, "#pragma GCC target(%q)\n#define VG_ISA %d\n#include %q\n", isa.Target, isa.Level, include)
}

// Optimize is the level of optimization among CompileFlags: with -O3 the kernels are
// as fast and take longer to compile.
const Optimize = "-O2"

// CompileFlags are the g++ flags the kernels are written for. Value-changing
// optimizations are not among them, save fused multiply-add: NaN and infinity
// must propagate. -g1 takes back most of what cgo's -g costs, a quarter of the
// compile time: functions and lines are kept, for profiles and stack traces. All of
// them are flags that cgo lets a package ask for.
var CompileFlags = []string{
	Optimize, "-g1", "-std=gnu++17", "-fno-exceptions", "-fno-rtti",
	"-Wall", "-Wextra", "-Wno-psabi",
}

// CPUHeader returns the whole CPU library as one self-contained header.
func CPUHeader() []byte { return amalgamate("cpu/vitgen.h") }

// CUDAHeader returns the whole CUDA library as one self-contained header. For
// the kernel simulator it includes <vg_sim.h>, which is not part of it.
func CUDAHeader() []byte { return amalgamate("cuda/vitgen.cuh") }

// ABIHeader returns the contract between host and kernels alone. It may be
// included beside CPUHeader's text, which contains it.
func ABIHeader() []byte { return amalgamate("common/abi.h") }

var (
	localInclude = regexp.MustCompile(`^#include "([^"]+)"$`)
	notGuard     = regexp.MustCompile(`[^A-Z0-9]+`)
)

// amalgamate concatenates a header and what it includes, each before its first
// user, each in an include guard.
func amalgamate(root string) []byte {
	var out bytes.Buffer
	seen := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		text, err := files.ReadFile(name)
		if err != nil {
			panic("BUG: kernel library: " + err.Error())
		}
		var body []string
		for line := range strings.Lines(string(text)) {
			trimmed := strings.TrimSpace(line)
			if m := localInclude.FindStringSubmatch(trimmed); m != nil {
				add(path.Join(path.Dir(name), m[1]))
			} else if trimmed != "#pragma once" {
				body = append(body, line)
			}
		}
		guard := "VITGEN_" + strings.Trim(notGuard.ReplaceAllString(strings.ToUpper(name), "_"), "_")
		fmt.Fprintf(&out, "#ifndef %[1]s\n#define %[1]s\n\n%[2]s\n#endif  // %[1]s\n\n", guard, strings.Join(body, ""))
	}
	add(root)
	return out.Bytes()
}
