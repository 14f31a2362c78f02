package data

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// scratch is the memory in which one goroutine makes images.
type scratch struct {
	file    []byte
	pixels  []uint8 // as stored or decoded
	resizer resizer
}

var scratches = sync.Pool{New: func() any { return &scratch{} }}

// room is n elements of the pixels' memory.
func (s *scratch) room(n int) []uint8 {
	if cap(s.pixels) < n {
		s.pixels = make([]uint8, n)
	}
	return s.pixels[:n]
}

// cropper is a Dataset that can make a sample of part of what is stored: of the
// box that choose takes out of an image of the size it is told, scaled to the
// data set's shape.
type cropper interface {
	sampleCrop(i int, dst []uint8, choose chooser) (label int, err error)
}

type chooser func(height, width int) box

// croppable is the cropper of a data set; every one has it.
func croppable(d Dataset) cropper {
	if c, ok := d.(*cached); ok {
		d = c.Dataset
	}
	if c, ok := d.(cropper); ok {
		return c
	}
	s := d.Shape()
	return &resized{d, [2]int{s[1], s[2]}}
}

// resized is a data set whose images are scaled when they are read.
type resized struct {
	Dataset
	size [2]int // height, width
}

// Resized scales every image to height, width as Pillow's bilinear resize.
func Resized(d Dataset, size [2]int) Dataset {
	s := d.Shape()
	if s[1] == size[0] && s[2] == size[1] {
		return d
	}
	return &resized{d, size}
}

func (r *resized) Shape() [3]int { return [3]int{r.Dataset.Shape()[0], r.size[0], r.size[1]} }

func (r *resized) Sample(i int, dst []uint8) (int, error) {
	return r.sampleCrop(i, dst, func(h, w int) box { return box{0, 0, h, w} })
}

func (r *resized) sampleCrop(i int, dst []uint8, choose chooser) (int, error) {
	stored := r.Dataset.Shape()
	b := choose(stored[1], stored[2])
	m := scratches.Get().(*scratch)
	defer scratches.Put(m)
	m.resizer.reset([2]int{b.height, b.width}, r.size, box{0, 0, r.size[0], r.size[1]})
	plane, out := stored[1]*stored[2], r.size[0]*r.size[1]
	src := m.room(stored[0] * plane)
	label, err := r.Dataset.Sample(i, src)
	if err != nil {
		return 0, err
	}
	for c := range stored[0] {
		m.resizer.apply(dst[c*out:][:out], src[c*plane+b.top*stored[2]+b.left:(c+1)*plane], stored[2])
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
	shape [3]int
	table [][256]float32 // by channel
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
	z := &Normalizer{shape: shape, table: make([][256]float32, shape[0])}
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
	plane := z.shape[1] * z.shape[2]
	for c := range z.table {
		table := &z.table[c]
		out := dst[c*plane:][:plane]
		for i, v := range pixels[c*plane:][:plane] {
			out[i] = table[v]
		}
	}
}

// ApplyMoved normalizes an image of which pixel (top, left) comes to the top
// left, with zero pixels where there is no image, and flips it then.
func (z *Normalizer) ApplyMoved(dst []float32, pixels []uint8, top, left int, flip bool) {
	height, width := z.shape[1], z.shape[2]
	from, to := min(max(0, -left), width), max(0, min(width, width-left)) // columns that have an image
	for c := range z.table {
		table := &z.table[c]
		for y := range height {
			out := dst[(c*height+y)*width:][:width]
			if y+top < 0 || y+top >= height || from >= to {
				fill(out, table[0])
				continue
			}
			fill(out[:from], table[0])
			fill(out[to:], table[0])
			row := pixels[(c*height+y+top)*width+from+left:][:to-from]
			for x, v := range row {
				out[from+x] = table[v]
			}
			if flip {
				slices.Reverse(out)
			}
		}
	}
}

func fill(to []float32, v float32) {
	for i := range to {
		to[i] = v
	}
}
