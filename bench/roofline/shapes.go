package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"

	"github.com/vitgen/vitgen/codegen"
	"github.com/vitgen/vitgen/codegen/kernels"
	"github.com/vitgen/vitgen/codegen/plan"
	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/spec"
)

// shape is one matrix product, as plan.Gemm has it.
type shape struct {
	Kind  string `json:"kind"` // nt, nn, tn; packed: nt with a weight that is packed already
	M     int    `json:"m"`
	N     int    `json:"n"`
	K     int    `json:"k"`
	Count int    `json:"count"` // launches in a run of the program
}

func (s shape) flops() float64 { return 2 * float64(s.M) * float64(s.N) * float64(s.K) }

// operandBytes is what the product reads.
func (s shape) operandBytes() int64 { return 4 * int64(s.M+s.N) * int64(s.K) }

// workspaceBytes is what a plan reserves for the product.
func (s shape) workspaceBytes() int64 {
	if s.Kind == "tn" {
		return kernels.WeightGradWorkspaceBytes(s.M, s.N, s.K)
	}
	return kernels.GemmWorkspaceBytes(s.M, s.N, s.K)
}

// shapesOf compiles a spec and lists the distinct products of a program, those
// with the most work first. batch 0 is the spec's own.
func shapesOf(file, program string, batch int) ([]shape, error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	s, err := spec.Parse(file, src)
	if err != nil {
		return nil, err
	}
	if batch > 0 {
		s.Train.Batch = batch
	}
	c, err := passes.Compile(s, passes.Options{Target: passes.CPU})
	if err != nil {
		return nil, err
	}
	p, err := codegen.Plan(s, []*ir.Graph{c.Forward, c.Eval, c.Grad, c.Update})
	if err != nil {
		return nil, err
	}
	i := slices.Index(codegen.ProgramNames, program)
	if i < 0 {
		return nil, fmt.Errorf("no program %q: want forward, eval or grad", program)
	}
	shapes := distinct(p.Programs[i])
	if len(shapes) == 0 {
		return nil, fmt.Errorf("program %s of %s has no matrix products", program, file)
	}
	return shapes, nil
}

func distinct(p *plan.Program) (shapes []shape) {
	for _, l := range p.Launches {
		g, ok := l.Kernel.Body.(*plan.Gemm)
		if !ok {
			continue
		}
		kind := g.Kind
		if g.Packed {
			kind = "packed"
		}
		i := slices.IndexFunc(shapes, func(s shape) bool { return s.Kind == kind && s.M == g.M && s.N == g.N && s.K == g.K })
		if i < 0 {
			i = len(shapes)
			shapes = append(shapes, shape{Kind: kind, M: g.M, N: g.N, K: g.K})
		}
		shapes[i].Count++
	}
	slices.SortStableFunc(shapes, func(a, b shape) int {
		return cmp.Compare(b.flops()*float64(b.Count), a.flops()*float64(a.Count))
	})
	return shapes
}
