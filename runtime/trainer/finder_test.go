package trainer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/report"
)

// TestFindLR: the sweep goes up to where the loss explodes, suggests a rate that
// trains, and leaves nothing but its files behind.
func TestFindLR(t *testing.T) {
	dir := t.TempDir()
	m := func() *runtime.Model {
		return digits(32, runtime.Train{Epochs: 1, Optimizer: runtime.Optimizer{Kind: "adamw", LR: 1, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8}})
	}
	out := mustRun(t, m(), "find-lr", "--out", dir, "--to", "1e5")
	var suggested, steep float64
	if n, err := fmt.Sscanf(lineWith(t, out, "suggested"), "suggested learning rate %g (valley); the loss falls fastest at %g", &suggested, &steep); n != 2 {
		t.Fatalf("%v\n%s", err, out)
	}
	if !(suggested > 1e-4 && suggested < 1) || !(steep > suggested/100 && steep < suggested*100) {
		t.Errorf("suggested is %g, the steepest %g\n%s", suggested, steep, out)
	}
	var rates []report.Rate
	for line := range bytes.Lines(read(t, filepath.Join(dir, "find-lr.jsonl"))) {
		var r report.Rate
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		rates = append(rates, r)
	}
	if len(rates) < 50 || len(rates) == 100 || rates[0].LR != 1e-7 || !strings.Contains(out, "the loss exploded after") {
		t.Errorf("%d rates from %g\n%s", len(rates), rates[0].LR, out)
	}
	for i, r := range rates {
		if want := 1e-7 * math.Pow(1e12, float64(i)/99); math.Abs(r.LR/want-1) > 1e-12 {
			t.Errorf("update %d has rate %g, want %g", i+1, r.LR, want)
		}
	}
	picture, err := png.Decode(bytes.NewReader(read(t, filepath.Join(dir, "find-lr.png"))))
	if err != nil || picture.Bounds().Dx() < 500 {
		t.Errorf("the picture: %v", err)
	}
	if svg := string(read(t, filepath.Join(dir, "find-lr.svg"))); !strings.Contains(svg, "suggested") || !strings.Contains(svg, "1e-03") {
		t.Error("find-lr.svg has no suggestion or no axis")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
		t.Errorf("left are %v, %v", entries, err)
	}
	// With the suggested rate it learns.
	good := m()
	good.Train.Optimizer.LR = suggested
	mustRun(t, good, "train", "--out", filepath.Join(dir, "run"))
	if r := readRecords(t, filepath.Join(dir, "run")); *r[len(r)-1].ValAcc < 0.8 {
		t.Errorf("with %g the accuracy is %g", suggested, *r[len(r)-1].ValAcc)
	}
	for args, want := range map[string]string{
		"find-lr --from 0":         "0 < from < to",
		"find-lr --from 2 --to 1":  "0 < from < to",
		"find-lr --steps 3":        "20 or more",
		"find-lr --data nothing":   "nothing",
		"find-lr --reset-head":     "--reset-head needs --init",
		"find-lr --metrics middle": "exact or d2l",
	} {
		if status, _, stderr := run(t, context.Background(), m(), strings.Fields(args)...); status == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %s", args, status, stderr)
		}
	}
}

// TestSuggestions on losses whose answers can be seen: flat, falling, rising.
func TestSuggestions(t *testing.T) {
	var rates []report.Rate
	for i := range 30 {
		loss := 2.0 // flat
		switch {
		case i >= 20: // rising
			loss = 1 + 0.3*float64(i-19)
		case i >= 10: // falling, fastest from 14 to 15
			loss = 2 - 0.05*float64(i-9)
			if i >= 15 {
				loss -= 0.3
			}
		}
		rates = append(rates, report.Rate{LR: math.Pow(10, float64(i-30)/5), Loss: loss, Smooth: loss})
	}
	// The longest fall is from a flat 2 over 10 … 19: 11 long, ends at 19.
	if got, want := valley(rates), rates[19-11+3+1].LR; got != want {
		t.Errorf("the valley suggests %g, want %g", got, want)
	}
	if got := steepest(rates); got != rates[14].LR {
		t.Errorf("the steepest is at %g, want %g", got, rates[14].LR)
	}
	rising := rates[20:]
	if valley(rising) != 0 || steepest(rising) != 0 || valley(nil) != 0 || len(trimmed(rates[:3])) != 0 {
		t.Error("something is suggested where nothing falls")
	}
}

// TestOutliers: only what is far above a full window is odd, and a lasting
// change of level is accepted.
func TestOutliers(t *testing.T) {
	o := outliers{SkipOutliers: runtime.SkipOutliers{Z: 3, Window: 4}}
	for i, c := range []struct {
		loss float64
		odd  bool
	}{{100, false}, {1, false}, {2, false}, {1, false}, {2, false}, {1, false}, // the window fills; 100 leaves it
		{2.9, false},                                                           // mean 1.5, deviation 0.5: up to 3
		{9, true}, {2, false}, {2, false}, {2, false}, {2, false}, {2.1, true}, // no deviation at all
		{9, true}, {9, false}, {9, false}, {9, false}, {9, false}} {
		if got := o.odd(c.loss); got != c.odd {
			t.Errorf("loss %d, %g: odd is %t; the window is %v", i, c.loss, got, o.window)
		}
	}
	off := outliers{SkipOutliers: runtime.SkipOutliers{Window: 4}}
	if off.on() || !o.on() {
		t.Error("z of 0 is not off")
	}
}
