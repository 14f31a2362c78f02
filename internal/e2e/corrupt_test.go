package e2e

import (
	"encoding/binary"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// Whatever tensor of a golden is wrong, verify notices and says which.
//
// A wrong expectation is named itself. A wrong input shows in what depends on
// it: the image and labels in the loss, a parameter at least in its own value
// after the first step.
func TestCorruptGoldensFail(t *testing.T) {
	t.Run("vit_small", func(t *testing.T) {
		t.Parallel()
		m := compile(t, readSpec(t, "golden/specs/vit_small.yaml"), passes.Options{}, allSets)
		corruptEach(t, m, goldenFile(t, "vit_small"), func(string) bool { return true })
	})
	// By norm and sample, and with inputs made by formula: one of each kind.
	t.Run("vit", func(t *testing.T) {
		t.Parallel()
		m := compile(t, readSpec(t, "examples/vit.yaml"), passes.Options{}, allSets)
		seen := map[string]bool{}
		corruptEach(t, m, goldenFile(t, "vit"), func(name string) bool {
			kind, _, _ := strings.Cut(name, ".")
			if seen[kind] {
				return false
			}
			seen[kind] = true
			return true
		})
		for _, kind := range []string{"logits", "loss", "grad_norm", "grad_sample"} {
			if !seen[kind] {
				t.Errorf("the golden has no %s", kind)
			}
		}
	})
}

// corruptEach corrupts the chosen tensors of a golden one at a time.
func corruptEach(t *testing.T, m *model, file string, chosen func(name string) bool) {
	f, err := safetensors.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.safetensors")
	for i := range f.Tensors {
		x := &f.Tensors[i]
		if !chosen(x.Name) {
			continue
		}
		ways := map[string]func(*safetensors.Tensor){"nudged": nudge, "NaN": poison}
		if x.Name == "label" {
			ways = map[string]func(*safetensors.Tensor){"nudged": relabel}
		}
		sound := slices.Clone(x.Data)
		for way, corrupt := range ways {
			corrupt(x)
			if err := safetensors.Write(bad, f); err != nil {
				t.Fatal(err)
			}
			out, status := m.run(t, nil, "verify", "--golden", bad)
			wants := []string{x.Name}
			if way == "nudged" {
				wants = effects(x.Name)
			}
			for _, want := range wants {
				if status != 1 || !strings.Contains(lastLine(out), want) {
					t.Errorf("%s %s: exit status %d, want 1 and a message with %s:\n%s", x.Name, way, status, want, misses(out))
				}
			}
			copy(x.Data, sound)
		}
	}
}

// effects are the tensors that verify must name when one is not what it was.
func effects(tensor string) []string {
	switch param, isParam := strings.CutPrefix(tensor, "param."); {
	case tensor == "image":
		return []string{"logits", "loss", "grad.", "step1.loss"}
	case tensor == "label":
		return []string{"loss", "grad."}
	case isParam:
		return []string{"step1.param." + param}
	}
	return []string{tensor}
}

// nudge moves the largest element by a hundredth.
func nudge(x *safetensors.Tensor) {
	v := x.Float64s()
	at := 0
	for i := range v {
		if math.Abs(v[i]) > math.Abs(v[at]) {
			at = i
		}
	}
	if v[at] == 0 {
		set(x, at, 0.01)
		return
	}
	set(x, at, v[at]*1.01)
}

// poison makes the last element a NaN.
func poison(x *safetensors.Tensor) { set(x, x.Len()-1, math.NaN()) }

// relabel gives the first sample another class.
func relabel(x *safetensors.Tensor) { x.Data[0] ^= 1 }

func set(x *safetensors.Tensor, at int, v float64) {
	switch x.DType {
	case safetensors.F32:
		binary.LittleEndian.PutUint32(x.Data[4*at:], math.Float32bits(float32(v)))
	case safetensors.F64:
		binary.LittleEndian.PutUint64(x.Data[8*at:], math.Float64bits(v))
	default:
		panic("BUG: corrupting a " + string(x.DType))
	}
}

// lastLine is the message a failing trainer ends with.
func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}
