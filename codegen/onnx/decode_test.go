package onnx

import (
	"encoding/binary"
	"fmt"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/vitgen/vitgen/internal/onnxpb"
)

// message is a decoded protobuf message: the values of each field, in order.
// Numbers are uint64, everything else is bytes.
type message map[protowire.Number][]any

func decode(t testing.TB, b []byte) message {
	t.Helper()
	m := message{}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		b = b[n:]
		var v any
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var x uint32
			x, n = protowire.ConsumeFixed32(b)
			v = uint64(x)
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		default:
			t.Fatalf("field %d has wire type %d", num, typ)
		}
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		m[num] = append(m[num], v)
		b = b[n:]
	}
	return m
}

func (m message) strings(f protowire.Number) []string {
	var out []string
	for _, v := range m[f] {
		out = append(out, string(v.([]byte)))
	}
	return out
}

func (m message) string(f protowire.Number) string { return string(m[f][0].([]byte)) }

func (m message) ints(f protowire.Number) []int {
	var out []int
	for _, v := range m[f] {
		out = append(out, int(v.(uint64)))
	}
	return out
}

func (m message) messages(t testing.TB, f protowire.Number) []message {
	var out []message
	for _, v := range m[f] {
		out = append(out, decode(t, v.([]byte)))
	}
	return out
}

func (m message) message(t testing.TB, f protowire.Number) message { return m.messages(t, f)[0] }

// decodeGraph gives a skeleton's graph.
func decodeGraph(t testing.TB, skeleton []byte) message {
	t.Helper()
	return decode(t, skeleton).message(t, onnxpb.ModelGraph)
}

// typeOf writes a ValueInfoProto as f32[batch,3,4].
func typeOf(t testing.TB, value message) string {
	tensor := value.message(t, onnxpb.ValueType).message(t, onnxpb.TypeTensor)
	s := map[int]string{onnxpb.Float32: "f32["}[tensor.ints(onnxpb.TensorType)[0]]
	for i, d := range tensor.message(t, onnxpb.TensorShape).messages(t, onnxpb.ShapeDim) {
		if i > 0 {
			s += ","
		}
		if name := d.strings(onnxpb.DimensionName); name != nil {
			s += name[0]
		} else {
			s += fmt.Sprint(d.ints(onnxpb.DimensionSize)[0])
		}
	}
	return s + "]"
}

// integers gives those of a TensorProto.
func integers(tensor message) []int {
	raw := []byte(tensor.string(onnxpb.TensorRawData))
	var out []int
	for ; len(raw) > 0; raw = raw[8:] {
		out = append(out, int(int64(binary.LittleEndian.Uint64(raw))))
	}
	return out
}
