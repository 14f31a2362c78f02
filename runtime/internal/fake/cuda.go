package fake

import (
	"io/fs"
	"math"

	"github.com/vitgen/vitgen/runtime"
)

// Kernels of runtime/cuda/testdata/fake.cu.
const (
	cudaLinear = iota
	cudaLinearHalf
	cudaCrossEntropy
	cudaLinearGrad
	cudaSGD
	cudaAdamW
	cudaGather
	cudaHalve
	CUDABeyond // writes one element behind y: (y, n)
	CUDANaN    // writes a NaN into the middle of y: (y, n)
	cudaAverage
)

// CUDABatch is the batch that fake.cu is written for, as 1×8×8 images and 10
// classes are.
const CUDABatch = 32

// AddCUDA gives a model of New the kernels of fake.cu. In bf16, weights are
// read from their bf16 copy.
func AddCUDA(m *runtime.Model, precision string, images func() fs.FS) {
	if m.Image != [3]int{1, 8, 8} || m.Classes != 10 || m.Batch != CUDABatch {
		panic("BUG: fake.cu is written for other images, classes or batches")
	}
	c := &runtime.CUDACode{
		Precision: precision, Kernels: cudaKernels(m), Outputs: m.Outputs,
		ArenaBytes: m.ArenaBytes, WorkspaceBytes: 256, Counters: 1, Gather: cudaGather, Halve: cudaHalve, Images: images,
	}
	half := runtime.Imm.At(0)
	if precision == "bf16" {
		c.HalfElems, half = m.ParamElems, runtime.Half.At(0)
	}
	recordCUDA(m, c, half)
	m.CUDA = c
}

func cudaKernels(m *runtime.Model) []runtime.CUDAKernel {
	all := []runtime.CUDAKernel{
		{Kernel: runtime.Kernel{Name: "k00_linear"}, Grid: 3, Block: 64},
		{Kernel: runtime.Kernel{Name: "k01_linear_half"}, Grid: 3, Block: 64},
		{Kernel: runtime.Kernel{Name: "k02_cross_entropy"}, Grid: 1, Block: 32},
		{Kernel: runtime.Kernel{Name: "k03_linear_grad"}, Grid: 3, Block: 64, Shared: 16},
		{Kernel: runtime.Kernel{Name: "k04_sgd"}, Grid: 2, Block: 64},
		{Kernel: runtime.Kernel{Name: "k05_adamw"}, Grid: 2, Block: 64},
		{Kernel: runtime.Kernel{Name: "gather", Family: "data"}, Grid: 4, Block: 256, Shared: 1024},
		{Kernel: runtime.Kernel{Name: "halve", Family: "pointwise"}, Grid: 1, Block: 256},
		{Kernel: runtime.Kernel{Name: "k08_beyond"}, Grid: 1, Block: 32},
		{Kernel: runtime.Kernel{Name: "k09_nan"}, Grid: 1, Block: 32},
		{Kernel: runtime.Kernel{Name: "k10_average"}, Grid: 2, Block: 64},
	}
	for i, like := range map[int]int{cudaLinear: linear, cudaLinearHalf: linear, cudaCrossEntropy: crossEntropy, cudaLinearGrad: linearGrad, cudaSGD: sgd, cudaAdamW: adamw, cudaAverage: average} {
		k, of := &all[i].Kernel, &m.Kernels[like]
		k.Family, k.Layer, k.Pos, k.Doc, k.FLOPs, k.Bytes, k.FixedBytes, k.Outs = of.Family, of.Layer, of.Pos, of.Doc, of.FLOPs, of.Bytes, of.FixedBytes, of.Outs
	}
	all[CUDANaN].Outs = []runtime.Span{{Arg: 0, Elems: m.Classes, PerSample: true}}
	return all
}

func recordCUDA(m *runtime.Model, c *runtime.CUDACode, half runtime.Ref) {
	d, b, n := m.ImageElems(), int64(m.Batch), int64(m.Classes)
	out, dlogits := m.Outputs, runtime.Arena.At(4*b*(n+2))
	bias := int64(4 * d * m.Classes)
	weights, kernel := runtime.Params.At(0), cudaLinear
	if half.Region == runtime.Half {
		weights, kernel = half, cudaLinearHalf
	}
	imm := func(i int) runtime.Ref { return runtime.Imm.At(int64(i)) }
	bits := func(x float64) runtime.Ref { return runtime.Imm.At(int64(math.Float32bits(float32(x)))) }
	image, label, scale := runtime.Image.At(0), runtime.Label.At(0), runtime.Const.At(0)

	var fwd, eval, grad, update runtime.Recorder
	for r, drop := range map[*runtime.Recorder]int{&fwd: 0, &eval: 0, &grad: 1} {
		r.From("fake.yaml:3:5", "head")
		r.Launch(kernel, image, weights, runtime.Params.At(bias), out.Logits, scale, imm(drop))
		r.From("fake.yaml:5:1", "loss")
	}
	label2, mix := imm(0), imm(0)
	if two := mixed(m); two != nil {
		label2, mix = two[0], two[1]
	}
	eval.Launch(cudaCrossEntropy, out.Logits, label, out.Loss, out.Correct, imm(0), imm(0), imm(0))
	grad.Launch(cudaCrossEntropy, out.Logits, label, out.Loss, out.Correct, dlogits, label2, mix)
	add := 0
	if m.Train.Accumulate > 1 {
		add = 1
	}
	grad.From("fake.yaml:3:5", "head")
	grad.Launch(cudaLinearGrad, image, dlogits, runtime.Grads.At(0), runtime.Grads.At(bias), scale, imm(add))
	o := &m.Train.Optimizer
	p, g, size, decay := runtime.Params.At(0), runtime.Grads.At(0), imm(m.ParamElems), imm(m.DecayElems)
	update.From("fake.yaml:7:3", "optimizer")
	if o.Kind == "adamw" {
		update.Launch(cudaAdamW, p, g, runtime.State0.At(0), runtime.State1.At(0), half, size, decay, bits(o.Beta1), bits(o.Beta2), bits(o.Eps), bits(o.WeightDecay))
	} else {
		momentum, nesterov := imm(0), 0
		if o.Momentum != 0 {
			momentum = runtime.State0.At(0)
		}
		if o.Nesterov {
			nesterov = 1
		}
		update.Launch(cudaSGD, p, g, momentum, half, size, decay, bits(o.Momentum), imm(nesterov), bits(o.WeightDecay))
	}
	if m.Train.EMA.Decay > 0 {
		update.Launch(cudaAverage, p, runtime.Average.At(0), size)
	}
	c.Programs = [runtime.NumPrograms]runtime.Program{fwd.Launches, eval.Launches, grad.Launches, update.Launches}
}
