package spec

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestSections compares every field of the sections of a file that sets all of
// them.
func TestSections(t *testing.T) {
	s, err := Parse("all.yaml", []byte(`
vitgen: 1
name: all
define: {n: 2, lr: 1e-3, on: true, set: mnist}
input: {image: [1, "${16 * n}", 16], classes: 10}
model: [flatten, {linear: {name: head, out: 10}}]
loss: {cross_entropy: {label_smoothing: 0.1}}
train:
  batch: 64
  epochs: 3
  accumulate: "${n}"
  precision: bf16
  metrics: d2l
  optimizer: {sgd: {lr: "${lr}", momentum: .9, nesterov: "${on}", weight_decay: 1E-4, decay: weights}}
  schedule: {step: {every_epochs: 2, gamma: 0.5, warmup_steps: 7}}
  clip_norm: 1
  seed: 9223372036854775807
data: {mnist: {resize: [32, 16], normalize: {mean: [0.1307], std: [0.3081]}}}
`))
	if err != nil {
		t.Fatalf("\n%v", err)
	}
	if got, want := s.Train.Pos, (Pos{Line: 9, Col: 3}); got != want {
		t.Errorf("train stands at %v, want %v", got, want)
	}
	noKeys := cmp.Options{cmpopts.IgnoreTypes(keys{}, Pos{})}
	if diff := cmp.Diff(Input{Channels: 1, Height: 32, Width: 16, Classes: 10}, s.Input, noKeys); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Loss{Kind: "cross_entropy", LabelSmoothing: 0.1}, s.Loss, noKeys); diff != "" {
		t.Error(diff)
	}
	want := Train{Batch: 64, Epochs: 3, Accumulate: 2, Precision: "bf16", Metrics: "d2l",
		Optimizer: Optimizer{Kind: "sgd", LR: 1e-3, Momentum: 0.9, Nesterov: true, WeightDecay: 1e-4},
		Schedule:  Schedule{Kind: "step", Every: 2, EveryUnit: "epochs", Gamma: 0.5, WarmupSteps: 7},
		ClipNorm:  1, Seed: math.MaxInt64}
	if diff := cmp.Diff(want, s.Train, noKeys); diff != "" {
		t.Error(diff)
	}
	data := Data{Name: "mnist", Resize: [2]int{32, 16}, Mean: []float64{0.1307}, Std: []float64{0.3081}}
	if diff := cmp.Diff(data, s.Data, noKeys); diff != "" {
		t.Error(diff)
	}
	if got, want := s.Train.Optimizer.At("lr"), (Pos{Line: 14, Col: 25}); got != want {
		t.Errorf("lr stands at %v, want %v", got, want)
	}
	if got := s.Train.Optimizer.At("decay_all"); got != (Pos{}) {
		t.Errorf("a key that is not there stands at %v", got)
	}
}

// TestDefaults compares what a file leaves out.
func TestDefaults(t *testing.T) {
	s := model(t, "  - patch_embed: {patch: 2, out: 4}\n")
	want := Train{Batch: 8, Epochs: 1, Accumulate: 1, Precision: "fp32", Metrics: "exact", Seed: 1,
		Optimizer: Optimizer{Kind: "sgd", LR: 0.1, DecayAll: true}, Schedule: Schedule{Kind: "constant"}}
	if diff := cmp.Diff(want, s.Train, cmpopts.IgnoreTypes(keys{}, Pos{})); diff != "" {
		t.Error(diff)
	}
	adam := optimizerUnion.find("adamw").make(initDefaults{}).(*Optimizer)
	if diff := cmp.Diff(&Optimizer{Kind: "adamw", Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01, DecayAll: true}, adam,
		cmpopts.IgnoreTypes(keys{})); diff != "" {
		t.Error(diff)
	}
}

