package data

import (
	"fmt"
	"image"
	"image/color"
)

// planes writes a box of a picture as 1 plane (gray) or 3 (red, green, blue),
// converted as Pillow's Image.open(…).convert("L" or "RGB") does:
//
//	gray      L = (19595·R + 38470·G + 7471·B + 32768) / 65536, rounded down
//	alpha     is dropped
//	16 bits   the upper eight count; but gray of 16 bits is cut off at 255
//	CMYK      R = (255-K) - C·(255-K)/255, and so on
//	YCbCr     chroma is interpolated to the luma's size as libjpeg does
//
// dst has channels · height · width elements.
func (p *picture) planes(dst []uint8, img image.Image, b box, channels int) error {
	n := b.height * b.width
	rgb := rgbRow{r: make([]uint8, b.width), g: make([]uint8, b.width), b: make([]uint8, b.width)}
	if channels == 3 {
		rgb.r, rgb.g, rgb.b = nil, nil, nil
	}
	row, gray, err := p.rows(img, b)
	if err != nil {
		return err
	}
	for y := range b.height {
		line := dst[y*b.width:][:b.width]
		if channels == 3 {
			rgb.r, rgb.g, rgb.b = line, dst[n+y*b.width:][:b.width], dst[2*n+y*b.width:][:b.width]
		}
		switch {
		case gray && channels == 1:
			rgb.r = line
			row(y, rgb)
		case gray:
			row(y, rgb)
			copy(rgb.g, rgb.r)
			copy(rgb.b, rgb.r)
		default:
			row(y, rgb)
			if channels == 1 {
				for x := range line {
					line[x] = luma(rgb.r[x], rgb.g[x], rgb.b[x])
				}
			}
		}
	}
	return nil
}

// rgbRow is part of a row, by color. Of gray pictures only r is used.
type rgbRow struct{ r, g, b []uint8 }

// luma is the gray of a color, ITU-R 601-2 in Pillow's fixed point.
func luma(r, g, b uint8) uint8 {
	return uint8((uint32(r)*19595 + uint32(g)*38470 + uint32(b)*7471 + 0x8000) >> 16)
}

// rows returns a function that reads row y of the box, and whether it is gray.
func (p *picture) rows(img image.Image, b box) (row func(y int, to rgbRow), gray bool, err error) {
	min := img.Bounds().Min
	left, top := min.X+b.left, min.Y+b.top
	switch m := img.(type) {
	case *image.Gray:
		return func(y int, to rgbRow) { copy(to.r, m.Pix[m.PixOffset(left, top+y):][:b.width]) }, true, nil
	case *image.Gray16:
		return func(y int, to rgbRow) { clip16(to.r, m.Pix[m.PixOffset(left, top+y):], 2) }, true, nil
	case *image.NRGBA:
		return func(y int, to rgbRow) { to.interleaved(m.Pix[m.PixOffset(left, top+y):], 4, 1) }, false, nil
	case *image.RGBA: // opaque: neither package makes others
		return func(y int, to rgbRow) { to.interleaved(m.Pix[m.PixOffset(left, top+y):], 4, 1) }, false, nil
	case *image.NRGBA64:
		if p.gray16 { // with a transparent gray
			return func(y int, to rgbRow) { clip16(to.r, m.Pix[m.PixOffset(left, top+y):], 8) }, true, nil
		}
		return func(y int, to rgbRow) { to.interleaved(m.Pix[m.PixOffset(left, top+y):], 8, 2) }, false, nil
	case *image.RGBA64:
		return func(y int, to rgbRow) { to.interleaved(m.Pix[m.PixOffset(left, top+y):], 8, 2) }, false, nil
	case *image.Paletted:
		var table [256][3]uint8
		for i, c := range m.Palette {
			c := color.NRGBAModel.Convert(c).(color.NRGBA)
			table[i] = [3]uint8{c.R, c.G, c.B}
		}
		return func(y int, to rgbRow) {
			for x, i := range m.Pix[m.PixOffset(left, top+y):][:b.width] {
				to.r[x], to.g[x], to.b[x] = table[i][0], table[i][1], table[i][2]
			}
		}, false, nil
	case *image.CMYK:
		return func(y int, to rgbRow) { to.cmyk(m.Pix[m.PixOffset(left, top+y):]) }, false, nil
	case *image.YCbCr:
		u := newUpsampler(m)
		return func(y int, to rgbRow) { u.row(b.left, b.top+y, to) }, false, nil
	}
	return nil, false, fmt.Errorf("BUG: a picture decoded to %T", img)
}

// interleaved takes pixels of size bytes, of which the colors' most significant
// bytes are the first, and those by step and two steps behind it.
func (to rgbRow) interleaved(pix []uint8, size, step int) {
	pix = pix[:len(to.r)*size]
	for x := range to.r {
		p := pix[x*size:][:2*step+1]
		to.r[x], to.g[x], to.b[x] = p[0], p[step], p[2*step]
	}
}

// clip16 takes grays of 16 bits, every size bytes, as Pillow does.
func clip16(to []uint8, pix []uint8, size int) {
	for x := range to {
		if to[x] = pix[x*size+1]; pix[x*size] != 0 {
			to[x] = 255
		}
	}
}

func (to rgbRow) cmyk(pix []uint8) {
	for x := range to.r {
		p := pix[4*x:][:4]
		light := 255 - uint32(p[3])
		ink := func(c uint8) uint8 {
			t := uint32(c)*light + 128
			return uint8(light - (t>>8+t)>>8) // t/255, rounded
		}
		to.r[x], to.g[x], to.b[x] = ink(p[0]), ink(p[1]), ink(p[2])
	}
}
