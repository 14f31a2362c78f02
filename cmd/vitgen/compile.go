package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/vitgen/vitgen/codegen"
	"github.com/vitgen/vitgen/internal/nvcc"
	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/spec"
)

// compileFlags are the flags of compile and build.
type compileFlags struct {
	out       string
	precision string
	dump      []string
	dumpDir   string
	stopAfter string
	disable   []string
	timing    bool
	verbose   bool
	cuda      cudaFlags
}

func (f *compileFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVarP(&f.out, "out", "o", "", "folder of the generated package (default generated/NAME)")
	fl.StringVar(&f.precision, "precision", "", "fp32, tf32 or bf16, in place of the spec's train.precision")
	fl.StringSliceVar(&f.dump, "dump", nil, "print the graphs after these passes, or after all")
	fl.StringVar(&f.dumpDir, "dump-dir", "", "write dumps into files of this folder instead of standard error")
	fl.StringVar(&f.stopAfter, "stop-after", "", "stop after this pass and write no package")
	fl.StringSliceVar(&f.disable, "disable", nil, "leave out these optional passes")
	fl.BoolVar(&f.timing, "time", false, "print what each pass takes")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "print the passes' decisions")
}

func compileCommand() *cobra.Command {
	var f compileFlags
	cmd := &cobra.Command{
		Use:   "compile SPEC",
		Short: "compile a spec into a Go package and its trainer",
		Long: `Compiles a spec into a Go package and its trainer.

The package's code for the CPU is C++ and compiled with the trainer. Its kernels
for CUDA devices are compiled here, to PTX, if there is nvcc or NVRTC on this
machine; without, the package is the same but for the PTX.`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.cuda.check(); err != nil {
				return err
			}
			dir, err := compile(cmd, &f, args[0], f.cuda.targets)
			if err != nil || dir == "" || !f.cuda.wanted() {
				return err
			}
			return f.cuda.compilePTX(cmd, dir, true, f.verbose)
		},
	}
	f.add(cmd)
	f.cuda.add(cmd, []string{"cpu", "cuda"}, "what to write code for: cpu, cuda; the passes shown are the first's, and cpu is always written")
	return cmd
}

func readSpec(file string) (*spec.Spec, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return nil, fmt.Errorf("%s is a folder; name the spec file in it", file)
	}
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return spec.Parse(file, src)
}

// compile runs the whole compiler and writes the package. It returns the
// package's folder, or "" if --stop-after wants none. The flags that show what
// passes do are about the first target.
func compile(cmd *cobra.Command, f *compileFlags, file string, targets []string) (string, error) {
	s, err := readSpec(file)
	if err != nil {
		return "", err
	}
	switch f.precision {
	case "":
	case "fp32", "tf32", "bf16":
		s.Train.Precision = f.precision
	default:
		return "", fmt.Errorf("unknown precision %q: --precision takes fp32, tf32 or bf16", f.precision)
	}
	o, err := f.options(cmd.ErrOrStderr())
	if err != nil {
		return "", err
	}
	graphs, err := compileTargets(s, o, targets)
	if err != nil || f.stopAfter != "" {
		return "", err
	}
	out := f.out
	if out == "" {
		out = filepath.Join("generated", s.Name)
	}
	importPath, err := importPathOf(out)
	if err != nil {
		return "", err
	}
	in := codegen.Input{
		Spec: s, ImportPath: importPath,
		Programs: programsOf(graphs[passes.CPU]), CUDA: programsOf(graphs[passes.CUDA]),
	}
	if in.Inference, err = passes.Inference(s); err != nil {
		return "", err
	}
	if in.StepFLOPsUnpruned, err = unprunedFLOPs(s); err != nil {
		return "", err
	}
	files, err := codegen.Generate(in)
	if err != nil {
		return "", err
	}
	if err := writePackage(out, files); err != nil {
		return "", err
	}
	if p := s.Train.Precision; p != "fp32" {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: train.precision is %s; the CPU target computes in fp32\n", p)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: wrote %d files to %s\n", file, len(files), out)
	return out, nil
}

// compileTargets makes the programs of the CPU and of the targets. Only of the
// first target the passes' doings are shown; with --stop-after, only it is
// compiled.
func compileTargets(s *spec.Spec, o passes.Options, targets []string) (map[passes.Target]*passes.Programs, error) {
	graphs := map[passes.Target]*passes.Programs{}
	for _, t := range append(slices.Clone(targets), "cpu") {
		o.Target = passes.Target(t)
		if graphs[o.Target] != nil {
			continue
		}
		p, err := passes.Compile(s, o)
		if err != nil || o.StopAfter != "" {
			return nil, err
		}
		graphs[o.Target] = p
		o = passes.Options{Disable: o.Disable}
	}
	return graphs, nil
}

// programsOf lists a target's programs as codegen takes them; nil of nil.
func programsOf(p *passes.Programs) []*ir.Graph {
	if p == nil {
		return nil
	}
	return []*ir.Graph{p.Forward, p.Eval, p.Grad, p.Update}
}

// unprunedFLOPs counts what a step would cost if every row were computed.
func unprunedFLOPs(s *spec.Spec) (int64, error) {
	p, err := passes.Compile(s, passes.Options{Disable: []string{"prune"}, StopAfter: "dce-late"})
	if err != nil {
		return 0, err
	}
	return ir.FLOPs(p.Grad), nil
}

