package trainer

import (
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/data"
)

// source are the flags that choose a data set.
type source struct {
	name, dir, metrics string
	strict             bool
	warn               func(text string) // is told of pictures left out; nil: nobody is
}

func (d *source) define(fs *flag.FlagSet) {
	d.defineData(fs, "data set `name`: "+strings.Join(data.Names(), ", ")+"; empty: the spec's")
	fs.StringVar(&d.metrics, "metrics", "", "`how` to average: exact over samples, or d2l: means of batch means; empty: the spec's")
}

// defineData defines the flags of the data set, without that of the metrics.
func (d *source) defineData(fs *flag.FlagSet, usage string) {
	fs.StringVar(&d.name, "data", "", usage)
	fs.StringVar(&d.dir, "data-dir", "data", "`directory` of the data set's files; of image_folder, that with your pictures")
	fs.BoolVar(&d.strict, "strict", false, "stop at a picture that cannot be read, instead of leaving it out")
}

// settle takes the spec's choice where there is no flag, and checks the flag.
func (d *source) settle(m *runtime.Model) error {
	if d.metrics == "" {
		d.metrics = m.Train.Metrics
	}
	if d.metrics == "" {
		d.metrics = "exact"
	}
	if d.metrics != "exact" && d.metrics != "d2l" {
		return usagef("--metrics is exact or d2l, not %q", d.metrics)
	}
	return nil
}

// Samples made for --data synthetic when the spec does not say.
const defaultTrain, defaultVal = 4096, 1024

// open opens the data set for a model.
func (d *source) open(m *runtime.Model) (data.Split, error) {
	c := data.Config{
		Name: m.Data.Name, Dir: d.dir, Image: m.Image, Classes: m.Classes,
		Resize: m.Data.Resize, Fit: m.Data.Fit, ValPart: m.Data.ValPart,
		Train: m.Data.Train, Val: m.Data.Val, Seed: m.Train.Seed, Augment: m.Data.Augment,
		Strict: d.strict, Warn: d.warn,
	}
	if d.name != "" && d.name != c.Name {
		// The spec's resize is for its own data set; any other one is brought
		// to what the model takes.
		c.Name, c.Resize = d.name, [2]int{m.Image[1], m.Image[2]}
	}
	if c.Name == "" {
		return data.Split{}, fmt.Errorf("%s names no data set: give one with --data (%s)", m.SpecFile, strings.Join(data.Names(), ", "))
	}
	if c.Name == "synthetic" && c.Train == 0 && c.Val == 0 {
		c.Train, c.Val = defaultTrain, defaultVal
	}
	return data.Open(c)
}

func (d *source) load(m *runtime.Model, seed uint64) (*loaders, error) {
	split, err := d.open(m)
	if err != nil {
		return nil, err
	}
	z, err := data.NewNormalizer(m.Image, m.Data.Mean, m.Data.Std)
	if err != nil {
		return nil, fmt.Errorf("%s: data: %w", m.SpecFile, err)
	}
	loader := func(part data.Dataset, shuffle bool) *data.Loader {
		return &data.Loader{Data: part, Normalize: z, Batch: m.Batch, Shuffle: shuffle, Seed: seed, Strict: d.strict, Warn: d.warn}
	}
	l := &loaders{Split: split, train: loader(split.Train, true), val: loader(split.Val, false)}
	l.train.Augment = m.Data.Augment
	return l, nil
}

// meter averages losses and accuracies over batches.
type meter struct {
	d2l            bool // unweighted mean of batch means, as d2l's board shows
	loss, correct  float64
	samples        int
	meanLoss, mean float64 // sums of batch means
	batches        int
	busy           time.Duration // spent on them, where it is measured
	waited         time.Duration // of that, for data
}

// wait is the share of the time that was spent waiting for data.
func (t *meter) wait() float64 { return t.waited.Seconds() / max(t.busy.Seconds(), 1e-9) }

// speed is samples per second.
func (t *meter) speed() float64 { return float64(t.samples) / max(t.busy.Seconds(), 1e-9) }

func (t *meter) add(lossSum float64, correct, n int) {
	t.loss += lossSum
	t.correct += float64(correct)
	t.samples += n
	t.meanLoss += lossSum / float64(n)
	t.mean += float64(correct) / float64(n)
	t.batches++
}

// result is the mean loss and accuracy so far; NaN if nothing was added.
func (t *meter) result() (loss, acc float64) {
	if t.d2l {
		return t.meanLoss / float64(t.batches), t.mean / float64(t.batches)
	}
	return t.loss / float64(t.samples), t.correct / float64(t.samples)
}
