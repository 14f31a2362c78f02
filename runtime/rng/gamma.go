package rng

import "math"

// Beta is a sample of Beta(a, b), a and b above 0. It is the share of one of
// two gamma samples in their sum, taken by their logarithms: for small a and b
// the samples themselves are too small for floating point.
func (s *Stream) Beta(a, b float64) float64 {
	x, y := s.logGamma(a), s.logGamma(b)
	return 1 / (1 + math.Exp(y-x))
}

// logGamma is the logarithm of a sample of Gamma(a), after Marsaglia and Tsang,
// "A simple method for generating gamma variables" (ACM TOMS 26, 2000). For a
// below 1, Gamma(a) is Gamma(a+1)·U^(1/a).
func (s *Stream) logGamma(a float64) float64 {
	if a < 1 {
		return s.logGamma(a+1) + math.Log(1-s.Float64())/a
	}
	d := a - 1./3
	c := 1 / math.Sqrt(9*d)
	for {
		x := s.Normal()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		if math.Log(1-s.Float64()) < x*x/2+d-d*v+d*math.Log(v) {
			return math.Log(d * v)
		}
	}
}
