package roof

import (
	"testing"
	"time"

	"github.com/vitgen/vitgen/runtime/cpu/isa"
)

func TestRate(t *testing.T) {
	memory, err := Alloc(1<<20, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Free()
	for _, x := range memory.Float32s() {
		if x == 0 {
			t.Fatal("a zero among the random numbers")
		}
	}
	for set := isa.Plain; set <= isa.Best(); set++ {
		for _, threads := range []int{1, 2, 3} {
			benches := []*Bench{NewFMA(set, threads)}
			for op := Read; op <= Copy; op++ {
				benches = append(benches, NewStream(set, op, threads, len(memory.Bytes())/threads, memory))
			}
			for _, b := range benches {
				rate, err := b.Rate(100 * time.Microsecond)
				if err != nil || !(rate > 1e6) || rate > 1e15 {
					t.Errorf("%v, %v, %d threads: %g, %v", set, b.op, threads, rate, err)
				}
			}
		}
	}
}

// Work is counted as the loops do it: two FLOPs for each lane of each chain, each
// byte once.
func TestWork(t *testing.T) {
	memory, err := Alloc(64<<10, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Free()
	perRound := map[isa.Set]float64{isa.Plain: 2 * 12 * 4, isa.AVX2: 2 * 12 * 8, isa.AVX512: 2 * 24 * 16}
	for set := isa.Plain; set <= isa.Best(); set++ {
		if r, err := run(set, FMA, 3, 0, 0, 1000); err != nil || r.work != 3*1000*perRound[set] || !(r.least > 0) || r.least > r.seconds {
			t.Errorf("%v: %+v, %v", set, r, err)
		}
		if r, err := run(set, Read, 2, memory.Address(), 32<<10, 5); err != nil || r.work != 2*5*32<<10 {
			t.Errorf("%v: reading: %+v, %v", set, r, err)
		}
	}
	// A copy moves the first half over the second, and nothing else.
	data := memory.Float32s()
	half := len(data) / 2
	first := append([]float32(nil), data[:half]...)
	if _, err := run(isa.Best(), Copy, 1, memory.Address(), 64<<10, 1); err != nil {
		t.Fatal(err)
	}
	for i, x := range first {
		if data[i] != x || data[half+i] != x {
			t.Fatalf("element %d: %g and %g after the copy of %g", i, data[i], data[half+i], x)
		}
	}
	if _, err := run(isa.Best(), Write, 1, memory.Address(), 32<<10, 1); err != nil {
		t.Fatal(err)
	}
	if data[0] != data[half-1] || data[half] != first[0] {
		t.Errorf("after a write: %g … %g, %g", data[0], data[half-1], data[half])
	}
}
