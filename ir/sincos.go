package ir

import "math"

// SinCos is the table of OpSinCos as targets store it, [T,D] row-major. The
// interpreter has its own.
func SinCos(T, D int) []float32 {
	table := make([]float32, 0, T*D)
	for i := range T {
		for j := range D {
			angle := float64(i) / math.Pow(10000, float64(j/2*2)/float64(D))
			x := math.Sin(angle)
			if j%2 == 1 {
				x = math.Cos(angle)
			}
			table = append(table, float32(x))
		}
	}
	return table
}
