package report

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"github.com/google/renameio/v2"
	plotfont "gonum.org/v1/plot/font"
	"gonum.org/v1/plot/font/liberation"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Colours of curves and text: those of d2l's figures, and greys.
var (
	blue   = color.RGBA{31, 119, 180, 255}
	orange = color.RGBA{255, 127, 14, 255}
	green  = color.RGBA{44, 160, 44, 255}
	red    = color.RGBA{214, 39, 40, 255}
	ink    = color.RGBA{38, 38, 38, 255}
	faint  = color.RGBA{110, 110, 110, 255}
	frames = color.RGBA{176, 176, 176, 255}
	grids  = color.RGBA{230, 230, 230, 255}
)

// dpi of PNG pictures; lengths are in points of 1/72 inch.
const dpi = 144

// save paints a picture of w by h points twice, into DIR/NAME.png and .svg, each
// of which is replaced at once or not at all.
func save(dir, name string, w, h vg.Length, paint func(*draw.Canvas)) error {
	raster := vgimg.NewWith(vgimg.UseWH(w, h), vgimg.UseDPI(dpi))
	c := draw.New(raster)
	paint(&c)
	if err := writeFile(filepath.Join(dir, name+".png"), vgimg.PngCanvas{Canvas: raster}); err != nil {
		return err
	}
	vector := vgsvg.New(w, h)
	c = draw.New(vector)
	c.SetColor(color.White)
	c.Fill(c.Path())
	paint(&c)
	var b bytes.Buffer
	path := filepath.Join(dir, name+".svg")
	if _, err := vector.WriteTo(&b); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	// Whoever looks at it may lack the font; the others have the same widths.
	svg := bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	return renameio.WriteFile(path, svg, 0o644)
}

var fonts = text.Plain{Fonts: plotfont.NewCache(liberation.Collection())}

// label is a style of text of a size in points.
func label(size vg.Length, c color.Color, x text.XAlignment, y text.YAlignment) text.Style {
	return text.Style{
		Color: c, XAlign: x, YAlign: y, Handler: fonts,
		Font: plotfont.Font{Typeface: "Liberation", Variant: "Sans", Size: size},
	}
}

// bold is a style in bold.
func bold(s text.Style) text.Style {
	s.Font.Weight = 3 // golang.org/x/image/font's WeightBold
	return s
}

// write puts text on the canvas. Names come from users and their directories:
// what is no character is shown as a mark, for it would spoil an SVG.
func write(c *draw.Canvas, s text.Style, x, y vg.Length, txt string) {
	txt = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, txt)
	c.FillText(s, vg.Point{X: x, Y: y}, txt)
}

// shorten cuts text to at most a number of characters.
func shorten(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// line is a style of lines of a width in points.
func line(width vg.Length, c color.Color, dashes ...vg.Length) draw.LineStyle {
	return draw.LineStyle{Color: c, Width: width, Dashes: dashes}
}

// panel is a rectangle of the canvas with a scale for each side.
type panel struct {
	*draw.Canvas
	box    vg.Rectangle
	x1, y1 float64 // values at the right and at the top; 0 is at the left and the bottom
}

func (p *panel) at(x, y float64) vg.Point {
	size := p.box.Size()
	return vg.Point{X: p.box.Min.X + size.X*vg.Length(x/p.x1), Y: p.box.Min.Y + size.Y*vg.Length(y/p.y1)}
}

// frame draws grid lines and labels at the ticks given, and the frame.
func (p *panel) frame(xs, ys []float64, xlabels bool) {
	texts := numbers(xs)
	for i, x := range xs {
		at := p.at(x, 0)
		p.StrokeLine2(line(0.6, grids), at.X, p.box.Min.Y, at.X, p.box.Max.Y)
		if xlabels {
			write(p.Canvas, label(9, ink, text.XCenter, text.YTop), at.X, at.Y-5, texts[i])
		}
	}
	texts = numbers(ys)
	for i, y := range ys {
		at := p.at(0, y)
		p.StrokeLine2(line(0.6, grids), p.box.Min.X, at.Y, p.box.Max.X, at.Y)
		write(p.Canvas, label(9, ink, text.XRight, text.YCenter), at.X-6, at.Y, texts[i])
	}
	min, max := p.box.Min, p.box.Max
	p.StrokeLines(line(0.8, frames), []vg.Point{min, {X: max.X, Y: min.Y}, max, {X: min.X, Y: max.Y}, min})
}

// numbers writes the values of equally spaced ticks, with as many decimals as
// the spacing has.
func numbers(ticks []float64) (texts []string) {
	if len(ticks) < 2 {
		return make([]string, len(ticks))
	}
	step := ticks[1] - ticks[0]
	short := strconv.FormatFloat(step, 'g', 3, 64)
	_, decimals, _ := strings.Cut(short, ".")
	for _, v := range ticks {
		if v == 0 {
			texts = append(texts, "0")
		} else if strings.Contains(short, "e") {
			texts = append(texts, strconv.FormatFloat(v, 'g', 4, 64))
		} else {
			texts = append(texts, strconv.FormatFloat(v, 'f', len(decimals), 64))
		}
	}
	return texts
}

// scale is a round top for an axis that starts at 0 and is to hold most, and the
// ticks that part it equally.
func scale(most float64, parts int) (top float64, ticks []float64) {
	if !(most > 0) || math.IsInf(most, 0) {
		most = 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(most/float64(parts))))
	step := 10 * unit
	for _, m := range []float64{1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8} {
		if m*unit*float64(parts) >= most*(1-1e-9) {
			step = m * unit
			break
		}
	}
	for i := range parts + 1 {
		ticks = append(ticks, float64(i)*step)
	}
	return step * float64(parts), ticks
}

// ticks are six to twelve round values from 0 up to most.
func ticks(most float64) (out []float64) {
	if !(most > 0) || math.IsInf(most, 0) {
		return nil
	}
	step := math.Pow(10, math.Floor(math.Log10(most/6)))
	for _, m := range []float64{5, 2} {
		if most/(m*step) >= 6 {
			step *= m
			break
		}
	}
	for i := 0.0; i*step <= most*(1+1e-9); i++ {
		out = append(out, i*step)
	}
	return out
}
