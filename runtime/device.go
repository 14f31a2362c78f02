package runtime

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vitgen/vitgen/runtime/cpu"
)

// StepScalars are the values that change from step to step; kernels read them
// through a pointer. Mirrors vg_step.
type StepScalars = cpu.Step

// Device runs one model's programs in memory of its own. A Session calls it
// from one goroutine at a time. Calls may be asynchronous, in order, except
// that Read and Profile wait for everything before them.
type Device interface {
	// Name is for people: "cpu (2 threads, avx512)".
	Name() string
	// Code is what the device runs.
	Code() *Code
	// Write copies src to dst; Read copies from src until dst is full.
	Write(dst Ref, src []byte) error
	Read(dst []byte, src Ref) error
	// Clear zeroes a region.
	Clear(Region) error
	// Run runs a program over the first n samples of the batch, with s copied.
	Run(id ProgramID, n int, s *StepScalars) error
	// RunLaunch runs one launch of a program and waits for it.
	RunLaunch(id ProgramID, launch, n int, s *StepScalars) error
	// Profile is Run, with the time of each launch stored in d.
	Profile(id ProgramID, n int, s *StepScalars, d []time.Duration) error
	// Close frees everything.
	Close() error
}

// Pipeline is a Device that works while the host goes on, and whose results
// the host may therefore fetch later.
type Pipeline interface {
	Device
	// RunStep is Run of Grad and then of Update, with one s for both.
	RunStep(n int, s *StepScalars) error
	// Ticket names the last run of Eval, Grad or RunStep.
	Ticket() uint64
	// Results waits for the run a ticket names and copies the loss and correct
	// of its first samples. The last MaxTickets runs of any program are
	// remembered.
	Results(ticket uint64, loss, correct []float32) error
}

// MaxTickets is how many runs back a Pipeline remembers results.
const MaxTickets = 8

// Resident is a Device that can keep a data set in its memory and make batches
// of it there.
type Resident interface {
	Device
	// Upload keeps n 8-bit images, and their labels, in place of what it kept
	// before. sample writes the pixels of one of them and returns its label; it
	// is called from several goroutines. table has 256 floats a channel: what a
	// pixel becomes. The error is an ErrNoRoom if there is no memory for it.
	Upload(n int, sample func(i int, pixels []uint8) (int, error), table []float32) error
	// Gather does the work of Write of Image and Label before the next Run: it
	// puts images of the data set there.
	Gather(index []int32) error
}

// ErrNoRoom says that a data set does not fit into a device's memory.
type ErrNoRoom struct{ Need, Free int64 }

func (e *ErrNoRoom) Error() string {
	return fmt.Sprintf("the data set takes %.1f MB and %.1f MB of the device's memory are free", float64(e.Need)/1e6, float64(e.Free)/1e6)
}

// OpenDevice opens one kind of device for a model: it allocates all regions,
// zeroed but for Arena, fills Const and lays out the programs.
type OpenDevice func(m *Model, ordinal int, o Options) (Device, error)

var (
	devicesMu sync.Mutex
	devices   = map[string]OpenDevice{"cpu": openCPU}
)

// RegisterDevice adds a kind of device, as a package that needs special build
// tags does from its init function.
func RegisterDevice(kind string, open OpenDevice) {
	devicesMu.Lock()
	defer devicesMu.Unlock()
	if devices[kind] != nil {
		panic("BUG: device kind " + kind + " is registered twice")
	}
	devices[kind] = open
}

func deviceKind(kind string) OpenDevice {
	devicesMu.Lock()
	defer devicesMu.Unlock()
	return devices[kind]
}

// openDevice opens what Options.Device asks for.
func openDevice(m *Model, o Options) (Device, error) {
	kind, ordinal, err := parseDevice(o.Device)
	if err != nil {
		return nil, err
	}
	if kind != "auto" {
		open := deviceKind(kind)
		if open == nil {
			return nil, fmt.Errorf("device %s: this program was built without %s support; build it with `vitgen build %s --target cpu,cuda`, or use --device cpu",
				o.Device, strings.ToUpper(kind), m.SpecFile)
		}
		return open(m, ordinal, o)
	}
	if open := deviceKind("cuda"); open != nil && m.CUDA != nil {
		d, err := open(m, 0, o)
		if err == nil {
			return d, nil
		}
		o.warn(fmt.Sprintf("no usable CUDA device (%v); running on the CPU", err))
	}
	return openCPU(m, 0, o)
}

// parseDevice splits "auto", "cpu", "cuda" or "cuda:N".
func parseDevice(s string) (kind string, ordinal int, err error) {
	kind, number, numbered := strings.Cut(s, ":")
	if kind == "" && !numbered {
		return "auto", 0, nil
	}
	known := []string{"auto", "cpu", "cuda"}
	ok := slices.Contains(known, kind) || deviceKind(kind) != nil
	if ok && numbered {
		ordinal, err = strconv.Atoi(number)
		ok = err == nil && ordinal >= 0 && kind != "auto" && kind != "cpu"
	}
	if !ok {
		return "", 0, fmt.Errorf("device %q: want auto, cpu, cuda or cuda:N", s)
	}
	return kind, ordinal, nil
}

// RegionBytes is the size of each region of the model's memory on the CPU.
func (m *Model) RegionBytes() [NumRegions]int64 {
	var b [NumRegions]int64
	arena := int64(m.ParamElems) * 4
	b[Params], b[Grads] = arena, arena
	for i := range m.StateNames {
		b[State0+Region(i)] = arena
	}
	if m.Train.EMA.Decay > 0 {
		b[Average] = arena
	}
	b[Arena] = m.ArenaBytes
	b[Image] = int64(m.Batch) * int64(m.ImageElems()) * 4
	b[Label] = int64(m.Batch) * 4
	if m.Data.Augment.Mixes() {
		b[Label2], b[Mix] = b[Label], b[Label]
	}
	if m.ConstData != nil {
		b[Const] = int64(len(m.ConstData())) * 4
	}
	return b
}

// ImageElems is the number of float32 elements of one image.
func (m *Model) ImageElems() int { return m.Image[0] * m.Image[1] * m.Image[2] }

func (r Region) String() string {
	return [...]string{"params", "grads", "state0", "state1", "average", "arena", "image", "label", "label2", "mix", "const", "half", "imm"}[r]
}
