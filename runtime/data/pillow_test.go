package data

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"testing"

	"github.com/vitgen/vitgen/internal/python"
)

// TestLivePillow compares with the Pillow that is installed, on pictures of
// random kinds and sizes: whole, cropped and stretched, and a part of them
// resized, as random resized crops are.
func TestLivePillow(t *testing.T) {
	out, err := exec.Command(python.Find(t, "PIL"), "testdata/pillow_live.py", "3", "150").Output()
	if err != nil {
		t.Fatal(err)
	}
	cases := 0
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); cases++ {
		var c struct {
			Name                string
			File                []byte
			Shape               [3]int
			Box                 [4]int
			Crop, Stretch, Part []byte
		}
		if err := dec.Decode(&c); err != nil {
			t.Fatal(err)
		}
		for what, want := range map[string][]byte{"crop": c.Crop, "stretch": c.Stretch, "part": c.Part} {
			fit := what
			var choose chooser
			if what == "part" {
				fit = "crop"
				choose = func(int, int) box { return box{c.Box[0], c.Box[1], c.Box[2], c.Box[3]} }
			}
			f, err := newFitter(Config{Image: c.Shape, Fit: fit})
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(want))
			if err := f.make(&scratch{file: c.File}, got, choose); err != nil {
				t.Errorf("%s: %v", c.Name, err)
			}
			if c.Shape[0] == 3 {
				want = planar(want)
			}
			same(t, what, c.Name, got, want)
		}
	}
	if cases != 150 {
		t.Errorf("%d cases", cases)
	}
}
