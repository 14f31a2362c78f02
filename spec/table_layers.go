package spec

import (
	"fmt"
	"math"
	"regexp"

	"gopkg.in/yaml.v3"
)

// maxName is the longest name, in bytes.
const maxName = 200

var dottedName = textType{
	pattern: regexp.MustCompile(`^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$`),
	want:    "a name of letters, digits and _, with dots between",
	doc:     "name, dots allowed",
}

// Types that several keys share.
var (
	dim     = intType{1, maxDim}
	flag    = boolType{}
	anyInit = choiceType[Init]{union: initUnion, word: initWord, ref: "init"}
	// plainInit leaves out "pytorch", which needs a fan-in.
	plainInit = choiceType[Init]{union: &union{name: initUnion.name, rows: initUnion.rows[:len(initUnion.rows)-1]}, word: initWord, ref: "plain_init"}
)

func initWord(i *Init) string { return i.Kind }

// initUnion is how a parameter gets its first values; see Init for A and B.
var initUnion = &union{name: "an initializer", rows: []*variant{
	{word: "zeros", doc: "all 0", make: newInit(Init{Kind: "zeros"})},
	{word: "ones", doc: "all 1", make: newInit(Init{Kind: "ones"})},
	{word: "constant", doc: "all the same value", short: "value", make: newInit(Init{Kind: "constant"}),
		fields: []*field{{key: "value", typ: anyNumber, req: true, dst: to(func(i *Init) *float64 { return &i.A }), doc: "the value"}}},
	{word: "normal", doc: "normal distribution around 0", short: "std", make: newInit(Init{Kind: "normal"}),
		fields: []*field{{key: "std", typ: positive, req: true, dst: to(func(i *Init) *float64 { return &i.A }), doc: "standard deviation"}}},
	{word: "trunc_normal", doc: "normal distribution around 0, cut on both sides", short: "std", make: newInit(Init{Kind: "trunc_normal", B: 2}),
		fields: []*field{
			{key: "std", typ: positive, req: true, dst: to(func(i *Init) *float64 { return &i.A }), doc: "standard deviation before the cut"},
			{key: "cut", typ: positive, dst: to(func(i *Init) *float64 { return &i.B }), doc: "values lie in [-cut, cut]: absolute, not in standard deviations"},
		}},
	{word: "uniform", doc: "uniform between -bound and bound", short: "bound", make: newInit(Init{Kind: "uniform"}),
		fields: []*field{{key: "bound", typ: positive, req: true, dst: to(func(i *Init) *float64 { return &i.A }), doc: "the bound"}}},
	{word: "pytorch", doc: "uniform between ±1/√fan_in, as nn.Linear and nn.Conv2d do for weight and bias", make: newInit(Init{Kind: "pytorch"})},
}}

func newInit(i Init) func(initDefaults) any {
	return func(initDefaults) any { c := i; return &c }
}

// initDefaults are the initializers of matrices and their biases where the
// layer gives none.
type initDefaults struct{ weight, bias Init }

// repeatGroup and blockGroup are the combinators that expand vanishes.
type repeatGroup struct {
	Base
	times int
	index string
	body  *yaml.Node
}

type blockGroup struct {
	Base
	body *yaml.Node
}

// nameKey is the key all layers share.
func nameKey(doc string) *field {
	return &field{key: "name", typ: dottedName, doc: doc, def: "its index in the list",
		dst: func(obj any) any { return &obj.(interface{ Common() *Base }).Common().Name }}
}

// residualName differs: unnamed, a residual leaves no trace in names.
var residualName = &field{key: "name", typ: dottedName, doc: "prefix of the names inside", def: "none",
	dst: to(func(l *Residual) *string { return &l.Name })}

func plainName() *field { return nameKey("name, in reports only") }

func initKey[T any](key string, typ valueType, at func(*T) *Init, doc, def string) *field {
	return &field{key: key, typ: typ, dst: to(at), doc: doc, def: def}
}

const fromTop = "`init` at the top, else `pytorch`"

