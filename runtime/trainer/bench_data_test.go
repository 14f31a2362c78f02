package trainer

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
)

// TestBenchData: bench trains on the spec's data set too, augmented, or says in
// a line why it does not.
func TestBenchData(t *testing.T) {
	m := digits(64, runtime.Train{Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.01}})
	m.Data.Augment = runtime.Augment{Padding: 1, Flip: 0.5}
	bench := func(args ...string) (b benchResult) {
		t.Helper()
		text := mustRun(t, m, append([]string{"bench", "--steps", "30", "--warmup", "2", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(text), &b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	// 32 updates are more than the 23 of an epoch.
	d := bench().Data
	if d == nil || d.Name != "digits" || d.Input != "host" || d.Updates != 30 || d.StepMS <= 0 || d.Times <= 0 || !(d.Wait >= 0 && d.Wait <= 1) || d.Missing != "" {
		t.Errorf("%+v", d)
	}
	if d := bench("--data", "none").Data; d != nil {
		t.Errorf("%+v, and none was asked for", d)
	}
	m.Data = runtime.Data{Name: "cifar10"}
	if d := bench("--data-dir", t.TempDir()).Data; d == nil || d.Name != "cifar10" || !strings.Contains(d.Missing, "put there the files data_batch_1.bin") {
		t.Errorf("%+v", d)
	}
	text := mustRun(t, m, "bench", "--steps", "1", "--warmup", "0", "--data-dir", t.TempDir())
	if !strings.Contains(text, "waits for data: not measured: data set cifar10 is not in ") {
		t.Error(text)
	}
	if status, _, stderr := run(t, context.Background(), m, "bench", "--steps", "1", "--data", "mnist", "--data-dir", t.TempDir()); status != 1 || !strings.Contains(stderr, "train-images-idx3-ubyte") {
		t.Errorf("a data set that was asked for is absent: exit %d, %s", status, stderr)
	}
}
