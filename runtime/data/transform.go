package data

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// resized is a data set whose images are scaled when they are read.
type resized struct {
	Dataset
	resizer *resizer
	buffers sync.Pool // *[]uint8: the stored image, then one half-scaled plane
}

// Resized scales every image to height, width as Pillow's bilinear resize.
func Resized(d Dataset, size [2]int) Dataset {
	s := d.Shape()
	if s[1] == size[0] && s[2] == size[1] {
		return d
	}
	stored, temp := pixels(d), s[1]*size[1]
	return &resized{Dataset: d, resizer: newResizer([2]int{s[1], s[2]}, size), buffers: sync.Pool{New: func() any {
		b := make([]uint8, stored+temp)
		return &b
	}}}
}

func (r *resized) Shape() [3]int {
	return [3]int{r.Dataset.Shape()[0], r.resizer.out[0], r.resizer.out[1]}
}

func (r *resized) Sample(i int, dst []uint8) (int, error) {
	buffer := r.buffers.Get().(*[]uint8)
	defer r.buffers.Put(buffer)
	s := r.Dataset.Shape()
	plane, out := s[1]*s[2], r.resizer.out[0]*r.resizer.out[1]
	src, temp := (*buffer)[:s[0]*plane], (*buffer)[s[0]*plane:]
	label, err := r.Dataset.Sample(i, src)
	if err != nil {
		return 0, err
	}
	for c := range s[0] {
		r.resizer.apply(dst[c*out:][:out], src[c*plane:][:plane], temp)
	}
	return label, nil
}

// cached keeps each image once it has been made.
type cached struct {
	Dataset
	state  []atomic.Uint32 // of each sample: cacheEmpty, cacheBusy, cacheFull
	labels []int32
	pixels []uint8
}

const (
	cacheEmpty = iota
	cacheBusy
	cacheFull
)

// Cached keeps the images of d in memory as they are first read, if they are
// at most limit bytes altogether; else it is d.
func Cached(d Dataset, limit int) Dataset {
	n := pixels(d)
	if d.Len() > limit/n {
		return d
	}
	return &cached{Dataset: d, state: make([]atomic.Uint32, d.Len()), labels: make([]int32, d.Len()), pixels: make([]uint8, d.Len()*n)}
}

func (c *cached) Sample(i int, dst []uint8) (int, error) {
	n := pixels(c.Dataset)
	kept := c.pixels[i*n:][:n]
	switch {
	case c.state[i].Load() == cacheFull:
		copy(dst, kept)
		return int(c.labels[i]), nil
	case c.state[i].CompareAndSwap(cacheEmpty, cacheBusy):
		label, err := c.Dataset.Sample(i, dst)
		if err != nil {
			c.state[i].Store(cacheEmpty)
			return 0, err
		}
		copy(kept, dst)
		c.labels[i] = int32(label)
		c.state[i].Store(cacheFull)
		return label, nil
	}
	return c.Dataset.Sample(i, dst) // another goroutine is storing it just now
}

// Normalizer turns pixels into what the model computes with:
// (v/255 - mean)/std for each channel, in float32 as torchvision does.
type Normalizer struct {
	plane int
	table [][256]float32 // by channel, or one for all
}

// NewNormalizer takes a mean and a standard deviation for each channel, or one
// for all of them, or none.
func NewNormalizer(shape [3]int, mean, std []float64) (*Normalizer, error) {
	for _, v := range [][]float64{mean, std} {
		if n := len(v); n > 1 && n != shape[0] {
			return nil, fmt.Errorf("normalization has %d values for %d channels", n, shape[0])
		}
	}
	of := func(v []float64, c int, otherwise float32) float32 {
		if len(v) == 0 {
			return otherwise
		}
		return float32(v[min(c, len(v)-1)])
	}
	z := &Normalizer{plane: shape[1] * shape[2], table: make([][256]float32, shape[0])}
	for c := range z.table {
		m, s := of(mean, c, 0), of(std, c, 1)
		if !(s > 0) {
			return nil, fmt.Errorf("normalization has a standard deviation of %g", s)
		}
		for v := range 256 {
			z.table[c][v] = (float32(v)/255 - m) / s
		}
	}
	return z, nil
}

// Table is what each channel's pixels 0 … 255 become, 256 numbers a channel.
func (z *Normalizer) Table() []float32 {
	var table []float32
	for c := range z.table {
		table = append(table, z.table[c][:]...)
	}
	return table
}

// Apply normalizes one image.
func (z *Normalizer) Apply(dst []float32, pixels []uint8) {
	for c := range z.table {
		table := &z.table[c]
		out := dst[c*z.plane:][:z.plane]
		for i, v := range pixels[c*z.plane:][:z.plane] {
			out[i] = table[v]
		}
	}
}
