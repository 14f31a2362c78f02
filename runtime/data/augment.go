package data

import (
	"fmt"
	"math"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/rng"
)

// augmenter varies the training samples of an epoch. Whatever it draws comes
// from a stream of its own for each sample or batch, by its place in the epoch.
type augmenter struct {
	runtime.Augment
	seed                  uint64
	crops, moves, mixings string // names of families of streams
}

func newAugmenter(a runtime.Augment, seed uint64, epoch int) *augmenter {
	return &augmenter{a, seed, fmt.Sprintf("crop:%d", epoch), fmt.Sprintf("move:%d", epoch), fmt.Sprintf("mix:%d", epoch)}
}

// crop is the part of a stored image that is sample number position of the
// epoch: torchvision's RandomResizedCrop.get_params. Ten times a part is drawn
// that may be too wide or too high; after that it is the middle, as much of it
// as the ratio allows.
func (a *augmenter) crop(position, height, width int) box {
	s := rng.NewIndexed(a.seed, a.crops, position)
	scale, ratio := a.ResizedCrop.Scale, a.ResizedCrop.Ratio
	low, high := math.Log(ratio[0]), math.Log(ratio[1])
	for range 10 {
		area := float64(height*width) * (scale[0] + (scale[1]-scale[0])*s.Float64())
		aspect := math.Exp(low + (high-low)*s.Float64())
		w := int(math.RoundToEven(math.Sqrt(area * aspect)))
		h := int(math.RoundToEven(math.Sqrt(area / aspect)))
		if 0 < w && w <= width && 0 < h && h <= height {
			return box{s.Intn(height - h + 1), s.Intn(width - w + 1), h, w}
		}
	}
	w, h := width, height
	if whole := float64(width) / float64(height); whole < ratio[0] {
		h = max(1, int(math.RoundToEven(float64(w)/ratio[0])))
	} else if whole > ratio[1] {
		w = max(1, int(math.RoundToEven(float64(h)*ratio[1])))
	}
	return box{(height - h) / 2, (width - w) / 2, h, w}
}

// move is how sample number position is cropped from its padded image, as the
// image's pixel that comes to the top left, and whether it is flipped then.
func (a *augmenter) move(position int) (top, left int, flip bool) {
	if a.Padding == 0 && a.Flip == 0 {
		return 0, 0, false
	}
	s := rng.NewIndexed(a.seed, a.moves, position)
	if a.Padding > 0 {
		top, left = s.Intn(2*a.Padding+1)-a.Padding, s.Intn(2*a.Padding+1)-a.Padding
	}
	return top, left, s.Float64() < a.Flip
}

// mixing is how the samples of a batch are mixed with their partners.
type mixing struct {
	on   bool
	keep float64 // share of a sample itself in its labels, and in mixup in its pixels
	cut  bool    // CutMix: the box is the partner's
	box  box
}

// mixing is drawn once for a batch, as in timm's batch mode: λ ~ Beta(α, α),
// and which of mixup and CutMix it is, each half of the times if both are on.
// The partner is the sample at the same place from the batch's other end.
//
// CutMix (Yun et al., 2019) takes a box of √(1-λ) of height and width around a
// point that is uniform in the image; what lies outside is cut off, and λ is
// the share that is left to the sample after that.
func (a *augmenter) mixing(batch, height, width int) mixing {
	if !a.Mixes() {
		return mixing{}
	}
	s := rng.NewIndexed(a.seed, a.mixings, batch)
	m := mixing{on: true, cut: a.CutMix > 0}
	if a.CutMix > 0 && a.Mixup > 0 {
		m.cut = s.Float64() < 0.5
	}
	if !m.cut {
		m.keep = s.Beta(a.Mixup, a.Mixup)
		return m
	}
	side := math.Sqrt(1 - s.Beta(a.CutMix, a.CutMix))
	h, w := int(float64(height)*side), int(float64(width)*side)
	y, x := s.Intn(height), s.Intn(width)
	top, bottom := max(0, y-h/2), min(height, y+h/2)
	left, right := max(0, x-w/2), min(width, x+w/2)
	m.box = box{top, left, bottom - top, right - left}
	m.keep = 1 - float64(m.box.height*m.box.width)/float64(height*width)
	return m
}

// mix mixes two images [C, H, W], each with the other. The conversions stop the
// compiler from fusing a product with a sum, which rounds differently.
func (m *mixing) mix(a, b []float32, shape [3]int) {
	if !m.cut {
		keep, give := float32(m.keep), float32(1-m.keep)
		b = b[:len(a)]
		for i, x := range a {
			y := b[i]
			a[i] = float32(x*keep) + float32(y*give)
			b[i] = float32(y*keep) + float32(x*give)
		}
		return
	}
	for c := range shape[0] {
		for y := m.box.top; y < m.box.top+m.box.height; y++ {
			from := (c*shape[1]+y)*shape[2] + m.box.left
			swap(a[from:][:m.box.width], b[from:])
		}
	}
}

func swap(a, b []float32) {
	b = b[:len(a)]
	for i := range a {
		a[i], b[i] = b[i], a[i]
	}
}
