package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/spec"
)

// goldens lists the golden files, with their specs.
func goldens(t testing.TB) map[string]*spec.Spec {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "golden", "*.safetensors"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	specs := map[string]*spec.Spec{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".safetensors")
		path := "golden/specs/" + name + ".yaml"
		if !strings.HasSuffix(name, "_small") {
			path = "examples/" + name + ".yaml"
		}
		specs[name] = readSpec(t, path)
	}
	return specs
}

// goldenFile is the absolute path of a golden.
func goldenFile(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, "golden", name+".safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// small tells the goldens that are for tests of every variant.
func small(name string) bool { return strings.HasSuffix(name, "_small") }

// large tells a model that is slow to verify more than once: half a minute with
// AVX-512, and three times that without vectors.
func large(s *spec.Spec) bool {
	n := 0
	for _, p := range s.Params() {
		n += p.Elems()
	}
	return n > 50_000_000
}

// Every golden that PyTorch computed is reproduced by the trainer, with each
// instruction set that this processor has and whatever the number of threads.
// (The interpreter's agreement with the goldens is tested in passes.)
func TestGoldens(t *testing.T) {
	for name, s := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := compile(t, s, passes.Options{}, allSets)
			if large(s) {
				t.Log("with the widest instruction set only")
				m.verify(t, goldenFile(t, name), nil)
				return
			}
			for _, isa := range isas {
				t.Run(isa, func(t *testing.T) {
					requireISA(t, m, isa)
					for _, threads := range []string{"1", "2", "3"} {
						if small(name) || threads == "2" {
							m.verify(t, goldenFile(t, name), []string{"VITGEN_ISA=" + isa}, "--threads", threads)
						}
					}
				})
			}
		})
	}
}

// Every small golden is also reproduced without each of the passes that a
// program can do without, and when the nodes' order is shuffled before every
// pass.
func TestGoldensWithoutPasses(t *testing.T) {
	variants := map[string]passes.Options{"shuffled": {Seed: 1}}
	var all []string
	for _, p := range passes.Passes() {
		if p.Optional && p.Target == "" {
			variants["without "+p.Name] = passes.Options{Disable: []string{p.Name}}
			all = append(all, p.Name)
		}
	}
	variants["without all"] = passes.Options{Disable: all}
	for name, s := range goldens(t) {
		if !small(name) {
			continue
		}
		for variant, o := range variants {
			t.Run(name+"/"+variant, func(t *testing.T) {
				t.Parallel()
				compile(t, s, o, unoptimized).verify(t, goldenFile(t, name), nil)
			})
		}
	}
}

// isas are the values of VITGEN_ISA, the narrowest first.
var isas = []string{"plain", "avx2", "avx512"}

// requireISA skips the test where the processor lacks an instruction set.
func requireISA(t *testing.T, m *model, isa string) {
	t.Helper()
	out, status := m.run(t, []string{"VITGEN_ISA=" + isa}, "info", "--json")
	if status != 0 {
		t.Fatalf("info: exit status %d\n%s", status, out)
	}
	if !strings.Contains(out, `"isa": "`+isa+`"`) {
		t.Skipf("this processor has no %s", isa)
	}
}
