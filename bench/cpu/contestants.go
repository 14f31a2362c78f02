package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// contestant is one of the programs compared: each round starts it anew.
type contestant struct {
	name, what string
	peer, jax  bool
	optional   bool // takes part only when asked for
	slow       bool // compiles for half a minute and more
	argv       []string
	env        []string
	// cache is where a peer keeps what its first step compiles, which is done once,
	// and timed, before the rounds; empty: it compiles nothing. Peers that compile
	// the same share it.
	cache string
}

const (
	ours         = "vitgen"
	oursUnpruned = "vitgen-unpruned"
)

// peer is a program of bench/peers and how it is told to run.
type peer struct {
	name, what string
	jax        bool
	flags      []string
	env        []string
	compiles   bool
	in         pass
	optional   bool              // takes part only when asked for
	only       func(r *row) bool // nil: always
}

// pass says in which comparisons a peer takes part.
type pass int

const (
	training pass = 1 << iota
	inference
)

// tuned has glibc keep large tensors' memory instead of returning it to the kernel
// and getting it back page by page, and torch.compile call its kernels from C++;
// hugePages has PyTorch ask for pages of 2 MiB; frozen has torch.compile take
// weights for constants and pack them for oneDNN.
var (
	tuned     = []string{"MALLOC_MMAP_MAX_=0", "MALLOC_TRIM_THRESHOLD_=68719476736", "TORCHINDUCTOR_CPP_WRAPPER=1"}
	hugePages = append(slices.Clone(tuned), "THP_MEM_ALLOC_ENABLE=1")
	frozen    = append(slices.Clone(tuned), "TORCHINDUCTOR_FREEZING=1")
)

// noCompilers keeps PyTorch from starting compiler processes. It does not change
// what is compiled, nor where it is cached.
const noCompilers = "TORCHINDUCTOR_COMPILE_THREADS=1"

func compiled(flags ...string) []string { return append([]string{"--mode", "compile"}, flags...) }

// book is attention as the book writes it, which torch.compile makes faster
// training steps of than of PyTorch's own function.
func book(flags ...string) []string { return append([]string{"--attention", "plain"}, flags...) }

func noDropout(r *row) bool { return r.images > 0 || r.source.model.Dropout == 0 }

var peers = []peer{
	{name: "torch", what: "eager, attention as in the book", flags: book("--unfused"), in: training},
	{name: "torch-sdpa", what: "eager, F.scaled_dot_product_attention", flags: []string{"--unfused"}, in: training, optional: true},
	{name: "torch-compile", what: "torch.compile of model and loss", flags: book(compiled("--unfused")...), compiles: true, in: training},
	{name: "torch-tuned", what: "torch.compile with C++ wrapper, fused optimizer, malloc that keeps memory", flags: book(compiled()...), env: tuned, compiles: true, in: training},
	{name: "torch", what: "eager, F.scaled_dot_product_attention, inference mode", in: inference},
	{name: "torch-compile", what: "torch.compile, inference mode", flags: compiled(), compiles: true, in: inference},
	{name: "torch-frozen", what: "torch.compile with frozen weights and C++ wrapper, malloc that keeps memory", flags: compiled(), env: frozen, compiles: true, in: inference},
	{name: "jax", what: "the whole step under jit", jax: true, compiles: true, in: training | inference},
	{name: "jax-library", what: "jit, jax.nn.dot_product_attention", jax: true, flags: []string{"--attention", "library"}, compiles: true, in: training | inference, optional: true, only: noDropout},
	{name: "torch-hugepages", what: "as tuned, with huge pages", flags: book(compiled()...), env: hugePages, compiles: true, in: training, optional: true},
	{name: "torch-autotune", what: "as tuned, mode max-autotune", flags: book("--mode", "max-autotune"), env: tuned, compiles: true, in: training | inference, optional: true},
	{name: "torch-pruned", what: "as tuned, last block pruned by hand", flags: book(compiled("--prune")...), env: tuned, compiles: true, in: training | inference, optional: true},
}

