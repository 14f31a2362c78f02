package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"

	"github.com/vitgen/vitgen/codegen"
	"github.com/vitgen/vitgen/codegen/kernels"
	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/spec"
)

const (
	root   = "../.." // of the module
	module = "github.com/vitgen/vitgen"
)

// TestMain makes the folders that built trainers go into. Generated packages
// must lie inside the module to import its runtime; they are named by their
// content, so that the Go tool's cache knows those it has built before, and
// removed at the end. The lock keeps two runs of these tests from sharing them.
func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	build := filepath.Join(root, "_build")
	if err := os.MkdirAll(build, 0o777); err != nil {
		return fail(err)
	}
	unlock, err := lockedfile.MutexAt(filepath.Join(build, "e2e.lock")).Lock()
	if err != nil {
		return fail(err)
	}
	defer unlock()
	if binaries, err = os.MkdirTemp("", "vitgen-e2e-"); err != nil {
		return fail(err)
	}
	defer os.RemoveAll(binaries)
	defer os.RemoveAll(filepath.Join(root, packages))
	return m.Run()
}

// packages is where generated packages go, relative to the root.
const packages = "_build/e2e"

var binaries string // folder of built trainers

// builds are the trainers of this run by content; slots bounds how many are
// being compiled at once, each of which keeps a core or two busy.
var (
	builds   = map[string]*build{}
	buildsMu sync.Mutex
	slots    = make(chan struct{}, 2)
)

// build is one trainer, built once.
type build struct {
	once    sync.Once
	bin     string
	kernels string
	err     error
}

// mode is how a trainer is built. What ships is allSets; the others compile in
// a half and a fifth of its time, for tests of what the kernels compute rather
// than of how the C++ compiler translates them.
type mode int

const (
	allSets     mode = iota // as vitgen build does
	plainOnly               // optimized, but without the wider instruction sets
	unoptimized             // plain, and compiled with -O0
	withCUDA                // unoptimized, and with -tags cuda: see cuda_test.go
	onlyCUDA                // the same, but its CPU kernels do nothing

	stepping     // unoptimized, and with the main of package steps: see average_test.go
	steppingCUDA // the same, and with -tags cuda as the only device
)

// cuda reports a trainer with CUDA.
func (how mode) cuda() bool { return how == withCUDA || how == onlyCUDA || how == steppingCUDA }

// model is a compiled and built spec.
type model struct {
	spec    *spec.Spec
	bin     string // the trainer
	kernels string // its CUDA kernels, compiled for the simulator; if it has any
}

// mustParse reads a spec from text.
func mustParse(t testing.TB, file string, src []byte) *spec.Spec {
	t.Helper()
	s, err := spec.Parse(file, src)
	if err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	return s
}

// readSpec reads a spec by its path from the root.
func readSpec(t testing.TB, path string) *spec.Spec {
	t.Helper()
	src, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return mustParse(t, filepath.Base(path), src)
}

