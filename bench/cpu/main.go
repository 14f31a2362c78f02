// Command cpu compares generated trainers with PyTorch on this machine's CPU:
// speed and peak memory of a training step, and what compiling costs. It is not
// a profiler, which the trainer's own bench is, and it judges no numbers, which
// verify does. run.sh and compile.sh build what it needs and start it.
//
//	cpu steps [--quick] [--rounds N] …    training steps, interleaved with the peers'
//	cpu compile [--quick] [--runs N] …    vitgen compile, and the C++ build after it
//
// It runs in the repository's root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

const (
	resultsDir = "bench/results"
	// scratchDir holds binaries and everything that need not be kept. Go's
	// patterns skip it for its underscore.
	scratchDir = "_build/bench"
	specFile   = "examples/vit.yaml"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench/cpu:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if _, err := os.Stat(specFile); err != nil {
		return fmt.Errorf("%w; start bench/cpu/run.sh or bench/cpu/compile.sh instead, they know where to run", err)
	}
	if len(args) > 0 {
		switch args[0] {
		case "steps":
			return stepsCommand(ctx, args[1:])
		case "compile":
			return compileCommand(ctx, args[1:])
		}
	}
	return errors.New("the first argument must be steps or compile")
}

// outFlag says where results go. Quick runs check the machinery: theirs never
// lie among the results.
type outFlag struct{ dir string }

func (o *outFlag) define(fs *flag.FlagSet) {
	fs.StringVar(&o.dir, "out", "", "`folder` for the results (default "+resultsDir+", with --quick "+scratchDir+")")
}

func (o *outFlag) folder(quick bool) string {
	switch {
	case o.dir != "":
		return o.dir
	case quick:
		return scratchDir
	}
	return resultsDir
}

func binary(name string) string { return filepath.Join(scratchDir, name) }