// knownNames are those of all contestants.
func knownNames() []string {
	all := []string{ours, oursUnpruned}
	for _, p := range peers {
		if !slices.Contains(all, p.name) {
			all = append(all, p.name)
		}
	}
	return all
}

func checkNames(names []string) error {
	for _, name := range names {
		if known := knownNames(); !slices.Contains(known, name) {
			return fmt.Errorf("there is no contestant %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}

// field lists who takes part in a row, in the order of their turns.
func (s *settings) field(r *row) []contestant {
	var all []contestant
	for _, t := range []struct {
		name, what string
		unpruned   bool
	}{{ours, "all passes", false}, {oursUnpruned, "without row pruning: the work the peers do", true}} {
		argv := []string{r.source.trainer(t.unpruned), "bench", "--json", "--data", "none"}
		if r.images > 0 {
			argv = append(argv, "--forward", "--batch", strconv.Itoa(r.images))
		}
		all = append(all, contestant{name: t.name, what: t.what, argv: append(argv, s.flags(r)...)})
	}
	asked := slices.Concat(s.Only, s.With)
	for _, c := range s.allPeers(r) {
		// Quick runs leave out what compiles for long.
		if !c.optional && !(s.Quick && c.slow) || slices.Contains(asked, c.name) {
			all = append(all, c)
		}
	}
	return slices.DeleteFunc(all, func(c contestant) bool { return len(s.Only) > 0 && !slices.Contains(asked, c.name) })
}

// flags are those that trainers and peers share.
func (s *settings) flags(r *row) []string {
	return []string{"--device", "cpu", "--threads", strconv.Itoa(s.Threads), "--warmup", strconv.Itoa(r.counts.Warmup), "--steps", strconv.Itoa(r.counts.Steps)}
}

// allPeers are those that can take part in a row.
func (s *settings) allPeers(r *row) (all []contestant) {
	in := training
	if r.images > 0 {
		in = inference
	}
	for _, p := range peers {
		if p.in&in != 0 && (p.only == nil || p.only(r)) {
			all = append(all, s.peer(&p, r))
		}
	}
	return all
}

func (s *settings) peer(p *peer, r *row) contestant {
	c := contestant{name: p.name, what: p.what, peer: true, jax: p.jax, optional: p.optional, slow: p.compiles && !p.jax, env: slices.Clone(p.env)}
	program := "bench/peers/peer_torch.py"
	if p.jax {
		program = "bench/peers/peer_jax.py"
	}
	c.argv = slices.Concat([]string{s.python, program, "bench", "--workload", s.workloadFile(r.source)}, p.flags, s.flags(r))
	if r.images > 0 {
		c.argv = append(c.argv, "--pass", "forward", "--batch", strconv.Itoa(r.images))
	}
	if p.compiles {
		c.cache = filepath.Join(s.scratch, "cache", r.name+p.code())
	}
	switch {
	case p.jax:
		c.env = append(c.env, "VITGEN_JAX_CACHE="+c.cache)
	case p.compiles:
		c.env = append(c.env, "TORCHINDUCTOR_CACHE_DIR="+c.cache, noCompilers)
		fallthrough
	default:
		c.env = append(c.env, "OMP_NUM_THREADS="+strconv.Itoa(s.Threads))
	}
	return c
}

// code names what a peer compiles: optimizer and malloc are no part of it.
func (p *peer) code() string {
	name := "-torch"
	if p.jax {
		name = "-jax"
	}
	for _, flag := range p.flags {
		if flag != "--unfused" {
			name += "-" + strings.TrimLeft(flag, "-")
		}
	}
	for _, setting := range p.env {
		if option, ok := strings.CutPrefix(setting, "TORCHINDUCTOR_"); ok {
			name += "-" + strings.ToLower(option)
		}
	}
	return name
}

// workloadFile is where peers read what to train.
func (s *settings) workloadFile(src *source) string {
	return filepath.Join(s.scratch, "workload-"+src.name+".json")
}
