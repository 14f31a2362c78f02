package data

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// readyBatches is how many batches may be ready, or in the making, while the
// consumer works with another one.
const readyBatches = 3

// standIns is how many samples in a row may be unreadable in training before
// that is an error.
const standIns = 1000

// feed prepares the batches of an epoch for one loop. A dispatcher takes a free
// slot for each batch in turn and deals the batch out in jobs; workers do the
// jobs, of one batch before those of the next. So all workers are on the batch
// that is needed first, and the batches come in order without any sorting.
type feed struct {
	l       *Loader
	epoch   int
	order   []int
	free    chan *slot
	started chan *slot // batches in order, in the making or ready
	jobs    chan job
	done    chan struct{}
	wg      sync.WaitGroup
}

// slot is the memory of a batch with the state of its making.
type slot struct {
	batch  Batch
	first  int           // position of its first sample in the epoch's order
	kept   []bool        // of each sample: it could be read
	errs   []error       // of each sample, if that is fatal
	undone atomic.Int32  // jobs
	ready  chan struct{} // receives one signal for each batch made
	err    error
}

// job is the making of samples lo … hi-1 of a batch, and of their partners:
// the partner of sample i of n is sample n-1-i, with which it may be mixed.
type job struct {
	slot   *slot
	lo, hi int
}

func (l *Loader) startFeed(epoch, from int) *feed {
	workers := l.workers()
	f := &feed{
		l: l, epoch: epoch, order: l.Order(epoch),
		free: make(chan *slot, readyBatches+1), started: make(chan *slot, readyBatches+1),
		jobs: make(chan job), done: make(chan struct{}),
	}
	for range readyBatches + 1 {
		f.free <- l.spare.take()
	}
	f.wg.Go(func() { f.dispatch(from, workers) })
	for range workers {
		f.wg.Go(f.work)
	}
	return f
}

// stop ends the goroutines and gives the slots back.
func (f *feed) stop() {
	close(f.done)
	f.wg.Wait()
	for {
		select {
		case s := <-f.started:
			f.l.spare.give(s)
		case s := <-f.free:
			f.l.spare.give(s)
		default:
			return
		}
	}
}

// next waits for the next batch.
func (f *feed) next() *slot {
	begin := time.Now()
	s := <-f.started
	<-s.ready
	f.l.waited.Add(int64(time.Since(begin)))
	return s
}

// dispatch deals out the batches from number from on.
func (f *feed) dispatch(from, workers int) {
	defer close(f.jobs)
	for b := from; b < f.l.Batches(); b++ {
		var s *slot
		select {
		case s = <-f.free:
		case <-f.done:
			return
		}
		first := b * f.l.Batch
		n := min(f.l.Batch, len(f.order)-first)
		f.l.prepare(s, first, n)
		pairs := (n + 1) / 2
		// Several jobs for each worker, as pictures differ in size.
		size := max(1, pairs/(4*workers))
		s.undone.Store(int32((pairs + size - 1) / size))
		f.started <- s
		for lo := 0; lo < pairs; lo += size {
			select {
			case f.jobs <- job{s, lo, min(lo+size, pairs)}:
			case <-f.done:
				return
			}
		}
	}
}

// prepare makes room for a batch of n samples.
func (l *Loader) prepare(s *slot, first, n int) {
	per := pixels(l.Data)
	if cap(s.kept) < n {
		most := min(l.Batch, l.Data.Len())
		s.batch.Images, s.batch.Labels, s.batch.Numbers = make([]float32, most*per), make([]int32, most), make([]int, most)
		s.kept, s.errs = make([]bool, most), make([]error, most)
	}
	s.batch.Images, s.batch.Labels, s.batch.Numbers = s.batch.Images[:n*per], s.batch.Labels[:n], s.batch.Numbers[:n]
	s.kept, s.errs = s.kept[:n], s.errs[:n]
	s.first, s.err = first, nil
	clear(s.errs)
}

// work does jobs until there are no more or the loop is over.
func (f *feed) work() {
	image := make([]uint8, pixels(f.l.Data))
	for j := range f.jobs {
		n := len(j.slot.kept)
		for i := j.lo; i < j.hi; i++ {
			f.sample(j.slot, i, image)
			if partner := n - 1 - i; partner != i {
				f.sample(j.slot, partner, image)
			}
			select {
			case <-f.done:
				return
			default:
			}
		}
		if j.slot.undone.Add(-1) == 0 {
			j.slot.finish(len(image))
			j.slot.ready <- struct{}{}
		}
	}
}

// sample makes sample i of a batch.
func (f *feed) sample(s *slot, i int, image []uint8) {
	number, label, err := f.read(s.first+i, image)
	s.kept[i] = err == nil
	if err != nil {
		if f.l.Strict || f.l.Shuffle {
			s.errs[i] = err
		}
		return
	}
	s.batch.Labels[i], s.batch.Numbers[i] = int32(label), number
	f.l.Normalize.Apply(s.batch.Images[i*len(image):][:len(image)], image)
}

// read reads the sample at a position of the epoch's order, or in training, if
// that is unreadable, the next one of the order that is not; number is which
// one it was.
func (f *feed) read(position int, image []uint8) (number, label int, err error) {
	tries := 1
	if f.l.Shuffle && !f.l.Strict {
		tries = min(len(f.order), standIns)
	}
	for k := range tries {
		number = f.order[(position+k)%len(f.order)]
		if err = f.l.broken.has(number); err != nil {
			continue
		}
		if label, err = f.l.Data.Sample(number, image); err == nil {
			return number, label, nil
		}
		if !f.l.Strict {
			f.l.broken.add(number, err, f.l.Warn)
		}
	}
	if tries > 1 {
		err = fmt.Errorf("none of %d samples in a row can be read; the last one: %w", tries, err)
	}
	return 0, 0, err
}

// finish closes the gaps of samples left out; elems is the size of an image.
func (s *slot) finish(elems int) {
	for _, err := range s.errs {
		if err != nil {
			s.err = err
			return
		}
	}
	n := 0
	for i, kept := range s.kept {
		if !kept {
			continue
		}
		if n < i {
			s.batch.Labels[n], s.batch.Numbers[n] = s.batch.Labels[i], s.batch.Numbers[i]
			copy(s.batch.Images[n*elems:][:elems], s.batch.Images[i*elems:][:elems])
		}
		n++
	}
	s.batch.Images, s.batch.Labels, s.batch.Numbers = s.batch.Images[:n*elems], s.batch.Labels[:n], s.batch.Numbers[:n]
}

// spareSlots keeps the memory of batches from one epoch to the next.
type spareSlots struct {
	mu    sync.Mutex
	slots []*slot
}

func (p *spareSlots) take() *slot {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.slots); n > 0 {
		s := p.slots[n-1]
		p.slots = p.slots[:n-1]
		return s
	}
	return &slot{ready: make(chan struct{}, 1)}
}

// give takes back a slot, whatever state its making was left in.
func (p *spareSlots) give(s *slot) {
	select {
	case <-s.ready:
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slots = append(p.slots, s)
}
