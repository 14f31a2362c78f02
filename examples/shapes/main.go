// Shapes writes pictures to practise on: a folder for each of three classes,
// with drawings of circles, squares and triangles in random colours, places and
// sizes, as PNG files of different dimensions.
//
//	go run ./examples/shapes [-n PICTURES] [-seed N] DIR
//
// The tutorial trains on them; anything else that lies in a folder per class
// will do as well.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// inside tells whether a point belongs to a figure of radius 1 around 0, 0; y
// points down.
type inside func(x, y float64) bool

var figures = []struct {
	class string
	in    inside
}{
	{"circle", func(x, y float64) bool { return x*x+y*y < 0.8 }},
	{"square", func(x, y float64) bool { return math.Max(math.Abs(x), math.Abs(y)) < 0.78 }},
	{"triangle", func(x, y float64) bool { return y < 0.7 && math.Abs(x) < (y+1.1)/1.8 }},
}

func main() {
	n := flag.Int("n", 300, "pictures of each class")
	seed := flag.Uint64("seed", 1, "of everything random")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: shapes [flags] DIR")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 || *n < 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := write(flag.Arg(0), *n, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "shapes:", err)
		os.Exit(1)
	}
	fmt.Printf("%s: %d pictures of each of %d classes\n", flag.Arg(0), *n, len(figures))
}

// write makes n pictures of each class below dir.
func write(dir string, n int, seed uint64) error {
	for c, f := range figures {
		if err := os.MkdirAll(filepath.Join(dir, f.class), 0o755); err != nil {
			return err
		}
		random := rand.New(rand.NewPCG(seed, uint64(c)))
		for i := range n {
			if err := save(filepath.Join(dir, f.class, fmt.Sprintf("%03d.png", i)), draw(random, f.in)); err != nil {
				return err
			}
		}
	}
	return nil
}

func save(path string, picture image.Image) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	if err := png.Encode(w, picture); err != nil {
		f.Close()
		return err
	}
	if err := w.Flush(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// draw makes a picture of 40 to 80 pixels a side: a turned, bright figure on a
// dark ground, with noise over both.
func draw(random *rand.Rand, in inside) image.Image {
	w, h := 40+random.IntN(41), 40+random.IntN(41)
	size := float64(min(w, h)) * (0.3 + 0.15*random.Float64())
	cx := size + random.Float64()*(float64(w)-2*size)
	cy := size + random.Float64()*(float64(h)-2*size)
	sin, cos := math.Sincos((random.Float64() - 0.5) * math.Pi / 4)
	ground, ink := tint(random, 10, 80), tint(random, 130, 250)
	picture := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			share := coverage(in, float64(x)-cx, float64(y)-cy, size, sin, cos)
			var c [3]uint8
			for i := range c {
				v := ground[i] + share*(ink[i]-ground[i]) + 8*random.NormFloat64()
				c[i] = uint8(math.Max(0, math.Min(255, v)))
			}
			picture.SetRGBA(x, y, color.RGBA{c[0], c[1], c[2], 255})
		}
	}
	return picture
}

// coverage is the share of a pixel that lies in the figure, by 4×4 samples.
func coverage(in inside, x, y, size, sin, cos float64) float64 {
	const n = 4
	hits := 0
	for i := range n * n {
		px, py := x+(float64(i%n)+0.5)/n, y+(float64(i/n)+0.5)/n
		if in((px*cos+py*sin)/size, (py*cos-px*sin)/size) {
			hits++
		}
	}
	return float64(hits) / (n * n)
}

// tint is a colour whose channels lie between lo and hi.
func tint(random *rand.Rand, lo, hi float64) [3]float64 {
	var c [3]float64
	for i := range c {
		c[i] = lo + random.Float64()*(hi-lo)
	}
	return c
}
