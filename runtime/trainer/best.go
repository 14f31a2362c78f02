package trainer

import "github.com/vitgen/vitgen/runtime/checkpoint"

// judge takes the outcome of a validation: is it the best so far, and has there
// been a better one lately?
func (t *training) judge(s checkpoint.Score) (best bool) {
	t.last, t.validated = &s, s.Updates
	if best = t.best == nil || t.beats(&s, t.best); best {
		t.best = &s
	}
	// Early stopping asks for more than the best weights do: an improvement by
	// more than min_delta over the last one that counted.
	value, gain := s.Accuracy, 0.0
	if t.plan.Best == "loss" {
		value = s.Loss
	}
	if t.early.Best != nil {
		if gain = value - *t.early.Best; t.plan.Best == "loss" {
			gain = -gain
		}
	}
	if t.early.Best == nil || gain > t.model.Train.EarlyStop.MinDelta {
		t.early = checkpoint.EarlyStop{Best: &value}
	} else {
		t.early.Bad++
	}
	return best
}

// beats reports whether a validation was better than another. Equal accuracies
// are told apart by their losses.
func (t *training) beats(a, b *checkpoint.Score) bool {
	if t.plan.Best == "loss" || a.Accuracy == b.Accuracy {
		return a.Loss < b.Loss
	}
	return a.Accuracy > b.Accuracy
}

// stopped reports whether early stopping ends the run.
func (t *training) stopped() bool {
	return t.plan.Patience > 0 && t.early.Bad >= t.plan.Patience
}
