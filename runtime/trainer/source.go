package trainer

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/data"
)

// loaders are a data set in batches: made by the host, or, once the data set is
// resident, named by the numbers of their images.
type loaders struct {
	data.Split
	train, val *data.Loader
	resident   bool    // training images, then validation images, are on the device
	valLabels  []int32 // of the validation images on the device

	ctx context.Context // ends validation early; nil: nothing does
}

// skipped is the number of samples that could not be read so far.
func (l *loaders) skipped() int { return l.Skipped + l.train.Skipped() + l.val.Skipped() }

// upload puts the data set into the device's memory if there is a place for it.
// Augmented images differ in each epoch, and a picture file may turn out to be
// unreadable: such sets are sent from the host.
func (l *loaders) upload(a *app, s *runtime.Session) error {
	if !s.CanUpload() || l.train.Augment != (runtime.Augment{}) || l.Name == "image_folder" {
		return nil
	}
	labels := make([]int32, l.Val.Len())
	err := s.Upload(joined{l.Train, l.Val, labels}, l.train.Normalize.Table())
	var noRoom *runtime.ErrNoRoom
	if errors.As(err, &noRoom) {
		fmt.Fprintf(a.err, "%s: %v; batches are sent from the host\n", a.prog, noRoom)
		return nil
	}
	l.resident, l.valLabels = err == nil, labels
	return err
}

// joined is two data sets as one. It notes the labels of the second one's
// samples that it was asked for.
type joined struct {
	first, second data.Dataset
	labels        []int32
}

func (j joined) Len() int      { return j.first.Len() + j.second.Len() }
func (j joined) Shape() [3]int { return j.first.Shape() }

func (j joined) Sample(i int, pixels []uint8) (int, error) {
	if n := j.first.Len(); i >= n {
		label, err := j.second.Sample(i-n, pixels)
		j.labels[i-n] = int32(label)
		return label, err
	}
	return j.first.Sample(i, pixels)
}

// trainBatches yields the training batches of an epoch from number micro on. A
// batch is valid until the next one is asked for; an error is the last thing
// yielded.
func (l *loaders) trainBatches(epoch, micro int) iter.Seq2[runtime.Samples, error] {
	return l.batches(l.train, epoch, micro, 0)
}

// valBatch is a batch of the validation part with what an evaluation asks of it.
type valBatch struct {
	runtime.Samples
	numbers []int   // of its samples, in the validation part
	labels  []int32 // of its samples
}

// valBatches yields the validation batches as trainBatches does; once ctx is
// done, its error.
func (l *loaders) valBatches() iter.Seq2[valBatch, error] {
	if !l.resident {
		return func(yield func(valBatch, error) bool) {
			for b, err := range l.val.Epoch(0, 0) {
				if err = l.orEnded(err); err != nil {
					yield(valBatch{}, err)
					return
				}
				if !yield(valBatch{runtime.Samples{Images: b.Images, Labels: b.Labels}, b.Numbers, b.Labels}, nil) {
					return
				}
			}
		}
	}
	return func(yield func(valBatch, error) bool) {
		first := l.Train.Len()
		for b, err := range l.batches(l.val, 0, 0, first) {
			v := valBatch{Samples: b}
			for _, i := range b.Index {
				v.numbers, v.labels = append(v.numbers, int(i)-first), append(v.labels, l.valLabels[int(i)-first])
			}
			if err = l.orEnded(err); !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// orEnded is an error, or that of a context that ends validation.
func (l *loaders) orEnded(err error) error {
	if err == nil && l.ctx != nil {
		err = l.ctx.Err()
	}
	return err
}

// batches yields the batches of a loader from number micro on; if they are on
// the device, its first image is number first there.
func (l *loaders) batches(from *data.Loader, epoch, micro, first int) iter.Seq2[runtime.Samples, error] {
	if !l.resident {
		return func(yield func(runtime.Samples, error) bool) {
			for b, err := range from.Epoch(epoch, micro) {
				if err != nil {
					yield(runtime.Samples{}, err)
					return
				}
				if !yield(runtime.Samples{Images: b.Images, Labels: b.Labels, Labels2: b.Labels2, Mix: b.Mix}, nil) {
					return
				}
			}
		}
	}
	return func(yield func(runtime.Samples, error) bool) {
		order := from.Order(epoch)
		index := make([]int32, len(order))
		for i, o := range order {
			index[i] = int32(first + o)
		}
		for lo := micro * from.Batch; lo < len(index); lo += from.Batch {
			if !yield(runtime.Samples{Index: index[lo:min(lo+from.Batch, len(index))]}, nil) {
				return
			}
		}
	}
}
