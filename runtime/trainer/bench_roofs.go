package trainer

import (
	"fmt"
	"strings"
	"time"

	"github.com/vitgen/vitgen/runtime/cpu/isa"
	"github.com/vitgen/vitgen/runtime/cpu/roof"
)

// roofs are what no kernel of this process can exceed, as measured just before
// the kernels were.
type roofs struct {
	ISA     string       `json:"isa"`
	Threads int          `json:"threads"`
	GFLOPS  float64      `json:"gflops"` // of multiply-adds in registers
	Memory  []memoryRoof `json:"memory"` // by size, the smallest first
}

// memoryRoof is how fast all threads together read or copy memory of some size,
// whichever is faster. What is small stays in the cores' own caches.
type memoryRoof struct {
	Bytes int64   `json:"bytes"`
	GBps  float64 `json:"gb_per_sec"`
}

// roofSizes are the bytes of each thread that bandwidth is measured over: within
// the cores' own caches on most machines, beyond them, and beyond most shared
// ones.
var roofSizes = [...]int{1 << 20, 4 << 20, 16 << 20, 128 << 20}

const (
	roofMemory = 512 << 20            // bounds the memory of all threads
	roofRounds = 5                    // measurements; the best counts, for what disturbs only slows
	roofTime   = 2 * time.Millisecond // of each, or what one pass over the memory takes
)

// measureRoofs takes a fraction of a second. Where there are no loops for what
// kernels run on, there are no roofs.
func measureRoofs(threads int, isaName string) (*roofs, error) {
	set, err := isa.Named(isaName)
	if err != nil || threads == 0 {
		return nil, nil
	}
	most := roofMemory / threads
	memory, err := roof.Alloc(int64(threads)*int64(min(most, roofSizes[len(roofSizes)-1])), threads)
	if err != nil {
		return nil, err
	}
	defer memory.Free()
	benches := []*roof.Bench{roof.NewFMA(set, threads)}
	r := &roofs{ISA: isaName, Threads: threads}
	for _, bytes := range roofSizes {
		bytes = min(bytes, most)
		benches = append(benches, roof.NewStream(set, roof.Read, threads, bytes, memory), roof.NewStream(set, roof.Copy, threads, bytes, memory))
		r.Memory = append(r.Memory, memoryRoof{Bytes: int64(bytes) * int64(threads)})
	}
	best := make([]float64, len(benches))
	for range roofRounds {
		for i, b := range benches {
			rate, err := b.Rate(roofTime)
			if err != nil {
				return nil, err
			}
			best[i] = max(best[i], rate/1e9)
		}
	}
	r.GFLOPS = best[0]
	for i := range r.Memory {
		r.Memory[i].GBps = max(best[1+2*i], best[2+2*i])
	}
	return r, nil
}

// bandwidth is the roof of a launch that moves so many bytes: that of the largest
// memory that they fill. In the best case they are all in the fastest memory that
// holds as many.
func (r *roofs) bandwidth(bytes int64) float64 {
	gbps := r.Memory[0].GBps
	for _, m := range r.Memory[1:] {
		if bytes >= m.Bytes {
			gbps = m.GBps
		}
	}
	return gbps
}

// bounded is how near something comes to its roof.
type bounded struct {
	BoundMS float64 `json:"bound_ms,omitempty"` // the least time it could take
	Bound   string  `json:"bound,omitempty"`    // compute or memory: what that time is for
	OfBound float64 `json:"of_bound,omitempty"` // BoundMS over the time it takes
}

// bound is the bound of a launch: all its FLOPs at the peak, or all its bytes at
// the memory's speed, whichever takes longer.
func (r *roofs) bound(flops, bytes int64) (ms float64, what string) {
	compute, memory := float64(flops)/r.GFLOPS/1e6, float64(bytes)/r.bandwidth(bytes)/1e6
	if compute > memory {
		return compute, "compute"
	}
	return memory, "memory"
}

// boundLine is a step against the roofs, for people.
func (r *benchResult) boundLine() string {
	var speeds []string
	for _, m := range r.Roofs.Memory {
		speeds = append(speeds, fmt.Sprintf("%.0f", m.GBps))
	}
	return fmt.Sprintf("bound of its kernels: %.3f ms, %.0f %% of that time, at %.1f GFLOP/s and %s GB/s (%d to %d MiB)",
		r.BoundMS, 100*r.OfBound, r.Roofs.GFLOPS, strings.Join(speeds, ", "), r.Roofs.Memory[0].Bytes>>20, r.Roofs.Memory[len(speeds)-1].Bytes>>20)
}
