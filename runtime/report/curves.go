package report

import (
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// Curves draws train loss, validation loss and validation accuracy over
// epochs, on one pair of axes as d2l's board does, into curves.png and
// curves.svg. With nothing to draw it writes nothing.
func (h *History) Curves(title string) error {
	var train, loss, acc plotter.XYs
	for _, r := range h.records {
		if r.Kind == Interval {
			train = append(train, plotter.XY{X: r.Epoch, Y: r.TrainLoss})
		}
		if r.ValLoss != nil {
			loss = append(loss, plotter.XY{X: r.Epoch, Y: *r.ValLoss})
			acc = append(acc, plotter.XY{X: r.Epoch, Y: *r.ValAcc})
		}
	}
	if len(train)+len(loss) == 0 {
		return nil
	}
	p := plot.New()
	p.Title.Text = title
	p.X.Label.Text = "epoch"
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	for _, c := range []struct {
		name   string
		points plotter.XYs
		color  color.RGBA
		dashes []vg.Length
	}{
		{"train loss", train, color.RGBA{31, 119, 180, 255}, nil},
		{"val loss", loss, color.RGBA{255, 127, 14, 255}, []vg.Length{vg.Points(6), vg.Points(3)}},
		{"val accuracy", acc, color.RGBA{44, 160, 44, 255}, []vg.Length{vg.Points(2), vg.Points(2)}},
	} {
		if len(c.points) == 0 {
			continue
		}
		line, points, err := plotter.NewLinePoints(c.points)
		if err != nil {
			return fmt.Errorf("curves: %w", err)
		}
		line.Color, line.Width, line.Dashes = c.color, vg.Points(1.5), c.dashes
		points.Color, points.Radius = c.color, vg.Points(1.5)
		p.Add(line, points)
		p.Legend.Add(c.name, line, points)
	}
	p.X.Min, p.Y.Min = 0, 0
	p.Y.Max *= 1.2 // room for the legend
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.TickerFunc(ticks), plot.TickerFunc(ticks)
	p.Legend.XOffs = -vg.Points(6)
	for _, format := range []string{"png", "svg"} {
		w, err := p.WriterTo(16*vg.Centimeter, 10*vg.Centimeter, format)
		if err != nil {
			return fmt.Errorf("curves: %w", err)
		}
		if err := writeFile(filepath.Join(h.dir, "curves."+format), w); err != nil {
			return err
		}
	}
	return nil
}

// ticks labels an axis at six to twelve round values; gonum's own choice may
// label only its ends.
func ticks(low, high float64) []plot.Tick {
	step := math.Pow(10, math.Floor(math.Log10((high-low)/6)))
	for _, m := range []float64{5, 2} {
		if (high-low)/(m*step) >= 6 {
			step *= m
			break
		}
	}
	if !(step > 0) || math.IsInf(step, 0) {
		return nil
	}
	var out []plot.Tick
	for i := math.Ceil(low / step); i*step <= high; i++ {
		out = append(out, plot.Tick{Value: i * step, Label: strconv.FormatFloat(i*step, 'g', 4, 64)})
	}
	return out
}
