// Package golden reads, writes and checks golden files: a model's inputs, and
// the logits, loss, gradients and training steps a trusted implementation
// computed from them. It is not a runner: whoever computes the same things
// hands them to a Checker.
//
// A golden is a safetensors file with the entries
//
//	image [B, C, H, W]   label [B]   param.<name>          the inputs
//	logits [B, K]        loss []     grad.<name>           at the start
//	step<k>.loss []      step<k>.param.<name>              training, k = 1, 2, …
//
// step<k>.loss is the loss before update k, step<k>.param.<name> the parameter
// after it; gradients are those before clipping. Only image and param.* are
// required (label too, where there is anything but logits). In place of a
// large tensor <part>.<name> may stand <part>_norm.<name> [], its Euclidean
// norm, and <part>_sample.<name> [n], its elements at formula.Indices. With
// metadata "formula" the inputs are absent, and computed instead.
//
// Metadata: vitgen.golden = 1; optionally spec_sha256, torch, tolerance,
// tolerance.tf32, tolerance.bf16, formula with batch, vitgen.dropout = on with
// vitgen.seed.
package golden

import (
	"fmt"
	"math"
	"strings"

	"github.com/vitgen/vitgen/runtime/formula"
)

// ParamInfo declares one parameter of the model a golden is for.
type ParamInfo struct {
	Name  string
	Shape []int
}

// Elems is the number of elements.
func (p ParamInfo) Elems() int {
	n := 1
	for _, d := range p.Shape {
		n *= d
	}
	return n
}

// Model is what a golden must fit.
type Model struct {
	Image      [3]int // channels, height, width
	Classes    int
	Params     []ParamInfo // every parameter, in the order rows are reported
	SpecSHA256 string      // compared with the golden's, where both have one
}

// Golden is the content of a golden file. Nil means absent.
type Golden struct {
	Path   string
	Batch  int
	Image  []float32            // [Batch, C, H, W]
	Label  []int64              // [Batch], each in [0, Classes)
	Params map[string][]float32 // every parameter of the model

	Logits []float64           // [Batch, Classes]
	Loss   *float64            // mean over the batch
	Grads  map[string]Expected // every parameter, or nil
	Steps  []Step              // Steps[k-1] is update k

	// Tolerances maps an entry's name, or a prefix of names that ends in a
	// dot, to a relative norm.
	Tolerances map[string]float64
	// Coarse holds, by precision (tf32, bf16), the entries that need more than
	// the precision's default.
	Coarse map[string]map[string]float64
	// Formula says how Image ("image") and Params were computed; nil when the
	// file stores them.
	Formula map[string]Formula

	// Dropout: the numbers were computed with dropout and drop path on, from
	// Seed. Off for every golden that another framework made.
	Dropout bool
	Seed    uint64

	SpecSHA256 string // of the spec the numbers were made for; may be empty
	Torch      string // PyTorch version that made it; may be empty

	order []string // parameter names in the model's order
}

// Formula is the scale and offset of formula.Value for one tensor.
type Formula struct{ Scale, Offset float64 }

// Step is one update.
type Step struct {
	Loss   *float64            // before the update
	Params map[string]Expected // after it: every parameter, or nil
}

// Expected is the reference for one tensor: all of it, or its norm and samples.
type Expected struct {
	Whole  []float64 // row-major; nil if only norm and samples are known
	Norm   float64
	Sample []float64 // at formula.Indices(parameter name, len(Sample), size)
}

// Sampled reduces a whole tensor to its norm and n samples.
func Sampled(name string, whole []float64, n int) Expected {
	return Expected{Norm: norm(whole), Sample: sample(name, whole, n)}
}

func sample(name string, whole []float64, n int) []float64 {
	out := make([]float64, n)
	for j, at := range formula.Indices(name, n, len(whole)) {
		out[j] = whole[at]
	}
	return out
}

func norm(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x * x
	}
	return math.Sqrt(sum)
}

// Default relative-norm tolerances for entries a golden gives none for.
const (
	ForwardTolerance  = 1e-5 // logits and losses, fp32
	GradientTolerance = 1e-4 // gradients and updated parameters, fp32
	TF32Tolerance     = 2e-3
	BF16Tolerance     = 2e-2
)

// Tolerance returns the relative norm allowed for an entry when the model is
// computed in the given precision: fp32 (or ""), tf32 or bf16. The coarser types
// widen a golden's tolerances for fp32 to their default, or to what the golden
// says of them.
func (g *Golden) Tolerance(entry, precision string) float64 {
	tol := g.fp32Tolerance(entry)
	switch precision {
	case "", "fp32":
		return tol
	case "tf32":
		return max(tol, TF32Tolerance, g.Coarse[precision][entry])
	case "bf16":
		return max(tol, BF16Tolerance, g.Coarse[precision][entry])
	}
	panic(fmt.Sprintf("BUG: golden: precision %q", precision))
}

func (g *Golden) fp32Tolerance(entry string) float64 {
	if tol, ok := g.Tolerances[entry]; ok {
		return tol
	}
	for end := len(entry); ; {
		if end = strings.LastIndexByte(entry[:end], '.'); end < 0 {
			break
		}
		if tol, ok := g.Tolerances[entry[:end+1]]; ok { // the longest prefix wins
			return tol
		}
	}
	if entry == "logits" || entry == "loss" || strings.HasPrefix(entry, "step") && strings.HasSuffix(entry, ".loss") {
		return ForwardTolerance
	}
	return GradientTolerance
}

// The names of entries that belong to a step or a parameter.

func stepLoss(k int) string          { return fmt.Sprintf("step%d.loss", k) }
func stepParams(k int) string        { return fmt.Sprintf("step%d.param", k) }
func whole(part, p string) string    { return part + "." + p }
func normOf(part, p string) string   { return part + "_norm." + p }
func sampleOf(part, p string) string { return part + "_sample." + p }

// names lists the parameters: in the model's order if the golden was loaded.
func (g *Golden) names() []string {
	if g.order != nil {
		return g.order
	}
	return sortedKeys(g.Params)
}

// expectations walks what the file lets one check, in the order of its
// documentation and the model's parameters.
func (g *Golden) expectations(visit func(entry string, want []float64)) {
	part := func(part string, all map[string]Expected) {
		if all == nil {
			return
		}
		for _, p := range g.names() {
			if e := all[p]; e.Whole != nil {
				visit(whole(part, p), e.Whole)
			} else {
				visit(normOf(part, p), []float64{e.Norm})
				visit(sampleOf(part, p), e.Sample)
			}
		}
	}
	scalar := func(entry string, v *float64) {
		if v != nil {
			visit(entry, []float64{*v})
		}
	}
	if g.Logits != nil {
		visit("logits", g.Logits)
	}
	scalar("loss", g.Loss)
	part("grad", g.Grads)
	for i, s := range g.Steps {
		scalar(stepLoss(i+1), s.Loss)
		part(stepParams(i+1), s.Params)
	}
}
