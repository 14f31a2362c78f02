package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// randomSpec writes a spec that uses the language at random: a stem, layers
// and combinators with their options, a pooling, a head, and any way to train.
// Sizes are small and odd, so that no extent is a multiple of a vector or tile.
func randomSpec(seed uint64) []byte {
	w := &specWriter{rng: rand.New(rand.NewPCG(seed, 0x5bec))}
	w.input()
	for range w.between(3, 5) {
		w.any()()
	}
	w.pool()
	for range w.between(0, 2) {
		w.pointwise()()
	}
	w.line("- linear: {name: head, out: %d, bias: %v}", w.classes, w.coin())
	w.train()
	return []byte(w.text.String())
}

// specWriter keeps the shape of what the next layer is given.
type specWriter struct {
	rng     *rand.Rand
	text    strings.Builder
	indent  int
	names   int
	classes int

	tokens, width int // tokens 0: a vector
}

func (w *specWriter) between(lo, hi int) int { return lo + w.rng.IntN(hi-lo+1) }
func (w *specWriter) coin() bool             { return w.rng.IntN(2) == 0 }

// oneOf picks one of the alternatives.
func oneOf[T any](w *specWriter, of ...T) T { return of[w.rng.IntN(len(of))] }

func (w *specWriter) line(format string, args ...any) {
	fmt.Fprintf(&w.text, "%*s"+format+"\n", append([]any{w.indent, ""}, args...)...)
}

// name is "name: …, " with a name that is not taken yet, or nothing: then the
// layer has its place as its name.
func (w *specWriter) name() string {
	if w.rng.IntN(3) == 0 {
		return ""
	}
	w.names++
	return fmt.Sprintf("name: p%d, ", w.names)
}

func (w *specWriter) input() {
	patch, rows, cols := w.between(1, 3), w.between(1, 3), w.between(2, 4)
	w.classes = w.between(2, 9)
	w.line("vitgen: 1\nname: random\ninput: {image: [%d, %d, %d], classes: %d}\nmodel:",
		w.between(1, 3), rows*patch, cols*patch, w.classes)
	w.indent = 2
	w.tokens, w.width = rows*cols, 2*w.between(3, 11)
	w.line("- patch_embed: {%spatch: %d, out: %d, bias: %v}", w.name(), patch, w.width, w.coin())
	if w.coin() {
		w.line("- cls_token: {name: cls}")
		w.tokens++
	}
	switch w.rng.IntN(3) {
	case 0:
		w.line("- pos_embed: {type: sincos}")
	case 1:
		w.line("- pos_embed: {name: pos}")
	default:
		w.line("- pos_embed: {name: pos, max_len: %d}", w.tokens+w.between(1, 4))
	}
}

// any picks a layer or combinator.
func (w *specWriter) any() func() {
	return oneOf(w, w.attention, w.block, w.block, w.repeat, w.linear, w.mixer, w.pointwise())
}

// pointwise picks a layer that keeps the shape, of tokens or a vector.
func (w *specWriter) pointwise() func() {
	return oneOf(w, w.activation, w.norm, w.drop, w.scale)
}

func (w *specWriter) activation() {
	w.line("- %s", oneOf(w, "gelu", "{gelu: tanh}", "relu", "silu"))
}

func (w *specWriter) norm() {
	over := ""
	if w.tokens > 0 && w.rng.IntN(3) == 0 {
		over = ", over: tokens_channels"
	}
	w.line("- layernorm: {%seps: %s%s}", w.name(), oneOf(w, "1e-5", "1e-6", "1e-3"), over)
}

func (w *specWriter) drop() {
	w.line("- %s: %s", oneOf(w, "dropout", "drop_path"), oneOf(w, "0.1", "0.5", "0"))
}

func (w *specWriter) scale() { w.line("- layer_scale: {%sinit: 0.5}", w.name()) }

// linear changes the width.
func (w *specWriter) linear() {
	w.width = 2 * w.between(3, 11)
	w.line("- linear: {%sout: %d, bias: %v}", w.name(), w.width, w.coin())
}

