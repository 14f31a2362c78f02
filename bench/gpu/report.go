package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vitgen/vitgen/bench/measure"
	"github.com/vitgen/vitgen/bench/probes"
)

// results is the JSON of a run.
type results struct {
	Kind      string            `json:"kind"`
	Date      string            `json:"date"`
	Rehearsal bool              `json:"rehearsal,omitempty"`
	Settings  settings          `json:"settings"`
	Seconds   float64           `json:"seconds"`
	Machine   measure.Machine   `json:"machine"`
	GPU       gpuFacts          `json:"gpu,omitempty"`
	Versions  map[string]string `json:"versions"`
	Built     string            `json:"built"` // the binaries
	Archs     []string          `json:"archs"`
	Checks    []check           `json:"checks"`
	Probes    []probes.Verdict  `json:"probes,omitempty"`
	Roofs     *roofs            `json:"roofs,omitempty"`
	Groups    []*group          `json:"training_steps,omitempty"`
	Profiles  []*profile        `json:"ncu,omitempty"`

	earlier gpuFacts // of the run that this one adds to
}

func newResults(r *runner, began time.Time) *results {
	return &results{
		Kind: "gpu", Date: began.Format(time.DateOnly), Rehearsal: r.manifest.Rehearsal, Settings: r.set,
		Machine: measure.DescribeMachine(), Versions: maps.Clone(r.manifest.Versions), Built: r.manifest.Built, Archs: r.manifest.Archs,
	}
}

// addTo takes over what an earlier run of the day found in other steps, and of
// training steps what this one does not do again.
func (r *results) addTo(file string, chosen []string) error {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	var old results
	if err := json.Unmarshal(data, &old); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if old.Built != r.Built {
		return fmt.Errorf("%s is of binaries built %s; those here were built %s", file, old.Built, r.Built)
	}
	r.earlier, r.Seconds = old.GPU, old.Seconds
	r.Groups, r.Profiles, r.Roofs, r.Probes = old.Groups, old.Profiles, old.Roofs, old.Probes
	for _, c := range old.Checks {
		again := c.Step == "machine" || slices.Contains(chosen, c.Step) && c.Step != "bench" && c.Step != "ncu"
		if !again {
			r.Checks = append(r.Checks, c)
		}
	}
	return nil
}

// sameGPU refuses to mix the results of two GPUs.
func (r *results) sameGPU() error {
	if r.earlier != nil && r.earlier["name"] != r.GPU["name"] {
		return fmt.Errorf("the results to add to are those of an %s", r.earlier["name"])
	}
	return nil
}

// setGroup adds a comparison, in place of an earlier one and of what was said of it.
func (r *results) setGroup(g *group) {
	name := g.Workload + " " + g.Precision
	r.forget("bench", func(c check) bool { return c.Name == name || strings.HasPrefix(c.Name, name+":") })
	r.Groups = slices.DeleteFunc(r.Groups, func(o *group) bool { return o.Workload == g.Workload && o.Precision == g.Precision })
	r.Groups = append(r.Groups, g)
}

func (r *results) setProfile(p *profile) {
	r.forget("ncu", func(c check) bool { return c.Name == p.Model })
	r.Profiles = slices.DeleteFunc(r.Profiles, func(o *profile) bool { return o.Model == p.Model })
	r.Profiles = append(r.Profiles, p)
}

func (r *results) forget(step string, is func(check) bool) {
	r.Checks = slices.DeleteFunc(r.Checks, func(c check) bool { return c.Step == step && is(c) })
}

func (r *results) count(status string) (n int) {
	for _, c := range r.Checks {
		if c.Status == status {
			n++
		}
	}
	return n
}

func (r *results) markdown() string {
	var b strings.Builder
	r.head(&b)
	r.checkTables(&b)
	for _, g := range r.Groups {
		g.markdown(&b, r.Roofs)
	}
	for _, p := range r.Profiles {
		p.markdown(&b)
	}
	return b.String()
}

func (r *results) head(b *strings.Builder) {
	fmt.Fprintf(b, "# Training on the GPU, %s\n\n", r.Date)
	switch {
	case r.Rehearsal:
		b.WriteString("**A rehearsal on a simulated device: it shows that everything works, the figures mean nothing.**\n\n")
	case r.Settings.Quick:
		b.WriteString("**A quick run: it shows that everything works, the figures mean little.**\n\n")
	}
	r.GPU.describe(b)
	fmt.Fprintf(b, "Host: %s. Load before the run %.2f.\n\n", r.Machine, r.Machine.LoadBefore)
	var list []string
	for _, k := range slices.Sorted(maps.Keys(r.Versions)) {
		list = append(list, k+" "+r.Versions[k])
	}
	fmt.Fprintf(b, "Versions: %s. Trainers built %s, kernels for %s.\n", strings.Join(list, "; "), r.Built, strings.Join(r.Archs, " and "))
	switch f := r.Roofs; {
	case f == nil:
	case f.Source == dataSheet:
		fmt.Fprintf(b, "\nRooflines below are of the data sheet: %.1f TFLOP/s in fp32, %.0f in tf32, %.0f in bf16, %.0f GB/s.\n",
			f.FP32/1e12, f.TF32/1e12, f.BF16/1e12, f.BytesPerSec/1e9)
	default:
		fmt.Fprintf(b, "\nOn this device PyTorch's matrix product of %d × %d reaches %.1f TFLOP/s in fp32, %.1f in tf32 and %.1f in bf16, a copy %.0f GB/s.\n"+
			"Rooflines below are of these.\n", f.Size, f.Size, f.FP32/1e12, f.TF32/1e12, f.BF16/1e12, f.BytesPerSec/1e9)
	}
	fmt.Fprintf(b, "%.0f s in all.\n\n", r.Seconds)
}

