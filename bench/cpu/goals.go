package main

import (
	"fmt"

	"github.com/vitgen/vitgen/bench/measure"
)

// goal is one line of the table of goals.
type goal struct {
	Work string `json:"work"`
	// Peer is what figures compare with, and how it did; empty: nothing.
	Peer     string `json:"peer,omitempty"`
	Unpruned cell   `json:"without_row_pruning"`
	Pruned   cell   `json:"with_row_pruning"`
}

// cell is a figure and what is wanted of it.
type cell struct {
	Figure *measure.Spread `json:"figure,omitempty"` // nil: not measured
	Limit  float64         `json:"limit,omitempty"`  // 0: nothing is wanted
	AtMost bool            `json:"at_most,omitempty"`
	Met    bool            `json:"met"`
	unit   unit
}

// unit is how a figure is written.
type unit int

const (
	times unit = iota // 2.00×
	percent
	share // 0.33
)

func (u unit) text(x float64) string { return u.number(x) + [...]string{"×", " %", ""}[u] }

func (u unit) number(x float64) string {
	if u == percent {
		return fmt.Sprintf("%.0f", 100*x)
	}
	return fmt.Sprintf("%.2f", x)
}

// want is a cell: the median of the figure counts.
func want(figure *measure.Spread, u unit, limit float64, atMost bool) cell {
	c := cell{Figure: figure, Limit: limit, AtMost: atMost, unit: u}
	if figure != nil && limit > 0 {
		c.Met = figure.Median >= limit
		if atMost {
			c.Met = figure.Median <= limit
		}
	}
	return c
}

// columns are the two texts of a cell: the figure with its extremes, and the goal.
func (c *cell) columns() (figure, goal string) {
	switch {
	case c.Figure != nil:
		figure = fmt.Sprintf("%s (%s–%s)", c.unit.text(c.Figure.Median), c.unit.number(c.Figure.Min), c.unit.number(c.Figure.Max))
	case c.Limit > 0:
		figure = "not measured"
	}
	if c.Limit == 0 {
		return figure, ""
	}
	sign, verdict := "≥", "missed"
	if c.AtMost {
		sign = "≤"
	}
	limit := c.unit.text(c.Limit)
	if c.Figure == nil {
		return figure, sign + " " + limit
	}
	if c.Met {
		verdict = "met"
	}
	return figure, fmt.Sprintf("%s %s, **%s**", sign, limit, verdict)
}

// figures finds one figure of a contestant by its name; nil where it took no part.
func (g *group) figures(of func(*entry) *measure.Spread) func(name string) *measure.Spread {
	return func(name string) *measure.Spread {
		if e := g.find(name); e != nil {
			return of(e)
		}
		return nil
	}
}

// speedGoal is that of a group's times.
func (g *group) speedGoal() goal {
	figure := g.figures(func(e *entry) *measure.Spread { return e.Speedup })
	line := goal{
		Work:     g.What,
		Unpruned: want(figure(oursUnpruned), times, g.speed.unpruned, false),
		Pruned:   want(figure(ours), times, g.speed.pruned, false),
	}
	if e := g.find(g.Fastest); e != nil {
		line.Peer = fmt.Sprintf("%s, %s ms", e.Name, milliseconds(e.StepMS.Median))
	}
	return line
}

// memoryGoal is that of a group's peak memory.
func (g *group) memoryGoal() goal {
	figure := g.figures(func(e *entry) *measure.Spread { return e.Memory })
	line := goal{
		Work:     "peak memory, " + g.What,
		Unpruned: want(figure(oursUnpruned), percent, g.memory.unpruned, true),
		Pruned:   want(figure(ours), percent, g.memory.pruned, true),
	}
	if e := g.find(g.Leanest); e != nil {
		line.Peer = fmt.Sprintf("%s, %.0f MB", e.Name, float64(e.PeakRSS)/1e6)
	}
	return line
}

// goalLines are the table of goals, of all that was measured.
func (r *result) goalLines() (all []goal) {
	for _, g := range r.Groups {
		all = append(all, g.speedGoal())
	}
	for _, p := range r.Products {
		all = append(all, p.goal())
	}
	for _, g := range r.Groups {
		if g.memory != (goals{}) {
			all = append(all, g.memoryGoal())
		}
	}
	if r.Compile != nil {
		all = append(all, r.Compile.goals()...)
	}
	return all
}

func goalTable(all []goal) string {
	rows := [][]string{{"work", "best peer", "without row pruning", "goal", "with", "goal"}}
	for _, l := range all {
		unpruned, wanted := l.Unpruned.columns()
		pruned, wantedPruned := l.Pruned.columns()
		rows = append(rows, []string{l.Work, l.Peer, unpruned, wanted, pruned, wantedPruned})
	}
	return measure.Table(rows, false)
}

// milliseconds with as many digits as mean something.
func milliseconds(ms float64) string {
	switch {
	case ms < 10:
		return fmt.Sprintf("%.3f", ms)
	case ms < 100:
		return fmt.Sprintf("%.2f", ms)
	}
	return fmt.Sprintf("%.1f", ms)
}
