package passes

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/spec"
)

func readSpec(t testing.TB, path string) *spec.Spec {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := spec.Parse(filepath.Base(path), src)
	if err != nil {
		t.Fatalf("%s:\n%v", path, err)
	}
	return s
}

func mustCompile(t testing.TB, s *spec.Spec, o Options) *Programs {
	t.Helper()
	p, err := Compile(s, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func text(p *Programs) string {
	var b strings.Builder
	for id := range numPrograms {
		b.WriteString(p.Of(id).String())
	}
	return b.String()
}

func exampleFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	return files
}

// Every example compiles, to the same text each time, and every parameter has
// a gradient and an update of its own shape.
func TestExamplesCompile(t *testing.T) {
	for _, file := range exampleFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			s := readSpec(t, file)
			p := mustCompile(t, s, Options{})
			if text(p) != text(mustCompile(t, s, Options{})) {
				t.Error("compiling twice gives two texts")
			}
			if got := len(p.Grad.Outputs) - 3; got != len(s.Params()) {
				t.Errorf("%d gradients for %d parameters", got, len(s.Params()))
			}
			for _, q := range s.Params() {
				want := ir.Tensor(ir.F32, q.Shape...)
				for _, v := range []*ir.Value{p.Grad.Output("grad." + q.Name), p.Update.Output("param." + q.Name)} {
					if v == nil || !v.Type.Equal(want) {
						t.Errorf("%s: gradient or update is %v, want type %v", q.Name, v, want)
					}
				}
			}
		})
	}
}

// The figures that row pruning is judged by. A model that reads all tokens in
// the end has nothing to prune.
func TestPruningSaves(t *testing.T) {
	for _, c := range []struct {
		file    string
		percent float64
	}{{"vit.yaml", 40.1}, {"vit_b16.yaml", 6.9}, {"mixer.yaml", 0}, {"vit_draft.yaml", 0}} {
		s := readSpec(t, "../examples/"+c.file)
		pruned := ir.FLOPs(mustCompile(t, s, Options{Disable: []string{"absorb"}}).Grad)
		whole := ir.FLOPs(mustCompile(t, s, Options{Disable: []string{"prune"}}).Grad)
		if got := 100 * (1 - float64(pruned)/float64(whole)); got < c.percent-0.1 || got > c.percent+0.1 {
			t.Errorf("%s: pruning saves %.2f %% of %d FLOPs, want %.1f %%", c.file, got, whole, c.percent)
		}
	}
}

// Absorption takes the products of keys and values away: of two blocks those of one,
// 2·B·T·2D² forward and twice that backward.
func TestAbsorptionSaves(t *testing.T) {
	for file, percent := range map[string]float64{"vit.yaml": 13.0, "vit_b16.yaml": 1.4, "mixer.yaml": 0, "vit_draft.yaml": 0} {
		s := readSpec(t, "../examples/"+file)
		absorbed := ir.FLOPs(mustCompile(t, s, Options{}).Grad)
		formed := ir.FLOPs(mustCompile(t, s, Options{Disable: []string{"absorb"}}).Grad)
		if got := 100 * (1 - float64(absorbed)/float64(formed)); got < percent-0.1 || got > percent+0.1 {
			t.Errorf("%s: absorption saves %.2f %% of %d FLOPs, want %.1f %%", file, got, formed, percent)
		}
		if cuda := ir.FLOPs(mustCompile(t, s, Options{Target: CUDA}).Grad); cuda != formed {
			t.Errorf("%s: %d FLOPs for CUDA, want %d", file, cuda, formed)
		}
	}
}

// FLOPs against a count by hand: vit.yaml's forward pass at full batch, B·T =
// 4736 rows of D = 512, 2 blocks.
func TestFLOPs(t *testing.T) {
	p := mustCompile(t, readSpec(t, "../examples/vit.yaml"), Options{Disable: []string{"prune"}})
	const B, T, D, hidden = 128, 37, 512, 2048
	const patches = 2 * B * 36 * D * 256
	const block = 2*B*T*(3*D*D+D*D+2*D*hidden) + 2*2*B*T*T*D
	const want = patches + 2*block + 2*B*D*10
	if got := ir.FLOPs(p.Forward); got != want {
		t.Errorf("forward: %d, want %d", got, want)
	}
	// Backward, each product has two (the first layer's only the weight's),
	// and attention five for its two.
	const blockGrad = 2*2*B*T*(3*D*D+D*D+2*D*hidden) + 5*2*B*T*T*D
	const grad = want + patches + 2*blockGrad + 2*2*B*D*10
	if got := ir.FLOPs(p.Grad); got != grad {
		t.Errorf("grad: %d, want %d", got, grad)
	}
}

