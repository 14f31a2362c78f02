package report

import (
	"bytes"
	"encoding/json"
	"image"
	"image/color"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/vitgen/vitgen/internal/python"
)

// readBoard prints what TensorBoard has of a folder: {"scalars": {tag:
// [[step, value], …]}, "images": {tag: [[step, width, height, [r, g, b] of the
// first pixel], …]}}.
const readBoard = `
import io, json, sys
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
a = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "images": 0})
a.Reload()
def image(e):
    m = Image.open(io.BytesIO(e.encoded_image_string))
    assert m.format == "PNG" and m.size == (e.width, e.height)
    return [e.step, e.width, e.height, list(m.convert("RGB").getpixel((0, 0)))]
json.dump({"scalars": {t: [[e.step, e.value] for e in a.Scalars(t)] for t in a.Tags()["scalars"]},
           "images": {t: [image(e) for e in a.Images(t)] for t in a.Tags()["images"]}}, sys.stdout)
`

type board struct {
	Scalars map[string][][2]float64
	Images  map[string][][4]any
}

func loadBoard(t *testing.T, py, dir string) (b board) {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(py, "-c", readBoard, dir)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tensorboard: %v\n%s", err, &stderr)
	}
	if err := json.Unmarshal(out, &b); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return b
}

// plain is a picture of one colour.
func plain(w, h int, c color.Color) image.Image {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.Set(x, y, c)
		}
	}
	return m
}

func (b board) check(t *testing.T, h *History) {
	t.Helper()
	want := map[string][][2]float64{}
	add := func(tag string, step int, v float64) {
		want[tag] = append(want[tag], [2]float64{float64(step), float64(float32(v))})
	}
	for _, r := range h.Records() {
		if r.Kind == Epoch {
			add("val/loss", r.Step, *r.ValLoss)
			add("val/accuracy", r.Step, *r.ValAcc)
			add("train/epoch_loss", r.Step, r.TrainLoss)
			continue
		}
		add("train/loss", r.Step, r.TrainLoss)
		add("lr", r.Step, r.LR)
		add("samples_per_sec", r.Step, r.SamplesPerSec)
		add("data_wait", r.Step, r.DataWait)
	}
	if len(b.Scalars) != len(want) {
		t.Errorf("%d scalars, want %d", len(b.Scalars), len(want))
	}
	for tag, points := range want {
		got := b.Scalars[tag]
		if len(got) != len(points) {
			t.Errorf("%s has %d points, want %d", tag, len(got), len(points))
			continue
		}
		for i, p := range points {
			if got[i][0] != p[0] || !(math.Abs(got[i][1]-p[1]) <= 1e-7*math.Abs(p[1])) {
				t.Errorf("%s: point %d is %v, want %v", tag, i, got[i], p)
			}
		}
	}
}

// TestTensorBoard reads with the real one what was written: of a run that was
// killed in the middle of an event, and of what resumed it.
func TestTensorBoard(t *testing.T) {
	py := python.Find(t, "tensorboard", "PIL")
	dir := t.TempDir()
	h := mustOpen(t, dir)
	learn(t, h, 5, 30)
	red, blue := color.RGBA{255, 0, 0, 255}, color.RGBA{0, 0, 255, 255}
	for step := 10; step <= 30; step += 10 {
		if err := h.AddImages(step, "val/misclassified", []image.Image{plain(7, 5, red)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.AddImages(20, "several", []image.Image{plain(3, 4, red), plain(4, 3, blue)}); err != nil {
		t.Fatal(err)
	}
	if err := h.AddImages(20, "none", nil); err != nil {
		t.Fatal(err)
	}
	b := loadBoard(t, py, dir) // nothing was closed
	b.check(t, h)
	if len(b.Images) != 3 || len(b.Images["val/misclassified"]) != 3 {
		t.Errorf("the images are %v", b.Images)
	}
	if got, _ := json.Marshal(b.Images["several/1"]); string(got) != "[[20,4,3,[0,0,255]]]" {
		t.Errorf("an image is %s", got)
	}

	files, err := eventFiles(dir)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	path := filepath.Join(dir, files[0])
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text[:len(text)-9], 0o644); err != nil {
		t.Fatal(err)
	}
	resumed := mustResume(t, dir, 20)
	learn(t, resumed, 25, 50)
	if err := resumed.AddImages(30, "val/misclassified", []image.Image{plain(6, 6, blue)}); err != nil {
		t.Fatal(err)
	}
	b = loadBoard(t, py, dir)
	b.check(t, resumed)
	if got, _ := json.Marshal(b.Images["val/misclassified"]); string(got) != "[[10,7,5,[255,0,0]],[20,7,5,[255,0,0]],[30,6,6,[0,0,255]]]" {
		t.Errorf("the images after resuming are %s", got)
	}

	// A new run in the same directory takes the old one's events away, and
	// nobody else's.
	other := filepath.Join(dir, eventsPrefix+"0000000001.elsewhere")
	if err := os.WriteFile(other, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	again := mustOpen(t, dir)
	learn(t, again, 5, 10)
	loadBoard(t, py, dir).check(t, again)
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}
