package runtime

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Prediction is one class that the model sees in an image.
type Prediction struct {
	Class       int     // number of the class; Session.ClassName names it
	Probability float64 // its softmax, computed in float64
}

// Predict classifies images, float32 [n, C, H, W] normalized as in training,
// for any n: the likeliest class of each, the lowest on a tie. Dropout is off.
func (s *Session) Predict(images []float32) ([]Prediction, error) {
	top, err := s.PredictTop(images, 1)
	if err != nil {
		return nil, err
	}
	out := make([]Prediction, len(top))
	for i := range top {
		out[i] = top[i][0]
	}
	return out, nil
}

// PredictTop gives the k likeliest classes of each image, or all if there are
// fewer than k, by falling probability and, where that is the same, by rising
// number. Images are as in Predict. Logits that are not numbers are an error:
// the weights are broken.
func (s *Session) PredictTop(images []float32, k int) ([][]Prediction, error) {
	m := s.model
	per := m.ImageElems()
	if len(images) == 0 || len(images)%per != 0 {
		return nil, fmt.Errorf("predict: %d numbers are no whole number of images of %v, %d numbers each", len(images), m.Image, per)
	}
	if k < 1 {
		return nil, fmt.Errorf("predict: the top %d classes were asked for; 1 is the least", k)
	}
	n := len(images) / per
	logits, err := s.Forward(images, n)
	if err != nil {
		return nil, err
	}
	out := make([][]Prediction, n)
	for i := range out {
		row := logits[i*m.Classes : (i+1)*m.Classes]
		for _, x := range row {
			if x != x || math.IsInf(float64(x), 0) {
				return nil, fmt.Errorf("predict: a logit of image %d is %v: the weights are broken, or the image is not normalized as in training", i, x)
			}
		}
		out[i] = topOf(row, k)
	}
	return out, nil
}

// topOf sorts the classes by their logits and computes the softmax of the
// first k.
func topOf(logits []float32, k int) []Prediction {
	order := make([]int, len(logits))
	for c := range order {
		order[c] = c
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(logits[b], logits[a]) })
	largest, sum := float64(logits[order[0]]), 0.0
	for _, x := range logits {
		sum += math.Exp(float64(x) - largest)
	}
	top := make([]Prediction, min(k, len(order)))
	for i := range top {
		c := order[i]
		top[i] = Prediction{Class: c, Probability: math.Exp(float64(logits[c])-largest) / sum}
	}
	return top
}
