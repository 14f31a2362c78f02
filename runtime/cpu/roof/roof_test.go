package roof

import (
	"testing"
	"time"
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
	for isa := Plain; isa <= BestISA(); isa++ {
		for _, threads := range []int{1, 2, 3} {
			benches := []*Bench{NewFMA(isa, threads)}
			for op := Read; op <= Copy; op++ {
				benches = append(benches, NewStream(isa, op, threads, len(memory.Bytes())/threads, memory))
			}
			for _, b := range benches {
				rate, err := b.Rate(100 * time.Microsecond)
				if err != nil || !(rate > 1e6) || rate > 1e15 {
					t.Errorf("%v, %v, %d threads: %g, %v", isa, b.op, threads, rate, err)
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
	perRound := map[ISA]float64{Plain: 2 * 12 * 4, AVX2: 2 * 12 * 8, AVX512: 2 * 24 * 16}
	for isa := Plain; isa <= BestISA(); isa++ {
		if r, err := run(isa, FMA, 3, 0, 0, 1000); err != nil || r.work != 3*1000*perRound[isa] || !(r.least > 0) || r.least > r.seconds {
			t.Errorf("%v: %+v, %v", isa, r, err)
		}
		if r, err := run(isa, Read, 2, memory.Address(), 32<<10, 5); err != nil || r.work != 2*5*32<<10 {
			t.Errorf("%v: reading: %+v, %v", isa, r, err)
		}
	}
	// A copy moves the first half over the second, and nothing else.
	data := memory.Float32s()
	half := len(data) / 2
	first := append([]float32(nil), data[:half]...)
	if _, err := run(BestISA(), Copy, 1, memory.Address(), 64<<10, 1); err != nil {
		t.Fatal(err)
	}
	for i, x := range first {
		if data[i] != x || data[half+i] != x {
			t.Fatalf("element %d: %g and %g after the copy of %g", i, data[i], data[half+i], x)
		}
	}
	if _, err := run(BestISA(), Write, 1, memory.Address(), 32<<10, 1); err != nil {
		t.Fatal(err)
	}
	if data[0] != data[half-1] || data[half] != first[0] {
		t.Errorf("after a write: %g … %g, %g", data[0], data[half-1], data[half])
	}
}

func TestISA(t *testing.T) {
	for isa := Plain; isa <= AVX512; isa++ {
		if got, err := ISAOf(isa.String()); err != nil || got != isa {
			t.Errorf("ISAOf(%v) = %v, %v", isa, got, err)
		}
	}
	if _, err := ISAOf("sve"); err == nil {
		t.Error("sve is known")
	}
	t.Setenv("VITGEN_ISA", "plain")
	if BestISA() != Plain {
		t.Errorf("asked for plain, BestISA is %v", BestISA())
	}
}
