package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vitgen/vitgen/bench/workload"
)

// prepare writes a workload for the peers and has them prove that it is the
// trainers' model. It returns the work of a step by PyTorch's count, or 0.
func (r *runner) prepare(w *workload.Workload) (flops int64, err error) {
	if err := w.Write(r.workloadFile(w)); err != nil {
		return 0, err
	}
	i := slices.IndexFunc(r.manifest.Models, func(m *model) bool { return m.Source == w.Name })
	if i < 0 {
		return 0, errors.New("there is no trainer of it")
	}
	trainer, err := r.info(r.manifest.Models[i])
	if err != nil {
		return 0, err
	}
	if r.tools.torch != "" {
		r.skip("bench", w.Name+": the peers' model", r.tools.torch)
		return 0, nil
	}
	reference := filepath.Join(r.dir, "reference-"+w.Name+".npz")
	defer os.Remove(reference)
	var torch, jax workload.PeerFacts
	if err := r.ask(&torch, "bench-"+w.Name+"-check-torch", r.set.python, "bench/peers/peer_torch.py", "check", "--workload", r.workloadFile(w), "--dump", reference); err != nil {
		return 0, err
	}
	if err := w.Same(&trainer.Info, torch.Parameters); err != nil {
		return 0, err
	}
	if r.tools.jax == "" {
		if err := r.ask(&jax, "bench-"+w.Name+"-check-jax", r.set.pythonJAX, "bench/peers/peer_jax.py", "check", "--reference", reference); err != nil {
			r.tools.jax = "its model is not golden/models.py's"
			r.fail("bench", w.Name+": JAX's model", err)
		}
	}
	remark := fmt.Sprintf("loss and gradients are golden/models.py's; %d parameter tensors are the trainer's", len(trainer.Parameters))
	if torch.Timm != "" {
		remark += "; timm " + torch.Timm + " agrees"
	}
	r.pass("bench", w.Name+": the peers' model", remark)
	return torch.StepFLOPs, nil
}

// ask runs a peer's command that prints one JSON object.
func (r *runner) ask(into any, log string, argv ...string) error {
	out, _, err := r.process(log, 10*time.Minute, r.peerEnv(), argv...)
	if err != nil {
		return err
	}
	return json.Unmarshal(out, into)
}

// info is what is used of a trainer's info --json.
type info struct {
	workload.Info
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
