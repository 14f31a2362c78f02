package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vitgen/vitgen/bench/measure"
	"github.com/vitgen/vitgen/runtime/cpu/isa"
	"github.com/vitgen/vitgen/runtime/cpu/roof"
)

// machine is the report about this machine.
type machine struct {
	Machine    measure.Machine `json:"machine"`
	Rounds     int             `json:"rounds"`
	Peaks      []*peak         `json:"peaks"`
	Bandwidths []*bandwidth    `json:"bandwidths"`
}

// peak is what multiply-adds in registers reach.
type peak struct {
	ISA     string         `json:"isa"`
	Threads int            `json:"threads"`
	GFLOPS  measure.Spread `json:"gflops"`
}

// bandwidth is what a level of memory gives and takes. A copy counts both ways.
type bandwidth struct {
	Level   string         `json:"level"`
	Op      string         `json:"op"`
	Threads int            `json:"threads"`
	Bytes   int            `json:"bytes"` // of each thread
	GBps    measure.Spread `json:"gb_per_sec"`
}

// level is a kind of memory and how much of it a measurement goes over: so many
// bytes for each thread, or all threads together.
type level struct {
	name   string
	bytes  int
	shared bool
}

// each is the bytes of each thread.
func (l level) each(threads int) int {
	if l.shared {
		return l.bytes / threads
	}
	return l.bytes
}

// caches are the bytes of the data caches L1, L2 and L3 that a core can use.
type caches [3]int

// levels are what is measured: half of the core's own caches; of the shared one
// several times what the core's own hold; and of memory twice what the shared one
// holds, at least 512 MiB: on a virtual machine a cache may be larger than what
// the system knows of, and serve others too.
func (c caches) levels() []level {
	return []level{
		{"L1", c[0] / 2, false},
		{"L2", c[1] / 2, false},
		{"L3", min(8*c[1], c[2]/2), false},
		{"memory", max(512<<20, 2*c[2]), true},
	}
}

// thisMachinesCaches asks Linux; what it does not say is as on common machines.
func thisMachinesCaches(sys string) caches {
	c := caches{32 << 10, 1 << 20, 32 << 20}
	dirs, _ := filepath.Glob(filepath.Join(sys, "devices/system/cpu/cpu0/cache/index*"))
	for _, dir := range dirs {
		read := func(name string) string {
			text, _ := os.ReadFile(filepath.Join(dir, name))
			return strings.TrimSpace(string(text))
		}
		n, err := strconv.Atoi(read("level"))
		kib, found := strings.CutSuffix(read("size"), "K")
		size, err2 := strconv.Atoi(kib)
		if err == nil && err2 == nil && found && n >= 1 && n <= len(c) && size > 0 && read("type") != "Instruction" {
			c[n-1] = size << 10
		}
	}
	return c
}

// trial is one thing that is measured again and again, and where its figure goes.
type trial struct {
	bench *roof.Bench
	rates []float64
	into  *measure.Spread
}

// trialTime is what a measurement takes, if one pass over memory is not longer.
const trialTime = 5 * time.Millisecond

// measureMachine measures everything with one thread and with all of them.
func measureMachine(ctx context.Context, threads, rounds int, levels []level) (*machine, error) {
	best := isa.Best()
	var most int64
	for _, l := range levels {
		most = max(most, int64(l.each(threads))*int64(threads))
	}
	memory, err := roof.Alloc(most, threads)
	if err != nil {
		return nil, err
	}
	defer memory.Free()
	m := &machine{Machine: measure.DescribeMachine(), Rounds: rounds}
	var trials []*trial
	teams := slices.Compact([]int{1, threads})
	for set := isa.Plain; set <= best; set++ {
		for _, n := range teams {
			p := &peak{ISA: set.String(), Threads: n}
			m.Peaks = append(m.Peaks, p)
			trials = append(trials, &trial{bench: roof.NewFMA(set, n), into: &p.GFLOPS})
		}
	}
	for _, l := range levels {
		for _, op := range []roof.Op{roof.Read, roof.Write, roof.Copy} {
			for _, n := range teams {
				b := &bandwidth{Level: l.name, Op: op.String(), Threads: n, Bytes: l.each(n)}
				m.Bandwidths = append(m.Bandwidths, b)
				trials = append(trials, &trial{bench: roof.NewStream(best, op, n, b.Bytes, memory), into: &b.GBps})
			}
		}
	}
	return m, takeTurns(ctx, trials, rounds)
}

// takeTurns measures all trials, and again, so that what else the machine does
// falls on all of them. A first round only warms up.
func takeTurns(ctx context.Context, trials []*trial, rounds int) error {
	for round := range rounds + 1 {
		for _, t := range trials {
			if err := ctx.Err(); err != nil {
				return err
			}
			rate, err := t.bench.Rate(trialTime)
			if err != nil {
				return err
			}
			if round > 0 {
				t.rates = append(t.rates, rate/1e9)
			}
		}
	}
	for _, t := range trials {
		*t.into = measure.SpreadOf(t.rates)
	}
	return nil
}

func (m *machine) text() string {
	spread := func(s measure.Spread) []string {
		return []string{fmt.Sprintf("%.1f", s.Median), fmt.Sprintf("%.1f – %.1f", s.Min, s.Max)}
	}
	peaks := [][]string{{"multiply-adds", "threads", "GFLOP/s", "extremes"}}
	for _, p := range m.Peaks {
		peaks = append(peaks, append([]string{p.ISA, fmt.Sprint(p.Threads)}, spread(p.GFLOPS)...))
	}
	moves := [][]string{{"memory", "op", "threads", "KiB each", "GB/s", "extremes"}}
	for _, b := range m.Bandwidths {
		moves = append(moves, append([]string{b.Level, b.Op, fmt.Sprint(b.Threads), fmt.Sprint(b.Bytes >> 10)}, spread(b.GBps)...))
	}
	return fmt.Sprintf("%s\nMedians of %d.\n\n%s\n%s", m.Machine, m.Rounds, measure.Table(peaks, false), measure.Table(moves, false))
}