func (w *specWriter) attention() {
	heads := w.between(1, 4)
	for w.width%heads != 0 {
		heads--
	}
	w.line("- attention: {%sheads: %d, qkv: %s, qkv_bias: %v, out_bias: %v, causal: %v, dropout: %s}", w.name(), heads,
		oneOf(w, "fused", "separate"), w.coin(), w.coin(), w.coin(), oneOf(w, "0", "0.1", "0.4"))
}

// block is half of a transformer block, with the norm before or after.
func (w *specWriter) block() {
	post := w.rng.IntN(3) == 0
	w.line("- residual:")
	w.indent += 4
	if !post {
		w.norm()
	}
	if w.coin() {
		w.attention()
	} else {
		w.mlp(w.width)
	}
	for range w.rng.IntN(3) {
		oneOf(w, w.drop, w.scale)()
	}
	w.indent -= 4
	if post {
		w.norm()
	}
}

// mlp goes through a hidden layer back to a last dimension of size out.
func (w *specWriter) mlp(out int) {
	w.line("- linear: {%sout: %d, bias: %v}", w.name(), w.between(3, 29), w.coin())
	w.activation()
	if w.coin() {
		w.drop()
	}
	w.line("- linear: {%sout: %d, bias: %v}", w.name(), out, w.coin())
}

// mixer lets the tokens mix.
func (w *specWriter) mixer() {
	w.line("- residual:")
	w.indent += 4
	w.norm()
	w.line("- transpose")
	w.mlp(w.tokens)
	w.line("- transpose")
	w.indent -= 4
}

// repeat writes a block twice, with a rate that depends on the copy.
func (w *specWriter) repeat() {
	w.names++
	w.line("- repeat:")
	w.indent += 4
	w.line("name: r%d", w.names)
	w.line("times: 2")
	w.line("layers:")
	w.indent += 2
	w.block()
	w.line("- drop_path: \"${0.2 * i}\"")
	w.indent -= 6
}

// pool turns tokens into a vector.
func (w *specWriter) pool() {
	switch w.rng.IntN(4) {
	case 0:
		w.line("- select: {token: %d}", w.between(-1, w.tokens-1))
	case 1:
		w.line("- mean_pool: {skip: %d}", w.between(0, w.tokens-1))
	case 2:
		w.line("- select: 0")
	default:
		w.line("- flatten")
		w.width *= w.tokens
	}
	w.tokens = 0
}

// train writes the sections after the model. AdamW's eps is large: with a small
// one an element's first update is the learning rate times the sign of its
// gradient, and where that is rounding noise, float32 and float64 rightly
// disagree.
func (w *specWriter) train() {
	w.indent = 0
	w.line("loss: {cross_entropy: {label_smoothing: %s}}", oneOf(w, "0", "0.1"))
	optimizer := fmt.Sprintf("adamw: {lr: 0.01, betas: [0.8, 0.99], eps: %s, weight_decay: %s, decay: %s}",
		oneOf(w, "0.01", "0.05"), oneOf(w, "0", "0.1"), oneOf(w, "all", "weights"))
	if w.coin() {
		momentum := oneOf(w, "0", "0.9")
		optimizer = fmt.Sprintf("sgd: {lr: 0.05, momentum: %s, nesterov: %v, weight_decay: %s, decay: %s}",
			momentum, momentum != "0" && w.coin(), oneOf(w, "0", "0.01"), oneOf(w, "all", "weights"))
	}
	w.line("train:\n  batch: %d\n  epochs: 1\n  accumulate: %d\n  clip_norm: %s\n  optimizer: {%s}\n  schedule: %s",
		w.between(2, 5), oneOf(w, 1, 1, 2, 3), oneOf(w, "0", "0.2", "100"), optimizer,
		oneOf(w, "constant", "{linear_warmup: {warmup_steps: 2}}", "{cosine: {warmup_steps: 1, steps: 4, final_lr: 1e-3}}",
			"{step: {every_steps: 1, gamma: 0.5}}"))
	if w.coin() {
		w.line("  ema: {decay: 0.9, warmup: %v}", w.coin())
	}
	augment := oneOf(w, "", "", ", augment: {mixup: 0.2}", ", augment: {cutmix: 1.0}")
	w.line("data: {synthetic: {train: 16, val: 8%s}}", augment)
}
