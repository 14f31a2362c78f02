package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vitgen/vitgen/runtime"
)

// echo answers an image of one number with classes from that number on, so
// that mixed answers show, and notes the batches.
type echo struct {
	mu      sync.Mutex
	batches []int
	takes   time.Duration
	err     error
}

func (e *echo) predict(images []float32, k int) ([][]runtime.Prediction, error) {
	time.Sleep(e.takes)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.batches = append(e.batches, len(images))
	var all [][]runtime.Prediction
	for _, x := range images {
		var top []runtime.Prediction
		for i := range k {
			top = append(top, runtime.Prediction{Class: int(x) + i})
		}
		all = append(all, top)
	}
	return all, e.err
}

func (e *echo) wantBatches(t *testing.T, want ...int) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Equal(e.batches, want) {
		t.Errorf("batches of %v, want %v", e.batches, want)
	}
}

func (e *echo) batcher(queue int) *batcher {
	b := &batcher{predict: e.predict, size: 4, wait: 5 * time.Millisecond, done: func(int) {}}
	b.start(queue)
	return b
}

// send classifies the images from … to-1 at once and returns when all are
// answered.
func send(t *testing.T, b *batcher, from, to int) {
	t.Helper()
	var group sync.WaitGroup
	for i := from; i < to; i++ {
		group.Go(func() {
			k := 1 + i%3
			got, err := b.classify(t.Context(), []float32{float32(i)}, k)
			if err != nil || len(got) != k || got[0].Class != i || got[k-1].Class != i+k-1 {
				t.Errorf("image %d, top %d: %v, %v", i, k, got, err)
			}
		})
	}
	group.Wait()
}

// TestBatches: an image waits for others, a full batch for nobody, and who
// comes while a batch is computed is in the next one.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &echo{takes: 100 * time.Millisecond}
		b := e.batcher(10)
		defer b.close()
		start := time.Now()
		send(t, b, 0, 1)
		if took := time.Since(start); took != 105*time.Millisecond {
			t.Errorf("one image took %v", took)
		}
		start = time.Now()
		send(t, b, 10, 14)
		if took := time.Since(start); took != 100*time.Millisecond {
			t.Errorf("a full batch took %v", took)
		}
		send(t, b, 20, 30)
		e.wantBatches(t, 1, 4, 4, 4, 2)
	})
}

// TestBatcherRefuses: a full queue at once, an image that nobody waits for
// without computing it, and everything after the end.
func TestBatcherRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &echo{takes: time.Second}
		b := e.batcher(2)
		for i := range 4 {
			go send(t, b, i, i+1)
			synctest.Wait()
		}
		time.Sleep(500 * time.Millisecond) // the four are being computed
		impatient, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		go func() {
			if _, err := b.classify(impatient, []float32{50}, 1); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("an image out of time: %v", err)
			}
		}()
		go send(t, b, 60, 61)
		synctest.Wait()
		if _, err := b.classify(t.Context(), []float32{70}, 1); err != errBusy {
			t.Errorf("a third image in a queue of two: %v", err)
		}
		time.Sleep(2 * time.Second)
		e.wantBatches(t, 4, 1)

		e.err = errors.New("no such luck")
		if _, err := b.classify(t.Context(), []float32{1}, 1); err != e.err {
			t.Errorf("a model that fails: %v", err)
		}

		// The end: who is computed is answered, who is queued is told.
		e.err = nil
		ends := make(chan string, 2)
		for i := range 2 {
			go func() {
				time.Sleep(time.Duration(i) * 200 * time.Millisecond)
				_, err := b.classify(t.Context(), []float32{1}, 1)
				ends <- fmt.Sprint(err)
			}()
		}
		time.Sleep(500 * time.Millisecond)
		b.close()
		if got := []string{<-ends, <-ends}; !slices.Contains(got, "<nil>") || !slices.Contains(got, errClosed.Error()) {
			t.Errorf("at the end: %q", got)
		}
		if _, err := b.classify(t.Context(), []float32{1}, 1); err != errClosed {
			t.Errorf("after the end: %v", err)
		}
	})
}
