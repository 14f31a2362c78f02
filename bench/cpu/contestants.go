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
	peer       bool
	optional   bool // takes part only when asked for
	argv       []string
	env        []string
	// compileMode is that of a peer that compiles on its first step: done once,
	// and timed, before the rounds, which then find it in a cache.
	compileMode string
}

// keepMemory has glibc keep large tensors' memory instead of returning it to
// the kernel and getting it back page by page; hugePages has PyTorch ask for
// pages of 2 MiB.
var keepMemory, hugePages = []string{"MALLOC_MMAP_MAX_=0", "MALLOC_TRIM_THRESHOLD_=68719476736"}, []string{"THP_MEM_ALLOC_ENABLE=1"}

// noCompilers keeps PyTorch from starting compiler processes. It does not change
// what is compiled, nor where it is cached.
const noCompilers = "TORCHINDUCTOR_COMPILE_THREADS=1"

// field lists all contestants in the order they take turns.
func field(s settings) []contestant {
	trainer := func(name, what string) contestant {
		return contestant{name: name, what: what, argv: slices.Concat(
			[]string{binary(name), "bench", "--json", "--data", "none", "--device", "cpu"}, s.counts())}
	}
	peer := func(name, what string, flags ...string) contestant {
		c := contestant{name: name, what: what, peer: true, env: []string{"OMP_NUM_THREADS=" + strconv.Itoa(s.Threads)}}
		c.argv = slices.Concat([]string{s.python, "bench/cpu/peer_torch.py", "bench", "--batch", strconv.Itoa(s.Batch)}, flags, s.counts())
		if i := slices.Index(flags, "--compile"); i >= 0 {
			c.compileMode = flags[i+1]
			if slices.Contains(flags, "--prune") {
				c.compileMode += "-pruned" // another graph
			}
			c.env = append(c.env, "TORCHINDUCTOR_CACHE_DIR="+filepath.Join(s.cache, c.compileMode), noCompilers)
		}
		return c
	}
	with := func(c contestant, env []string) contestant { c.env = append(c.env, env...); return c }
	tuned := func(name, what string, flags ...string) contestant {
		return with(peer(name, what, append(flags, "--fused-sgd")...), keepMemory)
	}
	optional := func(c contestant) contestant { c.optional = true; return c }
	return []contestant{
		trainer("vitgen", "all passes"),
		trainer("vitgen-unpruned", "without row pruning: the work PyTorch does"),
		peer("torch", "eager, d2l's model as in the book"),
		peer("torch-sdpa", "eager, F.scaled_dot_product_attention", "--attention", "sdpa"),
		peer("torch-compile", "torch.compile of model and loss", "--compile", "default"),
		tuned("torch-tuned", "torch.compile, fused SGD, malloc that keeps memory", "--compile", "default"),
		optional(with(tuned("torch-hugepages", "as tuned, with huge pages", "--compile", "default"), hugePages)),
		optional(tuned("torch-autotune", "as tuned, mode max-autotune", "--compile", "max-autotune")),
		optional(tuned("torch-pruned", "as tuned, last block pruned by hand", "--compile", "default", "--prune")),
	}
}

// choose takes from all those named in only, or if it is empty those that are
// not optional, and those named in extra. The order stays.
func choose(all []contestant, only, extra []string) ([]contestant, error) {
	var known []string
	for _, c := range all {
		known = append(known, c.name)
	}
	for _, name := range slices.Concat(only, extra) {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("there is no contestant %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(c contestant) bool {
		in := slices.Contains(only, c.name) || len(only) == 0 && !c.optional
		return !in && !slices.Contains(extra, c.name)
	}), nil
}
