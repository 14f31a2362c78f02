package e2e

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/runtime/golden"
	"github.com/vitgen/vitgen/runtime/safetensors"
	"github.com/vitgen/vitgen/spec"
)

// withTrain is a golden's spec without dropout and with other numbers in its
// train section.
func withTrain(t *testing.T, path string, replace ...string) *spec.Spec {
	t.Helper()
	src, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	text := string(src)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("%s has no %q", path, replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	return mustParse(t, filepath.Base(path), []byte(text))
}

// A batch of any size is computed as one of that size: rows of samples that
// are not there count for nothing.
func TestPartialBatches(t *testing.T) {
	t.Parallel()
	s := readSpec(t, "golden/specs/vit_small.yaml")
	m := compile(t, s, passes.Options{}, allSets)
	rng := rand.New(rand.NewPCG(5, 5))
	for n := 1; n <= s.Train.Batch; n++ {
		g := newReference(t, s, randomInputs(s, n, rng)).golden(t, 2, n%2 == 0, 99)
		m.verify(t, writeGolden(t, s, g), nil)
	}
}

// Two micro-batches of b make the update that one batch of 2b makes: the
// golden is computed for the one and verified by the other.
func TestAccumulationIsOneBatch(t *testing.T) {
	t.Parallel()
	const path = "golden/specs/vit_small.yaml"
	whole := readSpec(t, path) // batch 8
	split := withTrain(t, path, "batch: 8", "batch: 4\n  accumulate: 2")
	m := compile(t, split, passes.Options{}, unoptimized)
	rng := rand.New(rand.NewPCG(6, 6))
	for _, n := range []int{8, 7, 4, 3} {
		g := newReference(t, whole, randomInputs(whole, n, rng)).golden(t, 3, false, 0)
		m.verify(t, writeGolden(t, split, g), nil)
	}
}

// What is left of an epoch when it is no multiple of the effective batch makes
// an update too, with the mean of its gradients, whichever way the effective
// batch is made up.
func TestEpochsEndWithAnUpdate(t *testing.T) {
	t.Parallel()
	replace := []string{"train: 64", "train: 13", "dropout: 0.1", "dropout: 0"}
	const path = "golden/specs/vit_small.yaml"
	var weights []*safetensors.File
	for _, batch := range []string{"batch: 6", "batch: 2\n  accumulate: 3"} {
		s := withTrain(t, path, append(replace, "batch: 8", batch)...)
		dir := t.TempDir()
		m := compile(t, s, passes.Options{}, unoptimized)
		weights = append(weights, m.train(t, dir, nil, "--epochs", "2"))
		// 13 samples are two updates of 6 and one of 1.
		if got := lastStep(t, dir); got != 6 {
			t.Errorf("%s: %d updates in two epochs of 13 samples, want 6", batch, got)
		}
	}
	sameWeights(t, "batch 2 × 3 and 6", weights[1], weights[0], 1e-5)
}

// train runs the train command and returns the weights it leaves.
func (m *model) train(t *testing.T, dir string, env []string, args ...string) *safetensors.File {
	t.Helper()
	args = append([]string{"train", "--out", dir, "--data", "synthetic"}, args...)
	if out, status := m.run(t, env, args...); status != 0 {
		t.Fatalf("train: exit status %d\n%s", status, out)
	}
	f, err := safetensors.Read(filepath.Join(dir, "last.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// lastStep is the number of updates that metrics.jsonl ends with.
func lastStep(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var last struct{ Step int }
	if err := json.Unmarshal([]byte(lastLine(string(text))), &last); err != nil {
		t.Fatal(err)
	}
	return last.Step
}

// sameWeights compares all tensors of two files, within a relative norm.
func sameWeights(t *testing.T, what string, got, want *safetensors.File, tolerance float64) {
	t.Helper()
	if len(got.Tensors) != len(want.Tensors) || len(want.Tensors) == 0 {
		t.Fatalf("%s: %d and %d tensors", what, len(got.Tensors), len(want.Tensors))
	}
	for i := range want.Tensors {
		g, w := &got.Tensors[i], &want.Tensors[i]
		if row := golden.Compare(w.Name, g.Float64s(), w.Float64s(), tolerance); !row.OK || g.Name != w.Name {
			t.Errorf("%s: %s and %s differ by %g in relative norm, %g is allowed", what, g.Name, w.Name, row.RelNorm, tolerance)
		}
	}
}
