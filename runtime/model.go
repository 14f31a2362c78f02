// Package runtime is what a generated trainer imports: the description of a
// compiled model (Model), the recorder its launches are written into, and the
// Session that owns its memory and runs it on a device.
//
// It is not a framework: it has no operators and no graph. Everything that
// depends on the model was decided by the compiler and stands in the Model
// literal and the recorded launches. It never imports the compiler.
package runtime

import (
	"fmt"
)

// Model is a compiled model, written by the generator as one literal.
type Model struct {
	Name      string // package name, from the spec's name:
	SpecFile  string // base name of the spec, for messages: "vit.yaml"
	Spec      string // the spec's canonical form, YAML
	SpecHash  string // hex SHA-256 of Spec
	Generator string // version of vitgen that wrote the package

	// KernelHashes are hex SHA-256 of the kernels' source, by target, of the files
	// one after the other: for cpu kernels_cpu.cc, vg_cpu.h, vg_abi.h of
	// internal/plain; for cuda kernels.cu, vg_cuda.h.
	KernelHashes map[string]string

	Image   [3]int // channels, height, width
	Classes int
	Batch   int // samples of a full micro-batch; kernels are compiled for it

	Params     []Param  // in state_dict order
	ParamElems int      // length of the flat parameter arena, in float32 elements (with padding)
	DecayElems int      // the arena's first DecayElems elements decay, the rest does not
	StateNames []string // optimizer state arenas, each ParamElems long: "momentum_buffer"; "exp_avg", "exp_avg_sq"

	Train Train
	Data  Data

	// Memory needed besides parameters, in bytes.
	ArenaBytes     int64 // activations of the largest program
	WorkspaceBytes int64 // shared scratch of the most demanding launch

	Outputs  Outputs
	Kernels  []Kernel
	Programs [NumPrograms]Program
	// Pack, on the CPU, makes packed weights of the parameters, for Forward and
	// Eval to read. It must run before them when parameters have changed, or when
	// another program has run: they lie in the arena.
	Pack Program

	// FLOPs of a step at full batch if every row were computed, for info and bench.
	StepFLOPsUnpruned int64

	// ConstData fills the Const region; nil when there is none.
	ConstData func() []float32

	// ONNX is the forward graph as an encoded ONNX ModelProto whose graph lacks
	// its weights: initializers called as Params are. See package runtime/onnx.
	ONNX []byte

	CPU  CPUCode
	CUDA *CUDACode // nil: compiled without that target
}

// Param is one trainable tensor.
type Param struct {
	Name   string // PyTorch state_dict name
	Shape  []int
	Offset int // first element in the flat parameter arena
	Init   Init
	Decay  bool   // subject to weight decay
	Pos    string // "vit.yaml:12:5"
}

// Elems is the number of elements of the parameter.
func (p *Param) Elems() int {
	n := 1
	for _, d := range p.Shape {
		n *= d
	}
	return n
}

// Init says how a parameter starts.
//
//	zeros, ones                   constants
//	constant                      A
//	normal                        N(0, A²)
//	trunc_normal                  N(0, A²) redrawn outside [-B, B] (absolute)
//	uniform                       U(-A, A)
//	pytorch                       U(-1/sqrt(FanIn), 1/sqrt(FanIn))
type Init struct {
	Kind  string
	A, B  float64
	FanIn int
}

// Train is the spec's train: section.
type Train struct {
	Epochs     int
	Accumulate int // micro-batches per update
	Precision  string
	Metrics    string // exact, or d2l: unweighted means of batch means
	Optimizer  Optimizer
	Schedule   Schedule
	ClipNorm   float64 // 0: off
	Seed       uint64

	EMA          EMA
	EarlyStop    EarlyStop
	Best         string // accuracy or loss: the validation metric that best.safetensors is best by
	SkipOutliers SkipOutliers
}

// EMA is the exponential moving average of the parameters, taken after every
// update k = 1, 2, …: average ← d·average + (1-d)·parameter, with d = Decay, or
// min(Decay, (1+k)/(10+k)) with Warmup. It starts as a copy of the parameters.
type EMA struct {
	Decay  float64 // 0: none is kept
	Warmup bool
}

