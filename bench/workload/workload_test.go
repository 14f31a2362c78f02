package workload

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDerive(t *testing.T) {
	src := "# head\nname: a   # its name\ndefine:\n  wide: 8\nmodel:\n  - linear: {out: 3}\ntrain:\n  batch: 4  # samples\n  optimizer: {sgd: {lr: 0.1}}\n"
	got, err := Derive([]byte(src), map[string]string{
		"name": "b_bf16", "define.wide": "16", "train.batch": "256", "train.precision": "bf16", "train.optimizer.sgd.lr": "1e-3",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "# head\nname: b_bf16   # its name\ndefine:\n  wide: 16\nmodel:\n  - linear: {out: 3}\ntrain:\n  precision: bf16\n  batch: 256  # samples\n  optimizer: {sgd: {lr: 1e-3}}\n"
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Error("derived (-want +got):\n" + d)
	}
	for path, want := range map[string]string{
		"nothing.at":                "no key",
		"train.optimizer.sgd.extra": "no key",
		"train.optimizer":           "no plain scalar",
		"name.of":                   "no map",
	} {
		if _, err := Derive([]byte(src), map[string]string{path: "1"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", path, err, want)
		}
	}
}

func TestSame(t *testing.T) {
	w := Workload{Batch: 8}
	trainer := Info{Batch: 4, Accumulate: 2}
	trainer.Parameters = append(trainer.Parameters, struct {
		Name  string `json:"name"`
		Shape []int  `json:"shape"`
	}{"w", []int{2, 3}})
	for _, c := range []struct {
		batch int
		peer  map[string][]int
		want  string // empty: the same
	}{
		{4, map[string][]int{"w": {2, 3}}, ""},
		{5, map[string][]int{"w": {2, 3}}, "update is 10 samples"},
		{4, map[string][]int{"w": {3, 2}}, "w is [2 3] here and [3 2] there"},
		{4, map[string][]int{"w": {2, 3}, "b": {3}}, "b is only there"},
		{4, nil, "w is [2 3] here and [] there"},
	} {
		trainer.Batch = c.batch
		err := w.Same(&trainer, c.peer)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("batch %d, parameters %v: error %v, want %q", c.batch, c.peer, err, c.want)
		}
	}
}

func TestSameWork(t *testing.T) {
	for _, c := range []struct {
		trainer, peer int64
		tiny, want    bool
	}{{1005, 1000, false, true}, {1100, 1000, false, false}, {1100, 1000, true, true}, {3000, 1000, true, false}} {
		if got := SameWork(c.trainer, c.peer, c.tiny); got != c.want {
			t.Errorf("%d and %d, tiny %v: %v", c.trainer, c.peer, c.tiny, got)
		}
	}
}
