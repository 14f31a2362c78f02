package runtime

import (
	"fmt"
	"math"
)

// LR is the learning rate of update k = 1, 2, …, computed in float64. perEpoch
// is the number of updates in an epoch and total that of the whole run; they
// are needed only by schedules that count epochs, and 0 means unknown.
func (t *Train) LR(k, perEpoch, total int) (float64, error) {
	s, lr := &t.Schedule, t.Optimizer.LR
	if k <= s.WarmupSteps {
		return lr * float64(k) / float64(s.WarmupSteps), nil
	}
	after := k - 1 - s.WarmupSteps
	switch s.Kind {
	case "constant", "linear_warmup", "":
		return lr, nil
	case "cosine":
		if s.TotalSteps > 0 {
			total = s.TotalSteps
		}
		if total <= 0 {
			return 0, fmt.Errorf("the cosine schedule needs the number of updates of the run: set train.schedule.cosine.steps, or call SetSteps")
		}
		at := 1.0
		if span := total - s.WarmupSteps; after < span {
			at = float64(after) / float64(span)
		}
		return s.FinalLR + (lr-s.FinalLR)*0.5*(1+math.Cos(math.Pi*at)), nil
	case "step":
		every := s.Every
		if s.EveryUnit == "epochs" {
			if perEpoch <= 0 {
				return 0, fmt.Errorf("the step schedule counts epochs and needs the number of updates in one: use every_steps, or call SetSteps")
			}
			every *= perEpoch
		}
		if every <= 0 {
			return 0, fmt.Errorf("the step schedule needs a positive interval, it has %d", every)
		}
		return lr * math.Pow(s.Gamma, float64(after/every)), nil
	}
	return 0, fmt.Errorf("unknown schedule %q", s.Kind)
}

// weight is what update k = 1, 2, … gives the new parameters in their average:
// one less the decay.
func (e *EMA) weight(k int) float64 {
	decay := e.Decay
	if e.Warmup {
		decay = math.Min(decay, (1+float64(k))/(10+float64(k)))
	}
	return 1 - decay
}

// biasCorrections are AdamW's factors 1/(1-βᵏ) for update k.
func (o *Optimizer) biasCorrections(k int) (c1, c2 float64) {
	return 1 / (1 - math.Pow(o.Beta1, float64(k))), 1 / (1 - math.Pow(o.Beta2, float64(k)))
}
