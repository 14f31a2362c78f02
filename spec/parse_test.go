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
  ema: {decay: 0.999, warmup: "${on}"}
  early_stop: {patience: 5, min_delta: 0.01}
  best: loss
  skip_outliers: {z: 4.5, window: 64}
  seed: 9223372036854775807
data:
  mnist:
    resize: [32, 16]
    normalize: {mean: [0.1307], std: [0.3081]}
    augment: {random_crop: "${n}", flip: .25, random_resized_crop: {scale: [0.5, 0.75], ratio: [1, 2]}, mixup: 0.2, cutmix: 1}
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
		ClipNorm:  1, Seed: math.MaxInt64,
		EMA: EMA{Decay: 0.999, Warmup: true}, EarlyStop: EarlyStop{Patience: 5, MinDelta: 0.01}, Best: "loss",
		SkipOutliers: SkipOutliers{Z: 4.5, Window: 64}}
	if diff := cmp.Diff(want, s.Train, noKeys); diff != "" {
		t.Error(diff)
	}
	data := Data{Name: "mnist", Resize: [2]int{32, 16}, Mean: []float64{0.1307}, Std: []float64{0.3081}, Augment: Augment{
		ResizedCrop: ResizedCrop{Scale: [2]float64{0.5, 0.75}, Ratio: [2]float64{1, 2}}, Padding: 2, Flip: 0.25, Mixup: 0.2, CutMix: 1}}
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
	want := Train{Batch: 8, Epochs: 1, Accumulate: 1, Precision: "fp32", Metrics: "exact", Best: "accuracy", Seed: 1,
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

// TestOptions covers the ways to write what is off unless given, and that each
// way of saying the same has the same canonical form, which says it again.
func TestOptions(t *testing.T) {
	parse := func(train, data string) *Spec {
		t.Helper()
		src := strings.Replace(wrap(""), "train: {", "train: {"+train, 1)
		head, _, _ := strings.Cut(src, "\ndata:")
		s, err := Parse("options.yaml", []byte(head+"\ndata: "+data+"\n"))
		if err != nil {
			t.Fatalf("\n%v", err)
		}
		again, err := Parse("canonical", s.Canonical())
		if err != nil {
			t.Fatalf("the canonical form does not parse:\n%s\n%v", s.Canonical(), err)
		}
		if diff := cmp.Diff(s, again, cmpopts.IgnoreTypes(keys{}, Pos{}), cmpopts.IgnoreFields(Spec{}, "File", "Source", "Model")); diff != "" {
			t.Errorf("%s, %s: the canonical form says something else:\n%s", train, data, diff)
		}
		return s
	}
	crop := ResizedCrop{Scale: [2]float64{0.08, 1}, Ratio: [2]float64{3. / 4, 4. / 3}}
	for _, same := range [][][2]string{
		{{"", "digits"}, {"best: accuracy, ", "digits"}, {"", "{digits: {augment: {}}}"}, {"", "{digits: {augment: {random_crop: 0, flip: 0, mixup: 0, cutmix: 0}}}"}},
		{{"ema: 0.99, ", "digits"}, {"ema: {decay: 0.99}, ", "digits"}, {"ema: {decay: 99e-2, warmup: false}, ", "digits"}},
		{{"early_stop: 3, ", "digits"}, {"early_stop: {patience: 3, min_delta: 0}, ", "digits"}},
		{{"skip_outliers: 6, ", "digits"}, {"skip_outliers: {z: 6.0, window: 128}, ", "digits"}},
		{{"", "{digits: {augment: {random_resized_crop}}}"}, {"", "{digits: {augment: {flip: 0, random_resized_crop: {}}}}"},
			{"", "{digits: {augment: {random_resized_crop: {scale: [0.08, 1], ratio: [0.75, 1.3333333333333333]}}}}"},
			{"", "\n  digits:\n    augment:\n      random_resized_crop:\n      flip: 0"}},
		{{"", "image_folder"}, {"", "{image_folder: {resize: [8, 8], fit: crop, val: 0.2}}"}},
	} {
		first := parse(same[0][0], same[0][1])
		for _, other := range same[1:] {
			if s := parse(other[0], other[1]); s.Hash() != first.Hash() {
				t.Errorf("%v and %v have different hashes:\n%s\n%s", same[0], other, first.Canonical(), s.Canonical())
			}
		}
	}
	if got := parse("", "{digits: {augment: {random_resized_crop}}}").Data.Augment.ResizedCrop; got.Scale != crop.Scale || got.Ratio != crop.Ratio {
		t.Errorf("the defaults of random_resized_crop are %+v", got)
	}
	folder := Data{Name: "image_folder", Resize: [2]int{8, 8}, Fit: "crop", ValPart: 0.2}
	if diff := cmp.Diff(folder, parse("", "image_folder").Data, cmpopts.IgnoreTypes(keys{}, Pos{})); diff != "" {
		t.Error(diff)
	}
	if a := parse("", "{digits: {augment: {mixup: 0.1}}}").Data.Augment; !a.Mixes() || !a.On() {
		t.Error("mixup mixes nothing")
	}
	if a := parse("", "{digits: {augment: {flip: 0.5}}}").Data.Augment; a.Mixes() || !a.On() {
		t.Error("a flip mixes, or does nothing")
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
		{"seed: 1\n", "best: accuracy\n  seed: 1\n"},
		{"seed: 1\n", ""},
		{"- residual:\n", "- residual:\n            # nothing\n"},
	} {
		if hash(same[0], same[1]) != want {
			t.Errorf("%q in place of %q changes the hash", same[1], same[0])
		}
	}
	for _, other := range [][2]string{
		{"hidden: 64", "hidden: 60"}, {"- gelu", "- gelu: tanh"}, {"depth: 2", "depth: 3"}, {"seed: 1\n", "seed: 2\n"},
		{"seed: 1\n", "seed: 1\n  best: loss\n"}, {"seed: 1\n", "seed: 1\n  ema: 0.9\n"}, {"data: digits", "data: {digits: {augment: {flip: 0.5}}}"},
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
