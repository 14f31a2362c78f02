//go:build cuda

package cuda

import (
	"fmt"
	"os"
	goruntime "runtime"

	"github.com/mumax/3/cuda/cu"

	"github.com/vitgen/vitgen/runtime"
)

func init() { runtime.RegisterDevice("cuda", open) }

// device runs a model's programs on one GPU. It serves one caller at a time,
// who may come from any goroutine: each method makes the context current on the
// thread it happens to be on (enter).
type device struct {
	model *runtime.Model
	cuda  *runtime.CUDACode
	code  *runtime.Code
	chip  string // "NVIDIA H200"
	label string // "cuda:0 (NVIDIA H200)"

	context   cu.Context
	module    cu.Module
	stream    cu.Stream
	functions []cu.Function // by kernel

	memory    [runtime.NumRegions]block
	workspace block
	counters  block
	control   block // vg_state, then the indices that gather reads
	data      dataset

	programs [runtime.NumPrograms][]launch
	halve    *launch // nil: no bf16 copy
	gather   *launch // nil: no data set, or no kernel for it
	graphs   [recordings]graphExec
	events   []event // of Profile

	slots    [slots]slot
	next     uint64 // runs since the start
	slotHeld bool   // the next run's slot is free for use
	ticket   uint64
	staging  map[runtime.Region]*staging

	gathering bool // the next run starts with gather
	halfStale bool // parameters have been written since halve
	fed       bool // images have been put into memory at least once
	sync      bool // VITGEN_CUDA_SYNC: wait for each launch

	at   *launch // being launched or waited for, for errors
	last string  // what was submitted last, for errors
	dead error   // what ended the context
}

// enter prepares the calling thread for the driver's functions; leave, which
// must be deferred before it, turns what they panic with into an error.
func (d *device) enter() {
	goruntime.LockOSThread()
	if d.dead != nil {
		panic(failure{d.dead})
	}
	d.context.SetCurrent()
}

func (d *device) leave(err *error, doing string) {
	goruntime.UnlockOSThread()
	switch r := recover().(type) {
	case nil:
	case cu.Result:
		*err = d.explain(r, doing)
	case failure:
		*err = r.error
	default:
		panic(r)
	}
}

// failure is an error on its way to leave.
type failure struct{ error }

// explain says what a failed call means. If a kernel has failed, nothing works
// any more.
func (d *device) explain(r cu.Result, doing string) error {
	var err error
	switch l := d.at; {
	case l != nil:
		err = fmt.Errorf("%s: %s failed: %s", d.label, l, describe(r))
	case sticky[r]:
		err = fmt.Errorf("%s: a kernel of %s, or of what ran before it, failed: %s; run it again with VITGEN_CUDA_SYNC=1 to learn which", d.label, d.last, describe(r))
	default:
		err = fmt.Errorf("%s: %s: %s", d.label, doing, describe(r))
	}
	d.at = nil
	if sticky[r] {
		d.dead = err
	}
	return err
}

// open opens a GPU for a model.
func open(m *runtime.Model, ordinal int, _ runtime.Options) (_ runtime.Device, err error) {
	code, err := m.Code("cuda")
	if err != nil {
		return nil, err
	}
	d := &device{
		model: m, cuda: m.CUDA, code: code, label: fmt.Sprintf("cuda:%d", ordinal), last: "a program",
		staging: map[runtime.Region]*staging{}, sync: os.Getenv("VITGEN_CUDA_SYNC") == "1",
	}
	if err := d.open(ordinal); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *device) open(ordinal int) (err error) {
	goruntime.LockOSThread()
	defer d.leave(&err, "opening the device")
	chip := d.find(ordinal)
	d.chip = chip.Name()
	d.label += fmt.Sprintf(" (%s)", d.chip)
	d.context = cu.CtxCreate(cu.CTX_SCHED_AUTO, chip)
	d.stream = cu.StreamCreate()
	d.load(chip)
	d.allocate()
	d.layOut()
	d.stream.Synchronize()
	return nil
}

// find is the device of that number.
func (d *device) find(ordinal int) cu.Device {
	count := 0
	if r := try(func() {
		cu.Init(0)
		count = cu.DeviceGetCount()
	}); r != cu.SUCCESS {
		switch missing := driverMissing(); {
		case missing != "":
			panic(failure{fmt.Errorf("there is no NVIDIA driver on this machine (%s); install one, or use --device cpu", missing)})
		case r == cu.ERROR_NO_DEVICE:
			count = 0
		default:
			panic(failure{fmt.Errorf("the NVIDIA driver does not start: %s", describe(r))})
		}
	}
	if count == 0 {
		hint := ""
		if v, set := os.LookupEnv("CUDA_VISIBLE_DEVICES"); set {
			hint = fmt.Sprintf(" (CUDA_VISIBLE_DEVICES is %q)", v)
		}
		panic(failure{fmt.Errorf("the NVIDIA driver finds no GPU%s; use --device cpu", hint)})
	}
	if ordinal >= count {
		list := ""
		for i := range count {
			list += fmt.Sprintf("; cuda:%d is %s", i, cu.DeviceGet(i).Name())
		}
		panic(failure{fmt.Errorf("there is no device cuda:%d%s", ordinal, list)})
	}
	return cu.DeviceGet(ordinal)
}

// try runs calls of package cu and returns what they failed with.
func try(do func()) (result cu.Result) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case cu.Result:
			result = r
		default:
			panic(r)
		}
	}()
	do()
	return cu.SUCCESS
}

func (d *device) Name() string        { return d.label }
func (d *device) Code() *runtime.Code { return d.code }

// Close frees what the device holds. A context whose kernel failed refuses
// everything, so nothing here stops at an error; the first one is returned.
func (d *device) Close() (err error) {
	if d.context == 0 {
		return nil
	}
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	first := cu.SUCCESS
	do := func(f func()) {
		if r := try(f); first == cu.SUCCESS {
			first = r
		}
	}
	do(d.context.SetCurrent)
	do(d.stream.Synchronize)
	for _, g := range d.graphs {
		if g != 0 {
			do(g.destroy)
		}
	}
	for _, e := range d.events {
		do(e.destroy)
	}
	for i := range d.slots {
		d.slots[i].free(do)
	}
	for _, s := range d.staging {
		s.free(do)
	}
	for _, b := range append(d.memory[:], d.workspace, d.counters, d.control, d.data.images, d.data.labels, d.data.table) {
		do(b.ptr.Free)
	}
	if d.module != 0 {
		do(func() { unloadModule(d.module) })
	}
	if d.stream != 0 {
		do(d.stream.Destroy)
	}
	do(d.context.Destroy)
	if first != cu.SUCCESS && d.dead == nil {
		return fmt.Errorf("%s: closing: %s", d.label, describe(first))
	}
	return nil // a failed kernel has been reported already
}
