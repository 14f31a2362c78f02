package trainer

import (
	"path/filepath"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/internal/fake"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// TestTrainAugmented repeats an augmented run by hand, with other workers: the
// weights are bit for bit the same, and they have learnt.
func TestTrainAugmented(t *testing.T) {
	const epochs = 3
	m := fake.Mix(digits(64, runtime.Train{Epochs: epochs, Seed: 5, Accumulate: 2,
		Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.3, Momentum: 0.9}}), 0.2, 1)
	m.Data.Augment.Padding, m.Data.Augment.Flip = 1, 0.1
	m.Data.Augment.ResizedCrop = runtime.ResizedCrop{Scale: [2]float64{0.7, 1}, Ratio: [2]float64{0.8, 1.25}}
	dir := filepath.Join(t.TempDir(), "run")
	mustRun(t, m, "train", "--out", dir)
	f, err := safetensors.Read(filepath.Join(dir, "last.safetensors"))
	if err != nil {
		t.Fatal(err)
	}

	s, err := runtime.NewSession(m, runtime.Options{Device: "cpu"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	from := source{}
	sets, err := from.load(m, 5)
	if err != nil {
		t.Fatal(err)
	}
	s.SetSteps(12, epochs*12) // 1,442 samples
	mixed := 0
	for epoch := range epochs {
		for _, half := range []struct{ from, to int }{{0, 10}, {10, sets.train.Batches()}} {
			sets.train.Workers = 1 + epoch + half.from/5
			k := half.from
			for b, err := range sets.trainBatches(epoch, k) {
				if err != nil {
					t.Fatal(err)
				}
				if b.Labels2[0] != b.Labels[0] && b.Mix[0] > 0 && b.Mix[0] < 1 {
					mixed++
				}
				if _, err := s.Submit(b, min(128, 1442-k/2*128)); err != nil {
					t.Fatal(err)
				}
				if k++; k == half.to {
					break
				}
			}
		}
	}
	if mixed < 20 {
		t.Errorf("only %d batches of %d are mixed", mixed, epochs*sets.train.Batches())
	}
	for _, p := range m.Params {
		want, err := s.Param(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range f.Tensor(p.Name).Float32s() {
			if v != want[i] {
				t.Fatalf("%s[%d] is %g, by hand %g", p.Name, i, v, want[i])
			}
		}
	}
	e, err := evaluate(s, sets)
	if err != nil || e.exact.accuracy < 0.5 {
		t.Errorf("the accuracy is %g, %v", e.exact.accuracy, err)
	}
}
