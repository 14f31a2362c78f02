package onnx

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/vitgen/vitgen/internal/onnxpb"
)

// Info is what a caller must know of a model to run it.
type Info struct {
	Opset         int    // version of the operators
	Input, Output string // names of the values
}

// Describe reads an encoded ModelProto with one input and one output.
func Describe(model []byte) (Info, error) {
	rest, graph, err := split(model)
	if err != nil {
		return Info{}, err
	}
	var i Info
	opset, err := field(rest, onnxpb.ModelOpsetImport)
	if err != nil {
		return i, err
	}
	version, err := field(opset, onnxpb.OpsetVersion)
	if err != nil {
		return i, err
	}
	v, _ := protowire.ConsumeVarint(version)
	i.Opset = int(v)
	for _, f := range []struct {
		num  protowire.Number
		name *string
	}{{onnxpb.GraphInput, &i.Input}, {onnxpb.GraphOutput, &i.Output}} {
		value, err := field(graph, f.num)
		if err != nil {
			return i, err
		}
		name, err := field(value, onnxpb.ValueName)
		if err != nil {
			return i, err
		}
		*f.name = string(name)
	}
	return i, nil
}

// field finds the first field of a number and gives its content.
func field(message []byte, want protowire.Number) ([]byte, error) {
	for at := 0; at < len(message); {
		num, typ, n := protowire.ConsumeField(message[at:])
		if n < 0 {
			return nil, damaged(protowire.ParseError(n))
		}
		if num == want {
			_, _, tag := protowire.ConsumeTag(message[at:])
			content := message[at+tag : at+n]
			if typ == protowire.BytesType {
				content, _ = protowire.ConsumeBytes(content)
			}
			return content, nil
		}
		at += n
	}
	return nil, damaged(fmt.Errorf("there is no field %d", want))
}

func damaged(err error) error { return fmt.Errorf("the package's ONNX graph is damaged: %w", err) }
