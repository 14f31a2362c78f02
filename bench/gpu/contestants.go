package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/vitgen/vitgen/bench/workload"
)

// contestant is one of the programs compared: each round starts it anew.
type contestant struct {
	name, what string
	peer       bool
	optional   bool // takes part only when asked for
	argv, env  []string
	cache      string // where it keeps what its first step compiles; empty: it compiles nothing
	absent     string // why it cannot take part; empty: it can
}

// peer is how a peer's contestant differs from the others.
type peer struct {
	name, what string
	jax        bool
	flags      []string
	compiles   bool
	optional   bool
	only       func(w *workload.Workload, precision string) bool // nil: always
	slow       bool                                              // compiles for minutes: not in quick runs
	noCPU      bool                                              // needs CUDA, or takes minutes on a CPU: not in rehearsals
}

func noAttentionDropout(w *workload.Workload, precision string) bool { return w.Model.Dropout == 0 }
func ofD2L(w *workload.Workload, precision string) bool              { return w.Model.Family == "d2l" }

var peers = []peer{
	{name: "torch", what: "eager, fused optimizer, scaled_dot_product_attention", flags: []string{"--mode", "eager"}},
	{name: "torch-graph", what: "eager, the whole step captured as one CUDA graph", flags: []string{"--mode", "graph"}, noCPU: true},
	{name: "torch-compile", what: "torch.compile of model and loss", flags: []string{"--mode", "compile"}, compiles: true, noCPU: true},
	{name: "torch-reduce-overhead", what: "torch.compile, mode reduce-overhead", flags: []string{"--mode", "reduce-overhead"}, compiles: true, noCPU: true},
	{name: "torch-max-autotune", what: "torch.compile, mode max-autotune", flags: []string{"--mode", "max-autotune"}, compiles: true, slow: true, noCPU: true},
	{name: "torch-compile-graph", what: "torch.compile, then the whole step as one CUDA graph", flags: []string{"--mode", "compile-graph"}, compiles: true, noCPU: true},
	{name: "jax", what: "JAX, the whole step under jit", jax: true, compiles: true},
	{name: "jax-library", what: "JAX, with jax.nn.dot_product_attention", jax: true, flags: []string{"--attention", "library"}, compiles: true, only: noAttentionDropout, noCPU: true},
	{name: "torch-book", what: "eager, attention as in the book", flags: []string{"--mode", "eager", "--attention", "plain"}, optional: true, only: ofD2L},
	{name: "torch-pruned", what: "as torch-compile-graph, last block pruned by hand", flags: []string{"--mode", "compile-graph", "--prune"}, optional: true, compiles: true, noCPU: true},
}

const (
	ours         = "vitgen"
	oursUnpruned = "vitgen-unpruned"
)

func contestantNames() []string {
	all := []string{ours, oursUnpruned}
	for _, p := range peers {
		all = append(all, p.name)
	}
	return all
}

// counts of one process: the workload's, or few.
func (r *runner) counts(w *workload.Workload) workload.Counts {
	if r.set.Quick {
		return workload.Counts{Warmup: 2, Steps: 4, Chunk: 2}
	}
	return w.Counts
}

func countFlags(c workload.Counts) []string {
	return []string{"--warmup", strconv.Itoa(c.Warmup), "--steps", strconv.Itoa(c.Steps)}
}

// field lists who takes part in a workload in one precision, in the order of
// their turns.
func (r *runner) field(w *workload.Workload, precision string) []contestant {
	var all []contestant
	for _, t := range []struct{ name, suffix, what string }{
		{ours, "", "all passes"}, {oursUnpruned, "-unpruned", "without row pruning: the work the peers do"},
	} {
		m := r.model(w.Name + "-" + precision + t.suffix)
		if m == nil {
			continue // not built
		}
		argv, env := r.trainer(m, slices.Concat([]string{"bench", "--json", "--data", "none", "--device", "cuda"}, countFlags(r.counts(w)))...)
		all = append(all, contestant{name: t.name, what: t.what, argv: argv, env: env})
	}
	for _, p := range peers {
		if p.only == nil || p.only(w, precision) {
			all = append(all, r.peer(p, w, precision))
		}
	}
	return slices.DeleteFunc(all, func(c contestant) bool {
		in := slices.Contains(r.set.Only, c.name) || len(r.set.Only) == 0 && !c.optional
		return !in && !slices.Contains(r.set.With, c.name)
	})
}

func (r *runner) peer(p peer, w *workload.Workload, precision string) contestant {
	c := contestant{name: p.name, what: p.what, peer: true, optional: p.optional, env: r.peerEnv()}
	n := r.counts(w)
	device := "cuda"
	if r.manifest.Rehearsal {
		device = "cpu"
	}
	common := slices.Concat([]string{"bench", "--workload", r.workloadFile(w), "--device", device, "--precision", precision, "--chunk", strconv.Itoa(n.Chunk)}, p.flags, countFlags(n))
	if p.compiles {
		c.cache = filepath.Join(r.set.cache, w.Name+"-"+precision+"-"+p.name)
	}
	if p.jax {
		c.argv = append([]string{r.set.pythonJAX, "bench/peers/peer_jax.py"}, common...)
		c.absent = r.tools.jax
		c.env = append(c.env, "VITGEN_JAX_CACHE="+c.cache)
	} else {
		c.argv = append([]string{r.set.python, "bench/peers/peer_torch.py"}, common...)
		c.absent = r.tools.torch
		if p.compiles {
			c.env = append(c.env, "TORCHINDUCTOR_CACHE_DIR="+c.cache, "TRITON_CACHE_DIR="+filepath.Join(c.cache, "triton"))
		}
	}
	switch {
	case r.manifest.Rehearsal && p.noCPU:
		c.absent = "needs CUDA, or takes minutes without, and this is a rehearsal"
	case r.manifest.Rehearsal && precision != "bf16":
		c.absent = "one precision is enough of the peers, and this is a rehearsal"
	case r.set.Quick && p.slow:
		c.absent = "compiles for minutes, and this is a quick run"
	}
	return c
}

// workloadFile is where peers read what to train.
func (r *runner) workloadFile(w *workload.Workload) string {
	return filepath.Join(r.dir, "workload-"+w.Name+".json")
}

// cold reports whether a contestant finds nothing that it compiled before.
func (c *contestant) cold() bool {
	if c.cache == "" {
		return false
	}
	_, err := os.Stat(c.cache)
	return errors.Is(err, os.ErrNotExist)
}