// describe is a line of what the GPU told.
func (g gpuFacts) describe(b *strings.Builder) {
	var facts []string
	for _, f := range []struct{ key, format string }{
		{"compute_cap", "compute capability %s"}, {"memory.total", "%s MiB"}, {"driver_version", "driver %s"},
		{"clocks.max.sm", "at most %s MHz"}, {"clocks.max.mem", "memory at most %s MHz"}, {"power.limit", "%s W"}, {"mig.mode.current", "MIG %s"},
	} {
		if v := g[f.key]; v != "" {
			facts = append(facts, fmt.Sprintf(f.format, v))
		}
	}
	if len(facts) > 0 {
		fmt.Fprintf(b, "GPU: %s; %s.\n", g["name"], strings.Join(facts, ", "))
	}
}

// checkTables counts the checks of each step, and lists those that did not pass.
func (r *results) checkTables(b *strings.Builder) {
	b.WriteString("## Checks\n\n")
	var order []string
	counts := map[string]map[string]int{}
	for _, c := range r.Checks {
		if counts[c.Step] == nil {
			counts[c.Step] = map[string]int{}
			order = append(order, c.Step)
		}
		counts[c.Step][c.Status]++
	}
	rows := [][]string{{"", "passed", "failed", "skipped"}}
	for _, step := range order {
		n := counts[step]
		rows = append(rows, []string{step, fmt.Sprint(n[passed]), fmt.Sprint(n[failed]), fmt.Sprint(n[skipped])})
	}
	b.WriteString(measure.Table(rows, false) + "\n")
	for _, status := range []string{failed, skipped} {
		for _, c := range r.Checks {
			if c.Status == status {
				fmt.Fprintf(b, "- **%s**: %s, %s: %s\n", status, c.Step, c.Name, oneLine(c.Why))
			}
		}
	}
	for _, v := range r.Probes {
		if v.OK && v.Problem != "" {
			fmt.Fprintf(b, "- note: %s: %s\n", v.Name, v.Problem)
		}
	}
	b.WriteString("\n")
}

func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(c rune) bool { return c == '\n' || c == '\t' }), " / ")
}

func (g *group) markdown(b *strings.Builder, roofs *roofs) {
	fmt.Fprintf(b, "## %s, %s, batch %d\n\n", g.Workload, g.Precision, g.Batch)
	fmt.Fprintf(b, "One update of `%s`, random data on the device. Every contestant in turn, %d rounds; in each a fresh\n"+
		"process with %d warm-up and %d timed steps, of which the median counts.\n\n", g.Spec, g.Rounds, g.Counts.Warmup, g.Counts.Steps)
	rows := [][]string{{"", "ms/step", "min–max of rounds", "samples/s", "speed", "peak MB", "what"}}
	for _, e := range g.Entries {
		if e.Absent == "" {
			rows = append(rows, e.row())
		}
	}
	b.WriteString(measure.Table(rows, true) + "\n")
	g.notes(b)
	g.kernelTable(b, roofs)
}

func (e *entry) row() []string {
	switch {
	case e.Failed != "":
		return []string{e.Name, "failed", "", "", "", "", e.What}
	case e.StepMS == nil:
		return []string{e.Name, "no round", "", "", "", "", e.What}
	}
	speed, memory := "", ""
	if e.Speedup != nil {
		speed = fmt.Sprintf("%.2f×", e.Speedup.Median)
	}
	if e.memory() > 0 {
		memory = fmt.Sprintf("%.0f", float64(e.memory())/1e6)
	}
	return []string{
		e.Name, fmt.Sprintf("%.3f", e.StepMS.Median), fmt.Sprintf("%.3f–%.3f", e.StepMS.Min, e.StepMS.Max),
		fmt.Sprintf("%.0f", e.SamplesPerSec), speed, memory, e.What,
	}
}

