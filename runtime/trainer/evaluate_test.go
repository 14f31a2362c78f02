package trainer

import (
	"cmp"
	"errors"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/data"
)

// near reports whether a number computed from float32 losses is the float64 one.
func near(got, want float64) bool { return math.Abs(got-want) <= 1e-5*math.Abs(want) }

// trained is a session with some training on the digits behind it, and the data.
func trained(t *testing.T, m *runtime.Model) (*runtime.Session, *loaders) {
	t.Helper()
	dir := t.TempDir()
	mustRun(t, m, "train", "--out", dir)
	s, err := runtime.NewSession(m, runtime.Options{Device: "cpu", Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Load(filepath.Join(dir, "last.safetensors")); err != nil {
		t.Fatal(err)
	}
	from := source{}
	sets, err := from.load(m, 1)
	if err != nil {
		t.Fatal(err)
	}
	return s, sets
}

// TestEvaluate computes everything again, sample by sample and in float64.
func TestEvaluate(t *testing.T) {
	m := digits(32, runtime.Train{Epochs: 1, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.1}})
	s, sets := trained(t, m)
	progress := []int{}
	e, err := evaluateWith(s, sets, func(samples int, loss float64) {
		progress = append(progress, samples)
		if math.IsNaN(loss) {
			t.Errorf("after %d samples the mean loss is %g", samples, loss)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	n := sets.Val.Len() // 355: eleven batches of 32 and one of 3
	want := evaluation{samples: n, perClass: make([]int, 10), correct: make([]int, 10), confusion: make([][]int, 10)}
	for k := range want.confusion {
		want.confusion[k] = make([]int, 10)
	}
	var lossOf, correctOf []float64
	pixels, image := make([]uint8, 64), make([]float32, 64)
	for i := range n {
		label, err := sets.Val.Sample(i, pixels)
		if err != nil {
			t.Fatal(err)
		}
		sets.val.Normalize.Apply(image, pixels)
		logits, err := s.Forward(image, 1)
		if err != nil {
			t.Fatal(err)
		}
		sum, guess := 0.0, 0
		for k, z := range logits {
			sum += math.Exp(float64(z))
			if z > logits[guess] {
				guess = k
			}
		}
		lossOf, correctOf = append(lossOf, math.Log(sum)-float64(logits[label])), append(correctOf, 0)
		want.perClass[label]++
		want.confusion[label][guess]++
		if guess == label {
			want.correct[label]++
			correctOf[i] = 1
		} else {
			want.mistakes = append(want.mistakes, mistake{i, label, guess, math.Exp(float64(logits[guess])) / sum})
		}
	}
	slices.SortStableFunc(want.mistakes, func(a, b mistake) int { return cmp.Compare(b.probability, a.probability) })
	want.mistakes = want.mistakes[:maxMistakes]
	mean := func(v []float64) float64 {
		sum := 0.0
		for _, x := range v {
			sum += x
		}
		return sum / float64(len(v))
	}
	batchMeans := func(v []float64) (means []float64) {
		for lo := 0; lo < n; lo += 32 {
			means = append(means, mean(v[lo:min(lo+32, n)]))
		}
		return means
	}
	want.exact = score{mean(lossOf), mean(correctOf)}
	want.d2l = score{mean(batchMeans(lossOf)), mean(batchMeans(correctOf))}
	if want.exact.accuracy == want.d2l.accuracy || len(want.mistakes) != maxMistakes {
		t.Fatal("the test tells nothing apart")
	}

	for _, c := range []struct {
		name      string
		got, want score
	}{{"exact", e.exact, want.exact}, {"d2l", e.d2l, want.d2l}, {"chosen d2l", e.score(true), want.d2l}, {"chosen exact", e.score(false), want.exact}} {
		if !near(c.got.loss, c.want.loss) || !near(c.got.accuracy, c.want.accuracy) {
			t.Errorf("%s: %+v, want %+v", c.name, c.got, c.want)
		}
	}
	if e.samples != n || !reflect.DeepEqual(e.perClass, want.perClass) || !reflect.DeepEqual(e.correct, want.correct) || !reflect.DeepEqual(e.confusion, want.confusion) {
		t.Errorf("%d samples, classes %v, correct %v, confusion\n%v\nwant %d, %v, %v\n%v",
			e.samples, e.perClass, e.correct, e.confusion, n, want.perClass, want.correct, want.confusion)
	}
	if len(e.mistakes) != maxMistakes {
		t.Fatalf("%d mistakes", len(e.mistakes))
	}
	for i, got := range e.mistakes {
		w := want.mistakes[i]
		if !near(got.probability, w.probability) {
			t.Errorf("mistake %d: probability %g, want %g", i, got.probability, w.probability)
		}
		if got.probability = w.probability; got != w {
			t.Errorf("mistake %d is %+v, want %+v", i, got, w)
		}
	}
	if len(progress) != 12 || progress[0] != 32 || progress[11] != n {
		t.Errorf("progress was told after %v samples", progress)
	}
}

// partly is a data set with a sample that cannot be read, or with none that can.
type partly struct {
	data.Dataset
	broken int
}

func (p partly) Sample(i int, pixels []uint8) (int, error) {
	if i == p.broken || p.broken < 0 {
		return 0, errors.New("sample cannot be read")
	}
	return p.Dataset.Sample(i, pixels)
}

// TestEvaluateBroken: what cannot be read is left out of every number, and the
// samples behind it keep theirs.
func TestEvaluateBroken(t *testing.T) {
	m := digits(32, runtime.Train{Epochs: 1, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.1}})
	s, sets := trained(t, m)
	whole, err := evaluate(s, sets)
	if err != nil {
		t.Fatal(err)
	}
	first := whole.mistakes[0]
	sets.val.Data = partly{sets.val.Data, first.sample}
	e, err := evaluate(s, sets)
	if err != nil {
		t.Fatal(err)
	}
	n := float64(whole.samples)
	if e.samples != whole.samples-1 || !near(e.exact.accuracy, whole.exact.accuracy*n/(n-1)) ||
		e.perClass[first.label] != whole.perClass[first.label]-1 || e.confusion[first.label][first.guess] != whole.confusion[first.label][first.guess]-1 {
		t.Errorf("without one of them: %+v, with it %+v", e, whole)
	}
	if !reflect.DeepEqual(e.mistakes[:maxMistakes-1], whole.mistakes[1:]) {
		t.Errorf("mistakes %v, with the sample %v", e.mistakes, whole.mistakes)
	}
	result := (&app{model: m}).evalResult(e, s, sets, "exact")
	var text strings.Builder
	result.print(&text, e)
	if result.Skipped != 1 || !strings.Contains(text.String(), "354 validation samples, and 1 that cannot be read\n") {
		t.Errorf("%d samples were skipped; the text is\n%s", result.Skipped, text.String())
	}
	sets.val.Data = partly{sets.Val, -1}
	if _, err := evaluate(s, sets); err == nil || !strings.Contains(err.Error(), "none of the 355 validation samples can be read") {
		t.Errorf("with no sample: %v", err)
	}
	sets.val.Strict = true
	sets.val.Data = partly{sets.Val, 77}
	if _, err := evaluate(s, sets); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("strict: %v", err)
	}
}

// With too many classes for a matrix the rest is counted all the same.
func TestEvaluateManyClasses(t *testing.T) {
	const classes = maxConfusion + 1
	e := evaluation{perClass: make([]int, classes), correct: make([]int, classes)}
	e.add(mistake{0, 2000, 2000, 0.5})
	e.add(mistake{1, 2000, 7, 0.5})
	if e.perClass[2000] != 2 || e.correct[2000] != 1 || len(e.mistakes) != 1 || e.confusion != nil {
		t.Errorf("%+v", e)
	}
}

func TestLikeliest(t *testing.T) {
	for _, c := range []struct {
		logits      []float32
		class       int
		probability float64
	}{
		{[]float32{7}, 0, 1},
		{[]float32{1, 3, 3, 2}, 1, 1 / (math.Exp(-2) + 2 + math.Exp(-1))},
		{[]float32{-1000, 1000, 1000}, 1, 0.5},
	} {
		if class, p := likeliest(c.logits); class != c.class || math.Abs(p-c.probability) > 1e-15 {
			t.Errorf("%v: class %d with probability %g, want %d with %g", c.logits, class, p, c.class, c.probability)
		}
	}
	if _, p := likeliest([]float32{1, float32(math.NaN())}); !math.IsNaN(p) {
		t.Errorf("the probability among NaN is %g", p)
	}
}

// TestResidentLabels: a data set on the device is named by numbers; its labels
// are those noted while it was uploaded.
func TestResidentLabels(t *testing.T) {
	m := digits(32, runtime.Train{})
	from := source{}
	sets, err := from.load(m, 1)
	if err != nil {
		t.Fatal(err)
	}
	sets.resident, sets.valLabels = true, make([]int32, sets.Val.Len())
	j := joined{sets.Train, sets.Val, sets.valLabels}
	pixels := make([]uint8, 64)
	for i := range j.Len() {
		if _, err := j.Sample(i, pixels); err != nil {
			t.Fatal(err)
		}
	}
	at := 0
	for b, err := range sets.valBatches() {
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Len() {
			if want, _ := sets.Val.Sample(at, pixels); b.numbers[i] != at || int(b.labels[i]) != want || int(b.Index[i]) != sets.Train.Len()+at {
				t.Fatalf("sample %d (%d on the device) with label %d, want %d with %d", b.numbers[i], b.Index[i], b.labels[i], at, want)
			}
			at++
		}
	}
	if at != sets.Val.Len() {
		t.Errorf("%d samples", at)
	}
}
