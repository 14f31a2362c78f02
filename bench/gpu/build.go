package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"

	"github.com/vitgen/vitgen/bench/measure"
	"github.com/vitgen/vitgen/bench/workload"
	"github.com/vitgen/vitgen/codegen/kernels"
	"github.com/vitgen/vitgen/internal/cudaenv"
	"github.com/vitgen/vitgen/internal/nvcc"
	"github.com/vitgen/vitgen/spec"
)

// builder makes what lies in the folder of binaries.
type builder struct {
	out, work string // binaries; specs, packages and caches
	archs     []string
	nvcc      string
	rehearsal bool
	manifest  *manifest
}

func buildCommand(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	b := &builder{work: workDir}
	flags.StringVar(&b.out, "out", binDir, "`folder` for the binaries")
	arch := flags.String("arch", strings.Join(nvcc.DefaultArchs, ","), "`architectures` to compile kernels for")
	flags.StringVar(&b.nvcc, "nvcc", "", "nvcc, libnvrtc.so or CUDA `folder` to use (default: as vitgen finds it)")
	flags.BoolVar(&b.rehearsal, "rehearsal", false, "small models and the simulated device, in place of the real ones")
	only := flags.String("models", "", "`names` of the models to build, with commas; default: all")
	if err := measure.Parse(flags, args); err != nil {
		return err
	}
	b.archs = measure.Names(*arch)
	all := sources
	if b.rehearsal {
		all, b.work = rehearsalSources, workDir+"-rehearsal"
	}
	chosen, err := pick(all, measure.Names(*only))
	if err != nil {
		return err
	}
	return b.build(ctx, chosen)
}

func (b *builder) build(ctx context.Context, chosen []source) error {
	for _, dir := range []string{b.out, b.work} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
	}
	// Two builds at once would pull packages from under each other.
	unlock, err := lockedfile.MutexAt(filepath.Join(b.work, "lock")).Lock()
	if err != nil {
		return err
	}
	defer unlock()
	b.manifest = &manifest{
		Built: time.Now().Format(time.DateTime), Versions: measure.ToolVersions(ctx, resultsDir), Archs: b.archs, PTX: true, Rehearsal: b.rehearsal,
	}
	if err := b.goBuild(ctx, filepath.Join(b.work, "vitgen"), "./cmd/vitgen", nil); err != nil {
		return err
	}
	if err := b.packages(ctx, chosen); err != nil {
		return err
	}
	if err := b.trainers(ctx); err != nil {
		return err
	}
	if err := b.goBuild(ctx, filepath.Join(b.out, "gpu"), "./bench/gpu", nil); err != nil {
		return err
	}
	if b.rehearsal {
		if err := b.simulated(ctx); err != nil {
			return err
		}
	}
	if err := b.manifest.write(b.out); err != nil {
		return err
	}
	return b.summary()
}

// packages compiles the specs. What is left of earlier runs goes first.
func (b *builder) packages(ctx context.Context, chosen []source) error {
	if err := os.RemoveAll(filepath.Join(b.work, "pkg")); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(b.work, "specs"), 0o777); err != nil {
		return err
	}
	for _, s := range chosen {
		for i, m := range s.models() {
			if b.rehearsal && m.Unpruned && (m.Precision != "bf16" || s.golden == "") {
				continue // one shows that it works
			}
			sp, err := b.compile(ctx, &s, m)
			if err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
			b.manifest.Models = append(b.manifest.Models, m)
			if i == 0 && s.model != nil {
				b.manifest.Workloads = append(b.manifest.Workloads, s.workload(sp))
			}
		}
	}
	return nil
}

