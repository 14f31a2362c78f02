package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vitgen/vitgen/bench/measure"
)

// compileResult is the JSON of a run.
type compileResult struct {
	Kind     string            `json:"kind"`
	Date     string            `json:"date"`
	Spec     string            `json:"spec"`
	Machine  measure.Machine   `json:"machine"`
	Versions map[string]string `json:"versions"`
	Quick    bool              `json:"quick,omitempty"`
	// Compile is `vitgen compile` alone, Build the Go tool and g++ on what it
	// wrote, Link the same again with nothing left to compile.
	Compile timing `json:"compile"`
	Build   timing `json:"build_cold"`
	Link    timing `json:"build_again"`
	SHA256  string `json:"sha256"` // of the files written, the same each time
	Files   int    `json:"files"`
	Bytes   int64  `json:"bytes"`
}

// timing is of whole processes.
type timing struct {
	MS      measure.Spread `json:"ms"`
	AllMS   []float64      `json:"all_ms"`
	PeakRSS int64          `json:"peak_rss_bytes"` // of the largest process
}

func (t *timing) add(u measure.Usage) {
	t.AllMS = append(t.AllMS, float64(u.Wall)/1e6)
	t.MS = measure.SpreadOf(t.AllMS)
	t.PeakRSS = max(t.PeakRSS, u.PeakRSS)
}

func compileCommand(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("compile", flag.ContinueOnError)
	var out outFlag
	out.define(flags)
	runs := flags.Int("runs", 11, "`number` of times vitgen compiles the spec")
	builds := flags.Int("builds", 3, "`number` of cold builds of the trainer")
	quick := flags.Bool("quick", false, "two compilations and one build: shows that everything works")
	if err := measure.Parse(flags, args); err != nil {
		return err
	}
	if *quick {
		*runs, *builds = 2, 1
	}
	if *runs < 1 || *builds < 1 {
		return fmt.Errorf("compile: runs and builds must be positive")
	}
	now := time.Now()
	r := &compileResult{
		Kind: "cpu-compile", Date: now.Format(time.DateOnly), Spec: specFile, Quick: *quick,
		Machine: measure.DescribeMachine(), Versions: measure.ToolVersions(ctx, resultsDir),
	}
	warnIfBusy(r.Machine)
	steal := measure.WatchSteal()
	if err := r.compile(ctx, *runs); err != nil {
		return err
	}
	if err := r.build(ctx, *builds); err != nil {
		return err
	}
	r.Machine.StealPercent = steal()
	return measure.Write(out.folder(*quick), r.Date+"-compile", r, r.markdown())
}

// compile times the compiler, each time into a folder that is not there, and
// holds what it writes to what it wrote before.
func (r *compileResult) compile(ctx context.Context, runs int) error {
	dir, err := os.MkdirTemp(scratchDir, "compile-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	pkg := filepath.Join(dir, "vit") // the same each time: the import path is in the files
	for n := range runs {
		if err := os.RemoveAll(pkg); err != nil {
			return err
		}
		_, u, err := measure.Process{Argv: []string{binary("vitgen-compiler"), "compile", specFile, "--target", "cpu", "-o", pkg}}.Run(ctx)
		if err != nil {
			return err
		}
		sum, err := r.hash(pkg)
		if err != nil {
			return err
		}
		if n > 0 && sum != r.SHA256 {
			return fmt.Errorf("vitgen compile %s wrote other bytes in run %d than in run 1", specFile, n+1)
		}
		r.SHA256 = sum
		r.Compile.add(u)
		logf("vitgen compile %d of %d: %.0f ms\n", n+1, runs, float64(u.Wall)/1e6)
	}
	return nil
}

// hash is over names and contents of a folder's files in order of their names.
func (r *compileResult) hash(dir string) (string, error) {
	h := sha256.New()
	r.Files, r.Bytes = 0, 0
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%q\n", filepath.ToSlash(rel))
		n, err := io.Copy(h, f)
		r.Files++
		r.Bytes += n
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

// build times the Go tool on packages it has not seen: their import paths are
// new, so that none of their C++ or Go is in its cache, while the packages they
// import are.
func (r *compileResult) build(ctx context.Context, builds int) error {
	for n := range builds {
		if err := r.buildOnce(ctx); err != nil {
			return err
		}
		logf("cold build %d of %d: %.1f s\n", n+1, builds, r.Build.AllMS[n]/1e3)
	}
	return nil
}

func (r *compileResult) buildOnce(ctx context.Context) error {
	dir, err := os.MkdirTemp(scratchDir, fmt.Sprintf("build-%d-", time.Now().UnixNano()))
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	pkg := filepath.Join(dir, "vit")
	compile := measure.Process{Argv: []string{binary("vitgen-compiler"), "compile", specFile, "--target", "cpu", "-o", pkg}}
	if _, _, err := compile.Run(ctx); err != nil {
		return err
	}
	argv := []string{"go", "build", "-o", filepath.Join(dir, "trainer"), "./" + filepath.Join(pkg, "trainer")}
	for _, t := range []*timing{&r.Build, &r.Link} {
		if err := os.RemoveAll(filepath.Join(dir, "trainer")); err != nil {
			return err
		}
		_, u, err := measure.Process{Argv: argv}.Run(ctx)
		if err != nil {
			return err
		}
		t.add(u)
	}
	return nil
}

func (r *compileResult) markdown() string {
	var b strings.Builder
	heading(&b, "Compiling "+r.Spec+", "+r.Date, r.Machine, r.Versions)
	if r.Quick {
		b.WriteString("**A quick run: it shows that everything works, the figures mean nothing.**\n\n")
	}
	rows := [][]string{{"", "runs", "median s", "min–max s", "peak MB"}}
	for _, t := range []struct {
		name string
		timing
	}{
		{"`vitgen compile`", r.Compile},
		{"`go build`, C++ not yet compiled", r.Build},
		{"`go build` again", r.Link},
	} {
		rows = append(rows, []string{
			t.name, fmt.Sprint(len(t.AllMS)), fmt.Sprintf("%.3f", t.MS.Median/1e3),
			fmt.Sprintf("%.3f–%.3f", t.MS.Min/1e3, t.MS.Max/1e3), fmt.Sprintf("%.0f", float64(t.PeakRSS)/1e6),
		})
	}
	b.WriteString(measure.Table(rows, false))
	fmt.Fprintf(&b, "\nWhole processes; peak memory is that of the largest one. Each compilation wrote the same %d files, %d bytes,\nsha256 %s.\n",
		r.Files, r.Bytes, r.SHA256)
	return b.String()
}