// EarlyStop ends training once Patience validations in a row were none of them
// better than the best by more than MinDelta.
type EarlyStop struct {
	Patience int // 0: off
	MinDelta float64
}

// SkipOutliers leaves out the update of a step whose loss is more than Z
// standard deviations above the mean of the last Window losses.
type SkipOutliers struct {
	Z      float64 // 0: off
	Window int
}

// Optimizer holds the hyperparameters of SGD or AdamW as PyTorch defines them.
type Optimizer struct {
	Kind         string // sgd, adamw
	LR           float64
	Momentum     float64
	Nesterov     bool
	Beta1, Beta2 float64
	Eps          float64
	WeightDecay  float64
}

// Schedule gives the learning rate of update k = 1, 2, …
// With W warm-up steps, update k ≤ W uses lr·k/W. After it:
//
//	constant, linear_warmup   lr
//	cosine   t = (k-1-W)/(S-W) clipped to [0,1], S = TotalSteps (0: all epochs);
//	         lr_k = FinalLR + (lr-FinalLR)·½(1+cos πt)
//	step     lr·Gamma^⌊(k-1-W)/Every⌋, Every counted in EveryUnit ("steps" or "epochs")
type Schedule struct {
	Kind        string
	WarmupSteps int
	TotalSteps  int
	FinalLR     float64
	Every       int
	EveryUnit   string
	Gamma       float64
}

// Data is the spec's data: section.
type Data struct {
	Name      string
	Resize    [2]int  // height, width; 0,0: as stored (image_folder: the model's)
	Fit       string  // image_folder: crop (scale to cover, cut out the middle) or stretch
	ValPart   float64 // image_folder without train and val folders: share that validates
	Mean, Std []float64
	Train     int // synthetic: samples to make
	Val       int
	Augment   Augment
}

// Augment says how training images are varied. Zero values are off.
type Augment struct {
	ResizedCrop ResizedCrop // in place of Resize
	Padding     int         // random crop of the image with so many zero pixels around it
	Flip        float64     // probability of a horizontal flip
	Mixup       float64     // α: images and labels of two samples are mixed λ : 1-λ, λ ~ Beta(α, α)
	CutMix      float64     // α: a box of 1-λ of the area is from another sample
}

// Mixes reports whether training samples have two labels.
func (a *Augment) Mixes() bool { return a.Mixup > 0 || a.CutMix > 0 }

// ResizedCrop is torchvision's RandomResizedCrop: a random part of the image,
// of Scale of its area and a ratio of width to height in Ratio, resized.
type ResizedCrop struct {
	Scale, Ratio [2]float64 // least, most; Scale 0, 0: off
}

// ProgramID names a recorded program.
type ProgramID int

const (
	Forward ProgramID = iota // image → logits; dropout absent
	Eval                     // image, label → logits, loss, correct; dropout absent
	Grad                     // image, label (label2, mix) → loss, correct, gradients
	Update                   // gradients → parameters, optimizer state and average
	NumPrograms
)

func (id ProgramID) String() string {
	return [...]string{"forward", "eval", "grad", "update"}[id]
}

// Program is a list of launches, in order.
type Program []Launch

// Launch runs one kernel.
type Launch struct {
	Kernel int // index into Model.Kernels
	Args   []Ref
	Layer  string // "blks.0.mlp.dense1"
	Pos    string // "vit.yaml:21:15"
}

// Region is one of the memories a kernel may point into.
type Region uint8

const (
	Params  Region = iota // flat float32 parameter arena
	Grads                 // flat gradient arena, laid out as Params
	State0                // first optimizer state arena
	State1                // second optimizer state arena
	Average               // moving average of Params (Train.EMA), laid out as they are
	Arena                 // activations, planned per program
	Image                 // float32 [Batch, C, H, W], normalized
	Label                 // int32 [Batch]; -1 = no sample
	Label2                // int32 [Batch]: the other label of a sample that two are mixed in (Augment.Mixes)
	Mix                   // float32 [Batch]: the weight of Label, that of Label2 being one less it
	Const                 // read-only tables the compiler computed (sin-cos positions)
	Half                  // bf16 copy of Params for devices that multiply in it: the same elements, two bytes each
	Imm                   // not a memory: Offset itself is the argument, an integer
	NumRegions
)

