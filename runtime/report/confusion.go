package report

import (
	"fmt"
	"image"
	"image/color"
	"math"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Confusion draws a confusion matrix into DIR/confusion.png and .svg.
// matrix[label][guess] counts samples. A cell's colour is its share of the
// samples of its label: blue for right ones, red for wrong ones. Up to 25
// classes cells have their numbers, up to 60 their classes' names; beyond, the
// classes are numbered from 0.
func Confusion(dir, title string, classes []string, matrix [][]int) error {
	if len(matrix) == 0 || len(classes) != len(matrix) {
		return fmt.Errorf("a confusion matrix of %d classes with %d names", len(matrix), len(classes))
	}
	m := newMatrix(classes, matrix)
	return save(dir, "confusion", m.width, m.height, func(c *draw.Canvas) { m.paint(c, title) })
}

const (
	numberedCells = 25 // classes
	namedClasses  = 60

	above vg.Length = 56 // room for the title
)

// matrixPicture is a confusion matrix with its measures in points.
type matrixPicture struct {
	names         []string
	counts        [][]int
	samples       []int // by label
	cell          vg.Length
	font          vg.Length // size of names
	below, beside vg.Length // room for the names of columns and rows
	upright       bool      // columns' names are written from bottom to top
	key           vg.Length // left side of what explains the colours
	width, height vg.Length
}

func newMatrix(classes []string, counts [][]int) *matrixPicture {
	n := len(counts)
	m := &matrixPicture{counts: counts, samples: make([]int, n)}
	for i, row := range counts {
		for _, v := range row {
			m.samples[i] += v
		}
	}
	switch {
	case n <= 10:
		m.cell, m.font = max(36, 150/vg.Length(n)), 10
	case n <= numberedCells:
		m.cell, m.font = 26, 9
	case n <= namedClasses:
		m.cell, m.font = 12, 8
	default:
		m.cell, m.font = 600/vg.Length(n), 9
	}
	m.below, m.beside = 24, 28
	if n <= namedClasses {
		s := label(m.font, ink, text.XLeft, text.YCenter)
		longest := vg.Length(0)
		for _, name := range classes {
			m.names = append(m.names, shorten(name, 24))
			longest = max(longest, s.Width(m.names[len(m.names)-1]))
		}
		m.beside = longest + 8
		if m.upright = longest > m.cell-4; m.upright {
			m.below = longest + 8
		}
	}
	side := m.cell * vg.Length(n)
	m.key = 28 + m.beside + side + 20
	if n <= namedClasses {
		m.key += 46 // for accuracies
	}
	m.width, m.height = m.key+72, above+side+m.below+28
	return m
}

// origin is the matrix's lower left corner.
func (m *matrixPicture) origin() vg.Point {
	return vg.Point{X: 28 + m.beside, Y: m.height - above - m.cell*vg.Length(len(m.counts))}
}

func (m *matrixPicture) paint(c *draw.Canvas, title string) {
	n := len(m.counts)
	o, side := m.origin(), m.cell*vg.Length(n)
	heading := bold(label(12, ink, text.XLeft, text.YTop))
	write(c, heading, o.X, m.height-16, fitText(heading, title, m.width-o.X-8))
	if n <= namedClasses {
		m.paintCells(c)
		m.paintNames(c)
	} else {
		c.DrawImage(vg.Rectangle{Min: o, Max: vg.Point{X: o.X + side, Y: o.Y + side}}, m.pixels())
		m.paintTicks(c)
	}
	c.StrokeLines(line(0.8, frames), []vg.Point{o, {X: o.X + side, Y: o.Y}, {X: o.X + side, Y: o.Y + side}, {X: o.X, Y: o.Y + side}, o})
	write(c, label(10, ink, text.XCenter, text.YBottom), o.X+side/2, o.Y-m.below-18, "predicted class")
	axisTitle(c, "true class", 16, o.Y+side/2, ink)
	m.paintKey(c)
}

// paintCells paints the cells, and their numbers if there is room for them.
func (m *matrixPicture) paintCells(c *draw.Canvas) {
	o, n := m.origin(), len(m.counts)
	for i, row := range m.counts {
		y := o.Y + m.cell*vg.Length(n-1-i)
		for j, v := range row {
			x := o.X + m.cell*vg.Length(j)
			share := m.share(i, j)
			c.FillPolygon(shade(share, i == j), []vg.Point{{X: x, Y: y}, {X: x + m.cell, Y: y}, {X: x + m.cell, Y: y + m.cell}, {X: x, Y: y + m.cell}})
			if n > numberedCells || v == 0 {
				continue
			}
			ink := ink
			if strength(share) > 0.55 {
				ink = color.RGBA{255, 255, 255, 255}
			}
			txt := fmt.Sprint(v)
			s := label(m.font, ink, text.XCenter, text.YCenter)
			for s.Font.Size > 4 && s.Width(txt) > m.cell-3 {
				s.Font.Size--
			}
			write(c, s, x+m.cell/2, y+m.cell/2, txt)
		}
	}
	for i := 1; i < n; i++ {
		at := m.cell * vg.Length(i)
		side := m.cell * vg.Length(n)
		c.StrokeLine2(line(0.5, grids), o.X+at, o.Y, o.X+at, o.Y+side)
		c.StrokeLine2(line(0.5, grids), o.X, o.Y+at, o.X+side, o.Y+at)
	}
}

// paintNames writes the classes' names, and right of each row its accuracy.
func (m *matrixPicture) paintNames(c *draw.Canvas) {
	o, n := m.origin(), len(m.counts)
	row, column := label(m.font, ink, text.XRight, text.YCenter), label(m.font, ink, text.XCenter, text.YTop)
	if m.upright {
		column = label(m.font, ink, text.XRight, text.YCenter)
		column.Rotation = math.Pi / 2
	}
	right := o.X + m.cell*vg.Length(n) + 6
	for i, name := range m.names {
		middle := m.cell*vg.Length(i) + m.cell/2
		write(c, column, o.X+middle, o.Y-5, name)
		y := o.Y + m.cell*vg.Length(n) - middle
		write(c, row, o.X-5, y, name)
		if m.samples[i] > 0 {
			write(c, label(m.font, faint, text.XLeft, text.YCenter), right, y, fmt.Sprintf("%.1f %%", 100*m.share(i, i)))
		}
	}
	write(c, label(m.font, faint, text.XLeft, text.YBottom), right, o.Y+m.cell*vg.Length(n)+4, "accuracy")
}

// paintTicks numbers classes too many to be named.
func (m *matrixPicture) paintTicks(c *draw.Canvas) {
	o, n := m.origin(), len(m.counts)
	every := 10
	for n/every > 12 {
		every *= 10
		if n/(every/2) <= 12 {
			every /= 2
		}
	}
	for i := 0; i < n; i += every {
		middle := m.cell*vg.Length(i) + m.cell/2
		x, y := o.X+middle, o.Y+m.cell*vg.Length(n)-middle
		c.StrokeLine2(line(0.8, frames), x, o.Y, x, o.Y-3)
		c.StrokeLine2(line(0.8, frames), o.X-3, y, o.X, y)
		write(c, label(m.font, ink, text.XCenter, text.YTop), x, o.Y-6, fmt.Sprint(i))
		write(c, label(m.font, ink, text.XRight, text.YCenter), o.X-6, y, fmt.Sprint(i))
	}
}

// paintKey explains the colours.
func (m *matrixPicture) paintKey(c *draw.Canvas) {
	const height, steps, bar = 120, 60, 11
	x, y := m.key, m.height-above-height-14
	write(c, label(8, faint, text.XLeft, text.YBottom), x-8, y+height+4, "right  wrong")
	top := y + height
	for i := range steps {
		bottom := y + height*vg.Length(i)/steps // what lies higher is painted over
		share := math.Pow((float64(i)+0.5)/steps, 1/gamma)
		for k, isRight := range []bool{true, false} {
			l := x + vg.Length(k)*(bar+4)
			c.FillPolygon(shade(share, isRight), []vg.Point{{X: l, Y: bottom}, {X: l + bar, Y: bottom}, {X: l + bar, Y: top}, {X: l, Y: top}})
		}
	}
	for _, percent := range []float64{0, 1, 5, 20, 50, 100} {
		at := y + height*vg.Length(strength(percent/100))
		write(c, label(8, ink, text.XLeft, text.YCenter), x+bar*2+8, at, fmt.Sprintf("%g %%", percent))
	}
	write(c, label(8, faint, text.XCenter, text.YTop), x+bar+2, y-5, "of its class")
}

// pixels are the cells as an image, each at least one pixel and in all enough
// that enlarging them does not blur.
func (m *matrixPicture) pixels() image.Image {
	n := len(m.counts)
	k := (1200 + n - 1) / n
	p := image.NewRGBA(image.Rect(0, 0, n*k, n*k))
	for i, row := range m.counts {
		for j := range row {
			c := shade(m.share(i, j), i == j)
			for y := i * k; y < (i+1)*k; y++ {
				for x := j * k; x < (j+1)*k; x++ {
					p.SetRGBA(x, y, c)
				}
			}
		}
	}
	return p
}

// share is the share of a label's samples that a guess got.
func (m *matrixPicture) share(label, guess int) float64 {
	return float64(m.counts[label][guess]) / float64(max(m.samples[label], 1))
}

// gamma makes rare mistakes visible: strengths of colour are shares to its power.
const gamma = 0.5

func strength(share float64) float64 { return math.Pow(share, gamma) }

// shade is the colour of a cell: white to dark blue or dark red.
func shade(share float64, right bool) color.RGBA {
	full := color.RGBA{165, 15, 21, 255}
	if right {
		full = color.RGBA{8, 69, 148, 255}
	}
	s := strength(share)
	mix := func(to uint8) uint8 { return uint8(math.Round(255 + (float64(to)-255)*s)) }
	return color.RGBA{mix(full.R), mix(full.G), mix(full.B), 255}
}
