// Command roofline measures what bounds the kernels on this machine's CPU, and how
// near the library's matrix products alone come to it. What bounds each kernel of
// a model the trainer's own bench says.
//
//	roofline [--threads N]                 the machine: FMA peak, caches, memory
//	roofline --spec examples/vit.yaml …    matrix products at the shapes of a model
//
// It runs in the repository's root and needs g++ for the products. All figures are
// medians of interleaved repetitions; --json prints one JSON object instead of a
// table.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/vitgen/vitgen/bench/measure"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench/roofline:", err)
		os.Exit(1)
	}
}

// report is what a run prints.
type report interface{ text() string }

func command(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("roofline", flag.ContinueOnError)
	threads := fs.Int("threads", runtime.GOMAXPROCS(0), "`number` of threads")
	rounds := fs.Int("rounds", 9, "`number` of repetitions of each measurement")
	asJSON := fs.Bool("json", false, "print one JSON object")
	var p productsRun
	fs.StringVar(&p.spec, "spec", "", "`file` of the model at whose shapes to time products; empty: measure the machine")
	fs.StringVar(&p.program, "program", "grad", "`name` of the program whose products count: forward, eval or grad")
	fs.IntVar(&p.batch, "batch", 0, "`samples` of a batch, in place of the spec's train.batch")
	if err := measure.Parse(fs, args); err != nil {
		return err
	}
	if *threads < 1 || *rounds < 1 || p.batch < 0 {
		return errors.New("threads and rounds must be positive, and batch not negative")
	}
	var r report
	var err error
	if p.spec == "" {
		r, err = measureMachine(ctx, *threads, *rounds, thisMachinesCaches("/sys").levels())
	} else {
		p.threads, p.rounds = *threads, *rounds
		r, err = p.run(ctx)
	}
	if err != nil {
		return err
	}
	if *asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	_, err = io.WriteString(out, r.text())
	return err
}
