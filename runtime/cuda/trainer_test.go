//go:build cuda

package cuda

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/trainer"
)

func runTrainer(t *testing.T, want int, m *runtime.Model, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	if status := trainer.Run(context.Background(), m, args, &out, &err); status != want {
		t.Fatalf("%v: exit %d, want %d\n%s%s", args, status, want, out.String(), err.String())
	}
	return out.String(), err.String()
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestTrain trains on the digits, with the data set on the device, with batches
// from the host, and launch by launch: the same bits.
func TestTrain(t *testing.T) {
	needDevice(t)
	t.Chdir(t.TempDir())
	m := model("fp32", runtime.Train{Epochs: 2, Seed: 1, Accumulate: 2, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 0.5, Momentum: 0.9}})
	out, _ := runTrainer(t, 0, m, "train", "--device", "cuda", "--out", "device")
	for _, want := range []string{"on cuda:0 (", "46 updates, 23 an epoch, batch 32 × 2\n", "epoch 2/2 ", "final validation accuracy 9"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	runTrainer(t, 0, m, "train", "--device", "cuda", "--out", "host", "--stream")
	t.Setenv("VITGEN_CUDA_SYNC", "1")
	runTrainer(t, 0, m, "train", "--device", "cuda", "--out", "sync")
	weights := read(t, "device/last.safetensors")
	for _, dir := range []string{"host", "sync"} {
		if !bytes.Equal(weights, read(t, filepath.Join(dir, "last.safetensors"))) {
			t.Errorf("%s: other weights", dir)
		}
	}
	eval, _ := runTrainer(t, 0, m, "eval", "--device", "cuda", "--weights", "device/last.safetensors")
	cpu, _ := runTrainer(t, 0, m, "eval", "--device", "cpu", "--weights", "device/last.safetensors")
	_, eval, _ = strings.Cut(eval, "\n") // the first line names the device
	_, cpu, _ = strings.Cut(cpu, "\n")
	if eval != cpu || !strings.Contains(eval, "validation loss") {
		t.Errorf("%s\non the CPU\n%s", eval, cpu)
	}
}

// TestDivergence: although the update has long been made, the report names the
// launch that made the first bad number.
func TestDivergence(t *testing.T) {
	needDevice(t)
	for _, stream := range []string{"--stream", "--stream=false"} {
		m := model("fp32", runtime.Train{Epochs: 3, Optimizer: runtime.Optimizer{Kind: "sgd", LR: 1e38}})
		dir := t.TempDir()
		_, stderr := runTrainer(t, 1, m, "train", "--device", "cuda", "--out", dir, stream)
		for _, want := range []string{"update 3: the training loss of 32 samples is ", "learning rate 1e+38", "replaying the epoch",
			"first bad number: k", "fake.yaml:"} {
			if !strings.Contains(stderr, want) {
				t.Errorf("no %q in\n%s", want, stderr)
			}
		}
		t.Log(stderr)
	}
}

// TestResume: though steps are submitted ahead of their losses, a checkpoint is
// of one moment, and what follows it is the same again.
func TestResume(t *testing.T) {
	needDevice(t)
	t.Chdir(t.TempDir())
	m := model("bf16", runtime.Train{Epochs: 2, Seed: 1, Accumulate: 2, Optimizer: runtime.Optimizer{Kind: "adamw", LR: 0.01, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8},
		EMA: runtime.EMA{Decay: 0.9}})
	for _, stream := range []string{"--stream", "--stream=false"} {
		runTrainer(t, 0, m, "train", "--device", "cuda", "--out", "x", "--overwrite", "--steps", "30", "--save-every", "7", "--keep-every", "7", "--every", "4", stream)
		want := map[string][]byte{} // the state says how long things took; replay compares the rest of it
		for _, name := range []string{"weights", "average"} {
			file := "x/checkpoints/000030/" + name + ".safetensors"
			want[file] = read(t, file)
		}
		for _, later := range []string{"23", "28", "30"} { // 23 is the end of the first epoch
			if err := os.RemoveAll("x/checkpoints/0000" + later); err != nil {
				t.Fatal(err)
			}
		}
		out, stderr := runTrainer(t, 0, m, "train", "--device", "cuda", "--resume", "--out", "x", stream)
		if !strings.Contains(out, "x goes on after update 21 (epoch 0.913)\n") || strings.Contains(stderr, "not bit for bit") {
			t.Errorf("%s%s", out, stderr)
		}
		for file, w := range want {
			if !bytes.Equal(w, read(t, file)) {
				t.Errorf("%s: other numbers in %s", stream, file)
			}
		}
		out, _ = runTrainer(t, 0, m, "replay", "--device", "cuda", "x", "--from", "x/checkpoints/000007")
		if !strings.Contains(out, "23 updates replayed") {
			t.Error(out)
		}
	}
}

func TestBench(t *testing.T) {
	needDevice(t)
	for _, input := range []string{"host", "device"} {
		m := model("bf16", runtime.Train{Accumulate: 2})
		args := []string{"bench", "--device", "cuda", "--steps", "3", "--warmup", "1", "--json"}
		if input == "host" {
			args = append(args, "--stream")
		}
		out, _ := runTrainer(t, 0, m, args...)
		var r struct {
			Input, Device, Precision string
			Steps                    []float64 `json:"step_ms_all"`
			DeviceBytes              int64     `json:"device_bytes"`
			Kernels                  []struct {
				Name string
				MS   float64
			}
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		if r.Input != input || !strings.HasPrefix(r.Device, "cuda:0") || r.Precision != "bf16" || len(r.Steps) != 3 || r.DeviceBytes < 5000 {
			t.Errorf("%+v", r)
		}
		names := ""
		for _, k := range r.Kernels {
			names += k.Name + " "
		}
		for _, want := range []string{"k01_linear_half", "k02_cross_entropy", "k03_linear_grad", "k04_sgd"} {
			if !strings.Contains(names, want) {
				t.Errorf("no %s among %s", want, names)
			}
		}
	}
	out, _ := runTrainer(t, 0, model("fp32", runtime.Train{}), "bench", "--device", "cuda", "--steps", "2")
	if !strings.Contains(out, "on the device") {
		t.Error(out)
	}
}
