// Package onnx writes ONNX files: the graph that the compiler put into a
// generated package, with weights. It knows nothing of operators.
package onnx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"github.com/google/renameio/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/vitgen/vitgen/internal/onnxpb"
)

// Tensor is a weight: a float32 initializer of the graph.
type Tensor struct {
	Name  string
	Shape []int
	Data  []float32 // row-major, as many as Shape says
}

// ErrTooBig: the file would have more bytes than a protobuf message can.
var ErrTooBig = errors.New("the model does not fit into an ONNX file, which holds at most 2 GiB")

// Write puts a model at path, whole or not at all, and returns its bytes.
// skeleton is an encoded ModelProto whose graph lacks its weights; they and the
// metadata are added to what it has.
//
// Weights become part of the one graph message. To append a second graph with
// the weights alone would do for the readers that merge messages, as protobuf
// prescribes; not all do.
func Write(path string, skeleton []byte, metadata map[string]string, weights []Tensor) (int64, error) {
	m, err := assemble(skeleton, metadata, weights)
	if err != nil {
		return 0, err
	}
	size := m.size()
	if size > onnxpb.MaxBytes {
		return 0, fmt.Errorf("%w: %d bytes", ErrTooBig, size)
	}
	pending, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644), renameio.WithExistingPermissions())
	if err != nil {
		return 0, err
	}
	defer pending.Cleanup()
	if err := m.write(pending); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return size, pending.CloseAtomicallyReplace()
}

// model is a file in parts, in file order.
type model struct {
	head    []byte // everything but the graph, then the start of the graph
	graph   []byte // the graph without weights
	tensors []part
}

// part is one weight: the start of its field, and its data.
type part struct {
	head []byte
	data []float32
}

// assemble lays the file out.
func assemble(skeleton []byte, metadata map[string]string, weights []Tensor) (*model, error) {
	head, graph, err := split(skeleton)
	if err != nil {
		return nil, err
	}
	m := &model{graph: graph}
	inside := len(graph)
	for _, w := range weights {
		p, err := newPart(w)
		if err != nil {
			return nil, err
		}
		m.tensors = append(m.tensors, p)
		inside += len(p.head) + 4*len(p.data)
	}
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		head.Bytes(onnxpb.ModelMetadata, onnxpb.Entry(key, metadata[key]))
	}
	head.Open(onnxpb.ModelGraph, inside)
	m.head = head
	return m, nil
}

// split takes the graph out of a ModelProto.
func split(skeleton []byte) (rest onnxpb.Message, graph []byte, err error) {
	for at := 0; at < len(skeleton); {
		num, typ, n := protowire.ConsumeField(skeleton[at:])
		if n < 0 {
			return nil, nil, damaged(protowire.ParseError(n))
		}
		field := skeleton[at : at+n]
		at += n
		if num != onnxpb.ModelGraph || typ != protowire.BytesType {
			rest = append(rest, field...)
			continue
		}
		if graph != nil {
			return nil, nil, damaged(errors.New("there are two"))
		}
		_, _, tag := protowire.ConsumeTag(field)
		graph, _ = protowire.ConsumeBytes(field[tag:])
	}
	if graph == nil {
		return nil, nil, errors.New("the package has no ONNX graph; compile the spec again with this version of vitgen")
	}
	return rest, graph, nil
}

func newPart(w Tensor) (part, error) {
	n := 1
	for _, d := range w.Shape {
		n *= d
	}
	if n != len(w.Data) {
		return part{}, fmt.Errorf("onnx: %s has %d numbers, its shape %v wants %d", w.Name, len(w.Data), w.Shape, n)
	}
	tensor := onnxpb.Tensor(w.Name, onnxpb.Float32, w.Shape, 4*n)
	var head onnxpb.Message
	head.Open(onnxpb.GraphInitializer, len(tensor)+4*n)
	return part{append(head, tensor...), w.Data}, nil
}

func (m *model) size() int64 {
	n := int64(len(m.head)) + int64(len(m.graph))
	for _, p := range m.tensors {
		n += int64(len(p.head)) + 4*int64(len(p.data))
	}
	return n
}

func (m *model) write(w io.Writer) error {
	if _, err := w.Write(slices.Concat(m.head, m.graph)); err != nil {
		return err
	}
	b := make([]byte, 0, 1<<16)
	for _, p := range m.tensors {
		b = append(b[:0], p.head...)
		for _, x := range p.data {
			if b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x)); len(b) >= 1<<16-4 {
				if _, err := w.Write(b); err != nil {
					return err
				}
				b = b[:0]
			}
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}
