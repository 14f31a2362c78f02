package golden

import (
	"bytes"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vitgen/vitgen/runtime/formula"
	"github.com/vitgen/vitgen/runtime/safetensors"
	"github.com/vitgen/vitgen/spec"
)

var toy = Model{
	Image:   [3]int{1, 2, 2},
	Classes: 3,
	Params:  []ParamInfo{{"w.weight", []int{3, 4}}, {"w.bias", []int{3}}},
}

// toyGolden has every part, one of them by norm and sample.
func toyGolden() *Golden {
	ramp := func(n int, scale float64) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = scale * float64(i+1)
		}
		return v
	}
	loss := 1.25
	params := func(scale float64) map[string]Expected {
		return map[string]Expected{
			"w.weight": Sampled("w.weight", ramp(12, scale), 5),
			"w.bias":   {Whole: ramp(3, scale)},
		}
	}
	return &Golden{
		Batch: 2, Image: []float32{0, 1, 2, 3, 4, 5, 6, 7}, Label: []int64{2, 0},
		Params: map[string][]float32{"w.weight": make([]float32, 12), "w.bias": {1, 2, 0.5}},
		Logits: ramp(6, 0.1), Loss: &loss, Grads: params(0.25),
		Steps:      []Step{{Loss: &loss, Params: params(0.5)}, {Loss: &loss, Params: params(0.75)}},
		Tolerances: map[string]float64{"logits": 1e-6, "grad.": 1e-3, "grad.w.": 2e-3, "step1.param.w.bias": 0.5},
		Torch:      "2.0", SpecSHA256: "abc",
	}
}

func write(t *testing.T, g *Golden, m Model) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "toy.safetensors")
	if err := Write(path, g, m); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRoundTrip(t *testing.T) {
	dropout, computed := toyGolden(), toyGolden()
	dropout.Dropout, dropout.Seed = true, math.MaxUint64
	computed.Formula = map[string]Formula{"image": {0.5, 0.5}, "w.weight": {0.1, 1}, "w.bias": {1, 0}}
	inputs := toyGolden()
	inputs.Label, inputs.Loss, inputs.Grads, inputs.Steps, inputs.Tolerances = nil, nil, nil, nil, nil
	for name, g := range map[string]*Golden{"plain": toyGolden(), "dropout": dropout, "formula": computed, "logits only": inputs} {
		t.Run(name, func(t *testing.T) {
			got, err := Load(write(t, g, toy), toy)
			if err != nil {
				t.Fatal(err)
			}
			ignore := cmpopts.IgnoreFields(Golden{}, "Path")
			if g.Formula != nil {
				checkFormula(t, got, toy)
				ignore = cmpopts.IgnoreFields(Golden{}, "Path", "Image", "Label", "Params")
			}
			if diff := cmp.Diff(g, got, ignore, cmpopts.IgnoreUnexported(Golden{})); diff != "" {
				t.Errorf("what was written is not what was read (-want +got):\n%s", diff)
			}
		})
	}
}

func checkFormula(t *testing.T, g *Golden, m Model) {
	t.Helper()
	check := func(name string, got []float32, n int) {
		f := g.Formula[name]
		if len(got) != n || got[n-1] != formula.Value(name, uint64(n-1), f.Scale, f.Offset) {
			t.Errorf("%s: %d elements, want %d by formula", name, len(got), n)
		}
	}
	check("image", g.Image, g.Batch*m.Image[0]*m.Image[1]*m.Image[2])
	for _, p := range m.Params {
		check(p.Name, g.Params[p.Name], p.Elems())
	}
	if diff := cmp.Diff(formula.Labels(g.Batch, m.Classes), g.Label); diff != "" {
		t.Error(diff)
	}
}

func TestTolerance(t *testing.T) {
	g := toyGolden()
	tests := []struct {
		entry, precision string
		want             float64
	}{
		{"logits", "fp32", 1e-6},
		{"loss", "", ForwardTolerance},
		{"step12.loss", "fp32", ForwardTolerance},
		{"grad.x", "fp32", 1e-3},
		{"grad.w.weight", "fp32", 2e-3},
		{"grad_norm.w.weight", "fp32", GradientTolerance},
		{"step1.param.w.bias", "fp32", 0.5},
		{"step1.param.w.bias", "bf16", 0.5},
		{"step2.param.w.bias", "fp32", GradientTolerance},
		{"step2.param.x.loss", "tf32", TF32Tolerance},
		{"logits", "bf16", BF16Tolerance},
	}
	for _, tt := range tests {
		if got := g.Tolerance(tt.entry, tt.precision); got != tt.want {
			t.Errorf("%s in %s: %g, want %g", tt.entry, tt.precision, got, tt.want)
		}
	}
}

