package data

import "image"

// upsampler turns a JPEG's planes into rows of RGB as libjpeg does by default:
// chroma is interpolated with a triangle filter ("fancy upsampling", jdsample.c),
// and colors are converted in fixed point with 16 bits (jdcolor.c). What is left
// of a difference to libjpeg is that of the inverse cosine transform.
type upsampler struct {
	*image.YCbCr
	width, height     int // of the luma
	chromaW, chromaH  int
	stepX, stepY      int     // luma pixels for one of chroma
	smooth            bool    // horizontally; else pixels are repeated
	sums              []int32 // of two rows of chroma, 3 : 1
	cb, cr            []uint8 // a row at the luma's width
	cbOffset, yOffset int     // of the picture's first pixel in the planes
}

func newUpsampler(m *image.YCbCr) *upsampler {
	u := &upsampler{YCbCr: m, width: m.Rect.Dx(), height: m.Rect.Dy(), stepX: 1, stepY: 1,
		cbOffset: m.COffset(m.Rect.Min.X, m.Rect.Min.Y), yOffset: m.YOffset(m.Rect.Min.X, m.Rect.Min.Y)}
	switch m.SubsampleRatio {
	case image.YCbCrSubsampleRatio422:
		u.stepX = 2
	case image.YCbCrSubsampleRatio420:
		u.stepX, u.stepY = 2, 2
	case image.YCbCrSubsampleRatio440:
		u.stepY = 2
	case image.YCbCrSubsampleRatio411:
		u.stepX = 4
	case image.YCbCrSubsampleRatio410:
		u.stepX, u.stepY = 4, 2
	}
	u.chromaW = (u.width + u.stepX - 1) / u.stepX
	u.chromaH = (u.height + u.stepY - 1) / u.stepY
	// libjpeg interpolates only these, and not the narrowest.
	u.smooth = u.stepX == 2 && u.chromaW > 2
	u.sums = make([]int32, u.chromaW)
	u.cb, u.cr = make([]uint8, u.chromaW*u.stepX), make([]uint8, u.chromaW*u.stepX)
	return u
}

// row converts part of row y, from column left on.
func (u *upsampler) row(left, y int, to rgbRow) {
	luma := u.Y[u.yOffset+y*u.YStride+left:][:len(to.r)]
	cb := u.chroma(u.cb, u.Cb, y)[left:][:len(to.r)]
	cr := u.chroma(u.cr, u.Cr, y)[left:][:len(to.r)]
	r, g, b := to.r[:len(luma)], to.g[:len(luma)], to.b[:len(luma)]
	for x, l := range luma {
		l, cb, cr := int32(l), int32(cb[x])-128, int32(cr[x])-128
		r[x] = clamp(l + (91881*cr+1<<15)>>16)
		g[x] = clamp(l + (-22554*cb-46802*cr+1<<15)>>16)
		b[x] = clamp(l + (116130*cb+1<<15)>>16)
	}
}

func clamp(v int32) uint8 { return uint8(max(0, min(255, v))) }

// chroma is row y of a chroma plane at the luma's width.
func (u *upsampler) chroma(out, plane []uint8, y int) []uint8 {
	line := func(y int) []uint8 {
		y = max(0, min(y, u.chromaH-1))
		return plane[u.cbOffset+y*u.CStride:][:u.chromaW]
	}
	near := line(y / u.stepY)
	if u.stepX == 1 && u.stepY == 1 {
		return near
	}
	// The other row of chroma that counts: above for even rows, below for odd.
	far := line(y/u.stepY - 1 + 2*(y%u.stepY))
	switch {
	case u.smooth && u.stepY == 2:
		for x := range u.sums {
			u.sums[x] = 3*int32(near[x]) + int32(far[x])
		}
		triangle(out, u.sums, 8, 7, 4)
	case u.smooth:
		for x := range u.sums {
			u.sums[x] = int32(near[x])
		}
		triangle(out, u.sums, 1, 2, 2)
	case u.stepX == 1: // and stepY 2
		bias := int32(1 + y%2)
		for x := range out {
			out[x] = uint8((3*int32(near[x]) + int32(far[x]) + bias) >> 2)
		}
	default:
		for x := range out {
			out[x] = near[x/u.stepX]
		}
	}
	return out
}

// triangle doubles a row: of two neighbours in it, three parts of the nearer
// and one of the farther; at the ends, four parts of the last. Even pixels are
// rounded with one bias, odd ones with the other.
func triangle(out []uint8, in []int32, even, odd int32, shift uint) {
	last := len(in) - 1
	for x, v := range in {
		out[2*x] = uint8((3*v + in[max(x-1, 0)] + even) >> shift)
		out[2*x+1] = uint8((3*v + in[min(x+1, last)] + odd) >> shift)
	}
}
