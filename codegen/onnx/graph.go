package onnx

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/vitgen/vitgen/internal/onnxpb"
	"github.com/vitgen/vitgen/ir"
)

// node is an application of an operator.
type node struct {
	op              string
	name, doc       string
	inputs, outputs []string
	attrs           []attr
}

// attr is an attribute of a node: an int, float32, []int or onnxpb.Message,
// which is a tensor.
type attr struct {
	name string
	val  any
}

// constant is an initializer that the compiler knows.
type constant struct {
	name string
	elem int // onnxpb.Float32 or Int64
	dims []int
	data []byte
}

// graph is what becomes a GraphProto.
type graph struct {
	inputs, outputs, values []valueInfo
	nodes                   []node
	constants               []constant
	taken                   map[string]bool // names of values and nodes
}

// valueInfo states the type of a value.
type valueInfo struct {
	name string
	typ  ir.Type
}

// unique gives a name that nothing has: the one wanted, or with a number.
func (g *graph) unique(want string) string {
	name := want
	for i := 2; g.taken[name]; i++ {
		name = fmt.Sprintf("%s_%d", want, i)
	}
	g.taken[name] = true
	return name
}

// ints is the initializer of a list of integers, as operators take shapes.
func (g *graph) ints(vs ...int) string {
	var data []byte
	for _, v := range vs {
		data = binary.LittleEndian.AppendUint64(data, uint64(v))
	}
	return g.constant(constant{"ints" + list(vs), onnxpb.Int64, []int{len(vs)}, data})
}

// index is the initializer of one integer, a tensor without dimensions.
func (g *graph) index(v int) string {
	data := binary.LittleEndian.AppendUint64(nil, uint64(v))
	return g.constant(constant{fmt.Sprintf("int(%d)", v), onnxpb.Int64, nil, data})
}

// float is the initializer of a number.
func (g *graph) float(v float64) string {
	return g.constant(constant{fmt.Sprintf("float(%v)", float32(v)), onnxpb.Float32, nil, floats(float32(v))})
}

// floats encodes raw data.
func floats(vs ...float32) []byte {
	var data []byte
	for _, v := range vs {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return data
}

// constant adds an initializer whose name says what it is, once. The brackets
// in the name keep it apart from layers and parameters.
func (g *graph) constant(c constant) string {
	if !g.taken[c.name] {
		g.taken[c.name] = true
		g.constants = append(g.constants, c)
	}
	return c.name
}

func list(vs []int) string {
	return "(" + strings.Trim(strings.ReplaceAll(fmt.Sprint(vs), " ", ","), "[]") + ")"
}

// rename gives a value another name.
func (g *graph) rename(from, to string) {
	swap := func(names []string) {
		for i := range names {
			if names[i] == from {
				names[i] = to
			}
		}
	}
	for _, n := range g.nodes {
		swap(n.inputs)
		swap(n.outputs)
	}
	g.values = slices.DeleteFunc(g.values, func(v valueInfo) bool { return v.name == from })
}

// encode gives the graph as a GraphProto.
func (g *graph) encode(name string) onnxpb.Message {
	var m onnxpb.Message
	for _, n := range g.nodes {
		m.Bytes(onnxpb.GraphNode, n.encode())
	}
	m.String(onnxpb.GraphName, name)
	for _, c := range g.constants {
		m.Bytes(onnxpb.GraphInitializer, c.encode())
	}
	for _, in := range g.inputs {
		m.Bytes(onnxpb.GraphInput, in.encode())
	}
	for _, o := range g.outputs {
		m.Bytes(onnxpb.GraphOutput, o.encode())
	}
	for _, v := range g.values {
		m.Bytes(onnxpb.GraphValueInfo, v.encode())
	}
	return m
}

func (n *node) encode() onnxpb.Message {
	var m onnxpb.Message
	for _, s := range n.inputs {
		m.String(onnxpb.NodeInput, s)
	}
	for _, s := range n.outputs {
		m.String(onnxpb.NodeOutput, s)
	}
	m.String(onnxpb.NodeName, n.name)
	m.String(onnxpb.NodeOpType, n.op)
	for _, a := range n.attrs {
		m.Bytes(onnxpb.NodeAttribute, a.encode())
	}
	m.String(onnxpb.NodeDoc, n.doc)
	return m
}

func (a attr) encode() onnxpb.Message {
	var m onnxpb.Message
	m.String(onnxpb.AttrName, a.name)
	switch v := a.val.(type) {
	case int:
		m.Int(onnxpb.AttrInt, v)
		m.Int(onnxpb.AttrType, onnxpb.AttrTypeInt)
	case float32:
		m.Float(onnxpb.AttrFloat, v)
		m.Int(onnxpb.AttrType, onnxpb.AttrTypeFloat)
	case []int:
		m.Ints(onnxpb.AttrInts, v)
		m.Int(onnxpb.AttrType, onnxpb.AttrTypeInts)
	case onnxpb.Message:
		m.Bytes(onnxpb.AttrTensor, v)
		m.Int(onnxpb.AttrType, onnxpb.AttrTypeTensor)
	default:
		panic(fmt.Sprintf("BUG: attribute %s of type %T", a.name, a.val))
	}
	return m
}

func (c *constant) encode() onnxpb.Message {
	return append(onnxpb.Tensor(c.name, c.elem, c.dims, len(c.data)), c.data...)
}

func (v valueInfo) encode() onnxpb.Message {
	var shape onnxpb.Message
	for i, d := range v.typ.Shape {
		var dim onnxpb.Message
		if i == 0 && v.typ.Batched {
			dim.String(onnxpb.DimensionName, "batch")
		} else {
			dim.Int(onnxpb.DimensionSize, d)
		}
		shape.Bytes(onnxpb.ShapeDim, dim)
	}
	var tensor, typ, m onnxpb.Message
	tensor.Int(onnxpb.TensorType, onnxpb.Float32)
	tensor.Bytes(onnxpb.TensorShape, shape)
	typ.Bytes(onnxpb.TypeTensor, tensor)
	m.String(onnxpb.ValueName, v.name)
	m.Bytes(onnxpb.ValueType, typ)
	return m
}
