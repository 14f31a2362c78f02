package library_test

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log"

	"github.com/vitgen/vitgen/generated/vit_tiny"
	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/data"
)

// A picture of any size and color is brought to what the model takes, as
// evaluation does it. Preparer.File reads one from disk.
func Example_picture() {
	m, err := vit_tiny.New(runtime.Options{Device: "cpu", Seed: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	model := m.Model()
	prepare, err := data.NewPreparer(data.Config{Name: model.Data.Name, Image: model.Image, Fit: model.Data.Fit},
		model.Data.Mean, model.Data.Std)
	if err != nil {
		log.Fatal(err)
	}

	photo := image.NewRGBA(image.Rect(0, 0, 300, 200))
	for x := range 300 {
		for y := range 200 {
			photo.Set(x, y, color.RGBA{uint8(x), uint8(y), 99, 255})
		}
	}
	var file bytes.Buffer
	if err := png.Encode(&file, photo); err != nil {
		log.Fatal(err)
	}
	input := make([]float32, model.ImageElems())
	if err := prepare.Decode(&file, input); err != nil {
		log.Fatal(err)
	}
	top, err := m.PredictTop(input, model.Classes)
	if err != nil {
		log.Fatal(err)
	}
	sum := 0.0
	for _, p := range top[0] {
		sum += p.Probability
	}
	fmt.Printf("%d classes, probabilities that sum to %.3f\n", len(top[0]), sum)
	// Output:
	// 10 classes, probabilities that sum to 1.000
}
