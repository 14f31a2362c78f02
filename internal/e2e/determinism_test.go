package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/spec"
)

// examples lists the example specs by name.
func examples(t testing.TB) map[string]*spec.Spec {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "examples", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	specs := map[string]*spec.Spec{}
	for _, file := range files {
		specs[strings.TrimSuffix(filepath.Base(file), ".yaml")] = readSpec(t, "examples/"+filepath.Base(file))
	}
	return specs
}

// The committed packages are what the compiler makes of the examples today,
// with nothing missing and nothing left over.
func TestGeneratedIsFresh(t *testing.T) {
	const next = "; run go generate ./..."
	for name, s := range examples(t) {
		dir := filepath.Join(root, "generated", name)
		want := map[string]bool{}
		for _, f := range generate(t, s, passes.Options{}, module+"/generated/"+name) {
			path := filepath.Join(dir, filepath.FromSlash(f.Name))
			want[path] = true
			if got, err := os.ReadFile(path); err != nil {
				t.Errorf("%v%s", err, next)
			} else if !bytes.Equal(got, f.Data) {
				t.Errorf("%s is stale%s", path, next)
			}
		}
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			// What vitgen compiles kernels.cu to, where it can, is not committed.
			if ptx, _ := filepath.Match("kernels.sm_*", d.Name()); err == nil && !d.IsDir() && !want[path] && !ptx {
				t.Errorf("%s is not a generated file any more%s", path, next)
			}
			return err
		})
		if err != nil {
			t.Errorf("%v%s", err, next)
		}
	}
}

// What a trainer says of its origin is so: the spec it carries has the hash that
// it names, and its kernels' source has theirs, in the order documented at
// runtime.Model.
func TestOriginIsTold(t *testing.T) {
	s := examples(t)["vit_tiny"]
	files := map[string][]byte{}
	for _, f := range generate(t, s, passes.Options{}, module+"/generated/vit_tiny") {
		files[f.Name] = f.Data
	}
	facts := string(files["vit_tiny.go"])
	for _, c := range []struct{ format, names string }{
		{"SpecHash:  \"%s\"", "vg_spec.yaml"},
		{"\"cpu\":  \"%s\"", "internal/plain/kernels_cpu.cc internal/plain/vg_cpu.h internal/plain/vg_abi.h"},
		{"\"cuda\": \"%s\"", "kernels.cu vg_cuda.h"},
	} {
		h := sha256.New()
		for _, name := range strings.Fields(c.names) {
			if len(files[name]) == 0 {
				t.Fatalf("no file %s", name)
			}
			h.Write(files[name])
		}
		if want := fmt.Sprintf(c.format, hex.EncodeToString(h.Sum(nil))); !strings.Contains(facts, want) {
			t.Errorf("vit_tiny.go has no %s, the SHA-256 of %s", want, c.names)
		}
	}
	if got := string(files["vg_spec.yaml"]); got != string(s.Canonical()) {
		t.Errorf("vg_spec.yaml is not the canonical form:\n%s", got)
	}
}

// The same spec gives the same bytes, whatever folder it lies in, and none of
// them tells where it was compiled.
func TestCompilingIsDeterministic(t *testing.T) {
	here, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	places := []string{here, os.TempDir() + string(filepath.Separator)}
	if home, err := os.UserHomeDir(); err == nil && home != string(filepath.Separator) {
		places = append(places, home+string(filepath.Separator))
	}
	for name, s := range examples(t) {
		first := generate(t, s, passes.Options{}, module+"/x")
		again := generate(t, mustParse(t, "/some/other/"+filepath.Base(s.File), s.Source), passes.Options{}, module+"/x")
		if len(first) != len(again) {
			t.Fatalf("%s: %d files, then %d", name, len(first), len(again))
		}
		for i, f := range first {
			if f.Name != again[i].Name || !bytes.Equal(f.Data, again[i].Data) {
				t.Errorf("%s: %s differs the second time", name, f.Name)
			}
			for _, place := range places {
				if bytes.Contains(f.Data, []byte(place)) {
					t.Errorf("%s: %s holds the path %s", name, f.Name, place)
				}
			}
		}
	}
}

// Training is bitwise the same in every process and with any number of threads,
// for each instruction set: dropout, reductions and updates included.
func TestTrainingIsDeterministic(t *testing.T) {
	for name, s := range goldens(t) {
		if !small(name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := compile(t, s, passes.Options{}, allSets)
			for _, isa := range isas {
				t.Run(isa, func(t *testing.T) {
					requireISA(t, m, isa)
					var first []byte
					for _, threads := range []string{"1", "2", "3", "1"} {
						dir := t.TempDir()
						m.train(t, dir, []string{"VITGEN_ISA=" + isa}, "--steps", "3", "--threads", threads)
						weights, err := os.ReadFile(filepath.Join(dir, "last.safetensors"))
						if err != nil {
							t.Fatal(err)
						}
						if first == nil {
							first = weights
						} else if !bytes.Equal(first, weights) {
							t.Errorf("%s threads give other weights than 1 thread", threads)
						}
					}
				})
			}
		})
	}
}
