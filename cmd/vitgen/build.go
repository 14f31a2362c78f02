package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vitgen/vitgen/internal/cudaenv"
	"github.com/vitgen/vitgen/runtime/cpu/isa"
)

func buildCommand() *cobra.Command {
	var f compileFlags
	var bin, isas string
	cmd := &cobra.Command{
		Use:   "build SPEC|DIR",
		Short: "compile a spec, or take a generated package, and build the trainer binary",
		Long: `Compiles a spec, or takes a generated package, and builds the trainer binary.

Its kernels for the CPU are built for every instruction set, and the binary chooses
when it starts. With --isa native they are built for this machine's alone, in two
thirds of the time; on a machine that lacks it the binary says so and stops.

With --target cpu,cuda the binary runs on CUDA devices too: the package's kernels
are compiled to PTX and the trainer is built with -tags cuda. That takes nvcc or
NVRTC, and neither CUDA's headers nor a driver, which the binary looks for when it
starts. The package github.com/mumax/3/cuda/cu that it then contains is under the
GPLv3.`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.cuda.check(); err != nil {
				return err
			}
			tags, err := isaTags(isas)
			if err != nil {
				return err
			}
			dir := args[0]
			if st, err := os.Stat(dir); err != nil || !st.IsDir() {
				// The package is what compile writes; --target is about the binary.
				if dir, err = compile(cmd, &f, args[0], []string{"cpu", "cuda"}); err != nil || dir == "" {
					return err
				}
			}
			if err := checkToolchain(dir); err != nil {
				return err
			}
			if f.cuda.wanted() {
				if err := f.cuda.compilePTX(cmd, dir, false, f.verbose); err != nil {
					return err
				}
			}
			if bin == "" {
				bin = filepath.Join("bin", filepath.Base(dir))
			}
			return buildTrainer(cmd, dir, bin, tags, f.cuda.wanted(), f.verbose)
		},
	}
	f.add(cmd)
	f.cuda.add(cmd, []string{"cpu"}, "what the binary runs on: cpu; or cpu,cuda")
	cmd.Flags().StringVar(&isas, "isa", "all", "instruction sets of the CPU to build kernels for: all; native, this machine's; or of plain, avx2 and avx512 some")
	cmd.Flags().StringVar(&bin, "bin", "", "the binary to write (default bin/NAME)")
	return cmd
}

// isaTags are the build tags for what --isa says; none build all.
func isaTags(sets string) ([]string, error) {
	switch sets {
	case "all":
		return nil, nil
	case "native":
		return []string{isa.Best().Tag()}, nil
	}
	var tags []string
	for name := range strings.SplitSeq(sets, ",") {
		set, err := isa.Named(name)
		if err != nil {
			return nil, fmt.Errorf("%w: --isa takes all, native, or of plain, avx2 and avx512 some, with commas", err)
		}
		tags = append(tags, set.Tag())
	}
	return tags, nil
}

// buildTrainer runs the Go tool on a package's trainer, with build tags. verbose
// shows how.
func buildTrainer(cmd *cobra.Command, dir, bin string, tags []string, cuda, verbose bool) error {
	abs, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	args, on, env := []string{"build", "-o", abs}, "", []string(nil)
	if cuda {
		place, err := cudaenv.DefaultDir()
		if err != nil {
			return err
		}
		if env, err = cudaenv.Env(place); err != nil {
			return err
		}
		tags, on = append(tags, "cuda"), " for cpu and cuda"
	}
	if len(tags) > 0 {
		args = append(args, "-tags", strings.Join(tags, ","))
	}
	args = append(args, "./trainer")
	if verbose {
		fmt.Fprintf(cmd.ErrOrStderr(), "in %s: %s\n", dir, strings.Join(append(append(env, "go"), args...), " "))
	}
	build := exec.Command("go", args...)
	build.Dir = dir
	build.Env = append(os.Environ(), env...)
	build.Stdout, build.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
	if err := build.Run(); err != nil {
		return fmt.Errorf("go build of %s: %w", filepath.Join(dir, "trainer"), err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "built %s%s\n", bin, on)
	return nil
}

// checkToolchain looks for what a trainer is built with. Where there is no C
// compiler the Go tool would only complain that files are missing.
func checkToolchain(dir string) error {
	env := exec.Command("go", "env", "-json", "CC", "CXX", "CGO_ENABLED")
	env.Dir = dir
	out, err := env.Output()
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return errors.New("a trainer is built with Go, and there is no go in PATH: install Go from https://go.dev/dl")
		}
		return fmt.Errorf("go env: %w", err)
	}
	set := map[string]string{}
	if err := json.Unmarshal(out, &set); err != nil {
		return fmt.Errorf("go env: %w", err)
	}
	for _, c := range []struct{ name, value, language string }{{"CC", set["CC"], "C"}, {"CXX", set["CXX"], "C++"}} {
		words := strings.Fields(c.value)
		if len(words) == 0 {
			continue
		}
		if _, err := exec.LookPath(words[0]); err != nil {
			return fmt.Errorf("a trainer is built with a %s compiler, and there is no %s: install gcc and g++ (Debian: apt-get install g++), or name one in %s", c.language, words[0], c.name)
		}
	}
	if set["CGO_ENABLED"] == "0" {
		return errors.New("a trainer contains C++: build it with CGO_ENABLED=1")
	}
	return nil
}