var layerUnion = &union{name: "a layer", rows: []*variant{
	{
		word: "patch_embed", doc: "cuts the image into patches and maps each to a token",
		make: func(d initDefaults) any { return &PatchEmbed{Bias: true, Weight: d.weight, BiasInit: d.bias} },
		fields: []*field{
			nameKey("prefix of the parameters"),
			{key: "patch", typ: dim, req: true, dst: to(func(l *PatchEmbed) *int { return &l.Patch }), doc: "height and width of a patch; must divide the image"},
			{key: "out", typ: dim, req: true, dst: to(func(l *PatchEmbed) *int { return &l.Out }), doc: "channels of a token"},
			{key: "bias", typ: flag, dst: to(func(l *PatchEmbed) *bool { return &l.Bias }), doc: "add a bias"},
			initKey("init", anyInit, func(l *PatchEmbed) *Init { return &l.Weight }, "of the weight", fromTop),
			{key: "bias_init", typ: anyInit, dst: to(func(l *PatchEmbed) *Init { return &l.BiasInit }), doc: "of the bias", def: fromTop,
				when: when(func(l *PatchEmbed) bool { return l.Bias }), only: "bias: true"},
		},
	}, {
		word: "cls_token", doc: "puts one learned token in front",
		make: func(initDefaults) any { return &ClsToken{Init: Init{Kind: "zeros"}} },
		fields: []*field{
			nameKey("name of the parameter"),
			{key: "init", typ: plainInit, dst: to(func(l *ClsToken) *Init { return &l.Init }), doc: "of the token"},
		},
	}, {
		word: "pos_embed", doc: "adds a position table to the tokens",
		make: func(initDefaults) any {
			return &PosEmbed{Type: "learned", Init: Init{Kind: "trunc_normal", A: 0.02, B: 2}}
		},
		fields: []*field{
			nameKey("name of the parameter"),
			{key: "type", typ: enumType{"learned", "sincos"}, dst: to(func(l *PosEmbed) *string { return &l.Type }), doc: "a parameter, or the fixed table of sines and cosines"},
			{key: "max_len", typ: dim, dst: to(func(l *PosEmbed) *int { return &l.MaxLen }), doc: "rows of the table, of which the first T are used", def: "T, the number of tokens",
				when: when((*PosEmbed).learned), only: "type: learned"},
			{key: "init", typ: plainInit, dst: to(func(l *PosEmbed) *Init { return &l.Init }), doc: "of the table",
				when: when((*PosEmbed).learned), only: "type: learned"},
		},
	}, {
		word: "dropout", doc: "zeroes elements at random in training", short: "p",
		make: func(initDefaults) any { return &Dropout{} },
		fields: []*field{
			plainName(),
			{key: "p", typ: fraction, req: true, dst: to(func(l *Dropout) *float64 { return &l.P }), doc: "probability of a zero"},
		},
	}, {
		word: "drop_path", doc: "zeroes whole samples at random in training", short: "p",
		make: func(initDefaults) any { return &DropPath{} },
		fields: []*field{
			plainName(),
			{key: "p", typ: fraction, req: true, dst: to(func(l *DropPath) *float64 { return &l.P }), doc: "probability of a zero"},
		},
	}, {
		word: "layernorm", doc: "standardizes, then scales and shifts",
		make: func(initDefaults) any {
			return &LayerNorm{Eps: 1e-5, Over: "channels", Weight: Init{Kind: "ones"}, BiasInit: Init{Kind: "zeros"}}
		},
		fields: []*field{
			nameKey("prefix of the parameters"),
			{key: "eps", typ: floatType{lo: 0, noLo: true, hi: 1, text: "above 0 and at most 1"}, dst: to(func(l *LayerNorm) *float64 { return &l.Eps }), doc: "added to the variance"},
			{key: "over", typ: enumType{"channels", "tokens_channels"}, dst: to(func(l *LayerNorm) *string { return &l.Over }), doc: "the last dimension, or both together; the parameters have that shape"},
			{key: "init", typ: plainInit, dst: to(func(l *LayerNorm) *Init { return &l.Weight }), doc: "of the scale"},
			{key: "bias_init", typ: plainInit, dst: to(func(l *LayerNorm) *Init { return &l.BiasInit }), doc: "of the shift"},
		},
	},
	attentionRow,
	{
		word: "linear", doc: "a matrix product over the last dimension",
		make: func(d initDefaults) any { return &Linear{Bias: true, Weight: d.weight, BiasInit: d.bias} },
		fields: []*field{
			nameKey("prefix of the parameters"),
			{key: "out", typ: dim, req: true, dst: to(func(l *Linear) *int { return &l.Out }), doc: "size of the new last dimension"},
			{key: "bias", typ: flag, dst: to(func(l *Linear) *bool { return &l.Bias }), doc: "add a bias"},
			initKey("init", anyInit, func(l *Linear) *Init { return &l.Weight }, "of the weight", fromTop),
			{key: "bias_init", typ: anyInit, dst: to(func(l *Linear) *Init { return &l.BiasInit }), doc: "of the bias", def: fromTop,
				when: when(func(l *Linear) bool { return l.Bias }), only: "bias: true"},
		},
	}, {
		word: "gelu", doc: "Gaussian error linear unit", short: "approx",
		make: func(initDefaults) any { return &GELU{Approx: "none"} },
		fields: []*field{
			plainName(),
			{key: "approx", typ: enumType{"none", "tanh"}, dst: to(func(l *GELU) *string { return &l.Approx }), doc: "exact, by the error function, or by tanh"},
		},
	},
	{word: "relu", doc: "rectified linear unit", make: func(initDefaults) any { return &ReLU{} }, fields: []*field{plainName()}},
	{word: "silu", doc: "sigmoid linear unit, also called swish", make: func(initDefaults) any { return &SiLU{} }, fields: []*field{plainName()}},
	{
		word: "layer_scale", doc: "multiplies each channel by a learned factor", short: "init",
		make: func(initDefaults) any { return &LayerScale{Init: 1e-5} },
		fields: []*field{
			nameKey("prefix of the parameter"),
			{key: "init", typ: anyNumber, dst: to(func(l *LayerScale) *float64 { return &l.Init }), doc: "first value of the factors"},
		},
	}, {
		word: "residual", doc: "adds its input to the result of its layers", short: "layers",
		make: func(initDefaults) any { return &Residual{} },
		fields: []*field{
			residualName,
			{key: "layers", typ: layersType{}, req: true, dst: to(func(l *Residual) **yaml.Node { return &l.body }), doc: "what to add; must keep the shape"},
		},
	}, {
		word: "block", doc: "groups layers under one name",
		make: func(initDefaults) any { return &blockGroup{} },
		fields: []*field{
			nameKey("prefix of the names inside"),
			{key: "layers", typ: layersType{}, req: true, dst: to(func(l *blockGroup) **yaml.Node { return &l.body }), doc: "the layers, in order"},
		},
	}, {
		word: "repeat", doc: "writes its layers several times, each with parameters of its own",
		make: func(initDefaults) any { return &repeatGroup{index: "i"} },
		fields: []*field{
			nameKey("prefix of the names inside, before the number of the copy"),
			{key: "times", typ: intType{1, maxRepeat}, req: true, dst: to(func(l *repeatGroup) *int { return &l.times }), doc: "how many copies"},
			{key: "index", typ: textType{pattern: constantName, want: "a name of letters, digits and _", doc: "name"}, dst: to(func(l *repeatGroup) *string { return &l.index }), doc: "name of the loop variable, 0 in the first copy"},
			{key: "layers", typ: layersType{}, req: true, dst: to(func(l *repeatGroup) **yaml.Node { return &l.body }), doc: "the layers of one copy"},
		},
	}, {
		word: "select", doc: "takes one token", short: "token",
		make: func(initDefaults) any { return &Select{} },
		fields: []*field{
			plainName(),
			{key: "token", typ: intType{-math.MaxInt32, math.MaxInt32}, req: true, dst: to(func(l *Select) *int { return &l.Token }), doc: "its number from 0, or from the end: -1 is the last"},
		},
	}, {
		word: "mean_pool", doc: "takes the mean over the tokens",
		make: func(initDefaults) any { return &MeanPool{} },
		fields: []*field{
			plainName(),
			{key: "skip", typ: intType{0, maxDim}, dst: to(func(l *MeanPool) *int { return &l.Skip }), doc: "tokens at the front to leave out, such as the cls token"},
		},
	},
	{word: "transpose", doc: "swaps tokens and channels", make: func(initDefaults) any { return &Transpose{} }, fields: []*field{plainName()}},
	{word: "flatten", doc: "joins all dimensions into one", make: func(initDefaults) any { return &Flatten{} }, fields: []*field{plainName()}},
}}

