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
	err = s.eachPart(func(at int64, params, average []byte) error {
		if err := s.dev.Read(average, Average.At(at)); err != nil {
			return err
		}
		if err := s.dev.Write(Average.At(at), params); err != nil {
			return err
		}
		return s.dev.Write(Params.At(at), average)
	})
	if err == nil {
		s.swapped = !s.swapped
	}
	return err
}

// restartAverage makes the average a copy of the parameters.
func (s *Session) restartAverage() error {
	s.swapped = false
	if !s.Average() {
		return nil
	}
	return s.eachPart(func(at int64, params, _ []byte) error { return s.dev.Write(Average.At(at), params) })
}

// eachPart calls do with the parameter arena in parts that are small beside a
// large model: where the part lies in its region, what it holds, and as much room.
func (s *Session) eachPart(do func(at int64, params, room []byte) error) error {
	const most = 16 << 20
	bytes := int64(s.model.ParamElems) * 4
	params, room := make([]byte, min(bytes, most)), make([]byte, min(bytes, most))
	for at := int64(0); at < bytes; at += most {
		n := min(bytes-at, most)
		if err := s.dev.Read(params[:n], Params.At(at)); err != nil {
			return err
		}
		if err := do(at, params[:n], room[:n]); err != nil {
			return err
		}
	}
	return nil
}

// ready reports what stands in the way of training.
func (s *Session) ready() error {
	if s.swapped {
		return fmt.Errorf("the parameters are exchanged with their average: call SwapAverage before training goes on")
	}
	return nil
}
