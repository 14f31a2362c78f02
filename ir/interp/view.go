package interp

func reshape(c *call) { copy(c.out[0].Data, c.in[0].Data) }

func sliceLast(c *call) {
	x, y := c.in[0], c.out[0]
	src, dst := x.rows(x.last()), y.rows(y.last())
	for r := range dst {
		copy(dst[r], src[r][c.node.Int("from"):])
	}
}

func concatLast(c *call) {
	dst := c.out[0].rows(c.out[0].last())
	from := 0
	for _, x := range c.in {
		for r, row := range x.rows(x.last()) {
			copy(dst[r][from:], row)
		}
		from += x.last()
	}
}

func sliceFirst(c *call) {
	x := c.in[0]
	row := len(x.Data) / x.Shape[0]
	copy(c.out[0].Data, x.Data[c.node.Int("from")*row:])
}

func concatFirst(c *call) {
	at := c.out[0].Data
	for _, x := range c.in {
		at = at[copy(at, x.Data):]
	}
}
