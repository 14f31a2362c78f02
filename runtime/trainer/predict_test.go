package trainer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/data"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// digitPNG is a validation digit as a picture file, and its pixels.
func digitPNG(t *testing.T, i int) (file []byte, pixels []uint8) {
	t.Helper()
	split, err := data.Open(data.Config{Name: "digits", Image: [3]int{1, 8, 8}, Classes: 10})
	if err != nil {
		t.Fatal(err)
	}
	img := image.NewGray(image.Rect(0, 0, 8, 8))
	if _, err := split.Val.Sample(i, img.Pix); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), img.Pix
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// pictureOf is what --json prints of a picture.
type pictureOf struct {
	File string
	Top  []struct {
		Class       int
		Name        string
		Probability float64
	}
	Error string
}

// predictModel is a model, and weights for it that name the classes.
func predictModel(t *testing.T) (m *runtime.Model, weights string) {
	t.Helper()
	m = digits(4, runtime.Train{})
	m.Data.Mean, m.Data.Std = []float64{0.5}, []float64{0.25}
	s, err := runtime.NewSession(m, runtime.Options{Device: "cpu", Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.SetClasses(strings.Fields("zero one two three four five six seven eight")); err != nil {
		t.Fatal(err)
	}
	weights = filepath.Join(t.TempDir(), "weights.safetensors")
	if err := s.Save(weights); err != nil {
		t.Fatal(err)
	}
	return m, weights
}

// TestPredict holds the command against Session.PredictTop: directories,
// standard input, pictures that cannot be read among those that can.
func TestPredict(t *testing.T) {
	t.Chdir(t.TempDir())
	m, weights := predictModel(t)
	pixels := map[string][]uint8{}
	for i, name := range []string{"in/b.png", "in/a/z.PNG", "in/a/y.png", "in/c.jpeg", "single", "in/d.png", "-"} {
		var file []byte
		file, pixels[name] = digitPNG(t, i)
		if name != "-" {
			write(t, name, file)
		}
	}
	input, _ := digitPNG(t, 6)
	good, _ := digitPNG(t, 0)
	write(t, "in/a/broken.png", good[:38])
	write(t, "in/notes.txt", []byte("not a picture"))
	write(t, "in/.hidden.png", good)
	write(t, "in/.cache/x.png", good)

	predict := func(args ...string) (status int, out, errors string) {
		var o, e bytes.Buffer
		a := &app{ctx: t.Context(), model: m, in: bytes.NewReader(input), out: &o, err: &e, prog: "x"}
		err := a.predict(append(args, "--weights", weights))
		if err != nil {
			return 1, o.String(), err.Error()
		}
		return 0, o.String(), e.String()
	}
	status, out, errors := predict("--json", "--top", "3", "single", "in", "-")
	if status != 1 || errors != "predict: 1 of 8 pictures could not be read" {
		t.Errorf("exit %d, %s", status, errors)
	}
	order := []string{"single", "in/a/broken.png", "in/a/y.png", "in/a/z.PNG", "in/b.png", "in/c.jpeg", "in/d.png", "-"}
	s, err := runtime.NewSession(m, runtime.Options{Device: "cpu"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Load(weights); err != nil {
		t.Fatal(err)
	}
	for i, text := range strings.Split(strings.TrimSpace(out), "\n") {
		var got pictureOf
		if err := json.Unmarshal([]byte(text), &got); err != nil || got.File != order[i] {
			t.Errorf("%s: line %d, want %s, %v", text, i, order[i], err)
			continue
		}
		if got.File == "in/a/broken.png" {
			if got.Error != "PNG: the file is truncated" || got.Top != nil {
				t.Errorf("%+v", got)
			}
			continue
		}
		images := make([]float32, 64)
		for j, v := range pixels[got.File] {
			images[j] = (float32(v)/255 - 0.5) / 0.25
		}
		want, err := s.PredictTop(images, 3)
		if err != nil || len(got.Top) != 3 {
			t.Fatalf("%s: %v", text, err)
		}
		for j, c := range got.Top {
			w := want[0][j]
			if c.Class != w.Class || c.Name != s.ClassName(w.Class) || math.Abs(c.Probability-w.Probability) > 1e-12 {
				t.Errorf("%s, place %d: %+v, want %+v", got.File, j, c, w)
			}
		}
	}

	status, table, errors := predict("in/a/y.png", "in/b.png", "--top", "2")
	if status != 0 {
		t.Fatal(errors)
	}
	lines := strings.Split(table, "\n")
	if len(lines) != 5 || !strings.HasPrefix(lines[0], "in/a/y.png  ") || !strings.HasPrefix(lines[1], "            ") || !strings.HasPrefix(lines[2], "in/b.png    ") {
		t.Errorf("the table is\n%s", table)
	}
	_, table, _ = predict("in")
	if want := "in/a/broken.png  unreadable: PNG: the file is truncated\n"; !strings.Contains(table, want) {
		t.Errorf("no %q in\n%s", want, table)
	}
	// More pictures than a batch, all of them bad but one.
	for i := range 9 {
		write(t, fmt.Sprintf("bad/%d.png", i), []byte("?"))
	}
	write(t, "bad/5.png", good)
	if _, _, errors := predict("bad"); errors != "predict: 8 of 9 pictures could not be read" {
		t.Error(errors)
	}
}

// TestPredictMistakes: each mistake says what to do.
func TestPredictMistakes(t *testing.T) {
	t.Chdir(t.TempDir())
	m, weights := predictModel(t)
	write(t, "empty/readme", nil)
	for i, name := range []string{"old", "new"} {
		path := filepath.Join("runs", name, "best.safetensors")
		write(t, path, nil)
		made := time.Unix(int64(1000+i), 0)
		if err := os.Chtimes(path, made, made); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"x.png"}, 2, "--weights FILE is missing; there are runs/new/best.safetensors runs/old/best.safetensors"},
		{[]string{"--weights", weights}, 2, "pictures or directories of pictures are missing"},
		{[]string{"--weights", weights, "--top", "0", "x.png"}, 2, "--top is at least 1"},
		{[]string{"--weights", weights, "--fit", "pad", "x.png"}, 2, "--fit is crop or stretch"},
		{[]string{"--weights", weights, "-", "-"}, 2, "only once"},
		{[]string{"--weights", weights, "x.png"}, 1, "x.png: no such file"},
		{[]string{"--weights", weights, "empty"}, 1, "empty: there is no .jpg, .jpeg or .png file in it"},
		{[]string{"--weights", filepath.Join("runs", "new", "best.safetensors"), "empty/readme"}, 1, "truncated"},
	} {
		status, _, errors := run(t, context.Background(), m, append([]string{"predict"}, c.args...)...)
		if status != c.status || !strings.Contains(errors, c.want) {
			t.Errorf("%q: exit %d, no %q in %s", c.args, status, c.want, errors)
		}
	}
	m.Data.Fit = "pad"
	status, _, errors := run(t, context.Background(), m, "predict", "--weights", weights, "empty/readme")
	if status != 1 || !strings.Contains(errors, "fake.yaml: ") {
		t.Errorf("exit %d, %s", status, errors)
	}
	m.Data.Fit = ""

	// Broken weights are an error, not NaN in JSON.
	f, err := safetensors.Read(weights)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(f.Tensors, func(x safetensors.Tensor) bool { return x.Name == "head.bias" })
	f.Tensors[i] = safetensors.FromFloat32s("head.bias", []int{10}, []float32{float32(math.NaN()), 0, 0, 0, 0, 0, 0, 0, 0, 0})
	if err := safetensors.Write(weights, f); err != nil {
		t.Fatal(err)
	}
	good, _ := digitPNG(t, 0)
	write(t, "x.png", good)
	status, out, errors := run(t, context.Background(), m, "predict", "--weights", weights, "--json", "x.png")
	if status != 1 || out != "" || !strings.Contains(errors, "the weights are broken") {
		t.Errorf("exit %d, %s%s", status, out, errors)
	}
}

// TestPredictIsEvaluation: of a folder of pictures that are wider than the
// model's, predict classifies correctly as many as eval does.
func TestPredictIsEvaluation(t *testing.T) {
	long(t)
	t.Chdir(t.TempDir())
	m := digits(32, runtime.Train{Epochs: 2, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.5}})
	m.Data = runtime.Data{Name: "image_folder", Mean: []float64{0.5}, Std: []float64{0.25}}
	split, err := data.Open(data.Config{Name: "digits", Image: m.Image, Classes: 10})
	if err != nil {
		t.Fatal(err)
	}
	pixels := make([]uint8, 64)
	for part, set := range map[string]data.Dataset{"train": split.Train, "val": split.Val} {
		for i := range 300 {
			label, err := set.Sample(i, pixels)
			if err != nil {
				t.Fatal(err)
			}
			img := image.NewGray(image.Rect(0, 0, 8+i%7, 8)) // the digit lies to the left
			for y := range 8 {
				copy(img.Pix[y*img.Stride:], pixels[8*y:8*y+8])
			}
			var b bytes.Buffer
			if err := png.Encode(&b, img); err != nil {
				t.Fatal(err)
			}
			write(t, fmt.Sprintf("set/%s/digit %d/%d.png", part, label, i), b.Bytes())
		}
	}
	mustRun(t, m, "train", "--data-dir", "set", "--out", "run")
	var evaluated struct{ Exact struct{ Accuracy float64 } }
	out := mustRun(t, m, "eval", "--data-dir", "set", "--weights", "run/last.safetensors", "--json")
	if err := json.Unmarshal([]byte(out), &evaluated); err != nil {
		t.Fatal(err)
	}
	correct := func(args ...string) (n int) {
		out := mustRun(t, m, append([]string{"predict", "--json", "--weights", "run/last.safetensors", "set/val"}, args...)...)
		for line := range strings.Lines(out) {
			var p pictureOf
			if err := json.Unmarshal([]byte(line), &p); err != nil {
				t.Fatal(err)
			}
			if filepath.Base(filepath.Dir(p.File)) == p.Top[0].Name {
				n++
			}
		}
		return n
	}
	got, want := correct(), int(math.Round(300*evaluated.Exact.Accuracy))
	if got != want || got < 60 || got == 300 {
		t.Errorf("predict is right %d times, eval %d times", got, want)
	}
	if stretched := correct("--fit", "stretch"); stretched == got {
		t.Errorf("stretched or not, %d are right", got)
	}
}

// TestPrintable: a file's name does not reach the terminal as control codes.
func TestPrintable(t *testing.T) {
	for name, want := range map[string]string{"größe 1.png": "größe 1.png", "a\x1b[31m.png": `"a\x1b[31m.png"`, "a\nb": `"a\nb"`, `a"b`: `"a\"b"`} {
		if got := printable(name); got != want {
			t.Errorf("%q is printed as %s", name, got)
		}
	}
	if w := widthOf([]string{"ab", "größe", strings.Repeat("x", 500)}); w != 60 {
		t.Errorf("a column of %d", w)
	}
}
