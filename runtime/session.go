package runtime

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"
)

// Options say where and how a model runs. The zero value is usable.
type Options struct {
	// Device is "auto" (also ""), "cpu", "cuda" or "cuda:N". auto takes CUDA
	// device 0 if this program can use one.
	Device string
	// Threads of the CPU device; 0: one for each CPU this process may use.
	Threads int
	// Seed of initialization and dropout; 0: the spec's train.seed.
	Seed uint64
	// Warn receives what the user should know but did not ask for, such as a
	// device that was not available; nil: a line on standard error.
	Warn func(message string)
}

func (o *Options) warn(message string) {
	if o.Warn != nil {
		o.Warn(message)
		return
	}
	fmt.Fprintln(os.Stderr, "vitgen: "+message)
}

// Session is a model in the memory of a device: its parameters, gradients,
// optimizer state and counters. Its methods may be called from several
// goroutines and take turns. They return errors and do not panic.
type Session struct {
	mu       sync.Mutex
	model    *Model
	code     *Code    // what dev runs
	dev      Device   // nil: closed
	pipeline Pipeline // dev, if it is one
	seed     uint64

	updates    int // finished updates
	micro      int // passes forward and backward since the start of training
	pending    int // micro-batches whose gradients wait for Update
	pendingSum int // samples in them
	pendingOf  int // samples of the effective batch they belong to
	dropout    bool
	fixedLR    float64  // of SetLR; 0: the schedule's
	perEpoch   int      // updates per epoch, for schedules; 0: unknown
	total      int      // updates of the whole run; 0: unknown
	uploaded   int      // images that Upload put on the device
	classes    []string // names of the classes, see SetClasses
	swapped    bool     // SwapAverage has put the average in the parameters' place

	results [keptResults]result // of the last Submits, by their number
	submits uint64              // number of the last one

	// Staging for one batch, so that a step allocates nothing.
	step    StepScalars
	labels  []int32
	mix     []float32 // nil: the model takes one label a sample
	loss    []float32
	correct []float32
}

// NewSession opens the device, allocates the model's memory and initializes
// the parameters from the seed. The caller closes the session.
func NewSession(m *Model, o Options) (s *Session, err error) {
	defer recovered("open", &err)
	if err := m.Check(); err != nil {
		return nil, err
	}
	dev, err := openDevice(m, o)
	if err != nil {
		return nil, err
	}
	s = &Session{
		model: m, code: dev.Code(), dev: dev, seed: o.Seed, dropout: true,
		labels: make([]int32, m.Batch), loss: make([]float32, m.Batch), correct: make([]float32, m.Batch),
	}
	s.pipeline, _ = dev.(Pipeline)
	if s.code.Regions[Mix] > 0 {
		s.mix = make([]float32, m.Batch)
	}
	if s.seed == 0 {
		s.seed = m.Train.Seed
	}
	if err := s.Init(s.seed); err != nil {
		dev.Close()
		return nil, err
	}
	return s, nil
}

// Close frees the device's memory. Closing twice does nothing.
func (s *Session) Close() (err error) {
	defer recovered("close", &err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dev == nil {
		return nil
	}
	err = s.dev.Close()
	s.dev = nil
	return err
}

// recovered turns a panic below the package's boundary into an error: the
// drivers underneath panic, and a library must not take its caller down.
func recovered(what string, err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%s: %v", what, r)
	}
}

var errClosed = errors.New("the session is closed")

// lock takes the session for one operation, unless it is closed. What Submit
// left on its way is fetched first, so that nothing overtakes it.
func (s *Session) lock() error {
	err := s.lockBusy()
	if err == nil {
		s.fetchAll()
	}
	return err
}

// lockBusy is lock for operations that may run while others are on their way.
func (s *Session) lockBusy() error {
	s.mu.Lock()
	if s.dev == nil {
		s.mu.Unlock()
		return errClosed
	}
	return nil
}

// Model is what the session runs. It must not be changed.
func (s *Session) Model() *Model { return s.model }

// Device is the name of the device in use, for people.
func (s *Session) Device() string {
	if s.lock() != nil {
		return "closed"
	}
	defer s.mu.Unlock()
	return s.dev.Name()
}

// Precision is the precision computed in: the spec's, or fp32 on a device
// that has no other.
func (s *Session) Precision() string { return s.code.Precision }

// Code is what the device runs: kernels, launches and memory. It must not be
// changed.
func (s *Session) Code() *Code { return s.code }

// DeviceBytes is the memory the session has on a device that has memory of its
// own; 0 on the CPU.
func (s *Session) DeviceBytes() int64 {
	if s.lockBusy() != nil {
		return 0
	}
	defer s.mu.Unlock()
	if d, ok := s.dev.(interface{ MemoryBytes() int64 }); ok {
		return d.MemoryBytes()
	}
	return 0
}

