package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vitgen/vitgen/bench/measure"
)

// tools are what the machine has. An empty path: not there.
type tools struct {
	nvidiaSMI, nvcc, sanitizer, ncu string
	torch, jax                      string // the reason why that peer takes no part; empty: it does
	arch                            string // of the GPU: sm_90
	gpu                             string // for nvidia-smi -i
}

// gpuFacts is what nvidia-smi says of the GPU, by the names of its queries. It is
// asked only; nothing is ever set.
type gpuFacts map[string]string

var gpuQueries = []string{
	"name", "driver_version", "compute_cap", "memory.total", "memory.used", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem",
	"power.limit", "power.max_limit", "persistence_mode", "compute_mode", "mig.mode.current", "ecc.mode.current",
	"pcie.link.gen.current", "pcie.link.width.current", "temperature.gpu",
}

// facts describes the machine, and finds out what can be done on it.
func (r *runner) facts() {
	t := &r.tools
	t.nvcc = findTool("nvcc", r.set.nvcc)
	t.sanitizer, t.ncu = findTool("compute-sanitizer", ""), findTool("ncu", "")
	t.gpu = "0"
	if list := measure.Names(os.Getenv("CUDA_VISIBLE_DEVICES")); len(list) > 0 {
		t.gpu = list[0]
	}
	r.gpuFacts()
	for name, tool := range map[string]string{"nvcc": t.nvcc, "compute-sanitizer": t.sanitizer, "ncu": t.ncu} {
		if tool != "" {
			r.version(name, tool)
		}
	}
	r.peerFacts()
	r.listTrainers()
	if load := r.res.Machine.LoadBefore; load > float64(r.res.Machine.CPUs)/4 {
		logf("warning: the load average is %.1f; figures from a busy machine mean little\n", load)
	}
}

// findTool looks for a program: as named, in PATH, in CUDA's folders.
func findTool(name, given string) string {
	all := []string{name}
	if given != "" {
		all = []string{given}
	}
	if home := os.Getenv("CUDA_HOME"); home != "" {
		all = append(all, filepath.Join(home, "bin", name))
	}
	for _, at := range append(all, filepath.Join("/usr/local/cuda/bin", name)) {
		if path, err := exec.LookPath(at); err == nil {
			return path
		}
	}
	return ""
}

func (r *runner) gpuFacts() {
	const name = "GPU and driver"
	if r.manifest.Rehearsal {
		r.skip("machine", name, "a rehearsal on the simulated device; nothing here is about speed")
		return
	}
	t := &r.tools
	if t.nvidiaSMI = findTool("nvidia-smi", ""); t.nvidiaSMI == "" {
		r.fail("machine", name, errors.New("there is no nvidia-smi: is there a GPU with its driver?"))
		return
	}
	facts, err := r.query(gpuQueries)
	if err != nil {
		r.fail("machine", name, err)
		return
	}
	r.res.GPU = facts
	if err := r.res.sameGPU(); err != nil {
		r.fail("machine", name, err)
	}
	t.arch = "sm_" + strings.ReplaceAll(facts["compute_cap"], ".", "")
	if _, _, err := r.process("machine-nvidia-smi", time.Minute, nil, t.nvidiaSMI, "-q", "-i", t.gpu); err != nil {
		logf("warning: nvidia-smi -q: %v\n", err)
	}
	// Others on the GPU would share its time and memory.
	others, _, err := measure.Process{Argv: []string{t.nvidiaSMI, "-i", t.gpu, "--query-compute-apps=pid,name", "--format=csv,noheader"}}.Run(r.ctx)
	if err == nil && len(strings.TrimSpace(string(others))) > 0 {
		logf("warning: other programs are on the GPU: %s\n", strings.ReplaceAll(strings.TrimSpace(string(others)), "\n", "; "))
	}
	r.pass("machine", name, fmt.Sprintf("%s, %s, driver %s", facts["name"], t.arch, facts["driver_version"]))
}

// query asks nvidia-smi for some values. What the GPU or this nvidia-smi does not
// know is left out.
func (r *runner) query(what []string) (gpuFacts, error) {
	argv := []string{r.tools.nvidiaSMI, "-i", r.tools.gpu, "--query-gpu=" + strings.Join(what, ","), "--format=csv,noheader,nounits"}
	out, _, err := measure.Process{Argv: argv, Limit: time.Minute}.Run(r.ctx)
	facts := gpuFacts{}
	if err != nil && len(what) > 1 && r.ctx.Err() == nil {
		// One word that it does not know spoils the others.
		for _, one := range what {
			if f, err := r.query([]string{one}); err == nil {
				maps.Copy(facts, f)
			}
		}
		if len(facts) > 0 {
			return facts, nil
		}
	}
	if err != nil {
		return nil, err
	}
	for i, value := range strings.Split(strings.TrimSpace(string(out)), ", ") {
		if i < len(what) && !strings.Contains(value, "N/A") && !strings.Contains(value, "Not Supported") {
			facts[what[i]] = value
		}
	}
	return facts, nil
}

