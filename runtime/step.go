package runtime

import (
	"fmt"
	"time"
)

// Samples are what a program runs on: images [n, C, H, W], given normalized,
// with their labels [n]; or, if Index is not nil, images of the data set that
// Upload put on the device.
//
// Where two samples are mixed in an image (mixup, CutMix), Labels2 [n] has the
// other one's label and Mix [n] the weight of Labels: the loss to train on is
// Mix times that of the first label and 1-Mix times that of the second. Eval
// does not look at them, and correct is who has the first label.
type Samples struct {
	Images  []float32
	Labels  []int32
	Index   []int32
	Labels2 []int32   // nil: Labels alone
	Mix     []float32 // 0 … 1; given whenever Labels2 is
}

// Len is the number of samples.
func (b *Samples) Len() int {
	if b.Index != nil {
		return len(b.Index)
	}
	return len(b.Labels)
}

// Part is samples lo … hi-1, of images of elems numbers.
func (b *Samples) Part(lo, hi, elems int) Samples {
	if b.Index != nil {
		return Samples{Index: b.Index[lo:hi]}
	}
	part := Samples{Images: b.Images[lo*elems : hi*elems], Labels: b.Labels[lo:hi]}
	if b.Labels2 != nil {
		part.Labels2, part.Mix = b.Labels2[lo:hi], b.Mix[lo:hi]
	}
	return part
}

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
	e := m.ImageElems()
	logits = make([]float32, n*m.Classes)
	for lo := 0; lo < n; lo += m.Batch {
		hi := min(lo+m.Batch, n)
		if err := s.dev.Write(Image.At(0), asBytes(images[lo*e:hi*e])); err != nil {
			return nil, err
		}
		if err := s.dev.Run(Forward, hi-lo, s.scalars(hi-lo, false)); err != nil {
			return nil, err
		}
		if err := s.dev.Read(asBytes(logits[lo*m.Classes:hi*m.Classes]), s.code.Outputs.Logits); err != nil {
			return nil, err
		}
	}
	return logits, nil
}

// Eval computes the sum of the losses of n labelled images, and how many of
// them the model classifies correctly, without dropout. n may exceed the
// compiled batch.
func (s *Session) Eval(images []float32, labels []int32, n int) (lossSum float64, correct int, err error) {
	if len(labels) < n {
		return 0, 0, fmt.Errorf("%d images and only %d labels", n, len(labels))
	}
	return s.EvalSamples(Samples{Images: images, Labels: labels[:max(n, 0)]})
}

// EvalSamples is Eval of Samples.
func (s *Session) EvalSamples(b Samples) (lossSum float64, correct int, err error) {
	defer recovered("eval", &err)
	if err := s.lock(); err != nil {
		return 0, 0, err
	}
	defer s.mu.Unlock()
	n := b.Len()
	if err := s.checkSamples(&b); err != nil {
		return 0, 0, err
	}
	add := func(r result) error {
		s.fetch(&r)
		lossSum, correct = lossSum+r.loss, correct+r.correct
		return r.err
	}
	var before result // while the device is at one part, look at the one before
	for lo := 0; lo < n; lo += s.model.Batch {
		part := b.Part(lo, min(lo+s.model.Batch, n), s.model.ImageElems())
		if err := s.feed(&part); err != nil {
			return 0, 0, err
		}
		if err := s.dev.Run(Eval, part.Len(), s.scalars(n, false)); err != nil {
			return 0, 0, err
		}
		now := s.left(part.Len())
		if err := add(before); err != nil {
			return 0, 0, err
		}
		before = now
	}
	if err := add(before); err != nil {
		return 0, 0, err
	}
	return lossSum, correct, nil
}

// Grad runs one micro-batch forward and backward: n labelled images, at most
// the compiled batch, out of an effective batch of total images (0: n). It
// returns the sum of the losses and the number classified correctly. The
// micro-batches since the last Update must be given the same total, and with
// train.accumulate 1 there is only one.
func (s *Session) Grad(images []float32, labels []int32, n, total int) (lossSum float64, correct int, err error) {
	if len(labels) < n {
		return 0, 0, fmt.Errorf("%d images and only %d labels", n, len(labels))
	}
	return s.GradSamples(Samples{Images: images, Labels: labels[:max(n, 0)]}, total)
}

// GradSamples is Grad of Samples.
func (s *Session) GradSamples(b Samples, total int) (lossSum float64, correct int, err error) {
	defer recovered("grad", &err)
	if err := s.lock(); err != nil {
		return 0, 0, err
	}
	defer s.mu.Unlock()
	if err := s.checkSamples(&b); err != nil {
		return 0, 0, err
	}
	return s.grad(b, total)
}

// grad is Grad of checked samples.
func (s *Session) grad(b Samples, total int) (lossSum float64, correct int, err error) {
	if err := s.prepare(&b, &total); err != nil {
		return 0, 0, err
	}
	if err := s.dev.Run(Grad, b.Len(), s.scalars(total, s.dropout)); err != nil {
		return 0, 0, err
	}
	s.count(b.Len(), total)
	r := s.left(b.Len())
	s.fetch(&r)
	return r.loss, r.correct, r.err
}

