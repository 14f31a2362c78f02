// Package steps is a main for trainers of tests: it makes the updates that a
// file asks for, through the model's session, and prints what has become of the
// parameters and of their average. Trainers have no command of that kind.
package steps

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/vitgen/vitgen/runtime"
)

// Request is what to do, from a given start.
type Request struct {
	Device  string
	Seed    uint64
	Params  map[string][]float32
	Batches []runtime.Samples // one a step, given whole
	Look    []float32         // images whose logits the average is asked for
}

// Result is what came of it.
type Result struct {
	Losses          []float64
	Params, Average map[string][]float32
	Logits          []float32
}

// Main reads the file named by the first argument and prints the result.
func Main(m *runtime.Model) {
	if err := run(m, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(m *runtime.Model, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var q Request
	if err := json.Unmarshal(text, &q); err != nil {
		return err
	}
	s, err := runtime.NewSession(m, runtime.Options{Device: q.Device})
	if err != nil {
		return err
	}
	defer s.Close()
	for name, v := range q.Params {
		if err := s.SetParam(name, v); err != nil {
			return err
		}
	}
	if err := s.Restart(q.Seed); err != nil {
		return err
	}
	r := Result{}
	for _, b := range q.Batches {
		loss, _, err := s.StepSamples(b)
		if err != nil {
			return err
		}
		r.Losses = append(r.Losses, loss)
	}
	if r.Params, err = params(s); err != nil {
		return err
	}
	if err := s.SwapAverage(); err != nil {
		return err
	}
	if r.Average, err = params(s); err != nil {
		return err
	}
	if r.Logits, err = s.Forward(q.Look, len(q.Look)/m.ImageElems()); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func params(s *runtime.Session) (map[string][]float32, error) {
	all := map[string][]float32{}
	for _, p := range s.Model().Params {
		v, err := s.Param(p.Name)
		if err != nil {
			return nil, err
		}
		all[p.Name] = v
	}
	return all, nil
}
