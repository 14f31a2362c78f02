package plan

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"sync"

	"github.com/vitgen/vitgen/codegen/kernels"
)

// Tile is how a matrix product is cut up on a CUDA device: the template
// arguments of vg_gemm_tile. A block computes BM x BN elements of C, BK deep at
// a time, with WarpsM x WarpsN warps; Splits blocks share the depth of one tile
// and the last of them adds their sums up in order.
type Tile struct {
	BM, BN, BK, Stages, WarpsM, WarpsN, Splits int
}

// CXX prints the tile's type.
func (t *Tile) CXX(kind, math string) string {
	return fmt.Sprintf("vg_gemm_tile<vg_%s, vg_math::%s, %d, %d, %d, %d, %d, %d, %d>",
		kind, math, t.BM, t.BN, t.BK, t.Stages, t.WarpsM, t.WarpsN, t.Splits)
}

// tiles are the shapes to choose from. Each is eight warps; stages and BK are
// set by the math (see depthOf).
var tiles = []Tile{
	{BM: 128, BN: 128, WarpsM: 2, WarpsN: 4},
	{BM: 128, BN: 64, WarpsM: 4, WarpsN: 2},
	{BM: 64, BN: 128, WarpsM: 2, WarpsN: 4},
	{BM: 64, BN: 64, WarpsM: 2, WarpsN: 4},
	{BM: 32, BN: 64, WarpsM: 2, WarpsN: 4},
}

// chip is the device that tiles are chosen for: an H100 or H200. The choice
// only costs speed elsewhere. The rates are estimates, none of them measured:
// what is measured belongs into tuning.json.
var chip = struct {
	sms         int
	fma         map[string]float64 // multiply-adds a cycle and multiprocessor that mma.sync or FFMA reach
	sharedBytes float64            // a cycle and multiprocessor
	l2Bytes     float64            // likewise, all multiprocessors reading
	epilogue    float64            // cycles per 1000 elements of C
	fixed       float64            // cycles of a block's start and end
}{132, map[string]float64{"fp32": 128, "tf32": 320, "bf16": 640}, 128, 24, 180, 1500}

// chooseTile picks the tile and the split for C[m,n] over depth k: a tuning
// table's entry if there is one, else the least of an analytic estimate. It
// depends on its arguments alone, so compiling is deterministic.
func chooseTile(kind, mathKind string, m, n, k int) Tile {
	if t, ok := tuned()[tuningKey{kind, mathKind, m, n, k}]; ok {
		return t
	}
	best, least := Tile{}, math.Inf(1)
	for _, t := range tiles {
		t.BK, t.Stages = depthOf(mathKind)
		for _, splits := range []int{1, 2, 3, 4, 6, 8, 12, 16, 24, 32} {
			t.Splits = splits
			// A slice should be worth its share of the final sum.
			if splits > 1 && k/splits < 4*t.BK {
				break
			}
			if c := t.cycles(mathKind, m, n, k); c < least {
				best, least = t, c
			}
		}
	}
	return best
}

// depthOf sets how deep a tile's stages are and how many it has.
func depthOf(mathKind string) (bk, stages int) {
	if mathKind == "bf16" {
		return 32, 4
	}
	return 16, 3
}

// cycles estimates the time of the whole product: waves of blocks, each as slow
// as the scarcest of arithmetic, shared memory and L2, plus its epilogue.
func (t *Tile) cycles(mathKind string, m, n, k int) float64 {
	elem := float64(elemBytes(mathKind))
	blocks := t.blocks(m, n)
	perSM := t.perSM(mathKind, false, false)
	waves := math.Ceil(float64(blocks) / float64(chip.sms*perSM))
	depth := float64(ceil(ceil(k, t.Splits), t.BK) * t.BK)
	fma := float64(t.BM*t.BN) * depth / chip.fma[mathKind]
	if mathKind == "fp32" {
		// A thread loads a column and a row of its own tile for every outer
		// product, with instructions that FFMA has to wait for.
		m, n := float64(t.BM)/16, float64(t.BN)/16
		fma *= 1 + 0.9*(m+n)/(m*n)
	}
	warpTile := float64(t.BM/t.WarpsM + t.BN/t.WarpsN)
	shared := float64(t.WarpsM*t.WarpsN) * warpTile * depth * elem / chip.sharedBytes
	l2 := float64(t.BM+t.BN) * depth * elem / chip.l2Bytes
	// Two blocks on a multiprocessor share its units and hide each other's
	// latencies; a lone one does not.
	busy := min(float64(perSM), math.Ceil(float64(blocks)/float64(chip.sms)))
	block := busy*max(fma, shared, l2) + chip.fixed
	out := busy * float64(t.BM*t.BN) * chip.epilogue / 1000
	if t.Splits > 1 {
		// Partial sums are written, and read again by one of Splits blocks.
		out += busy * float64(t.BM*t.BN) * 8 / chip.l2Bytes * (1 + float64(t.Splits)/4)
	}
	return waves * (block + out)
}

// blocks is the grid of a product C[m,n].
func (t *Tile) blocks(m, n int) int { return ceil(m, t.BM) * ceil(n, t.BN) * t.Splits }

// perSM is how many blocks should fit on a multiprocessor: two, unless that
// leaves too few registers. converted: operands do not lie in memory as the
// product multiplies them; functor: one of them is computed while it is loaded.
func (t *Tile) perSM(math string, converted, functor bool) int {
	switch area := t.BM * t.BN; {
	case area <= 64*64, area <= 128*64 && math != "fp32":
		return 2
	case math == "bf16" && !converted, math == "tf32" && !functor:
		return 2
	}
	return 1
}

func ceil(a, b int) int { return (a + b - 1) / b }

// tuningKey names a product in the tuning table.
type tuningKey struct {
	Kind, Math string
	M, N, K    int
}

// tuningEntry is a row of the tuning table: a product, and the tile that a
// measurement found fastest for it.
type tuningEntry struct {
	tuningKey
	Tile   Tile
	Device string  // "NVIDIA H200"
	Micros float64 // median time
	Date   string
}

//go:embed tuning.json
var tuningJSON []byte

// tuned reads the tuning table.
var tuned = sync.OnceValue(func() map[tuningKey]Tile {
	table, err := readTuning(tuningJSON)
	if err != nil {
		panic("BUG: tuning.json: " + err.Error())
	}
	return table
})

func readTuning(data []byte) (map[tuningKey]Tile, error) {
	var rows []tuningEntry
	if err := json.Unmarshal(data, &rows); err != nil {
		return nil, err
	}
	table := map[tuningKey]Tile{}
	for _, r := range rows {
		t := r.Tile
		if t.BM < 16 || t.BN < 16 || t.BK < 8 || t.Stages < 2 || t.WarpsM*t.WarpsN*32 != kernels.BlockThreads || t.Splits < 1 {
			return nil, fmt.Errorf("tile %+v of %+v cannot be", t, r.tuningKey)
		}
		if _, dup := table[r.tuningKey]; dup {
			return nil, fmt.Errorf("%+v stands in the table twice", r.tuningKey)
		}
		table[r.tuningKey] = t
	}
	return table, nil
}
