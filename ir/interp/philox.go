package interp

import "math"

// philox4x32 is Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011, section 3.3): ten rounds of two
// 32×32→64 bit products, the key stepped by a Weyl sequence between rounds.
func philox4x32(counter [4]uint32, key [2]uint32) [4]uint32 {
	const (
		mul0, mul1   = 0xD2511F53, 0xCD9E8D57
		weyl0, weyl1 = 0x9E3779B9, 0xBB67AE85 // golden ratio and √3 − 1
	)
	c, k := counter, key
	for range 10 {
		p0, p1 := uint64(c[0])*mul0, uint64(c[2])*mul1
		c = [4]uint32{
			uint32(p1>>32) ^ c[1] ^ k[0], uint32(p1),
			uint32(p0>>32) ^ c[3] ^ k[1], uint32(p0),
		}
		k[0] += weyl0
		k[1] += weyl1
	}
	return c
}

// draw16 is the 16-bit draw of element index (0 ≤ index < 2³⁵) of a site.
//
// One Philox call at counter (c, 0, site, microStep) gives four words, which
// serve eight elements, sixteen apart: elements 128i+j, 128i+16+j, …,
// 128i+112+j (j < 16) share counter 16i+j. So a vector of up to sixteen
// neighbours is one half word of as many neighbouring counters.
func draw16(seed uint64, microStep, site uint32, index int64) uint16 {
	counter := uint32(index/128*16 + index%16)
	half := index / 16 % 8
	w := philox4x32([4]uint32{counter, 0, site, microStep}, [2]uint32{uint32(seed), uint32(seed >> 32)})
	return uint16(w[half/2] >> (16 * (half % 2)))
}

// DropMultiplier is what dropout with probability p multiplies element index
// of a site by: 0, or 65536/(65536−thr) where the draw is at least
// thr = round(65536p). Kernels multiply in float32, so the factor is the
// float32 nearest to the quotient.
func DropMultiplier(seed uint64, microStep, site uint32, index int64, p float64) float64 {
	thr := math.Round(p * 65536)
	if float64(draw16(seed, microStep, site, index)) < thr {
		return 0
	}
	return float64(float32(65536 / (65536 - thr)))
}

// drop is the multiplier of an element at the node's own site.
func (c *call) drop(index int64) float64 {
	if !c.env.Dropout {
		return 1
	}
	n := c.node
	return DropMultiplier(c.env.Seed, c.env.MicroStep, uint32(n.Int("site")), index, n.Float("p"))
}
