// Command testreport reads the events of `go test -json` and prints what a
// person wants of them: a line per package, the output of what failed, and at
// the end every test that was skipped, with its reason. It runs no tests and
// judges none; its exit status is 1 if any failed.
//
//	go test -json ./... | go run ./internal/testreport
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
)

func main() {
	ok, err := report(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// event is a line of go test -json: see go doc test2json, and go help
// buildjson for the build-… actions, which have an ImportPath instead of a
// Package.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

// pkg is what is known of a package so far.
type pkg struct {
	passed, failed, skipped int
	output                  map[string]*strings.Builder // by test; "" is the package's own
	order                   []string                    // the tests without a result, in order of their start
}

// skip is a test that did not run.
type skip struct{ where, reason string }

type reporter struct {
	out      io.Writer
	packages map[string]*pkg
	builds   map[string]*strings.Builder // a build's output by import path
	skips    []skip
	passed   int
	failed   []string
	untested int
}

// report prints the events of in and returns whether all is well. Lines that
// are no events, such as go's own complaints, are passed on.
func report(in io.Reader, out io.Writer) (bool, error) {
	r := &reporter{out: out, packages: map[string]*pkg{}, builds: map[string]*strings.Builder{}}
	lines := bufio.NewReader(in)
	seen := false
	for {
		line, err := lines.ReadString('\n')
		var e event
		switch {
		case strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &e) == nil && e.Action != "":
			seen = true
			r.add(&e)
		case line != "":
			fmt.Fprint(out, line)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, err
		}
	}
	if !seen {
		return false, fmt.Errorf("there are no test events to read; pipe go test -json into it")
	}
	r.summary()
	return len(r.failed) == 0, nil
}

func (r *reporter) add(e *event) {
	switch e.Action {
	case "build-output":
		builder(r.builds, e.ImportPath).WriteString(e.Output)
		return
	case "build-fail":
		return // the package that needed it says so next
	}
	p := r.packages[e.Package]
	if p == nil {
		p = &pkg{output: map[string]*strings.Builder{}}
		r.packages[e.Package] = p
	}
	switch e.Action {
	case "run":
		p.order = append(p.order, e.Test)
	case "output":
		builder(p.output, e.Test).WriteString(e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e, p)
		} else {
			r.endTest(e, p)
		}
	}
}

func builder(m map[string]*strings.Builder, key string) *strings.Builder {
	b := m[key]
	if b == nil {
		b = new(strings.Builder)
		m[key] = b
	}
	return b
}

func (r *reporter) endTest(e *event, p *pkg) {
	text := builder(p.output, e.Test).String()
	delete(p.output, e.Test)
	for i, name := range p.order {
		if name == e.Test {
			p.order = append(p.order[:i], p.order[i+1:]...)
			break
		}
	}
	switch e.Action {
	case "pass":
		p.passed++
		r.passed++
	case "skip":
		p.skipped++
		r.skips = append(r.skips, skip{short(e.Package) + " " + e.Test, reason(text)})
	case "fail":
		p.failed++
		r.fail(e.Package, e.Test, text)
	}
}

// endPackage prints the package's line, and if it failed, what nobody has
// claimed: the output of the package itself, of its build, and of tests that
// never came to an end (a panic, a time-out).
func (r *reporter) endPackage(e *event, p *pkg) {
	name := short(e.Package)
	if e.Action == "fail" {
		if e.FailedBuild != "" {
			r.fail(e.Package, "", builder(r.builds, e.FailedBuild).String())
			r.builds[e.FailedBuild].Reset() // several packages may need it; once is enough
		} else if len(p.order) > 0 || p.failed == 0 {
			for _, test := range p.order {
				r.fail(e.Package, test, builder(p.output, test).String())
			}
			r.fail(e.Package, "", builder(p.output, "").String())
		}
		fmt.Fprintf(r.out, "FAIL  %-32s %7.1f s\n", name, e.Elapsed)
	} else if p.passed+p.failed+p.skipped == 0 {
		r.untested++
	} else {
		skipped := ""
		if p.skipped > 0 {
			skipped = fmt.Sprintf(", %d skipped", p.skipped)
		}
		fmt.Fprintf(r.out, "ok    %-32s %7.1f s  %d tests%s\n", name, e.Elapsed, p.passed, skipped)
	}
	delete(r.packages, e.Package)
}

// fail notes a failure and prints its output, without the lines that only say
// where it was in the run.
func (r *reporter) fail(pkgPath, test, text string) {
	name := strings.TrimSpace(short(pkgPath) + " " + test)
	r.failed = append(r.failed, name)
	fmt.Fprintf(r.out, "\n--- FAIL: %s\n", name)
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(strings.TrimSpace(line), "--- ") {
			fmt.Fprint(r.out, line)
		}
	}
	fmt.Fprintln(r.out)
}

// reason is what a skipped test said, on one line, without the place in the
// source.
func reason(text string) string {
	var said []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		if place, rest, ok := strings.Cut(line, ": "); ok && strings.Contains(place, ".go:") {
			line = rest
		}
		said = append(said, line)
	}
	if said == nil {
		return "no reason given"
	}
	return strings.Join(said, " ")
}

// short is a package's path inside its module.
func short(path string) string {
	const module = "github.com/vitgen/vitgen"
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

func (r *reporter) summary() {
	fmt.Fprintf(r.out, "\n%d tests passed, %d failed, %d skipped; %d packages have none\n",
		r.passed, len(r.failed), len(r.skips), r.untested)
	for _, name := range r.failed {
		fmt.Fprintf(r.out, "  failed   %s\n", name)
	}
	sort.Slice(r.skips, func(i, j int) bool { return r.skips[i].where < r.skips[j].where })
	for _, s := range r.skips {
		fmt.Fprintf(r.out, "  skipped  %s: %s\n", s.where, s.reason)
	}
}
