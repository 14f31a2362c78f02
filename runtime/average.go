package runtime

import "fmt"

// Average reports whether the model keeps a moving average of its parameters
// (train.ema).
func (s *Session) Average() bool { return s.code.Regions[Average] > 0 }

// SwapAverage exchanges the parameters and their moving average: what Forward,
// Eval, Param and Save then see is the average. It is called in pairs around
// validation and saving; in between there is no training. The error says that
// the model keeps no average.
func (s *Session) SwapAverage() (err error) {
	defer recovered("exchanging the parameters and their average", &err)
	if !s.Average() {
		return fmt.Errorf("model %s keeps no average of its parameters: %s has no train.ema", s.model.Name, s.model.SpecFile)
	}
	if err := s.lock(); err != nil {
		return err
	}
	defer s.mu.Unlock()
	params, average := make([]float32, s.model.ParamElems), make([]float32, s.model.ParamElems)
	if err := s.dev.Read(asBytes(params), Params.At(0)); err != nil {
		return err
	}
	if err := s.dev.Read(asBytes(average), Average.At(0)); err != nil {
		return err
	}
	if err := s.dev.Write(Params.At(0), asBytes(average)); err != nil {
		return err
	}
	if err := s.dev.Write(Average.At(0), asBytes(params)); err != nil {
		return err
	}
	s.swapped = !s.swapped
	return nil
}

// restartAverage makes the average a copy of the parameters.
func (s *Session) restartAverage() error {
	s.swapped = false
	if !s.Average() {
		return nil
	}
	arena := make([]float32, s.model.ParamElems)
	if err := s.dev.Read(asBytes(arena), Params.At(0)); err != nil {
		return err
	}
	return s.dev.Write(Average.At(0), asBytes(arena))
}

// ready reports what stands in the way of training.
func (s *Session) ready() error {
	if s.swapped {
		return fmt.Errorf("the parameters are exchanged with their average: call SwapAverage before training goes on")
	}
	return nil
}
