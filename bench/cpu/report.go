package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vitgen/vitgen/bench/measure"
)

// heading names the machine and the versions.
func heading(b *strings.Builder, title string, m measure.Machine, versions map[string]string) {
	fmt.Fprintf(b, "# %s\n\n", title)
	fmt.Fprintf(b, "Machine: %s.\n", m)
	fmt.Fprintf(b, "Load before the run %.2f, stolen by the hypervisor %.1f %%.\n\n", m.LoadBefore, m.StealPercent)
	var list []string
	for _, k := range slices.Sorted(maps.Keys(versions)) {
		list = append(list, k+" "+versions[k])
	}
	fmt.Fprintf(b, "Versions: %s.\n\n", strings.Join(list, "; "))
}

func (r *stepsResult) markdown() string {
	var b strings.Builder
	heading(&b, "Training step on the CPU, "+r.Date, r.Machine, r.Versions)
	s := r.Settings
	fmt.Fprintf(&b, "One update of `%s`, fp32, batch %d, %d threads, random data. Every contestant in turn, %d rounds;\n"+
		"in each a fresh process with %d warm-up and %d timed steps, of which the median counts. %.0f s in all.\n\n",
		r.Spec, s.Batch, s.Threads, s.Rounds, s.Warmup, s.Steps, r.Seconds)
	if s.Quick {
		b.WriteString("**A quick run: it shows that everything works, the figures mean nothing.**\n\n")
	}
	b.WriteString(r.table() + "\n")
	b.WriteString(r.notes())
	return b.String()
}

func (r *stepsResult) table() string {
	rows := [][]string{{"", "ms/step", "min–max of rounds", "samples/s", "speed", "peak MB", "what"}}
	for _, e := range r.Entries {
		if e.Failed != "" {
			rows = append(rows, []string{e.Name, "failed", "", "", "", "", e.What})
			continue
		}
		speed := ""
		if e.Speedup != nil {
			speed = fmt.Sprintf("%.2f×", e.Speedup.Median)
		}
		rows = append(rows, []string{
			e.Name, fmt.Sprintf("%.1f", e.StepMS.Median), fmt.Sprintf("%.1f–%.1f", e.StepMS.Min, e.StepMS.Max),
			fmt.Sprintf("%.1f", e.SamplesPerSec), speed, fmt.Sprintf("%.0f", float64(e.PeakRSS)/1e6), e.What,
		})
	}
	return measure.Table(rows, true)
}

// notes says what the table means, in words, and what did not fit in.
func (r *stepsResult) notes() string {
	var b strings.Builder
	fast, lean := fastestPeer(r.Entries), leanestPeer(r.Entries)
	if fast != nil {
		fmt.Fprintf(&b, "Speed is against %s, the fastest peer, round by round.\n\n", fast.Name)
	}
	for _, e := range r.Entries {
		switch {
		case e.Failed != "":
			fmt.Fprintf(&b, "- **%s failed**: %s\n", e.Name, strings.ReplaceAll(e.Failed, "\n\t", " / "))
		case !e.Peer && fast != nil:
			fmt.Fprintf(&b, "- **%s** is %.2f× as fast as %s (%.2f–%.2f). Its peak memory is %.0f %% of that peer's%s.\n",
				e.Name, e.Speedup.Median, fast.Name, e.Speedup.Min, e.Speedup.Max, measure.Percent(e.PeakRSS, fast.PeakRSS), andLeanest(e, fast, lean))
		case e.ColdFirstStepMS > 0:
			fmt.Fprintf(&b, "- %s: %.1f s from an empty cache to the end of the first step, before the rounds.\n", e.Name, e.ColdFirstStepMS/1e3)
		}
	}
	for _, e := range r.Entries {
		if !e.Peer {
			fmt.Fprintf(&b, "- %s computes %.1f GFLOP a step, %.1f before pruning; PyTorch counts %.1f in matrix products alone. %.0f GFLOP/s.\n",
				e.Name, float64(e.StepFLOPs)/1e9, float64(e.UnprunedFLOPs)/1e9, float64(r.Peer.StepFLOPs)/1e9,
				float64(e.StepFLOPs)/e.StepMS.Median/1e6)
		}
	}
	if fast != nil {
		fmt.Fprintf(&b, "- Of the peers' memory up to %.0f MB is Python and PyTorch's libraries, before there is a model.\n", float64(fast.StartRSS)/1e6)
	}
	fmt.Fprintf(&b, "- Before timing, the peer's loss and gradients were compared with `golden/models.py` (%d parameters).\n", r.Peer.Parameters)
	return b.String()
}

// andLeanest compares memory with the leanest peer too, if that is another one
// than the fastest.
func andLeanest(e, fast, lean *entry) string {
	if lean == fast {
		return ", the leanest"
	}
	return fmt.Sprintf(", and %.0f %% of %s's, the leanest", measure.Percent(e.PeakRSS, lean.PeakRSS), lean.Name)
}
