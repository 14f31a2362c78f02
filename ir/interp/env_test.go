package interp

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/ir"
)

const sources = `graph g "g.yaml" train {
  %0 = input {name="image", type=f32[3|2]} : f32[3|2]
  %1 = input {name="label", type=i32[3|]} : i32[3|]
  %2 = param {name="w", type=f32[1,2]} : f32[1,2]
  %3 = state {name="w", slot="state0", type=f32[1,2]} : f32[1,2]
  %4 = scalar {name="lr"} : f32[]
  %5 = linear %0, %2 : f32[3|1]
  return image=%0, label=%1, w=%2, s=%3, lr=%4, y=%5
}
`

func sourceEnv() Env {
	return Env{
		Inputs: map[string]Tensor{"image": {[]int{2, 2}, vals(1, 2, 3, 4)}, "label": {[]int{2}, vals(0, -1)}},
		Params: map[string]Tensor{"w": {[]int{1, 2}, vals(5, 6)}},
		State: func(name, slot string) Tensor {
			if name != "w" || slot != "state0" {
				panic("asked for " + slot + " of " + name)
			}
			return Tensor{[]int{1, 2}, vals(7, 8)}
		},
		Scalars: map[string]float64{"lr": 0.5},
		N:       2,
	}
}

func mustParse(t *testing.T, text string) *ir.Graph {
	t.Helper()
	g, err := ir.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// What the environment holds comes out, with two samples in a batch of three.
func TestSources(t *testing.T) {
	got, err := Eval(mustParse(t, sources), sourceEnv())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Tensor{
		"image": {[]int{2, 2}, vals(1, 2, 3, 4)}, "label": {[]int{2}, vals(0, -1)},
		"w": {[]int{1, 2}, vals(5, 6)}, "s": {[]int{1, 2}, vals(7, 8)},
		"lr": {[]int{}, vals(0.5)}, "y": {[]int{2, 1}, vals(17, 39)},
	}
	if len(got) != len(want) {
		t.Errorf("%d outputs, want %d", len(got), len(want))
	}
	for name, w := range want {
		if g := got[name]; !slices.Equal(g.Shape, w.Shape) || !slices.Equal(g.Data, w.Data) {
			t.Errorf("%s is %v, want %v", name, g, w)
		}
	}
}

func TestEnvErrors(t *testing.T) {
	tests := []struct {
		name string
		harm func(e *Env)
		want string
	}{
		{"no input", func(e *Env) { delete(e.Inputs, "image") }, `g: input: no input "image" was given`},
		{"batch", func(e *Env) { e.N = 3 }, `g: input: input "image" has shape [2 2], wants [3 2]`},
		{"too many samples", func(e *Env) { e.N = 4 }, `g: 4 samples, want 1 to 3`},
		{"negative samples", func(e *Env) { e.N = -1 }, `g: -1 samples, want 1 to 3`},
		{"full batch by default", func(e *Env) { e.N = 0 }, `wants [3 2]`},
		{"no integer", func(e *Env) { e.Inputs["label"] = Tensor{[]int{2}, vals(0, 0.5)} }, `g: input: input "label"[1] is 0.5, wants an integer`},
		{"NaN label", func(e *Env) { e.Inputs["label"] = Tensor{[]int{2}, vals(math.NaN(), 0)} }, `is NaN, wants an integer`},
		{"no parameter", func(e *Env) { e.Params = nil }, `g: param: no parameter "w" was given`},
		{"parameter shape", func(e *Env) { e.Params["w"] = Tensor{[]int{2, 1}, vals(5, 6)} }, `parameter "w" has shape [2 1], wants [1 2]`},
		{"parameter elements", func(e *Env) { e.Params["w"] = Tensor{[]int{1, 2}, vals(5)} }, `parameter "w" has 1 elements, wants 2`},
		{"no state", func(e *Env) { e.State = nil }, `g: state: no state was given, wants slot state0 of "w"`},
		{"state shape", func(e *Env) { e.State = func(string, string) Tensor { return Tensor{} } }, `state0 of "w" has shape [], wants [1 2]`},
		{"no scalar", func(e *Env) { e.Scalars = nil }, `g: scalar: no scalar "lr" was given`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := sourceEnv()
			tt.harm(&env)
			if _, err := Eval(mustParse(t, sources), env); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

// Evaluation writes to nothing it was given, and forgets no value that a later
// node or an output still needs.
func TestEvalValues(t *testing.T) {
	g := mustParse(t, sources)
	env := sourceEnv()
	all, err := EvalValues(g, env)
	if err != nil {
		t.Fatal(err)
	}
	outs, err := Eval(g, env)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range g.Nodes {
		if _, ok := all[n.Out()]; !ok {
			t.Errorf("%v is missing", n.Out())
		}
	}
	for _, o := range g.Outputs {
		if !slices.Equal(outs[o.Name].Data, all[o.Value].Data) {
			t.Errorf("%s is %v, but %v among all values", o.Name, outs[o.Name], all[o.Value])
		}
	}
	if fresh := sourceEnv(); !slices.Equal(env.Inputs["image"].Data, fresh.Inputs["image"].Data) {
		t.Error("the input was written to")
	}
}

// Known answers of Random123 1.14, examples/kat_vectors, philox4x32 10.
func TestPhilox(t *testing.T) {
	tests := []struct {
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{[4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, [2]uint32{0xffffffff, 0xffffffff},
			[4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0},
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	}
	for _, tt := range tests {
		if got := philox4x32(tt.counter, tt.key); got != tt.want {
			t.Errorf("philox(%x, %x) = %x, want %x", tt.counter, tt.key, got, tt.want)
		}
	}
}

// Which word, half and counter an element's draw comes from.
func TestDraw(t *testing.T) {
	zero := []uint16{0xe8d5, 0x6627, 0xc58d, 0xe169, 0xac4c, 0xbc57, 0xdbd8, 0x9b00} // the first known answer, low half first
	for half, want := range zero {
		if got := draw16(0, 0, 0, int64(16*half)); got != want {
			t.Errorf("element %d draws %04x, want %04x", 16*half, got, want)
		}
	}
	// The last element of all is the high half of word 3 at counter 2³²−1.
	w := philox4x32([4]uint32{math.MaxUint32, 0, 7, 9}, [2]uint32{0x89abcdef, 0x01234567})
	if got := draw16(0x0123456789abcdef, 9, 7, ir.MaxDropoutIndex-1); got != uint16(w[3]>>16) {
		t.Errorf("the last element draws %04x, want %04x", got, w[3]>>16)
	}
	// 128 elements of one block take 16 counters; the next block goes on.
	w = philox4x32([4]uint32{16 + 5, 0, 0, 0}, [2]uint32{})
	if got := draw16(0, 0, 0, 128+5+16); got != uint16(w[0]>>16) {
		t.Errorf("element 149 draws %04x, want %04x", got, w[0]>>16)
	}
}

func TestDropMultiplier(t *testing.T) {
	if got := DropMultiplier(0, 0, 0, 0, 0); got != 1 {
		t.Errorf("p = 0 multiplies by %v", got)
	}
	// e8d5 is the draw at index 0: kept while the threshold is at most that.
	at := func(thr float64) float64 { return DropMultiplier(0, 0, 0, 0, thr/65536) }
	if got, want := at(0xe8d5), float64(float32(65536.0/(65536-0xe8d5))); got != want {
		t.Errorf("threshold e8d5 multiplies by %v, want %v", got, want)
	}
	if got := at(0xe8d6); got != 0 {
		t.Errorf("threshold e8d6 multiplies by %v, want 0", got)
	}
	if a, b := at(0xe8d4+0.4), at(0xe8d4); a != b {
		t.Errorf("the threshold is not rounded: %v and %v", a, b)
	}
}

// The keep rate is within five standard deviations, and the mean of the
// multiplier near one.
func TestKeepRate(t *testing.T) {
	const n = 1 << 16
	for _, p := range []float64{0.1, 0.5, 0.9} {
		kept := 0
		for i := range int64(n) {
			if DropMultiplier(42, 3, 5, i, p) != 0 {
				kept++
			}
		}
		if dev := math.Abs(float64(kept)-n*(1-p)) / math.Sqrt(n*p*(1-p)); dev > 5 {
			t.Errorf("p = %v keeps %d of %d: %.1f deviations off", p, kept, n, dev)
		}
	}
}

// One draw per sample: of 17 samples, the first draws e8d5, the last 6627.
func TestDropPath(t *testing.T) {
	got, err := apply(ir.OpDropPath, ir.A("p", 0.75, "site", 0), []operand{b(upTo(34), 17, 2)})
	if err != nil {
		t.Fatal(err)
	}
	y := got[0].Data
	if !slices.Equal(y[:2], vals(4, 8)) || !slices.Equal(y[32:], vals(0, 0)) {
		t.Errorf("first sample %v, last %v; want [4 8] and [0 0]", y[:2], y[32:])
	}
}

// Sites that are off are the identity.
func TestDropoutOff(t *testing.T) {
	g := mustParse(t, `graph g "" forward {
  %0 = input {name="image", type=f32[9|2,2]} : f32[9|2,2]
  %1 = dropout %0 {first_row=0, p=0.5, rows=2, site=0} : f32[9|2,2]
  %2 = drop_path %1 {p=0.5, site=1} : f32[9|2,2]
  return y=%2
}
`)
	env := Env{Inputs: map[string]Tensor{"image": {[]int{9, 2, 2}, upTo(36)}}}
	for _, on := range []bool{false, true} {
		env.Dropout = on
		got, err := Eval(g, env)
		if err != nil {
			t.Fatal(err)
		}
		if same := slices.Equal(got["y"].Data, upTo(36)); same == on {
			t.Errorf("dropout on: %v, but identity: %v", on, same)
		}
	}
}
