package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitgen/vitgen/bench/measure"
)

func rowNamed(t *testing.T, name string) *row {
	t.Helper()
	i := slices.IndexFunc(rows, func(r row) bool { return r.name == name })
	if i < 0 {
		t.Fatalf("no row %s", name)
	}
	return &rows[i]
}

func TestField(t *testing.T) {
	for _, c := range []struct {
		row, only, with string
		quick           bool
		want            string
	}{
		{"vit", "", "", false, "vitgen vitgen-unpruned torch torch-compile torch-tuned jax"},
		{"vit", "", "torch-pruned", false, "vitgen vitgen-unpruned torch torch-compile torch-tuned jax torch-pruned"},
		{"vit", "torch-autotune,vitgen", "", false, "vitgen torch-autotune"},
		{"vit", "", "", true, "vitgen vitgen-unpruned torch jax"},
		{"vit", "torch-compile", "", true, "torch-compile"},
		// Attention with dropout is nothing that JAX's function can do.
		{"vit", "vitgen", "jax-library", false, "vitgen"},
		{"vit_s16", "vitgen", "jax-library", false, "vitgen jax-library"},
		{"vit-forward-1", "", "jax-library", false, "vitgen vitgen-unpruned torch torch-compile torch-frozen jax jax-library"},
	} {
		s := settings{Threads: 2, Quick: c.quick, Only: measure.Names(c.only), With: measure.Names(c.with)}
		if err := checkNames(append(s.Only, s.With...)); err != nil {
			t.Error(err)
		}
		var got []string
		for _, e := range s.field(rowNamed(t, c.row)) {
			got = append(got, e.name)
		}
		if d := cmp.Diff(c.want, strings.Join(got, " ")); d != "" {
			t.Errorf("%+v (-want +got):\n%s", c, d)
		}
	}
	if err := checkNames([]string{"tourch"}); err == nil || !strings.Contains(err.Error(), "torch-pruned") {
		t.Errorf("unknown name: error %v does not list the names", err)
	}
}

// The same counts of steps and threads, and the same batch, reach everyone, and
// what a peer finds compiled is what it would have compiled.
func TestFieldIsEven(t *testing.T) {
	s := settings{Threads: 2, scratch: "scratch", With: knownNames()}
	caches := map[string]string{} // what is compiled, by cache
	for i := range rows {
		for _, c := range s.field(&rows[i]) {
			line := strings.Join(c.argv, " ") + " "
			flags := strings.Join(s.flags(&rows[i]), " ") + " "
			forward := strings.Contains(line, " forward ") || strings.Contains(line, " --forward ")
			if !strings.Contains(line, flags) || !strings.Contains(line, "--device cpu --threads 2 ") || forward != (rows[i].images > 0) {
				t.Errorf("%s: %s", c.name, line)
			}
			if forward && !strings.Contains(line, strings.TrimPrefix(rows[i].name, "vit-forward-")+" ") {
				t.Errorf("%s: %s", c.name, line)
			}
			if c.peer && !c.jax && !slices.Contains(c.env, "OMP_NUM_THREADS=2") {
				t.Errorf("%s: environment %v", c.name, c.env)
			}
			if c.cache == "" {
				continue
			}
			what := strings.ReplaceAll(line, "--unfused ", "") + strings.Join(inductor(c.env), " ")
			if was, found := caches[c.cache]; found && was != what {
				t.Errorf("%s of %s has the cache of another: %s and %s", c.name, rows[i].name, what, was)
			}
			caches[c.cache] = what
		}
	}
}

// inductor are the settings of an environment that change what is compiled.
func inductor(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		return !strings.HasPrefix(v, "TORCHINDUCTOR_") || v == noCompilers || strings.HasPrefix(v, "TORCHINDUCTOR_CACHE_DIR=")
	})
}

func TestPickParts(t *testing.T) {
	all, err := pickParts(nil)
	if err != nil || strings.Join(all, " ") != "vit vit_s16 vit-forward-1 vit-forward-64 vit_tiny gemm compile" {
		t.Errorf("%v, %v", all, err)
	}
	if some, err := pickParts([]string{"compile", "vit"}); err != nil || strings.Join(some, " ") != "vit compile" {
		t.Errorf("%v, %v", some, err)
	}
	if _, err := pickParts([]string{"vit_l"}); err == nil || !strings.Contains(err.Error(), "vit_s16") {
		t.Errorf("unknown name: error %v does not list the names", err)
	}
}

func TestQuickCounts(t *testing.T) {
	for _, r := range rows {
		c := quickCounts(r.counts)
		if c.Warmup != 1 || c.Steps > r.counts.Steps || c.Steps < 1 || c.Chunk != 1 {
			t.Errorf("%s: %+v of %+v", r.name, c, r.counts)
		}
	}
}
