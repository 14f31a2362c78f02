package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/vitgen/vitgen/internal/nvcc"
)

// cudaFlags are the flags that choose targets and what compiles for CUDA.
type cudaFlags struct {
	targets []string
	archs   []string
	nvcc    string

	archGiven func() bool
}

func (f *cudaFlags) add(cmd *cobra.Command, targets []string, use string) {
	fl := cmd.Flags()
	fl.StringSliceVar(&f.targets, "target", targets, use)
	fl.StringSliceVar(&f.archs, "arch", nvcc.DefaultArchs, "GPU architectures to compile CUDA kernels for")
	fl.StringVar(&f.nvcc, "nvcc", "", "nvcc, libnvrtc.so or CUDA folder to use, or none (default: VITGEN_NVCC, or what is found in PATH, CUDA_HOME, /usr/local/cuda and Python's packages)")
	f.archGiven = func() bool { return fl.Changed("arch") }
}

// check looks for mistakes in the flags.
func (f *cudaFlags) check() error {
	for _, t := range f.targets {
		if t != "cpu" && t != "cuda" {
			return fmt.Errorf("unknown target %q: --target takes cpu, cuda or both", t)
		}
	}
	if len(f.targets) == 0 {
		return errors.New("no target: --target takes cpu, cuda or both")
	}
	if f.archGiven() && !f.wanted() {
		return errors.New("--arch is for CUDA kernels, and cuda is not in --target")
	}
	var err error
	f.archs, err = nvcc.ParseArchs(f.archs)
	return err
}

func (f *cudaFlags) wanted() bool { return slices.Contains(f.targets, "cuda") }

// compilePTX compiles the kernels of the package in dir. That there is no
// compiler is no error, and is said: a package may be compiled on one machine
// and built on another. It is not said if PTX is optional and none was to be
// made. verbose shows the compiler's warnings.
func (f *cudaFlags) compilePTX(cmd *cobra.Command, dir string, optional, verbose bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if _, err := nvcc.RemoveStale(dir); err != nil {
		return err
	}
	p, err := nvcc.ReadPackage(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s has no %s: compile its spec with --target cpu,cuda", dir, nvcc.SourceName)
	} else if err != nil {
		return err
	}
	compiler, err := nvcc.Find(ctx, f.nvcc)
	if errors.Is(err, nvcc.ErrNone) && optional {
		return nil
	} else if errors.Is(err, nvcc.ErrNone) || errors.Is(err, nvcc.ErrNotFound) {
		return f.without(cmd, p, err)
	} else if err != nil {
		return err
	}
	report, err := p.Compile(ctx, compiler, nvcc.OpenCache(), f.archs)
	if verbose {
		for _, w := range report.Warnings {
			fmt.Fprintln(cmd.ErrOrStderr(), w)
		}
	}
	if err != nil {
		return err
	}
	took := fmt.Sprintf("%.1f s", report.Took.Seconds())
	if report.Cached() {
		took = "from the cache"
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: compiled for %s by %s %s, %s\n",
		filepath.Join(dir, nvcc.SourceName), strings.Join(f.archs, ", "), compiler.Kind, compiler.Version, took)
	return nil
}

// without says what a package is like for which there was no compiler.
func (f *cudaFlags) without(cmd *cobra.Command, p *nvcc.Package, why error) error {
	have, err := p.Compiled()
	if err != nil {
		return err
	}
	state := "is not compiled to PTX, which CUDA devices need"
	if len(have) > 0 {
		state = "is not compiled again, and its PTX for " + strings.Join(have, ", ") + " is up to date"
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "note: %s %s: %v\n", filepath.Join(p.Dir, nvcc.SourceName), state, why)
	return nil
}