// The random site of a layer is the same in every program: each draws what the
// others would.
func TestSitesDoNotDependOnProgram(t *testing.T) {
	s := readSpec(t, "../examples/vit.yaml")
	sites := func(p Program) map[string]int {
		m := map[string]int{}
		for _, n := range Frontend(s, p).Nodes {
			if n.Op.Info().Effect == ir.Random {
				m[n.Layer] = n.Int("site")
			}
		}
		return m
	}
	grad, eval := sites(Grad), sites(Eval)
	if len(grad) != 7 || len(eval) != 2 {
		t.Fatalf("%d sites in training, %d in evaluation; want 7, 2", len(grad), len(eval))
	}
	for layer, site := range eval {
		if grad[layer] != site {
			t.Errorf("%s draws at site %d in training, %d in evaluation", layer, grad[layer], site)
		}
	}
}

// The table obeys its own constraints.
func TestPassOrder(t *testing.T) {
	place := map[string]int{}
	for i, p := range Passes() {
		if _, dup := place[p.Name]; dup || p.Name == "all" {
			t.Errorf("the name %s is taken", p.Name)
		}
		if p.Doc == "" || p.run == nil || len(p.Programs) == 0 {
			t.Errorf("%s is incomplete", p.Name)
		}
		for _, o := range p.After {
			at, ok := place[o.Pass]
			if !ok || at >= i || o.Reason == "" {
				t.Errorf("%s must come after %s (%s), which the table does not give", p.Name, o.Pass, o.Reason)
			}
		}
		place[p.Name] = i
	}
}

// Autodiff has a rule for exactly the ops that the op table says have one.
func TestGradientTableIsComplete(t *testing.T) {
	for _, op := range ir.Ops() {
		if _, ok := gradients[op]; ok != (op.Info().NoGrad == "") {
			t.Errorf("%s: gradient rule is %v, but NoGrad is %q", op, ok, op.Info().NoGrad)
		}
	}
}

func TestOptionErrors(t *testing.T) {
	s := readSpec(t, "../examples/vit_tiny.yaml")
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Disable: []string{"prun"}}, `there is no pass "prun"; did you mean "prune"?`},
		{Options{StopAfter: "auto-diff"}, `there is no pass "auto-diff"; did you mean "autodiff"?`},
		{Options{DumpPasses: []string{"all", "x"}}, `there is no pass "x"; there are frontend, canonicalize, `},
		{Options{Disable: []string{"autodiff"}}, "pass autodiff cannot be disabled: programs need it; optional are canonicalize, "},
	} {
		if _, err := Compile(s, c.o); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want %s…", c.o, err, c.want)
		}
	}
}

func TestStopDumpTimeReport(t *testing.T) {
	s := readSpec(t, "../examples/vit.yaml")
	var dumped, timed, reported []string
	p := mustCompile(t, s, Options{
		StopAfter: "recompute", DumpPasses: []string{"prune", "recompute"},
		DumpTo:  func(pass string, g *ir.Graph) { dumped = append(dumped, pass+" "+g.Name) },
		Timing:  func(pass, program string, _ time.Duration) { timed = append(timed, pass+" "+program) },
		Report:  func(pass, program, text string) { reported = append(reported, pass+" "+program+": "+text) },
		Disable: []string{"cse"},
	})
	if p.Grad.Stage != ir.StageTrain || p.Grad.Groups != nil {
		t.Errorf("stopped after recompute, but the graph is %v", p.Grad.Stage)
	}
	want := []string{"prune vit.forward", "prune vit.eval", "prune vit.grad", "recompute vit.grad"}
	if !slices.Equal(dumped, want) {
		t.Errorf("dumped %q, want %q", dumped, want)
	}
	if !slices.Contains(timed, "autodiff grad") || slices.Contains(timed, "autodiff eval") || slices.Contains(timed, "cse grad") {
		t.Errorf("timed %q", timed)
	}
	if !slices.Contains(reported, "recompute grad: keep dropout of blks.0.1.3 (38797312 bytes): 14 operations per element are more than 4") {
		t.Errorf("reported %q", reported)
	}
}

