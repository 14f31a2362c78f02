package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vitgen/vitgen/bench/measure"
)

func (r *result) markdown() string {
	var b strings.Builder
	r.heading(&b)
	b.WriteString(goalTable(r.Goals) + "\n")
	b.WriteString("Figures are medians of the rounds, with their extremes. Speed is the fastest peer's time over vitgen's in the same\n" +
		"round; memory is vitgen's peak over the leanest peer's; compiling is its time over the peer's.\n\n")
	for _, f := range r.Failed {
		fmt.Fprintf(&b, "- **%s failed**: %s\n", f.Part, oneLine(f.Why))
	}
	if len(r.Failed) > 0 {
		b.WriteString("\n")
	}
	for _, g := range r.Groups {
		g.markdown(&b)
	}
	for _, p := range r.Products {
		p.markdown(&b)
	}
	if r.Compile != nil {
		r.Compile.markdown(&b)
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// oneLine is an error of several.
func oneLine(s string) string { return strings.ReplaceAll(s, "\n\t", " / ") }

// heading names the machine and the versions.
func (r *result) heading(b *strings.Builder) {
	fmt.Fprintf(b, "# On the CPU, %s\n\n", r.Date)
	if r.Settings.Quick {
		b.WriteString("**A quick run: it shows that everything works, the figures mean nothing.**\n\n")
	}
	fmt.Fprintf(b, "Machine: %s.\n", r.Machine)
	fmt.Fprintf(b, "Load before the run %.2f, stolen by the hypervisor %.1f %%. %d threads, fp32. %.0f s in all.\n\n",
		r.Machine.LoadBefore, r.Machine.StealPercent, r.Settings.Threads, r.Seconds)
	var list []string
	for _, k := range slices.Sorted(maps.Keys(r.Versions)) {
		list = append(list, k+" "+r.Versions[k])
	}
	fmt.Fprintf(b, "Versions: %s.\n\n", strings.Join(list, "; "))
}

func (g *group) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "## %s%s\n\n", strings.ToUpper(g.What[:1]), g.What[1:])
	what := "One update of `" + g.Spec + "`, random data."
	if g.Inference {
		what = fmt.Sprintf("The logits of a batch of %d by the model of `%s`, random data.", g.Batch, g.Spec)
	}
	fmt.Fprintf(b, "%s Every contestant in turn, %d rounds; in each a fresh process with %d warm-up and\n%d timed steps, of which the median counts.\n\n",
		what, g.Rounds, g.Counts.Warmup, g.Counts.Steps)
	b.WriteString(g.table() + "\n")
	g.notes(b)
	b.WriteString("\n")
}

func (g *group) table() string {
	rows := [][]string{{"", "ms/step", "min–max of rounds", "samples/s", "speed", "peak MB", "what"}}
	for _, e := range g.Entries {
		if e.Failed != "" {
			rows = append(rows, []string{e.Name, "failed", "", "", "", "", e.What})
			continue
		}
		speed, extremes := "", milliseconds(e.StepMS.Min)+"–"+milliseconds(e.StepMS.Max)
		if e.Speedup != nil {
			speed = fmt.Sprintf("%.2f×", e.Speedup.Median)
		}
		if e.Rested {
			extremes = "one round"
		}
		rows = append(rows, []string{
			e.Name, milliseconds(e.StepMS.Median), extremes, fmt.Sprintf("%.1f", e.SamplesPerSec), speed, fmt.Sprintf("%.0f", float64(e.PeakRSS)/1e6), e.What,
		})
	}
	return measure.Table(rows, true)
}

// notes says what did not fit in the table.
func (g *group) notes(b *strings.Builder) {
	if g.Fastest != "" {
		fmt.Fprintf(b, "Speed is against %s, the fastest peer, round by round.\n\n", g.Fastest)
	}
	for _, e := range g.Entries {
		switch {
		case e.Failed != "":
			fmt.Fprintf(b, "- **%s failed**: %s\n", e.Name, oneLine(e.Failed))
		case !e.Peer:
			g.trainerNote(b, e)
		case e.ColdFirstStepMS > 0:
			fmt.Fprintf(b, "- %s: %.1f s from an empty cache to the end of the first step, before the rounds.\n", e.Name, e.ColdFirstStepMS/1e3)
		}
	}
	if g.Without != "" {
		fmt.Fprintf(b, "- Without %s\n", oneLine(g.Without))
	}
	if e := g.find(g.Leanest); e != nil {
		fmt.Fprintf(b, "- The leanest peer is %s; %.0f MB of its memory are Python and libraries, before there is a model.\n", e.Name, float64(e.StartRSS)/1e6)
	}
	fmt.Fprintf(b, "- Before timing, the peers' loss and gradients were compared with `golden/models.py`, and names and shapes of %d\n  parameters with the trainer's.\n", g.Parameters)
}

