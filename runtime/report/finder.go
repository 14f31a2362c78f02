package report

import (
	"fmt"
	"math"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Rate is one update of a search for a learning rate.
type Rate struct {
	LR     float64 `json:"lr"`
	Loss   float64 `json:"loss"`
	Smooth float64 `json:"smooth"` // moving average of the losses
}

// Rates draws losses over learning rates, on a logarithmic axis, with the one
// that is suggested (0: none), into find-lr.png and find-lr.svg in a directory.
func Rates(dir, title string, rates []Rate, suggested float64) error {
	if len(rates) < 2 {
		return nil
	}
	return save(dir, "find-lr", curvesWidth, 300, func(c *draw.Canvas) { paintRates(c, title, rates, suggested) })
}

func paintRates(c *draw.Canvas, title string, rates []Rate, suggested float64) {
	write(c, bold(label(12, ink, text.XLeft, text.YTop)), left, 288, shorten(title, 60))
	start := math.Log10(rates[0].LR)
	var losses, smooth []point
	least, most := math.Inf(1), 0.0
	for _, r := range rates {
		x := math.Log10(r.LR) - start
		losses = append(losses, point{x, r.Loss})
		smooth = append(smooth, point{x, r.Smooth})
		least, most = min(least, r.Smooth), max(most, r.Smooth)
	}
	p := panel{Canvas: c, box: box(46, 250), x1: smooth[len(smooth)-1].x}
	var ticks []float64
	// The last losses may be many times those that matter.
	p.y1, ticks = scale(min(most, 1.7*rates[0].Smooth), 5)
	p.frame(nil, ticks, false)
	for d := math.Ceil(start); d <= start+p.x1+1e-9; d++ {
		at := p.at(d-start, 0)
		p.StrokeLine2(line(0.6, grids), at.X, p.box.Min.Y, at.X, p.box.Max.Y)
		write(c, label(9, ink, text.XCenter, text.YTop), at.X, at.Y-5, fmt.Sprintf("%.0e", math.Pow(10, d)))
	}
	axisTitle(c, "loss", left-46, 148, ink)
	write(c, label(10, ink, text.XCenter, text.YBottom), (left+curvesWidth-right)/2, 10, "learning rate")
	x := legend(c, curve{name: "loss", color: frames}, left, 264)
	x = legend(c, curve{name: "its moving average", color: blue}, x, 264)
	p.draw(curve{points: p.clip(losses), color: frames})
	p.draw(curve{points: p.clip(smooth), color: blue})
	if suggested > 0 {
		k := curve{name: fmt.Sprintf("suggested: %.2g", suggested), color: red, dashes: []vg.Length{6, 3}}
		at := p.at(math.Log10(suggested)-start, 0)
		p.StrokeLine2(line(1.2, red, k.dashes...), at.X, p.box.Min.Y, at.X, p.box.Max.Y)
		legend(c, k, x, 264)
	}
}

// clip keeps a curve below the panel's top.
func (p *panel) clip(points []point) (out []point) {
	for _, q := range points {
		out = append(out, point{q.x, min(q.y, p.y1)})
	}
	return out
}
