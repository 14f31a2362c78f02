// Package fake is a model for the runtime's own tests: a linear softmax
// classifier whose kernels are written in Go behind the same C structures that
// generated kernels read. It goes through the real device, workers and
// sessions, and is not part of any trainer.
package fake

import (
	"github.com/vitgen/vitgen/runtime"
)

// Kernels of the model.
const (
	linear = iota
	crossEntropy
	linearGrad
	sgd
	adamw
	average
	linearPacked
	packWeight
)

// New is a classifier of C×H×W images with the train section given;
// Train.Accumulate 0 means 1 and an empty optimizer SGD with learning rate 0.1.
//
//	logits = scale·(W·drop(x) + b)      scale = 0.5, from the Const region
//
// Forward and Eval read W in packed form, from where Grad has its activations. The
// model keeps an average of its parameters if the train section asks for one.
func New(image [3]int, classes, batch int, train runtime.Train) *runtime.Model {
	d := image[0] * image[1] * image[2]
	train.Accumulate = max(train.Accumulate, 1)
	if train.Optimizer.Kind == "" {
		train.Optimizer = runtime.Optimizer{Kind: "sgd", LR: 0.1}
	}
	m := &runtime.Model{
		Name: "fake", SpecFile: "fake.yaml", SpecHash: "f00d", Generator: "test",
		Image: image, Classes: classes, Batch: batch,
		Params: []runtime.Param{
			{Name: "head.weight", Shape: []int{classes, d}, Offset: 0, Decay: true, Pos: "fake.yaml:3:5",
				Init: runtime.Init{Kind: "pytorch", FanIn: d}},
			{Name: "head.bias", Shape: []int{classes}, Offset: classes * d, Pos: "fake.yaml:3:5",
				Init: runtime.Init{Kind: "zeros"}},
		},
		ParamElems: classes*d + classes, DecayElems: classes * d,
		Train: train,
		Data:  runtime.Data{Name: "synthetic", Train: 50, Val: 20},
		Kernels: []runtime.Kernel{
			{Name: "k00_linear", Family: "gemm", Layer: "head", Pos: "fake.yaml:3:5", Doc: "linear", FLOPs: int64(2 * batch * classes * d), Bytes: int64(4 * batch * d)},
			{Name: "k01_cross_entropy", Family: "row", Layer: "loss", Pos: "fake.yaml:5:1", Doc: "cross-entropy", FLOPs: int64(5 * batch * classes), Bytes: int64(4 * batch * classes)},
			{Name: "k02_linear_grad", Family: "gemm", Layer: "head", Pos: "fake.yaml:3:5", Doc: "linear gradient", FLOPs: int64(2 * batch * classes * d), Bytes: int64(4 * batch * d)},
			{Name: "k03_sgd", Family: "pointwise", Layer: "optimizer", Pos: "fake.yaml:7:3", Doc: "SGD", FLOPs: int64(4 * classes * d), Bytes: int64(12 * classes * d)},
			{Name: "k04_adamw", Family: "pointwise", Layer: "optimizer", Pos: "fake.yaml:7:3", Doc: "AdamW", FLOPs: int64(12 * classes * d), Bytes: int64(24 * classes * d)},
			{Name: "k05_average", Family: "pointwise", Layer: "optimizer", Pos: "fake.yaml:7:3", Doc: "average", FLOPs: int64(3 * classes * d), Bytes: int64(12 * classes * d)},
			{Name: "k06_linear_packed", Family: "gemm", Layer: "head", Pos: "fake.yaml:3:5", Doc: "linear", FLOPs: int64(2 * batch * classes * d), Bytes: int64(4 * batch * d)},
			{Name: "k07_pack_weight", Family: "pointwise", Layer: "head", Pos: "fake.yaml:3:5", Doc: "pack a weight", Bytes: int64(8 * classes * d)},
		},
		ConstData: func() []float32 { return []float32{0.5} },
	}
	m.Kernels[linear].Outs = []runtime.Span{{Arg: 3, Elems: classes, PerSample: true}}
	m.Kernels[linearPacked].Outs = m.Kernels[linear].Outs
	m.Kernels[crossEntropy].Outs = []runtime.Span{{Arg: 2, Elems: 1, PerSample: true}, {Arg: 3, Elems: 1, PerSample: true}}
	m.Kernels[linearGrad].Outs = []runtime.Span{{Arg: 2, Elems: classes * d}, {Arg: 3, Elems: classes}}
	m.Kernels[sgd].Outs = []runtime.Span{{Arg: 0, Elems: m.ParamElems}}
	m.Kernels[adamw].Outs = []runtime.Span{{Arg: 0, Elems: m.ParamElems}, {Arg: 3, Elems: m.ParamElems}}
	m.Kernels[average].Outs = []runtime.Span{{Arg: 1, Elems: m.ParamElems}}
	m.CPU = runtime.CPUCode{{ISA: "go", Entry: runtime.CPUEntry{Go: (&code{model: m, d: d}).run}}}
	record(m, d)
	if code, err := m.Code("cpu"); err == nil {
		m.StepFLOPsUnpruned = code.FLOPs(runtime.Grad) * 5 / 3 // pruning saves 40 %
	}
	return m
}