// committed returns every golden file of the repository with its model.
func committed(t *testing.T) map[string]Model {
	t.Helper()
	paths, err := filepath.Glob("../../golden/*.safetensors")
	if err != nil || len(paths) < 10 {
		t.Fatalf("goldens: %v, %v", paths, err)
	}
	models := map[string]Model{}
	for _, path := range paths {
		file, err := safetensors.Read(path)
		if err != nil {
			t.Fatal(err)
		}
		if file.Metadata["formula"] != "" {
			models[path] = example(t, strings.TrimSuffix(filepath.Base(path), ".safetensors"))
			continue
		}
		m := Model{Image: [3]int(file.Tensor("image").Shape[1:]), Classes: file.Tensor("logits").Shape[1]}
		for _, x := range file.Tensors {
			if name, ok := strings.CutPrefix(x.Name, "param."); ok {
				m.Params = append(m.Params, ParamInfo{name, x.Shape})
			}
		}
		models[path] = m
	}
	return models
}

// example is the model that examples/<name>.yaml describes.
func example(t *testing.T, name string) Model {
	t.Helper()
	src, err := os.ReadFile(filepath.Join("..", "..", "examples", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := spec.Parse(name+".yaml", src)
	if err != nil {
		t.Fatal(err)
	}
	m := Model{Image: [3]int{s.Input.Channels, s.Input.Height, s.Input.Width}, Classes: s.Input.Classes}
	for _, p := range s.Params() {
		m.Params = append(m.Params, ParamInfo{p.Name, p.Shape})
	}
	return m
}

// TestExamples: every example has a golden of its own.
func TestExamples(t *testing.T) {
	specs, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(specs) == 0 {
		t.Fatalf("examples: %v, %v", specs, err)
	}
	for _, path := range specs {
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		if _, err := os.Stat(filepath.Join("..", "..", "golden", name+".safetensors")); err != nil {
			t.Errorf("%s: %v: describe it in golden/make.py and run make golden", path, err)
		}
	}
}

// TestCommitted: every golden of the repository loads, gives each entry a
// tolerance no looser than the documented default (but for what golden/README.md
// exempts), and has the parts and steps it promises.
func TestCommitted(t *testing.T) {
	for path, m := range committed(t) {
		g, err := Load(path, m)
		if err != nil {
			t.Error(err)
			continue
		}
		if g.Logits == nil || g.Loss == nil || g.Grads == nil || g.Torch == "" {
			t.Errorf("%s: logits, loss, grad or torch version missing", path)
		}
		want := 5
		if g.Formula != nil {
			want = 2
			checkFormula(t, g, m)
		}
		if len(g.Steps) != want {
			t.Errorf("%s: %d steps, want %d", path, len(g.Steps), want)
		}
		g.expectations(func(entry string, _ []float64) {
			noisy := strings.HasPrefix(entry, "step") &&
				(strings.HasSuffix(entry, "mlp_tokens.fc2.bias") || strings.HasSuffix(entry, "attn.qkv.bias"))
			if tol, ok := g.Tolerances[entry]; !ok || tol > GradientTolerance && !noisy {
				t.Errorf("%s: %s: tolerance %g", path, entry, tol)
			}
		})
	}
}

// TestCorrupt: one wrong element of any tensor of any committed golden fails
// that tensor; so do a NaN and an infinity. In one of them it is shown that no
// other row fails with it.
func TestCorrupt(t *testing.T) {
	for path, m := range committed(t) {
		g, err := Load(path, m)
		if err != nil {
			t.Fatal(err)
		}
		perfect := map[string][]float64{}
		g.expectations(func(entry string, want []float64) { perfect[entry] = want })
		if rows := checked(g, perfect); !AllOK(rows) || len(rows) != len(perfect) {
			t.Fatalf("%s: the golden misses itself", path)
		}
		alone := strings.HasSuffix(path, "norm_tc_small.safetensors")
		for entry, v := range perfect {
			for _, bad := range []float64{v[0] + 0.011*max(norm(v), 1e-2), math.NaN(), math.Inf(1)} {
				wrong := slices.Clone(v)
				wrong[0] = bad
				if Compare(entry, wrong, v, g.Tolerance(entry, "fp32")).OK {
					t.Fatalf("%s: %s passes with %g for %g", path, entry, bad, v[0])
				}
				if !alone {
					continue
				}
				corrupt := maps.Clone(perfect)
				corrupt[entry] = wrong
				for _, row := range checked(g, corrupt) {
					if row.OK == (row.Name == entry) {
						t.Fatalf("%s: %g in %s: row %+v", path, bad, entry, row)
					}
				}
			}
		}
	}
}

// checked hands values by entry name to a Checker, past the reduction to norm
// and samples.
func checked(g *Golden, got map[string][]float64) []Row {
	c := g.NewChecker("fp32")
	c.got = got
	return c.Rows()
}

func TestChecker(t *testing.T) {
	g, err := Load(write(t, toyGolden(), toy), toy)
	if err != nil {
		t.Fatal(err)
	}
	ramp := func(n int, scale float32) []float64 {
		v := make([]float32, n)
		for i := range v {
			v[i] = scale * float32(i+1)
		}
		return Float64s(v)
	}
	feed := func(skip string) []Row {
		c := g.NewChecker("fp32")
		do := func(name string, f func()) {
			if name != skip {
				f()
			}
		}
		do("logits", func() { c.Logits(g.Logits) })
		do("loss", func() { c.Loss(1.25) })
		do("grad_norm.w.weight", func() { c.Grad("w.weight", ramp(12, 0.25)) })
		do("grad.w.bias", func() { c.Grad("w.bias", ramp(3, 0.25)) })
		for k := range 3 { // a third step that the golden does not hold
			do(stepLoss(k+1), func() { c.StepLoss(k+1, 1.25) })
			do("step.param", func() {
				c.StepParam(k+1, "w.weight", ramp(12, 0.5+0.25*float32(k)))
				c.StepParam(k+1, "w.bias", ramp(3, 0.5+0.25*float32(k)))
			})
		}
		return c.Rows()
	}
	rows := feed("")
	var order []string
	for _, r := range rows {
		order = append(order, r.Name)
	}
	want := []string{"logits", "loss", "grad_norm.w.weight", "grad_sample.w.weight", "grad.w.bias",
		"step1.loss", "step1.param_norm.w.weight", "step1.param_sample.w.weight", "step1.param.w.bias",
		"step2.loss", "step2.param_norm.w.weight", "step2.param_sample.w.weight", "step2.param.w.bias"}
	if diff := cmp.Diff(want, order); diff != "" || !AllOK(rows) {
		t.Errorf("rows %+v\n%s", rows, diff)
	}
	for _, skip := range []string{"logits", "loss", "grad_norm.w.weight", "grad.w.bias", "step2.loss"} {
		rows := feed(skip)
		at := slices.IndexFunc(rows, func(r Row) bool { return !r.OK })
		if at < 0 || rows[at].Name != skip || rows[at].Reason != "was not computed" {
			t.Errorf("without %s: %+v", skip, rows)
		}
	}
	c := g.NewChecker("fp32")
	c.Grad("w.weight", ramp(11, 1))
	c.Grad("v", nil)
	c.Logits(g.Logits[1:])
	reasons := map[string]string{}
	for _, r := range c.Rows() {
		reasons[r.Name] = r.Reason
	}
	for name, want := range map[string]string{"logits": "has 5 elements, want 6", "grad.v": "is not in the golden",
		"grad_norm.w.weight": "was taken from 11 elements, want 12", "grad_sample.w.weight": "was taken from 11 elements, want 12"} {
		if reasons[name] != want {
			t.Errorf("%s: %q, want %q", name, reasons[name], want)
		}
	}
}

func TestCompare(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	tests := []struct {
		got, want []float64
		rel       float64
		ok        bool
	}{
		{[]float64{3, 4.5}, []float64{3, 4}, 0.1, true},
		{[]float64{3, 4.6}, []float64{3, 4}, 0.12, false},
		{[]float64{0.06, 0.08}, []float64{0, 0}, 0.1, true}, // absolute
		{[]float64{0.2, 0}, []float64{0, 0}, 0.2, false},
		{[]float64{nan, 4}, []float64{3, 4}, nan, false},
		{[]float64{3, nan}, []float64{3, nan}, nan, false},
		{[]float64{inf, 0}, []float64{inf, 0}, nan, false},
		{[]float64{1e300, 1e300}, []float64{-1e300, 1e300}, nan, false}, // the norms overflow
		{[]float64{3}, []float64{3, 4}, nan, false},
		{nil, []float64{3}, nan, false},
	}
	for _, tt := range tests {
		row := Compare("x", tt.got, tt.want, 0.1+1e-12)
		if row.OK != tt.ok || !(math.Abs(row.RelNorm-tt.rel) < 1e-12) && !math.IsNaN(tt.rel) || row.OK == (row.Reason != "") {
			t.Errorf("%v against %v: %+v", tt.got, tt.want, row)
		}
	}
	if row := Compare("x", []float32{0.1}, []float64{0.1}, 1e-7); !row.OK || row.RelNorm == 0 {
		t.Errorf("float32 against float64: %+v", row)
	}
}

func TestWriteTable(t *testing.T) {
	rows := []Row{
		Compare("logits", []float64{1, 2}, []float64{1, 2}, 1e-5),
		Compare("grad.k.bias", []float64{1e-9}, []float64{0}, 1e-6),
		Compare("loss", []float64{1.1}, []float64{1}, 1e-5),
		missed("step1.loss", 1e-5, "was not computed"),
	}
	var b bytes.Buffer
	if err := WriteTable(&b, rows); err != nil {
		t.Fatal(err)
	}
	want := `tensor         max abs   rel norm   tolerance
logits        0.00e+00   0.00e+00     1.0e-05  ok
grad.k.bias   1.00e-09   1.00e-09*    1.0e-06  ok
loss          1.00e-01   1.00e-01     1.0e-05  FAIL: misses its tolerance
step1.loss         NaN        NaN     1.0e-05  FAIL: was not computed
* the reference is zero: absolute norm
2 of 4 tensors FAIL
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	if AllOK(nil) {
		t.Error("nothing checked passes")
	}
}