// notes says what the table means, in words, and what did not fit in.
func (g *group) notes(b *strings.Builder) {
	if g.Fastest != "" {
		fmt.Fprintf(b, "Speed is against %s, the fastest peer, round by round.\n\n", g.Fastest)
	}
	compiled := g.bestCompiled()
	for _, e := range g.Entries {
		switch {
		case e.Failed != "":
			fmt.Fprintf(b, "- **%s failed**: %s\n", e.Name, oneLine(e.Failed))
			continue
		case e.StepMS == nil:
			continue
		case e.ColdFirstStepMS > 0:
			fmt.Fprintf(b, "- %s: %.1f s from an empty cache to the end of the first step, before the rounds.\n", e.Name, e.ColdFirstStepMS/1e3)
		}
		if e.Peer {
			continue
		}
		fmt.Fprintf(b, "- **%s**: %.4g GFLOP a step, %.4g before pruning; %.4g TFLOP/s.", e.Name,
			float64(e.StepFLOPs)/1e9, float64(e.UnprunedFLOPs)/1e9, float64(e.StepFLOPs)/e.StepMS.Median/1e9)
		if e.Speedup != nil {
			fmt.Fprintf(b, " %.2f× as fast as %s (%.2f–%.2f)", e.Speedup.Median, g.Fastest, e.Speedup.Min, e.Speedup.Max)
			if compiled != nil && compiled.Name != g.Fastest {
				fmt.Fprintf(b, ", %.2f× as %s", compiled.StepMS.Median/e.StepMS.Median, compiled.Name)
			}
			b.WriteString(".")
		}
		if w := e.GPU; w != nil {
			fmt.Fprintf(b, " Under load %.0f MHz, %.0f W, %.0f °C.", w.ClockMHz, w.PowerWatts, w.TempC)
		}
		b.WriteString("\n")
	}
	g.absent(b)
	b.WriteString("\n")
}

// absent says who did not take part, and why.
func (g *group) absent(b *strings.Builder) {
	var reasons []string
	who := map[string][]string{}
	for _, e := range g.Entries {
		if e.Absent == "" {
			continue
		}
		if who[e.Absent] == nil {
			reasons = append(reasons, e.Absent)
		}
		who[e.Absent] = append(who[e.Absent], e.Name)
	}
	for _, why := range reasons {
		fmt.Fprintf(b, "- Without %s: %s.\n", strings.Join(who[why], ", "), why)
	}
}

// bestCompiled is the fastest of torch.compile's modes, or nil.
func (g *group) bestCompiled() (best *entry) {
	for _, name := range []string{"torch-compile", "torch-reduce-overhead", "torch-max-autotune"} {
		if e := g.find(name); e != nil && (best == nil || e.StepMS.Median < best.StepMS.Median) {
			best = e
		}
	}
	return best
}

// shownKernels is how many lines of kernels a report has; the JSON has all.
const shownKernels = 15

func (g *group) kernelTable(b *strings.Builder, roofs *roofs) {
	if len(g.Kernels) == 0 {
		return
	}
	rows := [][]string{{"kernel", "launches", "µs", "%", "TFLOP/s", "GB/s", "of roof", "bound", "where"}}
	var all, roof float64
	for _, k := range g.Kernels {
		all, roof = all+k.MS, roof+k.RoofMS
	}
	for _, k := range g.Kernels[:min(shownKernels, len(g.Kernels))] {
		of := ""
		if k.Bound != "" {
			of = fmt.Sprintf("%.0f %%", k.RoofPercent)
		}
		rows = append(rows, []string{
			k.Name, fmt.Sprint(k.Launches), fmt.Sprintf("%.1f", k.MS*1e3), fmt.Sprintf("%.1f", 100*k.MS/all),
			fmt.Sprintf("%.1f", float64(k.FLOPs)/k.MS/1e9), fmt.Sprintf("%.0f", float64(k.Bytes)/k.MS/1e6), of, k.Bound, k.Pos + " " + k.Layer,
		})
	}
	b.WriteString(measure.Table(rows, true) + "\n")
	fmt.Fprintf(b, "%d kernels, the %d slowest above, each launched by itself: %.3f ms together.", len(g.Kernels), len(rows)-1, all)
	if roofs != nil {
		fmt.Fprintf(b, " By the roofline they would take %.3f ms.", roof)
	}
	b.WriteString("\n\n")
}

func (p *profile) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "## %s by Nsight Compute\n\n", p.Model)
	rows := [][]string{{"kernel", p.unit("time", ncuTime), "arithmetic %", "memory %", "DRAM %", "warps active %", "registers"}}
	for _, k := range p.Kernels[:min(shownKernels, len(p.Kernels))] {
		row := []string{k.Name}
		for _, metric := range []string{ncuTime, ncuArith, ncuMemory, ncuDRAM, ncuOccupancy, ncuRegisters} {
			cell := ""
			if v, ok := k.Metrics[metric]; ok {
				cell = fmt.Sprintf("%.4g", v)
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	b.WriteString(measure.Table(rows, false) + "\n")
}

func (p *profile) unit(name, metric string) string {
	if u := p.Units[metric]; u != "" {
		return name + ", " + u
	}
	return name
}
