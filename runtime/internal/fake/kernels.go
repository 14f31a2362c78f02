package fake

import (
	"math"
	goruntime "runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/cpu"
	"github.com/vitgen/vitgen/runtime/rng"
)

// code runs the model's kernels as a generated library does: workers walk the
// launches together, with a barrier after each.
type code struct {
	model *runtime.Model
	d     int // elements of an image
}

// call is one launch as one worker sees it.
type call struct {
	*code
	args   []uintptr
	step   *cpu.Step
	n      int // samples
	worker *cpu.VGWorker
}

func (c *code) run(program, worker uintptr) {
	p, w := at[cpu.VGProgram](program), at[cpu.VGWorker](worker)
	kernels := [...]func(*call){(*call).linear, (*call).crossEntropy, (*call).linearGrad, (*call).sgd, (*call).adamw, (*call).average, (*call).linearPacked, (*call).packWeight}
	for i, l := range slice[cpu.VGLaunch](p.Launches, int(p.LaunchCount)) {
		start := time.Now()
		k := call{code: c, step: at[cpu.Step](p.Step), n: int(p.Batch), worker: w,
			args: slice[uintptr](p.Args, int(l.FirstArg)+int(l.ArgCount))[l.FirstArg:]}
		slice[byte](w.Scratch, cpu.ScratchBytes)[cpu.ScratchBytes-1] = 1 // must be mapped
		kernels[l.Kernel](&k)
		wait(at[cpu.VGBarrier](p.Barrier), uint32(w.Count))
		if p.LaunchNS != 0 && w.Index == 0 {
			slice[int64](p.LaunchNS, int(p.LaunchCount))[i] = max(1, time.Since(start).Nanoseconds())
		}
	}
}

// wait is a barrier of count workers.
func wait(b *cpu.VGBarrier, count uint32) {
	phase := atomic.LoadUint32(&b.Phase)
	if atomic.AddUint32(&b.Arrived, 1) == count {
		atomic.StoreUint32(&b.Arrived, 0)
		atomic.AddUint32(&b.Phase, 1)
		return
	}
	for atomic.LoadUint32(&b.Phase) == phase {
		goruntime.Gosched()
	}
}

// share yields this worker's part of 0 … n-1.
func (c *call) share(n int) (lo, hi int) {
	i, of := int(c.worker.Index), int(c.worker.Count)
	return n * i / of, n * (i + 1) / of
}

func (c *call) floats(arg, n int) []float32 { return slice[float32](c.args[arg], n) }

// dropped is x, the batch's images, in the worker's scratch: in training each
// element is multiplied by 0 or 2.
func (c *call) dropped(x []float32) []float32 {
	if c.step.DropoutOn == 0 {
		return x
	}
	y := slice[float32](c.worker.Scratch, len(x))
	for i, v := range x {
		r := rng.Philox([4]uint32{uint32(i), 0, 0, c.step.MicroStep}, [2]uint32{c.step.SeedLo, c.step.SeedHi})
		y[i] = v * float32(2*(r[0]&1))
	}
	return y
}

// Packed counts the times that a weight was packed, by any model.
var Packed atomic.Int64

// packWeight writes W transposed.
func (c *call) packWeight() {
	classes := c.model.Classes
	w, packed := c.floats(0, classes*c.d), c.floats(1, classes*c.d)
	for j, end := c.share(c.d); j < end; j++ {
		for k := range classes {
			packed[j*classes+k] = w[k*c.d+j]
		}
	}
	if c.worker.Index == 0 {
		Packed.Add(1)
	}
}

func (c *call) linear()       { c.product(c.d, 1) }
func (c *call) linearPacked() { c.product(1, c.model.Classes) }

// product is linear with weight (k, j) at k*perClass + j*perInput.
func (c *call) product(perClass, perInput int) {
	classes := c.model.Classes
	x, w, b := c.floats(0, c.n*c.d), c.floats(1, classes*c.d), c.floats(2, classes)
	y, scale := c.floats(3, c.n*classes), c.floats(4, 1)[0]
	if len(c.args) > 5 {
		x = c.dropped(x)
	}
	for i, end := c.share(c.n); i < end; i++ {
		for k := range classes {
			sum := float64(b[k])
			for j := range c.d {
				sum += float64(x[i*c.d+j]) * float64(w[k*perClass+j*perInput])
			}
			y[i*classes+k] = scale * float32(sum)
		}
	}
}

