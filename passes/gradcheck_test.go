package passes_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/ir/irtest"
	"github.com/vitgen/vitgen/passes"
)

// differentiate makes the training graph of a forward graph.
func differentiate(t rapid.TB, forward *ir.Graph) *ir.Graph {
	t.Helper()
	train, _ := forward.Clone()
	if err := passes.Autodiff(train); err != nil {
		t.Fatalf("%v\n%v", err, forward)
	}
	if err := ir.Verify(train); err != nil {
		t.Fatalf("%v\n%v", err, train)
	}
	return train
}

// Every op's gradient, in every form the op has, over every element of every
// parameter: with a whole and a partial batch, dropout on and off.
func TestGradients(t *testing.T) {
	for _, c := range irtest.OpCases() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			train := differentiate(t, c.Graph)
			for seed, samples := range []int{3, 2} {
				env := irtest.NewEnv(c.Graph, uint64(seed), samples)
				env.Dropout = seed == 0
				if err := irtest.CheckGradients(c.Graph, train, env, 1<<20); err != nil {
					t.Errorf("%d samples: %v\n%v", samples, err, train)
				}
			}
		})
	}
}

// The gradients of random compositions, along random directions.
func TestRandomGradients(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		forward := irtest.RandomGraph(rt)
		env := irtest.RandomEnv(rt, forward)
		train := differentiate(rt, forward)
		if err := irtest.CheckGradients(forward, train, env, 2); err != nil {
			rt.Fatalf("%v\n%v", err, train)
		}
	})
}
