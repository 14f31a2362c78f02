package trainer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/google/renameio/v2"

	"github.com/vitgen/vitgen/runtime/report"
)

// finderFlags are the flags of the find-lr command.
type finderFlags struct {
	where    placement
	from     source
	init     initFlags
	low, top float64
	steps    int
	out      string
}

// findLR is the command: it trains for some updates with a learning rate that
// rises by the same factor each time, until the loss explodes, and suggests one
// (Smith, "Cyclical Learning Rates for Training Neural Networks", 2017). What it
// has trained is thrown away.
func (a *app) findLR(args []string) error {
	fs := a.flags("find-lr")
	var o finderFlags
	o.where.define(fs)
	o.where.defineSeed(fs)
	o.from.define(fs)
	o.from.warn = a.warn
	o.init.define(fs)
	fs.Float64Var(&o.low, "from", 1e-7, "learning `rate` of the first update")
	fs.Float64Var(&o.top, "to", 10, "learning `rate` of the last update")
	fs.IntVar(&o.steps, "steps", 100, "`number` of updates")
	fs.StringVar(&o.out, "out", "", "`directory` for find-lr.png, find-lr.svg and find-lr.jsonl; empty: a new one under runs")
	if _, err := a.parse(fs, args, 0); err != nil {
		return err
	}
	switch {
	case !(o.low > 0 && o.low < o.top) || math.IsInf(o.top, 0):
		return usagef("find-lr: --from %g and --to %g: want 0 < from < to", o.low, o.top)
	case o.steps < 20:
		return usagef("find-lr: --steps %d are too few to see anything; want 20 or more", o.steps)
	}
	if err := o.init.settle(fs); err != nil {
		return err
	}
	if err := o.from.settle(a.model); err != nil {
		return err
	}
	t := a.stepper()
	if err := t.openFinder(&o); err != nil {
		return err
	}
	defer t.session.Close()
	rates, err := t.sweep(&o)
	if err != nil {
		return err
	}
	return t.reportRates(&o, rates)
}

func (t *stepper) openFinder(o *finderFlags) (err error) {
	seed := o.where.seed
	if seed == 0 {
		seed = t.model.Train.Seed
	}
	if t.sets, err = o.from.load(t.model, seed); err != nil {
		return err
	}
	if t.session, err = t.app.open(o.where); err != nil {
		return err
	}
	t.outliers.Z = 0 // exploding losses are what is looked for
	_, err = o.init.apply(t.app, t.session, t.sets.Train.Classes())
	return err
}

// smoothing is how much of the moving average of losses each update keeps.
const smoothing = 0.98

// sweep makes the updates. It ends early where the moving average of the loss is
// four times its least, or the loss is no number.
func (t *stepper) sweep(o *finderFlags) ([]report.Rate, error) {
	p := newProgress(t.err)
	p.start("find-lr", o.steps)
	defer p.clear()
	var rates []report.Rate
	average, weight, least := 0.0, 0.0, math.Inf(1)
	rate := func(i int) float64 { return o.low * math.Pow(o.top/o.low, float64(i)/float64(o.steps-1)) }
	t.session.SetLR(rate(0))
	for epoch := 0; ; epoch++ {
		var loss mean
		seen := 0
		for b, err := range t.sets.trainBatches(epoch, 0) {
			if t.ctx.Err() != nil {
				return nil, fmt.Errorf("interrupted after %d of %d updates", len(rates), o.steps)
			}
			if err != nil {
				return nil, err
			}
			f, err := t.submit(b, &seen)
			if err != nil {
				return nil, err
			}
			sum, _, err := f.wait()
			if err != nil {
				return nil, err
			}
			loss.sum, loss.n = loss.sum+sum, loss.n+f.n
			if !f.ends {
				continue
			}
			value := loss.sum / float64(loss.n)
			loss = mean{}
			if math.IsNaN(value) || math.IsInf(value, 0) {
				return rates, nil
			}
			average, weight = smoothing*average+(1-smoothing)*value, smoothing*weight+(1-smoothing)
			smooth := average / weight // or the first losses would count for more
			rates = append(rates, report.Rate{LR: f.lr, Loss: value, Smooth: smooth})
			least = min(least, smooth)
			p.step(smooth)
			if smooth > 4*least || len(rates) == o.steps {
				return rates, nil
			}
			t.session.SetLR(rate(len(rates)))
		}
	}
}

// trimmed leaves out the first updates, which have hardly begun to learn, and
// the last ones, which explode.
func trimmed(rates []report.Rate) []report.Rate {
	n := len(rates)
	return rates[n/10 : max(n/10, n-5)]
}

// valley is the learning rate in the middle of the second third of the longest
// run of falling losses, as fastai's lr_find suggests it: the longest falling
// subsequence, not only of neighbours. 0: there is none.
func valley(rates []report.Rate) float64 {
	length := make([]int, len(rates))
	end := 0
	for i := range rates {
		length[i] = 1
		for j := range i {
			if rates[i].Smooth < rates[j].Smooth {
				length[i] = max(length[i], length[j]+1)
			}
		}
		if length[i] > length[end] {
			end = i
		}
	}
	if len(rates) == 0 || length[end] < 3 {
		return 0
	}
	section := float64(length[end]) / 3
	return rates[end-length[end]+int(section)+int(section/2)].LR
}

// steepest is the learning rate at which the loss falls fastest over its
// logarithm; 0: it falls nowhere.
func steepest(rates []report.Rate) float64 {
	lr, least := 0.0, 0.0
	for i := 1; i < len(rates); i++ {
		a, b := &rates[i-1], &rates[i]
		if slope := (b.Smooth - a.Smooth) / (math.Log(b.LR) - math.Log(a.LR)); slope < least {
			lr, least = a.LR, slope
		}
	}
	return lr
}

// reportRates writes the table, the suggestions and the files.
func (t *stepper) reportRates(o *finderFlags, rates []report.Rate) error {
	fmt.Fprintln(t.out, t.banner(t.session))
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "learning rate\tloss\tmoving average\t")
	for i, r := range rates {
		if i%max(1, len(rates)/20) == 0 || i == len(rates)-1 {
			fmt.Fprintf(w, "%.3g\t%.4f\t%.4f\t\n", r.LR, r.Loss, r.Smooth)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	inner := trimmed(rates)
	suggested, steep := valley(inner), steepest(inner)
	dir := o.out
	var err error
	if dir == "" {
		if dir, err = newRunDir(runsDir, t.model.Name+"-find-lr"); err != nil {
			return err
		}
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var lines bytes.Buffer
	for _, r := range rates {
		text, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("find-lr: %w", err)
		}
		lines.Write(append(text, '\n'))
	}
	if err := renameio.WriteFile(filepath.Join(dir, "find-lr.jsonl"), lines.Bytes(), 0o644); err != nil {
		return err
	}
	if err := report.Rates(dir, t.model.Name+": loss over learning rate", rates, suggested); err != nil {
		return err
	}
	if len(rates) < o.steps {
		fmt.Fprintf(t.out, "the loss exploded after %d of %d updates\n", len(rates), o.steps)
	}
	fmt.Fprintf(t.out, "picture  %s, %s\n", filepath.Join(dir, "find-lr.png"), filepath.Join(dir, "find-lr.svg"))
	if suggested == 0 {
		return fmt.Errorf("the loss falls at no learning rate from %g on: start lower with --from, or make more --steps", o.low)
	}
	fmt.Fprintf(t.out, "suggested learning rate %.2g (valley); the loss falls fastest at %.2g\n", suggested, steep)
	return nil
}
