// Package onnx writes a model's forward graph as an ONNX model without its
// weights, which the trainer adds when it exports. It works on the graph as it
// is before pruning and fusion, in which every node is still part of one layer.
//
// Every op of the graph becomes the ONNX operators that say the same; nothing
// is optimized, because what reads the file does that for its own machine.
package onnx

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/vitgen/vitgen/internal/onnxpb"
	"github.com/vitgen/vitgen/ir"
)

// The versions of the format and of the operators: LayerNormalization came
// with operator set 17, and ONNX Runtime has read both since 1.12 (2022).
const (
	IRVersion = 8
	Opset     = 17
)

// Input is what a model is written from.
type Input struct {
	Graph     *ir.Graph // forward: image → logits, without dropout; not fused
	Name      string    // of the model
	SpecHash  string
	Generator string // version of vitgen

	// Mean and Std, by channel, are how images are normalized before they come
	// in; empty: they are scaled to [0, 1] only.
	Mean, Std []float64
}

// Skeleton encodes the model as a ModelProto. Input is image, output logits,
// both float32 with the dimension "batch" first; a parameter is the name of an
// initializer that is not there. Nodes are called by layer and operator, and
// their doc_string is the place in the spec.
func Skeleton(in Input) ([]byte, error) {
	l := newLowering(in.Graph)
	if err := l.run(); err != nil {
		return nil, err
	}
	var m onnxpb.Message
	m.Int(onnxpb.ModelIRVersion, IRVersion)
	m.String(onnxpb.ModelProducerName, "vitgen")
	m.String(onnxpb.ModelProducerVersion, in.Generator)
	m.String(onnxpb.ModelDoc, doc(in))
	var opset onnxpb.Message // of the default domain
	opset.Int(onnxpb.OpsetVersion, Opset)
	m.Bytes(onnxpb.ModelOpsetImport, opset)
	entries, err := metadata(in)
	if err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		m.Bytes(onnxpb.ModelMetadata, onnxpb.Entry(key, entries[key]))
	}
	m.Bytes(onnxpb.ModelGraph, l.encode(in.Name))
	return m, nil
}

// doc says in words what comes in and what goes out.
func doc(in Input) string {
	normalized := "scaled to [0, 1]"
	if len(in.Mean) > 0 {
		normalized += ", then (x - vitgen.mean) / vitgen.std by channel"
	}
	return fmt.Sprintf("%s, from %s by vitgen %s. image: pixels %s, channels first; logits: one per class, before softmax.",
		in.Name, in.Graph.File, in.Generator, normalized)
}

func metadata(in Input) (map[string]string, error) {
	entries := map[string]string{
		"vitgen.model":     in.Name,
		"vitgen.spec":      in.Graph.File,
		"vitgen.spec_hash": in.SpecHash,
		"vitgen.version":   in.Generator,
	}
	for key, v := range map[string][]float64{"vitgen.mean": in.Mean, "vitgen.std": in.Std} {
		if len(v) == 0 {
			continue
		}
		text, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		entries[key] = string(text)
	}
	return entries, nil
}
