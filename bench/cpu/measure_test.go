package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitgen/vitgen/bench/measure"
	"github.com/vitgen/vitgen/bench/workload"
)

// testGroup is of a row without contestants.
func testGroup() *group {
	return &group{
		Name: "test", What: "training step, `vit.yaml`, batch 128", Spec: vit.file, Batch: 128, PeerFLOPs: 1000, Parameters: 24,
		Counts: workload.Counts{Warmup: 1, Steps: 3}, Rounds: 2, speed: goals{1.5, 3}, memory: goals{0.6, 0.3},
	}
}

// fake is a contestant that notes its turn in a file and prints a reading whose
// steps take ms in its first round and twice that in the second.
func fake(turns, name string, peer bool, ms float64) contestant {
	script := fmt.Sprintf(`echo %[1]s >> %[2]s
n=$(grep -c '^%[1]s$' %[2]s)
awk -v t=%[3]g -v n=$n 'BEGIN {
	printf "{\"batch\": 128, \"precision\": \"fp32\", \"step_flops_unpruned\": 1005, \"peak_rss_bytes\": %%d, \"step_ms_all\": [%%g, %%g, %%g]}", n*1000, n*t, n*t*9, n*t/2
}'`, name, turns, ms)
	return contestant{name: name, peer: peer, argv: []string{"sh", "-c", script}}
}

func quiet(string, ...any) {}

func TestContestantsTakeTurns(t *testing.T) {
	turns := filepath.Join(t.TempDir(), "turns")
	broken := contestant{name: "broken", peer: true, argv: []string{"sh", "-c", "echo broken >> " + turns + "; echo no g++ >&2; exit 3"}}
	g := testGroup()
	if err := g.compare(context.Background(), []contestant{
		fake(turns, "ours", false, 10), fake(turns, "near", true, 28), fake(turns, "slow", true, 80), broken, fake(turns, "fast", true, 25),
	}, quiet); err != nil {
		t.Fatal(err)
	}
	order, err := os.ReadFile(turns)
	if err != nil {
		t.Fatal(err)
	}
	// Whoever failed or is much too slow is not asked again.
	if d := cmp.Diff("ours near slow broken fast ours near fast", strings.Join(strings.Fields(string(order)), " ")); d != "" {
		t.Error("turns (-want +got):\n" + d)
	}
	ours, slow, failed := g.Entries[0], g.Entries[2], g.Entries[3]
	if want := (measure.Spread{Median: 15, Min: 10, Max: 20}); ours.StepMS != want {
		t.Errorf("time %v, want %v", ours.StepMS, want)
	}
	// Both doubled their time in the second round, so their ratio did not move.
	if want := (measure.Spread{Median: 2.5, Min: 2.5, Max: 2.5}); ours.Speedup == nil || *ours.Speedup != want {
		t.Errorf("speedup %v, want %v", ours.Speedup, want)
	}
	if want := 128 / 0.015; ours.SamplesPerSec != want {
		t.Errorf("%g samples/s, want %g", ours.SamplesPerSec, want)
	}
	if ours.PeakRSS != 1500 {
		t.Errorf("peak memory %d bytes, want the median of the rounds", ours.PeakRSS)
	}
	if !strings.Contains(failed.Failed, "no g++") || failed.Speedup != nil {
		t.Errorf("the failed peer has failure %q and speedup %v", failed.Failed, failed.Speedup)
	}
	if !slow.Rested || slow.Speedup == nil || slow.Speedup.Median != 25.0/80 {
		t.Errorf("the slow peer: %+v", slow)
	}
	if g.Fastest != "fast" || g.Leanest == "" || ours.Memory == nil {
		t.Errorf("fastest peer %q, leanest %q", g.Fastest, g.Leanest)
	}
}

// one is an entry with rounds of these times.
func one(name string, peer bool, mb int64, ms ...float64) *entry {
	e := &entry{Name: name, What: "what it is", Peer: peer, PeakRSS: mb * 1e6}
	for _, x := range ms {
		e.Rounds = append(e.Rounds, round{StepMS: measure.Spread{Median: x}, PeakRSS: mb * 1e6})
	}
	return e
}

// The fastest peer is one that ran all rounds, as long as there is one.
func TestPeersThatCount(t *testing.T) {
	for _, c := range []struct {
		name             string
		fails, rests     string
		fastest, leanest string
	}{
		{"all", "", "", "a", "b"},
		{"the fastest failed", "a", "", "c", "b"},
		{"a slow one rested", "", "b", "a", "b"},
		{"all others failed since", "a c", "b", "b", "b"},
		{"lean one failed", "b", "", "a", "c"},
	} {
		g := testGroup()
		g.Entries = []*entry{one("ours", false, 100, 1, 1), one("a", true, 900, 4, 6), one("b", true, 300, 7), one("c", true, 600, 5, 8)}
		for _, e := range g.Entries {
			if strings.Contains(c.fails, e.Name) {
				e.Failed = "out of memory"
			}
			e.Rested = strings.Contains(c.rests, e.Name)
		}
		if err := g.summarize(); err != nil {
			t.Fatal(err)
		}
		if g.Fastest != c.fastest || g.Leanest != c.leanest {
			t.Errorf("%s: fastest %s, leanest %s", c.name, g.Fastest, g.Leanest)
		}
		best := g.find(g.Fastest)
		var want []float64
		for _, r := range best.Rounds {
			want = append(want, r.ms())
		}
		if s := measure.SpreadOf(want); *g.Entries[0].Speedup != s {
			t.Errorf("%s: speedup %v, want %v", c.name, *g.Entries[0].Speedup, s)
		}
	}
}

