// Command cpu compares generated trainers with PyTorch and JAX on this machine's
// CPU: speed of training steps and of inference, peak memory, matrix products
// alone, and what compiling costs; and says which of the project's goals are met.
// It is not a profiler, which the trainer's own bench is, and it judges no
// numbers, which verify does. run.sh builds what it needs and starts it, in the
// repository's root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vitgen/vitgen/bench/measure"
)

const (
	resultsDir = "bench/results"
	// scratchDir holds binaries and everything that need not be kept, packagesDir
	// the generated packages. Go's patterns skip both for the underscore.
	scratchDir  = "_build/bench"
	packagesDir = scratchDir + "/pkg"
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

// settings are what all parts of a run have in common.
type settings struct {
	Threads int      `json:"threads"`
	Quick   bool     `json:"quick,omitempty"`
	Rounds  int      `json:"rounds,omitempty"` // 0: as many as each row has
	Parts   []string `json:"rows"`
	Only    []string `json:"only,omitempty"`
	With    []string `json:"with,omitempty"`
	python  string
	scratch string // of this run
}

func run(ctx context.Context, args []string) error {
	if _, err := os.Stat(vit.file); err != nil {
		return fmt.Errorf("%w; start bench/cpu/run.sh instead, it knows where to run", err)
	}
	fs := flag.NewFlagSet("cpu", flag.ContinueOnError)
	var s settings
	out := fs.String("out", "", "`folder` for the results (default "+resultsDir+", with --quick "+scratchDir+")")
	parts := fs.String("rows", "", "`names` of the rows, with commas: "+strings.Join(partNames(), ", ")+"; default: all")
	only := fs.String("only", "", "`names` of the contestants, with commas; default: all but the optional ones")
	with := fs.String("with", "", "`names` of optional contestants to add: torch-sdpa, jax-library, torch-hugepages, torch-autotune, torch-pruned")
	fs.IntVar(&s.Threads, "threads", 2, "`number` of threads of each contestant")
	fs.IntVar(&s.Rounds, "rounds", 0, "`number` of turns of each contestant; 0: as many as each row has")
	fs.BoolVar(&s.Quick, "quick", false, "one round of few steps, without torch.compile but for compiling: shows that everything works, measures nothing")
	fs.StringVar(&s.python, "python", ".venv/bin/python", "`interpreter` that has PyTorch and JAX")
	if err := measure.Parse(fs, args); err != nil {
		return err
	}
	if s.Threads < 1 || s.Rounds < 0 {
		return errors.New("threads must be positive and rounds not negative")
	}
	s.Only, s.With = measure.Names(*only), measure.Names(*with)
	if err := checkNames(append(s.Only, s.With...)); err != nil {
		return err
	}
	var err error
	if s.Parts, err = pickParts(measure.Names(*parts)); err != nil {
		return err
	}
	if s.scratch, err = os.MkdirTemp(scratchDir, "run-"); err != nil {
		return err
	}
	defer os.RemoveAll(s.scratch)
	r, err := s.measure(ctx)
	if err != nil {
		return err
	}
	switch {
	case *out != "":
	case s.Quick:
		*out = scratchDir // never among the results
	default:
		*out = resultsDir
	}
	if err := measure.Write(*out, r.Date+"-cpu", r, r.markdown()); err != nil {
		return err
	}
	if n := len(r.Failed); n > 0 {
		return fmt.Errorf("%d of %d rows failed", n, len(s.Parts))
	}
	return nil
}

func binary(name string) string { return filepath.Join(scratchDir, name) }

func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format, args...) }
