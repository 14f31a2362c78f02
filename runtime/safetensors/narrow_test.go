package safetensors

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
)

// Every number of a narrow type is itself; between two neighbours the nearer
// one is taken, and of two equally near ones the even.
func TestNarrow(t *testing.T) {
	for _, to := range []DType{F16, BF16} {
		value := func(bits uint16) float64 {
			return (&Tensor{DType: to, Shape: []int{1}, Data: binary.LittleEndian.AppendUint16(nil, bits)}).Float64s()[0]
		}
		var bits []uint16 // what is wanted
		var given []float32
		want := func(b uint16, x float64) {
			bits, given = append(bits, b), append(given, float32(x))
		}
		for b := range 1 << 16 {
			b := uint16(b)
			x, next := value(b), value(b+1)
			if math.IsNaN(x) {
				continue
			}
			want(b, x)
			if b&0x7fff == 0x7fff || math.IsNaN(next) || math.IsInf(x, 0) || math.IsInf(next, 0) {
				continue
			}
			middle := float32((x + next) / 2) // exact: one bit more
			want(b+b&1, float64(middle))
			want(b, float64(math.Nextafter32(middle, float32(x))))
			want(b+1, float64(math.Nextafter32(middle, float32(next))))
		}
		source := FromFloat32s("w", []int{len(given)}, given)
		got, err := source.Convert(to)
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != "w" || got.DType != to || got.Len() != len(given) {
			t.Fatalf("the result is %s %s%v", got.Name, got.DType, got.Shape)
		}
		for i, b := range bits {
			if g := binary.LittleEndian.Uint16(got.Data[2*i:]); g != b {
				t.Fatalf("%s: %v becomes %04x, want %04x", to, given[i], g, b)
			}
		}
	}
}

func TestNarrowNaN(t *testing.T) {
	for _, to := range []DType{F32, F16, BF16} {
		source := FromFloat32s("w", []int{2}, []float32{float32(math.NaN()), math.Float32frombits(0xff800001)})
		got, err := source.Convert(to)
		if err != nil {
			t.Fatal(err)
		}
		for i, x := range got.Float32s() {
			if !math.IsNaN(float64(x)) {
				t.Errorf("%s: NaN number %d becomes %v", to, i, x)
			}
		}
	}
}

// Numbers that would become infinite are named.
func TestNarrowTooLarge(t *testing.T) {
	for to, least := range map[DType]float32{F16: 65520, BF16: 0x1.ffp127} {
		for _, sign := range []float32{1, -1} {
			fits, tooLarge := FromFloat32s("w", []int{1}, []float32{sign * math.Nextafter32(least, 0)}), FromFloat32s("w", []int{2}, []float32{0, sign * least})
			if _, err := fits.Convert(to); err != nil {
				t.Errorf("%s: %v", to, err)
			}
			_, err := tooLarge.Convert(to)
			var fault *Error
			if !errors.As(err, &fault) || fault.Tensor != "w" || !strings.Contains(fault.Reason, "element 1 is") {
				t.Errorf("%s: %v", to, err)
			}
		}
	}
}