var attentionRow = &variant{
	word: "attention", doc: "multi-head self-attention",
	make: func(d initDefaults) any {
		return &Attention{QKVBias: true, OutBias: true, QKV: "separate", Weight: d.weight, BiasInit: d.bias}
	},
	fields: []*field{
		nameKey("prefix of the parameters"),
		{key: "heads", typ: intType{1, 1 << 16}, req: true, dst: to(func(l *Attention) *int { return &l.Heads }), doc: "number of heads; must divide the channels"},
		{key: "bias", typ: flag, alias: true, dst: to(func(l *Attention) []*bool { return []*bool{&l.QKVBias, &l.OutBias} }), doc: "sets `qkv_bias` and `out_bias`", def: "`true`"},
		{key: "qkv_bias", typ: flag, dst: to(func(l *Attention) *bool { return &l.QKVBias }), doc: "biases of the query, key and value projections"},
		{key: "out_bias", typ: flag, dst: to(func(l *Attention) *bool { return &l.OutBias }), doc: "bias of the output projection"},
		{key: "dropout", typ: fraction, dst: to(func(l *Attention) *float64 { return &l.Dropout }), doc: "dropout of the softmax weights"},
		{key: "causal", typ: flag, dst: to(func(l *Attention) *bool { return &l.Causal }), doc: "token t sees tokens 0…t only"},
		{key: "qkv", typ: enumType{"separate", "fused"}, dst: to(func(l *Attention) *string { return &l.QKV }), doc: "three parameter matrices, or one with their rows one after the other"},
		{key: "names", typ: groupType{rows: attentionNames}, dst: to(func(l *Attention) *AttentionNames { return &l.Names }), doc: "names of the projections"},
		initKey("init", anyInit, func(l *Attention) *Init { return &l.Weight }, "of the weights", fromTop),
		{key: "bias_init", typ: anyInit, dst: to(func(l *Attention) *Init { return &l.BiasInit }), doc: "of the biases", def: fromTop,
			when: when(func(l *Attention) bool { return l.QKVBias || l.OutBias }), only: "a bias"},
	},
	finish: func(d *decoder, obj any, _ span) bool { return obj.(*Attention).finishNames(d) },
}

