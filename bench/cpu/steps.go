package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/vitgen/vitgen/bench/measure"
)

// settings are what all contestants have in common.
type settings struct {
	Rounds  int  `json:"rounds"`
	Warmup  int  `json:"warmup_steps"` // of each process
	Steps   int  `json:"timed_steps"`  // of each process
	Threads int  `json:"threads"`
	Batch   int  `json:"batch"`
	Quick   bool `json:"quick,omitempty"`
	python  string
	cache   string // of compiling peers, empty at the start
	// peerFLOPs is what a step of the peers' model takes, in matrix products.
	peerFLOPs int64
}

// specBatch is train.batch of the spec; a trainer compiled for another is refused.
const specBatch = 128

// counts are the flags that trainer and peer share.
func (s settings) counts() []string {
	return []string{"--threads", strconv.Itoa(s.Threads), "--warmup", strconv.Itoa(s.Warmup), "--steps", strconv.Itoa(s.Steps)}
}

// peerFacts is what `peer_torch.py check` prints.
type peerFacts struct {
	Torch      string `json:"torch"`
	Python     string `json:"python"`
	Parameters int    `json:"parameters"`
	StepFLOPs  int64  `json:"step_flops"` // matrix products only
}

// stepsResult is the JSON of a run.
type stepsResult struct {
	Kind     string            `json:"kind"`
	Date     string            `json:"date"`
	Spec     string            `json:"spec"`
	Machine  measure.Machine   `json:"machine"`
	Versions map[string]string `json:"versions"`
	Settings settings          `json:"settings"`
	Seconds  float64           `json:"seconds"` // of the whole run
	Peer     peerFacts         `json:"peer"`
	// FastestPeer is the one that speedups compare with.
	FastestPeer string   `json:"fastest_peer,omitempty"`
	LeanestPeer string   `json:"leanest_peer,omitempty"`
	Entries     []*entry `json:"contestants"`
}

func stepsCommand(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("steps", flag.ContinueOnError)
	s := settings{Batch: specBatch}
	var out outFlag
	out.define(fs)
	fs.IntVar(&s.Rounds, "rounds", 5, "`number` of turns of each contestant")
	fs.IntVar(&s.Warmup, "warmup", 2, "`number` of steps of each process that are not counted")
	fs.IntVar(&s.Steps, "steps", 3, "`number` of steps of each process that are")
	fs.IntVar(&s.Threads, "threads", 2, "`number` of threads of each contestant")
	fs.BoolVar(&s.Quick, "quick", false, "one round of one step: shows that everything works, measures nothing")
	fs.StringVar(&s.python, "python", ".venv/bin/python", "`interpreter` that has PyTorch")
	only := fs.String("only", "", "`names` of the contestants, with commas; default: all but the optional ones")
	with := fs.String("with", "", "`names` of optional contestants to add: torch-hugepages, torch-autotune, torch-pruned")
	if err := measure.Parse(fs, args); err != nil {
		return err
	}
	if s.Quick {
		s.Rounds, s.Warmup, s.Steps = 1, 1, 1
	}
	if s.Rounds < 1 || s.Warmup < 0 || s.Steps < 1 || s.Threads < 1 {
		return fmt.Errorf("steps: rounds, steps and threads must be positive and warmup not negative")
	}
	var err error
	if s.cache, err = os.MkdirTemp(scratchDir, "inductor-"); err != nil {
		return err
	}
	defer os.RemoveAll(s.cache)
	chosen, err := choose(field(s), measure.Names(*only), measure.Names(*with))
	if err != nil {
		return err
	}
	r, err := runSteps(ctx, chosen, s)
	if err != nil {
		return err
	}
	return measure.Write(out.folder(s.Quick), r.Date+"-cpu", r, r.markdown())
}

func runSteps(ctx context.Context, chosen []contestant, s settings) (*stepsResult, error) {
	began := time.Now()
	r := &stepsResult{
		Kind: "cpu-steps", Date: began.Format(time.DateOnly), Spec: specFile, Settings: s,
		Machine: measure.DescribeMachine(), Versions: measure.ToolVersions(ctx, resultsDir),
	}
	warnIfBusy(r.Machine)
	steal := measure.WatchSteal()
	var err error
	if r.Peer, err = checkPeer(ctx, s); err != nil {
		return nil, err
	}
	s.peerFLOPs = r.Peer.StepFLOPs
	r.Versions["torch"], r.Versions["python"] = r.Peer.Torch, r.Peer.Python
	if r.Entries, err = compare(ctx, chosen, s, logf); err != nil {
		return nil, err
	}
	if p := fastestPeer(r.Entries); p != nil {
		r.FastestPeer, r.LeanestPeer = p.Name, leanestPeer(r.Entries).Name
	}
	r.Machine.StealPercent = steal()
	r.Seconds = time.Since(began).Seconds()
	return r, nil
}

// checkPeer has the peer prove that it is the model of the goldens.
func checkPeer(ctx context.Context, s settings) (f peerFacts, err error) {
	argv := []string{s.python, "bench/cpu/peer_torch.py", "check", "--batch", strconv.Itoa(s.Batch), "--threads", strconv.Itoa(s.Threads)}
	out, _, err := measure.Process{Argv: argv}.Run(ctx)
	if err != nil {
		return f, err
	}
	return f, json.Unmarshal(out, &f)
}

// warnIfBusy says what would spoil the figures.
func warnIfBusy(m measure.Machine) {
	if m.LoadBefore > 0.5 {
		logf("warning: the load average is %.1f; figures from a busy machine mean little\n", m.LoadBefore)
	}
}

func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format, args...) }
