package data

import (
	"fmt"
	"iter"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/rng"
)

// Batch is some normalized images with their labels. Its memory is used again
// for a later batch.
type Batch struct {
	Images  []float32 // [N, C, H, W]
	Labels  []int32   // [N]
	Numbers []int     // [N]; which samples of the Loader's Data they are

	// Labels2 and Mix are nil unless the batch is mixed: sample i then counts
	// Mix[i] for Labels[i] and 1-Mix[i] for Labels2[i].
	Labels2 []int32   // [N]
	Mix     []float32 // [N]
}

// Len is the number of samples.
func (b *Batch) Len() int { return len(b.Labels) }

// Loader hands out a data set in batches of a fixed size; the last one of an
// epoch is what remains. The batches depend on the seed, the epoch and their
// place in it only, not on the number of workers.
//
// A sample that cannot be read is left out with a warning. Where samples are
// shuffled, for training, the next one that can be read takes its place, so
// that no batch is smaller than it should be; else its batch is one smaller.
type Loader struct {
	Data      Dataset
	Normalize *Normalizer
	Batch     int
	Shuffle   bool
	Seed      uint64
	Augment   runtime.Augment   // how samples are varied; for training
	Workers   int               // goroutines that prepare samples; 0: one for each CPU
	Strict    bool              // a sample that cannot be read is an error
	Warn      func(text string) // is told of samples left out; nil: nobody is

	waited atomic.Int64 // nanoseconds
	broken brokenSamples
	spare  spareSlots
}

// Batches is the number of batches in an epoch.
func (l *Loader) Batches() int { return (l.Data.Len() + l.Batch - 1) / l.Batch }

// Waited is how long loops over Epoch have waited for their batches, all
// together, since the Loader was made. It may be asked at any time.
func (l *Loader) Waited() time.Duration { return time.Duration(l.waited.Load()) }

// Skipped is the number of samples that could not be read so far.
func (l *Loader) Skipped() int { return l.broken.count() }

// Epoch yields the batches of an epoch from number from on, counted from 0.
// They are prepared ahead, up to readyBatches of them, by goroutines that end
// when the loop does. A batch is valid until the loop's next turn. An error is
// the last thing yielded, with a nil batch.
func (l *Loader) Epoch(epoch, from int) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		if from < 0 || from > l.Batches() {
			yield(nil, fmt.Errorf("BUG: batch %d of an epoch of %d", from, l.Batches()))
			return
		}
		f := l.startFeed(epoch, from)
		defer f.stop()
		for range l.Batches() - from {
			s := f.next()
			if s.err != nil {
				yield(nil, s.err)
				return
			}
			// A batch whose every sample was left out is none.
			if s.batch.Len() > 0 && !yield(&s.batch, nil) {
				return
			}
			f.free <- s
		}
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

func (l *Loader) workers() int {
	if l.Workers > 0 {
		return l.Workers
	}
	return goruntime.GOMAXPROCS(0)
}

// brokenSamples are the samples found unreadable, each with its reason.
type brokenSamples struct {
	mu      sync.Mutex
	reasons map[int]error
}

// maxWarnings is how many samples are complained of one by one.
const maxWarnings = 10

// has is the reason why a sample is known to be unreadable, or nil.
func (b *brokenSamples) has(sample int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reasons[sample]
}

func (b *brokenSamples) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.reasons)
}

// add notes a sample, and warns if it is new. The warning is given with the
// lock held, so that Warn need not expect several calls at once.
func (b *brokenSamples) add(sample int, reason error, warn func(string)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reasons[sample] != nil {
		return
	}
	if b.reasons == nil {
		b.reasons = map[int]error{}
	}
	b.reasons[sample] = reason
	if warn != nil && len(b.reasons) <= maxWarnings {
		warn(leftOut(len(b.reasons), reason))
	}
}

// leftOut is the warning about broken picture number n.
func leftOut(n int, reason error) string {
	text := fmt.Sprintf("%v; left out (%d so far)", reason, n)
	if n == maxWarnings {
		text += "; more will be counted without a word"
	}
	return text
}
