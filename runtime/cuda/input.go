//go:build cuda

package cuda

import (
	"fmt"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/mumax/3/cuda/cu"

	"github.com/vitgen/vitgen/runtime"
)

// staging is two pinned buffers for one region of a step's input: while the GPU
// copies from one, the host fills the other.
type staging struct {
	buffers [2]struct {
		memory unsafe.Pointer
		copied event
	}
	bytes int64
	next  int
}

// stage copies src into a region by way of a pinned buffer.
func (d *device) stage(r runtime.Region, to cu.DevicePtr, src []byte) {
	s := d.staging[r]
	if s == nil {
		s = &staging{bytes: d.memory[r].bytes}
		d.staging[r] = s
	}
	b := &s.buffers[s.next]
	if b.memory == nil {
		b.memory = pinned(s.bytes)
		b.copied = newEvent()
	} else {
		b.copied.wait()
	}
	copy(unsafe.Slice((*byte)(b.memory), s.bytes), src)
	cu.MemcpyHtoDAsync(to, b.memory, int64(len(src)), d.stream)
	b.copied.record(d.stream)
	s.next = 1 - s.next
}

func (s *staging) free(do func(func())) {
	for _, b := range s.buffers {
		if b.memory != nil {
			do(func() { cu.MemFreeHost(b.memory) })
		}
		if b.copied != 0 {
			do(b.copied.destroy)
		}
	}
}

// dataset is a data set on the device.
type dataset struct {
	images, labels, table block
	n                     int
}

func (s *dataset) free() {
	for _, b := range []block{s.images, s.labels, s.table} {
		b.ptr.Free()
	}
	*s = dataset{}
}

// roomLeft stays free when a data set is uploaded: the driver and other
// programs need some memory too.
const roomLeft = 256 << 20

// Upload copies a data set to the device.
func (d *device) Upload(n int, sample func(i int, pixels []uint8) (int, error), table []float32) (err error) {
	defer d.leave(&err, "uploading the data set")
	d.enter()
	if d.cuda.Gather < 0 {
		panic(failure{fmt.Errorf("model %s was compiled without a kernel that gathers batches", d.model.Name)})
	}
	d.stream.Synchronize()
	d.dropData()
	per := int64(d.model.ImageElems())
	need := int64(n)*(per+4) + int64(len(table))*4
	free, _ := cu.MemGetInfo()
	noRoom := failure{&runtime.ErrNoRoom{Need: need, Free: max(0, free-roomLeft)}}
	if need > free-roomLeft {
		panic(noRoom)
	}
	s := &d.data
	s.n = n
	switch r := try(func() {
		s.images, s.labels, s.table = alloc(int64(n)*per), alloc(int64(n)*4), alloc(int64(len(table))*4)
	}); r {
	case cu.SUCCESS:
	case cu.ERROR_OUT_OF_MEMORY:
		d.dropData()
		panic(noRoom)
	default:
		panic(r)
	}
	labels := d.uploadImages(n, int(per), sample)
	d.put(s.labels.ptr, unsafe.Pointer(&labels[0]), s.labels.bytes)
	d.put(s.table.ptr, unsafe.Pointer(&table[0]), s.table.bytes)
	l := d.launchOf(d.cuda.Gather, "data", "", uint64(s.images.ptr), uint64(s.labels.ptr), uint64(d.control.at(stateBytes)),
		uint64(s.table.ptr), uint64(d.memory[runtime.Image].ptr), uint64(d.memory[runtime.Label].ptr))
	d.gather = &l
	return nil
}

// dropData frees a data set, with the graphs that know its address.
func (d *device) dropData() {
	for i := kinds; i < recordings; i++ {
		if d.graphs[i] != 0 {
			d.graphs[i].destroy()
			d.graphs[i] = 0
		}
	}
	d.gather = nil
	d.data.free()
}

// uploadImages makes all images, in pieces and with every processor, and
// returns their labels.
func (d *device) uploadImages(n, per int, sample func(i int, pixels []uint8) (int, error)) []int32 {
	const pieceBytes = 16 << 20
	piece := max(1, min(n, pieceBytes/per))
	memory := pinned(int64(piece) * int64(per))
	defer cu.MemFreeHost(memory)
	pixels := unsafe.Slice((*uint8)(memory), piece*per)
	labels := make([]int32, n)
	var bad atomic.Pointer[error]
	for from := 0; from < n; from += piece {
		count := min(piece, n-from)
		var next atomic.Int64
		var wg sync.WaitGroup
		for range goruntime.GOMAXPROCS(0) {
			wg.Go(func() {
				for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
					label, err := sample(from+i, pixels[i*per:][:per])
					if err != nil {
						bad.CompareAndSwap(nil, &err)
						return
					}
					labels[from+i] = int32(label)
				}
			})
		}
		wg.Wait()
		if err := bad.Load(); err != nil {
			panic(failure{*err})
		}
		cu.MemcpyHtoDAsync(d.data.images.at(int64(from)*int64(per)), memory, int64(count)*int64(per), d.stream)
		d.stream.Synchronize()
	}
	for i, l := range labels {
		if l < 0 || int(l) >= d.model.Classes {
			panic(failure{fmt.Errorf("label %d of image %d is not a class; the model has classes 0 … %d", l, i, d.model.Classes-1)})
		}
	}
	return labels
}

// Gather notes which images the next run is about.
func (d *device) Gather(index []int32) (err error) {
	defer d.leave(&err, "gathering a batch")
	d.enter()
	if d.gather == nil || len(index) > d.model.Batch {
		panic(failure{fmt.Errorf("BUG: %d images to gather out of %d", len(index), d.data.n)})
	}
	s := d.slot()
	s.index = s.index[:len(index)]
	copy(s.index, index)
	d.gathering, d.fed = true, true
	return nil
}
