package data

import (
	"errors"
	"fmt"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vitgen/vitgen/runtime"
)

// flaky is a data set whose samples can be unreadable, slow and counted.
type flaky struct {
	n      int
	broken func(i int) bool
	wait   func(i int)
	made   atomic.Int64
}

func (d *flaky) Len() int          { return d.n }
func (d *flaky) Shape() [3]int     { return [3]int{3, 6, 5} }
func (d *flaky) Classes() []string { return []string{"a", "b", "c", "d"} }

func (d *flaky) Sample(i int, p []uint8) (int, error) {
	d.made.Add(1)
	if d.wait != nil {
		d.wait(i)
	}
	if d.broken != nil && d.broken(i) {
		return 0, fmt.Errorf("file%d.png: truncated", i)
	}
	for j := range p {
		p[j] = uint8(i*7 + j*j)
	}
	return i % 4, nil
}

func flakyLoader(t *testing.T, d *flaky, batch int) *Loader {
	t.Helper()
	z, err := NewNormalizer(d.Shape(), []float64{0.4, 0.5, 0.6}, []float64{0.2})
	if err != nil {
		t.Fatal(err)
	}
	return &Loader{Data: d, Normalize: z, Batch: batch, Shuffle: true, Seed: 11}
}

// collect copies the batches of an epoch.
func collect(t *testing.T, l *Loader, epoch, from int) (all []Batch) {
	t.Helper()
	for b, err := range l.Epoch(epoch, from) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, Batch{slices.Clone(b.Images), slices.Clone(b.Labels), slices.Clone(b.Numbers), slices.Clone(b.Labels2), slices.Clone(b.Mix)})
	}
	return all
}

func equal(a, b Batch) bool {
	return slices.Equal(a.Images, b.Images) && slices.Equal(a.Labels, b.Labels) && slices.Equal(a.Numbers, b.Numbers) &&
		slices.Equal(a.Labels2, b.Labels2) && slices.Equal(a.Mix, b.Mix)
}

var everyAugment = runtime.Augment{
	ResizedCrop: runtime.ResizedCrop{Scale: [2]float64{0.3, 1}, Ratio: [2]float64{0.7, 1.4}},
	Padding:     2, Flip: 0.5, Mixup: 0.3, CutMix: 1,
}

// TestBatchesRepeat: batches are bit for bit the same whatever the workers, from
// any batch on, with samples that cannot be read among them; and they differ by
// epoch and seed.
func TestBatchesRepeat(t *testing.T) {
	for name, a := range map[string]runtime.Augment{"plain": {}, "moved": {Padding: 1, Flip: 0.5}, "everything": everyAugment} {
		d := &flaky{n: 53, broken: func(i int) bool { return i%9 == 4 }}
		l := flakyLoader(t, d, 8)
		l.Augment = a
		var want [2][]Batch
		for epoch := range want {
			l.Workers = 1
			want[epoch] = collect(t, l, epoch, 0)
			for _, workers := range []int{0, 2, 5} {
				fresh := flakyLoader(t, d, 8)
				fresh.Augment, fresh.Workers = a, workers
				for _, from := range []int{0, 1, 5, 6, 7} {
					if got := collect(t, fresh, epoch, from); !slices.EqualFunc(got, want[epoch][from:], equal) {
						t.Errorf("%s: %d workers, from batch %d: other batches", name, workers, from)
					}
				}
			}
		}
		if len(want[0]) != 7 || want[0][0].Len() != 8 || want[0][6].Len() != 5 {
			t.Errorf("%s: %d batches", name, len(want[0]))
		}
		other := flakyLoader(t, d, 8)
		other.Augment, other.Seed = a, 12
		if equal(want[0][0], want[1][0]) || equal(want[0][0], collect(t, other, 0, 0)[0]) {
			t.Errorf("%s: epoch or seed has no effect", name)
		}
		if (want[0][0].Labels2 != nil) != a.Mixes() || (want[0][0].Mix != nil) != a.Mixes() {
			t.Errorf("%s: second labels %v", name, want[0][0].Labels2)
		}
	}
	l := flakyLoader(t, &flaky{n: 5}, 2)
	for _, from := range []int{-1, 4} {
		for b, err := range l.Epoch(0, from) {
			if b != nil || err == nil {
				t.Errorf("from batch %d: %v", from, err)
			}
		}
	}
}

// TestMixedBatch composes a batch by hand from what the augmenter draws.
func TestMixedBatch(t *testing.T) {
	d := &flaky{n: 21}
	l := flakyLoader(t, d, 7)
	l.Augment = everyAugment
	a := newAugmenter(l.Augment, l.Seed, 3)
	order := l.Order(3)
	kinds := map[bool]bool{}
	for k, b := range collect(t, l, 3, 0) {
		m := a.mixing(k, 6, 5)
		kinds[m.cut] = true
		images := make([][]float32, 7)
		pixels := make([]uint8, 90)
		for i := range images {
			at := 7*k + i
			label, err := croppable(d).sampleCrop(order[at], pixels, func(h, w int) box { return a.crop(at, h, w) })
			if err != nil || int(b.Labels[i]) != label || b.Numbers[i] != order[at] || label != order[at]%4 {
				t.Fatalf("batch %d, sample %d: label %d, number %d, %v", k, i, b.Labels[i], b.Numbers[i], err)
			}
			images[i] = make([]float32, 90)
			top, left, flip := a.move(at)
			l.Normalize.ApplyMoved(images[i], pixels, top, left, flip)
		}
		for i := range 3 { // the fourth of seven is its own partner
			m.mix(images[i], images[6-i], d.Shape())
		}
		for i := range images {
			if !slices.Equal(b.Images[90*i:][:90], images[i]) || b.Labels2[i] != b.Labels[6-i] || b.Mix[i] != float32(m.keep) {
				t.Errorf("batch %d, sample %d is not what it should be", k, i)
			}
		}
	}
	if len(kinds) == 0 {
		t.Error("no batch")
	}
}

