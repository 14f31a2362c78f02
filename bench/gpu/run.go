package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vitgen/vitgen/bench/measure"
)

// A check is one line of what the run tells: something that passed, that failed,
// or that was not done, and why.
type check struct {
	Step    string  `json:"step"`
	Name    string  `json:"name"`
	Status  string  `json:"status"` // passed, failed or skipped
	Why     string  `json:"why,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
	Log     string  `json:"log,omitempty"` // in the folder of the run
}

const (
	passed  = "passed"
	failed  = "failed"
	skipped = "skipped"
)

// settings are what the command line chose.
type settings struct {
	Rounds     int      `json:"rounds"`
	Quick      bool     `json:"quick,omitempty"`
	Models     []string `json:"models,omitempty"` // empty: all
	Precisions []string `json:"precisions"`
	Only       []string `json:"only,omitempty"` // contestants
	With       []string `json:"with,omitempty"`
	python     string
	pythonJAX  string
	nvcc       string
	cache      string // of compiling peers
}

// runner is one run.
type runner struct {
	ctx      context.Context
	set      settings
	bin, dir string // dir: logs of this run
	out      string // folder of the report
	manifest *manifest
	res      *results
	tools    tools
	deadline time.Time
}

// step is a part of the run. Each goes on after what it can do without.
type step struct {
	name, what string
	run        func(*runner)
}

var steps = []step{
	{"probes", "kernels that show layouts and rounding, against the simulator's dump", (*runner).probes},
	{"goldens", "every golden on the device, in every precision; training twice, and against the CPU", (*runner).goldens},
	{"sanitizer", "compute-sanitizer's four tools on a small golden and two steps of training", (*runner).sanitizer},
	{"bench", "training steps beside PyTorch and JAX; each kernel against the roofline", (*runner).bench},
	{"ncu", "Nsight Compute's view of each kernel", (*runner).ncu},
}

func runCommand(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	r := &runner{ctx: ctx, set: settings{Precisions: precisions}}
	var all []string
	for _, s := range steps {
		all = append(all, s.name)
	}
	fs.StringVar(&r.bin, "bin", binDir, "`folder` of the binaries")
	out := fs.String("out", "", "`folder` for the results (default "+resultsDir+", with --quick "+quickDir+")")
	only := fs.String("steps", strings.Join(all, ","), "`names` of the steps, with commas")
	models := fs.String("models", "", "`names` of the models to time, with commas; default: all that there are")
	inPrecisions := fs.String("precisions", strings.Join(precisions, ","), "`names` of the precisions, with commas")
	contestants := fs.String("only", "", "`names` of the contestants, with commas; default: all but the optional ones")
	with := fs.String("with", "", "`names` of optional contestants to add: torch-book, torch-pruned")
	fs.IntVar(&r.set.Rounds, "rounds", 3, "`number` of turns of each contestant")
	fs.BoolVar(&r.set.Quick, "quick", false, "one round of few steps, and a part of the checks: shows that everything works")
	fs.StringVar(&r.set.python, "python", "python3", "`interpreter` that has PyTorch")
	fs.StringVar(&r.set.pythonJAX, "python-jax", "", "`interpreter` that has JAX (default: --python's)")
	fs.StringVar(&r.set.nvcc, "nvcc", "", "`nvcc` for the probes (default: of PATH, CUDA_HOME or /usr/local/cuda)")
	fs.StringVar(&r.set.cache, "cache", filepath.Join(workDir, "cache"), "`folder` where compiling peers keep their code")
	budget := fs.Duration("budget", 0, "start nothing new after this `time`, such as 9m; 0: no limit")
	add := fs.Bool("add", false, "add to today's results in the folder: what this run does replaces what they have of it")
	err := measure.Parse(fs, args)
	if err != nil {
		return err
	}
	if *inPrecisions != "" {
		r.set.Precisions = measure.Names(*inPrecisions)
	}
	if r.set.cache, err = filepath.Abs(r.set.cache); err != nil {
		return err
	}
	r.set.Models, r.set.Only, r.set.With = measure.Names(*models), measure.Names(*contestants), measure.Names(*with)
	if r.set.pythonJAX == "" {
		r.set.pythonJAX = r.set.python
	}
	if *budget > 0 {
		r.deadline = time.Now().Add(*budget)
	}
	chosen := measure.Names(*only)
	if err := r.check(chosen, all); err != nil {
		return err
	}
	switch {
	case *out != "":
	case r.set.Quick:
		*out = quickDir // never among the results
	default:
		*out = resultsDir
	}
	return r.run(*out, chosen, *add)
}

// check looks for mistakes in the flags, and reads the manifest.
func (r *runner) check(chosen, all []string) (err error) {
	if r.manifest, err = readManifest(r.bin); err != nil {
		return err
	}
	var workloads []string
	for _, w := range r.manifest.Workloads {
		workloads = append(workloads, w.Name)
	}
	for _, list := range []struct {
		what          string
		chosen, known []string
	}{{"step", chosen, all}, {"precision", r.set.Precisions, precisions}, {"model to time", r.set.Models, workloads},
		{"contestant", slices.Concat(r.set.Only, r.set.With), contestantNames()}} {
		for _, name := range list.chosen {
			if !slices.Contains(list.known, name) {
				return fmt.Errorf("there is no %s %q; there are %s", list.what, name, strings.Join(list.known, ", "))
			}
		}
	}
	if r.set.Rounds < 1 {
		return errors.New("run: rounds must be positive")
	}
	if r.set.Quick {
		r.set.Rounds = 1
	}
	return nil
}

// run does the steps and writes the report, whatever becomes of them.
func (r *runner) run(out string, chosen []string, add bool) error {
	began := time.Now()
	name := began.Format(time.DateOnly) + "-gpu"
	r.out, r.dir = out, filepath.Join(out, name)
	if err := os.MkdirAll(r.dir, 0o777); err != nil {
		return err
	}
	r.res = newResults(r, began)
	if add {
		if err := r.res.addTo(filepath.Join(out, name+".json"), chosen); err != nil {
			return err
		}
	}
	heading("machine: what is measured, with what")
	r.facts()
	for _, s := range steps {
		if slices.Contains(chosen, s.name) {
			heading("%s: %s", s.name, s.what)
			s.run(r)
			r.save()
		}
	}
	r.res.Seconds += time.Since(began).Seconds()
	if err := measure.Write(out, name, r.res, r.res.markdown()); err != nil {
		return err
	}
	if n := r.res.count(failed); n > 0 {
		return fmt.Errorf("%d of %d checks failed", n, len(r.res.Checks))
	}
	return r.ctx.Err()
}

// save keeps what there is so far, in case that this process is killed.
func (r *runner) save() {
	if err := measure.Save(r.out, filepath.Base(r.dir), r.res, r.res.markdown()); err != nil {
		logf("warning: the report so far: %v\n", err)
	}
}

func heading(format string, args ...any) { logf("\n=== "+format+"\n", args...) }

// note keeps a check, in place of an earlier one of its name, and says it.
func (r *runner) note(c check) {
	r.res.forget(c.Step, func(old check) bool { return old.Name == c.Name })
	r.res.Checks = append(r.res.Checks, c)
	why := ""
	if c.Why != "" {
		why = ": " + strings.ReplaceAll(c.Why, "\n", "\n    ")
	}
	logf("%-7s  %s%s\n", c.Status, c.Name, why)
}

func (r *runner) pass(step, name, remark string) {
	r.note(check{Step: step, Name: name, Status: passed, Why: remark})
}
func (r *runner) fail(step, name string, err error) {
	r.note(check{Step: step, Name: name, Status: failed, Why: err.Error()})
}
func (r *runner) skip(step, name, why string) {
	r.note(check{Step: step, Name: name, Status: skipped, Why: why})
}

// spent says why nothing new is to be started; empty: go on.
func (r *runner) spent() string {
	switch {
	case r.ctx.Err() != nil:
		return "the run was interrupted"
	case !r.deadline.IsZero() && time.Now().After(r.deadline):
		return "the time of --budget is spent"
	}
	return ""
}

// process runs a program with its output in a log of its own.
func (r *runner) process(name string, limit time.Duration, env []string, argv ...string) (out []byte, log string, err error) {
	log = strings.Map(func(c rune) rune {
		if c == '/' || c == ' ' {
			return '-'
		}
		return c
	}, name) + ".log"
	file, err := os.Create(filepath.Join(r.dir, log))
	if err != nil {
		return nil, "", err
	}
	defer file.Close()
	fmt.Fprintf(file, "$ %s\n", strings.Join(slices.Concat(env, argv), " "))
	out, usage, err := measure.Process{Argv: argv, Env: env, Limit: limit, Log: file}.Run(r.ctx)
	fmt.Fprintf(file, "\n%.1f s, peak memory of the host %.0f MB", usage.Wall.Seconds(), float64(usage.PeakRSS)/1e6)
	if err != nil {
		fmt.Fprintf(file, ", failed: %v", err)
	}
	fmt.Fprintln(file)
	return out, log, err
}

// verify runs a program whose status is all that counts, as one check.
func (r *runner) verify(step, name string, limit time.Duration, env []string, argv ...string) bool {
	if why := r.spent(); why != "" {
		r.skip(step, name, why)
		return false
	}
	began := time.Now()
	_, log, err := r.process(step+"-"+name, limit, env, argv...)
	c := check{Step: step, Name: name, Status: passed, Seconds: time.Since(began).Seconds(), Log: log}
	if err != nil {
		c.Status, c.Why = failed, err.Error()
	}
	r.note(c)
	return err == nil
}

// trainer is the command line of a trainer, and its environment.
func (r *runner) trainer(m *model, args ...string) (argv, env []string) {
	argv = append([]string{filepath.Join(r.bin, "trainers"), m.Name}, args...)
	env = []string{"CUDA_DEVICE_ORDER=PCI_BUS_ID"}
	if r.manifest.Driver != "" {
		env = append(env, "LD_LIBRARY_PATH="+r.manifest.Driver, "VITGEN_CUDA_IMAGE="+m.Image)
	}
	return argv, env
}

// model finds one by its name.
func (r *runner) model(name string) *model {
	i := slices.IndexFunc(r.manifest.Models, func(m *model) bool { return m.Name == name })
	if i < 0 {
		return nil
	}
	return r.manifest.Models[i]
}

// models are those in the chosen precisions for which keep holds.
func (r *runner) models(keep func(*model) bool) []*model {
	var all []*model
	for _, m := range r.manifest.Models {
		if slices.Contains(r.set.Precisions, m.Precision) && keep(m) {
			all = append(all, m)
		}
	}
	return all
}
