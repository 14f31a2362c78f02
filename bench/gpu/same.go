package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// prepare writes a workload for the peers and has them prove that it is the
// trainers' model. It returns the work of a step by PyTorch's count, or 0.
func (r *runner) prepare(w *workload) (flops int64, err error) {
	data, err := json.MarshalIndent(w, "", "  ")
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(r.workloadFile(w), append(data, '\n'), 0o666); err != nil {
		return 0, err
	}
	want, err := r.parameters(w)
	if err != nil {
		return 0, err
	}
	if r.tools.torch != "" {
		r.skip("bench", w.Name+": the peers' model", r.tools.torch)
		return 0, nil
	}
	reference := filepath.Join(r.dir, "reference-"+w.Name+".npz")
	defer os.Remove(reference)
	var torch, jax peerFacts
	if err := r.ask(&torch, "bench-"+w.Name+"-check-torch", r.set.python, "bench/peers/peer_torch.py", "check", "--workload", r.workloadFile(w), "--dump", reference); err != nil {
		return 0, err
	}
	if err := sameParameters(want, torch.Parameters); err != nil {
		return 0, fmt.Errorf("the trainer and bench/peers/vit.py are different models: %w", err)
	}
	if r.tools.jax == "" {
		if err := r.ask(&jax, "bench-"+w.Name+"-check-jax", r.set.pythonJAX, "bench/peers/peer_jax.py", "check", "--reference", reference); err != nil {
			r.tools.jax = "its model is not golden/models.py's"
			r.fail("bench", w.Name+": JAX's model", err)
		}
	}
	remark := fmt.Sprintf("loss and gradients are golden/models.py's; %d parameter tensors are the trainer's", len(want))
	if torch.Timm != "" {
		remark += "; timm " + torch.Timm + " agrees"
	}
	r.pass("bench", w.Name+": the peers' model", remark)
	return torch.StepFLOPs, nil
}

// peerFacts is what a peer's check prints.
type peerFacts struct {
	Parameters map[string][]int `json:"parameters"`
	StepFLOPs  int64            `json:"step_flops"`
	Timm       string           `json:"timm"`
}

// ask runs a peer's command that prints one JSON object.
func (r *runner) ask(into any, log string, argv ...string) error {
	out, _, err := r.process(log, 10*time.Minute, r.peerEnv(), argv...)
	if err != nil {
		return err
	}
	return json.Unmarshal(out, into)
}

// parameters are the trainer's, by its info.
func (r *runner) parameters(w *workload) (map[string][]int, error) {
	i := slices.IndexFunc(r.manifest.Models, func(m *model) bool { return m.Source == w.Name })
	if i < 0 {
		return nil, errors.New("there is no trainer of it")
	}
	info, err := r.info(r.manifest.Models[i])
	if err != nil {
		return nil, err
	}
	if n := info.Batch * info.Accumulate; n != w.Batch {
		return nil, fmt.Errorf("the trainer's update is %d samples, the manifest says %d", n, w.Batch)
	}
	all := map[string][]int{}
	for _, p := range info.Parameters {
		all[p.Name] = p.Shape
	}
	return all, nil
}

// info is what is used of a trainer's info --json.
type info struct {
	Batch      int `json:"batch"`
	Accumulate int `json:"accumulate"`
	Parameters []struct {
		Name  string `json:"name"`
		Shape []int  `json:"shape"`
	} `json:"parameters"`
	CUDA struct {
		Launches []launch `json:"step_launches"`
	} `json:"cuda"`
}

func (r *runner) info(m *model) (i info, err error) {
	argv, env := r.trainer(m, "info", "--json", "--target", "cuda")
	out, _, err := r.process("bench-"+m.Name+"-info", time.Minute, env, argv...)
	if err != nil {
		return i, err
	}
	return i, json.Unmarshal(out, &i)
}

func sameParameters(ours, theirs map[string][]int) error {
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		if !slices.Equal(ours[name], theirs[name]) {
			return fmt.Errorf("%s is %v here and %v there", name, ours[name], theirs[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		if ours[name] == nil {
			return fmt.Errorf("%s is only there", name)
		}
	}
	return nil
}
