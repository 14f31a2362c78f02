// Package workload is what the benchmarks train and run: specs, changed where a
// benchmark wants them otherwise, and the same models as the programs in
// bench/peers make them.
package workload

import (
	"encoding/json"
	"os"

	"github.com/vitgen/vitgen/spec"
)

// Model says which of the peers' models is a spec's, and of what size. That it is
// the same model is not taken on trust: see SameParameters and SameWork.
type Model struct {
	Family   string  `json:"family"` // of bench/peers/vit.py: d2l, timm or tiny
	Image    [3]int  `json:"image"`
	Classes  int     `json:"classes"`
	Patch    int     `json:"patch"`
	Dim      int     `json:"dim"`
	Hidden   int     `json:"hidden"`
	Heads    int     `json:"heads"`
	Blocks   int     `json:"blocks"`
	Dropout  float64 `json:"dropout"`
	DropPath float64 `json:"drop_path"`
}

// Image and classes of these are the spec's.
var (
	ViT     = Model{Family: "d2l", Patch: 16, Dim: 512, Hidden: 2048, Heads: 8, Blocks: 2, Dropout: 0.1}
	ViTS16  = Model{Family: "timm", Patch: 16, Dim: 384, Hidden: 1536, Heads: 6, Blocks: 12, DropPath: 0.1}
	ViTB16  = Model{Family: "timm", Patch: 16, Dim: 768, Hidden: 3072, Heads: 12, Blocks: 12, DropPath: 0.1}
	ViTTiny = Model{Family: "tiny", Patch: 2, Dim: 64, Hidden: 128, Heads: 4, Blocks: 2, Dropout: 0.05, DropPath: 0.1}
)

// Counts are the steps of one process.
type Counts struct {
	Warmup int `json:"warmup_steps"`
	Steps  int `json:"timed_steps"`
	Chunk  int `json:"chunk"` // a peer looks at the loss after so many
}

// Workload is what a contestant trains, and what peers read from a file.
type Workload struct {
	Name           string    `json:"name"`
	Spec           string    `json:"spec"`
	Model          Model     `json:"model"`
	Batch          int       `json:"batch"`
	LabelSmoothing float64   `json:"label_smoothing"`
	ClipNorm       float64   `json:"clip_norm"`
	Optimizer      Optimizer `json:"optimizer"`
	Counts         Counts    `json:"counts"`
}

// Optimizer is the spec's.
type Optimizer struct {
	Kind        string  `json:"kind"`
	LR          float64 `json:"lr"`
	Momentum    float64 `json:"momentum"`
	Nesterov    bool    `json:"nesterov"`
	Beta1       float64 `json:"beta1"`
	Beta2       float64 `json:"beta2"`
	Eps         float64 `json:"eps"`
	WeightDecay float64 `json:"weight_decay"`
	DecayAll    bool    `json:"decay_all"`
}

// Of is the workload of a spec, read from the file, as the model m: all that the
// parsed spec says outright is taken from it.
func Of(name, file string, sp *spec.Spec, m Model, c Counts) Workload {
	o := sp.Train.Optimizer
	m.Image, m.Classes = [3]int{sp.Input.Channels, sp.Input.Height, sp.Input.Width}, sp.Input.Classes
	return Workload{
		Name: name, Spec: file, Model: m, Batch: sp.Train.Batch * sp.Train.Accumulate,
		LabelSmoothing: sp.Loss.LabelSmoothing, ClipNorm: sp.Train.ClipNorm, Counts: c,
		Optimizer: Optimizer{o.Kind, o.LR, o.Momentum, o.Nesterov, o.Beta1, o.Beta2, o.Eps, o.WeightDecay, o.DecayAll},
	}
}

// Write writes the file that peers read.
func (w *Workload) Write(file string) error {
	data, err := json.MarshalIndent(w, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o666)
}
