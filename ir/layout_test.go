package ir_test

import (
	"testing"

	"github.com/vitgen/vitgen/ir"
)

// slotWant is the slot of a value, by the IDs of the text.
type slotWant struct {
	id, root       int
	home           ir.Home
	name           string
	offset, stride int64
}

func TestLayout(t *testing.T) {
	tests := []struct {
		name, text string
		want       []slotWant
	}{
		{"sources", `graph g "" train {
  %0 = input {name="image", type=f32[2|3]} : f32[2|3]
  %1 = param {name="w", type=f32[4,3]} : f32[4,3]
  %2 = state {name="w", slot="grad", type=f32[4,3]} : f32[4,3]
  %3 = state {name="w", slot="state0", type=f32[4,3]} : f32[4,3]
  %4 = state {name="w", slot="state1", type=f32[4,3]} : f32[4,3]
  %5 = scalar {name="lr"} : f32[]
  %6 = sincos {type=f32[2,4]} : f32[2,4]
  return
}`, []slotWant{
			{0, 0, ir.HomeInput, "image", 0, 3}, {1, 1, ir.HomeParam, "w", 0, 3}, {2, 2, ir.HomeGrad, "w", 0, 3},
			{3, 3, ir.HomeState0, "w", 0, 3}, {4, 4, ir.HomeState1, "w", 0, 3}, {5, 5, ir.HomeNone, "", 0, 1},
			{6, 6, ir.HomeConst, "", 0, 4},
		}},
		{"views of views", `graph g "" train {
  %0 = input {name="image", type=f32[2|3,8]} : f32[2|3,8]
  %1 = relu %0 : f32[2|3,8]
  %2 = slice_last %1 {from=2, to=6} : f32[2|3,4]
  %3 = slice_last %2 {from=1, to=3} : f32[2|3,2]
  %4 = reshape %1 {shape=(24)} : f32[2|24]
  %5 = param {name="w", type=f32[5,2,2]} : f32[5,2,2]
  %6 = reshape %5 {shape=(5,4)} : f32[5,4]
  %7 = slice_first %6 {from=3, to=5} : f32[2,4]
  return
}`, []slotWant{
			{2, 1, ir.HomeArena, "", 2, 8}, {3, 1, ir.HomeArena, "", 3, 8}, {4, 1, ir.HomeArena, "", 0, 24},
			{7, 5, ir.HomeParam, "w", 12, 4},
		}},
		{"concatenations", `graph g "" train {
  %0 = input {name="image", type=f32[2|3]} : f32[2|3]
  %1 = relu %0 : f32[2|3]
  %2 = silu %0 : f32[2|3]
  %3 = concat_last %1, %2 : f32[2|6]
  %4 = param {name="q", type=f32[3]} : f32[3]
  %5 = param {name="k", type=f32[3]} : f32[3]
  %6 = concat_first %4, %5 : f32[6]
  %7 = add %3, %6 : f32[2|6]
  return logits=%7
}`, []slotWant{
			{1, 3, ir.HomeArena, "", 0, 6}, {2, 3, ir.HomeArena, "", 3, 6}, {3, 3, ir.HomeArena, "", 0, 6},
			{6, 4, ir.HomeParam, "q", 0, 6},
		}},
		{"gradients of stacked weights", `graph g "" train {
  %0 = input {name="image", type=f32[2|3]} : f32[2|3]
  %1 = linear_dw %0, %0 : f32[3,3]
  %2 = slice_first %1 {from=0, to=1} : f32[1,3]
  %3 = slice_first %1 {from=1, to=3} : f32[2,3]
  return grad.k=%3, grad.q=%2
}`, []slotWant{
			{1, 1, ir.HomeGrad, "q", 0, 3}, {2, 1, ir.HomeGrad, "q", 0, 3}, {3, 1, ir.HomeGrad, "q", 3, 3},
		}},
		{"updates", `graph g "" train {
  %0 = param {name="w", type=f32[3]} : f32[3]
  %1 = state {name="w", slot="grad", type=f32[3]} : f32[3]
  %2 = state {name="w", slot="state0", type=f32[3]} : f32[3]
  %3 = scalar {name="lr"} : f32[]
  %4, %5 = sgd_momentum %0, %1, %2, %3 {momentum=0.9, nesterov=false, weight_decay=0.0} : f32[3], f32[3]
  return param.w=%4, state0.w=%5
}`, []slotWant{{4, 4, ir.HomeParam, "w", 0, 3}, {5, 5, ir.HomeState0, "w", 0, 3}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := parse(t, tt.text)
			slots, err := g.Layout()
			if err != nil {
				t.Fatal(err)
			}
			byID := map[int]ir.Slot{}
			for v, s := range slots {
				byID[v.ID] = s
			}
			for _, w := range tt.want {
				s := byID[w.id]
				if got := (slotWant{w.id, s.Root.ID, s.Home, s.Name, s.Offset, s.Stride}); got != w {
					t.Errorf("%%%d lies at %+v, want %+v", w.id, got, w)
				}
			}
		})
	}
}

// What cannot share memory without a copy.
func TestLayoutErrors(t *testing.T) {
	const head = "graph g \"\" train {\n%0 = input {name=\"image\", type=f32[2|3]} : f32[2|3]\n"
	tests := []struct{ name, body, want string }{
		{"input in a concatenation", `%1 = concat_last %0, %0 : f32[2|6] return`,
			"%0 of input cannot be placed inside %1: it has memory of its own"},
		{"slice in a concatenation", `%1 = relu %0 : f32[2|3]
%2 = slice_last %1 {from=0, to=1} : f32[2|1]
%3 = concat_last %2, %1 : f32[2|4] return`,
			"%2 of slice_last cannot be placed inside %3: it has memory of its own"},
		{"in two concatenations", `%1 = relu %0 : f32[2|3]
%2 = concat_last %1 : f32[2|3]
%3 = concat_last %1 : f32[2|3] return`, "%1 lies in two concatenations"},
		{"reshape across a stride", `%1 = relu %0 : f32[2|3]
%2 = slice_last %1 {from=0, to=2} : f32[2|2]
%3 = reshape %2 {shape=(2,1)} : f32[2|2,1] return`, "reshape of %2, whose rows are not contiguous"},
		{"gradient that is an input", `return grad.w=%0`, "output grad.w is %0, which has memory of its own"},
		{"one gradient for two", `%1 = linear_dw %0, %0 : f32[3,3] return grad.a=%1, grad.b=%1`,
			"outputs grad.b and that of a share %1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(t, head+tt.body+" }").Layout()
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}
