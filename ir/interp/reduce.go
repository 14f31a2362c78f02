package interp

import "math"

func sumTokens(c *call) {
	T, D := c.in[0].Shape[1], c.in[0].Shape[2]
	for r, row := range c.in[0].rows(D) {
		axpy(1, row, c.out[0].Data[r/T*D:])
	}
}

func sumLeading(c *call) {
	for _, row := range c.in[0].rows(len(c.out[0].Data)) {
		axpy(1, row, c.out[0].Data)
	}
}

func sumBatch(c *call) {
	for _, x := range c.in[0].Data {
		c.out[0].Data[0] += x
	}
}

func sumSquares(c *call) {
	for _, x := range c.in {
		c.out[0].Data[0] += dot(x.Data, x.Data)
	}
}

func clipScale(c *call) {
	norm, limit := math.Sqrt(c.in[0].Data[0]), c.node.Float("norm")
	c.out[0].Data[0] = 1
	if norm > limit {
		c.out[0].Data[0] = limit / norm
	}
}