// Mix makes a model of New take two labels a sample, as specs with mixup and
// cutmix do. CUDA code is added after it.
func Mix(m *runtime.Model, mixup, cutmix float64) *runtime.Model {
	m.Data.Augment.Mixup, m.Data.Augment.CutMix = mixup, cutmix
	record(m, m.ImageElems())
	return m
}

// mixed are the arguments of the loss that are there for two labels.
func mixed(m *runtime.Model) []runtime.Ref {
	if m.Data.Augment.Mixes() {
		return []runtime.Ref{runtime.Label2.At(0), runtime.Mix.At(0)}
	}
	return nil
}

// record lists the launches of each program and plans the arena: outputs
// first, then the gradient of the logits, or the packed weight.
func record(m *runtime.Model, d int) {
	b, c := int64(m.Batch), int64(m.Classes)
	logits, loss, correct := runtime.Arena.At(0), runtime.Arena.At(4*b*c), runtime.Arena.At(4*b*(c+1))
	dlogits := runtime.Arena.At(4 * b * (c + 2))
	packed := dlogits
	m.ArenaBytes, m.WorkspaceBytes = dlogits.Offset+4*c*max(b, int64(d)), 256
	m.Outputs = runtime.Outputs{Logits: logits, Loss: loss, Correct: correct}

	params := func(r runtime.Region) (w, bias runtime.Ref) { return r.At(0), r.At(int64(4 * d * m.Classes)) }
	w, bias := params(runtime.Params)
	gw, gbias := params(runtime.Grads)
	image, label, scale := runtime.Image.At(0), runtime.Label.At(0), runtime.Const.At(0)

	var fwd, eval, grad, update, pack runtime.Recorder
	pack.Launch(packWeight, w, packed)
	for _, r := range []*runtime.Recorder{&fwd, &eval} {
		r.Launch(linearPacked, image, packed, bias, logits, scale)
	}
	grad.Launch(linear, image, w, bias, logits, scale, image) // a sixth argument: drop
	eval.Launch(crossEntropy, logits, label, loss, correct)
	grad.Launch(crossEntropy, append([]runtime.Ref{logits, label, loss, correct, dlogits}, mixed(m)...)...)
	grad.Launch(linearGrad, image, dlogits, gw, gbias, scale)
	if m.Train.Optimizer.Kind == "adamw" {
		m.StateNames = []string{"exp_avg", "exp_avg_sq"}
		update.Launch(adamw, w, gw, runtime.State0.At(0), runtime.State1.At(0))
	} else if m.Train.Optimizer.Momentum != 0 {
		m.StateNames = []string{"momentum_buffer"}
		update.Launch(sgd, w, gw, runtime.State0.At(0))
	} else {
		update.Launch(sgd, w, gw)
	}
	if m.Train.EMA.Decay > 0 {
		update.Launch(average, w, runtime.Average.At(0))
	}
	m.Programs = [runtime.NumPrograms]runtime.Program{fwd.Launches, eval.Launches, grad.Launches, update.Launches}
	m.Pack = pack.Launches
}
