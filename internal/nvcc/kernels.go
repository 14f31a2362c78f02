package nvcc

import (
	"regexp"
	"strconv"
	"strings"
)

// Kernel is one kernel of a source file and where it comes from. Kernels that
// share a launch are functions (Launched is false) that a kernel without an
// origin of its own calls; it gets the origin of the first.
type Kernel struct {
	Name     string // k24_gemm_nt
	Origin   string // vit.yaml:33:15; the first, if it serves several layers
	Layer    string // blks.0.mlp.dense1
	Launched bool   // a __global__ function
	First    int    // line of the comment above it
	Last     int    // last line before what follows

	// Of the launch, by the comment "grid 592, block 256, shared 98304 bytes"
	// above the kernel. Block is 0 where there is none.
	Grid, Block, Shared int
	Bound               string // the threads that the kernel is compiled for, as written: 256
}

// The lines of a source file that this package understands.
var (
	originLine = regexp.MustCompile(`^// (.+?:\d+:\d+)(?: (.*))?$`)
	launchLine = regexp.MustCompile(`^// grid (\d+), block (\d+), shared (\d+) bytes$`)
	kernelLine = regexp.MustCompile(`^VG_KERNEL\((.*?),[^,]*?\)\s+(\w+)\(`)
	partLine   = regexp.MustCompile(`^VG_FN void (\w+)\(const vg_call& c\b`)
	callText   = regexp.MustCompile(`\b(\w+)\(c\b`)
)

// Kernels lists the kernels of an emitted source file in order. Above each is a
// comment that names the spec lines it is for; its functors follow, then its
// function:
//
//	// vit.yaml:33:15 blks.0.mlp.dense1
//	// linear + add + gelu + dropout   [n·37×512]·[2048×512]ᵀ
//	// grid 592, block 256, shared 98304 bytes
//	struct k24_epilogue { … };
//	VG_KERNEL(256, 1) k24_gemm_nt(…) { … }
func Kernels(source []byte) []Kernel {
	s := scanner{parts: map[string]*Kernel{}}
	for text := range strings.Lines(string(source)) {
		s.line++
		s.read(strings.TrimRight(text, "\r\n"))
	}
	all := make([]Kernel, len(s.found))
	for i, k := range s.found {
		all[i] = *k
		all[i].Last = s.line
		if i+1 < len(s.found) {
			all[i].Last = s.found[i+1].First - 1
		}
	}
	return all
}

type scanner struct {
	line    int
	comment int     // first line of the comment that is being read, or 0
	next    *Kernel // what comments say of the function to come
	found   []*Kernel
	parts   map[string]*Kernel
}

func (s *scanner) read(text string) {
	if !strings.HasPrefix(text, "//") {
		s.comment = 0
		s.code(text)
		return
	}
	if s.comment == 0 {
		s.comment = s.line
	}
	if m := originLine.FindStringSubmatch(text); m != nil {
		if k := s.described(); k.Origin == "" {
			k.Origin, k.Layer = m[1], m[2]
		}
	} else if m := launchLine.FindStringSubmatch(text); m != nil {
		k := s.described()
		k.Grid, k.Block, k.Shared = number(m[1]), number(m[2]), number(m[3])
	}
}

// described is the kernel that the current comment is about: a new one unless
// an earlier line of the same comment has begun it.
func (s *scanner) described() *Kernel {
	if s.next == nil || s.next.First != s.comment {
		s.next = &Kernel{First: s.comment}
	}
	return s.next
}

func (s *scanner) code(text string) {
	var name, bound string
	if m := kernelLine.FindStringSubmatch(text); m != nil {
		bound, name = strings.TrimSpace(m[1]), m[2]
	} else if m := partLine.FindStringSubmatch(text); m != nil {
		name = m[1]
	} else {
		s.call(text)
		return
	}
	k := s.next
	if k == nil {
		k = &Kernel{First: s.line}
	}
	s.next = nil
	k.Name, k.Bound, k.Launched = name, bound, bound != ""
	s.found = append(s.found, k)
	s.parts[name] = k
}

// call looks for a part that the kernel being read calls.
func (s *scanner) call(text string) {
	if len(s.found) == 0 || s.next != nil {
		return
	}
	k := s.found[len(s.found)-1]
	if m := callText.FindStringSubmatch(text); m != nil && k.Origin == "" && s.parts[m[1]] != nil {
		k.Origin, k.Layer = s.parts[m[1]].Origin, s.parts[m[1]].Layer
	}
}

func number(s string) int {
	n, _ := strconv.Atoi(s) // digits, by the pattern
	return n
}

// kernelAt finds the kernel that a line of the source belongs to, or nil.
func kernelAt(all []Kernel, line int) *Kernel {
	for i := range all {
		if all[i].First <= line && line <= all[i].Last {
			return &all[i]
		}
	}
	return nil
}

func kernelNamed(all []Kernel, name string) *Kernel {
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}
