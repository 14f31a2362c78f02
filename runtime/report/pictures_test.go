package report

import (
	"encoding/xml"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func readPNG(t *testing.T, path string) image.Image {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := png.Decode(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return m
}

// readSVG is the text in a well-formed SVG, a line for each piece.
func readSVG(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var txt strings.Builder
	d := xml.NewDecoder(strings.NewReader(string(b)))
	for inText := false; ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return txt.String()
		} else if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		switch k := token.(type) {
		case xml.StartElement:
			inText = k.Name.Local == "text"
		case xml.EndElement:
			inText = false
		case xml.CharData:
			if inText {
				txt.WriteString(string(k) + "\n")
			}
		}
	}
}

func rgba(c color.Color) color.RGBA { return color.RGBAModel.Convert(c).(color.RGBA) }

// near reports whether a colour is within 3 levels of another.
func near(a, b color.Color) bool {
	p, q := rgba(a), rgba(b)
	for _, d := range []int{int(p.R) - int(q.R), int(p.G) - int(q.G), int(p.B) - int(q.B)} {
		if d < -3 || d > 3 {
			return false
		}
	}
	return true
}

// has reports whether a colour is within some pixels of a place in points from
// the lower left corner.
func has(m image.Image, x, y float64, c color.Color) bool {
	px, py := int(math.Round(2*x)), m.Bounds().Dy()-int(math.Round(2*y))
	for dy := -3; dy <= 3; dy++ {
		for dx := -3; dx <= 3; dx++ {
			if near(m.At(px+dx, py+dy), c) {
				return true
			}
		}
	}
	return false
}

// TestCurves: every curve goes through its points, where the axes say they are.
func TestCurves(t *testing.T) {
	dir := t.TempDir()
	h := mustOpen(t, dir)
	if err := h.Curves("nothing yet"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "curves.png")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing was drawn: %v", err)
	}
	learn(t, h, 5, 40) // four epochs; the learning rate 0.5/epoch, from 1 on
	if err := h.Curves("a <model> & more"); err != nil {
		t.Fatal(err)
	}
	m := readPNG(t, filepath.Join(dir, "curves.png"))
	if m.Bounds() != image.Rect(0, 0, 1040, 800) {
		t.Fatalf("the picture has bounds %v", m.Bounds())
	}
	// The axes go from 0 to 4 epochs, 2 (loss), 1 (accuracy) and 1 (rate).
	x := func(epoch float64) float64 { return float64(left) + epoch/4*float64(curvesWidth-left-right) }
	y := func(share float64, bottom, top float64) float64 { return bottom + share*(top-bottom) }
	for _, r := range h.Records() {
		loss := func(v float64) float64 { return y(v/2, float64(lossBottom), float64(lossTop)) }
		if r.Kind == Interval {
			if !has(m, x(r.Epoch), loss(r.TrainLoss), blue) {
				t.Errorf("train loss %g of epoch %g is not in the picture", r.TrainLoss, r.Epoch)
			}
			if !has(m, x(r.Epoch), y(r.LR, float64(lrBottom), float64(lrTop)), red) {
				t.Errorf("learning rate %g of epoch %g is not in the picture", r.LR, r.Epoch)
			}
			continue
		}
		if !has(m, x(r.Epoch), loss(*r.ValLoss), orange) {
			t.Errorf("val loss %g of epoch %g is not in the picture", *r.ValLoss, r.Epoch)
		}
		if !has(m, x(r.Epoch), y(*r.ValAcc, float64(lossBottom), float64(lossTop)), green) {
			t.Errorf("val accuracy %g of epoch %g is not in the picture", *r.ValAcc, r.Epoch)
		}
	}
	txt := readSVG(t, filepath.Join(dir, "curves.svg"))
	for _, want := range []string{"a <model> & more\n", "train loss 0.46\n", "val loss 0.5714\n", "val accuracy 80.00 %\n", "learning rate\n", "epoch\n", "\n1.6\n", "\n60 %\n"} {
		if !strings.Contains(txt, want) {
			t.Errorf("no %q in the SVG's text\n%s", want, txt)
		}
	}
	// One record is enough, and no learning rate and a loss of 0 are no reason
	// to fail.
	one := mustOpen(t, t.TempDir())
	if err := one.Add(Record{Kind: Interval, Step: 1}); err != nil {
		t.Fatal(err)
	}
	if err := one.Curves("one"); err != nil {
		t.Error(err)
	}
}

