package runtime

import (
	"fmt"
	"math"
	goruntime "runtime"
	"sync"

	"github.com/vitgen/vitgen/runtime/rng"
)

func (in *Init) check() error {
	ok := true
	switch in.Kind {
	case "zeros", "ones", "constant":
	case "normal", "uniform":
		ok = in.A >= 0
	case "trunc_normal":
		ok = in.A >= 0 && in.B > 0
	case "pytorch":
		ok = in.FanIn > 0
	default:
		return fmt.Errorf("unknown initializer %q", in.Kind)
	}
	if !ok {
		return fmt.Errorf("initializer %s with A = %g, B = %g, fan-in %d", in.Kind, in.A, in.B, in.FanIn)
	}
	return nil
}

// Fill writes the initial values of the parameter called name. They depend on
// seed, name and index only: adding or reordering parameters moves nothing.
func (in *Init) Fill(dst []float32, seed uint64, name string) {
	s := rng.New(seed, "init:"+name)
	var draw func() float64
	switch in.Kind {
	case "zeros":
		draw = func() float64 { return 0 }
	case "ones":
		draw = func() float64 { return 1 }
	case "constant":
		draw = func() float64 { return in.A }
	case "normal":
		draw = func() float64 { return in.A * s.Normal() }
	case "trunc_normal":
		// By the inverse of the distribution function: unlike redrawing it
		// takes one number for each value, however narrow the interval.
		inside := math.Erf(in.B / (in.A * math.Sqrt2))
		draw = func() float64 {
			u := inside * (2*s.Float64() - 1)
			x := in.A * math.Sqrt2 * math.Erfinv(u)
			return math.Max(-in.B, math.Min(in.B, x))
		}
		if in.A == 0 {
			draw = func() float64 { return 0 }
		}
	case "uniform", "pytorch":
		bound := in.A
		if in.Kind == "pytorch" {
			bound = 1 / math.Sqrt(float64(in.FanIn))
		}
		draw = func() float64 { return bound * (2*s.Float64() - 1) }
	default:
		panic("BUG: unchecked initializer " + in.Kind)
	}
	for i := range dst {
		dst[i] = float32(draw())
	}
}

// initialParams is the whole parameter arena at the start of training,
// padding zero. Each parameter has a stream of its own, so they are filled
// side by side.
func (m *Model) initialParams(seed uint64) []float32 {
	arena := make([]float32, m.ParamElems)
	next := make(chan *Param)
	var wg sync.WaitGroup
	for range goruntime.GOMAXPROCS(0) {
		wg.Go(func() {
			for p := range next {
				p.Init.Fill(arena[p.Offset:p.Offset+p.Elems()], seed, p.Name)
			}
		})
	}
	for i := range m.Params {
		next <- &m.Params[i]
	}
	close(next)
	wg.Wait()
	return arena
}
