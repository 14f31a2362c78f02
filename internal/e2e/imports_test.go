package e2e

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// rule says what the packages at or below a place may import besides the
// standard library. The first rule that fits a package counts.
type rule struct {
	place  string   // relative to the module
	own    []string // packages of this module; with /... those below it too
	others []string // import paths of other modules, or beginnings of them
}

// rules are the directions that keep the parts apart: a trainer carries no
// compiler, the graph knows nothing of specs or kernels, and heavy libraries
// stay where they are needed.
var rules = []rule{
	{place: "cmd", own: []string{"spec", "ir", "passes", "codegen", "runtime/cpu/isa", "internal/nvcc", "internal/cudaenv"},
		others: []string{"github.com/spf13/cobra", "github.com/google/renameio"}},
	{place: "spec", others: []string{"gopkg.in/yaml.v3", "github.com/agnivade/levenshtein"}},
	{place: "ir/interp", own: []string{"ir"}},
	{place: "ir/irtest", own: []string{"ir", "ir/interp"}, others: []string{"pgregory.net/rapid"}},
	{place: "ir"},
	{place: "passes", own: []string{"ir", "spec"}, others: []string{"github.com/agnivade/levenshtein"}},
	{place: "codegen/kernels"},
	{place: "codegen/plan", own: []string{"ir", "codegen/kernels"}},
	{place: "codegen/gogen", own: []string{"spec", "codegen/plan", "codegen/kernels"}, others: []string{"github.com/dave/jennifer"}},
	{place: "codegen/onnx", own: []string{"ir", "internal/onnxpb"}},
	{place: "codegen/emittest", own: []string{"ir/...", "passes", "codegen/plan"}},
	{place: "codegen", own: []string{"ir", "spec", "codegen/..."}},
	{place: "runtime/onnx", own: []string{"internal/onnxpb"}, others: []string{
		"github.com/google/renameio", "google.golang.org/protobuf/encoding/protowire"}},
	{place: "runtime", own: []string{"runtime/..."}, others: []string{
		"github.com/agnivade/levenshtein", "github.com/google/renameio", "github.com/mattn/go-isatty",
		"github.com/schollz/progressbar", "gonum.org/v1/plot", "google.golang.org/protobuf/encoding/protowire", "golang.org/x/sys/cpu",
		"github.com/mumax/3/cuda/cu"}}, // with -tags cuda
	{place: "generated", own: []string{"runtime", "runtime/trainer", "generated/..."}},
	{place: "examples", own: []string{"runtime/...", "generated/..."}},
	{place: "bench/ptxas", own: []string{"internal/nvcc"}},
	{place: "bench/gpu", own: []string{"bench/gpu/...", "bench/measure", "bench/workload", "bench/probes", "codegen/kernels", "spec", "sim", "internal/nvcc", "internal/cudaenv", "runtime", "runtime/trainer"},
		others: []string{"github.com/google/renameio", "github.com/rogpeppe/go-internal"}},
	{place: "bench/roofline", own: []string{"bench/measure", "spec", "passes", "ir", "codegen", "codegen/plan", "codegen/kernels", "runtime/cpu/isa", "runtime/cpu/roof"}},
	{place: "bench/workload", own: []string{"spec"}, others: []string{"gopkg.in/yaml.v3"}},
	{place: "bench/cpu", own: []string{"bench/measure", "bench/workload", "runtime/cpu/isa", "spec"}},
	{place: "bench", own: []string{"bench/measure"}, others: []string{"github.com/google/renameio"}},
	{place: "internal/e2e/steps", own: []string{"runtime"}},
	{place: "internal/e2e"},
	{place: "internal/cudaenv", own: []string{"internal/cudaenv", "runtime/cuda/link"}, others: []string{"github.com/google/renameio"}},
	{place: "internal/nvcc", others: []string{"github.com/google/renameio"}},
	{place: "internal/onnxpb", others: []string{"google.golang.org/protobuf/encoding/protowire"}},
	{place: "internal/python"},
	{place: "internal/testreport"},
	{place: "sim"},
}

// goPackage is what the test reads of `go list -json`.
type goPackage struct {
	ImportPath string
	Standard   bool
	Imports    []string
}

// Who may import whom, in code that ships. Tests may look further.
func TestImportDirections(t *testing.T) {
	std := map[string]bool{"C": true}
	var own []goPackage
	for _, p := range listPackages(t) {
		if p.Standard {
			std[p.ImportPath] = true
		} else if strings.HasPrefix(p.ImportPath, module+"/") {
			own = append(own, p)
		}
	}
	if len(own) < 10 {
		t.Fatalf("go list finds %d packages of %s", len(own), module)
	}
	for _, p := range own {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		r := ruleOf(name)
		if r == nil {
			t.Errorf("no rule says what %s may import", name)
			continue
		}
		for _, imp := range p.Imports {
			if !std[imp] && !r.allows(imp) {
				t.Errorf("%s imports %s, which packages in %s may not", name, imp, r.place)
			}
		}
	}
}

func ruleOf(name string) *rule {
	for i := range rules {
		if within(name, rules[i].place) {
			return &rules[i]
		}
	}
	return nil
}

func (r *rule) allows(imp string) bool {
	if name, own := strings.CutPrefix(imp, module+"/"); own {
		return slices.ContainsFunc(r.own, func(p string) bool {
			below, deep := strings.CutSuffix(p, "/...")
			return name == p || deep && within(name, below)
		})
	}
	return slices.ContainsFunc(r.others, func(prefix string) bool { return within(imp, prefix) })
}

// within reports whether a package is at a place or below it.
func within(name, place string) bool {
	return name == place || strings.HasPrefix(name, place+"/")
}

// listPackages lists the packages of the module and all they depend on.
func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Imports", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}
