package passes

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/ir/interp"
	"github.com/vitgen/vitgen/ir/irtest"
	"github.com/vitgen/vitgen/spec"
)

// Each file of testdata is a case. Its first line names passes and says what
// the case is about:
//
//	canonicalize dce: a scale of a scale is one scale
//
// "before" holds the graph the passes get, "after" what they make of it; the
// interpreter must get the same outputs from both. For the frontend, "spec.yaml"
// stands in place of before, and forward, eval, grad and update hold what it
// builds. VITGEN_UPDATE=1 rewrites the results.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	covered := map[string]bool{}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			names, about, ok := strings.Cut(string(ar.Comment), ":")
			if !ok || strings.TrimSpace(about) == "" {
				t.Fatal("the first line must be PASS…: what the case is about")
			}
			for _, name := range strings.Fields(names) {
				covered[name] = true
			}
			if strings.TrimSpace(names) == "frontend" {
				frontendCase(t, ar)
			} else {
				graphCase(t, strings.Fields(names), ar)
			}
			update(t, file, ar)
		})
	}
	for _, p := range passTable {
		if name := strings.TrimSuffix(p.Name, "-late"); !covered[name] && !slices.Contains(casesElsewhere, name) {
			t.Errorf("no case for pass %s", name)
		}
	}
}

// casesElsewhere: precision leaves every graph as it is, and the passes that
// make and place kernels have tests of their own.
var casesElsewhere = []string{"precision", "fuse", "schedule", "memory"}

// section finds a file of the archive; nil if there is none.
func section(ar *txtar.Archive, name string) *txtar.File {
	for i := range ar.Files {
		if ar.Files[i].Name == name {
			return &ar.Files[i]
		}
	}
	return nil
}

// expect compares a section with the graph, or sets it when updating.
func expect(t *testing.T, ar *txtar.Archive, name string, g *ir.Graph) {
	t.Helper()
	f := section(ar, name)
	if f == nil {
		t.Fatalf("the case has no section %s", name)
	}
	if os.Getenv("VITGEN_UPDATE") == "1" {
		f.Data = []byte(g.String())
	} else if string(f.Data) != g.String() {
		t.Errorf("%s is\n%vwant\n%s", name, g, f.Data)
	}
}

func update(t *testing.T, file string, ar *txtar.Archive) {
	t.Helper()
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if data := txtar.Format(ar); os.Getenv("VITGEN_UPDATE") == "1" && !bytes.Equal(old, data) {
		if err := os.WriteFile(file, data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

func frontendCase(t *testing.T, ar *txtar.Archive) {
	src := section(ar, "spec.yaml")
	if src == nil {
		t.Fatal("the case has no section spec.yaml")
	}
	s, err := spec.Parse("spec.yaml", src.Data)
	if err != nil {
		t.Fatal(err)
	}
	built := 0
	for id := range numPrograms {
		g := Frontend(s, id)
		if err := ir.Verify(g); err != nil {
			t.Error(err)
		}
		if section(ar, id.String()) != nil {
			expect(t, ar, id.String(), g)
			built++
		}
	}
	if built == 0 || len(ar.Files) != built+1 {
		t.Error("the case has sections that are no programs, or none at all")
	}
}

func graphCase(t *testing.T, names []string, ar *txtar.Archive) {
	f := section(ar, "before")
	if f == nil || len(ar.Files) != 2 {
		t.Fatal("the case must have the sections before and after")
	}
	before, err := ir.Parse(string(f.Data))
	if err != nil {
		t.Fatal(err)
	}
	if err := ir.Verify(before); err != nil {
		t.Fatal(err)
	}
	after, _ := before.Clone()
	precision := "fp32"
	if slices.Contains(names, "storage") {
		precision = "bf16"
	}
	c := &compilation{spec: &spec.Spec{Train: spec.Train{Precision: precision}}}
	for _, name := range names {
		p, err := passByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.run(c, after); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, ar, "after", after)

	env := irtest.NewEnv(after, 7, irtest.Batch(after))
	for name, x := range irtest.NewEnv(before, 7, env.N).Params {
		env.Params[name] = x
	}
	env.Dropout = true
	want, err := interp.Eval(before, env)
	if err != nil {
		t.Fatal(err)
	}
	got, err := interp.Eval(after, env)
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range want {
		if strings.HasPrefix(name, "grad.") && slices.Contains(names, "accumulate") {
			continue // adds to what is there
		}
		if d := irtest.Distance(got[name], w, 1); d > tolerance && (precision == "fp32" || d > 1e-2) {
			t.Errorf("output %s is off by %g", name, d)
		}
	}
}
