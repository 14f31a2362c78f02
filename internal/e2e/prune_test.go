package e2e

import (
	"testing"

	"github.com/vitgen/vitgen/passes"
)

// Row pruning changes no number but by rounding, nor does absorption: training with
// dropout goes the same way with and without them, so what is computed is the same,
// and the same elements are dropped.
func TestPruningChangesNothing(t *testing.T) {
	t.Parallel()
	s := readSpec(t, "golden/specs/vit_small.yaml")
	train := func(o passes.Options) *model { return compile(t, s, o, unoptimized) }
	absorbed, pruned, whole := train(passes.Options{}), train(passes.Options{Disable: []string{"absorb"}}), train(passes.Options{Disable: []string{"prune"}})
	if pruned.bin == whole.bin || absorbed.bin == pruned.bin {
		t.Fatal("pruning or absorption has no effect on this model")
	}
	want := whole.train(t, t.TempDir(), nil, "--steps", "5")
	sameWeights(t, "with and without pruning", pruned.train(t, t.TempDir(), nil, "--steps", "5"), want, 1e-6)
	sameWeights(t, "with absorption and without pruning", absorbed.train(t, t.TempDir(), nil, "--steps", "5"), want, 1e-6)
}
