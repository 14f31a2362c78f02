package runtime

import (
	"errors"
	"fmt"
)

// Submit runs one micro-batch of training: forward, backward, and, if it
// completes the effective batch of total samples (0: as many as b has), the
// update. On a device that works by itself, such as a GPU, it does not wait: the
// device goes from step to step without a pause as long as each is submitted
// before the one before is done.
//
//	before := Pending{}
//	for each micro-batch {
//		now, err := s.Submit(b, total)
//		if before.Valid() { loss, correct, err := before.Wait(); … }
//		before = now
//	}
//
// b may be used again as soon as Submit returns. Two micro-batches may be on
// their way; Submit of a third waits for the first.
func (s *Session) Submit(b Samples, total int) (p Pending, err error) {
	defer recovered("step", &err)
	if err := s.lockBusy(); err != nil {
		return Pending{}, err
	}
	defer s.mu.Unlock()
	if err := s.checkSamples(&b); err != nil {
		return Pending{}, err
	}
	if s.submits >= inFlight {
		s.fetch(&s.results[(s.submits-inFlight+1)%keptResults])
	}
	r, err := s.submit(b, total)
	if err != nil {
		return Pending{}, err
	}
	s.submits++
	r.number = s.submits
	s.results[s.submits%keptResults] = r
	return Pending{s, s.submits}, nil
}

const (
	inFlight    = 2  // micro-batches on their way
	keptResults = 16 // Submits whose results are kept for Wait
)

// Pending is a micro-batch that Submit started.
type Pending struct {
	session *Session
	number  uint64
}

// Valid reports whether p came from Submit.
func (p Pending) Valid() bool { return p.session != nil }

// Wait waits until the micro-batch has been run and returns the sum of its
// losses and how many samples were classified correctly, before the update. It
// may be called late, but not after 16 other Submits.
func (p Pending) Wait() (lossSum float64, correct int, err error) {
	s := p.session
	defer recovered("step", &err)
	if err := s.lockBusy(); err != nil {
		return 0, 0, err
	}
	defer s.mu.Unlock()
	r := &s.results[p.number%keptResults]
	if r.number != p.number {
		return 0, 0, fmt.Errorf("step %d: its result is no longer kept; call Wait earlier", p.number)
	}
	s.fetch(r)
	return r.loss, r.correct, r.err
}

// result is what a run leaves for its samples.
type result struct {
	number  uint64 // of the Submit
	n       int    // samples; 0: no result
	ticket  uint64 // of the device, where it is to be fetched
	fetched bool
	loss    float64
	correct int
	err     error
}

// submit runs checked samples through Grad, and Update where that is due.
func (s *Session) submit(b Samples, total int) (result, error) {
	n := b.Len()
	if total == 0 {
		total = n
	}
	if s.model.Train.Accumulate == 1 {
		s.discard()
	}
	last := s.pendingSum+n == total
	scalars := s.scalars(total, s.dropout)
	if last {
		// A schedule that cannot tell the learning rate should be heard of
		// before anything has changed.
		if err := s.addUpdate(scalars); err != nil {
			return result{}, err
		}
	}
	if err := s.prepare(&b, &total); err != nil {
		return result{}, err
	}
	var err error
	if last && s.pipeline != nil {
		err = s.pipeline.RunStep(n, scalars)
	} else {
		err = s.dev.Run(Grad, n, scalars)
	}
	if err != nil {
		return result{}, err
	}
	r := s.left(n)
	s.count(n, total)
	if !last || r.err != nil {
		return r, r.err
	}
	if s.pipeline == nil {
		if err := s.dev.Run(Update, s.model.Batch, scalars); err != nil {
			return result{}, err
		}
	}
	s.updates++
	s.discard()
	return r, nil
}

// left is the result of the run of Grad or Eval over n samples just made: where
// to fetch it, or the result itself if the device has nothing on its way.
func (s *Session) left(n int) result {
	r := result{n: n}
	if s.pipeline != nil {
		r.ticket = s.pipeline.Ticket()
	} else {
		s.fetch(&r)
	}
	return r
}

// fetch completes a result, once.
func (s *Session) fetch(r *result) {
	if r.n == 0 || r.fetched {
		return
	}
	r.fetched = true
	loss, correct := s.loss[:r.n], s.correct[:r.n]
	if s.pipeline != nil {
		r.err = s.pipeline.Results(r.ticket, loss, correct)
	} else {
		r.err = errors.Join(s.dev.Read(asBytes(loss), s.code.Outputs.Loss), s.dev.Read(asBytes(correct), s.code.Outputs.Correct))
	}
	if r.err != nil {
		return
	}
	for i := range loss { // in float64, in order
		r.loss += float64(loss[i])
		if correct[i] == 1 {
			r.correct++
		}
	}
}

// fetchAll fetches whatever Submit left on its way.
func (s *Session) fetchAll() {
	if s.pipeline == nil {
		return
	}
	for back := min(inFlight, s.submits); back > 0; back-- {
		s.fetch(&s.results[(s.submits-back+1)%keptResults])
	}
}

// Pipelined reports whether the device works while the host goes on, so that it
// pays to Submit a step before looking at the result of the one before.
func (s *Session) Pipelined() bool { return s.pipeline != nil }
