package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vitgen/vitgen/bench/workload"
)

// source is a spec that trainers are made of, and the peers' model that is the
// same.
type source struct {
	name, file string
	label      string            // for people
	set        map[string]string // what its copy says otherwise, as workload.Derive takes it
	model      workload.Model
	tiny       bool // matrix products are not nearly all of its work
}

var (
	vit     = source{name: "vit", file: "examples/vit.yaml", label: "`vit.yaml`", model: workload.ViT}
	vitS16  = source{name: "vit_s16", file: "bench/gpu/specs/vit_s16.yaml", label: "ViT-S/16 at 224×224", set: map[string]string{"train.batch": "8"}, model: workload.ViTS16}
	vitTiny = source{name: "vit_tiny", file: "examples/vit_tiny.yaml", label: "`vit_tiny.yaml`", model: workload.ViTTiny, tiny: true}
)

// row is a comparison: training steps or inference of one model.
type row struct {
	name   string
	source *source
	images int // of a forward pass; 0: training steps
	counts workload.Counts
	rounds int
	speed  goals // times as fast as the fastest peer, at least
	memory goals // share of the leanest peer's peak memory, at most
}

// goals are what the project wants to reach; 0: nothing.
type goals struct{ unpruned, pruned float64 }

// rows are what a run compares, in the order of the report. Processes run for a
// few seconds, but for those whose single step takes one.
var rows = []row{
	{
		name: "vit", source: &vit, counts: workload.Counts{Warmup: 2, Steps: 3, Chunk: 1}, rounds: 5,
		speed: goals{1.3, 2}, memory: goals{0.6, 0.6},
	},
	{
		name: "vit_s16", source: &vitS16, counts: workload.Counts{Warmup: 2, Steps: 3, Chunk: 1}, rounds: 3,
		speed: goals{1.2, 0}, memory: goals{0.6, 0.6},
	},
	{
		name: "vit-forward-1", source: &vit, images: 1, counts: workload.Counts{Warmup: 50, Steps: 400, Chunk: 1}, rounds: 5,
		speed: goals{1.5, 2},
	},
	{
		name: "vit-forward-64", source: &vit, images: 64, counts: workload.Counts{Warmup: 5, Steps: 20, Chunk: 1}, rounds: 5,
		speed: goals{1.5, 2},
	},
	{
		name: "vit_tiny", source: &vitTiny, counts: workload.Counts{Warmup: 50, Steps: 200, Chunk: 1}, rounds: 5,
		speed: goals{5, 0}, memory: goals{0.6, 0.6},
	},
}

// The parts of a run that are no rows of contestants.
const (
	gemmPart    = "gemm"
	compilePart = "compile"
)

func partNames() (all []string) {
	for _, r := range rows {
		all = append(all, r.name)
	}
	return append(all, gemmPart, compilePart)
}

// pickParts returns those that are named; none: all.
func pickParts(named []string) ([]string, error) {
	all := partNames()
	for _, name := range named {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("there is no row %q; there are %s", name, strings.Join(all, ", "))
		}
	}
	return slices.DeleteFunc(all, func(name string) bool { return len(named) > 0 && !slices.Contains(named, name) }), nil
}

// what is done in a step, for people.
func (r *row) what(batch int) string {
	if r.images > 0 {
		return fmt.Sprintf("inference, %s, batch %d", r.source.label, r.images)
	}
	return fmt.Sprintf("training step, %s, batch %d", r.source.label, batch)
}