// trainerNote is about work and memory.
func (g *group) trainerNote(b *strings.Builder, e *entry) {
	fmt.Fprintf(b, "- **%s**: ", e.Name)
	if fast := g.find(g.Fastest); fast != nil {
		fmt.Fprintf(b, "%.2f× as fast as %s (%.2f–%.2f), ", e.Speedup.Median, fast.Name, e.Speedup.Min, e.Speedup.Max)
		fmt.Fprintf(b, "its peak memory %.0f %% of that peer's", measure.Percent(e.PeakRSS, fast.PeakRSS))
		if lean := g.find(g.Leanest); lean != fast {
			fmt.Fprintf(b, " and %.0f %% of %s's, the leanest", measure.Percent(e.PeakRSS, lean.PeakRSS), lean.Name)
		}
		b.WriteString("; ")
	}
	fmt.Fprintf(b, "%s GFLOP a step", gflop(e.StepFLOPs))
	if e.UnprunedFLOPs > 0 {
		fmt.Fprintf(b, ", %s before pruning (PyTorch counts %s in matrix products alone)", gflop(e.UnprunedFLOPs), gflop(g.PeerFLOPs))
	}
	fmt.Fprintf(b, ", %.0f GFLOP/s.\n", float64(e.StepFLOPs)/e.StepMS.Median/1e6)
}

func gflop(n int64) string { return fmt.Sprintf("%.4g", float64(n)/1e9) }

// shownProducts is how many shapes a report has, those with the most work; the
// JSON has all.
const shownProducts = 12

func (p *products) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "## GEMM alone, %s\n\n", p.What)
	last := p.Runs[len(p.Runs)-1]
	rows := [][]string{{"kind", "M", "N", "K", "launches", "GFLOP/s", "of peak"}}
	for _, x := range last.Products[:min(shownProducts, len(last.Products))] {
		rows = append(rows, []string{
			x.Kind, fmt.Sprint(x.M), fmt.Sprint(x.N), fmt.Sprint(x.K), fmt.Sprint(x.Count), fmt.Sprintf("%.0f", x.GFLOPS), percent.text(x.OfPeak),
		})
	}
	b.WriteString(measure.Table(rows, false))
	fmt.Fprintf(b, "\nThe products of a training step, each alone, by `bench/roofline`, %d runs; above the largest of the last. In the table of\n"+
		"goals all %d shapes count: the time that their launches would take at the machine's FMA peak (%.0f GFLOP/s, %s) over the\n"+
		"time they take.\n\n",
		len(p.Runs), len(last.Products), p.PeakGF, p.ISA)
}

func (c *compiling) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "## Compiling `%s`\n\n", c.Spec)
	rows := [][]string{{"", "runs", "median s", "min–max s", "peak MB"}}
	seconds := func(s *measure.Spread) []string {
		return []string{fmt.Sprintf("%.3f", s.Median/1e3), fmt.Sprintf("%.3f–%.3f", s.Min/1e3, s.Max/1e3)}
	}
	for _, t := range []struct {
		name string
		*timing
	}{
		{"`vitgen compile`", &c.Compile},
		{"`go build` for " + c.ISA + ", C++ not yet compiled", &c.Native},
		{"`go build` for all instruction sets, the same", &c.Build},
		{"`go build` for all again", &c.Link},
	} {
		rows = append(rows, slices.Concat([]string{t.name, fmt.Sprint(len(t.AllMS))}, seconds(&t.MS), []string{fmt.Sprintf("%.0f", float64(t.PeakRSS)/1e6)}))
	}
	for _, p := range c.Peers {
		if p.MS != nil {
			rows = append(rows, slices.Concat([]string{p.Name + ", first step", fmt.Sprint(len(p.AllMS))}, seconds(p.MS), []string{""}))
		}
	}
	b.WriteString(measure.Table(rows, false))
	b.WriteString("\nOf vitgen whole processes, and the memory of the largest one; of the peers the first training step alone, from empty\n" +
		"caches and without the start of Python. Peers compile for this machine, as does `vitgen build --isa native`;\n" +
		"without it a trainer has kernels for all instruction sets.\n")
	for _, p := range c.Peers {
		if p.Failed != "" {
			fmt.Fprintf(b, "\n- **%s failed**: %s\n", p.Name, oneLine(p.Failed))
		}
	}
	b.WriteString("\n")
}
