package runtime_test

import (
	"math"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/internal/fake"
)

// TestPredict compares classes and probabilities with the logits.
func TestPredict(t *testing.T) {
	m := fake.New(image, classes, 4, runtime.Train{})
	s := open(t, m, runtime.Options{Threads: 1})
	images, _ := batch(5, 3)
	logits, err := s.Forward(images, 5)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Predict(images)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range got {
		row := logits[i*m.Classes : (i+1)*m.Classes]
		sum := 0.0
		for _, x := range row {
			sum += math.Exp(float64(x))
			if x > row[p.Class] {
				t.Errorf("image %d: class %d is not the arg max of %v", i, p.Class, row)
			}
		}
		if want := math.Exp(float64(row[p.Class])) / sum; math.Abs(p.Probability-want) > 1e-9 {
			t.Errorf("image %d: probability %v, want %v", i, p.Probability, want)
		}
	}
	if _, err := s.Predict(images[:3]); err == nil {
		t.Error("half an image was accepted")
	}
}
