package spec

import "gopkg.in/yaml.v3"

// Layer is one step of the model. The concrete types are the pointers to the
// structs of this file; their rows in the layer table give the YAML keys.
type Layer interface {
	// Kind is the YAML word.
	Kind() string
	// Common gives what every layer has.
	Common() *Base

	// shape checks the layer against its input, fills in what depends on it and
	// gives the output shape; Unknown after an error that hides it.
	shape(c *checker, in Shape) Shape
	// params declares the trained tensors, once shapes are known.
	params() []Param
}

// Base is what every layer has.
type Base struct {
	// Name is the full dotted name, the prefix of the layer's parameters:
	// "blks.0.ln1". Layers without a name in the file have their index in the
	// enclosing list, as in nn.Sequential.
	Name string
	// Pos is where the layer's word stands. Copies made by repeat share it.
	Pos Pos
	// In and Out are the shapes of one sample.
	In, Out Shape
	keys
	word span
}

// Common gives the Base itself.
func (b *Base) Common() *Base { return b }

func (b *Base) params() []Param { return nil }

// same is the shape rule of layers that take anything and keep its shape.
func (b *Base) shape(_ *checker, in Shape) Shape { return in }

// PatchEmbed cuts the image into Patch×Patch squares, in row order, and maps
// each linearly to a token: a convolution with kernel = stride = Patch.
// Image [C, H, W] → Tokens [H/Patch·W/Patch, Out].
type PatchEmbed struct {
	Base
	Patch, Out       int
	Bias             bool
	Weight, BiasInit Init
}

// ClsToken puts one learned token in front: Tokens [T, D] → [T+1, D].
type ClsToken struct {
	Base
	Init Init
}

// PosEmbed adds a table to the tokens: row t to token t.
type PosEmbed struct {
	Base
	Type   string // "learned", or "sincos" (no parameter)
	MaxLen int    // rows of the learned table; the first T are used
	Init   Init
}

// Dropout zeroes each element with probability P in training and scales the
// others by 1/(1-P).
type Dropout struct {
	Base
	P float64
}

// DropPath zeroes a whole sample with probability P in training and scales the
// others by 1/(1-P): stochastic depth.
type DropPath struct {
	Base
	P float64
}

// LayerNorm standardizes over the last dimension, or over tokens and channels
// together, then scales and shifts by parameters of that shape.
type LayerNorm struct {
	Base
	Eps              float64
	Over             string // "channels" or "tokens_channels"
	Weight, BiasInit Init
}

// Attention is multi-head self-attention, Tokens [T, D] → [T, D]:
// softmax(QKᵀ/√(D/Heads)), dropout on these weights, ·V, heads joined, W_o.
type Attention struct {
	Base
	Heads            int
	QKVBias, OutBias bool
	Dropout          float64 // of the softmax weights
	Causal           bool    // token t sees tokens 0…t only
	QKV              string  // "separate" or "fused" parameters
	Names            AttentionNames
	Weight, BiasInit Init
}

// AttentionNames are the names of the projections below the layer's own.
type AttentionNames struct {
	Q, K, V string // separate
	QKV     string // fused: rows 0…D-1 make Q, the next D make K, then V
	O       string
	keys
}

// Linear is x·Wᵀ + b over the last dimension of Tokens or Vector.
type Linear struct {
	Base
	Out              int
	Bias             bool
	Weight, BiasInit Init
}

// GELU is x·Φ(x), exactly by erf (Approx "none") or by the tanh formula.
type GELU struct {
	Base
	Approx string // "none" or "tanh"
}

// ReLU is max(x, 0).
type ReLU struct{ Base }

// SiLU is x·σ(x).
type SiLU struct{ Base }

// LayerScale multiplies each channel by a learned factor.
type LayerScale struct {
	Base
	Init float64 // first value of every factor
}

// Residual adds its input to what its body makes of it.
type Residual struct {
	Base
	Body []Layer
	body *yaml.Node // until expanded
}

// Select takes one token: Tokens [T, D] → Vector [D].
type Select struct {
	Base
	Token int // 0…T-1; a negative number in the file has been resolved
}

// MeanPool is the mean over the tokens from number Skip on:
// Tokens [T, D] → Vector [D].
type MeanPool struct {
	Base
	Skip int
}

// Transpose swaps tokens and channels: Tokens [T, C] → [C, T].
type Transpose struct{ Base }

// Flatten joins all dimensions, last fastest: Image or Tokens → Vector.
type Flatten struct{ Base }

// The YAML words.
func (*PatchEmbed) Kind() string { return "patch_embed" }
func (*ClsToken) Kind() string   { return "cls_token" }
func (*PosEmbed) Kind() string   { return "pos_embed" }
func (*Dropout) Kind() string    { return "dropout" }
func (*DropPath) Kind() string   { return "drop_path" }
func (*LayerNorm) Kind() string  { return "layernorm" }
func (*Attention) Kind() string  { return "attention" }
func (*Linear) Kind() string     { return "linear" }
func (*GELU) Kind() string       { return "gelu" }
func (*ReLU) Kind() string       { return "relu" }
func (*SiLU) Kind() string       { return "silu" }
func (*LayerScale) Kind() string { return "layer_scale" }
func (*Residual) Kind() string   { return "residual" }
func (*Select) Kind() string     { return "select" }
func (*MeanPool) Kind() string   { return "mean_pool" }
func (*Transpose) Kind() string  { return "transpose" }
func (*Flatten) Kind() string    { return "flatten" }

// WalkLayers calls fn for each layer and, after a residual, for each layer of
// its body: the order in which they are written.
func WalkLayers(layers []Layer, fn func(Layer)) {
	for _, l := range layers {
		fn(l)
		if r, ok := l.(*Residual); ok {
			WalkLayers(r.Body, fn)
		}
	}
}
