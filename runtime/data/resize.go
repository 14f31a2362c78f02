package data

import "math"

// resizer scales 8-bit planes as Pillow's Image.resize does with BILINEAR: a
// triangle filter, widened when shrinking so that every pixel counts, applied
// to rows and then to columns, in fixed point with 22 bits after the point and
// rounded to 8 bits after each pass. (Pillow, libImaging/Resample.c. From
// version 13 on Pillow does columns first where the height shrinks much more
// than the width, which can differ by one step; squares are never affected.)
type resizer struct {
	in, out    [2]int // height, width
	horizontal []filter
	vertical   []filter
}

// filter is the weights of input pixels first, first+1, … for one output pixel.
type filter struct {
	first   int
	weights []int32
}

const fixedBits = 32 - 8 - 2 // Pillow's PRECISION_BITS

func newResizer(in, out [2]int) *resizer {
	return &resizer{in: in, out: out, vertical: triangles(in[0], out[0]), horizontal: triangles(in[1], out[1])}
}

// triangles are the filters from in pixels to out pixels. The conversions stop
// the compiler from fusing a product with a sum, which rounds differently.
func triangles(in, out int) []filter {
	scale := float64(in) / float64(out)
	support := max(scale, 1) // half width of the triangle, in input pixels
	filters := make([]filter, out)
	for i := range filters {
		center := float64((float64(i) + 0.5) * scale)
		first := max(0, int(center-support+0.5))
		end := min(in, int(center+support+0.5))
		weights := make([]float64, end-first)
		sum := 0.0
		for k := range weights {
			x := float64((float64(k+first) - center + 0.5) * (1 / support))
			weights[k] = max(0, 1-math.Abs(x))
			sum += weights[k]
		}
		filters[i] = filter{first, make([]int32, len(weights))}
		for k, w := range weights {
			if sum != 0 {
				w /= sum
			}
			filters[i].weights[k] = int32(0.5 + float64(w*(1<<fixedBits)))
		}
	}
	return filters
}

// apply scales one plane. temp has room for in height × out width pixels.
func (r *resizer) apply(dst, src, temp []uint8) {
	inW, outW := r.in[1], r.out[1]
	for y := range r.in[0] {
		row := src[y*inW:][:inW]
		for x, f := range r.horizontal {
			sum := int32(1) << (fixedBits - 1)
			for k, w := range f.weights {
				sum += int32(row[f.first+k]) * w
			}
			temp[y*outW+x] = clip(sum)
		}
	}
	for y, f := range r.vertical {
		for x := range outW {
			sum := int32(1) << (fixedBits - 1)
			for k, w := range f.weights {
				sum += int32(temp[(f.first+k)*outW+x]) * w
			}
			dst[y*outW+x] = clip(sum)
		}
	}
}

// clip drops the bits after the point. Weights are not negative and sum to
// about one, so the value cannot be below 0.
func clip(sum int32) uint8 { return uint8(min(255, sum>>fixedBits)) }
