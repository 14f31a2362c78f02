package trainer

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/report"
)

// evaluation is what a model makes of the validation part.
type evaluation struct {
	samples    int
	exact, d2l score // both ways to average, see source.metrics

	// By label, one for each class of the model.
	perClass, correct []int // samples, and those classified correctly
	// confusion counts samples by label and guess; nil if the model has more
	// than maxConfusion classes.
	confusion [][]int
	mistakes  []mistake // the maxMistakes samples that the model is surest of and wrong, the surest first
	spread    []mistake // each every-th sample, mistake or not: the same ones every time
	every     int       // 0: none
}

// score is a mean loss and an accuracy, 0 … 1.
type score struct{ loss, accuracy float64 }

// mistake is a sample that the model takes for something else.
type mistake struct {
	sample       int // number in the validation part
	label, guess int
	probability  float64 // the model's, of its guess
}

const (
	maxConfusion = 2048 // classes of a confusion matrix: 32 MB
	maxMistakes  = 16
	maxSpread    = 12
)

// score is the one that --metrics chooses.
func (e *evaluation) score(d2l bool) score {
	if d2l {
		return e.d2l
	}
	return e.exact
}

// evaluateAloud is evaluate with progress for people.
func (a *app) evaluateAloud(s *runtime.Session, l *loaders) (*evaluation, error) {
	p := newProgress(a.err)
	defer p.clear()
	p.start("validation", l.val.Batches())
	return evaluateWith(s, l, func(samples int, loss float64) {
		p.step(loss)
		p.slowLine(a.err, fmt.Sprintf("validation: %s of %s samples  loss %.4f", comma(int64(samples)), comma(int64(l.Val.Len())), loss))
	})
}

// evaluate runs the validation part through the model, without dropout.
func evaluate(s *runtime.Session, l *loaders) (*evaluation, error) {
	return evaluateWith(s, l, func(int, float64) {})
}

// evaluateWith is evaluate; after each batch it calls after with the number of
// samples done and their mean loss.
func evaluateWith(s *runtime.Session, l *loaders, after func(samples int, loss float64)) (*evaluation, error) {
	classes := s.Model().Classes
	e := &evaluation{perClass: make([]int, classes), correct: make([]int, classes), every: max(1, l.Val.Len()/maxSpread)}
	if classes <= maxConfusion {
		e.confusion = make([][]int, classes)
		cells := make([]int, classes*classes)
		for k := range e.confusion {
			e.confusion[k] = cells[k*classes:][:classes]
		}
	}
	exact, d2l := meter{}, meter{d2l: true}
	for b, err := range l.valBatches() {
		if err != nil {
			return nil, err
		}
		n := b.Len()
		sum, correct, err := s.EvalSamples(b.Samples)
		if err != nil {
			return nil, err
		}
		logits, err := s.Logits(n)
		if err != nil {
			return nil, err
		}
		exact.add(sum, correct, n)
		d2l.add(sum, correct, n)
		for i := range n {
			guess, probability := likeliest(logits[i*classes:][:classes])
			e.add(mistake{b.numbers[i], int(b.labels[i]), guess, probability})
		}
		e.samples += n
		loss, _ := exact.result()
		after(e.samples, loss)
	}
	if e.samples == 0 {
		return nil, fmt.Errorf("%s: none of the %s validation samples can be read", l.Name, comma(int64(l.Val.Len())))
	}
	e.exact.loss, e.exact.accuracy = exact.result()
	e.d2l.loss, e.d2l.accuracy = d2l.result()
	return e, nil
}

// add counts a sample, which may well be no mistake.
func (e *evaluation) add(m mistake) {
	e.perClass[m.label]++
	if e.every > 0 && m.sample%e.every == 0 && len(e.spread) < maxSpread {
		e.spread = append(e.spread, m)
	}
	if e.confusion != nil {
		e.confusion[m.label][m.guess]++
	}
	if m.guess == m.label {
		e.correct[m.label]++
		return
	}
	// The first ones would be of one class only, where samples come class by
	// class.
	at := len(e.mistakes)
	for at > 0 && e.mistakes[at-1].probability < m.probability {
		at--
	}
	e.mistakes = slices.Insert(e.mistakes, at, m)
	e.mistakes = e.mistakes[:min(len(e.mistakes), maxMistakes)]
}

// names are the names of the first classes: of all that the data set has or that
// occur in the evaluation. A class that the data set does not name is called by
// its number.
func (e *evaluation) names(l *loaders) []string {
	names := slices.Clone(l.Val.Classes())
	used := len(names)
	for label, row := range e.confusion {
		for guess, n := range row {
			if n > 0 {
				used = max(used, label+1, guess+1)
			}
		}
	}
	if e.confusion == nil {
		used = len(e.perClass)
	}
	for k := len(names); k < used; k++ {
		names = append(names, strconv.Itoa(k))
	}
	return names
}

// tiles are the mistakes as pictures. One that cannot be read any more is left
// out: this is decoration.
func (e *evaluation) tiles(l *loaders) (tiles []report.Tile) {
	names, shape := e.names(l), l.Val.Shape()
	pixels := make([]uint8, shape[0]*shape[1]*shape[2])
	for _, m := range e.mistakes {
		if _, err := l.Val.Sample(m.sample, pixels); err != nil {
			continue
		}
		tiles = append(tiles, report.Tile{
			Picture: report.Pixels(shape, slices.Clone(pixels)),
			Lines:   [2]string{"true: " + names[m.label], fmt.Sprintf("guess: %s (%.0f %%)", names[m.guess], 100*m.probability)},
		})
	}
	return tiles
}

// likeliest is the class with the largest logit, the lowest one on a tie, and
// its softmax.
func likeliest(logits []float32) (class int, probability float64) {
	for k, v := range logits {
		if v > logits[class] {
			class = k
		}
	}
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v) - float64(logits[class]))
	}
	return class, 1 / sum
}
