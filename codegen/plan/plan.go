// Package plan decides what the emitted code will be: it lays out the
// parameter arena, turns every group of a planned graph into a kernel (a loop
// structure from one family, and functors for the pointwise work around it)
// and lists the launches of each program with their arguments.
//
// A plan is independent of the target: the printers (codegen/cxx, codegen/cpu)
// print it and decide nothing. Equal kernels are emitted once; what differs
// between two layers (addresses, dropout sites) is an argument.
package plan

import (
	"slices"

	"github.com/vitgen/vitgen/ir"
)

// Plan is everything the printers need.
type Plan struct {
	Name, File string
	Batch      int
	Image      [3]int // channels, height, width
	Math       string // of products on a CUDA device; empty: a plan for the CPU
	Layout     Layout
	Kernels    []*Kernel
	Programs   []*Program
	Pack       *Program       // packs the weights that inference reads; nil: not needed
	Outputs    map[string]Ref // logits, loss, correct
	Const      []float32      // tables read through the Const region

	ArenaBytes     int64
	WorkspaceBytes int64

	Device *Device // the launches as a CUDA device runs them; nil on the CPU
}

// All are the programs of the model and, if there is one, the pack program.
func (p *Plan) All() []*Program {
	if p.Pack == nil {
		return p.Programs
	}
	return append(slices.Clone(p.Programs), p.Pack)
}

// Program is a list of launches in order.
type Program struct {
	Name     string // "forward"
	Launches []Launch
}

// Launch is one use of a kernel.
type Launch struct {
	Kernel *Kernel
	Args   []Ref
	Layer  string
	Pos    ir.Pos
	Joined bool // shares a device launch with the one before it
}

// Region names a memory as runtime.Region does.
type Region string

const (
	Params Region = "Params"
	Grads  Region = "Grads"
	State0 Region = "State0"
	State1 Region = "State1"

	Average Region = "Average" // of the parameters, laid out as Params
	Half    Region = "Half"    // the parameters as bf16, laid out as Params

	Arena  Region = "Arena"
	Image  Region = "Image"
	Label  Region = "Label"
	Label2 Region = "Label2"
	Mix    Region = "Mix"
	Const  Region = "Const"
	Imm    Region = "Imm"
)

// Ref is an address: bytes into a region; or an integer, for Imm.
type Ref struct {
	Region Region
	Offset int64
}

// ArgType is the C type of a kernel argument.
type ArgType uint8

const (
	In    ArgType = iota // const float*
	Out                  // float*
	InOut                // float*, read and written
	InI32                // const int32_t*
	Int                  // an integer passed by value
)

// Arg declares a kernel argument; its index is its place in Kernel.Args.
type Arg struct {
	Name    string
	Type    ArgType
	Narrow  bool // points at bf16 instead of float
	Aliased bool // may point at what an Out argument points at too
	Span    Span // of an Out argument: what the kernel writes there
}

// Span is a matrix in memory: Rows rows of Cols elements, LD apart; so many
// rows for each sample if PerSample.
type Span struct {
	Rows, Cols int
	LD         int64
	PerSample  bool
}

// Kernel is one emitted function.
type Kernel struct {
	Index    int
	Name     string // "k07_gemm_nt"
	Family   ir.Family
	Args     []Arg
	Body     Body
	Functors []*Functor
	Part     *Part // how a CUDA device runs it; nil on the CPU
	Uses     []Use // the layers it serves, in launch order
	Doc      string
	FLOPs    int64 // per launch at full batch
	Bytes    Traffic
}

// Traffic is the least that a launch moves, in bytes: every operand and every
// result once.
type Traffic struct {
	Total int64 // at full batch
	Fixed int64 // of that, what does not grow with the batch: weights, their gradients
}

// Use is a layer a kernel serves.
type Use struct {
	Layer string
	Pos   ir.Pos
}

// Body is a kernel's loop structure: *Gemm, *HeadProduct, *Attention,
// *AttentionGrad, *LatentAttention, *LatentAttentionGrad, *LayerNorm,
// *LayerNormGrad, *CrossEntropy, *Pointwise, *Patchify,
// *Transpose, *SumTokens, *ColumnSum, *SumSquares, *ClipScale,
// *Optimizer, *Pack.
type Body interface{ body() }

// Space is the iteration space of functors: rows of Cols elements, T of them
// in a sample. Rows counts them all where there is no batch.
type Space struct {
	Batched bool
	T       int // rows per sample; 1 without batch
	Rows    int // without batch: how many; else T·batch
	Cols    int
}

// SpaceOf is the space of a type's elements in row-major order.
func SpaceOf(t ir.Type) Space {
	if t.Batched {
		return Space{Batched: true, T: t.Rows(), Rows: t.Rows() * t.Shape[0], Cols: t.Last()}
	}
	return Space{T: 1, Rows: t.Rows(), Cols: t.Last()}
}

// Operand is a matrix in memory, or a functor that yields one.
type Operand struct {
	Functor *Functor // nil: plain memory
	Arg     int
	LD      int64 // elements between rows
}

// Gemm is a matrix product. Kind nt: C[M,N] = A[M,K]·B[N,K]ᵀ; nn: B[K,N];
// tn: A[K,M]ᵀ·B[K,N]. RowsBatched marks the run-time dimension, T·batch: M for
// nt and nn, K for tn.
type Gemm struct {
	Kind     string
	Space    Space // of the operand with the run-time rows
	M, N, K  int   // at full batch
	A, B     Operand
	Packed   bool // B is a weight in the form that Pack leaves; it has no LD
	Epilogue *Functor
	RowSum   *Functor // tn: receives Σ_k A[k,m]; may be nil
}

