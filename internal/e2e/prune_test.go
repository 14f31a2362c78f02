package e2e

import (
	"testing"

	"github.com/vitgen/vitgen/passes"
)

// Row pruning changes no number but by rounding: training with dropout goes
// the same way with and without it, so what is computed is the same, and the
// same elements are dropped.
func TestPruningChangesNothing(t *testing.T) {
	t.Parallel()
	s := readSpec(t, "golden/specs/vit_small.yaml")
	train := func(o passes.Options) *model { return compile(t, s, o, unoptimized) }
	pruned, whole := train(passes.Options{}), train(passes.Options{Disable: []string{"prune"}})
	if pruned.bin == whole.bin {
		t.Fatal("pruning has no effect on this model")
	}
	got := pruned.train(t, t.TempDir(), nil, "--steps", "5")
	want := whole.train(t, t.TempDir(), nil, "--steps", "5")
	sameWeights(t, "with and without pruning", got, want, 1e-6)
}
