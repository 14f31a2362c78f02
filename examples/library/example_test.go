// Package library_test shows a generated package used as a library: a program
// of its own trains, saves, loads and predicts, without the trainer's commands.
// README.md has its calls in short.
package library_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/vitgen/vitgen/generated/vit_tiny"
	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/data"
)

func Example() {
	m, err := vit_tiny.New(runtime.Options{Device: "auto"})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	train, val, err := digits(m.Model())
	if err != nil {
		log.Fatal(err)
	}
	const per, epochs = 64, 12 // images a step
	steps := len(train.Labels) / per
	m.SetSteps(steps, epochs*steps) // for the learning-rate schedule
	for range epochs {
		for i := range steps {
			from, to := i*per, (i+1)*per
			if _, _, err := m.Step(train.Images[from*64:to*64], train.Labels[from:to]); err != nil {
				log.Fatal(err)
			}
		}
	}

	dir, err := os.MkdirTemp("", "vitgen")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "digits.safetensors")
	if err := m.Save(file); err != nil { // torch can load it, too
		log.Fatal(err)
	}
	if err := m.Load(file); err != nil {
		log.Fatal(err)
	}
	guesses, err := m.Predict(val.Images[:5*64])
	if err != nil {
		log.Fatal(err)
	}
	for i, g := range guesses {
		fmt.Printf("a %d, read as %d\n", val.Labels[i], g.Class)
	}
	// Output:
	// a 6, read as 6
	// a 0, read as 0
	// a 2, read as 2
	// a 2, read as 2
	// a 0, read as 0
}

// digits reads the images that are built into the runtime, in two parts and
// normalized: 8×8 = 64 numbers each.
func digits(m *runtime.Model) (train, val data.Batch, err error) {
	split, err := data.Open(data.Config{Name: "digits", Image: m.Image, Classes: m.Classes})
	if err != nil {
		return train, val, err
	}
	z, err := data.NewNormalizer(m.Image, m.Data.Mean, m.Data.Std)
	if err != nil {
		return train, val, err
	}
	read := func(d data.Dataset, to *data.Batch) error {
		loader := data.Loader{Data: d, Normalize: z, Batch: m.Batch, Shuffle: true, Seed: 1}
		for b, err := range loader.Epoch(0, 0) { // in whatever order this seed gives
			if err != nil {
				return err
			}
			to.Images = append(to.Images, b.Images...)
			to.Labels = append(to.Labels, b.Labels...)
		}
		return nil
	}
	if err := read(split.Train, &train); err != nil {
		return train, val, err
	}
	return train, val, read(split.Val, &val)
}
