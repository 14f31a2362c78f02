package onnx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/vitgen/vitgen/internal/onnxpb"
)

// skeleton is a model whose graph has a name, an input and an output.
func skeleton() []byte {
	value := func(name string) (m onnxpb.Message) {
		m.String(onnxpb.ValueName, name)
		return m
	}
	var opset, graph, m onnxpb.Message
	opset.Int(onnxpb.OpsetVersion, 17)
	graph.String(onnxpb.GraphName, "g")
	graph.Bytes(onnxpb.GraphInput, value("image"))
	graph.Bytes(onnxpb.GraphOutput, value("logits"))
	m.Int(onnxpb.ModelIRVersion, 8)
	m.Bytes(onnxpb.ModelGraph, graph) // not last, as others may write it
	m.Bytes(onnxpb.ModelOpsetImport, opset)
	return m
}

// all gives the contents of a message's fields of one number.
func all(t *testing.T, message []byte, want protowire.Number) [][]byte {
	t.Helper()
	var out [][]byte
	for len(message) > 0 {
		num, typ, n := protowire.ConsumeField(message)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		_, _, tag := protowire.ConsumeTag(message)
		content := message[tag:n]
		if typ == protowire.BytesType {
			content, _ = protowire.ConsumeBytes(content)
		}
		if num == want {
			out = append(out, content)
		}
		message = message[n:]
	}
	return out
}

// The file has one graph, with the weights; what the skeleton had is there.
func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.onnx")
	long := make([]float32, 100_000) // more than is written at once
	for i := range long {
		long[i] = float32(i) / 3
	}
	weights := []Tensor{{"a.weight", []int{2, 1}, []float32{1, float32(math.Inf(-1))}}, {"b", []int{1000, 100}, long}, {"scalar", nil, []float32{7}}}
	size, err := Write(path, skeleton(), map[string]string{"y": "2", "x": "1"}, weights)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(file)) != size {
		t.Errorf("%d bytes, said to be %d", len(file), size)
	}
	entries := all(t, file, onnxpb.ModelMetadata)
	if len(entries) != 2 || !bytes.Equal(entries[0], onnxpb.Entry("x", "1")) || !bytes.Equal(entries[1], onnxpb.Entry("y", "2")) {
		t.Errorf("metadata %q", entries)
	}
	graphs := all(t, file, onnxpb.ModelGraph)
	if len(graphs) != 1 {
		t.Fatalf("%d graphs", len(graphs))
	}
	tensors := all(t, graphs[0], onnxpb.GraphInitializer)
	if len(tensors) != len(weights) {
		t.Fatalf("%d initializers", len(tensors))
	}
	for i, w := range weights {
		want := []byte(onnxpb.Tensor(w.Name, onnxpb.Float32, w.Shape, 4*len(w.Data)))
		if want, err = binary.Append(want, binary.LittleEndian, w.Data); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(tensors[i], want) {
			t.Errorf("%s is another tensor, of %d bytes", w.Name, len(tensors[i]))
		}
	}
	if info, err := Describe(file); err != nil || info != (Info{17, "image", "logits"}) {
		t.Errorf("described as %+v, %v", info, err)
	}
}

// What is refused leaves a file that was there as it is, and no other.
func TestWriteRefuses(t *testing.T) {
	big := make([]float32, 16<<20)
	var huge []Tensor // the same 64 MiB, counted 32 times
	for range 32 {
		huge = append(huge, Tensor{"w", []int{len(big)}, big})
	}
	damaged := skeleton()
	tests := []struct {
		name     string
		skeleton []byte
		weights  []Tensor
		want     string
	}{
		{"too big", skeleton(), huge, "at most 2 GiB"},
		{"shape", skeleton(), []Tensor{{"w", []int{2, 3}, make([]float32, 5)}}, "w has 5 numbers, its shape [2 3] wants 6"},
		{"no graph", nil, nil, "compile the spec again"},
		{"cut off", damaged[:len(damaged)-1], nil, "damaged"},
		{"two graphs", append(skeleton(), skeleton()...), nil, "there are two"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "m.onnx")
			if err := os.WriteFile(path, []byte("precious"), 0o666); err != nil {
				t.Fatal(err)
			}
			_, err := Write(path, tt.skeleton, nil, tt.weights)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if tt.name == "too big" && !errors.Is(err, ErrTooBig) {
				t.Errorf("%v is not ErrTooBig", err)
			}
			old, err := os.ReadFile(path)
			files, _ := os.ReadDir(dir)
			if err != nil || string(old) != "precious" || len(files) != 1 {
				t.Errorf("now the file is %q, %v, and there are %v", old, err, files)
			}
		})
	}
}

func TestDescribeRefuses(t *testing.T) {
	whole := skeleton()
	for n := range whole {
		if _, err := Describe(whole[:n]); err == nil {
			t.Errorf("the first %d bytes are described", n)
		}
	}
}