// TestBroken: in training another sample stands in, in validation there is one
// less, and strictly it is an error.
func TestBroken(t *testing.T) {
	d := &flaky{n: 40, broken: func(i int) bool { return i < 12 || i == 30 }}
	l := flakyLoader(t, d, 8)
	var mu sync.Mutex
	var warnings []string
	l.Warn = func(text string) {
		mu.Lock()
		defer mu.Unlock()
		warnings = append(warnings, text)
	}
	for epoch := range 2 {
		order := l.Order(epoch)
		for k, b := range collect(t, l, epoch, 0) {
			if b.Len() != 8 {
				t.Errorf("batch %d has %d samples", k, b.Len())
			}
			for i, n := range b.Numbers {
				at := 8*k + i
				for d.broken(order[at%40]) {
					at++
				}
				if n != order[at%40] || int(b.Labels[i]) != n%4 {
					t.Errorf("position %d: sample %d, want %d", 8*k+i, n, order[at%40])
				}
			}
		}
	}
	if l.Skipped() != 13 || len(warnings) != maxWarnings || !strings.HasSuffix(warnings[9], "left out (10 so far); more will be counted without a word") ||
		!strings.HasPrefix(warnings[0], "file") {
		t.Errorf("%d left out, warnings %q", l.Skipped(), warnings)
	}
	if made := int(d.made.Load()); made > 2*27+2*13*2+2*13 {
		t.Errorf("samples were made %d times: known ones should not be tried again", made)
	}

	l = flakyLoader(t, d, 8)
	l.Shuffle = false
	var numbers, sizes []int
	for _, b := range collect(t, l, 0, 0) {
		numbers, sizes = append(numbers, b.Numbers...), append(sizes, b.Len())
		for i, n := range b.Numbers {
			if int(b.Labels[i]) != n%4 || b.Images[90*i] != l.Normalize.table[0][uint8(7*n)] {
				t.Errorf("sample %d is not what it should be", n)
			}
		}
	}
	if !slices.Equal(sizes, []int{4, 8, 7, 8}) || slices.ContainsFunc(numbers, d.broken) || !slices.IsSorted(numbers) || len(numbers) != 27 {
		t.Errorf("validation has batches of %v: %v", sizes, numbers)
	}

	for _, shuffle := range []bool{false, true} {
		l = flakyLoader(t, d, 8)
		l.Shuffle, l.Strict = shuffle, true
		var last error
		for b, err := range l.Epoch(0, 0) {
			if last != nil || (b == nil) != (err != nil) {
				t.Error("an error is not the last thing")
			}
			last = err
		}
		if last == nil || !strings.Contains(last.Error(), ".png: truncated") || l.Skipped() != 0 {
			t.Errorf("strict: %v", last)
		}
	}

	l = flakyLoader(t, &flaky{n: 40, broken: func(int) bool { return true }}, 8)
	var last error
	for _, err := range l.Epoch(0, 0) {
		last = err
	}
	if last == nil || !strings.Contains(last.Error(), "none of 40 samples in a row can be read; the last one: file") {
		t.Errorf("nothing can be read: %v", last)
	}
	l.Shuffle = false
	if batches := collect(t, l, 0, 0); len(batches) != 0 || l.Skipped() != 40 {
		t.Errorf("nothing to validate with: %d batches, %d left out", len(batches), l.Skipped())
	}
}

// TestQueue: batches are made ahead, and not more of them than there is room
// for; the consumer's waiting is counted.
func TestQueue(t *testing.T) {
	gate := make(chan struct{})
	d := &flaky{n: 200, wait: func(int) { <-gate }}
	l := flakyLoader(t, d, 4)
	l.Workers = 3
	go func() {
		time.Sleep(20 * time.Millisecond)
		close(gate)
	}()
	for b, err := range l.Epoch(0, 0) {
		if err != nil {
			t.Fatal(err)
		}
		// Whatever the machine is busy with, this number is reached in the end.
		for deadline := time.Now().Add(20 * time.Second); d.made.Load() < 4*(readyBatches+1) && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(20 * time.Millisecond)
		if made := d.made.Load(); made != 4*(readyBatches+1) {
			t.Errorf("%d samples were made while the first batch of %d is in use", made, b.Len())
		}
		break
	}
	if w := l.Waited(); w < 15*time.Millisecond || w > 15*time.Second {
		t.Errorf("waited %v", w)
	}
}

// TestGoroutinesEnd: no goroutine outlives its loop, however that ends.
func TestGoroutinesEnd(t *testing.T) {
	before := goruntime.NumGoroutine()
	for i := range 30 {
		d := &flaky{n: 60, broken: func(n int) bool { return i%3 == 2 && n == 2*i }}
		l := flakyLoader(t, d, 7)
		l.Workers, l.Strict, l.Augment = 1+i%5, true, everyAugment
		k := 0
		func() {
			defer func() { _ = recover() }()
			for _, err := range l.Epoch(i, i%4) {
				if err != nil {
					if i%3 != 2 {
						t.Error(err)
					}
					break
				}
				if k++; k > i/2 && i%2 == 0 {
					break
				} else if k > i/2 {
					panic(errors.New("in the loop"))
				}
			}
		}()
	}
	for range 200 {
		if goruntime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, before it were %d", goruntime.NumGoroutine(), before)
}
