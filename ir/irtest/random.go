package irtest

import (
	"pgregory.net/rapid"

	"github.com/vitgen/vitgen/ir"
)

// Sizes stay small and odd, so that a test runs fast and no extent is a
// multiple of any vector or tile.
const (
	maxTokens = 12
	maxWidth  = 15
)

// RandomGraph draws a forward graph that the layers of the spec language could
// have made: a stem, any layers, a pooling, a head, and cross-entropy.
// Its outputs are logits, loss and correct, its dropout sites are numbered in
// layer order.
func RandomGraph(t *rapid.T) *ir.Graph {
	r := &random{builder: newBuilder("random"), t: t}
	x := r.stem()
	for range r.int("layers", 0, 5) {
		if len(x.Type.Sample()) == 1 {
			x = r.one(x, sameShape)
			continue
		}
		x = r.one(x, append(sameShape, tokenLayers...))
	}
	x = r.pool(x)
	for range r.int("layers after pooling", 0, 2) {
		x = r.one(x, sameShape)
	}
	return r.classify(x, r.int("classes", 2, 5), r.pick("smoothing", 0, 0.1), r.bool("two labels"))
}

// RandomFewQueries draws a graph with an attention of many tokens and few heads that is
// read in one or two rows: what pruning and absorption are for, and RandomGraph seldom
// has. Scores are some ones, as in models: absorption adds them up in another order,
// and softmax makes much of what rounding then leaves of scores in the tens.
func RandomFewQueries(t *rapid.T) *ir.Graph {
	r := &random{builder: newBuilder("few queries"), t: t}
	r.begin("stem")
	T := r.int("tokens", maxTokens, 3*maxTokens)
	x := r.linear(r.input("image", ir.BatchOf(ir.F32, r.int("batch", 1, 5), T, r.int("pixels", 1, 5))), r.int("width", 6, maxWidth), true)
	r.begin("attention")
	x = r.attend(x, 1+x.Type.Last()/5, "scale", 0.5/float64(x.Type.Last()))
	r.begin("select")
	from := r.int("from", 0, T-1)
	x = r.slice(ir.OpSliceTokens, x, from, min(T, from+r.int("rows", 1, 2)))
	return r.classify(x, r.int("classes", 2, 5), 0, false)
}

// random is a builder that draws its choices.
type random struct {
	*builder
	t *rapid.T
}

func (r *random) int(what string, from, to int) int { return rapid.IntRange(from, to).Draw(r.t, what) }
func (r *random) bool(what string) bool             { return rapid.Bool().Draw(r.t, what) }
func (r *random) pick(what string, from ...float64) float64 {
	return rapid.SampledFrom(from).Draw(r.t, what)
}

// layer is one kind of layer; make adds it to x.
type layer struct {
	kind string
	make func(r *random, x *ir.Value) *ir.Value
}

// one adds a layer out of the list.
func (r *random) one(x *ir.Value, from []layer) *ir.Value {
	l := from[r.int("layer", 0, len(from)-1)]
	r.begin(l.kind)
	return l.make(r, x)
}

// stem turns an image into tokens or, seldom, into one vector.
func (r *random) stem() *ir.Value {
	r.begin("stem")
	batch, chans := r.int("batch", 1, 5), r.int("channels", 1, 3)
	p, rows, cols := r.int("patch", 1, 3), r.int("patch rows", 1, 3), r.int("patch columns", 1, 3)
	image := r.input("image", ir.BatchOf(ir.F32, batch, chans, rows*p, cols*p))
	width := r.int("width", 1, 9)
	switch r.int("stem", 0, 3) {
	case 0: // image rows as tokens, as recurrent and mixer models take them
		return r.linear(r.reshape(image, chans*rows*p, cols*p), width, r.bool("bias"))
	case 1:
		return r.linear(r.reshape(image, chans*rows*p*cols*p), width, r.bool("bias"))
	}
	w := r.reshape(r.param("weight", width, chans, p, p), width, chans*p*p)
	x := r.add(ir.OpLinear, nil, r.add(ir.OpPatchify, ir.A("patch", p), image), w)
	return r.add(ir.OpAdd, nil, x, r.param("bias", width))
}

// sameShape lists the layers that keep the shape of tokens or a vector, so
// that they can stand in a residual branch.
var sameShape = []layer{
	{"activation", (*random).activation},
	{"layernorm", func(r *random, x *ir.Value) *ir.Value { return r.layerNorm(x, x.Type.Last()) }},
	{"norm_all", func(r *random, x *ir.Value) *ir.Value { return r.layerNorm(x, x.Type.Sample()...) }},
	{"dropout", func(r *random, x *ir.Value) *ir.Value { return r.dropout(x, r.rate()) }},
	{"drop_path", func(r *random, x *ir.Value) *ir.Value {
		return r.add(ir.OpDropPath, ir.A("p", r.rate(), "site", r.site()), x)
	}},
	{"layer_scale", func(r *random, x *ir.Value) *ir.Value {
		return r.add(ir.OpMul, nil, x, r.param("gamma", x.Type.Last()))
	}},
	{"linear", func(r *random, x *ir.Value) *ir.Value { return r.linear(x, x.Type.Last(), r.bool("bias")) }},
	{"mlp", (*random).mlp},
	{"position", (*random).position},
	{"attention", (*random).selfAttention},
	{"token_mix", (*random).tokenMix},
}

