package main

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shapesOf sees through the compiler what a model multiplies.
func TestShapesOf(t *testing.T) {
	t.Chdir("../..")
	shapes, err := shapesOf("examples/vit.yaml", "grad", 0)
	if err != nil {
		t.Fatal(err)
	}
	has := func(want shape) bool {
		for _, s := range shapes {
			if s == want {
				return true
			}
		}
		return false
	}
	// The first block's MLP: 128 samples of 37 tokens, 512 wide, 2048 inside.
	for _, want := range []shape{{"nt", 4736, 2048, 512, 1}, {"nn", 4736, 512, 2048, 1}, {"tn", 2048, 512, 4736, 1}} {
		if !has(want) {
			t.Errorf("no %+v in %+v", want, shapes)
		}
	}
	for i, s := range shapes[1:] {
		if before := shapes[i]; s.flops()*float64(s.Count) > before.flops()*float64(before.Count) {
			t.Errorf("%+v stands behind %+v, which is less work", s, before)
		}
	}
	one, err := shapesOf("examples/vit.yaml", "forward", 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range one {
		if s.Kind != "packed" || s.M > 37 {
			t.Errorf("%+v in the forward pass of one sample", s)
		}
	}
	for _, bad := range [][2]string{{"examples/vit.yaml", "update"}, {"examples/vit.yaml", "train"}, {"examples/none.yaml", "grad"}} {
		if _, err := shapesOf(bad[0], bad[1], 0); err == nil {
			t.Errorf("shapesOf(%s, %s) finds something", bad[0], bad[1])
		}
	}
}

func TestParse(t *testing.T) {
	got, err := parse("0 300 0.5\n1 301 0.25\n0 302 0.6\n1 303 0.2\n", 2, 2)
	if err != nil || got[0][1] != (reading{302, 0.6}) || got[1][0] != (reading{301, 0.25}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "0 300 0.5\n", "0 300 0.5\n1 300 0.5\n2 300 0.5\n", "0 300 0.5\n-1 3 1\n", "0 300 nan\n1 300 1\n", "0 0 1\n1 1 1\n", "0 300\n1 2 3\n"} {
		if got, err := parse(bad, 2, 1); err == nil {
			t.Errorf("parse(%q) = %v", bad, got)
		}
	}
}

// The share of the peak is each time that of the peak just before, and the whole
// is weighted by time.
func TestSum(t *testing.T) {
	shapes := []shape{{"nt", 1000, 1000, 500, 3}, {"tn", 1000, 1000, 250, 2}} // 1 and 0.5 GFLOP
	var r products
	r.sum(shapes, [][]reading{
		{{100, 0.02}, {200, 0.01}, {100, 0.04}}, // 50, 100, 25 GFLOP/s: 50, 50, 25 %
		{{100, 0.02}, {100, 0.02}, {400, 0.01}}, // 25, 25, 50 GFLOP/s: 25, 25, 12.5 %
	})
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-9*want {
			t.Errorf("%s is %g, want %g", what, got, want)
		}
	}
	near("peak", r.PeakGFLOPS, 100)
	near("first", r.Products[0].GFLOPS, 50)
	near("first of peak", r.Products[0].OfPeak, 0.5)
	near("second", r.Products[1].GFLOPS, 25)
	near("second of peak", r.Products[1].OfPeak, 0.25)
	// 3 GFLOP at half and 1 GFLOP at a quarter of the peak.
	near("weighted", r.OfPeakWeighted, 4.0/(3/0.5+1/0.25))
}

// A run of the whole command, on the smallest example.
func TestProducts(t *testing.T) {
	t.Chdir("../..")
	var out strings.Builder
	err := command(context.Background(), []string{"--spec", "examples/vit_tiny.yaml", "--rounds", "1", "--threads", "2", "--json"}, &out)
	if err != nil {
		t.Fatal(err)
	}
	var r products
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, p := range r.Products {
		kinds[p.Kind] += p.Count
		if !(p.GFLOPS > 0) || !(p.OfPeak > 0) || !(p.MS > 0) {
			t.Errorf("%+v", p)
		}
	}
	if len(kinds) != 3 || kinds["nt"] < kinds["nn"] || kinds["tn"] < kinds["nn"] {
		t.Errorf("products by kind: %v", kinds)
	}
	if !(r.PeakGFLOPS > 0) || !(r.OfPeakWeighted > 0) || r.Threads != 2 {
		t.Errorf("%+v", r)
	}
	if text := r.text(); !strings.Contains(text, "All launches together") {
		t.Error(text)
	}
}

// Inference multiplies with packed weights.
func TestPackedProducts(t *testing.T) {
	t.Chdir("../..")
	p := productsRun{spec: "examples/vit_tiny.yaml", program: "forward", batch: 1, threads: 1, rounds: 1}
	r, err := p.run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Products {
		if p.Kind != "packed" || !(p.GFLOPS > 0) || !(p.OfPeak > 0) {
			t.Errorf("%+v", p)
		}
	}
}

func TestMachine(t *testing.T) {
	m, err := measureMachine(context.Background(), 2, 1, []level{{"L1", 8 << 10, false}, {"memory", 4 << 20, true}})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Peaks)%2 != 0 || len(m.Peaks) == 0 || len(m.Bandwidths) != 2*3*2 {
		t.Errorf("%d peaks, %d bandwidths", len(m.Peaks), len(m.Bandwidths))
	}
	for _, p := range m.Peaks {
		if !(p.GFLOPS.Median > 0) {
			t.Errorf("%+v", p)
		}
	}
	for _, b := range m.Bandwidths {
		if !(b.GBps.Median > 0) || b.Level == "memory" && b.Bytes*b.Threads != 4<<20 {
			t.Errorf("%+v", b)
		}
	}
	if text := m.text(); !strings.Contains(text, "| memory |  copy |       2 |") {
		t.Error(text)
	}
}

func TestCaches(t *testing.T) {
	sys := t.TempDir()
	if got := thisMachinesCaches(sys); got != (caches{32 << 10, 1 << 20, 32 << 20}) {
		t.Errorf("without a system: %v", got)
	}
	for i, c := range [][3]string{{"1", "Data", "48K"}, {"1", "Instruction", "64K"}, {"2", "Unified", "2048K"}, {"3", "Unified", "odd"}} {
		dir := filepath.Join(sys, "devices/system/cpu/cpu0/cache/index"+string(rune('0'+i)))
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		for j, name := range []string{"level", "type", "size"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(c[j]+"\n"), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := thisMachinesCaches(sys)
	if c != (caches{48 << 10, 2 << 20, 32 << 20}) {
		t.Errorf("caches are %v", c)
	}
	l := c.levels()
	if l[0].bytes != 24<<10 || l[2].bytes != 16<<20 || l[3].each(2) != 256<<20 {
		t.Errorf("levels are %v", l)
	}
}
