package runtime

import (
	"fmt"
	"math"
)

// NonFinite is a number that is NaN or infinite, and where it came from.
type NonFinite struct {
	// Where it was found first: a parameter or an image before the step, or an
	// output of a launch.
	Param   *Param
	Image   int // sample of the batch; -1 otherwise
	Program ProgramID
	Launch  int // of the program; -1 if no launch made it
	Kernel  *Kernel
	Layer   string // of the launch
	Pos     string // "vit.yaml:21:15"

	Element int     // index in the parameter, the image, or the output
	Value   float64 // NaN or an infinity
}

func (n *NonFinite) String() string {
	switch {
	case n.Param != nil:
		return fmt.Sprintf("parameter %s (%s) has %v at element %d before the step", n.Param.Name, n.Param.Pos, n.Value, n.Element)
	case n.Launch < 0:
		return fmt.Sprintf("image %d of the batch has %v at element %d", n.Image, n.Value, n.Element)
	}
	return fmt.Sprintf("%s (layer %s, %s: %s) is the first of the %s program to write %v, at element %d of an output",
		n.Kernel.Name, n.Layer, n.Pos, n.Kernel.Doc, n.Program, n.Value, n.Element)
}

// FindNaN replays a micro-batch, as Submit would run it now, launch by launch,
// and looks at what each launch wrote (Kernel.Outs): it returns the first number
// that is not finite, or nil if there is none. Parameters and images are looked
// at before. If b completes the effective batch, the update is replayed too.
// The session is left in the middle of a step; Restore it.
func (s *Session) FindNaN(b Samples, total int) (found *NonFinite, err error) {
	defer recovered("replay", &err)
	if err := s.lock(); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if err := s.checkSamples(&b); err != nil {
		return nil, err
	}
	if found, err := s.badParam(); found != nil || err != nil {
		return found, err
	}
	if found := s.badImage(&b); found != nil {
		return found, nil
	}
	if err := s.prepare(&b, &total); err != nil {
		return nil, err
	}
	n := b.Len()
	scalars := s.scalars(total, s.dropout)
	if err := s.addUpdate(scalars); err != nil {
		return nil, err
	}
	if found, err := s.replay(Grad, n, scalars); found != nil || err != nil {
		return found, err
	}
	if s.pendingSum+n < total {
		return nil, nil
	}
	return s.replay(Update, s.model.Batch, scalars)
}

// replay runs a program over n samples.
func (s *Session) replay(id ProgramID, n int, scalars *StepScalars) (*NonFinite, error) {
	var buffer []byte
	for i := range s.code.Programs[id] {
		l := &s.code.Programs[id][i]
		if err := s.dev.RunLaunch(id, i, n, scalars); err != nil {
			return nil, err
		}
		kernel := &s.code.Kernels[l.Kernel]
		for _, out := range kernel.Outs {
			var at int
			var value float64
			var err error
			if buffer, at, value, err = s.badElement(buffer, l.Args[out.Arg], out, n); err != nil {
				return nil, err
			}
			if at >= 0 {
				return &NonFinite{Image: -1, Program: id, Launch: i, Kernel: kernel, Layer: l.Layer, Pos: l.Pos, Element: at, Value: value}, nil
			}
		}
	}
	return nil, nil
}

// extent is what a span covers with n samples: rows, elements from row to row,
// and bytes in all.
func (o *Span) extent(n int) (rows, stride, size int) {
	rows, stride = max(o.Rows, 1), o.Stride
	if o.PerSample {
		rows *= n
	}
	if stride == 0 {
		stride = o.Elems
	}
	return rows, stride, ((rows-1)*stride + o.Elems) * o.bytes()
}

// bytes of an element.
func (o *Span) bytes() int {
	if o.Half {
		return 2
	}
	return 4
}

// badElement looks through a span and returns the index of its first element
// that is not finite, -1 if there is none. buffer is used again from call to
// call.
func (s *Session) badElement(buffer []byte, ref Ref, span Span, n int) ([]byte, int, float64, error) {
	rows, stride, size := span.extent(n)
	if cap(buffer) < size {
		buffer = make([]byte, size)
	}
	buffer = buffer[:size]
	if err := s.dev.Read(buffer, ref); err != nil {
		return buffer, 0, 0, err
	}
	for r := range rows {
		for i := range span.Elems {
			v := float64(element(buffer[(r*stride+i)*span.bytes():], span.Half))
			if !finite(v) {
				return buffer, r*span.Elems + i, v, nil
			}
		}
	}
	return buffer, -1, 0, nil
}

// element is the float32 or bf16 that b starts with.
func element(b []byte, half bool) float32 {
	if half {
		return math.Float32frombits((uint32(b[0]) | uint32(b[1])<<8) << 16)
	}
	return math.Float32frombits(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24)
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func (s *Session) badParam() (*NonFinite, error) {
	arena := make([]float32, s.model.ParamElems)
	if err := s.dev.Read(asBytes(arena), Params.At(0)); err != nil {
		return nil, err
	}
	return s.model.badParam(arena), nil
}

// BadParam is the first parameter of the snapshot that is not finite; nil if all
// are.
func (t *Snapshot) BadParam(m *Model) *NonFinite { return m.badParam(t.params) }

func (m *Model) badParam(arena []float32) *NonFinite {
	for i := range m.Params {
		p := &m.Params[i]
		for j, v := range arena[p.Offset : p.Offset+p.Elems()] {
			if !finite(float64(v)) {
				return &NonFinite{Param: p, Image: -1, Launch: -1, Pos: p.Pos, Element: j, Value: float64(v)}
			}
		}
	}
	return nil
}

// badImage looks at images that come from the host; those on the device are
// made of a table, which is finite.
func (s *Session) badImage(b *Samples) *NonFinite {
	if b.Index != nil {
		return nil
	}
	e := s.model.ImageElems()
	for i, v := range b.Images[:b.Len()*e] {
		if !finite(float64(v)) {
			return &NonFinite{Image: i / e, Launch: -1, Element: i % e, Value: float64(v)}
		}
	}
	return nil
}
