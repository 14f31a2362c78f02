package runtime_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/vitgen/vitgen/generated/vit_tiny"
	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/data"
)

// A generated package's New is this with its own model, and what it returns has
// all of a Session's methods.
func ExampleNewSession() {
	s, err := runtime.NewSession(vit_tiny.Describe(), runtime.Options{Device: "cpu", Seed: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	m := s.Model()
	fmt.Println(m.Name, "takes images of", m.Image, "and knows", m.Classes, "classes")
	fmt.Println(len(m.Params), "parameters, the first is", m.Params[0].Name, m.Params[0].Shape)
	// Output:
	// vit_tiny takes images of [1 8 8] and knows 10 classes
	// 32 parameters, the first is patch.weight [64 1 2 2]
}

// Each call is one update of the optimizer, from at most train.batch images, or
// train.accumulate times as many.
func ExampleSession_Step() {
	m, err := vit_tiny.New(runtime.Options{Device: "cpu", Seed: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	const updates = 60
	images, labels := firstDigits(m.Model(), 64)
	m.SetSteps(updates, updates) // for the learning-rate schedule
	for k := range updates {
		loss, _, err := m.Step(images, labels)
		if err != nil {
			log.Fatal(err)
		}
		if k == 0 {
			fmt.Printf("the loss starts above 2: %t\n", loss > 2)
		}
	}
	_, correct, err := m.Eval(images, labels, 64)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d of 64 learned by heart after %d updates\n", correct, m.Updates())
	// Output:
	// the loss starts above 2: true
	// 64 of 64 learned by heart after 60 updates
}

// Save writes a PyTorch state_dict with the names of the classes, and Load
// takes any file that has every parameter in its shape.
func ExampleSession_Load() {
	dir, err := os.MkdirTemp("", "vitgen")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "weights.safetensors")

	first, err := vit_tiny.New(runtime.Options{Device: "cpu", Seed: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer first.Close()
	if err := first.SetClasses([]string{"zero", "one", "two"}); err != nil {
		log.Fatal(err)
	}
	if err := first.Save(file); err != nil {
		log.Fatal(err)
	}

	second, err := vit_tiny.New(runtime.Options{Device: "cpu", Seed: 2})
	if err != nil {
		log.Fatal(err)
	}
	defer second.Close()
	if err := second.Load(file); err != nil {
		log.Fatal(err)
	}
	images, _ := firstDigits(first.Model(), 1)
	a, err := first.Forward(images, 1)
	if err != nil {
		log.Fatal(err)
	}
	b, err := second.Forward(images, 1)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the same logits:", fmt.Sprint(a) == fmt.Sprint(b))
	fmt.Println("class 2 is", second.ClassName(2))
	// Output:
	// the same logits: true
	// class 2 is two
}

// Images are normalized as in training; data.Preparer makes them of picture
// files.
func ExampleSession_Predict() {
	m, err := vit_tiny.New(runtime.Options{Device: "cpu", Seed: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	images, labels := firstDigits(m.Model(), 64)
	m.SetSteps(60, 60)
	for range 60 { // in place of Load
		if _, _, err := m.Step(images, labels); err != nil {
			log.Fatal(err)
		}
	}

	guesses, err := m.Predict(images[:3*64])
	if err != nil {
		log.Fatal(err)
	}
	for i, g := range guesses {
		fmt.Printf("image %d is class %d: %t, probability above one half: %t\n", i, labels[i], g.Class == int(labels[i]), g.Probability > 0.5)
	}
	top, err := m.PredictTop(images[:64], 3)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(top[0]), "classes, the likeliest first:", top[0][0] == guesses[0])
	// Output:
	// image 0 is class 0: true, probability above one half: true
	// image 1 is class 1: true, probability above one half: true
	// image 2 is class 2: true, probability above one half: true
	// 3 classes, the likeliest first: true
}

// firstDigits are images that are built into the runtime, normalized, with
// their labels.
func firstDigits(m *runtime.Model, n int) (images []float32, labels []int32) {
	split, err := data.Open(data.Config{Name: "digits", Image: m.Image, Classes: m.Classes})
	if err != nil {
		log.Fatal(err)
	}
	z, err := data.NewNormalizer(m.Image, m.Data.Mean, m.Data.Std)
	if err != nil {
		log.Fatal(err)
	}
	images, labels = make([]float32, n*m.ImageElems()), make([]int32, n)
	pixels := make([]uint8, m.ImageElems())
	for i := range n {
		label, err := split.Train.Sample(i, pixels)
		if err != nil {
			log.Fatal(err)
		}
		z.Apply(images[i*len(pixels):][:len(pixels)], pixels)
		labels[i] = int32(label)
	}
	return images, labels
}
