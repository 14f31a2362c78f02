// Package onnxpb encodes the parts of ONNX's protobuf messages that vitgen
// writes: the compiler a graph, a trainer the weights. Field numbers are those
// of onnx.proto, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
package onnxpb

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Fields of ModelProto.
const (
	ModelIRVersion       = 1
	ModelProducerName    = 2
	ModelProducerVersion = 3
	ModelDoc             = 6
	ModelGraph           = 7
	ModelOpsetImport     = 8
	ModelMetadata        = 14
)

// Fields of OperatorSetIdProto, and of StringStringEntryProto.
const (
	OpsetVersion = 2
	EntryKey     = 1
	EntryValue   = 2
)

// Fields of GraphProto.
const (
	GraphNode        = 1
	GraphName        = 2
	GraphInitializer = 5
	GraphInput       = 11
	GraphOutput      = 12
	GraphValueInfo   = 13
)

// Fields of NodeProto.
const (
	NodeInput     = 1
	NodeOutput    = 2
	NodeName      = 3
	NodeOpType    = 4
	NodeAttribute = 5
	NodeDoc       = 6
)

// Fields of AttributeProto, and the values of its type.
const (
	AttrName   = 1
	AttrFloat  = 2
	AttrInt    = 3
	AttrTensor = 5
	AttrInts   = 8
	AttrType   = 20

	AttrTypeFloat  = 1
	AttrTypeInt    = 2
	AttrTypeTensor = 4
	AttrTypeInts   = 7
)

// Fields of TensorProto, and the element types.
const (
	TensorDims     = 1
	TensorDataType = 2
	TensorName     = 8
	TensorRawData  = 9

	Float32 = 1
	Int64   = 7
)

// Fields of ValueInfoProto and of the messages within it.
const (
	ValueName = 1
	ValueType = 2

	TypeTensor    = 1 // TypeProto
	TensorType    = 1 // TypeProto.Tensor: elem_type
	TensorShape   = 2 // TypeProto.Tensor
	ShapeDim      = 1 // TensorShapeProto
	DimensionSize = 1 // TensorShapeProto.Dimension: dim_value
	DimensionName = 2 // TensorShapeProto.Dimension: dim_param
)

// MaxBytes is how long a protobuf message, and so an ONNX file, can be.
const MaxBytes = math.MaxInt32

// Message is an encoded protobuf message that grows by its fields.
type Message []byte

// Int appends an integer.
func (m *Message) Int(field protowire.Number, v int) {
	*m = protowire.AppendVarint(protowire.AppendTag(*m, field, protowire.VarintType), uint64(v))
}

// Ints appends a repeated integer, not packed: onnx.proto is proto2.
func (m *Message) Ints(field protowire.Number, vs []int) {
	for _, v := range vs {
		m.Int(field, v)
	}
}

// Float appends a float.
func (m *Message) Float(field protowire.Number, v float32) {
	*m = protowire.AppendFixed32(protowire.AppendTag(*m, field, protowire.Fixed32Type), math.Float32bits(v))
}

// String appends a string.
func (m *Message) String(field protowire.Number, s string) {
	*m = protowire.AppendString(protowire.AppendTag(*m, field, protowire.BytesType), s)
}

// Bytes appends bytes: raw data, or a message.
func (m *Message) Bytes(field protowire.Number, b []byte) {
	*m = protowire.AppendBytes(protowire.AppendTag(*m, field, protowire.BytesType), b)
}

// Open appends the start of a field of so many bytes, which the caller appends
// or writes behind it.
func (m *Message) Open(field protowire.Number, bytes int) {
	*m = protowire.AppendVarint(protowire.AppendTag(*m, field, protowire.BytesType), uint64(bytes))
}

// Tensor is a TensorProto without its data, of which there are so many bytes:
// little-endian, row-major. They come right behind it.
func Tensor(name string, elem int, dims []int, bytes int) Message {
	var m Message
	m.Ints(TensorDims, dims)
	m.Int(TensorDataType, elem)
	m.String(TensorName, name)
	m.Open(TensorRawData, bytes)
	return m
}

// Entry is a StringStringEntryProto, an entry of a model's metadata.
func Entry(key, value string) Message {
	var m Message
	m.String(EntryKey, key)
	m.String(EntryValue, value)
	return m
}