// TestInits covers the initializers, where they come from, and fan-in.
func TestInits(t *testing.T) {
	src := wrap(`
  - patch_embed: {name: p, patch: 2, out: 4, init: {uniform: 0.5}}
  - cls_token: {name: c, init: {constant: 3}}
  - pos_embed: {name: pos}
  - layernorm: {name: n, init: zeros, bias_init: ones}
  - attention: {name: a, heads: 2, bias_init: zeros, out_bias: false}
  - layer_scale: {name: s, init: 0.25}
  - linear: {name: l, out: 4, init: {normal: {std: 0.5}}, bias_init: {trunc_normal: {std: 1, cut: 3}}}
`)
	for top, def := range map[string]Init{
		"":                                     {Kind: "pytorch"},
		"init: {weight: {trunc_normal: 0.02}}": {Kind: "trunc_normal", A: 0.02, B: 2},
	} {
		s, err := Parse("inits.yaml", []byte(strings.Replace(src, "model:", top+"\nmodel:", 1)))
		if err != nil {
			t.Fatalf("\n%v", err)
		}
		fan := func(i Init, n int) Init {
			if i.Kind == "pytorch" {
				i.FanIn = n
			}
			return i
		}
		torch := Init{Kind: "pytorch"}
		want := map[string]Init{
			"p.weight": {Kind: "uniform", A: 0.5}, "p.bias": fan(torch, 4),
			"c": {Kind: "constant", A: 3}, "pos": {Kind: "trunc_normal", A: 0.02, B: 2},
			"n.weight": {Kind: "zeros"}, "n.bias": {Kind: "ones"},
			"a.W_q.weight": fan(def, 4), "a.W_k.weight": fan(def, 4), "a.W_v.weight": fan(def, 4), "a.W_o.weight": fan(def, 4),
			"a.W_q.bias": {Kind: "zeros"}, "a.W_k.bias": {Kind: "zeros"}, "a.W_v.bias": {Kind: "zeros"},
			"s.gamma":  {Kind: "constant", A: 0.25},
			"l.weight": {Kind: "normal", A: 0.5}, "l.bias": {Kind: "trunc_normal", A: 1, B: 3},
			"head.weight": fan(def, 68), "head.bias": fan(torch, 68),
		}
		got := map[string]Init{}
		for _, p := range s.Params() {
			got[p.Name] = p.Init
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", top, diff)
		}
	}
}

// TestDecays says which parameters decay: weights leaves alone.
func TestDecays(t *testing.T) {
	var decayed, others []string
	for _, p := range parseFile(t, "../golden/specs/timm_small.yaml").Params() {
		if strings.HasPrefix(p.Name, "blocks.1.") || strings.HasPrefix(p.Name, "blocks.2.") {
			continue
		}
		if p.Decays() {
			decayed = append(decayed, p.Name)
		} else {
			others = append(others, p.Name)
		}
	}
	want := []string{"patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.attn.proj.weight",
		"blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.weight", "head.weight"}
	if diff := cmp.Diff(want, decayed); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{"cls_token", "pos_embed", "blocks.0.norm1.weight", "blocks.0.ls1.gamma", "head.bias"} {
		if !slices.Contains(others, name) {
			t.Errorf("%s is not among %v", name, others)
		}
	}
}

