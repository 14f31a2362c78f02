package plan

import (
	"strings"
	"testing"
)

// TestChooseTile states what the model of a product's time must come to,
// whatever its constants.
func TestChooseTile(t *testing.T) {
	for _, math := range []string{"fp32", "tf32", "bf16"} {
		big := chooseTile("nt", math, 50432, 3072, 768)
		if big.BM*big.BN < 128*128 || big.Splits != 1 {
			t.Errorf("%s: a product that fills the device many times over takes tile %+v", math, big)
		}
		// A weight gradient: few tiles, a long depth.
		dw := chooseTile("tn", math, 512, 512, 4736)
		if dw.Splits == 1 && math != "fp32" { // FFMA is as fast in small tiles
			t.Errorf("%s: a weight gradient of 16 tiles of 128x128 is not split: %+v", math, dw)
		}
		if blocks := dw.blocks(512, 512); blocks < chip.sms/2 {
			t.Errorf("%s: a weight gradient keeps %d blocks busy: %+v", math, blocks, dw)
		}
		// A pruned layer: 128 rows.
		if small := chooseTile("nt", math, 128, 512, 512); small.BM*small.BN > 64*64 {
			t.Errorf("%s: 128 rows take tile %+v", math, small)
		}
		tiny := chooseTile("nn", math, 1, 1, 1)
		if tiny.blocks(1, 1) != 1 {
			t.Errorf("%s: one element takes %d blocks", math, tiny.blocks(1, 1))
		}
	}
}

// TestTilesFit holds every tile that can be chosen to the shared memory of the
// smallest chip, and its splits to slices that all have something to do.
func TestTilesFit(t *testing.T) {
	const smallest = 99 << 10 // sm_86 and sm_89
	for _, math := range []string{"fp32", "tf32", "bf16"} {
		for _, shape := range [][3]int{{4736, 2048, 512}, {128, 10, 512}, {512, 2048, 4736}, {50432, 768, 3072}, {3, 5, 7}, {2048, 512, 128}} {
			for _, kind := range []string{"nt", "nn", "tn"} {
				tile := chooseTile(kind, math, shape[0], shape[1], shape[2])
				b := launchBuilder{programBuilder: &programBuilder{builder: &builder{plan: &Plan{Math: math}}}}
				b.args = []Arg{{Narrow: math == "bf16"}}
				p := b.product(&Gemm{Kind: kind, M: shape[0], N: shape[1], K: shape[2]})
				if p.Shared > smallest {
					t.Errorf("%s %v: tile %+v takes %d bytes of shared memory", math, shape, tile, p.Shared)
				}
				if tile.Splits > 1 && shape[2]/tile.Splits < tile.BK {
					t.Errorf("%s %v: %d splits of a depth of %d", math, shape, tile.Splits, shape[2])
				}
			}
		}
	}
}

// TestTuningTable checks that a measured tile overrides the model, and that a
// table with mistakes is refused.
func TestTuningTable(t *testing.T) {
	const row = `{"Kind": "nt", "Math": "bf16", "M": 4736, "N": 512, "K": 512, "Device": "NVIDIA H200", "Micros": 9.5, "Date": "2026-01-01",
		"Tile": {"BM": 64, "BN": 128, "BK": 32, "Stages": 3, "WarpsM": 2, "WarpsN": 4, "Splits": 2}}`
	table, err := readTuning([]byte("[" + row + "]"))
	if err != nil {
		t.Fatal(err)
	}
	old := tuned
	defer func() { tuned = old }()
	tuned = func() map[tuningKey]Tile { return table }
	if got := chooseTile("nt", "bf16", 4736, 512, 512); got.BM != 64 || got.Stages != 3 || got.Splits != 2 {
		t.Errorf("the table's tile is not taken: %+v", got)
	}
	if got := chooseTile("nt", "tf32", 4736, 512, 512); got == table[tuningKey{"nt", "bf16", 4736, 512, 512}] {
		t.Errorf("the table's tile is taken for another product")
	}
	for bad, want := range map[string]string{
		"[" + row + "," + row + "]":                                       "twice",
		"[" + strings.Replace(row, `"WarpsN": 4`, `"WarpsN": 2`, 1) + "]": "cannot be",
		"{": "unexpected end",
	} {
		if _, err := readTuning([]byte(bad)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if _, err := readTuning(tuningJSON); err != nil {
		t.Error(err)
	}
}
