package main

import (
	"context"
	"errors"
	"time"

	"github.com/vitgen/vitgen/runtime"
)

// batcher gathers images from many requests into batches: it waits for the
// first, then until the batch is full or some time has passed.
type batcher struct {
	predict func(images []float32, k int) ([][]runtime.Prediction, error)
	size    int           // images of a full batch
	wait    time.Duration // that an image may wait for others
	done    func(images int)

	queue   chan *job
	stop    chan struct{}
	stopped chan struct{}
}

// job is an image that waits for its answer.
type job struct {
	ctx    context.Context // done: nobody waits any more
	image  []float32
	top    int
	answer chan answer // of one place: the batcher never waits for a reader
}

type answer struct {
	top []runtime.Prediction
	err error
}

var (
	errBusy   = errors.New("the queue is full")
	errClosed = errors.New("the service is closed")
)

// start makes the batcher work. Its queue holds so many images besides those
// of the batch that is being computed.
func (b *batcher) start(queue int) {
	b.queue, b.stop, b.stopped = make(chan *job, queue), make(chan struct{}), make(chan struct{})
	go b.work()
}

// close answers what is queued with errClosed and ends the batcher.
func (b *batcher) close() {
	close(b.stop)
	<-b.stopped
}

// classify gives the k likeliest classes of an image. It fails at once if the
// queue is full, and when ctx is done.
func (b *batcher) classify(ctx context.Context, image []float32, k int) ([]runtime.Prediction, error) {
	j := &job{ctx: ctx, image: image, top: k, answer: make(chan answer, 1)}
	select {
	case b.queue <- j:
	default:
		return nil, errBusy
	}
	select {
	case a := <-j.answer:
		return a.top, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-b.stopped:
		select {
		case a := <-j.answer: // both: the answer counts
			return a.top, a.err
		default:
			return nil, errClosed
		}
	}
}

func (b *batcher) work() {
	defer close(b.stopped)
	for {
		select {
		case <-b.stop: // even if there is more to do
			return
		default:
		}
		select {
		case <-b.stop:
			return
		case first := <-b.queue:
			b.run(b.gather(first))
		}
	}
}

// gather adds to a first job what comes until the batch is full or time is up.
func (b *batcher) gather(first *job) []*job {
	batch := []*job{first}
	late := time.NewTimer(b.wait)
	defer late.Stop()
	for len(batch) < b.size {
		select {
		case j := <-b.queue:
			batch = append(batch, j)
		case <-late.C:
			return batch
		case <-b.stop:
			return batch
		}
	}
	return batch
}

// run computes a batch, without those for whom nobody waits, and hands out the
// answers.
func (b *batcher) run(batch []*job) {
	var images []float32
	var live []*job
	k := 0
	for _, j := range batch {
		if j.ctx.Err() == nil {
			live, images, k = append(live, j), append(images, j.image...), max(k, j.top)
		}
	}
	if len(live) == 0 {
		return
	}
	all, err := b.predict(images, k)
	for i, j := range live {
		if err != nil {
			j.answer <- answer{err: err}
			continue
		}
		j.answer <- answer{top: all[i][:min(j.top, len(all[i]))]}
	}
	b.done(len(live))
}
