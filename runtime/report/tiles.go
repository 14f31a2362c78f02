package report

import (
	"image"
	"image/color"
	imagedraw "image/draw"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// Tile is a picture with what is to be said of it.
type Tile struct {
	Picture image.Image
	Lines   [2]string // below it
}

// Measures of a sheet, in pixels. Its resolution is 72 dots an inch, so that
// they are points too.
const (
	tileWidth, tileHeight = 132, 142
	tilePicture           = 96 // the longer side of a picture at most
	tileColumns           = 4
)

// Tiles is a sheet of pictures with their captions, four in a row. Small
// pictures are enlarged by a whole number, pixel by pixel, large ones reduced.
// It is nil if there are none.
func Tiles(tiles []Tile) image.Image {
	if len(tiles) == 0 {
		return nil
	}
	columns := min(len(tiles), tileColumns)
	rows := (len(tiles) + columns - 1) / columns
	raster := vgimg.NewWith(vgimg.UseWH(vg.Length(columns)*tileWidth, vg.Length(rows)*tileHeight), vgimg.UseDPI(72))
	sheet, c := raster.Image(), draw.New(raster)
	for i, t := range tiles {
		left, top := i%columns*tileWidth, i/columns*tileHeight
		p := fit(t.Picture)
		size := p.Bounds().Size()
		corner := image.Pt(left+(tileWidth-size.X)/2, top+8+(tilePicture-size.Y)/2)
		imagedraw.Draw(sheet, image.Rectangle{corner, corner.Add(size)}, p, image.Point{}, imagedraw.Src)
		middle, y := vg.Length(left)+tileWidth/2, vg.Length(rows*tileHeight-top)
		for k, line := range t.Lines {
			s := label(10.5, ink, text.XCenter, text.YTop)
			if k > 0 {
				s.Color = red
			}
			write(&c, s, middle, y-vg.Length(tilePicture+12+13*k), fitText(s, line, tileWidth-6))
		}
	}
	return sheet
}

// fitText shortens text to a width.
func fitText(s text.Style, txt string, width vg.Length) string {
	for n := len([]rune(txt)); n > 1 && s.Width(txt) > width; n-- {
		txt = shorten(txt, n)
	}
	return txt
}

// fit brings a picture to the size of a tile's: enlarged by a whole number, or
// reduced.
func fit(p image.Image) image.Image {
	b := p.Bounds()
	grow := tilePicture / max(b.Dx(), b.Dy(), 1)
	if grow < 1 {
		return Shrink(p, tilePicture)
	}
	out := image.NewRGBA(image.Rect(0, 0, b.Dx()*grow, b.Dy()*grow))
	for y := range b.Dy() {
		for x := range b.Dx() {
			pixel := image.NewUniform(p.At(b.Min.X+x, b.Min.Y+y))
			imagedraw.Draw(out, image.Rect(x*grow, y*grow, (x+1)*grow, (y+1)*grow), pixel, image.Point{}, imagedraw.Src)
		}
	}
	return out
}

// Shrink reduces a picture until its sides have at most so many pixels, by a
// whole number: each pixel is the mean of a square of them, or of what there is
// of it at the right and bottom edges. A picture that is small enough is
// returned as it is.
func Shrink(p image.Image, side int) image.Image {
	in := p.Bounds()
	k := (max(in.Dx(), in.Dy()) + side - 1) / side
	if k <= 1 {
		return p
	}
	out := image.NewRGBA(image.Rect(0, 0, (in.Dx()+k-1)/k, (in.Dy()+k-1)/k))
	for y := range out.Rect.Dy() {
		for x := range out.Rect.Dx() {
			square := image.Rect(x*k, y*k, (x+1)*k, (y+1)*k).Add(in.Min).Intersect(in)
			out.SetRGBA(x, y, mean(p, square))
		}
	}
	return out
}

// mean is the mean colour of a part of a picture.
func mean(p image.Image, part image.Rectangle) color.RGBA {
	var sum [4]uint64
	for y := part.Min.Y; y < part.Max.Y; y++ {
		for x := part.Min.X; x < part.Max.X; x++ {
			r, g, b, a := p.At(x, y).RGBA()
			for i, v := range [4]uint32{r, g, b, a} {
				sum[i] += uint64(v)
			}
		}
	}
	n := uint64(part.Dx() * part.Dy())
	of := func(i int) uint8 { return uint8((sum[i]/n + 128) / 257) }
	return color.RGBA{of(0), of(1), of(2), of(3)}
}

// Pixels are 8-bit values, channel by channel and row by row, as a picture:
// three channels are red, green and blue, of any other number the first is shown
// in grey. shape is channels, height, width.
func Pixels(shape [3]int, pixels []uint8) image.Image {
	h, w := shape[1], shape[2]
	if shape[0] != 3 {
		return &image.Gray{Pix: pixels[:h*w], Stride: w, Rect: image.Rect(0, 0, w, h)}
	}
	p := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range h * w {
		copy(p.Pix[4*i:], []uint8{pixels[i], pixels[h*w+i], pixels[2*h*w+i], 255})
	}
	return p
}