// generate compiles a spec to the files of its package, as vitgen does.
func generate(t testing.TB, s *spec.Spec, o passes.Options, importPath string) []codegen.File {
	t.Helper()
	p, err := passes.Compile(s, o)
	if err != nil {
		t.Fatal(err)
	}
	o.Disable = append([]string{"prune"}, o.Disable...)
	o.StopAfter = "dce-late"
	whole, err := passes.Compile(s, o)
	if err != nil {
		t.Fatal(err)
	}
	o.StopAfter, o.Target = "", passes.CUDA
	o.Disable = o.Disable[1:]
	cuda, err := passes.Compile(s, o)
	if err != nil {
		t.Fatal(err)
	}
	inference, err := passes.Inference(s)
	if err != nil {
		t.Fatal(err)
	}
	files, err := codegen.Generate(codegen.Input{
		Spec: s, ImportPath: importPath,
		Programs:          []*ir.Graph{p.Forward, p.Eval, p.Grad, p.Update},
		CUDA:              []*ir.Graph{cuda.Forward, cuda.Eval, cuda.Grad, cuda.Update},
		Inference:         inference,
		StepFLOPsUnpruned: ir.FLOPs(whole.Grad),
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// compile generates and builds the trainer of a spec, or finds the one that is
// built already. It skips the test in short mode.
func compile(t testing.TB, s *spec.Spec, o passes.Options, how mode) *model {
	t.Helper()
	if testing.Short() {
		t.Skip("builds a trainer, which takes seconds; not in -short mode")
	}
	h := sha256.New()
	for _, f := range generate(t, s, o, module) {
		fmt.Fprintf(h, "%q %d\n%s", f.Name, len(f.Data), f.Data)
	}
	key := hex.EncodeToString(h.Sum(nil)[:8])
	key = fmt.Sprintf("%s-%d", key, how)
	files := generate(t, s, o, module+"/"+packages+"/"+key)
	if how == stepping || how == steppingCUDA {
		for i, f := range files {
			if f.Name == "trainer/main.go" {
				data := bytes.Replace(f.Data, []byte(module+"/runtime/trainer"), []byte(module+"/internal/e2e/steps"), 1)
				files[i].Data = bytes.Replace(data, []byte("trainer.Main"), []byte("steps.Main"), 1)
			}
		}
	}
	if how == onlyCUDA || how == steppingCUDA {
		for i, f := range files {
			if f.Name == "internal/plain/kernels_cpu.cc" {
				files[i].Data = fmt.Appendf(nil, "#include \"vg_abi.h\"\nextern \"C\" void vg_%s_run_plain(const vg_program*, vg_worker*) {}\n", s.Name)
			}
		}
	}
	if how >= unoptimized {
		for i, f := range files {
			if f.Name == "internal/plain/plain.go" {
				files[i].Data = bytes.Replace(f.Data, []byte("CXXFLAGS: "+kernels.Optimize), []byte("CXXFLAGS: -O0"), 1)
				if bytes.Equal(files[i].Data, f.Data) {
					t.Fatalf("%s does not say %s", f.Name, kernels.Optimize)
				}
			}
		}
	}

	buildsMu.Lock()
	b := builds[key]
	if b == nil {
		b = &build{bin: filepath.Join(binaries, key)}
		builds[key] = b
	}
	buildsMu.Unlock()
	b.once.Do(func() {
		slots <- struct{}{}
		defer func() { <-slots }()
		b.err = b.run(key, files, how)
	})
	if b.err != nil {
		t.Fatal(b.err)
	}
	return &model{s, b.bin, b.kernels}
}

// run writes the package and calls the Go tool.
func (b *build) run(key string, files []codegen.File, how mode) error {
	dir := filepath.Join(root, packages, key)
	for _, f := range files {
		name := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(name, f.Data, 0o666); err != nil {
			return err
		}
	}
	args := []string{"build", "-buildvcs=false", "-ldflags=-s -w", "-o", b.bin}
	var tags []string
	if how != allSets {
		tags = append(tags, "vitgen_plain")
	}
	env := os.Environ()
	if how.cuda() {
		tags = append(tags, "cuda")
		cgo, err := cudaBuild()
		if err != nil {
			return err
		}
		env = append(env, cgo...)
		if b.kernels, err = simulatorBuild(filepath.Join(dir, "kernels.cu")); err != nil {
			return err
		}
	}
	cmd := exec.Command("go", append(args, "-tags", strings.Join(tags, ","), "./"+packages+"/"+key+"/trainer")...)
	cmd.Dir = root
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// trainerTimeout is far above what any command here takes.
const trainerTimeout = 5 * time.Minute

// run runs a command of the trainer with additions to the environment, and
// returns what it printed and its exit status.
func (m *model) run(t testing.TB, env []string, args ...string) (output string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), trainerTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, m.bin, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// verify fails the test unless the trainer reproduces a golden file.
func (m *model) verify(t testing.TB, golden string, env []string, args ...string) {
	t.Helper()
	args = append([]string{"verify", "--golden", golden}, args...)
	if out, status := m.run(t, env, args...); status != 0 {
		t.Errorf("verify: exit status %d\n%s", status, misses(out))
	}
}

// misses cuts the rows that pass out of verify's table.
func misses(out string) string {
	var lines []string
	for line := range strings.Lines(out) {
		if !strings.HasSuffix(line, "  ok\n") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
