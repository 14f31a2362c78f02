package data

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vitgen/vitgen/runtime"
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
	order   []int
	vary    *augmenter
	crops   cropper // nil: samples are whole images
	free    chan *slot
	started chan *slot // batches in order, in the making or ready
	jobs    chan job
	done    chan struct{}
	wg      sync.WaitGroup
}

// slot is the memory of a batch with the state of its making.
type slot struct {
	batch  Batch
	first  int // position of its first sample in the epoch's order
	mixing mixing
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
		l: l, order: l.Order(epoch), vary: newAugmenter(l.Augment, l.Seed, epoch),
		free: make(chan *slot, readyBatches+1), started: make(chan *slot, readyBatches+1),
		jobs: make(chan job), done: make(chan struct{}),
	}
	if l.Augment.ResizedCrop != (runtime.ResizedCrop{}) {
		f.crops = croppable(l.Data)
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
		f.prepare(s, b, first, n)
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

// prepare makes room for batch number b, of n samples.
func (f *feed) prepare(s *slot, b, first, n int) {
	shape := f.l.Data.Shape()
	s.first, s.err = first, nil
	s.mixing = f.vary.mixing(b, shape[1], shape[2])
	s.kept, s.errs = sized(s.kept, n), sized(s.errs, n)
	clear(s.errs)
	s.batch.Images = sized(s.batch.Images, n*pixels(f.l.Data))
	s.batch.Labels, s.batch.Numbers = sized(s.batch.Labels, n), sized(s.batch.Numbers, n)
	if s.mixing.on {
		s.batch.Labels2, s.batch.Mix = sized(s.batch.Labels2, n), sized(s.batch.Mix, n)
	}
}

// sized is a slice of n elements, in the same memory if it has room for them.
func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// work does jobs until there are no more or the loop is over.
func (f *feed) work() {
	image := make([]uint8, pixels(f.l.Data))
	for j := range f.jobs {
		n := len(j.slot.kept)
		for i := j.lo; i < j.hi; i++ {
			partner := n - 1 - i
			f.sample(j.slot, i, image)
			if partner != i {
				f.sample(j.slot, partner, image)
			}
			f.mix(j.slot, i, partner, len(image))
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
	to := s.batch.Images[i*len(image):][:len(image)]
	if top, left, flip := f.vary.move(s.first + i); top != 0 || left != 0 || flip {
		f.l.Normalize.ApplyMoved(to, image, top, left, flip)
	} else {
		f.l.Normalize.Apply(to, image)
	}
}

// mix mixes two samples that were made, each with the other, if the batch is to
// be. A sample whose partner was left out, or is itself, stays as it is.
func (f *feed) mix(s *slot, i, partner, elems int) {
	if !s.mixing.on {
		return
	}
	b := &s.batch
	b.Mix[i], b.Mix[partner] = float32(s.mixing.keep), float32(s.mixing.keep)
	b.Labels2[i], b.Labels2[partner] = b.Labels[i], b.Labels[partner]
	if i == partner || !s.kept[i] || !s.kept[partner] {
		return
	}
	b.Labels2[i], b.Labels2[partner] = b.Labels[partner], b.Labels[i]
	s.mixing.mix(b.Images[i*elems:][:elems], b.Images[partner*elems:][:elems], f.l.Data.Shape())
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
		if label, err = f.stored(number, position, image); err == nil {
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

// stored reads a sample, or the part of it that the position asks for.
func (f *feed) stored(number, position int, image []uint8) (label int, err error) {
	if f.crops == nil {
		return f.l.Data.Sample(number, image)
	}
	return f.crops.sampleCrop(number, image, func(h, w int) box { return f.vary.crop(position, h, w) })
}

// finish closes the gaps of samples left out; elems is the size of an image.
func (s *slot) finish(elems int) {
	for _, err := range s.errs {
		if err != nil {
			s.err = err
			return
		}
	}
	b, n := &s.batch, 0
	for i, kept := range s.kept {
		if !kept {
			continue
		}
		if n < i {
			copy(b.Images[n*elems:][:elems], b.Images[i*elems:][:elems])
			b.Labels[n], b.Numbers[n] = b.Labels[i], b.Numbers[i]
			if s.mixing.on {
				b.Labels2[n], b.Mix[n] = b.Labels2[i], b.Mix[i]
			}
		}
		n++
	}
	b.Images, b.Labels, b.Numbers = b.Images[:n*elems], b.Labels[:n], b.Numbers[:n]
	if s.mixing.on {
		b.Labels2, b.Mix = b.Labels2[:n], b.Mix[:n]
	}
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
