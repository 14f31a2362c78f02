package safetensors

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// DType is an element type, spelled as in the file.
type DType string

// The element types this package reads and writes.
const (
	F64  DType = "F64"
	F32  DType = "F32"
	F16  DType = "F16"
	BF16 DType = "BF16"
	I64  DType = "I64"
	I32  DType = "I32"
	U8   DType = "U8"
)

// dtypes lists them by falling size: the order in which Write lays out data,
// so that every tensor is aligned to its element.
var dtypes = []DType{F64, I64, F32, I32, F16, BF16, U8}

func (d DType) valid() bool { return slices.Contains(dtypes, d) }

// Size returns the bytes of one element.
func (d DType) Size() int {
	switch d {
	case F64, I64:
		return 8
	case F32, I32:
		return 4
	case F16, BF16:
		return 2
	case U8:
		return 1
	}
	panic(fmt.Sprintf("BUG: safetensors: size of dtype %q", string(d)))
}

// IsFloat reports whether Float64s and Float32s apply.
func (d DType) IsFloat() bool { return d == F64 || d == F32 || d == F16 || d == BF16 }

// IsInt reports whether Int64s applies.
func (d DType) IsInt() bool { return d == I64 || d == I32 || d == U8 }

// Float64s returns the elements of a floating-point tensor, row-major. It
// panics on an integer tensor: check DType.IsFloat first.
func (t *Tensor) Float64s() []float64 {
	out := make([]float64, t.Len())
	le := binary.LittleEndian
	switch t.DType {
	case F64:
		for i := range out {
			out[i] = math.Float64frombits(le.Uint64(t.Data[8*i:]))
		}
	case F32:
		for i := range out {
			out[i] = float64(math.Float32frombits(le.Uint32(t.Data[4*i:])))
		}
	case BF16:
		for i := range out {
			out[i] = float64(math.Float32frombits(uint32(le.Uint16(t.Data[2*i:])) << 16))
		}
	case F16:
		for i := range out {
			out[i] = half(le.Uint16(t.Data[2*i:]))
		}
	default:
		panic(fmt.Sprintf("BUG: safetensors: Float64s of %s tensor %q", t.DType, t.Name))
	}
	return out
}

// Float32s is Float64s with F64 elements rounded to float32; the other types
// convert exactly.
func (t *Tensor) Float32s() []float32 {
	if t.DType == F32 {
		out := make([]float32, t.Len())
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
		}
		return out
	}
	wide := t.Float64s()
	out := make([]float32, len(wide))
	for i, v := range wide {
		out[i] = float32(v)
	}
	return out
}

// Int64s returns the elements of an integer tensor, row-major. It panics on a
// floating-point tensor: check DType.IsInt first.
func (t *Tensor) Int64s() []int64 {
	out := make([]int64, t.Len())
	le := binary.LittleEndian
	switch t.DType {
	case I64:
		for i := range out {
			out[i] = int64(le.Uint64(t.Data[8*i:]))
		}
	case I32:
		for i := range out {
			out[i] = int64(int32(le.Uint32(t.Data[4*i:])))
		}
	case U8:
		for i := range out {
			out[i] = int64(t.Data[i])
		}
	default:
		panic(fmt.Sprintf("BUG: safetensors: Int64s of %s tensor %q", t.DType, t.Name))
	}
	return out
}

// Convert gives a floating-point tensor in another floating type, F32, F16 or
// BF16, rounded to nearest, ties to even; from F64 by way of F32. A number too
// large for the type is an *Error. It panics where IsFloat is false.
func (t *Tensor) Convert(to DType) (Tensor, error) {
	v := t.Float32s()
	if to == F32 {
		return FromFloat32s(t.Name, t.Shape, v), nil
	}
	var round func(float32) uint16
	var infinity uint16
	switch to {
	case F16:
		round, infinity = toHalf, 0x7c00
	case BF16:
		round, infinity = toBF16, 0x7f80
	default:
		panic(fmt.Sprintf("BUG: safetensors: conversion to %s", to))
	}
	out := Tensor{Name: t.Name, DType: to, Shape: slices.Clone(t.Shape), Data: make([]byte, 0, 2*len(v))}
	for i, x := range v {
		b := round(x)
		out.Data = binary.LittleEndian.AppendUint16(out.Data, b)
		if b&0x7fff == infinity && !math.IsInf(float64(x), 0) {
			return Tensor{}, &Error{Tensor: t.Name, Reason: fmt.Sprintf("element %d is %v, too large for %s", i, x, to)}
		}
	}
	return out, nil
}

// toBF16 rounds to the upper half of a float32.
func toBF16(x float32) uint16 {
	b := math.Float32bits(x)
	if math.IsNaN(float64(x)) {
		return uint16(b>>16) | 0x40 // quiet: a payload in the lower half is lost
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// toHalf rounds to an IEEE 754 binary16.
func toHalf(x float32) uint16 {
	sign := uint16(math.Float32bits(x) >> 16 & 0x8000)
	a := math.Abs(float64(x)) // whose products with powers of two are exact
	switch {
	case math.IsNaN(a):
		return sign | 0x7e00
	case a >= 65520: // halfway between the largest half and the next, which there is not
		return sign | 0x7c00
	case a < 0x1p-14:
		return sign | uint16(math.RoundToEven(a*0x1p24))
	}
	frac, exp := math.Frexp(a) // in [½, 1)
	return sign | uint16((exp+13)<<10+int(math.RoundToEven(frac*0x1p11)))
}

// half converts an IEEE 754 binary16.
func half(b uint16) float64 {
	exp, frac := int(b>>10&0x1f), float64(b&0x3ff)
	var v float64
	switch exp {
	case 0:
		v = math.Ldexp(frac, -24)
	case 0x1f:
		if v = math.Inf(1); frac != 0 {
			v = math.NaN()
		}
	default:
		v = math.Ldexp(1024+frac, exp-25)
	}
	if b&0x8000 != 0 {
		v = -v
	}
	return v
}

// FromFloat32s makes an F32 tensor. len(v) must be the product of shape.
func FromFloat32s(name string, shape []int, v []float32) Tensor {
	data := make([]byte, 0, 4*len(v))
	for _, x := range v {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
	}
	return newTensor(name, F32, shape, data)
}

// FromFloat64s makes an F64 tensor. len(v) must be the product of shape.
func FromFloat64s(name string, shape []int, v []float64) Tensor {
	data := make([]byte, 0, 8*len(v))
	for _, x := range v {
		data = binary.LittleEndian.AppendUint64(data, math.Float64bits(x))
	}
	return newTensor(name, F64, shape, data)
}

// FromInt64s makes an I64 tensor. len(v) must be the product of shape.
func FromInt64s(name string, shape []int, v []int64) Tensor {
	data := make([]byte, 0, 8*len(v))
	for _, x := range v {
		data = binary.LittleEndian.AppendUint64(data, uint64(x))
	}
	return newTensor(name, I64, shape, data)
}

func newTensor(name string, d DType, shape []int, data []byte) Tensor {
	t := Tensor{Name: name, DType: d, Shape: slices.Clone(shape), Data: data}
	if len(data) != t.Len()*d.Size() {
		panic(fmt.Sprintf("BUG: safetensors: %s: %d bytes for %s%v", name, len(data), d, shape))
	}
	return t
}
