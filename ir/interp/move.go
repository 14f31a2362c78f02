package interp

func patchify(c *call) {
	x, y, p := c.in[0], c.out[0], c.node.Int("patch")
	N, C, H, W := x.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]
	T, D := y.Shape[1], y.Shape[2]
	for n := range N {
		for ch := range C {
			for row := range H {
				for col := range W {
					i, u := row/p, row%p
					j, v := col/p, col%p
					y.Data[(n*T+i*(W/p)+j)*D+(ch*p+u)*p+v] = x.Data[((n*C+ch)*H+row)*W+col]
				}
			}
		}
	}
}

func prependToken(c *call) {
	x, token := c.in[0], c.in[1].Data
	T, D := x.Shape[1], x.Shape[2]
	for n, sample := range c.out[0].rows((T + 1) * D) {
		copy(sample, token)
		copy(sample[D:], x.Data[n*T*D:(n+1)*T*D])
	}
}

func sliceTokens(c *call) {
	x, y := c.in[0], c.out[0]
	T, D := x.Shape[1], x.Shape[2]
	for n, sample := range y.rows(y.Shape[1] * D) {
		copy(sample, x.Data[(n*T+c.node.Int("from"))*D:])
	}
}

func transpose(c *call) {
	x := c.in[0]
	T, C := x.Shape[1], x.Shape[2]
	for i, v := range x.Data {
		n, t, ch := i/(T*C), i/C%T, i%C
		c.out[0].Data[(n*C+ch)*T+t] = v
	}
}
