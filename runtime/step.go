package runtime

import (
	"fmt"
	"time"
)

// Forward computes the logits [n, Classes] of n images [n, C, H, W], given
// normalized. n may exceed the compiled batch.
func (s *Session) Forward(images []float32, n int) (logits []float32, err error) {
	defer recovered("forward", &err)
	if err := s.lock(); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if err := s.checkImages(images, n); err != nil {
		return nil, err
	}
	m := s.model
	logits = make([]float32, n*m.Classes)
	for lo := 0; lo < n; lo += m.Batch {
		hi := min(lo+m.Batch, n)
		if err := s.write(images, nil, lo, hi); err != nil {
			return nil, err
		}
		if err := s.dev.Run(Forward, hi-lo, s.scalars(hi-lo, false)); err != nil {
			return nil, err
		}
		if err := s.dev.Read(asBytes(logits[lo*m.Classes:hi*m.Classes]), m.Outputs.Logits); err != nil {
			return nil, err
		}
	}
	return logits, nil
}

// Eval computes the sum of the losses of n labelled images, and how many of
// them the model classifies correctly, without dropout. n may exceed the
// compiled batch.
func (s *Session) Eval(images []float32, labels []int32, n int) (lossSum float64, correct int, err error) {
	defer recovered("eval", &err)
	if err := s.lock(); err != nil {
		return 0, 0, err
	}
	defer s.mu.Unlock()
	if err := s.checkLabelled(images, labels, n); err != nil {
		return 0, 0, err
	}
	for lo := 0; lo < n; lo += s.model.Batch {
		hi := min(lo+s.model.Batch, n)
		if err := s.write(images, labels, lo, hi); err != nil {
			return 0, 0, err
		}
		if err := s.dev.Run(Eval, hi-lo, s.scalars(n, false)); err != nil {
			return 0, 0, err
		}
		l, c, err := s.results(hi - lo)
		if err != nil {
			return 0, 0, err
		}
		lossSum, correct = lossSum+l, correct+c
	}
	return lossSum, correct, nil
}

// Grad runs one micro-batch forward and backward: n labelled images, at most
// the compiled batch, out of an effective batch of total images (0: n). It
// returns the sum of the losses and the number classified correctly. The
// micro-batches since the last Update must be given the same total, and with
// train.accumulate 1 there is only one.
func (s *Session) Grad(images []float32, labels []int32, n, total int) (lossSum float64, correct int, err error) {
	defer recovered("grad", &err)
	if err := s.lock(); err != nil {
		return 0, 0, err
	}
	defer s.mu.Unlock()
	if total == 0 {
		total = n
	}
	if err := s.checkLabelled(images, labels, n); err != nil {
		return 0, 0, err
	}
	return s.grad(images, labels, 0, n, total)
}

// grad runs samples lo … hi-1 of checked arrays.
func (s *Session) grad(images []float32, labels []int32, lo, hi, total int) (lossSum float64, correct int, err error) {
	n, accumulate := hi-lo, s.model.Train.Accumulate
	switch {
	case n > s.model.Batch:
		return 0, 0, fmt.Errorf("%d images: the model is compiled for micro-batches of up to %d (train.batch); give Step more with train.accumulate", n, s.model.Batch)
	case accumulate > 1 && s.pending == accumulate:
		return 0, 0, fmt.Errorf("%d micro-batches have been accumulated (train.accumulate): call Update", s.pending)
	case accumulate > 1 && s.pending > 0 && total != s.pendingOf:
		return 0, 0, fmt.Errorf("the effective batch was announced with %d samples, now with %d", s.pendingOf, total)
	}
	if accumulate == 1 {
		s.pending, s.pendingSum = 0, 0 // kernels overwrite the gradients
	}
	if s.pendingSum+n > total {
		return 0, 0, fmt.Errorf("%d samples are more than the effective batch of %d", s.pendingSum+n, total)
	}
	if err := s.write(images, labels, lo, hi); err != nil {
		return 0, 0, err
	}
	if accumulate > 1 && s.pending == 0 {
		if err := s.dev.Clear(Grads); err != nil {
			return 0, 0, err
		}
	}
	if err := s.dev.Run(Grad, n, s.scalars(total, s.dropout)); err != nil {
		return 0, 0, err
	}
	s.pending++
	s.pendingSum += n
	s.pendingOf = total
	s.micro++
	return s.results(n)
}

// Update makes one optimizer update from the gradients Grad left.
func (s *Session) Update() (err error) {
	defer recovered("update", &err)
	if err := s.lock(); err != nil {
		return err
	}
	defer s.mu.Unlock()
	return s.update()
}

func (s *Session) update() error {
	if s.pending == 0 {
		return fmt.Errorf("update %d: there are no gradients; call Grad first", s.updates+1)
	}
	lr, err := s.lr()
	if err != nil {
		return err
	}
	scalars := s.scalars(s.pendingOf, s.dropout)
	c1, c2 := s.model.Train.Optimizer.biasCorrections(s.updates + 1)
	scalars.LR, scalars.BiasCorr1, scalars.BiasCorr2 = float32(lr), float32(c1), float32(c2)
	if err := s.dev.Run(Update, s.model.Batch, scalars); err != nil {
		return err
	}
	s.updates++
	s.pending, s.pendingSum, s.pendingOf = 0, 0, 0
	return nil
}

