package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/vitgen/vitgen/runtime"
)

// roofs are the roofline that kernels are compared with: what the device reaches
// on plain matrix products and copies, as PyTorch runs them; or, without PyTorch,
// what its data sheet says.
type roofs struct {
	Source      string  `json:"source"`
	FP32        float64 `json:"fp32_flops"` // per second
	TF32        float64 `json:"tf32_flops"`
	BF16        float64 `json:"bf16_flops"`
	BytesPerSec float64 `json:"bytes_per_sec"`
	Size        int     `json:"size,omitempty"` // rows and columns of the matrices
	CopyBytes   int64   `json:"copy_bytes,omitempty"`
}

const (
	measured  = "measured"
	dataSheet = "data sheet"
)

func (r *runner) findRoofs() {
	const name = "roofline"
	why := r.tools.torch
	if why == "" {
		err := r.measureRoofs()
		if err == nil {
			return
		}
		why = lastLine(err.Error())
	}
	gpu := strings.ToLower(strings.ReplaceAll(r.res.GPU["name"], " ", ""))
	for _, c := range runtime.Chips {
		if strings.Contains(gpu, c.Key) {
			r.res.Roofs = &roofs{Source: dataSheet, FP32: c.FP32, TF32: c.TF32, BF16: c.BF16, BytesPerSec: c.Bandwidth}
			r.pass("bench", name, "that of "+c.Name+"'s data sheet, since "+why)
			return
		}
	}
	r.skip("bench", name, why)
}

func (r *runner) measureRoofs() error {
	argv := []string{r.set.python, "bench/peers/peer_torch.py", "roofs"}
	if r.manifest.Rehearsal {
		argv = append(argv, "--device", "cpu", "--size", "64", "--copy", "1000", "--times", "1")
	}
	read := &roofs{Source: measured}
	if err := r.ask(read, "bench-roofs", argv...); err != nil {
		return err
	}
	r.res.Roofs = read
	logf("plain products reach %.1f TFLOP/s in fp32, %.1f in tf32, %.1f in bf16; copies %.0f GB/s\n",
		read.FP32/1e12, read.TF32/1e12, read.BF16/1e12, read.BytesPerSec/1e9)
	return nil
}

// launch is one launch of a step, as info tells it.
type launch struct {
	Kernel string `json:"kernel"`
	Family string `json:"family"`
	FLOPs  int64  `json:"flops"`
	Bytes  int64  `json:"bytes"`
}

// kernelTime is one kernel as bench tells it.
type kernelTime struct {
	Name     string  `json:"name"`
	Pos      string  `json:"pos"`
	Layer    string  `json:"layer"`
	Launches int     `json:"launches"`
	MS       float64 `json:"ms"` // all its launches
	Percent  float64 `json:"percent"`
}

// kernel is one kernel's share of a step, beside the roofline.
type kernel struct {
	kernelTime
	Family string  `json:"family"`
	FLOPs  int64   `json:"flops"` // of all its launches, as Bytes
	Bytes  int64   `json:"bytes"` // the least traffic possible
	Bound  string  `json:"bound,omitempty"`
	RoofMS float64 `json:"roof_ms,omitempty"` // at the device's pace
	// RoofPercent is RoofMS of the time it took.
	RoofPercent float64 `json:"roof_percent,omitempty"`
}

// kernels puts vitgen's own profile, of the last round, beside the roofline.
func (r *runner) kernels(g *group, m *model) error {
	e := g.find(ours)
	if e == nil {
		return nil
	}
	about, err := r.info(m)
	if err != nil {
		return err
	}
	sums := map[string]*launch{}
	for _, l := range about.CUDA.Launches {
		s := sums[l.Kernel]
		if s == nil {
			s = &launch{Kernel: l.Kernel, Family: l.Family}
			sums[l.Kernel] = s
		}
		s.FLOPs += l.FLOPs
		s.Bytes += l.Bytes
	}
	for _, t := range e.kernels {
		k := &kernel{kernelTime: t}
		if s := sums[t.Name]; s != nil {
			k.Family, k.FLOPs, k.Bytes = s.Family, s.FLOPs, s.Bytes
			k.under(r.res.Roofs, g.Precision)
		}
		g.Kernels = append(g.Kernels, k)
	}
	slices.SortStableFunc(g.Kernels, func(a, b *kernel) int { return cmp.Compare(b.MS, a.MS) })
	return nil
}

// under finds which roof a kernel is under and how near it comes.
func (k *kernel) under(roofs *roofs, precision string) {
	if roofs == nil || k.MS == 0 {
		return
	}
	peak := roofs.FP32
	if k.Family == "gemm" || k.Family == "attention" {
		switch precision {
		case "tf32":
			peak = roofs.TF32
		case "bf16":
			peak = roofs.BF16
		}
	}
	compute, memory := float64(k.FLOPs)/peak*1e3, float64(k.Bytes)/roofs.BytesPerSec*1e3
	k.Bound, k.RoofMS = "arithmetic", compute
	if memory > compute {
		k.Bound, k.RoofMS = "memory", memory
	}
	k.RoofPercent = 100 * k.RoofMS / k.MS
}
