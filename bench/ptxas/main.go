// Command ptxas compiles the CUDA kernels of every example to machine code, those
// of two in the coarser precisions too, and checks what ptxas says of them: no register may be spilled, nothing may be
// serialized, and each block must fit on each chip. It compares what kernels
// take with the committed table.md, so that no change goes unseen.
//
//	go run ./bench/ptxas                  check, and compare with the table
//	go run ./bench/ptxas DIR…             only check these generated packages
//	VITGEN_UPDATE=1 go run ./bench/ptxas  write the table
//
// Without nvcc it says so and succeeds. It measures no time: that needs a GPU.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/vitgen/vitgen/internal/nvcc"
)

const tableFile = "bench/ptxas/table.md"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	nvcc  string
	archs []string
	dirs  []string // given by hand
	table string
}

func parseOptions(args []string) (options, error) {
	o := options{table: tableFile}
	fl := flag.NewFlagSet("ptxas", flag.ContinueOnError)
	fl.StringVar(&o.nvcc, "nvcc", "", "nvcc to use (default: that of `make cuda-toolchain`, else as vitgen finds it)")
	archs := fl.String("arch", "sm_80,sm_90,sm_100", "chips to compile for")
	if err := fl.Parse(args); err != nil {
		return o, err
	}
	o.dirs = fl.Args()
	var err error
	o.archs, err = nvcc.ParseArchs(strings.Split(*archs, ","))
	for _, arch := range o.archs {
		if _, ok := nvcc.LimitsOf(arch); !ok && err == nil {
			err = fmt.Errorf("what a multiprocessor of %s has is not known here; see internal/nvcc/arch.go", arch)
		}
	}
	return o, err
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parseOptions(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	compiler, err := findNVCC(ctx, o.nvcc)
	if errors.Is(err, nvcc.ErrNone) || errors.Is(err, nvcc.ErrNotFound) {
		fmt.Fprintln(out, "SKIPPED: registers and occupancy of the CUDA kernels:", err)
		return nil
	} else if err != nil {
		return err
	}
	if compiler.Kind != nvcc.NVCC {
		fmt.Fprintf(out, "SKIPPED: registers and occupancy of the CUDA kernels: only nvcc tells them, and there is only %s; make cuda-toolchain installs nvcc\n", compiler)
		return nil
	}
	dirs := o.dirs
	if len(dirs) == 0 {
		if dirs, err = examples("generated"); err != nil {
			return err
		}
		coarse, err := variants(ctx, "_build/ptxas")
		if err != nil {
			return err
		}
		dirs = append(dirs, coarse...)
	}
	fmt.Fprintf(out, "%s, for %s\n", compiler, strings.Join(o.archs, ", "))
	var all []example
	var faults []string
	for r := range compileAll(ctx, dirs, o.archs, compiler) {
		if r.err != nil {
			return fmt.Errorf("%s: %w", r.dir, r.err)
		}
		fmt.Fprintln(out, r.summary())
		all = append(all, r.example)
		faults = append(faults, r.faults...)
	}
	if len(o.dirs) == 0 {
		stale, err := compareTable(o.table, render(all, o.archs, compiler.Version), out)
		if err != nil {
			return err
		}
		faults = append(faults, stale...)
	}
	if len(faults) > 0 {
		return errors.New(strings.Join(faults, "\n"))
	}
	return nil
}

// result is what came of one package.
type result struct {
	example
	dir string
	err error
}

// compileAll compiles the packages, one on each CPU at a time, and gives the
// results in their order.
func compileAll(ctx context.Context, dirs, archs []string, compiler *nvcc.Compiler) iter.Seq[result] {
	ctx, stop := context.WithCancel(ctx)
	slots := make(chan struct{}, runtime.NumCPU())
	done := make([]chan result, len(dirs))
	for i, dir := range dirs {
		done[i] = make(chan result, 1)
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			e, err := compile(ctx, dir, archs, compiler)
			done[i] <- result{e, dir, err}
		}()
	}
	return func(yield func(result) bool) {
		defer stop()
		for _, d := range done {
			if !yield(<-d) {
				return
			}
		}
	}
}

// findNVCC prefers the pinned toolchain, which the table is made with.
func findNVCC(ctx context.Context, explicit string) (*nvcc.Compiler, error) {
	if explicit == "" && os.Getenv("VITGEN_NVCC") == "" {
		pinned, _ := filepath.Glob(filepath.Join(nvcc.Venv, "lib", "python3*", "site-packages", "nvidia", "cu*", "bin", "nvcc"))
		if len(pinned) > 0 {
			explicit = pinned[0]
		}
	}
	return nvcc.Find(ctx, explicit)
}

// variants compiles examples in the precisions they do not ask for: kernels on
// tensor cores are others.
func variants(ctx context.Context, root string) ([]string, error) {
	var dirs []string
	for _, v := range [][2]string{{"vit", "tf32"}, {"vit", "bf16"}, {"vit_b16", "bf16"}} {
		dir, spec := filepath.Join(root, v[0]+"_"+v[1]), filepath.Join("examples", v[0]+".yaml")
		if _, err := os.Stat(spec); errors.Is(err, fs.ErrNotExist) {
			continue // this is not vitgen's own repository
		}
		cmd := exec.CommandContext(ctx, "go", "run", "./cmd/vitgen", "compile", spec,
			"--precision", v[1], "-o", dir, "--nvcc", "none")
		if text, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("vitgen compile: %w\n%s", err, text)
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// examples lists the generated packages that have CUDA kernels. That there are
// none cannot be right.
func examples(root string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(root, "*", nvcc.SourceName))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no %s/*/%s; run this from the repository's root", root, nvcc.SourceName)
	}
	var dirs []string
	for _, f := range files {
		dirs = append(dirs, filepath.Dir(f))
	}
	return dirs, nil
}
