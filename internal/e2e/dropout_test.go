package e2e

import (
	"math"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/runtime/golden"
	"github.com/vitgen/vitgen/spec"
)

// exactly is a tolerance that only equal numbers meet: it is below the
// smallest relative difference of two float32 tensors.
const exactly = 1e-30

// The masks that kernels draw are the interpreter's bit for bit. In these
// models the logits are the masks: of images of ones, or of attention that
// looks at all tokens alike, times powers of two. On the CPU, and on a simulated
// CUDA device.
//
// The masks also drop as often as they should, and evaluation drops nothing.
func TestDropoutMasks(t *testing.T) {
	const header = "vitgen: 1\nname: mask\n"
	const footer = "\ntrain: {batch: 64, epochs: 1, optimizer: {sgd: {lr: 0.1}}}\ndata: {synthetic: {train: 8, val: 8}}\nloss: cross_entropy\n"
	for name, c := range map[string]struct {
		spec   string
		p      float64
		shared int     // logits that one draw decides about
		keep   float64 // logit of an element that is kept, in evaluation
	}{
		"dropout":           {"input: {image: [1, 9, 19], classes: 171}\nmodel: [flatten, dropout: 0.1, linear: {name: out, out: 171, bias: false}]", 0.1, 1, 1},
		"dropout half":      {"input: {image: [1, 16, 16], classes: 256}\nmodel: [flatten, dropout: 0.5, linear: {name: out, out: 256, bias: false}]", 0.5, 1, 1},
		"drop_path":         {"input: {image: [1, 2, 4], classes: 8}\nmodel: [flatten, drop_path: 0.3, linear: {name: out, out: 8, bias: false}]", 0.3, 8, 1},
		"pruned dropout":    {"input: {image: [4, 8, 8], classes: 4}\nmodel: [patch_embed: {name: eye, patch: 1, out: 4, bias: false}, dropout: 0.25, select: 37, linear: {name: out, out: 4, bias: false}]", 0.25, 1, 1},
		"attention dropout": {"input: {image: [8, 2, 4], classes: 64}\nmodel: [patch_embed: {name: eye, patch: 1, out: 8, bias: false}, attention: {name: zero, heads: 1, bias: false, dropout: 0.5}, flatten, linear: {name: out, out: 64, bias: false}]", 0.5, 1, 0.125},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := mustParse(t, "mask.yaml", []byte(header+c.spec+footer))
			m := compile(t, s, passes.Options{}, withCUDA)
			ref := newReference(t, s, maskInputs(s))
			for _, seed := range []uint64{1, 1<<63 + 12345} {
				g := ref.golden(t, 0, true, seed)
				keepRate(t, g, c.p, c.shared)
				exact := writeGolden(t, s, logitsExactly(g))
				m.verify(t, exact, nil, "--device", "cpu")
				m.verify(t, exact, onGPU(t, m), "--device", "cuda")

				g.Seed++ // another seed's mask is another
				for _, device := range []string{"cpu", "cuda"} {
					out, status := m.run(t, onGPU(t, m), "verify", "--golden", writeGolden(t, s, g), "--device", device)
					if status != 1 || !strings.Contains(lastLine(out), "logits") {
						t.Errorf("with another seed, on %s: exit status %d\n%s", device, status, out)
					}
				}
			}
			g := ref.golden(t, 0, false, 0)
			m.verify(t, writeGolden(t, s, logitsExactly(g)), nil)
			for i, x := range g.Logits {
				if x != c.keep {
					t.Fatalf("logit %d is %v in evaluation, want %v", i, x, c.keep)
				}
			}
		})
	}
}

// logitsExactly reduces a golden to its logits, to be met to the bit. The
// interpreter's own rounding, in float64, is taken off them: all are float32.
func logitsExactly(g *golden.Golden) *golden.Golden {
	for i, x := range g.Logits {
		g.Logits[i] = float64(float32(x))
	}
	g.Loss, g.Grads, g.Tolerances = nil, nil, map[string]float64{"logits": exactly}
	return g
}

// maskInputs makes every matrix the identity, those of queries and keys zero,
// and images of ones; for attention, whose values must tell the tokens apart,
// token t is the unit vector t.
func maskInputs(s *spec.Spec) inputs {
	n, elems := s.Train.Batch, s.Input.Shape().Elems()
	in := inputs{image: make([]float32, n*elems), label: make([]int64, n), params: map[string][]float32{}}
	attends := false
	for _, p := range s.Params() {
		v := make([]float32, p.Elems())
		in.params[p.Name] = v
		if strings.HasPrefix(p.Name, "zero.") {
			attends = true
			if strings.Contains(p.Name, "W_q") || strings.Contains(p.Name, "W_k") {
				continue
			}
		}
		for i := range p.Shape[0] {
			v[i*(len(v)/p.Shape[0])+i] = 1
		}
	}
	for i := range in.image {
		pixel := i % elems
		tokens := s.Input.Height * s.Input.Width
		if channel, token := pixel/tokens, pixel%tokens; !attends || channel == token {
			in.image[i] = 1
		}
	}
	return in
}

// keepRate checks how many draws were kept, within four standard deviations of
// the binomial distribution. Each draw decides about `shared` neighbours.
func keepRate(t *testing.T, g *golden.Golden, p float64, shared int) {
	t.Helper()
	kept, draws := 0.0, float64(len(g.Logits)/shared)
	for i := 0; i < len(g.Logits); i += shared {
		for _, x := range g.Logits[i : i+shared] {
			if (x != 0) != (g.Logits[i] != 0) {
				t.Fatalf("element %d of one draw differs", i)
			}
		}
		if g.Logits[i] != 0 {
			kept++
		}
	}
	if off := math.Abs(kept - (1-p)*draws); off > 4*math.Sqrt(p*(1-p)*draws) {
		t.Errorf("%v of %v were kept with p = %v", kept, draws, p)
	}
}
