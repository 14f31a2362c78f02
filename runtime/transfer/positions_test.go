package transfer

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/internal/python"
	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/formula"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// TestResampleIsPyTorchs compares with what PyTorch made, by timm's steps, in
// float64 (testdata/make_positions.py).
func TestResampleIsPyTorchs(t *testing.T) {
	text, err := os.ReadFile("testdata/positions.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Cases []struct {
			Prefix, Dim int
			From, To    [2]int
			Want        []float64
		}
	}
	if err := json.Unmarshal(text, &golden); err != nil || len(golden.Cases) == 0 {
		t.Fatal(err)
	}
	for _, c := range golden.Cases {
		from, to := layout{c.Prefix, c.From}, layout{c.Prefix, c.To}
		table := make([]float32, from.rows()*c.Dim)
		formula.Fill(table, "positions", 1, 0.25)
		got := resample(table, c.Dim, from, to)
		if len(got) != len(c.Want) {
			t.Fatalf("%v → %v: %d numbers, want %d", from, to, len(got), len(c.Want))
		}
		var off, norm float64
		for i, w := range c.Want {
			off += (float64(got[i]) - w) * (float64(got[i]) - w)
			norm += w * w
		}
		if rel := math.Sqrt(off / norm); !(rel < 1e-7) { // rounding to float32
			t.Errorf("%v → %v: off by %.2g of the norm", from, to, rel)
		}
		if n := c.Prefix * c.Dim; !slices.Equal(got[:n], table[:n]) {
			t.Errorf("%v → %v: class tokens changed", from, to)
		}
	}
}

// TestPositionsFile recomputes the file with the PyTorch that is installed.
func TestPositionsFile(t *testing.T) {
	p := python.Find(t, "torch")
	if out, err := exec.Command(p, "testdata/make_positions.py", "--check").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestOtherImageSize: a table of positions fits another image size, whether the
// grid is a square, stated by the file, or given.
func TestOtherImageSize(t *testing.T) {
	small := fileOf(vit([3]int{3, 8, 8}, 2, 5, true)) // 4×4 patches
	m := vit([3]int{3, 12, 10}, 2, 5, true)           // 6×5
	to := layout{1, [2]int{6, 5}}
	table := small.Tensor("pos_embed").Float32s()

	wide := fileOf(vit([3]int{3, 4, 16}, 2, 5, true)) // 2×8, as many rows as 4×4
	wide.Metadata = map[string]string{runtime.ImageKey: "3,4,16"}
	same := vit([3]int{3, 8, 8}, 2, 5, true)
	if image, ok := imageOf(same.WeightsFile(make([]float32, same.ParamElems), nil)); !ok || image != same.Image {
		t.Errorf("the trainer's own files state an image of %v, %v", image, ok)
	}

	for _, c := range []struct {
		name string
		f    *safetensors.File
		o    Options
		from layout
		to   layout
	}{
		{"a square", small, Options{}, layout{1, [2]int{4, 4}}, to},
		{"given", small, Options{Grid: [2]int{8, 2}}, layout{1, [2]int{8, 2}}, to},
		{"stated", wide, Options{}, layout{1, [2]int{2, 8}}, to},
		{"stated, as many rows", wide, Options{}, layout{1, [2]int{2, 8}}, layout{1, [2]int{4, 4}}},
	} {
		model := m
		if c.to != to {
			model = same
		}
		values, r, err := match(model, c.f, c.o)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !slices.Equal(values["pos_embed"], resample(table, dim, c.from, c.to)) {
			t.Errorf("%s: wrong values", c.name)
		}
		if want := c.from.String() + " → " + c.to.String(); r.Count(Interpolated) != 1 || !strings.Contains(r.String(), want) {
			t.Errorf("%s: no %q in\n%v", c.name, want, r)
		}
	}

	// No square; a table that is longer than the model's tokens; hostile sizes.
	odd := fileOf(vit([3]int{3, 6, 10}, 2, 5, true))
	_, _, err := match(m, odd, Options{})
	if err == nil || !strings.Contains(err.Error(), "no square of patches; --init-grid") {
		t.Errorf("3×5: %v", err)
	}
	long := vit([3]int{3, 12, 10}, 2, 5, true)
	long.Params[1].Shape = []int{1, 1000, dim}
	_, _, err = match(long, small, Options{})
	if err == nil || !strings.Contains(err.Error(), "not interpolated") {
		t.Errorf("a long table: %v", err)
	}
	for _, image := range []string{"3,4", "3,0,16", "3,-4,16", "a,b,c", "3,4,99999999999999999999", "3,65536,65536"} {
		wide.Metadata[runtime.ImageKey] = image
		if values, _, err := match(same, wide, Options{}); err != nil || !slices.Equal(values["pos_embed"], table) {
			t.Errorf("image %q: %v", image, err)
		}
	}
}
