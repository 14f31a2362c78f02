package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"

	"github.com/vitgen/vitgen/bench/workload"
	"github.com/vitgen/vitgen/spec"
)

var precisions = []string{"fp32", "tf32", "bf16"}

// source is a spec that is built in each precision.
type source struct {
	name   string
	file   string            // the spec, from the root
	set    map[string]string // what its copy says otherwise, as workload.Derive takes it
	golden string            // replayed on the device; empty: none
	small  bool              // takes seconds under compute-sanitizer
	in     []string          // precisions; empty: all
	// Of those that are timed beside peers: what the peers build, and the steps.
	model  *workload.Model
	counts workload.Counts
}

// sources are what a real run takes.
var sources = []source{
	{
		name: "vit", file: "examples/vit.yaml", golden: "golden/vit.safetensors", counts: workload.Counts{Warmup: 50, Steps: 200, Chunk: 20},
		model: &workload.ViT,
	},
	{
		name: "vit_s16", file: "bench/gpu/specs/vit_s16.yaml", counts: workload.Counts{Warmup: 10, Steps: 40, Chunk: 10},
		model: &workload.ViTS16,
	},
	{
		// The example's update is four micro-batches of 32; the benchmark's is one of 256.
		name: "vit_b16", file: "examples/vit_b16.yaml", golden: "golden/vit_b16.safetensors", counts: workload.Counts{Warmup: 5, Steps: 20, Chunk: 5},
		set:   map[string]string{"train.batch": "256", "train.accumulate": "1"},
		model: &workload.ViTB16,
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
		name: "vit_small", file: "golden/specs/vit_small.yaml", golden: "golden/vit_small.safetensors", small: true, counts: workload.Counts{Warmup: 1, Steps: 4, Chunk: 2},
		model: &workload.Model{Family: "d2l", Patch: 4, Dim: 32, Hidden: 64, Heads: 4, Blocks: 2, Dropout: 0.1},
	},
	{
		name: "vit_s16", file: "bench/gpu/specs/vit_s16.yaml", counts: workload.Counts{Warmup: 1, Steps: 2, Chunk: 1}, in: []string{"bf16"},
		set: map[string]string{
			"define.image": "32", "define.hidden": "32", "define.heads": "2", "define.depth": "2", "define.classes": "5", "train.batch": "3",
			"train.schedule.cosine.warmup_steps": "1",
		},
		model: &workload.Model{Family: "timm", Patch: 16, Dim: 32, Hidden: 128, Heads: 2, Blocks: 2, DropPath: 0.1},
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

// workload is what the peers train in a source's place.
func (s *source) workload(sp *spec.Spec) workload.Workload {
	return workload.Of(s.name, s.file, sp, *s.model, s.counts)
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
	Driver    string              `json:"driver,omitempty"`
	Probes    string              `json:"probes,omitempty"`
	Models    []*model            `json:"models"`
	Workloads []workload.Workload `json:"workloads"`
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
