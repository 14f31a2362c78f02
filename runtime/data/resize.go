package data

import "math"

// resizer scales 8-bit planes as Pillow's Image.resize does with BILINEAR: a
// triangle filter, widened when shrinking so that every pixel counts, applied
// to rows and then to columns, in fixed point with 22 bits after the point and
// rounded to 8 bits after each pass (Pillow, libImaging/Resample.c). Since
// version 13 Pillow takes columns first where the height shrinks by more pixels
// than twice what the width does, and so does this; results of the two orders
// differ by rounding.
//
// A window makes only part of the output, of the same pixels. Buffers are used
// again by later calls of reset, so a resizer serves pictures of any sizes, one
// after the other.
type resizer struct {
	in, out      [2]int // height, width
	window       box    // of the output
	columns      filters
	rows         filters
	columnsFirst bool // first the pass that combines rows, so within columns
	temp         []uint8
	sums         []int32
}

// box is a part of an image, in pixels.
type box struct{ top, left, height, width int }

// filters are the weights of a pass: output pixel i is made of input pixels
// first[i], first[i]+1, … with the weights from at[i] to at[i+1].
type filters struct {
	first, at []int
	weights   []int32
}

const fixedBits = 32 - 8 - 2 // Pillow's PRECISION_BITS

// half is one half in fixed point, where a sum starts so that it is rounded.
const half = int32(1) << (fixedBits - 1)

// newResizer scales whole images; sizes are height, width.
func newResizer(in, out [2]int) *resizer {
	r := &resizer{}
	r.reset(in, out, box{0, 0, out[0], out[1]})
	return r
}

// reset makes r scale images of size in to size out, of which it makes a window.
func (r *resizer) reset(in, out [2]int, window box) {
	if r.in == in && r.out == out && r.window == window {
		return
	}
	r.in, r.out, r.window = in, out, window
	r.columns.triangles(in[1], out[1], window.left, window.width)
	r.rows.triangles(in[0], out[0], window.top, window.height)
	r.columnsFirst = in[0]-out[0] > max(0, 2*(in[1]-out[1]))
}

// triangles are the filters from in pixels to out pixels, for count of these
// from number from on. The conversions stop the compiler from fusing a product
// with a sum, which rounds differently.
func (f *filters) triangles(in, out, from, count int) {
	scale := float64(in) / float64(out)
	support := max(scale, 1) // half width of the triangle, in input pixels
	inverse := 1 / support
	f.first, f.at, f.weights = f.first[:0], append(f.at[:0], 0), f.weights[:0]
	var weights []float64
	for i := from; i < from+count; i++ {
		center := float64((float64(i) + 0.5) * scale)
		first := max(0, int(center-support+0.5))
		end := min(in, int(center+support+0.5))
		weights = weights[:0]
		sum := 0.0
		for k := first; k < end; k++ {
			x := float64((float64(k) - center + 0.5) * inverse)
			w := max(0, 1-math.Abs(x))
			weights = append(weights, w)
			sum += w
		}
		for _, w := range weights {
			if sum != 0 {
				w /= sum
			}
			f.weights = append(f.weights, int32(0.5+float64(w*(1<<fixedBits))))
		}
		f.first = append(f.first, first)
		f.at = append(f.at, len(f.weights))
	}
}

// span is the range of input pixels that the filters read.
func (f *filters) span() (lo, hi int) {
	last := len(f.first) - 1
	return f.first[0], f.first[last] + f.at[last+1] - f.at[last]
}

// apply makes the window of one plane of the size r.in. Rows of src are stride
// apart, those of dst without a gap.
func (r *resizer) apply(dst, src []uint8, stride int) {
	if r.in == r.out {
		w := r.window
		for y := range w.height {
			copy(dst[y*w.width:][:w.width], src[(w.top+y)*stride+w.left:])
		}
		return
	}
	if r.columnsFirst {
		left, right := r.columns.span()
		width := right - left
		temp := r.buffer(r.window.height * width)
		r.combineRows(temp, src[left:], width, stride, 0)
		r.columns.scaleRows(dst, temp, r.window.height, width, left)
		return
	}
	top, bottom := r.rows.span()
	width := r.window.width
	temp := r.buffer((bottom - top) * width)
	r.columns.scaleRows(temp, src[top*stride:], bottom-top, stride, 0)
	r.combineRows(dst, temp, width, width, top)
}

func (r *resizer) buffer(n int) []uint8 {
	if cap(r.temp) < n {
		r.temp = make([]uint8, n)
	}
	return r.temp[:n]
}

// scaleRows makes count rows of another width; src[0] is pixel number origin of
// the first one. Four rows at a time share the loading of weights.
func (f *filters) scaleRows(dst, src []uint8, count, stride, origin int) {
	width := len(f.first)
	y := 0
	for ; y+4 <= count; y += 4 {
		d0, d1, d2, d3 := dst[y*width:][:width], dst[(y+1)*width:][:width], dst[(y+2)*width:][:width], dst[(y+3)*width:][:width]
		s0, s1, s2, s3 := src[y*stride:], src[(y+1)*stride:], src[(y+2)*stride:], src[(y+3)*stride:]
		for x, first := range f.first {
			weights := f.weights[f.at[x]:f.at[x+1]]
			n := len(weights)
			first -= origin
			p0, p1, p2, p3 := s0[first:][:n], s1[first:][:n], s2[first:][:n], s3[first:][:n]
			sum0, sum1, sum2, sum3 := half, half, half, half
			for k, w := range weights {
				sum0 += int32(p0[k]) * w
				sum1 += int32(p1[k]) * w
				sum2 += int32(p2[k]) * w
				sum3 += int32(p3[k]) * w
			}
			d0[x], d1[x], d2[x], d3[x] = clip(sum0), clip(sum1), clip(sum2), clip(sum3)
		}
	}
	for ; y < count; y++ {
		out, row := dst[y*width:][:width], src[y*stride:]
		for x, first := range f.first {
			weights := f.weights[f.at[x]:f.at[x+1]]
			pixels := row[first-origin:][:len(weights)]
			sum := half
			for k, w := range weights {
				sum += int32(pixels[k]) * w
			}
			out[x] = clip(sum)
		}
	}
}

// combineRows makes the window's rows out of rows of the width given, stride
// apart; src[0] is in row number origin of the input.
func (r *resizer) combineRows(dst, src []uint8, width, stride, origin int) {
	if cap(r.sums) < width {
		r.sums = make([]int32, width)
	}
	sums := r.sums[:width]
	for y := range r.window.height {
		for x := range sums {
			sums[x] = half
		}
		weights := r.rows.weights[r.rows.at[y]:r.rows.at[y+1]]
		row := src[(r.rows.first[y]-origin)*stride:]
		// Two rows at a time halve the traffic of the sums.
		for ; len(weights) > 1; weights = weights[2:] {
			a, b := row[:len(sums)], row[stride:][:len(sums)]
			wa, wb := weights[0], weights[1]
			for x := range sums {
				sums[x] += int32(a[x])*wa + int32(b[x])*wb
			}
			if len(weights) > 2 {
				row = row[2*stride:]
			}
		}
		if len(weights) == 1 {
			a, wa := row[:len(sums)], weights[0]
			for x := range sums {
				sums[x] += int32(a[x]) * wa
			}
		}
		out := dst[y*width:][:len(sums)]
		for x, sum := range sums {
			out[x] = clip(sum)
		}
	}
}

// clip drops the bits after the point. Weights are not negative and sum to
// about one, so the value cannot be below 0.
func clip(sum int32) uint8 { return uint8(min(255, sum>>fixedBits)) }
