package trainer

import (
	"math"

	"github.com/vitgen/vitgen/runtime"
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
	mistakes  []mistake // the first maxMistakes samples classified wrongly
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
)

// score is the one that --metrics chooses.
func (e *evaluation) score(d2l bool) score {
	if d2l {
		return e.d2l
	}
	return e.exact
}

// evaluate runs the validation part through the model, without dropout.
func evaluate(s *runtime.Session, l *loaders) (*evaluation, error) {
	return evaluateWith(s, l, func(int, float64) {})
}

// evaluateWith is evaluate; after each batch it calls after with the number of
// samples done and their mean loss.
func evaluateWith(s *runtime.Session, l *loaders, after func(samples int, loss float64)) (*evaluation, error) {
	classes := s.Model().Classes
	e := &evaluation{perClass: make([]int, classes), correct: make([]int, classes)}
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
	e.exact.loss, e.exact.accuracy = exact.result()
	e.d2l.loss, e.d2l.accuracy = d2l.result()
	return e, nil
}

// add counts a sample, which may well be no mistake.
func (e *evaluation) add(m mistake) {
	e.perClass[m.label]++
	if e.confusion != nil {
		e.confusion[m.label][m.guess]++
	}
	if m.guess == m.label {
		e.correct[m.label]++
	} else if len(e.mistakes) < maxMistakes {
		e.mistakes = append(e.mistakes, m)
	}
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
