package runtime

import "slices"

// Snapshot is a session between two updates: parameters, optimizer state and
// counters, in the host's memory. It may be filled again and again.
type Snapshot struct {
	params         []float32
	state          [2][]float32
	seed           uint64
	updates, micro int
}

// Snapshot copies the session into t. Gradients that wait for Update are not
// part of it.
func (s *Session) Snapshot(t *Snapshot) (err error) {
	defer recovered("snapshot", &err)
	if err := s.lock(); err != nil {
		return err
	}
	defer s.mu.Unlock()
	t.seed, t.updates, t.micro = s.seed, s.updates, s.micro
	for r, v := range t.parts(s.model) {
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
	for r, v := range t.parts(s.model) {
		if err := s.dev.Write(r.At(0), asBytes(*v)); err != nil {
			return err
		}
	}
	s.seed, s.updates, s.micro = t.seed, t.updates, t.micro
	s.discard()
	return nil
}

// parts are the regions that a snapshot of a model holds.
func (t *Snapshot) parts(m *Model) map[Region]*[]float32 {
	parts := map[Region]*[]float32{Params: &t.params}
	for i := range m.StateNames {
		parts[State0+Region(i)] = &t.state[i]
	}
	return parts
}
