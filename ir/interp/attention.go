package interp

import "math"

// heads is the geometry of one attention node at run time.
type heads struct {
	N, Tq, Tk, H, d int
	first, total    int // query row i is token first+i of total
	scale           float64
	causal          bool
}

func (c *call) heads(q, k Tensor) heads {
	n := c.node
	H := n.Int("heads")
	return heads{
		N: q.Shape[0], Tq: q.Shape[1], Tk: k.Shape[1], H: H, d: q.Shape[2] / H,
		first: n.Int("q_first"), total: n.Int("q_total"),
		scale: n.Float("scale"), causal: n.Bool("causal"),
	}
}

// row is head h of token t of sample b in a [N,T,D] tensor; all of the token
// where the tensor is as wide as one head and they share it.
func (s heads) row(x Tensor, b, t, h int) []float64 {
	at := (b*x.Shape[1] + t) * x.last()
	if x.last() > s.d {
		at += h * s.d
	}
	return x.Data[at : at+s.d]
}

// sum gives the place in o's row for the sum of head h's weights, nil if it has
// none.
func (s heads) sum(o Tensor, b, t, h int) *float64 {
	if o.last() == s.H*s.d {
		return nil
	}
	return &o.Data[(b*o.Shape[1]+t)*o.last()+s.H*s.d+h]
}

// visible is how many keys query row i sees: all, or none after its own token.
func (s heads) visible(i int) int {
	if s.causal {
		return min(s.Tk, s.first+i+1)
	}
	return s.Tk
}

// index numbers the weight of (sample, head, query, key) for dropout.
func (s heads) index(b, h, i, j int) int64 {
	return int64(((b*s.H+h)*s.total+s.first+i)*s.Tk + j)
}

// each calls f for every sample, head and query row.
func (s heads) each(f func(b, h, i int)) {
	for b := range s.N {
		for h := range s.H {
			for i := range s.Tq {
				f(b, h, i)
			}
		}
	}
}

func dot(x, y []float64) float64 {
	sum := 0.0
	for i := range x {
		sum += x[i] * y[i]
	}
	return sum
}

// axpy adds a·x to y.
func axpy(a float64, x, y []float64) {
	for i := range x {
		y[i] += a * x[i]
	}
}

func attention(c *call) { c.attend(c.in[1], c.in[2]) }

func latentAttention(c *call) { c.attend(c.in[1], c.in[1]) }

// attend is attention over keys k and values v.
func (c *call) attend(k, v Tensor) {
	q, o, lse := c.in[0], c.out[0], c.out[1]
	s := c.heads(q, k)
	s.each(func(b, h, i int) {
		scores := make([]float64, s.visible(i))
		top := math.Inf(-1)
		for j := range scores {
			scores[j] = s.scale * dot(s.row(q, b, i, h), s.row(k, b, j, h))
			top = max(top, scores[j])
		}
		sum := 0.0
		for _, x := range scores {
			sum += math.Exp(x - top)
		}
		logSum := top + math.Log(sum)
		lse.Data[(b*s.H+h)*s.Tq+i] = logSum
		for j, x := range scores {
			p := math.Exp(x-logSum) * c.drop(s.index(b, h, i, j))
			axpy(p, s.row(v, b, j, h), s.row(o, b, i, h))
			if sum := s.sum(o, b, i, h); sum != nil {
				*sum += p
			}
		}
	})
}

func attentionGrad(c *call) {
	c.attendGrad(c.in[2], c.in[3], c.in[4], c.in[5], c.out[1], c.out[2])
}

func latentAttentionGrad(c *call) {
	c.attendGrad(c.in[2], c.in[2], c.in[3], c.in[4], c.out[1], c.out[1])
}

// attendGrad adds to dk and dv, which may be one tensor.
func (c *call) attendGrad(k, v, o, lse, dk, dv Tensor) {
	do, q, dq := c.in[0], c.in[1], c.out[0]
	s := c.heads(q, k)
	s.each(func(b, h, i int) {
		qi, doi := s.row(q, b, i, h), s.row(do, b, i, h)
		delta, dsum := dot(doi, s.row(o, b, i, h)), 0.0
		if d := s.sum(do, b, i, h); d != nil {
			dsum = *d
			delta += dsum * *s.sum(o, b, i, h)
		}
		for j := range s.visible(i) {
			kj, vj := s.row(k, b, j, h), s.row(v, b, j, h)
			p := math.Exp(s.scale*dot(qi, kj) - lse.Data[(b*s.H+h)*s.Tq+i])
			m := c.drop(s.index(b, h, i, j))
			axpy(m*p, doi, s.row(dv, b, j, h))
			ds := p * (m*(dot(doi, vj)+dsum) - delta)
			axpy(s.scale*ds, kj, s.row(dq, b, i, h))
			axpy(s.scale*ds, qi, s.row(dk, b, j, h))
		}
	})
}
