package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vitgen/vitgen/bench/measure"
	"github.com/vitgen/vitgen/codegen/kernels"
	"github.com/vitgen/vitgen/runtime/cpu/isa"
)

// productsRun says which products to time, and how.
type productsRun struct {
	spec, program string
	batch         int
	threads       int
	rounds        int
}

// product is a shape and how fast it is.
type product struct {
	shape
	MS     float64 `json:"ms"`
	GFLOPS float64 `json:"gflops"`
	// OfPeak is the share of the FMA peak, each time of what was measured just
	// before; the median.
	OfPeak float64 `json:"of_peak"`
}

// products is the report about a model's matrix products.
type products struct {
	Spec       string    `json:"spec"`
	Program    string    `json:"program"`
	Threads    int       `json:"threads"`
	Rounds     int       `json:"rounds"`
	ISA        string    `json:"isa"`
	PeakGFLOPS float64   `json:"peak_gflops"` // FMAs in registers, all threads, in between
	Products   []product `json:"products"`
	// OfPeakWeighted is what all launches together reach: the time they would take
	// at the peak over the time they take.
	OfPeakWeighted float64 `json:"of_peak_weighted"`
}

// run times the products.
func (p *productsRun) run(ctx context.Context) (*products, error) {
	shapes, err := shapesOf(p.spec, p.program, p.batch)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "vitgen-roofline-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	set := isa.Best()
	program, err := build(ctx, dir, kernels.ISAs[set])
	if err != nil {
		return nil, err
	}
	r, err := p.time(ctx, program, shapes)
	if err != nil {
		return nil, err
	}
	r.ISA = set.String()
	return r, nil
}

// build compiles the program that times products, with the library and the
// trainers' team of threads as they lie in the repository.
func build(ctx context.Context, dir string, isa kernels.ISA) (string, error) {
	root, err := filepath.Abs(".")
	if err != nil {
		return "", err
	}
	source := filepath.Join(root, "bench/roofline/products/products.cc")
	if _, err := os.Stat(source); err != nil {
		return "", fmt.Errorf("%w; start it in the repository's root", err)
	}
	if isa.Target != "" {
		wrapper := filepath.Join(dir, "wrapper.cc")
		if err := os.WriteFile(wrapper, isa.Wrapper(source), 0o666); err != nil {
			return "", err
		}
		source = wrapper
	}
	threads, program := filepath.Join(dir, "threads.o"), filepath.Join(dir, "products")
	team := []string{"-O2", "-c", filepath.Join(root, "runtime/cpu/threads.c"), "-o", threads}
	products := append(slices.Clone(kernels.CompileFlags), "-I", root, source, threads, "-o", program, "-lpthread")
	if err := tool(ctx, "gcc", team...); err != nil {
		return "", err
	}
	return program, tool(ctx, "g++", products...)
}

func tool(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// mostPool bounds the memory that operands are taken from: more than the caches
// that a core does not share.
const mostPool = 256 << 20

// poolBytes is how much memory operands are taken from in turn: what the
// program's products read in all, so that they meet it as warm as in a step.
func poolBytes(shapes []shape) int64 {
	var sum int64
	for _, s := range shapes {
		sum += s.operandBytes() * int64(s.Count)
	}
	return min(sum, mostPool)
}

// time runs the compiled program over the shapes.
func (p *productsRun) time(ctx context.Context, program string, shapes []shape) (*products, error) {
	var in, stderr bytes.Buffer
	for _, s := range shapes {
		fmt.Fprintln(&in, s.Kind, s.M, s.N, s.K, s.workspaceBytes())
	}
	cmd := exec.CommandContext(ctx, program, fmt.Sprint(p.threads), fmt.Sprint(p.rounds), fmt.Sprint(poolBytes(shapes)))
	cmd.Stdin, cmd.Stderr = &in, &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, stderr.Bytes())
	}
	readings, err := parse(string(out), len(shapes), p.rounds)
	if err != nil {
		return nil, err
	}
	r := &products{Spec: p.spec, Program: p.program, Threads: p.threads, Rounds: p.rounds}
	r.sum(shapes, readings)
	return r, nil
}

// reading is one measurement of a product, and of the peak before it.
type reading struct{ peakGFLOPS, seconds float64 }

// parse reads lines "SHAPE PEAK SECONDS", rounds of them for each shape.
func parse(text string, shapes, rounds int) ([][]reading, error) {
	all := make([][]reading, shapes)
	for line := range strings.Lines(text) {
		var i int
		var r reading
		if _, err := fmt.Sscan(line, &i, &r.peakGFLOPS, &r.seconds); err != nil || i < 0 || i >= shapes || !(r.peakGFLOPS > 0) || !(r.seconds > 0) {
			return nil, fmt.Errorf("products printed %q", line)
		}
		all[i] = append(all[i], r)
	}
	for i, r := range all {
		if len(r) != rounds {
			return nil, fmt.Errorf("products measured shape %d %d times, not %d", i, len(r), rounds)
		}
	}
	return all, nil
}

// sum makes figures of readings.
func (r *products) sum(shapes []shape, readings [][]reading) {
	var peaks []float64
	var taken, least float64 // of all launches; at the peak
	for i, s := range shapes {
		var seconds, share []float64
		for _, m := range readings[i] {
			peaks = append(peaks, m.peakGFLOPS)
			seconds = append(seconds, m.seconds)
			share = append(share, s.flops()/m.seconds/1e9/m.peakGFLOPS)
		}
		median := measure.Median(seconds)
		p := product{shape: s, MS: median * 1e3, GFLOPS: s.flops() / median / 1e9, OfPeak: measure.Median(share)}
		r.Products = append(r.Products, p)
		work := s.flops() * float64(s.Count)
		least += work
		taken += work / p.OfPeak
	}
	r.PeakGFLOPS = measure.Median(peaks)
	r.OfPeakWeighted = least / taken
}

func (r *products) text() string {
	rows := [][]string{{"product", "M", "N", "K", "count", "ms", "GFLOP/s", "% of peak"}}
	for _, p := range r.Products {
		rows = append(rows, []string{p.Kind, fmt.Sprint(p.M), fmt.Sprint(p.N), fmt.Sprint(p.K), fmt.Sprint(p.Count),
			fmt.Sprintf("%.3f", p.MS), fmt.Sprintf("%.1f", p.GFLOPS), fmt.Sprintf("%.1f", 100*p.OfPeak)})
	}
	return fmt.Sprintf("Matrix products of %s, program %s, alone; %d threads, %s, medians of %d.\nFMA peak in between: %.1f GFLOP/s.\n\n%s\nAll launches together: %.1f %% of the peak.\n",
		r.Spec, r.Program, r.Threads, r.ISA, r.Rounds, r.PeakGFLOPS, measure.Table(rows, false), 100*r.OfPeakWeighted)
}
