package gogen

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/spec"
)

// TestSections: what the trainer is told of a spec's options.
func TestSections(t *testing.T) {
	parse := func(train, data string) *spec.Spec {
		t.Helper()
		s, err := spec.Parse("x.yaml", []byte("vitgen: 1\nname: x\ninput: {image: [3, 32, 32], classes: 10}\n"+
			"model: [flatten, {linear: {name: head, out: 10}}]\n"+
			"train: {batch: 2, epochs: 3, optimizer: {sgd: {lr: 0.1}}"+train+"}\ndata: "+data+"\n"))
		if err != nil {
			t.Fatalf("\n%v", err)
		}
		return s
	}
	s := parse(", ema: {decay: 0.99, warmup: true}, early_stop: 5, best: loss, skip_outliers: {z: 4, window: 64}",
		"{image_folder: {val: 0.25, augment: {random_resized_crop, flip: 0.5, cutmix: 1}}}")
	text := fmt.Sprintf("%#v\n%#v\n", train(s), data(s.Data))
	for _, want := range []string{
		`runtime.EMA{Decay: 0.99, Warmup: true}`, `runtime.EarlyStop{Patience: 5, MinDelta: 0.0}`, `"loss"`,
		`runtime.SkipOutliers{Z: 4.0, Window: 64}`, `[2]int{32, 32}`, `"crop"`, `0.25`,
		`runtime.ResizedCrop{Scale: [2]float64{0.08, 1.0}, Ratio: [2]float64{0.75, 1.3333333333333333}}`,
		"Flip:", "0.5,", "CutMix:", "1.0,",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	for _, off := range []string{"Padding", "Mixup"} {
		if strings.Contains(text, off) {
			t.Errorf("%s is off, but is in\n%s", off, text)
		}
	}
	s = parse("", "cifar10")
	text = fmt.Sprintf("%#v\n%#v\n", train(s), data(s.Data))
	for _, off := range []string{"EMA", "EarlyStop", "SkipOutliers", "Fit", "ValPart", "Augment"} {
		if strings.Contains(text, off) {
			t.Errorf("%s is off, but is in\n%s", off, text)
		}
	}
}
