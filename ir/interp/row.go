package interp

import (
	"math"

	"github.com/vitgen/vitgen/ir"
)

func layerNorm(c *call) {
	x, gamma, beta := c.in[0], c.in[1].Data, c.in[2].Data
	y, mean, rstd := c.out[0], c.out[1], c.out[2]
	n := float64(len(gamma))
	out := y.rows(len(gamma))
	for r, row := range x.rows(len(gamma)) {
		mu, variance := 0.0, 0.0
		for _, v := range row {
			mu += v / n
		}
		for _, v := range row {
			variance += (v - mu) * (v - mu) / n
		}
		rs := 1 / math.Sqrt(variance+c.node.Float("eps"))
		for i, v := range row {
			out[r][i] = (v-mu)*rs*gamma[i] + beta[i]
		}
		mean.Data[r], rstd.Data[r] = mu, rs
	}
}

func layerNormGrad(c *call) {
	dy, x, gamma, mean, rstd := c.in[0], c.in[1], c.in[2].Data, c.in[3].Data, c.in[4].Data
	dx, dgamma, dbeta := c.out[0], c.out[1].Data, c.out[2].Data
	n := float64(len(gamma))
	xs, out := x.rows(len(gamma)), dx.rows(len(gamma))
	for r, d := range dy.rows(len(gamma)) {
		xhat := make([]float64, len(gamma))
		meanG, meanGX := 0.0, 0.0
		for i := range d {
			xhat[i] = (xs[r][i] - mean[r]) * rstd[r]
			meanG += d[i] * gamma[i] / n
			meanGX += d[i] * gamma[i] * xhat[i] / n
		}
		for i := range d {
			out[r][i] = rstd[r] * (d[i]*gamma[i] - meanG - xhat[i]*meanGX)
			dgamma[i] += d[i] * xhat[i]
			dbeta[i] += d[i]
		}
	}
}

// target is t_c, the smoothed one-hot label. A label that is no class makes
// it NaN, so that a bad data set shows in the loss instead of hiding there.
func target(class, label, classes int, smoothing float64) float64 {
	if label < 0 || label >= classes {
		return math.NaN()
	}
	t := smoothing / float64(classes)
	if class == label {
		t += 1 - smoothing
	}
	return t
}

// logSumExp is log Σ exp(x), with the largest term taken out.
func logSumExp(x []float64) float64 {
	top := math.Inf(-1)
	for _, v := range x {
		top = max(top, v)
	}
	sum := 0.0
	for _, v := range x {
		sum += math.Exp(v - top)
	}
	return top + math.Log(sum)
}

func argMax(x []float64) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}

// targets are a row's t_c, of one label or of two that share it. A second label
// without a share is not looked at.
func (c *call) targets(row, classes int) []float64 {
	t := make([]float64, classes)
	mix := 1.0
	if mixed := c.node.Op == ir.OpMixedCrossEntropy || c.node.Op == ir.OpMixedCrossEntropyGrad; mixed {
		mix = c.in[3].Data[row]
	}
	for class := range t {
		t[class] = mix * target(class, int(c.in[1].Data[row]), classes, c.node.Float("smoothing"))
		if mix != 1 {
			t[class] += (1 - mix) * target(class, int(c.in[2].Data[row]), classes, c.node.Float("smoothing"))
		}
	}
	return t
}

// crossEntropy is for one label and for two.
func crossEntropy(c *call) {
	logits, labels := c.in[0], c.in[1].Data
	loss, correct := c.out[0].Data, c.out[1].Data
	C := logits.last()
	for r, row := range logits.rows(C) {
		label := int(labels[r])
		if label == -1 {
			continue
		}
		logSum := logSumExp(row)
		for i, t := range c.targets(r, C) {
			loss[r] -= t * (row[i] - logSum)
		}
		if argMax(row) == label {
			correct[r] = 1
		}
	}
}

// crossEntropyGrad is for one label and for two; dloss is the last operand.
func crossEntropyGrad(c *call) {
	logits, labels, dloss := c.in[0], c.in[1].Data, c.in[len(c.in)-1].Data
	C := logits.last()
	out := c.out[0].rows(C)
	for r, row := range logits.rows(C) {
		if labels[r] == -1 {
			continue
		}
		logSum := logSumExp(row)
		for i, t := range c.targets(r, C) {
			out[r][i] = dloss[r] * (math.Exp(row[i]-logSum) - t)
		}
	}
}
