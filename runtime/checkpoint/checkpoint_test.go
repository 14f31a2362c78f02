package checkpoint

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/internal/fake"
)

// testModel is small and keeps optimizer state and an average.
var testModel = sync.OnceValue(func() *runtime.Model {
	return fake.New([3]int{1, 2, 2}, 3, 4, runtime.Train{Seed: 1, EMA: runtime.EMA{Decay: 0.9},
		Optimizer: runtime.Optimizer{Kind: "adamw", LR: 0.01, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}})
})

// testSession has made n updates.
func testSession(t testing.TB, n int) *runtime.Session {
	t.Helper()
	m := testModel()
	s, err := runtime.NewSession(m, runtime.Options{Device: "cpu", Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.SetClasses([]string{"a", "b", "c"}); err != nil {
		t.Fatal(err)
	}
	for k := range n {
		if _, _, err := s.Step([]float32{1, 2, float32(k), 4}, []int32{int32(k % 3)}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// bestOf is the best of the first n updates: each odd one is better than all
// before.
func bestOf(n int) int { return n - 1 + n%2 }

var snapshots = map[int]*runtime.Snapshot{} // after so many updates

// someCheckpoint is one after n updates.
func someCheckpoint(t testing.TB, n int) *Checkpoint {
	t.Helper()
	if snapshots[n] == nil {
		snapshots[n] = &runtime.Snapshot{}
		if err := testSession(t, n).Snapshot(snapshots[n]); err != nil {
			t.Fatal(err)
		}
	}
	c := &Checkpoint{Snapshot: snapshots[n]}
	for k := range n {
		c.Losses = append(c.Losses, math.Sqrt(float64(k+1))/3)
	}
	value := 1.0 / 3
	c.State = State{
		Epoch: 2, Batch: 1, LR: 0.1, Validated: -1, Seconds: 0.25,
		EpochSums: Sums{Loss: math.Pi, Correct: 3, Samples: 7, Batches: 2, Seconds: 1e-9},
		Best:      &Score{Updates: bestOf(n), Epoch: 0.5, Loss: math.E, Accuracy: 1.0 / 7},
		Early:     EarlyStop{Best: &value, Bad: 2}, Skipped: 1, Window: []float64{0.1, 1e300, 5e-324},
		Plan:    Plan{Epochs: 9, PerEpoch: 5, Total: 45, Every: 2, Metrics: "exact", Best: "accuracy", DataDir: "data"},
		Receipt: Receipt{Model: "fake", Seed: math.MaxUint64, Spec: "a: 1\n", Samples: [2]int{50, 20}},
	}
	return c
}

// mustRead reads a checkpoint of the test model.
func mustRead(t *testing.T, r *Run, updates int) *Checkpoint {
	t.Helper()
	stored, err := Read(r.Path(updates))
	if err != nil {
		t.Fatal(err)
	}
	c, err := stored.Checkpoint(testModel())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustLink(t *testing.T, where, dir, link string, updates int) {
	t.Helper()
	got, err := os.Readlink(filepath.Join(dir, link))
	if want := fmt.Sprintf("checkpoints/%06d/average.safetensors", updates); err != nil || got != want {
		t.Errorf("%s: %s names %s, %v; want %s", where, link, got, err, want)
	}
	if _, err := os.Stat(filepath.Join(dir, link)); err != nil {
		t.Errorf("%s: %v", where, err)
	}
}

// What is read is what was written, to the last bit.
func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	r := NewRun(dir)
	c := someCheckpoint(t, 3)
	if err := r.Save(testModel(), c); err != nil {
		t.Fatal(err)
	}
	got := mustRead(t, r, 3)
	if !reflect.DeepEqual(got.State, c.State) {
		t.Errorf("the state is\n%+v\nwritten\n%+v", got.State, c.State)
	}
	if !reflect.DeepEqual(got.Losses, c.Losses) {
		t.Errorf("the losses are %v, written %v", got.Losses, c.Losses)
	}
	if !reflect.DeepEqual(got.Snapshot.Files(testModel()), c.Snapshot.Files(testModel())) {
		t.Error("other tensors")
	}
	// A session that goes on from it is the one that it was taken of.
	one, two := testSession(t, 3), testSession(t, 0)
	if err := two.Restore(got.Snapshot); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		a, _, errA := one.Step([]float32{1, 2, 3, 4}, []int32{1})
		b, _, errB := two.Step([]float32{1, 2, 3, 4}, []int32{1})
		if errA != nil || errB != nil || a != b {
			t.Errorf("loss %v, %v; restored %v, %v", a, errA, b, errB)
		}
	}
	if two.ClassName(2) != "c" {
		t.Errorf("class 2 is %s", two.ClassName(2))
	}
	weights, err := Read(r.Path(3))
	if err != nil {
		t.Fatal(err)
	}
	if meta := weights.files.Average.Metadata; meta["vitgen.classes"] != `["a","b","c"]` || meta["format"] != "pt" {
		t.Errorf("the average's metadata is %v", meta)
	}
}

// Prune keeps the last, the best, those of every so many updates, and the one
// before the first update.
func TestPrune(t *testing.T) {
	r := NewRun(t.TempDir())
	for _, n := range []int{0, 2, 4, 5, 6, 7, 8} {
		c := someCheckpoint(t, n)
		c.State.Best = &Score{Updates: min(n, 5)}
		if err := r.Save(testModel(), c); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		every int
		want  string
	}{{2, "[0 2 4 5 6 8]"}, {3, "[0 5 6 8]"}, {0, "[0 5 8]"}} {
		if err := r.Prune(&Score{Updates: 5}, c.every); err != nil {
			t.Fatal(err)
		}
		if all, err := r.Checkpoints(); err != nil || fmt.Sprint(all) != c.want {
			t.Errorf("every %d: %v, %v; want %s", c.every, all, err, c.want)
		}
	}
	// Other things in the folder are nobody's business.
	for _, name := range []string{"12", "mine", "0000012", "-00001"} {
		if err := os.Mkdir(filepath.Join(r.root(), name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Prune(nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := r.Clear(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(r.root()); err != nil || len(entries) != 4 {
		t.Errorf("left are %v, %v", entries, err)
	}
}

// A checkpoint of another model is refused with a list of what does not fit.
func TestForeign(t *testing.T) {
	r := NewRun(t.TempDir())
	if err := r.Save(testModel(), someCheckpoint(t, 2)); err != nil {
		t.Fatal(err)
	}
	stored, err := Read(r.Path(2))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*runtime.Model{
		fake.New([3]int{1, 2, 3}, 3, 4, testModel().Train),
		fake.New([3]int{1, 2, 2}, 3, 4, runtime.Train{Optimizer: runtime.Optimizer{Kind: "sgd", Momentum: 0.9}}),
	} {
		if _, err := stored.Checkpoint(m); err == nil || !strings.Contains(err.Error(), r.Path(2)) || !strings.Contains(err.Error(), "do not fit model fake") {
			t.Errorf("%v", err)
		}
	}
}

// Receipts tell what differs.
func TestDifferences(t *testing.T) {
	was := Receipt{Model: "vit", SpecFile: "vit.yaml", Spec: "a: 1\nb: 2\nc: 3\n", SpecHash: "11111111111111111111", Generator: "1", Target: "cpu", Kernels: "22222222222222222222",
		Data: "digits", DataHash: "33333333333333333333", Samples: [2]int{5, 2}, Device: "cpu (2 threads, avx2)", ISA: "avx2", Precision: "fp32"}
	for what, c := range map[string]struct {
		change func(*Receipt)
		want   string
	}{
		"nothing":   {func(*Receipt) {}, "[]"},
		"threads":   {func(r *Receipt) { r.Device = "cpu (4 threads, avx2)" }, "[]"},
		"generator": {func(r *Receipt) { r.Generator = "2" }, "[]"},
		"unknown":   {func(r *Receipt) { *r = Receipt{} }, "[]"},
		"model":     {func(r *Receipt) { r.Model, r.SpecFile = "mlp", "mlp.yaml" }, "[it is of model vit (vit.yaml), this program trains mlp (mlp.yaml)]"},
		"spec":      {func(r *Receipt) { r.Spec, r.SpecHash = "a: 1\nb: 4\nc: 3\n", "4" }, "[the spec was another (hash 111111111111, now 4):\n  - b: 2\n  + b: 4]"},
		"longer":    {func(r *Receipt) { r.Spec, r.SpecHash = "a: 1\nb: 2\nd\ne\nf\ng\nh\nc: 3\n", "4" }, "[the spec was another (hash 111111111111, now 4):\n  + d\n  + e\n  + f\n  + g\n  + … 1 more lines]"},
		"kernels":   {func(r *Receipt) { r.Kernels, r.Generator = "5", "2" }, "[the spec is the same, but its cpu kernels are others: 222222222222 by vitgen 1, 5 by vitgen 2]"},
		"data":      {func(r *Receipt) { r.Data = "mnist" }, "[it was trained on digits, not mnist]"},
		"data hash": {func(r *Receipt) { r.DataHash = "6" }, "[the data set digits has changed: its hash was 333333333333, now 6]"},
		"samples":   {func(r *Receipt) { r.Samples[1] = 3 }, "[the data set digits had 5 training and 2 validation samples, now 5 and 3]"},
	} {
		now := was
		c.change(&now)
		if got := fmt.Sprint(was.Differences(&now)); got != c.want {
			t.Errorf("%s: %s\nwant %s", what, got, c.want)
		}
	}
	now := was
	now.Device, now.ISA = "cpu (2 threads, avx512)", "avx512"
	if got := was.Computes(&now); got != "it was computed on cpu (2 threads, avx2) in fp32, this is cpu (2 threads, avx512) in fp32" {
		t.Error(got)
	}
	if now = was; was.Computes(&now) != "" {
		t.Error(was.Computes(&now))
	}
}
