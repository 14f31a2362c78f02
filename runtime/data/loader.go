package data

import (
	"iter"
	"sync"

	"github.com/vitgen/vitgen/runtime/rng"
)

// Batch is some normalized images with their labels. Its memory is used again
// for a later batch.
type Batch struct {
	Images []float32 // [N, C, H, W]
	Labels []int32   // [N]
}

// Len is the number of samples.
func (b *Batch) Len() int { return len(b.Labels) }

// Loader hands out a data set in batches of a fixed size; the last one of an
// epoch is what remains. The batches depend on the seed and the epoch only.
type Loader struct {
	Data      Dataset
	Normalize *Normalizer
	Batch     int
	Shuffle   bool
	Seed      uint64
	Workers   int // goroutines that prepare batches; 0: 1
}

// ahead is the number of batches each worker may have ready.
const ahead = 2

// Batches is the number of batches in an epoch.
func (l *Loader) Batches() int { return (l.Data.Len() + l.Batch - 1) / l.Batch }

// Epoch yields the batches of an epoch, numbered from 0. They are prepared
// ahead by goroutines that end when the loop does. A batch is valid until the
// loop's next turn.
func (l *Loader) Epoch(epoch int) iter.Seq[*Batch] {
	return func(yield func(*Batch) bool) {
		order := l.Order(epoch)
		workers := max(1, min(l.Workers, l.Batches()))
		done := make(chan struct{})
		var wg sync.WaitGroup
		defer wg.Wait()
		defer close(done)

		// Worker w prepares batches w, w+workers, … in order, so reading the
		// workers in turn restores the order without any sorting.
		ready, free := make([]chan *Batch, workers), make([]chan *Batch, workers)
		for w := range workers {
			ready[w], free[w] = make(chan *Batch, ahead), make(chan *Batch, ahead+1)
			for range ahead + 1 {
				free[w] <- &Batch{}
			}
			wg.Go(func() { l.prepare(order, w, workers, ready[w], free[w], done) })
		}
		for b := range l.Batches() {
			batch := <-ready[b%workers]
			if !yield(batch) {
				return
			}
			free[b%workers] <- batch
		}
	}
}

// prepare fills batches w, w+step, … of the order.
func (l *Loader) prepare(order []int, w, step int, ready chan<- *Batch, free <-chan *Batch, done <-chan struct{}) {
	image := make([]uint8, pixels(l.Data))
	for b := w; b < l.Batches(); b += step {
		var batch *Batch
		select {
		case batch = <-free:
		case <-done:
			return
		}
		l.fill(batch, order[b*l.Batch:min((b+1)*l.Batch, len(order))], image)
		select {
		case ready <- batch:
		case <-done:
			return
		}
	}
}

// fill makes a batch of the samples given.
func (l *Loader) fill(b *Batch, samples []int, image []uint8) {
	n := len(image)
	if cap(b.Labels) < len(samples) {
		b.Images, b.Labels = make([]float32, l.Batch*n), make([]int32, l.Batch)
	}
	b.Images, b.Labels = b.Images[:len(samples)*n], b.Labels[:len(samples)]
	for i, s := range samples {
		b.Labels[i] = int32(l.Data.Sample(s, image))
		l.Normalize.Apply(b.Images[i*n:][:n], image)
	}
}

// Order is the epoch's sequence of samples, whose batches Epoch yields.
func (l *Loader) Order(epoch int) []int {
	n := l.Data.Len()
	if l.Shuffle {
		return rng.NewIndexed(l.Seed, "shuffle", epoch).Perm(n)
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	return order
}
