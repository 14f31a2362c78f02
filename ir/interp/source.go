package interp

import (
	"math"
	"slices"

	"github.com/vitgen/vitgen/ir"
)

// provide checks what the environment has for a source against the run-time
// shape of its result.
func (c *call) provide(what, name string, t Tensor, found bool) {
	want := c.out[0].Shape
	switch {
	case !found:
		c.fail("no %s %q was given", what, name)
	case !slices.Equal(t.Shape, want):
		c.fail("%s %q has shape %v, wants %v", what, name, t.Shape, want)
	case len(t.Data) != ir.Product(want):
		c.fail("%s %q has %d elements, wants %d", what, name, len(t.Data), ir.Product(want))
	default:
		c.out[0] = t
	}
}

func input(c *call) {
	name := c.node.Str("name")
	t, ok := c.env.Inputs[name]
	c.provide("input", name, t, ok)
	if c.err != nil || c.node.Out().Type.DType != ir.I32 {
		return
	}
	for i, x := range t.Data {
		if x != math.Trunc(x) || math.Abs(x) > math.MaxInt32 {
			c.fail("input %q[%d] is %v, wants an integer", name, i, x)
			return
		}
	}
}

func param(c *call) {
	name := c.node.Str("name")
	t, ok := c.env.Params[name]
	c.provide("parameter", name, t, ok)
}

func state(c *call) {
	name, slot := c.node.Str("name"), c.node.Str("slot")
	if c.env.State == nil {
		c.fail("no state was given, wants slot %s of %q", slot, name)
		return
	}
	c.provide(slot+" of", name, c.env.State(name, slot), true)
}

func scalar(c *call) {
	name := c.node.Str("name")
	x, ok := c.env.Scalars[name]
	if !ok {
		c.fail("no scalar %q was given", name)
		return
	}
	c.out[0].Data[0] = x
}

func constant(c *call) {
	for i := range c.out[0].Data {
		c.out[0].Data[i] = c.node.Float("value")
	}
}

func sinCos(c *call) {
	D := c.out[0].last()
	for i, row := range c.out[0].rows(D) {
		for col := range row {
			pair := col - col%2 // 2j for both columns of a pair
			angle := float64(i) / math.Pow(10000, float64(pair)/float64(D))
			if col%2 == 0 {
				row[col] = math.Sin(angle)
			} else {
				row[col] = math.Cos(angle)
			}
		}
	}
}
