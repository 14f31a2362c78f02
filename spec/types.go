// Package spec reads a vitgen model specification: YAML text in, a checked
// [Spec] or a list of positioned [Diagnostics] out. It knows the language —
// layers, their keys, shapes, parameter names — and nothing of how a model is
// computed: it is neither a graph builder nor a code generator.
package spec

import (
	"fmt"
	"strings"
)

// Pos is a place in the spec file: line and column, both from 1, the column in
// characters. The zero Pos means "nowhere".
type Pos struct{ Line, Col int }

// String gives "line:col".
func (p Pos) String() string { return fmt.Sprintf("%d:%d", p.Line, p.Col) }

// Spec is a whole checked specification. Every constant is substituted, every
// repeat and block is expanded, every default is filled in: two files that mean
// the same model give Specs that differ only in positions.
type Spec struct {
	File    string // as given to Parse
	Source  []byte // the text given to Parse
	Version int    // of the language
	Name    string // a Go package name, safe as a directory and file name too
	Input   Input
	Model   []Layer // in order; the only layer that holds layers is *Residual
	Loss    Loss
	Train   Train
	Data    Data
}

// Input is what the model is fed: images of [Channels, Height, Width] and
// labels below Classes.
type Input struct {
	Channels, Height, Width int
	Classes                 int
	Pos                     Pos
	keys
}

// Shape gives the image shape of one sample.
func (in Input) Shape() Shape {
	return Shape{Kind: Image, Dims: []int{in.Channels, in.Height, in.Width}}
}

// Loss is the training criterion. CrossEntropy is the only kind so far: the
// mean over the batch of -Σ_c q_c log softmax(logits)_c, where q is the one-hot
// label mixed with the uniform distribution, (1-s)·onehot + s/classes.
type Loss struct {
	Kind           string  // "cross_entropy"
	LabelSmoothing float64 // s in [0, 1)
	Pos            Pos
	keys
}

// Train says how the model is trained.
type Train struct {
	Batch      int    // samples per micro-batch
	Epochs     int    // passes over the training set
	Accumulate int    // micro-batches per update; 1 = no accumulation
	Precision  string // "fp32", "tf32" or "bf16"
	Metrics    string // "exact": mean over samples; "d2l": unweighted mean of batch means
	Optimizer  Optimizer
	Schedule   Schedule
	ClipNorm   float64 // largest global gradient norm; 0 = off
	Seed       uint64

	EMA          EMA
	EarlyStop    EarlyStop
	Best         string // "accuracy" or "loss": the validation metric that decides which weights are best
	SkipOutliers SkipOutliers

	Pos Pos
	keys
}

// EMA is the exponential moving average of the parameters, taken after every
// update k = 1, 2, …: average ← d·average + (1-d)·parameter, with d = Decay, or
// min(Decay, (1+k)/(10+k)) with Warmup. It starts as a copy of the parameters.
type EMA struct {
	Decay  float64 // 0 = none is kept
	Warmup bool
	keys
}

// EarlyStop ends training once Patience validations in a row were none of them
// better than the best by more than MinDelta, in the metric Train.Best.
type EarlyStop struct {
	Patience int // 0 = off
	MinDelta float64
	keys
}

// SkipOutliers leaves out the update of a step whose loss is more than Z
// standard deviations above the mean of the last Window losses.
type SkipOutliers struct {
	Z      float64 // 0 = off
	Window int
	keys
}

// Optimizer is one of PyTorch's update rules, with its parameter names.
type Optimizer struct {
	Kind         string // "sgd" or "adamw"
	LR           float64
	Momentum     float64 // sgd
	Nesterov     bool    // sgd
	Beta1, Beta2 float64 // adamw
	Eps          float64 // adamw
	WeightDecay  float64 // sgd: added to the gradient; adamw: decoupled
	// DecayAll: weight decay acts on every parameter, as in PyTorch when it is
	// given model.parameters(). Otherwise only on those with Param.Decays.
	DecayAll bool
	Pos      Pos
	keys
}

// Schedule gives the learning rate of update k = 1, 2, … With W = WarmupSteps:
// lr·k/W for k ≤ W, and after that by Kind
//
//	constant, linear_warmup: lr
//	cosine: FinalLR + (lr-FinalLR)·½(1+cos πt), t = (k-1-W)/(S-W) cut to [0, 1]
//	step:   lr·Gamma^floor((k-1-W)/E)
//
// where S is TotalSteps, or all updates of the run when that is 0, and E is
// Every counted in updates, or in epochs' worth of updates by EveryUnit.
type Schedule struct {
	Kind        string // "constant", "cosine", "step" or "linear_warmup"
	WarmupSteps int
	FinalLR     float64 // cosine
	TotalSteps  int     // cosine; 0 = epochs × updates per epoch
	Every       int     // step
	EveryUnit   string  // step: "steps" or "epochs"
	Gamma       float64 // step
	Pos         Pos
	keys
}

// Data names the data set and how its images become the model's input: uint8
// pixels resized, divided by their largest value to [0, 1], then per channel
// (x-Mean)/Std.
type Data struct {
	// Name is "digits", "mnist", "fashion_mnist", "cifar10", "image_folder" or
	// "synthetic".
	Name    string
	Resize  [2]int  // height, width; 0, 0 = as they are. image_folder: the input's
	Fit     string  // image_folder: "crop" (scaled to cover Resize, the middle cut out) or "stretch"
	ValPart float64 // image_folder without folders train and val: the share that validates
	// Mean and Std have one entry per channel, or are empty: no normalization.
	Mean, Std  []float64
	Augment    Augment
	Train, Val int // synthetic: how many samples of each
	Pos        Pos
	keys
}