// Cores says what a session on the CPU computes with: how many threads, and the
// instruction set of its kernels. No threads: it is on another device.
func (s *Session) Cores() (threads int, isa string) {
	if s.lockBusy() != nil {
		return 0, ""
	}
	defer s.mu.Unlock()
	if d, ok := s.dev.(interface{ Cores() (int, string) }); ok {
		return d.Cores()
	}
	return 0, ""
}

// Seed of initialization and dropout.
func (s *Session) Seed() uint64 { return s.seed }

// Updates is the number of optimizer updates made since the start of training.
func (s *Session) Updates() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updates
}

// SetDropout turns dropout and drop path in Grad on, which is the default, or
// off. Forward and Eval never drop anything.
func (s *Session) SetDropout(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropout = on
}

// SetSteps tells schedules that count epochs how many updates an epoch and the
// whole run have; 0 means unknown.
func (s *Session) SetSteps(perEpoch, total int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.perEpoch, s.total = perEpoch, total
}

// LR is the learning rate of the next update.
func (s *Session) LR() (float64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lr()
}

// SetLR makes lr the learning rate of all updates from now on, in place of the
// schedule's; 0 gives the schedule back.
func (s *Session) SetLR(lr float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fixedLR = lr
}

func (s *Session) lr() (float64, error) {
	if s.fixedLR != 0 {
		return s.fixedLR, nil
	}
	return s.model.Train.LR(s.updates+1, s.perEpoch, s.total)
}

// Init starts training anew: parameters from their initializers, their average
// the same, optimizer state zero, counters zero.
func (s *Session) Init(seed uint64) (err error) {
	defer recovered("init", &err)
	if err := s.lock(); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if err := s.dev.Write(Params.At(0), asBytes(s.model.initialParams(seed))); err != nil {
		return err
	}
	s.seed = seed
	return s.restart()
}

// Restart starts training anew from the parameters as they are: their average
// becomes the same, optimizer state and counters become zero, and dropout draws
// from seed.
func (s *Session) Restart(seed uint64) (err error) {
	defer recovered("restart", &err)
	if err := s.lock(); err != nil {
		return err
	}
	defer s.mu.Unlock()
	s.seed = seed
	return s.restart()
}

// restart zeroes what training accumulates besides the parameters.
func (s *Session) restart() error {
	for i := range s.model.StateNames {
		if err := s.dev.Clear(State0 + Region(i)); err != nil {
			return err
		}
	}
	s.updates, s.micro = 0, 0
	s.discard()
	if err := s.restartAverage(); err != nil {
		return err
	}
	return s.dev.Clear(Grads)
}

// discard forgets gradients that wait for Update.
func (s *Session) discard() { s.pending, s.pendingSum, s.pendingOf = 0, 0, 0 }

// Param returns a copy of a parameter's values.
func (s *Session) Param(name string) ([]float32, error) { return s.tensor(Params, name) }

// GradOf returns a copy of a parameter's gradient, as the last Grad calls since
// the last Update left it: of the mean loss of the effective batch, unclipped.
func (s *Session) GradOf(name string) ([]float32, error) { return s.tensor(Grads, name) }

// StateOf returns a copy of a parameter's optimizer state; state is one of
// Model.StateNames.
func (s *Session) StateOf(state, name string) ([]float32, error) {
	for i, n := range s.model.StateNames {
		if n == state {
			return s.tensor(State0+Region(i), name)
		}
	}
	return nil, fmt.Errorf("optimizer %s has no state %q, only %q", s.model.Train.Optimizer.Kind, state, s.model.StateNames)
}

func (s *Session) tensor(r Region, name string) (v []float32, err error) {
	defer recovered("read "+name, &err)
	p, err := s.model.Param(name)
	if err != nil {
		return nil, err
	}
	if err := s.lock(); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	v = make([]float32, p.Elems())
	return v, s.dev.Read(asBytes(v), r.At(int64(p.Offset)*4))
}

// SetParam replaces a parameter's values.
func (s *Session) SetParam(name string, v []float32) (err error) {
	defer recovered("write "+name, &err)
	p, err := s.model.Param(name)
	if err != nil {
		return err
	}
	if len(v) != p.Elems() {
		return fmt.Errorf("parameter %s has shape %v, %d elements; %d were given", name, p.Shape, p.Elems(), len(v))
	}
	if err := s.lock(); err != nil {
		return err
	}
	defer s.mu.Unlock()
	return s.dev.Write(Params.At(int64(p.Offset)*4), asBytes(v))
}

// asBytes views a slice of 4-byte numbers as its bytes in memory.
func asBytes[T float32 | int32](v []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), len(v)*4)
}
