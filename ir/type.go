package ir

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// DType is the element type of a value.
type DType uint8

const (
	Invalid DType = iota
	F32
	BF16
	I32
)

var dtypeNames = [...]string{Invalid: "invalid", F32: "f32", BF16: "bf16", I32: "i32"}

func (d DType) String() string { return dtypeNames[d] }

// Size is the number of bytes of one element.
func (d DType) Size() int {
	switch d {
	case F32, I32:
		return 4
	case BF16:
		return 2
	}
	panic("BUG: size of an invalid dtype")
}

// Type is the static type of a value: element type and shape.
//
// If Batched, Shape[0] is the batch: the number of samples a full micro-batch
// holds. It is the only dimension that may be smaller at run time (the last
// batch of an epoch), so no op ever mixes it with another dimension.
type Type struct {
	DType   DType
	Batched bool
	Shape   []int
}

// Tensor makes a type without a batch dimension.
func Tensor(d DType, shape ...int) Type {
	return Type{DType: d, Shape: slices.Clone(shape)}
}

// BatchOf makes a batched type: batch samples of the given shape each.
func BatchOf(d DType, batch int, sample ...int) Type {
	return Type{DType: d, Batched: true, Shape: append([]int{batch}, sample...)}
}

// Scalar is the type of a single float32.
var Scalar = Tensor(F32)

// Sample is the shape without the batch dimension.
func (t Type) Sample() []int {
	if t.Batched {
		return t.Shape[1:]
	}
	return t.Shape
}

// With returns the type with another shape per sample.
func (t Type) With(sample ...int) Type {
	if t.Batched {
		return BatchOf(t.DType, t.Shape[0], sample...)
	}
	return Tensor(t.DType, sample...)
}

// Elems is the number of elements, at full batch.
func (t Type) Elems() int { return Product(t.Shape) }

// Bytes is the size in memory, at full batch.
func (t Type) Bytes() int64 { return int64(t.Elems()) * int64(t.DType.Size()) }

// Last is the extent of the last dimension (1 for a scalar or a batch of them).
func (t Type) Last() int {
	if s := t.Sample(); len(s) > 0 {
		return s[len(s)-1]
	}
	return 1
}

// Rows is the number of rows of length Last in one sample.
func (t Type) Rows() int {
	s := t.Sample()
	if len(s) == 0 {
		return 1
	}
	return Product(s[:len(s)-1])
}

// Equal reports whether two types are the same.
func (t Type) Equal(u Type) bool {
	return t.DType == u.DType && t.Batched == u.Batched && slices.Equal(t.Shape, u.Shape)
}

// String prints the type: f32[512,64], or f32[128|37,512] with the batch
// before the bar.
func (t Type) String() string {
	var b strings.Builder
	b.WriteString(t.DType.String())
	b.WriteByte('[')
	if t.Batched {
		fmt.Fprintf(&b, "%d|", t.Shape[0])
	}
	for i, d := range t.Sample() {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(d))
	}
	b.WriteByte(']')
	return b.String()
}

// Product multiplies the extents; the empty product is 1.
func Product(dims []int) int {
	p := 1
	for _, d := range dims {
		p *= d
	}
	return p
}