// Augment says how training images are varied, in this order. Zero values are
// off.
type Augment struct {
	ResizedCrop ResizedCrop // in place of Resize
	Padding     int         // random crop of the input's size from the image with so many zero pixels around it
	Flip        float64     // probability of a horizontal flip
	Mixup       float64     // α: images and labels of two samples are mixed λ : 1-λ, λ ~ Beta(α, α)
	CutMix      float64     // α: a box of 1-λ of the area is from another sample, λ ~ Beta(α, α)
	keys
}

// On reports whether anything is varied.
func (a *Augment) On() bool {
	return a.ResizedCrop.Scale[1] > 0 || a.Padding > 0 || a.Flip > 0 || a.Mixes()
}

// Mixes reports whether training samples have two labels.
func (a *Augment) Mixes() bool { return a.Mixup > 0 || a.CutMix > 0 }

// ResizedCrop is torchvision's RandomResizedCrop: a random part of the image,
// of Scale of its area and a ratio of width to height in Ratio, resized to the
// input's size.
type ResizedCrop struct {
	Scale, Ratio [2]float64 // least, most; Scale 0, 0 = off
	keys
}

// ShapeKind tells the three forms of a per-sample value apart.
type ShapeKind int

// The forms a value can have between two layers.
const (
	Unknown ShapeKind = iota // only inside Parse, after an error
	Image                    // Dims = [channels, height, width]
	Tokens                   // Dims = [tokens, channels], or swapped after transpose
	Vector                   // Dims = [channels]
)

var shapeKindNames = [...]string{"unknown", "image", "tokens", "vector"}

// String gives the word used in messages.
func (k ShapeKind) String() string { return shapeKindNames[k] }

// Shape is the shape of one sample: the batch dimension is left out.
type Shape struct {
	Kind ShapeKind
	Dims []int
}

// String gives, for instance, "tokens [37, 512]".
func (s Shape) String() string {
	parts := make([]string, len(s.Dims))
	for i, d := range s.Dims {
		parts[i] = fmt.Sprint(d)
	}
	return s.Kind.String() + " [" + strings.Join(parts, ", ") + "]"
}

// Equal reports whether both have the same form and sizes.
func (s Shape) Equal(t Shape) bool {
	if s.Kind != t.Kind || len(s.Dims) != len(t.Dims) {
		return false
	}
	for i, d := range s.Dims {
		if d != t.Dims[i] {
			return false
		}
	}
	return true
}

// Elems is the number of elements of one sample.
func (s Shape) Elems() int {
	n := 1
	for _, d := range s.Dims {
		n *= d
	}
	return n
}

// Last is the size of the innermost dimension: what linear and layernorm act on.
func (s Shape) Last() int { return s.Dims[len(s.Dims)-1] }

// Init says how a parameter gets its first values.
type Init struct {
	// Kind is "zeros", "ones", "constant", "normal", "trunc_normal", "uniform"
	// or "pytorch".
	Kind string
	// A is the value (constant), the standard deviation (normal, trunc_normal;
	// the mean is 0) or the bound (uniform: between -A and A).
	A float64
	// B is the cut of trunc_normal: values are drawn from the normal
	// distribution conditioned on [-B, B], absolute values as in PyTorch's
	// trunc_normal_, not multiples of A.
	B float64
	// FanIn is the number of inputs of one output, for "pytorch": uniform
	// between ±1/√FanIn, the default of nn.Linear and nn.Conv2d for weight and
	// bias. Set by Params; 0 elsewhere.
	FanIn int
}

// Role is what a parameter is for.
type Role int

// The roles of parameters.
const (
	RoleWeight   Role = iota // matrix of linear, patch_embed, attention
	RoleBias                 // their bias
	RoleNorm                 // layernorm weight and bias
	RoleScale                // layer_scale gamma
	RoleToken                // cls_token
	RolePosition             // pos_embed
)

var roleNames = [...]string{"weight", "bias", "norm", "scale", "token", "position"}

// String gives the lower-case word.
func (r Role) String() string { return roleNames[r] }

// Param declares one trained tensor.
type Param struct {
	Name  string // as in PyTorch's state_dict
	Shape []int
	Init  Init
	Role  Role
	Pos   Pos // of the layer
}

// Elems is the number of elements.
func (p Param) Elems() int { return Shape{Dims: p.Shape}.Elems() }

// Decays reports whether "decay: weights" decays it: weight matrices only; no
// biases, norms, layer scales, tokens or position tables.
func (p Param) Decays() bool { return p.Role == RoleWeight }

// Params lists every parameter of the model, in the order of the layers. Names
// are unique.
func (s *Spec) Params() []Param {
	var all []Param
	WalkLayers(s.Model, func(l Layer) { all = append(all, Params(l)...) })
	return all
}

// keys remembers where each key of a YAML mapping and its value stood.
type keys struct{ at map[string]span }

// At is the position of the value given for key, or the zero Pos where the
// default was taken.
func (k keys) At(key string) Pos { return k.at[key].Pos }

// has reports whether the file gives the key.
func (k keys) has(key string) bool { _, ok := k.at[key]; return ok }

func (k *keys) mark(key string, s span) {
	if k.at == nil {
		k.at = map[string]span{}
	}
	k.at[key] = s
}

// span is a piece of one source line: a position and a length in characters.
type span struct {
	Pos
	Len int
}
