package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// profile is Nsight Compute's view of a model's kernels, the first launch of each.
type profile struct {
	Model   string            `json:"model"`
	Kernels []profiledKernel  `json:"kernels"`
	Units   map[string]string `json:"units,omitempty"`
}

type profiledKernel struct {
	Name    string             `json:"name"`
	Metrics map[string]float64 `json:"metrics"`
}

const (
	ncuTime      = "gpu__time_duration.sum"
	ncuArith     = "sm__throughput.avg.pct_of_peak_sustained_elapsed"
	ncuMemory    = "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed"
	ncuDRAM      = "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed"
	ncuOccupancy = "sm__warps_active.avg.pct_of_peak_sustained_active"
	ncuRegisters = "launch__registers_per_thread"
)

var ncuMetrics = []string{ncuTime, ncuArith, ncuMemory, ncuDRAM, ncuOccupancy, ncuRegisters}

// ncu profiles the pruned trainers. Nsight Compute would lock the clocks to their
// base, which is a setting of the GPU: it is told not to.
func (r *runner) ncu() {
	switch {
	case r.manifest.Rehearsal:
		r.skip("ncu", "Nsight Compute", "a rehearsal: the simulated device has no counters")
		return
	case r.tools.ncu == "":
		r.skip("ncu", "Nsight Compute", "ncu is in neither PATH, CUDA_HOME nor /usr/local/cuda")
		return
	}
	for _, m := range r.models(func(m *model) bool {
		return m.Workload && !m.Unpruned && (len(r.set.Models) == 0 || slices.Contains(r.set.Models, m.Source)) && !(r.set.Quick && m.Precision != "bf16")
	}) {
		if why := r.spent(); why != "" {
			r.skip("ncu", m.Name, why)
			continue
		}
		argv, env := r.trainer(m, "bench", "--device", "cuda", "--steps", "1", "--warmup", "1")
		argv = slices.Concat([]string{r.tools.ncu, "--clock-control", "none", "--csv", "--page", "raw", "--metrics", strings.Join(ncuMetrics, ","), "--launch-count", "300"}, argv)
		began := time.Now()
		out, log, err := r.process("ncu-"+m.Name, 20*time.Minute, env, argv...)
		c := check{Step: "ncu", Name: m.Name, Status: passed, Log: log, Seconds: time.Since(began).Seconds()}
		var p *profile
		if err == nil {
			p, err = parseNCU(m.Name, out)
		}
		switch {
		case bytes.Contains(out, []byte("ERR_NVGPUCTRPERM")) || err != nil && strings.Contains(err.Error(), "ERR_NVGPUCTRPERM"):
			c.Status, c.Why = skipped, "this user may not read the GPU's counters (ERR_NVGPUCTRPERM)"
		case err != nil:
			c.Status, c.Why = failed, err.Error()
		default:
			r.res.setProfile(p)
			c.Why = fmt.Sprintf("%d kernels", len(p.Kernels))
		}
		r.note(c)
	}
}

// parseNCU reads the CSV of --page raw: a line of names, one of units, then a
// launch a line; other lines may stand before.
func parseNCU(model string, out []byte) (*profile, error) {
	var table bytes.Buffer
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if line := lines.Text(); strings.HasPrefix(line, `"`) {
			table.WriteString(line + "\n")
		}
	}
	rows, err := csv.NewReader(&table).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("ncu's table: %w", err)
	}
	if len(rows) < 3 {
		return nil, fmt.Errorf("ncu profiled no kernel")
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	at, ok := column["Kernel Name"]
	if !ok {
		return nil, fmt.Errorf("ncu's table has no column of kernel names")
	}
	p := &profile{Model: model, Units: map[string]string{}}
	seen := map[string]bool{}
	for _, row := range rows[2:] {
		name, _, _ := strings.Cut(row[at], "(")
		if seen[name] {
			continue
		}
		seen[name] = true
		k := profiledKernel{Name: name, Metrics: map[string]float64{}}
		for _, metric := range ncuMetrics {
			if i, ok := column[metric]; ok {
				if v, err := strconv.ParseFloat(strings.ReplaceAll(row[i], ",", ""), 64); err == nil {
					k.Metrics[metric], p.Units[metric] = v, rows[1][i]
				}
			}
		}
		p.Kernels = append(p.Kernels, k)
	}
	slices.SortStableFunc(p.Kernels, func(a, b profiledKernel) int { return cmp.Compare(b.Metrics[ncuTime], a.Metrics[ncuTime]) })
	return p, nil
}
