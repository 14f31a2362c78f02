// Package formula computes tensors from their names, so that a golden file of
// a full-size model need not store its inputs. It is the Go twin of
// golden/formula.py; it is not a random number generator for training.
//
//	hash(name, i)  = splitmix64(fnv1a64(name) + i)
//	unit(name, i)  = (hash >> 11)·2⁻⁵² - 1           in [-1, 1)
//	value(name, i) = float32(scale·unit + offset)    each operation rounded once
package formula

// Hash returns 64 well-mixed bits for element i of the named tensor.
func Hash(name string, i uint64) uint64 { return splitmix64(fnv1a64(name) + i) }

// Value returns element i of the named tensor, between offset-scale and
// offset+scale.
func Value(name string, i uint64, scale, offset float64) float32 {
	return value(Hash(name, i), scale, offset)
}

// Fill sets dst[i] to Value(name, i, scale, offset).
func Fill(dst []float32, name string, scale, offset float64) {
	base := fnv1a64(name)
	for i := range dst {
		dst[i] = value(splitmix64(base+uint64(i)), scale, offset)
	}
}

// Labels returns n class labels in [0, classes); classes must be positive.
func Labels(n, classes int) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = int64(Hash("label", uint64(i)) % uint64(classes))
	}
	return out
}

// Indices returns the n flat positions, in [0, size) and possibly repeated, at
// which the named tensor of size elements is sampled.
func Indices(name string, n, size int) []int {
	out := make([]int, n)
	for j := range out {
		out[j] = int(Hash("sample:"+name, uint64(j)) % uint64(size))
	}
	return out
}

func value(hash uint64, scale, offset float64) float32 {
	unit := float64(hash>>11)*0x1p-52 - 1
	// The conversion keeps compilers for machines with fused multiply-add from
	// rounding once where Python rounds twice.
	return float32(float64(scale*unit) + offset)
}

func fnv1a64(name string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for _, b := range []byte(name) {
		h = (h ^ uint64(b)) * 0x100000001b3
	}
	return h
}

func splitmix64(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
