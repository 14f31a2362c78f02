package golden

import (
	"fmt"
	"io"
	"math"
	"slices"
)

// Float is a computed or a reference element type.
type Float interface{ ~float32 | ~float64 }

// Row is the verdict on one tensor.
type Row struct {
	Name    string
	MaxAbs  float64 // largest |got - want|
	RelNorm float64 // ‖got - want‖/‖want‖, or ‖got - want‖ if Absolute
	Tol     float64
	// Absolute: the reference is zero throughout, so there is nothing to be
	// relative to.
	Absolute bool
	OK       bool
	Reason   string // why not OK; empty otherwise
}

// Compare measures got against want in float64. It passes if the relative
// Euclidean norm of the difference is at most tol; a NaN or an infinity on
// either side never passes.
func Compare[G, W Float](name string, got []G, want []W, tol float64) Row {
	if len(got) != len(want) {
		return missed(name, tol, fmt.Sprintf("has %d elements, want %d", len(got), len(want)))
	}
	row := Row{Name: name, Tol: tol}
	diff2, want2 := 0.0, 0.0
	for i := range want {
		g, w := float64(got[i]), float64(want[i])
		d := math.Abs(g - w)
		if math.IsNaN(d) || math.IsInf(d, 0) { // g or w is not finite
			return missed(name, tol, fmt.Sprintf("element %d is %v, want %v", i, g, w))
		}
		row.MaxAbs = max(row.MaxAbs, d)
		diff2 += d * d
		want2 += w * w
	}
	row.RelNorm = math.Sqrt(diff2)
	if row.Absolute = want2 == 0; !row.Absolute {
		row.RelNorm /= math.Sqrt(want2)
	}
	if row.OK = row.RelNorm <= tol; !row.OK { // an overflowed norm is NaN and fails
		row.Reason = "misses its tolerance"
	}
	return row
}

// Float64s widens a computed tensor for a Checker.
func Float64s[F Float](v []F) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

// Checker collects what was computed from a golden's inputs and compares it
// with what the golden holds. What the golden holds but was never handed in
// counts as a miss; what it does not hold is ignored.
type Checker struct {
	golden    *Golden
	precision string
	got       map[string][]float64 // by entry
	refused   map[string]string    // entry to reason: what could not be compared
	unknown   []string             // handed in for parameters the golden does not know
}

// NewChecker starts a check of a computation in the given precision: fp32,
// tf32 or bf16.
func (g *Golden) NewChecker(precision string) *Checker {
	return &Checker{golden: g, precision: precision, got: map[string][]float64{}, refused: map[string]string{}}
}

// Logits takes the logits [Batch, Classes] at the start.
func (c *Checker) Logits(v []float64) { c.got["logits"] = v }

// Loss takes the mean loss at the start.
func (c *Checker) Loss(v float64) { c.got["loss"] = []float64{v} }

// Grad takes the gradient of a parameter at the start, before clipping.
func (c *Checker) Grad(param string, v []float64) { c.tensor("grad", c.golden.Grads, param, v) }

// StepLoss takes the loss before update k = 1, 2, ….
func (c *Checker) StepLoss(k int, v float64) { c.got[stepLoss(k)] = []float64{v} }

// StepParam takes a parameter after update k = 1, 2, ….
func (c *Checker) StepParam(k int, param string, v []float64) {
	if k <= len(c.golden.Steps) {
		c.tensor(stepParams(k), c.golden.Steps[k-1].Params, param, v)
	}
}

func (c *Checker) tensor(part string, all map[string]Expected, param string, v []float64) {
	if all == nil {
		return
	}
	e, ok := all[param]
	size := len(c.golden.Params[param])
	switch {
	case !ok:
		c.unknown = append(c.unknown, whole(part, param))
	case e.Whole != nil:
		c.got[whole(part, param)] = v
	case len(v) != size: // norm and samples of a tensor of another size mean nothing
		reason := fmt.Sprintf("was taken from %d elements, want %d", len(v), size)
		c.refused[normOf(part, param)], c.refused[sampleOf(part, param)] = reason, reason
	default:
		c.got[normOf(part, param)] = []float64{norm(v)}
		c.got[sampleOf(part, param)] = sample(param, v, len(e.Sample))
	}
}

// Rows returns a row per entry of the golden, in the golden's order.
func (c *Checker) Rows() []Row {
	var rows []Row
	c.golden.expectations(func(entry string, want []float64) {
		tol := c.golden.Tolerance(entry, c.precision)
		if got, ok := c.got[entry]; ok {
			rows = append(rows, Compare(entry, got, want, tol))
			return
		}
		reason := c.refused[entry]
		if reason == "" {
			reason = "was not computed"
		}
		rows = append(rows, missed(entry, tol, reason))
	})
	for _, entry := range c.unknown {
		rows = append(rows, missed(entry, math.NaN(), "is not in the golden"))
	}
	return rows
}

// missed is the row of a tensor of which nothing could be measured.
func missed(name string, tol float64, reason string) Row {
	return Row{Name: name, Tol: tol, MaxAbs: math.NaN(), RelNorm: math.NaN(), Reason: reason}
}

// AllOK reports whether there are rows and every one passes.
func AllOK(rows []Row) bool {
	return len(rows) > 0 && !slices.ContainsFunc(rows, func(r Row) bool { return !r.OK })
}

// WriteTable prints a line per row and a summary.
func WriteTable(w io.Writer, rows []Row) error {
	width := len("tensor")
	bad := 0
	for _, r := range rows {
		width = max(width, len(r.Name))
		if !r.OK {
			bad++
		}
	}
	if _, err := fmt.Fprintf(w, "%-*s  %9s  %9s   %9s\n", width, "tensor", "max abs", "rel norm", "tolerance"); err != nil {
		return err
	}
	for _, r := range rows {
		// A zero reference makes the norm absolute: marked, and explained below.
		mark, verdict := " ", "ok"
		if r.Absolute {
			mark = "*"
		}
		if !r.OK {
			verdict = "FAIL: " + r.Reason
		}
		if _, err := fmt.Fprintf(w, "%-*s  %9.2e  %9.2e%s  %9.1e  %s\n", width, r.Name, r.MaxAbs, r.RelNorm, mark, r.Tol, verdict); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(rows, func(r Row) bool { return r.Absolute }) {
		if _, err := fmt.Fprintln(w, "* the reference is zero: absolute norm"); err != nil {
			return err
		}
	}
	summary := fmt.Sprintf("%d tensors, all within tolerance", len(rows))
	if bad > 0 {
		summary = fmt.Sprintf("%d of %d tensors FAIL", bad, len(rows))
	} else if len(rows) == 0 {
		summary = "FAIL: the golden holds nothing to check"
	}
	_, err := fmt.Fprintln(w, summary)
	return err
}
