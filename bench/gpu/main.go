// Command gpu checks and measures generated trainers on a GPU, beside PyTorch
// and JAX. It has two halves, for two machines: build makes binaries where there
// is Go, run uses them where there is a GPU and needs nothing but them. It knows
// no numerics, which goldens and probes do, and changes no setting of a GPU.
// bench/gpu.sh builds and starts it.
//
//	gpu build [--out DIR] [--rehearsal] …    trainers, this program, and a manifest
//	gpu run [--bin DIR] [--steps LIST] …     everything that bench/gpu.sh promises
//
// Both run in the repository's root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const (
	resultsDir = "bench/results"
	quickDir   = "_build/bench"
	binDir     = "bench/gpu/bin"
	// workDir holds derived specs, generated packages and caches. Go's patterns
	// skip it for its underscore.
	workDir = "_build/gpu"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench/gpu:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if _, err := os.Stat("bench/gpu.sh"); err != nil {
		return fmt.Errorf("%w; start bench/gpu.sh instead, it knows where to run", err)
	}
	if len(args) > 0 {
		switch args[0] {
		case "build":
			return buildCommand(ctx, args[1:])
		case "run":
			return runCommand(ctx, args[1:])
		}
	}
	return errors.New("the first argument must be build or run")
}

func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format, args...) }
