//go:build cuda

package cuda

import (
	"fmt"
	"strings"
	"unsafe"

	"github.com/mumax/3/cuda/cu"

	"github.com/vitgen/vitgen/runtime"
)

// block is an allocation on the device; the zero block has no bytes.
type block struct {
	ptr   cu.DevicePtr
	bytes int64
}

// at is an address in the block.
func (b block) at(offset int64) cu.DevicePtr { return b.ptr + cu.DevicePtr(offset) }

func alloc(bytes int64) block {
	if bytes == 0 {
		return block{}
	}
	return block{cu.MemAlloc(bytes), bytes}
}

func (b block) clear(s cu.Stream) {
	if b.bytes > 0 {
		cu.MemsetD8Async(b.ptr, 0, b.bytes, s)
	}
}

const stateBytes = 64 // of vg_state

// allocate gets all memory that does not depend on data. Regions are zeroed;
// but activations, and workspace, hold nothing until a kernel has written it.
func (d *device) allocate() {
	free, _ := cu.MemGetInfo()
	bytes := d.code.Regions
	if r := try(func() {
		for i := range bytes {
			d.memory[i] = alloc(bytes[i])
		}
		d.workspace = alloc(d.cuda.WorkspaceBytes)
		d.counters = alloc(int64(max(d.cuda.Counters, 1)) * 4)
		d.control = alloc(d.controlBytes())
	}); r == cu.ERROR_OUT_OF_MEMORY {
		panic(failure{d.tooLarge(free)})
	} else if r != cu.SUCCESS {
		panic(r)
	}
	for i, b := range d.memory {
		if r := runtime.Region(i); r != runtime.Arena && r != runtime.Image {
			b.clear(d.stream)
		}
	}
	d.counters.clear(d.stream)
	if d.model.ConstData != nil {
		d.put(d.memory[runtime.Const].ptr, unsafe.Pointer(unsafe.SliceData(d.model.ConstData())), d.memory[runtime.Const].bytes)
	}
	d.halfStale = d.cuda.HalfElems > 0
}

func (d *device) controlBytes() int64 { return stateBytes + int64(d.model.Batch)*4 }

// put copies from any memory, after everything before, and is done when it
// returns.
func (d *device) put(to cu.DevicePtr, from unsafe.Pointer, bytes int64) {
	if bytes > 0 {
		d.stream.Synchronize()
		cu.MemcpyHtoD(to, from, bytes)
	}
}

// needs lists the plan's memory, in the words of info.
func (d *device) needs() (list []need) {
	b := d.code.Regions
	for _, n := range []need{
		{"parameters", b[runtime.Params] + b[runtime.Half]},
		{"gradients", b[runtime.Grads]},
		{"optimizer state", b[runtime.State0] + b[runtime.State1]},
		{"average", b[runtime.Average]},
		{"activations", b[runtime.Arena]},
		{"workspace", d.cuda.WorkspaceBytes},
		{"inputs", inputBytes(&b) + d.controlBytes()},
		{"constants", b[runtime.Const]},
	} {
		if n.bytes > 0 {
			list = append(list, n)
		}
	}
	return list
}

// inputBytes is the size of what the host says of a batch.
func inputBytes(b *[runtime.NumRegions]int64) int64 {
	return b[runtime.Image] + b[runtime.Label] + b[runtime.Label2] + b[runtime.Mix]
}

type need struct {
	what  string
	bytes int64
}

// tooLarge says what the model needs, what there is, and what batch would fit.
func (d *device) tooLarge(free int64) error {
	var text strings.Builder
	total := int64(0)
	for _, n := range d.needs() {
		total += n.bytes
		fmt.Fprintf(&text, "\n  %-16s %s", n.what, size(n.bytes))
	}
	m := d.model
	advice := "\nnot even a batch of one would fit"
	if n := fitting(m.Batch, d.code.Regions, total, free); n >= 1 {
		advice = fmt.Sprintf("\na batch of %d would fit: set train.batch to it, and train.accumulate to keep the effective batch of %d", n, m.Batch*m.Train.Accumulate)
	}
	return fmt.Errorf("%s: out of memory: batch %d needs %s, and %s are free%s%s", d.label, m.Batch, size(total), size(free), text.String(), advice)
}

// fitting is the batch that fits into free bytes, given that one of batch takes
// total and that activations and inputs grow with it.
func fitting(batch int, regions [runtime.NumRegions]int64, total, free int64) int {
	growing := regions[runtime.Arena] + inputBytes(&regions)
	const slack = 16 << 20 // allocations are rounded up
	room := free - slack - (total - growing)
	if room < 0 || growing == 0 {
		return 0
	}
	return int(min(room/((growing+int64(batch)-1)/int64(batch)), int64(batch-1)))
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n < 1e5:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1e9:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.2f GB", float64(n)/1e9)
}

// MemoryBytes is what the device has allocated on the GPU.
func (d *device) MemoryBytes() int64 {
	n := int64(0)
	for _, b := range append(d.memory[:], d.workspace, d.counters, d.control, d.data.images, d.data.labels, d.data.table) {
		n += b.bytes
	}
	return n
}

// place is n bytes of a region.
func (d *device) place(r runtime.Ref, n int) cu.DevicePtr {
	if r.Region >= runtime.Imm || r.Offset < 0 || r.Offset+int64(n) > d.memory[r.Region].bytes {
		panic(failure{fmt.Errorf("%d bytes at %d are outside region %d", n, r.Offset, r.Region)})
	}
	return d.memory[r.Region].at(r.Offset)
}

// Write copies src to dst. What the host says of a batch goes through pinned
// memory and does not wait for the device; anything else waits until it has been copied.
func (d *device) Write(dst runtime.Ref, src []byte) (err error) {
	defer d.leave(&err, "writing memory")
	d.enter()
	to := d.place(dst, len(src))
	if len(src) > 0 {
		switch dst.Region {
		case runtime.Image, runtime.Label, runtime.Label2, runtime.Mix:
			d.stage(dst.Region, to, src)
		default:
			d.put(to, unsafe.Pointer(&src[0]), int64(len(src)))
		}
	}
	if dst.Region == runtime.Image {
		d.fed, d.gathering = true, false
	}
	d.halfStale = d.halfStale || dst.Region == runtime.Params && d.cuda.HalfElems > 0
	return nil
}

// Read waits for everything before it.
func (d *device) Read(dst []byte, src runtime.Ref) (err error) {
	defer d.leave(&err, "reading memory")
	d.enter()
	from := d.place(src, len(dst))
	d.stream.Synchronize()
	if len(dst) > 0 {
		cu.MemcpyDtoH(unsafe.Pointer(&dst[0]), from, int64(len(dst)))
	}
	return nil
}

func (d *device) Clear(r runtime.Region) (err error) {
	defer d.leave(&err, "clearing memory")
	d.enter()
	d.memory[r].clear(d.stream)
	d.halfStale = d.halfStale || r == runtime.Params && d.cuda.HalfElems > 0
	return nil
}
