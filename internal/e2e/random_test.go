package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/ir"
	"github.com/vitgen/vitgen/passes"
)

// seeds of the random specs of a normal run: together they use the whole
// language, which TestRandomSpecsCover sees to. VITGEN_E2E_SEEDS=n tries
// n others instead.
var seeds = []uint64{5, 7, 9, 19, 20, 42, 801}

// randomSteps is how many updates are compared.
const randomSteps = 3

// Trainers of random specs agree with the interpreter: logits, loss, gradients
// and updates, with dropout off and on, for full and partial batches.
//
// With dropout on they agree only if kernels drop exactly what the interpreter
// does: the tolerances are those of float32 rounding, and one wrong element of
// one mask misses them by orders of magnitude. The trainer has all passes and
// the interpreter none, so this also shows that pruned layers draw as whole
// ones do.
func TestRandomSpecs(t *testing.T) {
	for _, seed := range seedsOfRun(t) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			src := randomSpec(seed)
			s := mustParse(t, "random.yaml", src)
			m := compile(t, s, passes.Options{}, plainOnly)
			rng := rand.New(rand.NewPCG(seed, 0xda7a))
			for _, n := range []int{1, s.Train.Batch * s.Train.Accumulate, 1 + rng.IntN(s.Train.Batch*s.Train.Accumulate)} {
				ref := newReference(t, s, randomInputs(s, n, rng))
				for _, dropout := range []bool{false, true} {
					g := ref.golden(t, randomSteps, dropout, seed<<32+7)
					m.verify(t, writeGolden(t, s, g), nil)
				}
			}
			if t.Failed() {
				t.Logf("the spec:\n%s", src)
			}
		})
	}
}

// Whatever spec and order of nodes, and whichever pass is left out: there is a
// kernel for everything. This compiles no C++ and so can try much.
func TestRandomSpecsGenerate(t *testing.T) {
	for seed := range uint64(12) {
		s := mustParse(t, "random.yaml", randomSpec(seed))
		for shuffle := range uint64(2) {
			generate(t, s, passes.Options{Seed: seed * shuffle}, module+"/x")
		}
		for _, p := range passes.Passes() {
			if p.Optional {
				generate(t, s, passes.Options{Seed: seed, Disable: []string{p.Name}}, module+"/x")
			}
		}
	}
}

func seedsOfRun(t *testing.T) []uint64 {
	t.Helper()
	more := os.Getenv("VITGEN_E2E_SEEDS")
	if more == "" {
		return seeds
	}
	n, err := strconv.Atoi(more)
	if err != nil {
		t.Fatalf("VITGEN_E2E_SEEDS: %v", err)
	}
	var list []uint64
	for i := range n {
		list = append(list, 1000+uint64(i))
	}
	return list
}

// The seeds reach every layer and option, and absorption with all there is to it.
func TestRandomSpecsCover(t *testing.T) {
	var all strings.Builder
	for _, seed := range seeds {
		src := randomSpec(seed)
		all.Write(src)
		_, err := passes.Compile(mustParse(t, "random.yaml", src), passes.Options{DumpPasses: []string{"absorb"}, DumpTo: func(_ string, g *ir.Graph) {
			all.WriteString(g.String())
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{
		"patch_embed", "cls_token", "type: sincos", "{name: pos}", "max_len", "linear", "layernorm", "tokens_channels",
		"qkv: fused", "qkv: separate", "qkv_bias: true", "qkv_bias: false", "out_bias: true", "out_bias: false",
		"causal: true", "causal: false", "dropout: 0.4", "- gelu", "gelu: tanh", "relu", "silu", "- dropout: 0.5",
		"- drop_path: 0.", "layer_scale", "residual", "repeat", "select", "mean_pool", "transpose", "flatten",
		"label_smoothing: 0.1", "accumulate: 2", "clip_norm: 0.2", "sgd", "momentum: 0.9", "nesterov: true", "adamw",
		"decay: all", "decay: weights", "constant", "linear_warmup", "cosine", "every_steps",
		"ema: ", "mixup", "cutmix", "= latent_attention", "sums=true",
	} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("no random spec has %q", want)
		}
	}
}