// Ref points into a region, Offset in bytes.
type Ref struct {
	Region Region
	Offset int64
}

// Outputs says where programs leave what the host reads, for Eval and Grad
// in the same place: a fixed block at the start of the arena.
type Outputs struct {
	Logits  Ref // float32 [Batch, Classes] (Forward, Eval, Grad)
	Loss    Ref // float32 [Batch], per sample (Eval, Grad)
	Correct Ref // float32 [Batch], 1 where the arg max is the label (Eval, Grad)
}

// Kernel describes one generated kernel for info, bench and error messages.
type Kernel struct {
	Name   string // "k07_gemm_nt"
	Family string // gemm, attention, row, pointwise, reduce
	Layer  string // "blks.0.mlp.dense1"
	Pos    string // "vit.yaml:21:15"
	Doc    string // "linear + bias + gelu + dropout  [4736×512]·[2048×512]ᵀ"
	FLOPs  int64  // at full batch
	Bytes  int64  // least traffic: each operand once, at full batch
	Outs   []Span // what it writes, for FindNaN; may be incomplete

	// FixedBytes are those of Bytes that do not grow with the batch: weights, and
	// their gradients.
	FixedBytes int64
}

// Work is what a launch computes and moves on n samples, with batch the full batch.
func (k *Kernel) Work(n, batch int) (flops, bytes int64) {
	part := func(full int64) int64 { return full * int64(n) / int64(batch) }
	return part(k.FLOPs), k.FixedBytes + part(k.Bytes-k.FixedBytes)
}

// Span is part of a launch's memory that holds numbers: Rows rows of Elems
// elements, Stride elements from the start of one to the next.
type Span struct {
	Arg       int  // index into Launch.Args
	Elems     int  // of a row
	Rows      int  // 0: 1
	Stride    int  // 0: Elems
	PerSample bool // so many rows for each sample of the batch
	Half      bool // bf16; else float32
}

// Recorder collects the launches of a program while generated code lists them.
type Recorder struct {
	Launches   []Launch
	pos, layer string
}

// From names the spec line and the layer of the launches that follow.
func (r *Recorder) From(pos, layer string) { r.pos, r.layer = pos, layer }

// Launch appends one launch.
func (r *Recorder) Launch(kernel int, args ...Ref) {
	r.Launches = append(r.Launches, Launch{Kernel: kernel, Args: args, Layer: r.layer, Pos: r.pos})
}

// At returns the Ref at a byte offset of the region.
func (r Region) At(offset int64) Ref { return Ref{Region: r, Offset: offset} }

// ParamRef is the address of a parameter in a region that is laid out by
// parameter, bytes further if given. It panics if there is no such parameter:
// only generated code calls it.
func ParamRef(params []Param, r Region, name string, bytes ...int64) Ref {
	for i := range params {
		if params[i].Name == name {
			at := int64(params[i].Offset) * r.elemBytes()
			for _, b := range bytes {
				at += b
			}
			return r.At(at)
		}
	}
	panic("BUG: no parameter " + name)
}

// elemBytes is the size of an element of a region laid out by parameter.
func (r Region) elemBytes() int64 {
	if r == Half {
		return 2
	}
	return 4
}

// ParamCount is the number of trained numbers; ParamElems counts padding too.
func (m *Model) ParamCount() int {
	n := 0
	for i := range m.Params {
		n += m.Params[i].Elems()
	}
	return n
}

// Param looks a parameter up by name.
func (m *Model) Param(name string) (*Param, error) {
	for i := range m.Params {
		if m.Params[i].Name == name {
			return &m.Params[i], nil
		}
	}
	return nil, fmt.Errorf("model %s has no parameter %q", m.Name, name)
}
