package e2e

import (
	"maps"
	"testing"

	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/passes"
)

// No two values that live at the same time share memory, in any program of any
// example or golden spec; nor, in small models, where memory is not reused or
// kernels are not fused or ordered.
func TestMemoryPlans(t *testing.T) {
	specs := goldens(t)
	maps.Copy(specs, examples(t))
	for name, s := range specs {
		variants := [][]string{nil}
		if small(name) {
			variants = append(variants, []string{"memory"}, []string{"fuse"}, []string{"schedule"}, []string{"fuse", "recompute", "prune"})
		}
		for _, disable := range variants {
			p, err := passes.Compile(s, passes.Options{Disable: disable})
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range []*ir.Graph{p.Forward, p.Eval, p.Grad, p.Update} {
				if err := passes.CheckPlaces(g); err != nil {
					t.Errorf("%s without %q: %s: %v", name, disable, g.Name, err)
				}
			}
		}
	}
}
