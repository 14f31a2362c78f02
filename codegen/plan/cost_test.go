package plan_test

import (
	"os"
	"testing"

	"github.com/vitgen/vitgen/codegen"
	"github.com/vitgen/vitgen/codegen/plan"
	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/spec"
)

// planOf compiles one of the examples.
func planOf(t *testing.T, name string) *plan.Plan {
	t.Helper()
	file := "../../examples/" + name
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := spec.Parse(file, src)
	if err != nil {
		t.Fatal(err)
	}
	c, err := passes.Compile(s, passes.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := codegen.Plan(s, []*ir.Graph{c.Forward, c.Eval, c.Grad, c.Update})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The traffic of a launch is what must move: of a matrix product its three
// matrices, of tokens that are cut out only these, of an update what the
// optimizer reads and writes.
func TestTraffic(t *testing.T) {
	const n, tokens, width = 128, 37, 512
	p := planOf(t, "vit.yaml")
	seen := map[string]bool{}
	check := func(what string, k *plan.Kernel, floats, fixed int64) {
		t.Helper()
		seen[what] = true
		if want := (plan.Traffic{Total: 4 * floats, Fixed: 4 * fixed}); k.Bytes != want {
			t.Errorf("%s (%s, %s) moves %+v bytes, want %+v", what, k.Name, k.Doc, k.Bytes, want)
		}
	}
	for _, k := range p.Kernels {
		g, product := k.Body.(*plan.Gemm)
		switch {
		case product && (k.Doc[:9] == "linear   " || k.Doc[:9] == "linear_dw" || k.Doc[:12] == "linear_dx   "):
			fixed := int64(g.N) * int64(g.K) // the weight
			if g.Kind == "tn" {
				fixed = int64(g.M) * int64(g.N) // its gradient
			}
			check("product "+g.Kind, k, int64(g.M)*int64(g.N)+int64(g.M+g.N)*int64(g.K), fixed)
		case k.Doc == "slice_tokens":
			check("slice", k, 2*n*width, 0)
		case k.Doc == "pad_tokens":
			check("pad", k, n*width+n*tokens*width, 0)
		case k.Doc == "sgd":
			check("sgd", k, 3*int64(p.Layout.Elems), 3*int64(p.Layout.Elems))
		case k.Doc == "slice_tokens + add": // both operands are cut
			check("slice and add", k, 3*n*width, 0)
		case k.Doc == "slice_tokens + sum_leading": // the class token's gradient
			check("slice and sum", k, n*width+width, width)
		}
	}
	for _, want := range []string{"product nt", "product nn", "product tn", "slice", "pad", "sgd", "slice and sum", "slice and add"} {
		if !seen[want] {
			t.Errorf("no kernel to check: %s", want)
		}
	}
}
