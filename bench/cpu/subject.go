package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vitgen/vitgen/bench/measure"
	"github.com/vitgen/vitgen/bench/workload"
	"github.com/vitgen/vitgen/spec"
)

// subject is what a source became for this run: trainers, and the same for peers.
type subject struct {
	workload workload.Workload
	peer     workload.PeerFacts
	noJAX    string // why JAX takes no part; empty: it does
}

// trainer is where the program lies.
func (s *source) trainer(unpruned bool) string { return binary(s.pkg(unpruned)) }

func (s *source) pkg(unpruned bool) string {
	if unpruned {
		return s.name + "-unpruned"
	}
	return s.name
}

// prepare makes the trainers of a source and has the peers prove that they are
// the same model.
func (s *settings) prepare(ctx context.Context, src *source) (*subject, error) {
	logf("%s: compiling and building its trainers, checking the peers\n", src.file)
	text, err := os.ReadFile(src.file)
	if err != nil {
		return nil, err
	}
	if text, err = workload.Derive(text, src.set); err != nil {
		return nil, fmt.Errorf("%s: %w", src.file, err)
	}
	file := filepath.Join(s.scratch, src.name+".yaml")
	if err := os.WriteFile(file, text, 0o666); err != nil {
		return nil, err
	}
	sp, err := spec.Parse(file, text)
	if err != nil {
		return nil, err
	}
	for _, unpruned := range []bool{false, true} {
		if err := buildTrainer(ctx, file, src, unpruned); err != nil {
			return nil, err
		}
	}
	sub := &subject{workload: workload.Of(src.name, src.file, sp, src.model, workload.Counts{Chunk: 1})}
	if err := sub.workload.Write(s.workloadFile(src)); err != nil {
		return nil, err
	}
	return sub, s.checkPeers(ctx, src, sub)
}

// buildTrainer keeps the package where it was, so that what did not change is in
// Go's cache.
func buildTrainer(ctx context.Context, file string, src *source, unpruned bool) error {
	dir := filepath.Join(packagesDir, src.pkg(unpruned))
	compile := []string{binary("vitgen-compiler"), "compile", file, "--target", "cpu", "-o", dir}
	if unpruned {
		compile = append(compile, "--disable", "prune")
	}
	for _, argv := range [][]string{compile, {"go", "build", "-o", src.trainer(unpruned), "./" + filepath.Join(dir, "trainer")}} {
		if _, _, err := (measure.Process{Argv: argv}).Run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// checkPeers holds the peers' model to golden/models.py and to the trainer. JAX
// may be missing; without PyTorch there is nothing to hold to.
func (s *settings) checkPeers(ctx context.Context, src *source, sub *subject) error {
	reference := filepath.Join(s.scratch, "reference-"+src.name+".npz")
	if err := ask(ctx, &sub.peer, s.python, "bench/peers/peer_torch.py", "check", "--workload", s.workloadFile(src), "--dump", reference); err != nil {
		return err
	}
	var trainer workload.Info
	if err := ask(ctx, &trainer, src.trainer(false), "info", "--json"); err != nil {
		return err
	}
	if err := sub.workload.Same(&trainer, sub.peer.Parameters); err != nil {
		return err
	}
	var jax workload.PeerFacts
	switch err := ask(ctx, &jax, s.python, "bench/peers/peer_jax.py", "check", "--reference", reference); {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		sub.noJAX = err.Error()
		logf("warning: without JAX: %v\n", err)
	}
	return nil
}

// ask runs a command that prints one JSON object.
func ask(ctx context.Context, into any, argv ...string) error {
	out, _, err := measure.Process{Argv: argv}.Run(ctx)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("%s: its output is no JSON object: %w", argv, err)
	}
	return nil
}

// peerVersions adds those of the libraries.
func (s *settings) peerVersions(ctx context.Context, versions map[string]string) error {
	var torch, jax map[string]string
	if err := ask(ctx, &torch, s.python, "bench/peers/peer_torch.py", "versions"); err != nil {
		return err
	}
	if err := ask(ctx, &jax, s.python, "bench/peers/peer_jax.py", "versions"); err != nil && ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	for _, name := range []string{"torch", "python", "mkl", "onednn"} {
		if v := torch[name]; v != "" {
			versions[name] = v
		}
	}
	if v := jax["jax"]; v != "" {
		versions["jax"] = v
	}
	return nil
}