// prepare makes everything ready for Grad to run over a micro-batch.
func (s *Session) prepare(b *Samples, total *int) error {
	n, accumulate := b.Len(), s.model.Train.Accumulate
	if *total == 0 {
		*total = n
	}
	if err := s.ready(); err != nil {
		return err
	}
	switch {
	case n > s.model.Batch:
		return fmt.Errorf("%d images: the model is compiled for micro-batches of up to %d (train.batch); give Step more with train.accumulate", n, s.model.Batch)
	case accumulate > 1 && s.pending == accumulate:
		return fmt.Errorf("%d micro-batches have been accumulated (train.accumulate): call Update", s.pending)
	case accumulate > 1 && s.pending > 0 && *total != s.pendingOf:
		return fmt.Errorf("the effective batch was announced with %d samples, now with %d", s.pendingOf, *total)
	}
	if accumulate == 1 {
		s.discard() // kernels overwrite the gradients
	}
	if s.pendingSum+n > *total {
		return fmt.Errorf("%d samples are more than the effective batch of %d", s.pendingSum+n, *total)
	}
	if err := s.feed(b); err != nil {
		return err
	}
	if accumulate > 1 && s.pending == 0 {
		return s.dev.Clear(Grads)
	}
	return nil
}

// count notes that Grad ran over n samples of an effective batch of total.
func (s *Session) count(n, total int) {
	s.pending++
	s.pendingSum += n
	s.pendingOf = total
	s.micro++
}

// Update makes one optimizer update from the gradients Grad left.
func (s *Session) Update() (err error) {
	defer recovered("update", &err)
	if err := s.lock(); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if s.pending == 0 {
		return fmt.Errorf("update %d: there are no gradients; call Grad first", s.updates+1)
	}
	scalars := s.scalars(s.pendingOf, s.dropout)
	if err := s.addUpdate(scalars); err != nil {
		return err
	}
	if err := s.dev.Run(Update, s.model.Batch, scalars); err != nil {
		return err
	}
	s.updates++
	s.discard()
	return nil
}

// Skip counts an update as made and changes nothing else: the gradients that
// wait for it are discarded, and the learning rate schedule and the bias
// corrections go on. It is for steps that look too odd to learn from.
func (s *Session) Skip() (err error) {
	defer recovered("skip", &err)
	if err := s.lock(); err != nil {
		return err
	}
	defer s.mu.Unlock()
	s.updates++
	s.discard()
	return nil
}

// addUpdate fills in what Update needs besides.
func (s *Session) addUpdate(scalars *StepScalars) error {
	if err := s.ready(); err != nil {
		return err
	}
	lr, err := s.lr()
	if err != nil {
		return err
	}
	c1, c2 := s.model.Train.Optimizer.biasCorrections(s.updates + 1)
	scalars.LR, scalars.BiasCorr1, scalars.BiasCorr2 = float32(lr), float32(c1), float32(c2)
	scalars.EMAWeight = float32(s.model.Train.EMA.weight(s.updates + 1))
	return nil
}

// Step is one update of training on an effective batch of len(labels) images,
// at most train.batch × train.accumulate. It returns the mean loss before the
// update and the number classified correctly.
func (s *Session) Step(images []float32, labels []int32) (loss float64, correct int, err error) {
	return s.StepSamples(Samples{Images: images, Labels: labels})
}

// StepSamples is Step of Samples.
func (s *Session) StepSamples(b Samples) (loss float64, correct int, err error) {
	defer recovered("step", &err)
	if err := s.lock(); err != nil {
		return 0, 0, err
	}
	defer s.mu.Unlock()
	n := b.Len()
	if err := s.checkEffective(&b); err != nil {
		return 0, 0, err
	}
	s.discard()
	sum := 0.0
	for lo := 0; lo < n; lo += s.model.Batch {
		r, err := s.submit(b.Part(lo, min(lo+s.model.Batch, n), s.model.ImageElems()), n)
		if err != nil {
			return 0, 0, err
		}
		s.fetch(&r)
		if r.err != nil {
			return 0, 0, r.err
		}
		sum, correct = sum+r.loss, correct+r.correct
	}
	return sum / float64(n), correct, nil
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
	b := Samples{Images: images, Labels: labels[:n]}
	if err := s.checkEffective(&b); err != nil {
		return 0, 0, err
	}
	s.discard()
	for lo := 0; lo < n; lo += s.model.Batch {
		l, c, err := s.grad(b.Part(lo, min(lo+s.model.Batch, n), s.model.ImageElems()), n)
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
	return logits, s.dev.Read(asBytes(logits), s.code.Outputs.Logits)
}

// Profile runs a program as Step would, on the first n samples of whatever is
// in memory, and returns the time of each of its launches. The learning rate
// is 0 and the average stays, but profiling Update still changes the optimizer's
// state.
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
	times = make([]time.Duration, len(s.code.Programs[id]))
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