// options turns the flags into the compiler's switches.
func (f *compileFlags) options(w io.Writer) (passes.Options, error) {
	o := passes.Options{Disable: f.disable, StopAfter: f.stopAfter, DumpPasses: f.dump}
	if f.dumpDir != "" {
		if err := os.MkdirAll(f.dumpDir, 0o777); err != nil {
			return o, err
		}
		if len(f.dump) == 0 {
			o.DumpPasses = []string{"all"}
		}
	}
	n := 0
	o.DumpTo = func(pass string, g *ir.Graph) {
		if f.dumpDir == "" {
			fmt.Fprintf(w, "# after %s\n%s\n", pass, g)
			return
		}
		n++
		name := fmt.Sprintf("%03d-%s-%s.ir", n, strings.ReplaceAll(g.Name, ".", "-"), pass)
		if err := os.WriteFile(filepath.Join(f.dumpDir, name), []byte(g.String()), 0o666); err != nil {
			fmt.Fprintln(w, "warning: dump not written:", err)
		}
	}
	if f.timing {
		o.Timing = func(pass, program string, d time.Duration) {
			fmt.Fprintf(w, "%-18s %-8s %8.3f ms\n", pass, program, float64(d)/1e6)
		}
	}
	if f.verbose {
		o.Report = func(pass, program, text string) { fmt.Fprintf(w, "%s (%s): %s\n", pass, program, text) }
	}
	return o, nil
}

// importPathOf finds the import path of a folder from the go.mod above it.
func importPathOf(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := abs; ; at = filepath.Dir(at) {
		mod, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil {
			rel, err := filepath.Rel(at, abs)
			if err != nil {
				return "", err
			}
			for line := range strings.Lines(string(mod)) {
				if f := strings.Fields(line); len(f) >= 2 && f[0] == "module" {
					return importable(path.Join(strings.Trim(f[1], `"`), filepath.ToSlash(rel)), dir)
				}
			}
			return "", fmt.Errorf("%s names no module", filepath.Join(at, "go.mod"))
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("no go.mod above %s: the generated package needs a module; run `go mod init NAME` and `go get github.com/vitgen/vitgen`", abs)
		}
	}
}

// importable refuses an import path with a character that Go does not allow in
// one; dir is the folder it came from.
func importable(path, dir string) (string, error) {
	const allowed = "-._~+/"
	for _, r := range path {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		if !letter && !strings.ContainsRune(allowed, r) {
			return "", fmt.Errorf("a package in %s could not be imported: Go allows no %q in import paths; choose another folder with -o", dir, r)
		}
	}
	return path, nil
}

// writePackage puts the files into dir: each atomically, none over a file that
// vitgen did not write, and generated files of an earlier run that are not
// among them are removed. If a write fails, files it created are removed.
func writePackage(dir string, files []codegen.File) (err error) {
	if err := checkForeign(dir, files); err != nil {
		return err
	}
	var made []string
	defer func() {
		if err != nil {
			for i := len(made) - 1; i >= 0; i-- {
				os.Remove(made[i])
			}
		}
	}()
	for _, f := range files {
		name := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := makeDirs(filepath.Dir(name), &made); err != nil {
			return err
		}
		old, err := os.ReadFile(name)
		if err == nil && bytes.Equal(old, f.Data) {
			continue // keeps its time stamp, so that nothing is built again
		}
		if errors.Is(err, fs.ErrNotExist) {
			made = append(made, name)
		}
		if err := renameio.WriteFile(name, f.Data, 0o644); err != nil {
			return err
		}
	}
	if err := removeStale(dir, files); err != nil {
		return err
	}
	_, err = nvcc.RemoveStale(dir)
	return err
}

// makeDirs is MkdirAll that notes what it made.
func makeDirs(dir string, made *[]string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := makeDirs(parent, made); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	*made = append(*made, dir)
	return nil
}

// isGenerated reports whether a file was written by vitgen. Headers, tables,
// the canonical spec and the ONNX graph carry no marker; their names tell.
func isGenerated(name string) bool {
	switch filepath.Base(name) {
	case "vg_cpu.h", "vg_cuda.h", "vg_abi.h", "const.f32", codegen.SpecFile, codegen.ONNXFile:
		return true
	}
	data, err := os.ReadFile(name)
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return err == nil && bytes.Contains(line, []byte(codegen.Marker))
}

func checkForeign(dir string, files []codegen.File) error {
	for _, f := range files {
		name := filepath.Join(dir, filepath.FromSlash(f.Name))
		if _, err := os.Stat(name); err == nil && !isGenerated(name) {
			return fmt.Errorf("%s exists and was not written by vitgen; choose another folder with -o, or remove it", name)
		}
	}
	return nil
}

// removeStale deletes generated files of an earlier run.
func removeStale(dir string, files []codegen.File) error {
	keep := map[string]bool{}
	for _, f := range files {
		keep[filepath.Join(dir, filepath.FromSlash(f.Name))] = true
	}
	for _, pattern := range []string{"*.go", "*.cc", "*.cu", "*.h", "internal/*/*", "const.f32", codegen.SpecFile, codegen.ONNXFile} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, name := range names {
			if !keep[name] && isGenerated(name) {
				if err := os.Remove(name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