// version keeps the last line of what a tool says of itself that has a number.
func (r *runner) version(name, tool string) {
	out, _, err := measure.Process{Argv: []string{tool, "--version"}, Limit: time.Minute}.Run(r.ctx)
	if err != nil {
		return
	}
	for line := range strings.Lines(string(out)) {
		for _, f := range strings.Fields(strings.NewReplacer(",", " ", "V", "").Replace(line)) {
			if strings.Count(f, ".") >= 2 && f[0] >= '0' && f[0] <= '9' {
				r.res.Versions[name] = f
			}
		}
	}
}

// peerFacts finds out whether the peers can take part.
func (r *runner) peerFacts() {
	ask := func(name, python, script string) (reason string) {
		out, _, err := r.process("machine-"+name, 5*time.Minute, r.peerEnv(), python, script, "versions")
		var v map[string]string
		if err == nil {
			err = json.Unmarshal(out, &v)
		}
		if err != nil {
			r.skip("machine", name, "does not start: "+lastLine(err.Error()))
			return name + " does not start here"
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if key != "device" && key != "platform" && key != "capability" {
				r.res.Versions[key] = v[key]
			}
		}
		if !r.manifest.Rehearsal && (v["device"] == "" || v["platform"] == "cpu") {
			r.skip("machine", name, "sees no GPU")
			return name + " sees no GPU"
		}
		r.pass("machine", name, v[name])
		return ""
	}
	r.tools.torch = ask("torch", r.set.python, "bench/peers/peer_torch.py")
	r.tools.jax = ask("jax", r.set.pythonJAX, "bench/peers/peer_jax.py")
}

// peerEnv is the environment of every peer. In a rehearsal they keep to the CPU.
func (r *runner) peerEnv() []string {
	env := []string{"CUDA_DEVICE_ORDER=PCI_BUS_ID", "PYTHONDONTWRITEBYTECODE=1"}
	if r.manifest.Rehearsal {
		env = append(env, "CUDA_VISIBLE_DEVICES=", "JAX_PLATFORMS=cpu", "OMP_NUM_THREADS=1")
	}
	return env
}

// listTrainers holds the binary to its manifest.
func (r *runner) listTrainers() {
	const name = "trainers"
	out, _, err := r.process("machine-trainers", time.Minute, nil, filepath.Join(r.bin, "trainers"), "--list")
	if err != nil {
		r.fail("machine", name, err)
		return
	}
	var want []string
	for _, m := range r.manifest.Models {
		want = append(want, m.Name)
	}
	slices.Sort(want)
	if !slices.Equal(want, strings.Fields(string(out))) {
		r.fail("machine", name, errors.New("the binary and manifest.json do not belong together; build anew"))
		return
	}
	if !r.manifest.PTX && !r.manifest.Rehearsal {
		r.fail("machine", name, errors.New("no CUDA compiler was found when the binaries were built, so they have no kernels for a GPU"))
		return
	}
	r.pass("machine", name, fmt.Sprintf("%d models, built %s, vitgen %s", len(want), r.manifest.Built, r.manifest.Versions["vitgen"]))
}

// lastLine is the end of an error, where Python has the reason.
func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// watch is what nvidia-smi saw of the GPU while a contestant ran.
type watch struct {
	PeakBytes  int64   `json:"peak_bytes"` // above what was in use before
	ClockMHz   float64 `json:"sm_clock_mhz"`
	PowerWatts float64 `json:"power_watts"`
	TempC      float64 `json:"temperature_c"`
}

// watchQueries are asked again and again while a contestant runs.
var watchQueries = []string{"memory.used", "clocks.sm", "power.draw", "temperature.gpu"}

// watchGPU samples the GPU until the function that it returns is called, which
// says what there was to be seen, or nil.
func (r *runner) watchGPU() func() *watch {
	if r.tools.nvidiaSMI == "" {
		return func() *watch { return nil }
	}
	before, err := r.query(watchQueries[:1])
	if err != nil {
		return func() *watch { return nil }
	}
	stop, done := make(chan struct{}), make(chan []gpuFacts)
	go func() {
		var samples []gpuFacts
		for {
			if s, err := r.query(watchQueries); err == nil {
				samples = append(samples, s)
			}
			select {
			case <-stop:
				done <- samples
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() *watch {
		close(stop)
		return readWatch(<-done, before)
	}
}

// readWatch puts samples together. Clock, power and temperature are the medians
// of those in which the GPU drew most power, when it had work.
func readWatch(samples []gpuFacts, before gpuFacts) *watch {
	if len(samples) == 0 {
		return nil
	}
	number := func(f gpuFacts, key string) float64 {
		v, err := strconv.ParseFloat(f[key], 64)
		if err != nil {
			return 0 // the GPU does not tell
		}
		return v
	}
	w := &watch{}
	most := 0.0
	for _, s := range samples {
		w.PeakBytes = max(w.PeakBytes, int64((number(s, "memory.used")-number(before, "memory.used"))*(1<<20)))
		most = max(most, number(s, "power.draw"))
	}
	var clock, power, temp []float64
	for _, s := range samples {
		if number(s, "power.draw") >= 0.9*most {
			clock, power, temp = append(clock, number(s, "clocks.sm")), append(power, number(s, "power.draw")), append(temp, number(s, "temperature.gpu"))
		}
	}
	w.ClockMHz, w.PowerWatts, w.TempC = measure.Median(clock), measure.Median(power), measure.Median(temp)
	return w
}
