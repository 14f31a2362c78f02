// Package trainers is several generated trainers in one program, which is
// smaller and sooner built than one program each. The program itself is made by
// bench/gpu: a table of models.
package trainers

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/trainer"
)

// Main runs the trainer that the first argument names with the other arguments,
// and exits with its status.
func Main(models map[string]func() *runtime.Model) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, models, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, models map[string]func() *runtime.Model, args []string, stdout, stderr io.Writer) int {
	if len(args) == 1 && args[0] == "--list" {
		for _, name := range slices.Sorted(maps.Keys(models)) {
			fmt.Fprintln(stdout, name)
		}
		return 0
	}
	if len(args) == 0 || models[args[0]] == nil {
		fmt.Fprintf(stderr, "trainers: the first argument must be a model; --list lists them\n")
		return 2
	}
	return trainer.Run(ctx, models[args[0]](), args[1:], stdout, stderr)
}