// Step is one update of training on an effective batch of len(labels) images,
// at most train.batch × train.accumulate. It returns the mean loss before the
// update and the number classified correctly.
func (s *Session) Step(images []float32, labels []int32) (loss float64, correct int, err error) {
	defer recovered("step", &err)
	if err := s.lock(); err != nil {
		return 0, 0, err
	}
	defer s.mu.Unlock()
	n := len(labels)
	if err := s.checkLabelled(images, labels, n); err != nil {
		return 0, 0, err
	}
	sum, correct, err := s.gradAll(images, labels, n)
	if err != nil {
		return 0, 0, err
	}
	return sum / float64(n), correct, s.update()
}

// GradAll computes the gradients of an effective batch of n images without
// updating: Grad over its micro-batches. Gradients that wait are discarded.
func (s *Session) GradAll(images []float32, labels []int32, n int) (lossSum float64, correct int, err error) {
	defer recovered("grad", &err)
	if err := s.lock(); err != nil {
		return 0, 0, err
	}
	defer s.mu.Unlock()
	if err := s.checkLabelled(images, labels, n); err != nil {
		return 0, 0, err
	}
	return s.gradAll(images, labels, n)
}

func (s *Session) gradAll(images []float32, labels []int32, n int) (lossSum float64, correct int, err error) {
	if most := s.model.Batch * s.model.Train.Accumulate; n > most {
		return 0, 0, fmt.Errorf("%d images are more than the effective batch of %d (train.batch × train.accumulate)", n, most)
	}
	s.pending, s.pendingSum = 0, 0
	for lo := 0; lo < n; lo += s.model.Batch {
		l, c, err := s.grad(images, labels, lo, min(lo+s.model.Batch, n), n)
		if err != nil {
			return 0, 0, err
		}
		lossSum, correct = lossSum+l, correct+c
	}
	return lossSum, correct, nil
}

// Logits returns the logits [n, Classes] of the last batch that Forward, Eval
// or Grad ran; after Grad, those with dropout. n is at most the compiled batch.
func (s *Session) Logits(n int) (logits []float32, err error) {
	defer recovered("logits", &err)
	if err := s.lock(); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if n < 1 || n > s.model.Batch {
		return nil, fmt.Errorf("logits of %d samples; the model is compiled for 1 … %d", n, s.model.Batch)
	}
	logits = make([]float32, n*s.model.Classes)
	return logits, s.dev.Read(asBytes(logits), s.model.Outputs.Logits)
}

// Profile runs a program as Step would, on the first n samples of whatever is
// in memory, and returns the time of each of its launches. The learning rate
// is 0, but profiling Update still changes the optimizer's state.
func (s *Session) Profile(id ProgramID, n int) (times []time.Duration, err error) {
	defer recovered("profile", &err)
	if err := s.lock(); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if n < 1 || n > s.model.Batch {
		return nil, fmt.Errorf("profile of %d samples; the model is compiled for 1 … %d", n, s.model.Batch)
	}
	scalars := s.scalars(n, s.dropout)
	times = make([]time.Duration, len(s.model.Programs[id]))
	return times, s.dev.Profile(id, n, scalars, times)
}

// scalars fills in s.step for a run that belongs to an effective batch of total
// samples.
func (s *Session) scalars(total int, dropout bool) *StepScalars {
	s.step = StepScalars{
		InvN:      float32(1 / float64(total)),
		BiasCorr1: 1,
		BiasCorr2: 1,
		SeedLo:    uint32(s.seed),
		SeedHi:    uint32(s.seed >> 32),
		MicroStep: uint32(s.micro),
	}
	if dropout {
		s.step.DropoutOn = 1
	}
	return &s.step
}

// write puts samples lo … hi-1 where programs read them. Labels beyond them
// are -1.
func (s *Session) write(images []float32, labels []int32, lo, hi int) error {
	e := s.model.ImageElems()
	if err := s.dev.Write(Image.At(0), asBytes(images[lo*e:hi*e])); err != nil || labels == nil {
		return err
	}
	n := copy(s.labels, labels[lo:hi])
	for i := n; i < len(s.labels); i++ {
		s.labels[i] = -1
	}
	return s.dev.Write(Label.At(0), asBytes(s.labels))
}

// results sums what the last run left for its n samples, in float64.
func (s *Session) results(n int) (lossSum float64, correct int, err error) {
	if err := s.dev.Read(asBytes(s.loss[:n]), s.model.Outputs.Loss); err != nil {
		return 0, 0, err
	}
	if err := s.dev.Read(asBytes(s.correct[:n]), s.model.Outputs.Correct); err != nil {
		return 0, 0, err
	}
	for i := range n {
		lossSum += float64(s.loss[i])
		if s.correct[i] == 1 {
			correct++
		}
	}
	return lossSum, correct, nil
}

func (s *Session) checkImages(images []float32, n int) error {
	if n < 1 {
		return fmt.Errorf("%d images: at least one is needed", n)
	}
	e := s.model.ImageElems()
	if len(images)/e < n {
		return fmt.Errorf("%d images of shape %v are %d numbers; %d were given", n, s.model.Image, n*e, len(images))
	}
	return nil
}

func (s *Session) checkLabelled(images []float32, labels []int32, n int) error {
	if err := s.checkImages(images, n); err != nil {
		return err
	}
	if len(labels) < n {
		return fmt.Errorf("%d images and only %d labels", n, len(labels))
	}
	for i, l := range labels[:n] {
		if l < 0 || int(l) >= s.model.Classes {
			return fmt.Errorf("label %d of sample %d is not a class; the model has classes 0 … %d", l, i, s.model.Classes-1)
		}
	}
	return nil
}