// compile derives a model's spec and makes its package.
func (b *builder) compile(ctx context.Context, s *source, m *model) (*spec.Spec, error) {
	src, err := os.ReadFile(s.file)
	if err != nil {
		return nil, err
	}
	set := map[string]string{"name": m.pkg(), "train.precision": m.Precision}
	for k, v := range s.set {
		set[k] = v
	}
	if src, err = workload.Derive(src, set); err != nil {
		return nil, fmt.Errorf("%s: %w", s.file, err)
	}
	file := filepath.Join(b.work, "specs", m.pkg()+".yaml")
	if err := os.WriteFile(file, src, 0o666); err != nil {
		return nil, err
	}
	dir := b.dir(m)
	argv := []string{filepath.Join(b.work, "vitgen"), "compile", file, "-o", dir, "--target", "cpu,cuda"}
	if b.rehearsal {
		argv = append(argv, "--nvcc", "none")
	} else {
		argv = append(argv, "--arch", strings.Join(b.archs, ","))
		if b.nvcc != "" {
			argv = append(argv, "--nvcc", b.nvcc)
		}
	}
	if m.Unpruned {
		argv = append(argv, "--disable", "prune")
	}
	if err := b.command(ctx, nil, argv...); err != nil {
		return nil, err
	}
	ptx, err := filepath.Glob(filepath.Join(dir, "kernels.sm_*.ptx"))
	if err != nil {
		return nil, err
	}
	b.manifest.PTX = b.manifest.PTX && len(ptx) > 0
	if err := plainCPU(dir); err != nil {
		return nil, err
	}
	return spec.Parse(file, src)
}

func (b *builder) dir(m *model) string { return filepath.Join(b.work, "pkg", m.pkg()) }

// plainCPU has the kernels for the CPU compiled without optimization: they are in
// every trainer, take most of its build, and are not what is measured here.
func plainCPU(dir string) error {
	file := filepath.Join(dir, "internal/plain/plain.go")
	src, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	changed := bytes.Replace(src, []byte("CXXFLAGS: "+kernels.Optimize), []byte("CXXFLAGS: -O0"), 1)
	if bytes.Equal(src, changed) {
		return fmt.Errorf("BUG: %s does not say %s", file, kernels.Optimize)
	}
	return os.WriteFile(file, changed, 0o666)
}

// trainers builds the one program that has them all.
func (b *builder) trainers(ctx context.Context) error {
	var imports, table strings.Builder
	for _, m := range b.manifest.Models {
		fmt.Fprintf(&imports, "%q\n", "github.com/vitgen/vitgen/"+filepath.ToSlash(b.dir(m)))
		fmt.Fprintf(&table, "%q: %s.Describe,\n", m.Name, m.pkg())
	}
	src, err := format.Source(fmt.Appendf(nil, "// Code generated by bench/gpu; DO NOT EDIT.\n\npackage main\n\nimport (\n%s"+
		"\"github.com/vitgen/vitgen/bench/gpu/trainers\"\n\"github.com/vitgen/vitgen/runtime\"\n)\n\n"+
		"func main() {\ntrainers.Main(map[string]func() *runtime.Model{\n%s})\n}\n", &imports, &table))
	if err != nil {
		return fmt.Errorf("BUG: the table of trainers: %w", err)
	}
	dir := filepath.Join(b.work, "trainers")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), src, 0o666); err != nil {
		return err
	}
	env, err := cudaenv.Env("_build/cuda")
	if err != nil {
		return err
	}
	// As plainCPU: one instruction set will do.
	return b.goBuild(ctx, filepath.Join(b.out, "trainers"), "./"+dir, env, "-tags", "cuda,vitgen_plain")
}

func (b *builder) goBuild(ctx context.Context, program, pkg string, env []string, flags ...string) error {
	argv := append([]string{"go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", program}, flags...)
	return b.command(ctx, append(env, "CGO_ENABLED=1"), append(argv, pkg)...)
}

// command runs a tool of the build and shows what it says.
func (b *builder) command(ctx context.Context, env []string, argv ...string) error {
	logf("$ %s\n", strings.Join(argv, " "))
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) && argv[0] == "go" {
			return errors.New("binaries are built with Go, and there is no go in PATH; build them elsewhere and bring " + b.out)
		}
		return fmt.Errorf("%s: %w", argv[0], err)
	}
	return nil
}

// summary says what was made.
func (b *builder) summary() error {
	total := int64(0)
	err := filepath.WalkDir(b.out, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	if err != nil {
		return err
	}
	if !b.manifest.PTX && !b.rehearsal {
		logf("note: no CUDA compiler was found, so the trainers have no kernels for a GPU\n")
	}
	logf("%d models in %s, %.0f MB, for %s/%s\n", len(b.manifest.Models), b.out, float64(total)/1e6, runtime.GOOS, runtime.GOARCH)
	return nil
}