// TestLoopVariables covers expressions in repeats, nested ones among them.
func TestLoopVariables(t *testing.T) {
	s := model(t, `
  - patch_embed: {patch: 2, out: 4}
  - repeat:
      name: a
      times: 2
      layers:
        - dropout: "${0.1 * i / 2}"
        - repeat:
            name: "b${i}"
            times: 2
            index: j
            layers: [{drop_path: "${(2 * i + j) / 10.0}"}, {layernorm: {name: n}}]
        - repeat: {times: 1, layers: [{dropout: "${i / 10.0}"}]}
`)
	var got []string
	WalkLayers(s.Model, func(l Layer) {
		switch l := l.(type) {
		case *Dropout:
			got = append(got, fmt.Sprintf("dropout %g", l.P))
		case *DropPath:
			got = append(got, fmt.Sprintf("path %g", l.P))
		case *LayerNorm:
			got = append(got, l.Name)
		}
	})
	want := []string{"dropout 0", "path 0", "a.0.b0.0.n", "path 0.1", "a.0.b0.1.n", "dropout 0",
		"dropout 0.05", "path 0.2", "a.1.b1.0.n", "path 0.3", "a.1.b1.1.n", "dropout 0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestHash: how a file is written does not matter; what it says does.
func TestHash(t *testing.T) {
	src := string(read(t, "../examples/vit_tiny.yaml"))
	hash := func(old, new string) string {
		t.Helper()
		changed := strings.ReplaceAll(src, old, new)
		if old != new && changed == src {
			t.Fatalf("%q is not in the example", old)
		}
		s, err := Parse("x.yaml", []byte(changed))
		if err != nil {
			t.Fatalf("\n%v", err)
		}
		return s.Hash()
	}
	want := hash("", "")
	for _, same := range [][2]string{
		{"#", "# more"},
		{`out: "${2 * hidden}"`, "out: 128"},
		{"- gelu", "- gelu: {name: act, approx: none}"},
		{"lr: 2e-3", "lr: 0.002"},
		{"data: digits", "data:\n  digits: {}\n"},
		{"- select: {token: 0}", "- select: -17"},
		{"seed: 1\n", ""},
		{"- residual:\n", "- residual:\n            # nothing\n"},
	} {
		if hash(same[0], same[1]) != want {
			t.Errorf("%q in place of %q changes the hash", same[1], same[0])
		}
	}
	for _, other := range [][2]string{
		{"hidden: 64", "hidden: 60"}, {"- gelu", "- gelu: tanh"}, {"depth: 2", "depth: 3"}, {"seed: 1\n", "seed: 2\n"},
		{"name: attn", "name: att"}, {"lr: 2e-3", "lr: 2.1e-3"}, {"decay: weights", "decay: all"},
		{"dropout: 0.05", "dropout: 0.06"}, {"- select: {token: 0}", "- mean_pool"}, {"epochs: 40", "epochs: 41"},
	} {
		if hash(other[0], other[1]) == want {
			t.Errorf("%q in place of %q leaves the hash", other[1], other[0])
		}
	}
}

// TestEvaluate covers what expressions give; the errors are among the cases of
// TestErrors.
func TestEvaluate(t *testing.T) {
	env := &scope{}
	env.define("n", value{kind: intVal, i: 12})
	env.define("x", value{kind: floatVal, f: 0.5})
	env.define("s", value{kind: strVal, s: "text"})
	for text, want := range map[string]string{
		"1 + 2 * 3": "7", "(1 + 2) * 3": "9", "10 - 4 - 3": "3", "24 / 4 / 2": "3", "-n + 1": "-11", "- -n": "12", "+n": "12",
		"2*-3": "-6", "n / 8.0": "1.5", "1e-4": "0.0001", "1e-4*1e4": "1.0", "2 * x": "1.0", " n ": "12", "s": `"text"`,
		"n-1": "11", "1-1": "0", "9223372036854775807": "9223372036854775807", "-9223372036854775807 - 1": "-9223372036854775808",
		".5 + 1.": "1.5", "0.1 * n / 11": "0.10909090909090911", "3037000499 * 3037000499": "9223372030926249001",
	} {
		v, err := evaluate(text, env)
		if err != nil {
			t.Errorf("%s: %s", text, err.msg)
		} else if v.String() != want {
			t.Errorf("%s = %s, want %s", text, v, want)
		}
	}
	for _, text := range []string{"3037000500 * 3037000500", "-9223372036854775807 - 2", "(0 - 9223372036854775807 - 1) / -1", "1 / 0.0", "m", "1e", "1 +", "n n", "()", "1..2"} {
		if v, err := evaluate(text, env); err == nil {
			t.Errorf("%s = %s, want an error", text, v)
		}
	}
}