// Refresh does not draw again and again, and what it leaves out is drawn in the
// end.
func TestRefresh(t *testing.T) {
	h := mustOpen(t, t.TempDir())
	learn(t, h, 5, 10)
	path := filepath.Join(h.dir, "curves.svg")
	if err := h.Refresh("first"); err != nil {
		t.Fatal(err)
	}
	h.cost = time.Hour
	if err := h.Refresh("second"); err != nil {
		t.Fatal(err)
	}
	if txt := readSVG(t, path); !strings.Contains(txt, "first\n") {
		t.Errorf("after two drawings at once the SVG says\n%s", txt)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if txt := readSVG(t, path); !strings.Contains(txt, "second\n") {
		t.Errorf("in the end the SVG says\n%s", txt)
	}
}

func TestBestAccuracyIsNamed(t *testing.T) {
	h := mustOpen(t, t.TempDir())
	for i, acc := range []float64{0.5, 0.9, 0.8} {
		loss := 1.0
		if err := h.Add(Record{Kind: Epoch, Step: i + 1, Epoch: float64(i + 1), ValLoss: &loss, ValAcc: &acc}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Curves("m"); err != nil {
		t.Fatal(err)
	}
	if txt := readSVG(t, filepath.Join(h.dir, "curves.svg")); !strings.Contains(txt, "val accuracy 80.00 %, best 90.00 %\n") {
		t.Errorf("the SVG says\n%s", txt)
	}
}

func TestAxes(t *testing.T) {
	for _, c := range []struct {
		most  float64
		parts int
		texts string
	}{
		{2.35, 5, "0 0.5 1.0 1.5 2.0 2.5"},
		{1.9, 5, "0 0.4 0.8 1.2 1.6 2.0"},
		{0.002, 2, "0 0.001 0.002"},
		{1e-5, 2, "0 5e-06 1e-05"},
		{7, 5, "0 1.5 3.0 4.5 6.0 7.5"},
		{0, 2, "0 0.5 1.0"},
		{math.Inf(1), 2, "0 0.5 1.0"},
	} {
		top, ticks := scale(c.most, c.parts)
		if got := strings.Join(numbers(ticks), " "); got != c.texts {
			t.Errorf("%g in %d parts: %s, want %s", c.most, c.parts, got, c.texts)
		}
		if !math.IsInf(c.most, 0) && top < c.most*(1-1e-9) {
			t.Errorf("%g is above the top %g", c.most, top)
		}
	}
	for most, want := range map[float64]string{40: "0 5 10 15 20 25 30 35 40", 6: "0 1 2 3 4 5 6", 1: "0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1.0", 300: "0 50 100 150 200 250 300"} {
		if got := strings.Join(numbers(ticks(most)), " "); got != want {
			t.Errorf("ticks up to %g are %s, want %s", most, got, want)
		}
	}
	var long []point
	for i := range 10 * maxPoints {
		long = append(long, point{float64(i), 2 * float64(i)})
	}
	if thinned := thin(long); len(thinned) != maxPoints || thinned[1] != (point{14.5, 29}) {
		t.Errorf("%d points, the second of them %v", len(thinned), thinned[1])
	}
}

// diagonal is a matrix of n classes: of 20 samples each 19 right, and one taken
// for the next class.
func diagonal(n int) (names []string, counts [][]int) {
	for i := range n {
		row := make([]int, n)
		row[i] += 19
		row[(i+1)%n]++
		names, counts = append(names, fmt.Sprintf("class %d", i)), append(counts, row)
	}
	return names, counts
}

// TestConfusion looks at the middle of every cell, and beside its number.
func TestConfusion(t *testing.T) {
	for _, n := range []int{2, 10, 25, 26, 60, 61, 150} {
		dir := t.TempDir()
		names, counts := diagonal(n)
		if err := Confusion(dir, "title", names, counts); err != nil {
			t.Fatal(err)
		}
		m := newMatrix(names, counts)
		p := readPNG(t, filepath.Join(dir, "confusion.png"))
		if want := image.Pt(int(2*m.width+0.5), int(2*m.height+0.5)); p.Bounds().Size() != want {
			t.Fatalf("%d classes: size %v, want %v", n, p.Bounds().Size(), want)
		}
		o, wrong := m.origin(), 0
		for i := range n {
			for j := range n {
				// A sixth of the cell from its upper left corner.
				x := 2 * (float64(o.X) + float64(m.cell)*(float64(j)+1.0/6))
				y := float64(p.Bounds().Dy()) - 2*(float64(o.Y)+float64(m.cell)*(float64(n-1-i)+5.0/6))
				want := shade(float64(counts[i][j])/20, i == j)
				if !near(p.At(int(x), int(y)), want) && !near(p.At(int(x)+1, int(y)+1), want) {
					wrong++
					if wrong < 4 {
						t.Errorf("%d classes: cell %d, %d is %v, want %v", n, i, j, p.At(int(x), int(y)), want)
					}
				}
			}
		}
		txt := readSVG(t, filepath.Join(dir, "confusion.svg"))
		if got := strings.Count(txt, "class 1\n"); got != map[bool]int{true: 2, false: 0}[n <= namedClasses] {
			t.Errorf("%d classes: a name is there %d times", n, got)
		}
		if got := strings.Count(txt, "\n19\n"); n <= numberedCells && got != n || n > numberedCells && got != 0 {
			t.Errorf("%d classes: a number is there %d times", n, got)
		}
		if n <= namedClasses && strings.Count(txt, "95.0 %\n") != n {
			t.Errorf("%d classes: accuracies are missing in\n%s", n, txt)
		}
	}
	if err := Confusion(t.TempDir(), "", []string{"a"}, [][]int{{1, 0}, {0, 1}}); err == nil {
		t.Error("a class has no name")
	}
}

// Names are what users call their directories.
func TestConfusionOfOddNames(t *testing.T) {
	dir := t.TempDir()
	if err := Confusion(dir, "a\x01b\nc", []string{"", "\x00\x1b[31m<red>", "\xff\xfe", strings.Repeat("wide", 100)}, [][]int{{1, 2, 3, 4}, {0, 0, 0, 0}, {9, 9, 9, 9}, {0, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	txt := readSVG(t, filepath.Join(dir, "confusion.svg"))
	for _, want := range []string{"a\uFFFDb\uFFFDc\n", "\uFFFD\uFFFD[31m<red>\n", "widewidewidewidewidewid…\n"} {
		if !strings.Contains(txt, want) {
			t.Errorf("no %q in the SVG's text\n%s", want, txt)
		}
	}
	if p := readPNG(t, filepath.Join(dir, "confusion.png")); p.Bounds().Dx() > 1500 {
		t.Errorf("the picture has bounds %v", p.Bounds())
	}
}

func TestShade(t *testing.T) {
	white := color.RGBA{255, 255, 255, 255}
	if shade(0, true) != white || shade(0, false) != white {
		t.Error("an empty cell is not white")
	}
	if r, w := shade(1, true), shade(1, false); r.B < 140 || r.R > 20 || w.R < 160 || w.B > 30 {
		t.Errorf("right is %v and wrong is %v", r, w)
	}
	if faint := shade(0.01, false); faint.G > 235 {
		t.Errorf("one in a hundred is %v, which nobody sees", faint)
	}
}

func TestTiles(t *testing.T) {
	if Tiles(nil) != nil {
		t.Error("no tiles make a picture")
	}
	var tiles []Tile
	for i := range 6 {
		small := Pixels([3]int{1, 2, 3}, []uint8{0, 50, 100, 150, 200, uint8(i)})
		tiles = append(tiles, Tile{small, [2]string{"true: a name that is much too long for it", "guess: 3"}})
	}
	big := image.NewRGBA(image.Rect(0, 0, 300, 150)) // reduced by 4, to 75 × 37
	for i := range big.Pix {
		big.Pix[i] = 255
	}
	for y := range 4 {
		big.SetRGBA(0, y, color.RGBA{255, 0, 0, 255})
	}
	tiles[5].Picture = big
	sheet := Tiles(tiles)
	if sheet.Bounds() != image.Rect(0, 0, 4*tileWidth, 2*tileHeight) {
		t.Fatalf("bounds %v", sheet.Bounds())
	}
	// 2×3 becomes 64×96, in the middle.
	left, top := (tileWidth-96)/2, 8+(tilePicture-64)/2
	for i, want := range []uint8{0, 50, 100, 150, 200} {
		for _, d := range []int{0, 31} {
			if got := rgba(sheet.At(left+i%3*32+d, top+i/3*32+d)); got != (color.RGBA{want, want, want, 255}) {
				t.Errorf("pixel %d is %v, want %d", i, got, want)
			}
		}
	}
	corner := rgba(sheet.At(tileWidth+(tileWidth-75)/2, tileHeight+8+(tilePicture-37)/2))
	if corner != (color.RGBA{255, 191, 191, 255}) {
		t.Errorf("the mean of 16 pixels, 4 of them red, is %v", corner)
	}
	// The captions are there, and in their tiles.
	dark := func(x0, x1, y0, y1 int) (n int) {
		for y := y0; y < y1; y++ {
			for x := x0; x < x1; x++ {
				if c := rgba(sheet.At(x, y)); int(c.R)+int(c.G)+int(c.B) < 500 {
					n++
				}
			}
		}
		return n
	}
	for i := range 6 {
		x, y := i%4*tileWidth, i/4*tileHeight
		if n := dark(x, x+tileWidth, y+tilePicture+10, y+tileHeight); n < 100 {
			t.Errorf("tile %d has a caption of %d dark pixels", i, n)
		}
		if n := dark(x, x+2, y+tilePicture+10, y+tileHeight) + dark(x+tileWidth-2, x+tileWidth, y+tilePicture+10, y+tileHeight); n > 0 {
			t.Errorf("the caption of tile %d touches its side", i)
		}
	}
}

func TestShrink(t *testing.T) {
	noise := image.NewRGBA(image.Rect(10, 20, 10+300, 20+130))
	for i := range noise.Pix {
		noise.Pix[i] = uint8(255 * (i & 1))
	}
	for i := 3; i < len(noise.Pix); i += 4 {
		noise.Pix[i] = 255
	}
	small := Shrink(noise, 128)
	if got := small.Bounds(); got != image.Rect(0, 0, 100, 44) {
		t.Errorf("shrunk to %v", got)
	}
	if got := small.At(99, 43); got != (color.RGBA{0, 255, 0, 255}) {
		t.Errorf("a pixel is %v", got)
	}
	half := image.NewGray(image.Rect(0, 0, 256, 2))
	for i := range half.Pix {
		half.Pix[i] = uint8(200 * (i & 1))
	}
	if got := Shrink(half, 128).At(7, 0); got != (color.RGBA{100, 100, 100, 255}) {
		t.Errorf("a mean is %v", got)
	}
	if got := Shrink(small, 128); got != small {
		t.Error("a small picture is made anew")
	}
}

func TestPixels(t *testing.T) {
	colours := Pixels([3]int{3, 1, 2}, []uint8{1, 2, 3, 4, 5, 6})
	if a, b := rgba(colours.At(0, 0)), rgba(colours.At(1, 0)); a != (color.RGBA{1, 3, 5, 255}) || b != (color.RGBA{2, 4, 6, 255}) {
		t.Errorf("pixels %v and %v", a, b)
	}
	if grey := Pixels([3]int{1, 1, 2}, []uint8{7, 9}); !reflect.DeepEqual(grey.At(1, 0), color.Gray{9}) {
		t.Errorf("a grey pixel is %v", grey.At(1, 0))
	}
}
