package nvcc

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Diagnostic is one message of a compiler about the source.
type Diagnostic struct {
	Origin string // vit.yaml:33:15; empty if it belongs to no kernel
	Kernel string // k24_gemm_nt
	Tool   string // nvcc, nvrtc or ptxas
	Level  string // error or warning
	Text   string
	Place  string // kernels.cu:812, or empty
}

func (d Diagnostic) String() string {
	text := fmt.Sprintf("%s: %s: %s", d.Tool, d.Level, d.Text)
	switch {
	case d.Kernel != "" && d.Place != "":
		text = fmt.Sprintf("kernel %s: %s (%s)", d.Kernel, text, d.Place)
	case d.Kernel != "":
		text = fmt.Sprintf("kernel %s: %s", d.Kernel, text)
	case d.Place != "":
		text = d.Place + ": " + text
	}
	if d.Origin != "" {
		text = d.Origin + ": " + text
	}
	return text
}

// Error is what is wrong with a source, one line each.
type Error struct{ Diagnostics []Diagnostic }

const maxDiagnostics = 20

func (e *Error) Error() string {
	var lines []string
	for _, d := range e.Diagnostics[:min(len(e.Diagnostics), maxDiagnostics)] {
		lines = append(lines, d.String())
	}
	if n := len(e.Diagnostics) - maxDiagnostics; n > 0 {
		lines = append(lines, fmt.Sprintf("… and %d more errors", n))
	}
	return strings.Join(lines, "\n")
}

func distinct(all []Diagnostic) []Diagnostic {
	seen := map[Diagnostic]bool{}
	return slices.DeleteFunc(slices.Clone(all), func(d Diagnostic) bool {
		was := seen[d]
		seen[d] = true
		return was
	})
}

var (
	// kernels.cu(11): error: …   kernels.cu(10): warning #177-D: …
	frontendLine = regexp.MustCompile(`^(\S+)\((\d+)\): (?:catastrophic |internal )?(error|warning)(?: #[\w-]+)?: (.*)$`)
	// kernels.cu:1:10: fatal error: …, from the host compiler's preprocessor
	preprocessorLine = regexp.MustCompile(`^(\S+?):(\d+):(?:\d+:)? (?:fatal )?(error|warning): (.*)$`)
	// ptxas /tmp/x.ptx, line 65; error   : …   ptxas error   : …   ptxas fatal   : …
	ptxasLine = regexp.MustCompile(`^ptxas (?:\S+, line (\d+); )?(error|fatal|warning)\s*: (.*)$`)
	// … at line 6 of kernels.cu, the place of an instantiation
	instanceLine = regexp.MustCompile(`at line (\d+) of "?([^\s"]+)`)
	quotedName   = regexp.MustCompile(`'(\w+)'`)
	entryLine    = regexp.MustCompile(`\.(?:entry|func)\s+(?:\([^)]*\)\s*)?(\w+)\s*\(?`)
)

// diagnostics reads the messages of one level out of a compiler's output. ptx
// is what ptxas was given, if it was.
func (u *unit) diagnostics(log, level string, ptx []byte) []Diagnostic {
	lines := strings.Split(log, "\n")
	var all []Diagnostic
	for i, line := range lines {
		var d Diagnostic
		if m := frontendLine.FindStringSubmatch(line); m != nil {
			d = u.atSource(m[1], m[2], lines[i+1:])
			d.Level, d.Text = m[3], m[4]
		} else if m := preprocessorLine.FindStringSubmatch(line); m != nil {
			d = u.atSource(m[1], m[2], nil)
			d.Level, d.Text = m[3], m[4]
		} else if m := ptxasLine.FindStringSubmatch(line); m != nil {
			d = u.inPTX(m[1], m[3], ptx)
			d.Level, d.Text = strings.Replace(m[2], "fatal", "error", 1), m[3]
		}
		if d.Level == level {
			all = append(all, d)
		}
	}
	if len(all) > 1 { // says nothing that the others do not
		all = slices.DeleteFunc(all, func(d Diagnostic) bool { return d.Text == "Ptx assembly aborted due to errors" })
	}
	return all
}

// atSource finds the kernel of a place in a file. In a header that is the
// kernel for which it is instantiated, which the lines after the message tell.
func (u *unit) atSource(file, lineText string, after []string) Diagnostic {
	file = path.Base(file)
	d := Diagnostic{Tool: u.in.Compiler.Kind.String(), Place: file + ":" + lineText}
	line := number(lineText)
	if file != SourceName {
		line = 0
		for _, text := range after {
			if text == "" || frontendLine.MatchString(text) {
				break
			}
			if m := instanceLine.FindStringSubmatch(text); m != nil && path.Base(m[2]) == SourceName {
				line = number(m[1])
				break
			}
		}
	}
	if k := kernelAt(u.index, line); k != nil {
		d.Kernel, d.Origin = k.Name, k.Origin
	}
	return d
}

// inPTX finds the kernel of a message of ptxas: the one it names, or the one
// around a line of the PTX.
func (u *unit) inPTX(lineText, text string, ptx []byte) Diagnostic {
	d := Diagnostic{Tool: "ptxas"}
	name := ""
	if line, err := strconv.Atoi(lineText); err == nil {
		n := 0
		for l := range strings.Lines(string(ptx)) {
			if n++; n > line {
				break
			}
			if m := entryLine.FindStringSubmatch(l); m != nil {
				name = m[1]
			}
		}
	}
	for _, m := range quotedName.FindAllStringSubmatch(text, -1) {
		if kernelNamed(u.index, m[1]) != nil {
			name = m[1]
		}
	}
	if k := kernelNamed(u.index, name); k != nil {
		d.Kernel, d.Origin = k.Name, k.Origin
	}
	return d
}

// explain turns a failed run into the error to report: mistakes in the source
// by kernel, and what is wrong with the installation in words that help.
func (u *unit) explain(log string, err error, ptx []byte) error {
	c := u.in.Compiler
	switch {
	case strings.Contains(log, "host compiler properties"):
		return fmt.Errorf("%s needs a C++ compiler to read source with, and finds none: install g++ (Debian: apt-get install g++), or name one with NVCC_PREPEND_FLAGS=-ccbin=PATH\n%s", c, indent(log))
	case strings.Contains(log, "nsupported gpu architecture"), strings.Contains(log, "invalid value for --gpu-architecture"):
		return fmt.Errorf("%s does not know %s: leave it out of --arch, or take a CUDA release that has it", c, u.arch)
	case strings.Contains(log, "cuda_runtime.h: No such file"), strings.Contains(log, "cicc: not found"), strings.Contains(log, "libdevice"):
		return fmt.Errorf("the installation of %s is incomplete; from PyPI it takes all of %s\n%s", c, pipPackages, indent(log))
	}
	if found := u.diagnostics(log, "error", ptx); len(found) > 0 {
		return &Error{Diagnostics: found}
	}
	if log = strings.TrimSpace(log); log == "" {
		return fmt.Errorf("%s, for %s: %w", c, u.arch, err)
	}
	return fmt.Errorf("%s, for %s: %w\n%s", c, u.arch, err, indent(log))
}

// indent sets the end of a compiler's output off from the message above it.
func indent(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	if n := len(lines) - maxDiagnostics; n > 0 {
		lines = lines[n:]
	}
	return "  " + strings.Join(lines, "\n  ")
}
