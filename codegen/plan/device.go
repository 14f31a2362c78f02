package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/vitgen/vitgen/codegen/kernels"
)

// Device is how a CUDA device runs a plan. Kernels that share a launch are
// parts of one device kernel, each with blocks, workspace and counters of its
// own.
type Device struct {
	Kernels  []*DeviceKernel
	Programs []*DeviceProgram

	// Gather makes a batch out of a data set that lies on the device; Halve, nil
	// unless products multiply in bf16, rounds the parameters. Both stand last
	// in Kernels and in no program: the runtime launches them.
	Gather, Halve *DeviceKernel

	WorkspaceBytes int64 // of the most demanding launch
	Counters       int   // likewise: uint32, zero between launches
}

// DeviceKernel is one __global__ function.
type DeviceKernel struct {
	Index                 int
	Name                  string // "k07_gemm_nt"; "k33_k34" of two parts
	Parts                 []PartUse
	Grid, Threads, Shared int // blocks, threads of a block, bytes of shared memory
	PerSM                 int // blocks that should fit on a multiprocessor
}

// PartUse is a kernel's share of a launch.
type PartUse struct {
	Kernel     *Kernel
	FirstArg   int
	FirstBlock int
	Workspace  int64 // offset in bytes
	Counters   int   // offset
}

// Part is what a kernel needs as a part of a launch, at full batch.
type Part struct {
	kernels.Launch
	Threads int
	Tile    *Tile // of a matrix product
	PerSM   int   // blocks that should fit on a multiprocessor; 0: no wish
}

// DeviceProgram lists the launches of one program.
type DeviceProgram struct {
	Name     string
	Launches []DeviceLaunch
}

// DeviceLaunch is one use of a device kernel; its arguments are those of its
// parts, one after the other.
type DeviceLaunch struct {
	Kernel *DeviceKernel
	Args   []Ref
	Parts  []Launch
}

// workspaceAlign is what the parts of a workspace start at multiples of.
const workspaceAlign = 256

// device groups the plan's launches.
func (p *Plan) device() *Device {
	d := &Device{}
	byName := map[string]*DeviceKernel{}
	for _, prog := range p.Programs {
		dp := &DeviceProgram{Name: prog.Name}
		for at := 0; at < len(prog.Launches); {
			end := at + 1
			for end < len(prog.Launches) && prog.Launches[end].Joined {
				end++
			}
			dp.Launches = append(dp.Launches, d.launch(byName, p.Math, prog.Launches[at:end]))
			at = end
		}
		d.Programs = append(d.Programs, dp)
	}
	c := p.Image
	d.Gather = d.fixed("gather", kernels.GatherLaunch(p.Batch, c[0], c[1], c[2]))
	if p.Math == "bf16" {
		d.Halve = d.fixed("halve", kernels.FlatLaunch(int64(p.Layout.Elems)))
	}
	return d
}

// fixed adds a kernel that is no part of a program.
func (d *Device) fixed(name string, l kernels.Launch) *DeviceKernel {
	k := &DeviceKernel{Index: len(d.Kernels), Name: name, Grid: l.Blocks, Threads: kernels.BlockThreads, Shared: l.Shared, PerSM: 1}
	d.Kernels = append(d.Kernels, k)
	return k
}

func (d *Device) launch(byName map[string]*DeviceKernel, math string, parts []Launch) DeviceLaunch {
	// The costly kernels first: their blocks should not be the last to start.
	parts = slices.Clone(parts)
	slices.SortStableFunc(parts, func(a, b Launch) int { return cmp.Compare(b.Kernel.FLOPs, a.Kernel.FLOPs) })
	l := DeviceLaunch{Parts: parts}
	var names []string
	for _, q := range parts {
		names = append(names, fmt.Sprintf("k%02d", q.Kernel.Index))
		l.Args = append(l.Args, q.Args...)
	}
	name := strings.Join(names, "_")
	if len(parts) == 1 {
		name = parts[0].Kernel.Name
	}
	l.Kernel = byName[name]
	if l.Kernel == nil {
		l.Kernel = d.kernel(name, math, parts)
		byName[name] = l.Kernel
	}
	return l
}

func (d *Device) kernel(name, math string, parts []Launch) *DeviceKernel {
	k := &DeviceKernel{Index: len(d.Kernels), Name: name}
	var workspace int64
	args, counters := 0, 0
	for _, q := range parts {
		g := q.Kernel.Part
		k.Parts = append(k.Parts, PartUse{q.Kernel, args, k.Grid, workspace, counters})
		if k.Threads != 0 && k.Threads != g.Threads {
			panic(fmt.Sprintf("BUG: %s joins kernels of %d and %d threads", name, k.Threads, g.Threads))
		}
		k.Threads = g.Threads
		k.Grid += g.Blocks
		k.Shared = max(k.Shared, g.Shared)
		workspace += (g.Workspace + workspaceAlign - 1) / workspaceAlign * workspaceAlign
		counters += g.Counters
		args += len(q.Args)
	}
	k.PerSM = perSM(k.Parts, math)
	d.WorkspaceBytes = max(d.WorkspaceBytes, workspace)
	d.Counters = max(d.Counters, counters)
	d.Kernels = append(d.Kernels, k)
	return k
}

// Joined reports the kernels that share a launch somewhere: they are emitted as
// functions, the others as __global__ functions at once.
func (d *Device) Joined() map[*Kernel]bool {
	joined := map[*Kernel]bool{}
	for _, k := range d.Kernels {
		for _, q := range k.Parts {
			joined[q.Kernel] = joined[q.Kernel] || len(k.Parts) > 1
		}
	}
	return joined
}

// perSM is how many blocks of a kernel should fit on a multiprocessor: what its
// parts agree on, or 1. Parts share registers that live through all of them (the
// block's place, the arguments), and the largest tiles have none to spare: in
// tf32 for one other part, in bf16 for two.
func perSM(parts []PartUse, math string) int {
	least := 0
	for _, q := range parts {
		p := q.Kernel.Part
		n := max(p.PerSM, 1)
		if t := p.Tile; t != nil && t.BM*t.BN >= 128*128 && (len(parts) > 2 || len(parts) == 2 && math == "tf32") {
			n = 1
		}
		if least == 0 || n < least {
			least = n
		}
	}
	return least
}

// FLOPs and Bytes sum up the parts, per launch at full batch.
func (k *DeviceKernel) FLOPs() (n int64) {
	for _, q := range k.Parts {
		n += q.Kernel.FLOPs
	}
	return n
}

// Bytes is the least traffic of a launch.
func (k *DeviceKernel) Bytes() (t Traffic) {
	for _, q := range k.Parts {
		t.Total += q.Kernel.Bytes.Total
		t.Fixed += q.Kernel.Bytes.Fixed
	}
	return t
}

// Doc says what the parts compute.
func (k *DeviceKernel) Doc() string {
	var docs []string
	for _, q := range k.Parts {
		docs = append(docs, q.Kernel.Doc)
	}
	return strings.Join(docs, "  |  ")
}
