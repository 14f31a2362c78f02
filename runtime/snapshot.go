package runtime

import "slices"

// Snapshot is a session between two updates: parameters, their average if one
// is kept, optimizer state and counters, in the host's memory. It may be filled
// again and again.
type Snapshot struct {
	params         []float32
	average        []float32
	state          [2][]float32
	seed           uint64
	updates, micro int
	classes        []string
}

// Snapshot copies the session into t. Gradients that wait for Update are not
// part of it; whether SwapAverage has exchanged anything makes no difference.
func (s *Session) Snapshot(t *Snapshot) (err error) {
	defer recovered("snapshot", &err)
	if err := s.lock(); err != nil {
		return err
	}
	defer s.mu.Unlock()
	t.seed, t.updates, t.micro, t.classes = s.seed, s.updates, s.micro, s.classes
	for r, v := range t.parts(s, s.swapped) {
		*v = slices.Grow((*v)[:0], s.model.ParamElems)[:s.model.ParamElems]
		if err := s.dev.Read(asBytes(*v), r.At(0)); err != nil {
			return err
		}
	}
	return nil
}

// Restore puts the session back to where t was taken, in this session or in
// another one of the same model. What follows is bit for bit what followed then.
func (s *Session) Restore(t *Snapshot) (err error) {
	defer recovered("restore", &err)
	if err := s.lock(); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for r, v := range t.parts(s, false) {
		if err := s.dev.Write(r.At(0), asBytes(*v)); err != nil {
			return err
		}
	}
	s.seed, s.updates, s.micro, s.classes, s.swapped = t.seed, t.updates, t.micro, t.classes, false
	s.discard()
	return nil
}

// parts are the regions of a session that a snapshot holds.
func (t *Snapshot) parts(s *Session, swapped bool) map[Region]*[]float32 {
	parts := map[Region]*[]float32{Params: &t.params}
	if s.Average() {
		parts[Average] = &t.average
	}
	if swapped {
		parts[Params], parts[Average] = parts[Average], parts[Params]
	}
	for i := range s.model.StateNames {
		parts[State0+Region(i)] = &t.state[i]
	}
	return parts
}
