package rng

import (
	"math"
	"testing"
)

// TestBeta compares mean and variance with those of the distribution, and the
// distribution itself where it is known in closed form.
func TestBeta(t *testing.T) {
	const n = 40000
	for _, c := range [][2]float64{{0.001, 0.001}, {0.1, 0.1}, {0.2, 0.2}, {0.8, 0.8}, {1, 1}, {2, 2}, {0.5, 3}, {100, 100}, {7, 0.01}} {
		a, b := c[0], c[1]
		s := New(5, "beta")
		sum, squares := 0.0, 0.0
		for range n {
			x := s.Beta(a, b)
			if !(x >= 0 && x <= 1) {
				t.Fatalf("Beta(%g, %g) gave %g", a, b, x)
			}
			sum += x
			squares += x * x
		}
		mean, want := sum/n, a/(a+b)
		variance, wantVariance := squares/n-mean*mean, a*b/((a+b)*(a+b)*(a+b+1))
		deviation := math.Sqrt(wantVariance)
		if math.Abs(mean-want) > 5*deviation/math.Sqrt(n) {
			t.Errorf("Beta(%g, %g) has mean %g, want %g", a, b, mean, want)
		}
		// The fourth central moment is at most the largest deviation squared
		// times the variance, so this is five deviations of the estimate or more.
		if math.Abs(variance-wantVariance) > 5*deviation*max(want, 1-want)/math.Sqrt(n) {
			t.Errorf("Beta(%g, %g) has variance %g, want %g", a, b, variance, wantVariance)
		}
	}
	// P(Beta(a, 1) ≤ x) = x^a.
	for _, a := range []float64{0.3, 1, 4} {
		s := New(6, "beta")
		for _, x := range []float64{0.05, 0.5, 0.9} {
			below := 0.0
			for range n {
				if s.Beta(a, 1) <= x {
					below++
				}
			}
			p := math.Pow(x, a)
			if math.Abs(below/n-p) > 5*math.Sqrt(p*(1-p)/n) {
				t.Errorf("Beta(%g, 1) is below %g in %g of the cases, want %g", a, x, below/n, p)
			}
		}
	}
}
