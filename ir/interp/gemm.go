package interp

func linear(c *call) {
	x, w, y := c.in[0], c.in[1], c.out[0]
	K, N := x.last(), y.last()
	weight := w.rows(K)
	for r, row := range x.rows(K) {
		for n, wn := range weight {
			sum := 0.0
			for k, xk := range row {
				sum += xk * wn[k]
			}
			y.Data[r*N+n] = sum
		}
	}
}

func linearDX(c *call) {
	dy, w, dx := c.in[0], c.in[1], c.out[0]
	N, K := dy.last(), dx.last()
	weight, out := w.rows(K), dx.rows(K)
	for r, row := range dy.rows(N) {
		for n, d := range row {
			for k, wk := range weight[n] {
				out[r][k] += d * wk
			}
		}
	}
}

func linearDW(c *call) {
	dy, x, dw := c.in[0], c.in[1], c.out[0]
	N, K := dy.last(), x.last()
	grads, rows := dy.rows(N), x.rows(K)
	for n, out := range dw.rows(K) { // one row of dw at a time, to stay in cache
		for r, row := range rows {
			for k, xk := range row {
				out[k] += grads[r][n] * xk
			}
		}
	}
}
