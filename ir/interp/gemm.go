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

// eachHead calls f for every row and head, with the head's columns of both
// tensors and the first row of its weight, which has N.
func eachHead(c *call, x, y Tensor, N int, f func(x, y []float64, first int)) {
	H := c.node.Int("heads")
	K, M := x.last()/H, y.last()/H
	ys := y.rows(M)
	for i, xh := range x.rows(K) {
		f(xh, ys[i], i%H*N)
	}
}

func headLinear(c *call) {
	x, w, y := c.in[0], c.in[1], c.out[0]
	N := w.Shape[0] / c.node.Int("heads")
	weight := w.rows(w.last())
	eachHead(c, x, y, N, func(x, y []float64, first int) {
		for i := range y {
			y[i] = dot(weight[first+i], x)
		}
	})
}

func headLinearT(c *call) {
	x, w, y := c.in[0], c.in[1], c.out[0]
	N := w.Shape[0] / c.node.Int("heads")
	weight := w.rows(w.last())
	eachHead(c, x, y, N, func(x, y []float64, first int) {
		for i, xi := range x {
			axpy(xi, weight[first+i], y)
		}
	})
}

func headLinearDW(c *call) {
	dy, x, dw := c.in[0], c.in[1], c.out[0]
	N := dw.Shape[0] / c.node.Int("heads")
	grads := dw.rows(dw.last())
	eachHead(c, dy, x, N, func(dy, x []float64, first int) {
		for i, d := range dy {
			axpy(d, x, grads[first+i])
		}
	})
}
