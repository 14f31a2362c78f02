package interp

import "math"

func sgd(c *call) {
	g, lr, decay := c.in[1].Data, c.in[2].Data[0], c.node.Float("weight_decay")
	for i, p := range c.in[0].Data {
		c.out[0].Data[i] = p - lr*(g[i]+decay*p)
	}
}

func sgdMomentum(c *call) {
	g, m, lr := c.in[1].Data, c.in[2].Data, c.in[3].Data[0]
	momentum, decay, nesterov := c.node.Float("momentum"), c.node.Float("weight_decay"), c.node.Bool("nesterov")
	for i, p := range c.in[0].Data {
		d := g[i] + decay*p
		next := momentum*m[i] + d
		step := next
		if nesterov {
			step = d + momentum*next
		}
		c.out[0].Data[i], c.out[1].Data[i] = p-lr*step, next
	}
}

func adamW(c *call) {
	g, m, v := c.in[1].Data, c.in[2].Data, c.in[3].Data
	lr, corr1, corr2 := c.in[4].Data[0], c.in[5].Data[0], c.in[6].Data[0]
	b1, b2 := c.node.Float("beta1"), c.node.Float("beta2")
	eps, decay := c.node.Float("eps"), c.node.Float("weight_decay")
	for i, p := range c.in[0].Data {
		m1 := b1*m[i] + (1-b1)*g[i]
		v1 := b2*v[i] + (1-b2)*g[i]*g[i]
		p *= 1 - lr*decay
		p -= lr * (m1 * corr1) / (math.Sqrt(v1*corr2) + eps)
		c.out[0].Data[i], c.out[1].Data[i], c.out[2].Data[i] = p, m1, v1
	}
}

func ema(c *call) {
	p, weight := c.in[1].Data, c.in[2].Data[0]
	for i, e := range c.in[0].Data {
		c.out[0].Data[i] = e + weight*(p[i]-e)
	}
}