// A fault inside a pass is an error that says where it happened.
func TestPassFaultIsNamed(t *testing.T) {
	s := readSpec(t, "../examples/vit_tiny.yaml")
	c := &compilation{spec: s, program: Grad}
	for _, run := range []func(*compilation, *ir.Graph) error{
		func(*compilation, *ir.Graph) error { panic("BUG: on purpose") },
		func(*compilation, *ir.Graph) error { return errors.New("BUG: on purpose") },
	} {
		err := c.pass("prune", ir.NewGraph("g", "g.yaml"), run)
		if err == nil || !strings.Contains(err.Error(), "internal error in pass prune of program grad: BUG: on purpose") {
			t.Errorf("error is %v", err)
		}
	}
	// A graph that a pass has broken does not get past the verifier.
	err := c.pass("prune", Frontend(s, Grad), func(_ *compilation, g *ir.Graph) error {
		slices.Reverse(g.Nodes)
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "internal error in pass prune of program grad") {
		t.Errorf("error is %v", err)
	}
}

// The gradient of relu reads its result: nothing before it is kept, and there
// is nothing to recompute.
func TestReluKeepsOneTensor(t *testing.T) {
	g := mustCompile(t, readSpec(t, "../examples/vit_draft.yaml"), Options{StopAfter: "recompute"}).Grad
	relus := 0
	for _, n := range g.Nodes {
		if n.Op == ir.OpReluGrad {
			relus++
			if n.Args[1].Def.Op != ir.OpRelu {
				t.Errorf("%s: relu_grad reads a %s", n.Layer, n.Args[1].Def.Op)
			}
		}
	}
	if relus != 2 {
		t.Errorf("%d gradients of relu, want 2", relus)
	}
}

// What recompute decides and why, on a model that has each case.
func TestRecomputeReports(t *testing.T) {
	s, err := spec.Parse("scaled.yaml", []byte(`
vitgen: 1
name: scaled
input: {image: [1, 4, 4], classes: 3}
model:
  - flatten
  - linear: {name: fc1, out: 8}
  - layer_scale: {name: ls1, init: 0.5}
  - linear: {name: fc2, out: 8}
  - silu
  - dropout: 0.5
  - layer_scale: {name: ls2, init: 0.5}
  - layernorm: {name: ln}
  - linear: {name: head, out: 3}
loss: cross_entropy
train: {batch: 4, epochs: 1, optimizer: {sgd: {lr: 0.1}}}
data: {synthetic: {train: 8, val: 4}}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	mustCompile(t, s, Options{Report: func(_, _, text string) { got = append(got, text) }})
	want := []string{
		"keep add of fc1 (128 bytes): its operands are not kept",
		"recompute mul of ls1: 1 operations per element, frees 128 bytes",
		"keep add of fc2 (128 bytes): its operands are not kept",
		"keep dropout of 5 (128 bytes): 14 operations per element are more than 4",
		"keep mul of ls2 (128 bytes): a backward kernel wants it in memory",
		"keep add of head (48 bytes): it is an output",
	}
	if !slices.Equal(got, want) {
		t.Errorf("decisions are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Gradients add up only where an update takes several micro-batches.
func TestAccumulationIsAsked(t *testing.T) {
	s := readSpec(t, "../examples/vit_tiny.yaml")
	for _, micro := range []int{1, 2} {
		s.Train.Accumulate = micro
		states := 0
		for _, n := range mustCompile(t, s, Options{}).Grad.Nodes {
			if n.Op == ir.OpState {
				states++
			}
		}
		if want := len(s.Params()) * (micro - 1); states != want {
			t.Errorf("accumulate %d: %d gradients are read, want %d", micro, states, want)
		}
	}
}

func TestPrecisionRefusesOtherTypes(t *testing.T) {
	g := ir.NewGraph("g", "g.yaml")
	g.MustAdd(ir.OpInput, ir.Pos{Line: 1, Col: 1}, "in", ir.A("name", "image", "type", ir.BatchOf(ir.BF16, 2, 3)))
	if err := Precision(g); err == nil || !strings.Contains(err.Error(), `layer "in" is bf16[2|3]; kernels compute in f32`) {
		t.Errorf("error is %v", err)
	}
}
