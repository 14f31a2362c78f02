package main

import (
	"context"
	"slices"
	"time"

	"github.com/vitgen/vitgen/bench/measure"
	"github.com/vitgen/vitgen/bench/workload"
)

// result is the JSON of a run.
type result struct {
	Kind     string            `json:"kind"`
	Date     string            `json:"date"`
	Machine  measure.Machine   `json:"machine"`
	Versions map[string]string `json:"versions"`
	Settings settings          `json:"settings"`
	Seconds  float64           `json:"seconds"` // of the whole run
	Goals    []goal            `json:"goals"`
	Groups   []*group          `json:"rows"`
	Products []*products       `json:"products,omitempty"`
	Compile  *compiling        `json:"compile,omitempty"`
	Failed   []failure         `json:"failed,omitempty"`
}

// failure is a part of the run that came to nothing.
type failure struct {
	Part string `json:"row"`
	Why  string `json:"why"`
}

// Of products and compiling, where --rounds says nothing.
const (
	productRuns   = 3
	compileRounds = 3
)

// measure does the parts of a run. One that fails does not end the others.
func (s *settings) measure(ctx context.Context) (*result, error) {
	began := time.Now()
	r := &result{
		Kind: "cpu", Date: began.Format(time.DateOnly), Settings: *s,
		Machine: measure.DescribeMachine(), Versions: measure.ToolVersions(ctx, resultsDir),
	}
	if r.Machine.LoadBefore > 0.5 {
		logf("warning: the load average is %.1f; figures from a busy machine mean little\n", r.Machine.LoadBefore)
	}
	steal := measure.WatchSteal()
	if err := s.peerVersions(ctx, r.Versions); err != nil {
		return nil, err
	}
	subjects := map[*source]*subject{}
	part := func(name string, do func() error) {
		if !slices.Contains(s.Parts, name) || ctx.Err() != nil {
			return
		}
		if err := do(); err != nil {
			r.Failed = append(r.Failed, failure{name, err.Error()})
			logf("%s failed: %v\n", name, err)
		}
	}
	part(compilePart, func() (err error) {
		if _, err = s.subject(ctx, &vit, subjects); err == nil {
			r.Compile, err = s.measureCompile(ctx, &rows[0], s.rounds(compileRounds))
		}
		return err
	})
	for i := range rows {
		part(rows[i].name, func() error { return s.measureRow(ctx, r, rows[i], subjects) })
	}
	part(gemmPart, func() error { return s.measureAllProducts(ctx, r) })
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r.Machine.StealPercent = steal()
	r.Seconds = time.Since(began).Seconds()
	r.Goals = r.goalLines()
	return r, nil
}

// rounds is how many a part has whose own number is n.
func (s *settings) rounds(n int) int {
	switch {
	case s.Rounds > 0:
		return s.Rounds
	case s.Quick:
		return 1
	}
	return n
}

// subject prepares a source once.
func (s *settings) subject(ctx context.Context, src *source, done map[*source]*subject) (*subject, error) {
	if done[src] == nil {
		sub, err := s.prepare(ctx, src)
		if err != nil {
			return nil, err
		}
		done[src] = sub
	}
	return done[src], nil
}

// measureRow compares the contestants of a row.
func (s *settings) measureRow(ctx context.Context, r *result, row row, subjects map[*source]*subject) error {
	if s.Quick {
		row.counts = quickCounts(row.counts)
	}
	sub, err := s.subject(ctx, row.source, subjects)
	if err != nil {
		return err
	}
	g := &group{
		Name: row.name, Spec: row.source.file, Batch: sub.workload.Batch, What: row.what(sub.workload.Batch), Inference: row.images > 0,
		Counts: row.counts, Rounds: s.rounds(row.rounds), Parameters: len(sub.peer.Parameters),
		tiny: row.source.tiny, speed: row.speed, memory: row.memory,
	}
	if g.Inference {
		g.Batch = row.images
	} else {
		g.PeerFLOPs = sub.peer.StepFLOPs
	}
	field := s.field(&row)
	if sub.noJAX != "" {
		field = slices.DeleteFunc(field, func(c contestant) bool { return c.jax })
		g.Without = "JAX: " + sub.noJAX
	}
	if err := g.compare(ctx, field, logf); err != nil {
		return err
	}
	r.Groups = append(r.Groups, g)
	return nil
}

// quickCounts are a few steps, or one of those that take a second.
func quickCounts(c workload.Counts) workload.Counts {
	if c.Warmup = 1; c.Steps < 10 {
		c.Steps = 1
	} else {
		c.Steps = 10
	}
	return c
}
