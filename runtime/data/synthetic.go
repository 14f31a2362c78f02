package data

import (
	"fmt"
	"math"

	"github.com/vitgen/vitgen/runtime/rng"
)

// synthetic makes images of any shape up: each class has a smooth pattern of
// its own, shown with random strength under noise. A linear classifier learns
// some of it and a network more; it measures speed and plumbing, not models.
type synthetic struct {
	shape    [3]int
	classes  []string
	patterns [][]float32 // one an image long for each class, in -1 … 1
	name     string      // "train" or "val": keeps the parts' samples apart
	seed     uint64
	n        int
}

// The pixel of a sample is 128 + strength·pattern + noise, clipped; strength
// is uniform in 16 … 64 and noise nearly normal with this deviation.
const (
	syntheticWeak, syntheticStrong = 16, 64
	syntheticNoise                 = 40
)

func openSynthetic(c Config) (Split, error) {
	if c.Train < 1 || c.Val < 1 {
		return Split{}, fmt.Errorf("data set synthetic needs samples: set data.synthetic.train and val (they are %d and %d)", c.Train, c.Val)
	}
	base := synthetic{shape: c.Image, seed: c.Seed}
	for k := range c.Classes {
		base.classes = append(base.classes, fmt.Sprintf("class %d", k))
		base.patterns = append(base.patterns, pattern(c.Image, c.Seed, k))
	}
	train, val := base, base
	train.name, train.n = "train", c.Train
	val.name, val.n = "val", c.Val
	hash := hashText(fmt.Sprintf("synthetic %v, %d classes, %d and %d samples, seed %d", c.Image, c.Classes, c.Train, c.Val, c.Seed))
	return Split{Train: &train, Val: &val, Hash: hash}, nil
}

// pattern is a sum of plane waves with up to three periods across the image,
// scaled to reach ±1.
func pattern(shape [3]int, seed uint64, class int) []float32 {
	const waves = 4
	s := rng.NewIndexed(seed, "synthetic:pattern", class)
	p := make([]float32, shape[0]*shape[1]*shape[2])
	plane := shape[1] * shape[2]
	largest := 0.0
	for ch := range shape[0] {
		var fy, fx, phase [waves]float64
		for w := range waves {
			fy[w], fx[w], phase[w] = 6*s.Float64()-3, 6*s.Float64()-3, s.Float64()
		}
		for i := range plane {
			y, x := float64(i/shape[2])/float64(shape[1]), float64(i%shape[2])/float64(shape[2])
			v := 0.0
			for w := range waves {
				v += math.Cos(2 * math.Pi * (fy[w]*y + fx[w]*x + phase[w]))
			}
			p[ch*plane+i] = float32(v)
			largest = max(largest, math.Abs(v))
		}
	}
	for i := range p {
		p[i] = float32(float64(p[i]) / max(largest, 1e-6))
	}
	return p
}

func (d *synthetic) Len() int          { return d.n }
func (d *synthetic) Shape() [3]int     { return d.shape }
func (d *synthetic) Classes() []string { return d.classes }

func (d *synthetic) Sample(i int, pixels []uint8) (int, error) {
	s := rng.NewIndexed(d.seed, "synthetic:"+d.name, i)
	label := s.Intn(len(d.classes))
	strength := float32(syntheticWeak + (syntheticStrong-syntheticWeak)*s.Float64())
	pattern := d.patterns[label]
	for i := range pattern {
		// The sum of four bytes is nearly normal: mean 510, deviation 147.8.
		w := s.Uint32()
		sum := w&0xff + w>>8&0xff + w>>16&0xff + w>>24
		noise := (float32(sum) - 510) * (syntheticNoise / 147.8)
		v := 128 + strength*pattern[i] + noise
		pixels[i] = uint8(max(0, min(255, v)))
	}
	return label, nil
}
