package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"

	"github.com/vitgen/vitgen/spec"
)

var precisions = []string{"fp32", "tf32", "bf16"}

// source is a spec that is built in each precision.
type source struct {
	name   string
	file   string            // the spec, from the root
	set    map[string]string // what its copy says otherwise, as derive takes it
	golden string            // replayed on the device; empty: none
	small  bool              // takes seconds under compute-sanitizer
	in     []string          // precisions; empty: all
	// Of those that are timed beside peers: what the peers build, and the steps.
	model  *peerModel
	counts counts
}

// peerModel says which of the peers' models is the spec's, and of what size. That
// it is the same model is not taken on trust: names and shapes of parameters and
// the work of a step are compared before anything is timed.
type peerModel struct {
	Family   string  `json:"family"` // of bench/peers/vit.py: d2l or timm
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

// counts are the steps of one process.
type counts struct {
	Warmup int `json:"warmup_steps"`
	Steps  int `json:"timed_steps"`
	Chunk  int `json:"chunk"` // a peer looks at the loss after so many
}

// sources are what a real run takes.
var sources = []source{
	{
		name: "vit", file: "examples/vit.yaml", golden: "golden/vit.safetensors", counts: counts{50, 200, 20},
		model: &peerModel{Family: "d2l", Patch: 16, Dim: 512, Hidden: 2048, Heads: 8, Blocks: 2, Dropout: 0.1},
	},
	{
		name: "vit_s16", file: "bench/gpu/specs/vit_s16.yaml", counts: counts{10, 40, 10},
		model: &peerModel{Family: "timm", Patch: 16, Dim: 384, Hidden: 1536, Heads: 6, Blocks: 12, DropPath: 0.1},
	},
	{
		// The example's update is four micro-batches of 32; the benchmark's is one of 256.
		name: "vit_b16", file: "examples/vit_b16.yaml", golden: "golden/vit_b16.safetensors", counts: counts{5, 20, 5},
		set:   map[string]string{"train.batch": "256", "train.accumulate": "1"},
		model: &peerModel{Family: "timm", Patch: 16, Dim: 768, Hidden: 3072, Heads: 12, Blocks: 12, DropPath: 0.1},
	},
	{name: "vit_tiny", file: "examples/vit_tiny.yaml", golden: "golden/vit_tiny.safetensors"},
	{name: "vit_draft", file: "examples/vit_draft.yaml", golden: "golden/vit_draft.safetensors"},
	{name: "mixer", file: "examples/mixer.yaml", golden: "golden/mixer.safetensors"},
	smallSource("vit_small"), smallSource("timm_small"), smallSource("mixer_small"), smallSource("draft_small"), smallSource("norm_tc_small"),
}

func smallSource(name string) source {
	return source{name: name, file: "golden/specs/" + name + ".yaml", golden: "golden/" + name + ".safetensors", small: true}
}

// rehearsalSources stand in for them where there is no GPU: the same flow with
// models that the simulated device runs in seconds.
var rehearsalSources = []source{
	{
		name: "vit_small", file: "golden/specs/vit_small.yaml", golden: "golden/vit_small.safetensors", small: true, counts: counts{1, 4, 2},
		model: &peerModel{Family: "d2l", Patch: 4, Dim: 32, Hidden: 64, Heads: 4, Blocks: 2, Dropout: 0.1},
	},
	{
		name: "vit_s16", file: "bench/gpu/specs/vit_s16.yaml", counts: counts{1, 2, 1}, in: []string{"bf16"},
		set: map[string]string{
			"define.image": "32", "define.hidden": "32", "define.heads": "2", "define.depth": "2", "define.classes": "5", "train.batch": "3",
			"train.schedule.cosine.warmup_steps": "1",
		},
		model: &peerModel{Family: "timm", Patch: 16, Dim: 32, Hidden: 128, Heads: 2, Blocks: 2, DropPath: 0.1},
	},
}

// model is one entry of the trainer binary: a spec in one precision.
type model struct {
	Name      string `json:"name"` // vit-bf16, vit-bf16-unpruned
	Source    string `json:"source"`
	Spec      string `json:"spec"` // where it was derived from
	Precision string `json:"precision"`
	Unpruned  bool   `json:"unpruned,omitempty"`
	Golden    string `json:"golden,omitempty"`
	Small     bool   `json:"small,omitempty"`
	Workload  bool   `json:"workload,omitempty"` // is timed
	// Image is the kernels as compiled for the simulated device; empty: those that
	// are embedded.
	Image string `json:"image,omitempty"`
}

// pkg is the name of its spec and of its generated package.
func (m *model) pkg() string {
	name := m.Source + "_" + m.Precision
	if m.Unpruned {
		name += "_unpruned"
	}
	return name
}

// models lists what is built of a source: every precision, and where peers take
// part also without row pruning, which is the work that they do.
func (s *source) models() []*model {
	var all []*model
	for _, p := range precisions {
		if len(s.in) > 0 && !slices.Contains(s.in, p) {
			continue
		}
		m := model{
			Name: s.name + "-" + p, Source: s.name, Spec: s.file, Precision: p,
			Golden: s.golden, Small: s.small, Workload: s.model != nil,
		}
		all = append(all, &m)
		if s.model != nil {
			unpruned := m
			unpruned.Name, unpruned.Unpruned, unpruned.Golden = m.Name+"-unpruned", true, ""
			all = append(all, &unpruned)
		}
	}
	return all
}

// workload is what a contestant trains, and what peers read from a file.
type workload struct {
	Name           string    `json:"name"`
	Spec           string    `json:"spec"`
	Model          peerModel `json:"model"`
	Batch          int       `json:"batch"`
	LabelSmoothing float64   `json:"label_smoothing"`
	ClipNorm       float64   `json:"clip_norm"`
	Optimizer      optimizer `json:"optimizer"`
	Counts         counts    `json:"counts"`
}

type optimizer struct {
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

// workload takes all from the parsed spec that it says outright.
func (s *source) workload(sp *spec.Spec) workload {
	m, o := *s.model, sp.Train.Optimizer
	m.Image, m.Classes = [3]int{sp.Input.Channels, sp.Input.Height, sp.Input.Width}, sp.Input.Classes
	return workload{
		Name: s.name, Spec: s.file, Model: m, Batch: sp.Train.Batch * sp.Train.Accumulate,
		LabelSmoothing: sp.Loss.LabelSmoothing, ClipNorm: sp.Train.ClipNorm, Counts: s.counts,
		Optimizer: optimizer{o.Kind, o.LR, o.Momentum, o.Nesterov, o.Beta1, o.Beta2, o.Eps, o.WeightDecay, o.DecayAll},
	}
}

// manifest lies beside the binaries and says what they are.
type manifest struct {
	Built     string            `json:"built"`
	Versions  map[string]string `json:"versions"`
	Archs     []string          `json:"archs"`
	PTX       bool              `json:"ptx"` // false: nothing compiled the kernels
	Rehearsal bool              `json:"rehearsal,omitempty"`
	// Driver is the folder of the simulated libcuda.so.1; Probes the probes for the
	// simulator. Of rehearsals only.
	Driver    string     `json:"driver,omitempty"`
	Probes    string     `json:"probes,omitempty"`
	Models    []*model   `json:"models"`
	Workloads []workload `json:"workloads"`
}

const manifestFile = "manifest.json"

func (m *manifest) write(dir string) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(dir, manifestFile), append(data, '\n'), 0o644)
}

func readManifest(dir string) (*manifest, error) {
	data, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err != nil {
		return nil, fmt.Errorf("%w; bench/gpu.sh --build makes the binaries, on a machine with Go", err)
	}
	m := &manifest{}
	return m, json.Unmarshal(data, m)
}

// pick keeps the sources named; none: all of them.
func pick(all []source, only []string) ([]source, error) {
	known := map[string]bool{}
	for _, s := range all {
		known[s.name] = true
	}
	for _, name := range only {
		if !known[name] {
			return nil, fmt.Errorf("there is no model %q; there are %v", name, slices.Sorted(maps.Keys(known)))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(s source) bool { return len(only) > 0 && !slices.Contains(only, s.name) }), nil
}
