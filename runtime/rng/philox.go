// Package rng draws the random numbers of training: initial parameters,
// shuffles and synthetic data. It is counter-based (Philox4x32-10), so every
// consumer has a stream of its own that no other consumer can shift. It is not
// a source of secrets, and not the generator of dropout masks: kernels draw
// those themselves, from the same function.
package rng

import (
	"math"
	"math/bits"
)

// Philox is Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random
// numbers: as easy as 1, 2, 3" (SC 2011): a bijection of the counter for every
// key, statistically independent between counters.
func Philox(counter [4]uint32, key [2]uint32) [4]uint32 {
	const (
		mul0, mul1   = 0xD2511F53, 0xCD9E8D57
		weyl0, weyl1 = 0x9E3779B9, 0xBB67AE85
	)
	for range 10 {
		hi0, lo0 := bits.Mul32(mul0, counter[0])
		hi1, lo1 := bits.Mul32(mul1, counter[2])
		counter = [4]uint32{hi1 ^ counter[1] ^ key[0], lo1, hi0 ^ counter[3] ^ key[1], lo0}
		key[0] += weyl0
		key[1] += weyl1
	}
	return counter
}

// Stream is a sequence of random numbers that depends on a seed and a name
// only. The key is the seed; the counter's upper half is the name's hash and
// its lower half counts blocks of four words.
type Stream struct {
	key   [2]uint32
	name  [2]uint32
	block uint64
	words [4]uint32
	left  int // words not yet handed out

	spare    float64 // second result of the last Box-Muller pair
	hasSpare bool
}

// New starts the stream of a name.
func New(seed uint64, name string) *Stream {
	h := hash(name)
	return &Stream{
		key:  [2]uint32{uint32(seed), uint32(seed >> 32)},
		name: [2]uint32{uint32(h), uint32(h >> 32)},
	}
}

// NewIndexed starts stream i of a family of streams, as for sample i of a data
// set. Families of different names, and a name's own New stream, stay apart.
func NewIndexed(seed uint64, name string, i int) *Stream {
	s := New(seed, name)
	s.name[0] ^= uint32(i)
	s.name[1] ^= uint32(uint64(i)>>32) ^ 0x80000000
	return s
}

// hash is FNV-1a, 64 bits.
func hash(name string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 0x100000001b3
	}
	return h
}

// Uint32 is uniform over all 32-bit words.
func (s *Stream) Uint32() uint32 {
	if s.left == 0 {
		s.words = Philox([4]uint32{uint32(s.block), uint32(s.block >> 32), s.name[0], s.name[1]}, s.key)
		s.block++
		s.left = 4
	}
	s.left--
	return s.words[3-s.left]
}

// Uint64 is uniform over all 64-bit words.
func (s *Stream) Uint64() uint64 {
	lo := uint64(s.Uint32())
	return lo | uint64(s.Uint32())<<32
}

// Float64 is uniform over the multiples of 2⁻⁵³ in [0, 1).
func (s *Stream) Float64() float64 {
	return float64(s.Uint64()>>11) * 0x1p-53
}

// Normal is N(0, 1), by Box and Muller.
func (s *Stream) Normal() float64 {
	if s.hasSpare {
		s.hasSpare = false
		return s.spare
	}
	r := math.Sqrt(-2 * math.Log(1-s.Float64())) // 1-u is in (0, 1]
	sin, cos := math.Sincos(2 * math.Pi * s.Float64())
	s.spare, s.hasSpare = r*sin, true
	return r * cos
}

// Intn is uniform over 0 … n-1, without bias (Lemire's rejection). It panics
// if n is not in 1 … 2³²-1.
func (s *Stream) Intn(n int) int {
	if n <= 0 || n > math.MaxUint32 {
		panic("BUG: rng.Intn: n out of range")
	}
	hi, lo := bits.Mul32(s.Uint32(), uint32(n))
	if lo < uint32(n) {
		for reject := -uint32(n) % uint32(n); lo < reject; {
			hi, lo = bits.Mul32(s.Uint32(), uint32(n))
		}
	}
	return int(hi)
}

// Perm is a uniformly random permutation of 0 … n-1 (Fisher and Yates).
func (s *Stream) Perm(n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	for i := n - 1; i > 0; i-- {
		j := s.Intn(i + 1)
		p[i], p[j] = p[j], p[i]
	}
	return p
}
