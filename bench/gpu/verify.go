package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vitgen/vitgen/bench/probes"
)

// probes compares the dump of the probes on this device with the simulator's.
func (r *runner) probes() {
	const name = "layouts and rounding"
	if why := r.spent(); why != "" {
		r.skip("probes", name, why)
		return
	}
	program := r.manifest.Probes // of a rehearsal
	if program == "" {
		if r.tools.nvcc == "" || r.tools.arch == "" {
			r.skip("probes", name, "they are compiled here, and that takes a GPU and nvcc (PATH, CUDA_HOME, /usr/local/cuda or --nvcc)")
			return
		}
		dir, err := os.MkdirTemp("", "vitgen-probes-")
		if err != nil {
			r.fail("probes", name, err)
			return
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "probes")
		if err := probes.BuildCUDA(r.ctx, r.tools.nvcc, ".", program, r.tools.arch); err != nil {
			r.fail("probes", name, err)
			return
		}
	}
	if err := r.compareProbes(program); err != nil {
		r.fail("probes", name, err)
		return
	}
	r.pass("probes", name, fmt.Sprintf("%d probes agree with the simulator", len(r.res.Probes)))
}

func (r *runner) compareProbes(program string) error {
	out, _, err := r.process("probes", 5*time.Minute, nil, program)
	if err != nil {
		return err
	}
	got, err := probes.Parse(bytes.NewReader(out))
	if err != nil {
		return err
	}
	want, err := probes.Parse(strings.NewReader(probes.Expected))
	if err != nil {
		return err
	}
	r.res.Probes = probes.Compare(want, got)
	var bad []string
	for _, v := range r.res.Probes {
		switch {
		case !v.OK:
			bad = append(bad, v.Name+": "+v.Problem)
		case v.Problem != "":
			logf("note     %s: %s\n", v.Name, v.Problem)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("%d of %d probes differ from the simulator\n%s", len(bad), len(r.res.Probes), strings.Join(bad, "\n"))
	}
	return nil
}

// goldens replays every golden, and trains.
func (r *runner) goldens() {
	for _, m := range r.models(func(m *model) bool { return m.Golden != "" && !(r.set.Quick && !m.Small) }) {
		argv, env := r.trainer(m, "verify", "--device", "cuda", "--golden", m.Golden)
		r.verify("goldens", m.Name, 10*time.Minute, env, argv...)
	}
	for _, precision := range r.set.Precisions {
		if m := r.model("vit_small-" + precision); m != nil {
			r.trainTwice(m)
		}
	}
}

// trainSteps are enough for a difference in any step to show.
const trainSteps = "20"

// trainTwice holds two runs of training to the same bits, and in fp32 the losses
// to the CPU's.
func (r *runner) trainTwice(m *model) {
	name := m.Name + " trained twice"
	if why := r.spent(); why != "" {
		r.skip("goldens", name, why)
		return
	}
	dir, err := os.MkdirTemp("", "vitgen-train-")
	if err != nil {
		r.fail("goldens", name, err)
		return
	}
	defer os.RemoveAll(dir)
	train := func(run, device string) (losses []float64, weights []byte, err error) {
		out := filepath.Join(dir, run)
		argv, env := r.trainer(m, "train", "--device", device, "--data", "synthetic", "--steps", trainSteps, "--every", "1", "--out", out)
		if run == "again" && r.manifest.Rehearsal {
			env = append(env, "VITGEN_SIM_SEED=2")
		}
		if _, _, err := r.process("goldens-"+m.Name+"-train-"+run, 5*time.Minute, env, argv...); err != nil {
			return nil, nil, err
		}
		if losses, err = readLosses(filepath.Join(out, "metrics.jsonl")); err != nil {
			return nil, nil, err
		}
		weights, err = os.ReadFile(filepath.Join(out, "last.safetensors"))
		return losses, weights, err
	}
	losses, weights, err := train("once", "cuda")
	var again []byte
	if err == nil {
		_, again, err = train("again", "cuda")
	}
	if err == nil && !bytes.Equal(weights, again) {
		err = errors.New("two runs of " + trainSteps + " steps end with different weights")
	}
	if err != nil {
		r.fail("goldens", name, err)
		return
	}
	r.pass("goldens", name, trainSteps+" steps, the same weights bit for bit")
	if m.Precision != "fp32" {
		return
	}
	onCPU, _, err := train("cpu", "cpu")
	if err == nil {
		err = compareLosses(onCPU, losses)
	}
	if err != nil {
		r.fail("goldens", m.Name+" against the CPU", err)
		return
	}
	r.pass("goldens", m.Name+" against the CPU", trainSteps+" steps with dropout, losses within 1e-4")
}

// readLosses takes the training losses from metrics.jsonl.
func readLosses(file string) ([]float64, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []float64
	for line := range bytes.Lines(data) {
		var row struct {
			Loss *float64 `json:"train_loss"`
		}
		if err := json.Unmarshal(line, &row); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if row.Loss != nil {
			all = append(all, *row.Loss)
		}
	}
	return all, nil
}

func compareLosses(want, got []float64) error {
	if len(want) == 0 || len(want) != len(got) {
		return fmt.Errorf("%d losses on the CPU, %d on CUDA", len(want), len(got))
	}
	for i := range want {
		if d := math.Abs(got[i]/want[i] - 1); !(d < 1e-4) {
			return fmt.Errorf("loss %d is %.7g on the CPU, %.7g on CUDA", i+1, want[i], got[i])
		}
	}
	return nil
}

// sanitizerTools are compute-sanitizer's: accesses, races in shared memory, reads
// of what nobody wrote, barriers.
var sanitizerTools = []string{"memcheck", "racecheck", "initcheck", "synccheck"}

// sanitizer runs small models under each tool: a golden replayed, two steps trained.
func (r *runner) sanitizer() {
	switch {
	case r.manifest.Rehearsal:
		r.skip("sanitizer", "compute-sanitizer", "a rehearsal has no use for it; the simulator's own checks are in the tests")
		return
	case r.tools.sanitizer == "":
		r.skip("sanitizer", "compute-sanitizer", "it is in neither PATH, CUDA_HOME nor /usr/local/cuda")
		return
	}
	small := r.models(func(m *model) bool { return m.Source == "vit_small" || m.Source == "timm_small" && !r.set.Quick })
	if len(small) == 0 {
		r.skip("sanitizer", "compute-sanitizer", "neither vit_small nor timm_small is among the binaries")
	}
	for _, tool := range sanitizerTools {
		for _, m := range small {
			r.sanitize(tool, m, "verify", "verify", "--device", "cuda", "--golden", m.Golden)
			r.sanitize(tool, m, "train", "train", "--device", "cuda", "--data", "synthetic", "--steps", "2", "--out", filepath.Join(r.dir, "sanitizer-train"))
		}
	}
	os.RemoveAll(filepath.Join(r.dir, "sanitizer-train"))
}

func (r *runner) sanitize(tool string, m *model, name string, args ...string) {
	if name == "train" {
		os.RemoveAll(filepath.Join(r.dir, "sanitizer-train")) // training writes into a folder of its own
	}
	argv, env := r.trainer(m, args...)
	argv = append([]string{r.tools.sanitizer, "--tool", tool, "--error-exitcode", "86", "--print-limit", "20"}, argv...)
	r.verify("sanitizer", strings.Join([]string{tool, m.Name, name}, " "), 10*time.Minute, env, argv...)
}