func (c *call) crossEntropy() {
	classes := c.model.Classes
	logits, label := c.floats(0, c.n*classes), slice[int32](c.args[1], c.n)
	loss, correct := c.floats(2, c.n), c.floats(3, c.n)
	for i, end := c.share(c.n); i < end; i++ {
		z, best, sum := logits[i*classes:][:classes], 0, 0.0
		for k, v := range z {
			if v > z[best] {
				best = k
			}
		}
		for _, v := range z {
			sum += math.Exp(float64(v - z[best]))
		}
		logSum := math.Log(sum) + float64(z[best])
		label2, mix := int(label[i]), 1.0
		if len(c.args) > 5 {
			label2, mix = int(slice[int32](c.args[5], c.n)[i]), float64(c.floats(6, c.n)[i])
		}
		loss[i], correct[i] = float32(logSum-mix*float64(z[label[i]])-(1-mix)*float64(z[label2])), 0
		if best == int(label[i]) {
			correct[i] = 1
		}
		if len(c.args) == 4 {
			continue
		}
		dz := c.floats(4, c.n*classes)[i*classes:]
		for k, v := range z {
			g := math.Exp(float64(v) - logSum)
			if k == int(label[i]) {
				g -= mix
			}
			if k == label2 {
				g -= 1 - mix
			}
			dz[k] = float32(g) * c.step.InvN
		}
	}
}

func (c *call) linearGrad() {
	classes := c.model.Classes
	x, dz := c.dropped(c.floats(0, c.n*c.d)), c.floats(1, c.n*classes)
	gw, gb, scale := c.floats(2, classes*c.d), c.floats(3, classes), c.floats(4, 1)[0]
	add := func(dst *float32, v float64) {
		if c.model.Train.Accumulate == 1 {
			*dst = 0
		}
		*dst += scale * float32(v)
	}
	for k, end := c.share(classes); k < end; k++ {
		var bias float64
		for i := range c.n {
			bias += float64(dz[i*classes+k])
		}
		add(&gb[k], bias)
		for j := range c.d {
			var sum float64
			for i := range c.n {
				sum += float64(dz[i*classes+k]) * float64(x[i*c.d+j])
			}
			add(&gw[k*c.d+j], sum)
		}
	}
}

// decay is the weight decay of arena element i.
func (c *call) decay(i int) float32 {
	if i < c.model.DecayElems {
		return float32(c.model.Train.Optimizer.WeightDecay)
	}
	return 0
}

func (c *call) sgd() {
	o, n := &c.model.Train.Optimizer, c.model.ParamElems
	p, g := c.floats(0, n), c.floats(1, n)
	for i, end := c.share(n); i < end; i++ {
		d := g[i] + c.decay(i)*p[i]
		if len(c.args) > 2 {
			buf := &c.floats(2, n)[i]
			*buf = float32(o.Momentum)**buf + d
			if o.Nesterov {
				d += float32(o.Momentum) * *buf
			} else {
				d = *buf
			}
		}
		p[i] -= c.step.LR * d
	}
}

func (c *call) adamw() {
	o, n := &c.model.Train.Optimizer, c.model.ParamElems
	p, g, m, v := c.floats(0, n), c.floats(1, n), c.floats(2, n), c.floats(3, n)
	b1, b2 := float32(o.Beta1), float32(o.Beta2)
	for i, end := c.share(n); i < end; i++ {
		p[i] *= 1 - c.step.LR*c.decay(i)
		m[i] = b1*m[i] + (1-b1)*g[i]
		v[i] = b2*v[i] + (1-b2)*g[i]*g[i]
		root := float32(math.Sqrt(float64(v[i] * c.step.BiasCorr2)))
		p[i] -= c.step.LR * c.step.BiasCorr1 * m[i] / (root + float32(o.Eps))
	}
}

func (c *call) average() {
	n := c.model.ParamElems
	p, e := c.floats(0, n), c.floats(1, n)
	for i, end := c.share(n); i < end; i++ {
		e[i] += c.step.EMAWeight * (p[i] - e[i])
	}
}

// at views memory outside the Go heap, where addresses are stable.
func at[T any](addr uintptr) *T { return *(**T)(unsafe.Pointer(&addr)) }

func slice[T any](addr uintptr, n int) []T { return unsafe.Slice(at[T](addr), n) }
