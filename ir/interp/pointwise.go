package interp

import "math"

// unary applies f to every element.
func unary(c *call, f func(x float64) float64) {
	for i, x := range c.in[0].Data {
		c.out[0].Data[i] = f(x)
	}
}

// binary applies f to the elements of two operands. The second one's shape is
// a suffix of the first's, so in row-major order it simply repeats.
func binary(c *call, f func(x, y float64) float64) {
	y := c.in[1].Data
	for i, x := range c.in[0].Data {
		c.out[0].Data[i] = f(x, y[i%len(y)])
	}
}

func add(c *call) { binary(c, func(x, y float64) float64 { return x + y }) }
func mul(c *call) { binary(c, func(x, y float64) float64 { return x * y }) }

func scale(c *call) {
	by := c.node.Float("by")
	unary(c, func(x float64) float64 { return by * x })
}

// normalCDF is Φ, normalPDF its derivative φ.
func normalCDF(x float64) float64 { return 0.5 * (1 + math.Erf(x/math.Sqrt2)) }
func normalPDF(x float64) float64 { return math.Exp(-x*x/2) / math.Sqrt(2*math.Pi) }

// The tanh form of GELU: x·½(1 + tanh(u)), u = √(2/π)(x + 0.044715x³).
func geluTanhArg(x float64) (u, du float64) {
	k := math.Sqrt(2 / math.Pi)
	return k * (x + 0.044715*x*x*x), k * (1 + 3*0.044715*x*x)
}

func gelu(c *call) {
	if c.node.Bool("tanh") {
		unary(c, func(x float64) float64 {
			u, _ := geluTanhArg(x)
			return 0.5 * x * (1 + math.Tanh(u))
		})
		return
	}
	unary(c, func(x float64) float64 { return x * normalCDF(x) })
}

func geluSlope(c *call) {
	if c.node.Bool("tanh") {
		unary(c, func(x float64) float64 {
			u, du := geluTanhArg(x)
			t := math.Tanh(u)
			return 0.5*(1+t) + 0.5*x*(1-t*t)*du
		})
		return
	}
	unary(c, func(x float64) float64 { return normalCDF(x) + x*normalPDF(x) })
}

func relu(c *call) { unary(c, func(x float64) float64 { return max(x, 0) }) }

func reluGrad(c *call) {
	binary(c, func(dy, x float64) float64 {
		if x > 0 {
			return dy
		}
		return 0
	})
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func silu(c *call) { unary(c, func(x float64) float64 { return x * sigmoid(x) }) }

func siluGrad(c *call) {
	binary(c, func(dy, x float64) float64 {
		s := sigmoid(x)
		return dy * s * (1 + x*(1-s))
	})
}

func dropout(c *call) {
	x, y, n := c.in[0], c.out[0], c.node
	D := x.last()
	perSample := n.Args[0].Type.Rows()
	for r, row := range x.rows(D) {
		sample, inSample := r/perSample, r%perSample
		whole := sample*n.Int("rows") + n.Int("first_row") + inSample
		for col, v := range row {
			y.Data[r*D+col] = v * c.drop(int64(whole*D+col))
		}
	}
}

func dropPath(c *call) {
	x := c.in[0]
	perSample := len(x.Data) / x.Shape[0]
	for sample, elems := range x.rows(perSample) {
		keep := c.drop(int64(sample))
		for i, v := range elems {
			c.out[0].Data[sample*perSample+i] = v * keep
		}
	}
}

func repeatTokens(c *call) {
	D, T := c.in[0].last(), c.node.Int("tokens")
	for r, row := range c.out[0].rows(D) {
		copy(row, c.in[0].Data[r/T*D:])
	}
}

func padTokens(c *call) {
	x, y, before := c.in[0], c.out[0], c.node.Int("before")
	T, D := x.Shape[1], x.Shape[2]
	for sample, tokens := range x.rows(T * D) {
		copy(y.Data[(sample*y.Shape[1]+before)*D:], tokens)
	}
}

func broadcastBatch(c *call) {
	for i := range c.out[0].Data {
		c.out[0].Data[i] = c.in[0].Data[0]
	}
}