func TestComparisonRefuses(t *testing.T) {
	says := func(name string, peer bool, text string) contestant {
		return contestant{name: name, peer: peer, argv: []string{"echo", text}}
	}
	good := `{"batch": 128, "precision": "fp32", "peak_rss_bytes": 9, "step_flops_unpruned": 1000, "step_ms_all": [1, 1, 1]}`
	for _, c := range []struct {
		name, want string
		field      []contestant
	}{
		{"trainer fails", "exit status 7", []contestant{{name: "ours", argv: []string{"sh", "-c", "exit 7"}}}},
		{"not there", "no such file", []contestant{{name: "ours", argv: []string{"./not-there"}}}},
		{"not JSON", "no JSON object", []contestant{says("ours", false, "ok")}},
		{"no times", "no step_ms_all", []contestant{says("ours", false, "{}")}},
		{"batch", "64 samples, not 128", []contestant{says("ours", false, strings.Replace(good, "128", "64", 1))}},
		{"precision", `"bf16", not fp32`, []contestant{says("ours", false, strings.Replace(good, "fp32", "bf16", 1))}},
		{"fewer steps", "timed 2 steps, not 3", []contestant{says("ours", false, strings.Replace(good, "1, 1, 1", "1, 1", 1))}},
		{"no memory", "how much memory", []contestant{says("ours", false, strings.Replace(good, "9", "0", 1))}},
		{"other model", "1100 FLOPs before pruning", []contestant{says("ours", false, strings.Replace(good, "1000", "1100", 1))}},
		{"no peer left", "every peer failed", []contestant{says("ours", false, good), says("theirs", true, "oops")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := testGroup().compare(context.Background(), c.field, quiet)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestColdCompile(t *testing.T) {
	// Answers with the flags and environment it sees, as the peer would read
	// them: of a flag given twice the last one counts.
	script := `test -z "$TORCHINDUCTOR_COMPILE_THREADS" && first=7000 || first=5
case "$*" in *"--warmup 1 --steps 1") steps=1 ;; *) steps=1,1,1 ;; esac
echo "{\"batch\": 128, \"precision\": \"fp32\", \"peak_rss_bytes\": 9, \"first_step_ms\": $first, \"step_ms_all\": [$steps]}"`
	peer := func(name, cache string) contestant {
		return contestant{name: name, peer: true, cache: cache, env: []string{noCompilers},
			argv: []string{"sh", "-c", script, "peer", "--warmup", "1", "--steps", "3"}}
	}
	t.Setenv("TORCHINDUCTOR_COMPILE_THREADS", "")
	g := testGroup()
	if err := g.compare(context.Background(), []contestant{peer("a", "x"), peer("b", ""), peer("c", "y"), peer("d", "x"), peer("e", t.TempDir())}, quiet); err != nil {
		t.Fatal(err)
	}
	var cold []float64
	for _, e := range g.Entries {
		cold = append(cold, e.ColdFirstStepMS)
		if len(e.Rounds) != 2 {
			t.Errorf("%s: %d rounds: the cold step must not be among them; %s", e.Name, len(e.Rounds), e.Failed)
		}
	}
	// b compiles nothing, d what a has compiled, and e's was compiled before.
	if d := cmp.Diff([]float64{7000, 0, 7000, 0, 0}, cold); d != "" {
		t.Error("cold first steps (-want +got):\n" + d)
	}
}

// A peer whose first step is timed again finds nothing of the time before, and
// leaves its code to the row.
func TestColdPeer(t *testing.T) {
	dir := t.TempDir()
	python := filepath.Join(dir, "python")
	script := `#!/bin/sh
test "$4" = "$WORKLOAD" || exit 9
cache=${TORCHINDUCTOR_CACHE_DIR:-$VITGEN_JAX_CACHE}
first=7000; test -e "$cache/code" && first=5
mkdir -p "$cache" && touch "$cache/code"
echo "{\"batch\": 128, \"precision\": \"fp32\", \"first_step_ms\": $first, \"step_ms_all\": [1]}"
`
	if err := os.WriteFile(python, []byte(script), 0o777); err != nil {
		t.Fatal(err)
	}
	s := settings{Threads: 2, python: python, scratch: dir}
	row := rowNamed(t, "vit")
	t.Setenv("WORKLOAD", s.workloadFile(row.source))
	for _, name := range compilingPeers {
		p := &coldPeer{Name: name}
		for n := range 2 {
			s.coldPeer(context.Background(), row, p, n)
		}
		if d := cmp.Diff([]float64{7000, 7000}, p.AllMS); d != "" || p.Failed != "" {
			t.Errorf("%s: failure %q, first steps (-want +got):\n%s", name, p.Failed, d)
		}
		for _, c := range s.allPeers(row) {
			if _, err := os.Stat(filepath.Join(c.cache, "code")); c.name == name && err != nil {
				t.Error(err)
			}
		}
	}
	p := &coldPeer{Name: "nobody"}
	if s.coldPeer(context.Background(), row, p, 0); p.Failed == "" {
		t.Error("a peer that is none did not fail")
	}
}