// tokenLayers lists those that change the shape of tokens, and residual, whose
// body is a few of the layers above.
var tokenLayers = []layer{
	{"residual", (*random).residual},
	{"widen", func(r *random, x *ir.Value) *ir.Value { return r.linear(x, r.int("width", 1, 9), r.bool("bias")) }},
	{"cls_token", (*random).clsToken},
	{"select", func(r *random, x *ir.Value) *ir.Value {
		from := r.int("from", 0, x.Type.Sample()[0]-1)
		return r.slice(ir.OpSliceTokens, x, from, r.int("to", from+1, x.Type.Sample()[0]))
	}},
	{"transpose", func(r *random, x *ir.Value) *ir.Value {
		if x.Type.Last() > maxTokens {
			return x
		}
		return r.add(ir.OpTranspose, nil, x)
	}},
}

func (r *random) rate() float64 { return r.pick("p", 0.1, 0.5, 0) }

func (r *random) activation(x *ir.Value) *ir.Value {
	switch r.int("function", 0, 3) {
	case 0:
		return r.add(ir.OpRelu, nil, x)
	case 1:
		return r.add(ir.OpSilu, nil, x)
	case 2:
		return r.add(ir.OpGelu, ir.A("tanh", true), x)
	}
	return r.add(ir.OpGelu, ir.A("tanh", false), x)
}

func (r *random) mlp(x *ir.Value) *ir.Value {
	h := r.activation(r.linear(x, r.int("hidden", 1, maxWidth), r.bool("bias")))
	if r.bool("dropout") {
		h = r.dropout(h, r.rate())
	}
	return r.linear(h, x.Type.Last(), r.bool("bias"))
}

// tokenMix is a linear layer over the tokens, as in MLP-Mixer.
func (r *random) tokenMix(x *ir.Value) *ir.Value {
	if len(x.Type.Sample()) != 2 {
		return x
	}
	y := r.linear(r.add(ir.OpTranspose, nil, x), x.Type.Sample()[0], r.bool("bias"))
	return r.add(ir.OpTranspose, nil, r.activation(y))
}

// position adds a learned or fixed position table, or a bias to a vector.
func (r *random) position(x *ir.Value) *ir.Value {
	s := x.Type.Sample()
	if len(s) == 1 {
		return r.add(ir.OpAdd, nil, x, r.param("bias", s...))
	}
	switch r.int("table", 0, 2) {
	case 0:
		return r.add(ir.OpAdd, nil, x, r.add(ir.OpSinCos, ir.A("type", ir.Tensor(ir.F32, s...))))
	case 1:
		return r.add(ir.OpAdd, nil, x, r.reshape(r.param("pos", 1, s[0], s[1]), s...))
	}
	long := s[0] + r.int("unused rows", 1, 3)
	table := r.reshape(r.param("pos", 1, long, s[1]), long, s[1])
	return r.add(ir.OpAdd, nil, x, r.slice(ir.OpSliceFirst, table, 0, s[0]))
}

// selfAttention projects x to q, k and v with one product, over weights that
// are one parameter or three.
func (r *random) selfAttention(x *ir.Value) *ir.Value {
	if len(x.Type.Sample()) != 2 {
		return x
	}
	return r.attend(x, x.Type.Last())
}

// attend is selfAttention of tokens with at most so many heads, and with these attributes.
func (r *random) attend(x *ir.Value, most int, attrs ...any) *ir.Value {
	D := x.Type.Last()
	heads := r.int("heads", 1, most)
	for D%heads != 0 {
		heads--
	}
	fused := r.bool("fused qkv")
	stack := func(suffix string, shape ...int) *ir.Value {
		if fused {
			return r.param(suffix, append([]int{3 * D}, shape...)...)
		}
		var parts []*ir.Value
		for _, name := range []string{"q.", "k.", "v."} {
			parts = append(parts, r.param(name+suffix, append([]int{D}, shape...)...))
		}
		return r.add(ir.OpConcatFirst, nil, parts...)
	}
	qkv := r.add(ir.OpLinear, nil, x, stack("weight", D))
	if r.bool("qkv bias") {
		qkv = r.add(ir.OpAdd, nil, qkv, stack("bias"))
	}
	part := func(i int) *ir.Value { return r.slice(ir.OpSliceLast, qkv, i*D, (i+1)*D) }
	o := r.attention(part(0), part(1), part(2),
		append([]any{"heads", heads, "p", r.rate(), "causal", r.bool("causal")}, attrs...)...)
	return r.linear(o, D, r.bool("output bias"))
}

func (r *random) residual(x *ir.Value) *ir.Value {
	body := x
	for range r.int("body layers", 1, 4) {
		body = r.one(body, sameShape)
	}
	if body == x {
		return x
	}
	return r.add(ir.OpAdd, nil, x, body)
}

func (r *random) clsToken(x *ir.Value) *ir.Value {
	if x.Type.Sample()[0] >= maxTokens {
		return x
	}
	D := x.Type.Last()
	return r.add(ir.OpPrependToken, nil, x, r.reshape(r.param("token", 1, 1, D), D))
}

// pool turns tokens into one vector.
func (r *random) pool(x *ir.Value) *ir.Value {
	r.begin("pool")
	s := x.Type.Sample()
	if len(s) == 1 {
		return x
	}
	T, D := s[0], s[1]
	switch r.int("pool", 0, 2) {
	case 0:
		at := r.int("token", 0, T-1)
		return r.reshape(r.slice(ir.OpSliceTokens, x, at, at+1), D)
	case 1:
		return r.reshape(x, T*D)
	}
	skip := r.int("skip", 0, T-1)
	if skip > 0 {
		x = r.slice(ir.OpSliceTokens, x, skip, T)
	}
	return r.add(ir.OpScale, ir.A("by", 1/float64(T-skip)), r.add(ir.OpSumTokens, nil, x))
}
