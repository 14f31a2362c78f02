package runtime

import (
	"fmt"
	"math"
)

// Prediction is what the model says of one image.
type Prediction struct {
	Class       int     // the arg max, the lowest index on a tie
	Probability float64 // its softmax
}

// Predict classifies images, float32 [n, C, H, W] normalized as in training,
// for any n. Dropout is off.
func (s *Session) Predict(images []float32) ([]Prediction, error) {
	per := s.model.ImageElems()
	if len(images) == 0 || len(images)%per != 0 {
		return nil, fmt.Errorf("predict: %d numbers are no whole number of images of %v, %d numbers each", len(images), s.model.Image, per)
	}
	n := len(images) / per
	logits, err := s.Forward(images, n)
	if err != nil {
		return nil, err
	}
	out := make([]Prediction, n)
	for i := range out {
		out[i] = predictionOf(logits[i*s.model.Classes : (i+1)*s.model.Classes])
	}
	return out, nil
}

// predictionOf computes the softmax of the largest logit in float64.
func predictionOf(logits []float32) Prediction {
	best := 0
	for c, x := range logits {
		if x > logits[best] {
			best = c
		}
	}
	sum := 0.0
	for _, x := range logits {
		sum += math.Exp(float64(x) - float64(logits[best]))
	}
	return Prediction{best, 1 / sum}
}
