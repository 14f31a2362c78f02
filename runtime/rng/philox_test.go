package rng

import (
	"math"
	"slices"
	"testing"
)

// The vectors of Random123's kat_vectors for philox4x32 with 10 rounds.
func TestPhiloxKnownAnswers(t *testing.T) {
	for _, c := range []struct {
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{[4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, [2]uint32{0xffffffff, 0xffffffff},
			[4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0},
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := Philox(c.counter, c.key); got != c.want {
			t.Errorf("Philox(%x, %x) = %x, want %x", c.counter, c.key, got, c.want)
		}
	}
}

func TestStreamsAreIndependentOfEachOther(t *testing.T) {
	draw := func(s *Stream) []uint32 {
		out := make([]uint32, 64)
		for i := range out {
			out[i] = s.Uint32()
		}
		return out
	}
	a := draw(New(1, "head.weight"))
	if !slices.Equal(a, draw(New(1, "head.weight"))) {
		t.Error("the same seed and name give different streams")
	}
	others := map[string]*Stream{
		"other name":  New(1, "head.bias"),
		"other seed":  New(2, "head.weight"),
		"high seed":   New(1<<40+1, "head.weight"),
		"indexed":     NewIndexed(1, "head.weight", 0),
		"indexed big": NewIndexed(1, "head.weight", 1<<33),
	}
	for what, s := range others {
		b := draw(s)
		for i := range a {
			if a[i] == b[i] { // chance of a false alarm: 5·64·2⁻³²
				t.Errorf("%s: word %d equals the first stream's", what, i)
			}
		}
	}
}

func TestMoments(t *testing.T) {
	const n = 200000
	for _, c := range []struct {
		name           string
		draw           func(*Stream) float64
		mean, variance float64
	}{
		{"Float64", (*Stream).Float64, 0.5, 1.0 / 12},
		{"Normal", (*Stream).Normal, 0, 1},
		{"Intn", func(s *Stream) float64 { return float64(s.Intn(7)) }, 3, 4},
	} {
		s := New(7, c.name)
		var sum, sq float64
		for range n {
			x := c.draw(s)
			sum += x
			sq += (x - c.mean) * (x - c.mean)
		}
		if tol := 5 * math.Sqrt(c.variance/n); math.Abs(sum/n-c.mean) > tol {
			t.Errorf("%s: mean %g, want %g ± %g", c.name, sum/n, c.mean, tol)
		}
		if math.Abs(sq/n-c.variance) > 0.02*c.variance {
			t.Errorf("%s: variance %g, want %g", c.name, sq/n, c.variance)
		}
	}
}

func TestPerm(t *testing.T) {
	for _, n := range []int{0, 1, 2, 1797} {
		p := New(3, "shuffle").Perm(n)
		sorted := slices.Sorted(slices.Values(p))
		for i, v := range sorted {
			if i != v {
				t.Fatalf("Perm(%d) is no permutation", n)
			}
		}
		if n > 2 && slices.IsSorted(p) {
			t.Errorf("Perm(%d) does not shuffle", n)
		}
	}
	// All 6 orders of 3 elements are equally frequent.
	var count [6]int
	s := New(3, "orders")
	for range 6000 {
		p := s.Perm(3)
		count[p[0]*2+map[bool]int{false: 0, true: 1}[p[1] > p[2]]]++
	}
	for i, c := range count {
		if c < 850 || c > 1150 { // 1000 ± 5 σ
			t.Errorf("order %d: %d of 6000", i, c)
		}
	}
}