// HeadProduct is a matrix product for each head: Op head_linear, C[M,heads·N] of
// A[M,heads·K] and B[heads·N,K]; head_linear_t, C[M,heads·K] of A[M,heads·N] and the
// same B; or head_linear_dw, C[heads·N,K] of A[M,heads·N] and B[M,heads·K]. M is the
// run-time dimension. A and B lie in memory.
type HeadProduct struct {
	Op             ir.Op
	Space          Space // of A
	Heads, M, N, K int   // at full batch
	A, B           Operand
	Epilogue       *Functor
}

// Attention runs forward attention; all operands lie in memory.
type Attention struct {
	Q, K, V, O Operand
	LSE        int // argument, or -1
	Site, Thr  int // arguments, or -1 without dropout
	Shape      AttentionShape
	Batch      int
}

// AttentionShape holds the compile-time numbers of an attention kernel.
type AttentionShape struct {
	Heads, HeadDim, Tq, Tk, QFirst, QTotal int
	Scale                                  float64
	Causal                                 bool
}

// AttentionGrad is the backward of Attention.
type AttentionGrad struct {
	DO, Q, K, V, O Operand
	LSE            int
	DQ, DK, DV     Operand
	Site, Thr      int
	Shape          AttentionShape
}

// LatentAttention runs attention over shared tokens X; HeadDim is their width.
type LatentAttention struct {
	Q, X, O   Operand
	LSE       int // argument, or -1
	Site, Thr int // arguments, or -1 without dropout
	Shape     AttentionShape
	Sums      bool // of each head's weights stand behind O's columns
}

// LatentAttentionGrad is the backward of LatentAttention.
type LatentAttentionGrad struct {
	DO, Q, X, O Operand
	LSE         int
	DQ, DX      Operand
	Site, Thr   int
	Shape       AttentionShape
	Sums        bool
}

// LayerNorm normalizes rows of Space.
type LayerNorm struct {
	Space       Space
	X           Operand
	Gamma, Beta int
	Mean, Rstd  int // arguments, or -1 if nobody reads them
	Eps         float64
	Y           *Functor
}

// LayerNormGrad is the backward of LayerNorm.
type LayerNormGrad struct {
	Space             Space
	DY, X             Operand
	Gamma, Mean, Rstd int
	DX                *Functor // nil: not needed
	DGamma, DBeta     int      // arguments, or -1
}

// CrossEntropy computes loss and, with a sink, the gradient of the logits.
type CrossEntropy struct {
	Classes       int
	Logits        Operand
	Label         int
	Label2, Mix   int // arguments; -1: one label a sample
	Smoothing     float64
	Loss, Correct int // arguments; -1: not stored
	DLogits       *Functor
}

// Pointwise runs a body over a space.
type Pointwise struct {
	Space Space
	Fn    *Functor
}

// Patchify cuts images into rows of patches.
type Patchify struct {
	C, H, W, P int
	X          int
	Y          *Functor
	Space      Space // of the result
}

// Transpose swaps tokens and channels of every sample.
type Transpose struct {
	T, C int
	X    int
	Y    *Functor
}

// SumTokens sums the tokens of every sample.
type SumTokens struct {
	Space Space // of the operand
	X     Operand
	Y     *Functor
}

// ColumnSum sums all rows: a bias gradient, or one number per sample.
type ColumnSum struct {
	Space Space
	X     Operand
	Y     int
}

// SumSquares sums the squares of the whole gradient arena.
type SumSquares struct {
	N    int
	X, Y int
}

// ClipScale turns a sum of squares into the factor of a gradient clip.
type ClipScale struct {
	X, Y int
	Norm float64
}

// Optimizer updates the whole parameter arena: the first Decay elements with
// weight decay, the rest of N without.
type Optimizer struct {
	Op           ir.Op
	Attrs        ir.Attrs
	WeightDecay  float64
	N, Decay     int
	P, G, S0, S1 int // arguments; -1: absent
	Half         int // bf16 copy of the parameters, kept up to date
	Average      int // moving average of the parameters
	Clip         int
}

// OptimizerRange is a part of the parameter arena that is updated alike.
type OptimizerRange struct {
	From, N int
	Decay   float64
}

// Ranges are what decays and what does not, as far as there is a difference.
func (o *Optimizer) Ranges() []OptimizerRange {
	if o.WeightDecay == 0 || o.Decay == o.N {
		return []OptimizerRange{{0, o.N, o.WeightDecay}}
	}
	rest := OptimizerRange{o.Decay, o.N - o.Decay, 0}
	if o.Decay == 0 {
		return []OptimizerRange{rest}
	}
	return []OptimizerRange{{0, o.Decay, o.WeightDecay}, rest}
}

func (*Gemm) body()          {}
func (*HeadProduct) body()   {}
func (*Attention) body()     {}
func (*AttentionGrad) body() {}
func (*LayerNorm) body()     {}
func (*LayerNormGrad) body() {}
func (*CrossEntropy) body()  {}
func (*Pointwise) body()     {}
func (*Patchify) body()      {}
func (*Transpose) body()     {}
func (*SumTokens) body()     {}
func (*ColumnSum) body()     {}
func (*SumSquares) body()    {}
func (*ClipScale) body()     {}
func (*Optimizer) body()     {}

func (*LatentAttention) body()     {}
func (*LatentAttentionGrad) body() {}