var attentionNames = []*field{
	nameOf("q", "query projection, with `qkv: separate`", "`W_q`", func(n *AttentionNames) *string { return &n.Q }),
	nameOf("k", "key projection, with `qkv: separate`", "`W_k`", func(n *AttentionNames) *string { return &n.K }),
	nameOf("v", "value projection, with `qkv: separate`", "`W_v`", func(n *AttentionNames) *string { return &n.V }),
	nameOf("qkv", "the joint projection, with `qkv: fused`", "`qkv`", func(n *AttentionNames) *string { return &n.QKV }),
	nameOf("o", "output projection", "`W_o`, or `proj` with `qkv: fused`", func(n *AttentionNames) *string { return &n.O }),
}

// nameOf is the key for one projection's name, empty where the other form of
// parameters leaves it without meaning.
func nameOf(key, doc, def string, at func(*AttentionNames) *string) *field {
	return &field{key: key, typ: dottedName, dst: to(at), doc: doc, def: def,
		unset: when(func(n *AttentionNames) bool { return *at(n) == "" })}
}

// finishNames fills in the names not given and refuses those without meaning.
func (l *Attention) finishNames(d *decoder) bool {
	n := &l.Names
	used := map[string]string{"q": "W_q", "k": "W_k", "v": "W_v", "o": "W_o"}
	if l.QKV == "fused" {
		used = map[string]string{"qkv": "qkv", "o": "proj"}
	}
	ok := true
	for _, f := range attentionNames {
		name := f.dst(n).(*string)
		def, means := used[f.key]
		switch {
		case means && *name == "":
			*name = def
		case !means && *name != "":
			d.add(n.at[f.key], "leave it out", fmt.Sprintf("names has no %s with qkv: %s", f.key, l.QKV))
			ok = false
		}
	}
	return ok
}

func (l *PosEmbed) learned() bool { return l.Type == "learned" }
