package runtime_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/generated/vit_tiny"
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

// TestForwardByImage asks for the logits of some images at a time: they are the bits
// that the same images have in a whole batch, whichever way kernels go for so many.
func TestForwardByImage(t *testing.T) {
	m, err := vit_tiny.New(runtime.Options{Device: "cpu", Seed: 1, Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	images, _ := firstDigits(m.Model(), 64)
	each, classes := m.Model().ImageElems(), m.Model().Classes
	forward := func(from, n int) []float32 {
		logits, err := m.Forward(images[from*each:(from+n)*each], n)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Clone(logits)
	}
	whole := forward(0, 64)
	for _, n := range []int{1, 2, 3, 5, 16, 33} {
		t.Run(fmt.Sprint(n, " images"), func(t *testing.T) {
			for from := 0; from+n <= 64; from += n {
				if !slices.Equal(forward(from, n), whole[from*classes:(from+n)*classes]) {
					t.Fatalf("logits of images %d to %d are others than in the batch of 64", from, from+n-1)
				}
			}
		})
	}
}

// TestPredictTop sorts the softmax of the logits by hand.
func TestPredictTop(t *testing.T) {
	m := fake.New(image, classes, 4, runtime.Train{})
	s := open(t, m, runtime.Options{Threads: 1})
	images, _ := batch(6, 4)
	logits, err := s.Forward(images, 6)
	if err != nil {
		t.Fatal(err)
	}
	top, err := s.PredictTop(images, 3)
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range top {
		row := logits[i*classes : (i+1)*classes]
		sum := 0.0
		for _, x := range row {
			sum += math.Exp(float64(x))
		}
		if len(got) != 3 {
			t.Fatalf("%d predictions, want 3", len(got))
		}
		for j, p := range got {
			if want := math.Exp(float64(row[p.Class])) / sum; math.Abs(p.Probability-want) > 1e-9 {
				t.Errorf("image %d: class %d has %v, want %v", i, p.Class, p.Probability, want)
			}
			larger := 0
			for _, x := range row {
				if x > row[p.Class] {
					larger++
				}
			}
			if larger != j {
				t.Errorf("image %d: class %d stands at %d, %d logits are larger", i, p.Class, j, larger)
			}
		}
	}

	// More than there are, ties, and what is no number.
	for _, name := range []string{"head.weight", "head.bias"} {
		p, _ := m.Param(name)
		if err := s.SetParam(name, make([]float32, p.Elems())); err != nil {
			t.Fatal(err)
		}
	}
	top, err = s.PredictTop(images[:6], 99)
	if err != nil || len(top[0]) != classes {
		t.Fatalf("%v, %v", top, err)
	}
	for c, p := range top[0] {
		if p.Class != c || p.Probability != 1.0/classes {
			t.Errorf("on a tie, place %d has %+v", c, p)
		}
	}
	if _, err := s.PredictTop(images, 0); err == nil {
		t.Error("the top 0 was accepted")
	}
	images[7] = float32(math.NaN())
	if _, err := s.PredictTop(images, 1); err == nil || !strings.Contains(err.Error(), "image 1 is NaN") {
		t.Errorf("a NaN: %v", err)
	}
}
