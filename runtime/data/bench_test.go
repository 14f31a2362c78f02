package data

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"testing"
)

// BenchmarkPicture is what a training image of a usual photograph costs, in its
// parts: 500×375 to 224×224.
func BenchmarkPicture(b *testing.B) {
	img := image.NewRGBA(image.Rect(0, 0, 500, 375))
	for i := range 500 * 375 {
		x, y := float64(i%500), float64(i/500)
		img.Set(i%500, i/500, color.RGBA{uint8(128 + 100*math.Sin(x/9+y/31)), uint8(128 + 90*math.Cos(y/13)), uint8(i * 7 >> 5), 255})
	}
	var file bytes.Buffer
	if err := jpeg.Encode(&file, img, &jpeg.Options{Quality: 90}); err != nil {
		b.Fatal(err)
	}
	p, err := openPicture(file.Bytes())
	if err != nil {
		b.Fatal(err)
	}
	decoded, err := p.decode()
	if err != nil {
		b.Fatal(err)
	}
	f, err := newFitter(Config{Image: [3]int{3, 224, 224}, Fit: "crop"})
	if err != nil {
		b.Fatal(err)
	}
	z, err := NewNormalizer(f.shape, []float64{0.5}, []float64{0.5})
	if err != nil {
		b.Fatal(err)
	}
	pixels, planes, out := make([]uint8, 3*224*224), make([]uint8, 3*500*375), make([]float32, 3*224*224)
	m := &scratch{file: file.Bytes()}
	fail := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	full, window := f.place(375, 500)
	m.resizer.reset([2]int{375, 500}, full, window)
	for name, run := range map[string]func(){
		"decode":    func() { _, err := p.decode(); fail(err) },
		"convert":   func() { fail(p.planes(planes, decoded, box{0, 0, 375, 500}, 3)) },
		"resize":    func() { m.resizer.apply(pixels[:224*224], planes[:375*500], 500) },
		"normalize": func() { z.ApplyMoved(out, pixels, 3, -4, true) },
		"all":       func() { fail(f.make(m, pixels, nil)); z.ApplyMoved(out, pixels, 3, -4, true) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
		})
	}
}
