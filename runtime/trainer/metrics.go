package trainer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"github.com/google/renameio/v2"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// record is one line of metrics.jsonl.
type record struct {
	Kind          string   `json:"kind"`  // "interval" within an epoch, or "epoch" at its end
	Step          int      `json:"step"`  // updates made
	Epoch         float64  `json:"epoch"` // epochs made
	LR            float64  `json:"lr"`    // of the last update
	TrainLoss     float64  `json:"train_loss"`
	ValLoss       *float64 `json:"val_loss,omitempty"`
	ValAcc        *float64 `json:"val_acc,omitempty"`
	SamplesPerSec float64  `json:"samples_per_sec"` // of training alone
}

// history is the run's records, in memory for the curves and in metrics.jsonl.
type history struct {
	file    *os.File
	records []record
}

func newHistory(dir string) (*history, error) {
	f, err := os.Create(filepath.Join(dir, "metrics.jsonl"))
	if err != nil {
		return nil, err
	}
	return &history{file: f}, nil
}

// add appends a record, in memory and at once in the file.
func (h *history) add(r record) error {
	h.records = append(h.records, r)
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	_, err = h.file.Write(append(line, '\n'))
	return err
}

// curves draws train loss, validation loss and validation accuracy over
// epochs, on one pair of axes as d2l's board does, into curves.png and
// curves.svg. With nothing to draw it writes nothing.
func (h *history) curves(dir, title string) error {
	var train, loss, acc plotter.XYs
	for _, r := range h.records {
		if r.Kind == "interval" {
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
		var picture bytes.Buffer
		if _, err := w.WriteTo(&picture); err != nil {
			return fmt.Errorf("curves: %w", err)
		}
		if err := renameio.WriteFile(filepath.Join(dir, "curves."+format), picture.Bytes(), 0o644); err != nil {
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
