package report

import (
	"fmt"
	"image/color"
	"math"
	"time"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// curve is a line of the picture.
type curve struct {
	name   string // with its last value
	points []point
	color  color.Color
	dashes []vg.Length
}

type point struct{ x, y float64 } // x is in epochs

// Sizes of the picture, in points.
const (
	curvesWidth, curvesHeight vg.Length = 520, 400
	left, right               vg.Length = 60, 56 // of the axes, from the picture's sides
	lossTop, lossBottom       vg.Length = 348, 138
	lrTop, lrBottom           vg.Length = 112, 42
)

// maxPoints is how many points a curve is drawn of; neighbours of longer ones
// are averaged.
const maxPoints = 800

// Curves draws train loss, validation loss and validation accuracy over epochs
// as d2l's board does, and the learning rate below, into curves.png and
// curves.svg. Accuracies have a scale of their own, at the right. With nothing
// to draw it writes nothing.
func (h *History) Curves(title string) error {
	begin := time.Now()
	defer func() {
		h.drawn, h.stale = time.Now(), ""
		h.cost = h.drawn.Sub(begin)
	}()
	train, valLoss, valAcc, lr := h.series()
	if len(train)+len(valLoss) == 0 {
		return nil
	}
	return save(h.dir, "curves", curvesWidth, curvesHeight, func(c *draw.Canvas) {
		paintCurves(c, title, train, valLoss, valAcc, lr)
	})
}

// Refresh is Curves for after each epoch: it puts the drawing off if the last
// one was so short ago that a run of short epochs would spend more than a
// twentieth of its time drawing. Close makes up for it.
func (h *History) Refresh(title string) error {
	if time.Since(h.drawn) < 20*h.cost {
		h.stale = title
		return nil
	}
	return h.Curves(title)
}

// series are the records as curves.
func (h *History) series() (train, valLoss, valAcc, lr []point) {
	for _, r := range h.records {
		if r.Kind == Interval {
			train = append(train, point{r.Epoch, r.TrainLoss})
			lr = append(lr, point{r.Epoch, r.LR})
		}
		if r.ValLoss != nil {
			valLoss = append(valLoss, point{r.Epoch, *r.ValLoss})
		}
		if r.ValAcc != nil {
			valAcc = append(valAcc, point{r.Epoch, *r.ValAcc})
		}
	}
	return thin(train), thin(valLoss), thin(valAcc), thin(lr)
}

// thin averages neighbours of a long curve.
func thin(points []point) []point {
	n := len(points)
	if n <= maxPoints {
		return points
	}
	out := make([]point, maxPoints)
	for i := range out {
		part := points[i*n/maxPoints : (i+1)*n/maxPoints]
		for _, p := range part {
			out[i].x += p.x / float64(len(part))
			out[i].y += p.y / float64(len(part))
		}
	}
	return out
}

func paintCurves(c *draw.Canvas, title string, train, valLoss, valAcc, lr []point) {
	epochs := 0.0
	for _, points := range [][]point{train, valLoss, lr} {
		if n := len(points); n > 0 {
			epochs = max(epochs, points[n-1].x)
		}
	}
	if epochs == 0 {
		epochs = 1
	}
	xs := ticks(epochs)
	write(c, bold(label(12, ink, text.XLeft, text.YTop)), left, curvesHeight-12, shorten(title, 60))

	losses := panel{Canvas: c, box: box(lossBottom, lossTop), x1: epochs}
	var lossTicks []float64
	losses.y1, lossTicks = scale(max(largest(train), largest(valLoss)), 5)
	losses.frame(xs, lossTicks, false)
	axisTitle(c, "loss", left-46, (lossTop+lossBottom)/2, ink)
	curves := []curve{
		{"train loss" + last(train, "%.4g"), train, blue, nil},
		{"val loss" + last(valLoss, "%.4g"), valLoss, orange, []vg.Length{6, 3}},
	}
	if len(valAcc) > 0 {
		best := accuracyAxis(c, &losses, valAcc)
		curves = append(curves, curve{"val accuracy" + last(percent(valAcc), "%.2f %%") + best, scaled(valAcc, losses.y1), green, []vg.Length{7, 2, 1.5, 2}})
	}

	rates := panel{Canvas: c, box: box(lrBottom, lrTop), x1: epochs}
	var rateTicks []float64
	rates.y1, rateTicks = scale(largest(lr), 2)
	rates.frame(xs, rateTicks, true)
	axisTitle(c, "learning rate", left-46, (lrTop+lrBottom)/2, ink)
	write(c, label(10, ink, text.XCenter, text.YBottom), (left+curvesWidth-right)/2, 8, "epoch")

	x := left
	for _, k := range curves {
		losses.draw(k)
		if len(k.points) > 0 {
			x = legend(c, k, x, lossTop+14)
		}
	}
	rates.draw(curve{points: lr, color: red})
}

// box is the rectangle of a panel.
func box(bottom, top vg.Length) vg.Rectangle {
	return vg.Rectangle{Min: vg.Point{X: left, Y: bottom}, Max: vg.Point{X: curvesWidth - right, Y: top}}
}

// accuracyAxis draws the scale of accuracies at the right, and a ring at the
// best one; best says what that is unless it is the last.
func accuracyAxis(c *draw.Canvas, p *panel, acc []point) (best string) {
	for i := range 6 {
		share := float64(i) / 5
		at := p.at(p.x1, share*p.y1)
		write(c, label(9, green, text.XLeft, text.YCenter), at.X+6, at.Y, fmt.Sprintf("%.0f %%", 100*share))
	}
	axisTitle(c, "accuracy", curvesWidth-14, (lossTop+lossBottom)/2, green)
	top := acc[0]
	for _, a := range acc {
		if a.y > top.y {
			top = a
		}
	}
	c.DrawGlyphNoClip(draw.GlyphStyle{Color: green, Radius: 3.5, Shape: draw.RingGlyph{}}, p.at(top.x, top.y*p.y1))
	if top.y == acc[len(acc)-1].y {
		return ""
	}
	return fmt.Sprintf(", best %.2f %%", 100*top.y)
}

// axisTitle writes a title along a vertical axis.
func axisTitle(c *draw.Canvas, title string, x, y vg.Length, color color.Color) {
	s := label(10, color, text.XCenter, text.YCenter)
	s.Rotation = math.Pi / 2
	write(c, s, x, y, title)
}

// draw draws a curve; the points of a short one are marked.
func (p *panel) draw(k curve) {
	var at []vg.Point
	for _, q := range k.points {
		at = append(at, p.at(q.x, q.y))
	}
	p.StrokeLines(line(1.6, k.color, k.dashes...), at)
	if len(at) <= 60 {
		for _, q := range at {
			p.DrawGlyphNoClip(draw.GlyphStyle{Color: k.color, Radius: 1.7, Shape: draw.CircleGlyph{}}, q)
		}
	}
}

// legend explains a curve at x, y and returns where the next one goes.
func legend(c *draw.Canvas, k curve, x, y vg.Length) vg.Length {
	c.StrokeLine2(line(1.6, k.color, k.dashes...), x, y, x+24, y)
	s := label(9, ink, text.XLeft, text.YCenter)
	write(c, s, x+29, y, k.name)
	return x + 29 + s.Width(k.name) + 16
}

func largest(points []point) (y float64) {
	for _, p := range points {
		y = max(y, p.y)
	}
	return y
}

func scaled(points []point, by float64) (out []point) {
	for _, p := range points {
		out = append(out, point{p.x, p.y * by})
	}
	return out
}

func percent(points []point) []point { return scaled(points, 100) }

// last is the last value of a curve as text, after a space.
func last(points []point, format string) string {
	if len(points) == 0 {
		return ""
	}
	return fmt.Sprintf(" "+format, points[len(points)-1].y)
}
