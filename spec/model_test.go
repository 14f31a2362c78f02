package spec

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func elems(s *Spec) int {
	n := 0
	for _, p := range s.Params() {
		n += p.Elems()
	}
	return n
}

// TestParameterCounts holds the examples to the numbers published for the
// models they name.
func TestParameterCounts(t *testing.T) {
	for file, want := range map[string]int{
		"vit.yaml":     6_457_866,
		"vit_b16.yaml": 86_567_656,
		// patches, positions, two blocks (attention, feed-forward, two norms), head
		"vit_draft.yaml": 512*257 + 1000*512 + 2*(4*512*513+2048*513+512*2049+4*512) + 10*513,
	} {
		if got := elems(parseFile(t, "../examples/"+file)); got != want {
			t.Errorf("%s has %d parameters, want %d", file, got, want)
		}
	}
}

// TestParametersMatchPyTorch compares names and shapes with the state_dicts in
// the golden files, which PyTorch made from models written apart from this.
func TestParametersMatchPyTorch(t *testing.T) {
	for _, name := range []string{"draft_small", "vit_small", "timm_small", "mixer_small", "norm_tc_small"} {
		file := read(t, "../golden/"+name+".safetensors")
		size := binary.LittleEndian.Uint64(file)
		header := map[string]json.RawMessage{}
		if err := json.Unmarshal(file[8:8+size], &header); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var want []string
		for key, raw := range header {
			param, found := strings.CutPrefix(key, "param.")
			if !found {
				continue
			}
			var tensor struct{ Shape []int }
			if err := json.Unmarshal(raw, &tensor); err != nil {
				t.Fatalf("%s: %s: %v", name, key, err)
			}
			want = append(want, fmt.Sprint(param, tensor.Shape))
		}
		var got []string
		for _, p := range parseFile(t, "../golden/specs/"+name+".yaml").Params() {
			got = append(got, fmt.Sprint(p.Name, p.Shape))
		}
		sort.Strings(got)
		sort.Strings(want)
		if diff := cmp.Diff(want, got); diff != "" || len(want) < 10 {
			t.Errorf("%s: PyTorch (-), spec (+), %d:\n%s", name, len(want), diff)
		}
	}
}

// model parses a list of layers that take 1×8×8 images to tokens; a flat head is
// added.
func model(t *testing.T, layers string) *Spec {
	t.Helper()
	s, err := Parse("model.yaml", []byte(wrap(layers)))
	if err != nil {
		t.Fatalf("\n%v", err)
	}
	return s
}

func wrap(layers string) string {
	return "vitgen: 1\nname: m\ninput: {image: [1, 8, 8], classes: 10}\nmodel:\n" + layers +
		"  - flatten\n  - linear: {name: head, out: 10}\n" +
		"train: {batch: 8, epochs: 1, optimizer: {sgd: {lr: 0.1}}}\ndata: digits\n"
}

// TestNames covers how layers are named with and without names around them.
func TestNames(t *testing.T) {
	s := model(t, `
  - patch_embed: {patch: 2, out: 4}
  - repeat:
      name: blks
      times: 2
      layers:
        - layernorm
        - residual:
            - layernorm: {name: ln.inner}
            - linear: {out: 4}
        - residual:
            name: mlp
            layers:
              - linear: {out: 4}
  - repeat:
      times: 2
      layers: [{layernorm: {name: n}}, layernorm]
  - block:
      name: tail
      layers: [gelu, layernorm]
  - block: {layers: [layernorm]}
`)
	var got []string
	for _, p := range s.Params() {
		if name, isWeight := strings.CutSuffix(p.Name, ".weight"); isWeight {
			got = append(got, name)
		}
	}
	want := []string{"0",
		"blks.0.0", "blks.0.ln.inner", "blks.0.1.1", "blks.0.mlp.0",
		"blks.1.0", "blks.1.ln.inner", "blks.1.1.1", "blks.1.mlp.0",
		"2.0.n", "2.0.1", "2.1.n", "2.1.1", "tail.1", "4.0", "head"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestShapes follows one sample through every kind of shape change.
func TestShapes(t *testing.T) {
	s, err := Parse("model.yaml", []byte(strings.Replace(wrap(`
  - patch_embed: {patch: 2, out: 6}
  - cls_token: {name: c}
  - pos_embed: {name: p, max_len: 20}
  - transpose
  - linear: {out: 5}
  - residual: [layernorm]
  - mean_pool: {skip: 2}
  - linear: {out: 3}
`), "  - flatten\n", "", 1)))
	if err != nil {
		t.Fatalf("\n%v", err)
	}
	var got []string
	WalkLayers(s.Model, func(l Layer) { got = append(got, l.Kind()+" "+l.Common().Out.String()) })
	want := []string{"patch_embed tokens [16, 6]", "cls_token tokens [17, 6]", "pos_embed tokens [17, 6]",
		"transpose tokens [6, 17]", "linear tokens [6, 5]", "residual tokens [6, 5]", "layernorm tokens [6, 5]",
		"mean_pool vector [5]", "linear vector [3]"}
	if diff := cmp.Diff(want, got[:len(want)]); diff != "" {
		t.Error(diff)
	}
	if p := s.Params()[3]; p.Name != "p" || !cmp.Equal(p.Shape, []int{1, 20, 6}) {
		t.Errorf("position table: %+v", p)
	}
}
