package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitgen/vitgen/bench/measure"
)

var testSettings = settings{Rounds: 2, Warmup: 1, Steps: 3, Threads: 2, Batch: 128, peerFLOPs: 1000}

// fake is a contestant that notes its turn in a file and prints a reading whose
// steps take ms in its first round and twice that in the second.
func fake(turns, name string, peer bool, ms float64) contestant {
	script := fmt.Sprintf(`echo %[1]s >> %[2]s
n=$(grep -c '^%[1]s$' %[2]s)
awk -v t=%[3]g -v n=$n 'BEGIN {
	printf "{\"batch\": 128, \"precision\": \"fp32\", \"step_flops_unpruned\": 1005, \"step_ms_all\": [%%g, %%g, %%g]}", n*t, n*t*9, n*t/2
}'`, name, turns, ms)
	return contestant{name: name, peer: peer, argv: []string{"sh", "-c", script}}
}

func quiet(string, ...any) {}

func TestContestantsTakeTurns(t *testing.T) {
	turns := filepath.Join(t.TempDir(), "turns")
	broken := contestant{name: "broken", peer: true, argv: []string{"sh", "-c", "echo broken >> " + turns + "; echo no g++ >&2; exit 3"}}
	entries, err := compare(context.Background(), []contestant{
		fake(turns, "ours", false, 10), fake(turns, "slow", true, 80), broken, fake(turns, "fast", true, 25),
	}, testSettings, quiet)
	if err != nil {
		t.Fatal(err)
	}
	order, err := os.ReadFile(turns)
	if err != nil {
		t.Fatal(err)
	}
	// Whoever failed is not asked again.
	if d := cmp.Diff("ours slow broken fast ours slow fast", strings.Join(strings.Fields(string(order)), " ")); d != "" {
		t.Error("turns (-want +got):\n" + d)
	}
	ours, failed := entries[0], entries[2]
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
	if ours.PeakRSS < 100e3 || ours.PeakRSS > 1e9 {
		t.Errorf("a shell's peak memory is %d bytes", ours.PeakRSS)
	}
	if !strings.Contains(failed.Failed, "no g++") || failed.Speedup != nil {
		t.Errorf("the failed peer has failure %q and speedup %v", failed.Failed, failed.Speedup)
	}
	if p := fastestPeer(entries); p.Name != "fast" {
		t.Errorf("fastest peer %s", p.Name)
	}
}

func TestComparisonRefuses(t *testing.T) {
	says := func(name string, peer bool, text string) contestant {
		return contestant{name: name, peer: peer, argv: []string{"echo", text}}
	}
	good := `{"batch": 128, "precision": "fp32", "step_flops_unpruned": 1000, "step_ms_all": [1, 1, 1]}`
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
		{"other model", "1100 FLOPs before pruning", []contestant{says("ours", false, strings.Replace(good, "1000", "1100", 1))}},
		{"no peer left", "every peer failed", []contestant{says("ours", false, good), says("theirs", true, "oops")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := compare(context.Background(), c.field, testSettings, quiet)
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
case "$*" in *"--warmup 0 --steps 1") steps=1 ;; *) steps=1,1,1 ;; esac
echo "{\"batch\": 128, \"precision\": \"fp32\", \"first_step_ms\": $first, \"step_ms_all\": [$steps]}"`
	peer := func(name, mode string) contestant {
		return contestant{name: name, peer: true, compileMode: mode, env: []string{noCompilers},
			argv: []string{"sh", "-c", script, "peer", "--warmup", "1", "--steps", "3"}}
	}
	t.Setenv("TORCHINDUCTOR_COMPILE_THREADS", "")
	entries, err := compare(context.Background(), []contestant{peer("a", "default"), peer("b", "default"), peer("c", "max-autotune")}, testSettings, quiet)
	if err != nil {
		t.Fatal(err)
	}
	var cold []float64
	for _, e := range entries {
		cold = append(cold, e.ColdFirstStepMS)
		if len(e.Rounds) != 2 {
			t.Errorf("%s: %d rounds: the cold step must not be among them; %s", e.Name, len(e.Rounds), e.Failed)
		}
	}
	// b shares a's cache.
	if d := cmp.Diff([]float64{7000, 0, 7000}, cold); d != "" {
		t.Error("cold first steps (-want +got):\n" + d)
	}
}

func TestChoose(t *testing.T) {
	all := field(testSettings)
	for _, c := range []struct {
		only, with, want string
	}{
		{"", "", "vitgen vitgen-unpruned torch torch-sdpa torch-compile torch-tuned"},
		{"", "torch-pruned", "vitgen vitgen-unpruned torch torch-sdpa torch-compile torch-tuned torch-pruned"},
		{"torch-autotune,vitgen", "", "vitgen torch-autotune"},
	} {
		chosen, err := choose(all, measure.Names(c.only), measure.Names(c.with))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range chosen {
			got = append(got, e.name)
		}
		if d := cmp.Diff(c.want, strings.Join(got, " ")); d != "" {
			t.Errorf("only %q with %q (-want +got):\n%s", c.only, c.with, d)
		}
	}
	if _, err := choose(all, nil, []string{"tourch"}); err == nil || !strings.Contains(err.Error(), "torch-pruned") {
		t.Errorf("unknown name: error %v does not list the names", err)
	}
}

// The same counts of steps and threads reach everyone.
func TestFieldIsEven(t *testing.T) {
	for _, c := range field(testSettings) {
		line := strings.Join(c.argv, " ")
		if !strings.HasSuffix(line, "--threads 2 --warmup 1 --steps 3") {
			t.Errorf("%s: %s", c.name, line)
		}
		if c.peer && !slices.Contains(c.env, "OMP_NUM_THREADS=2") {
			t.Errorf("%s: environment %v", c.name, c.env)
		}
	}
}

func TestStepsReport(t *testing.T) {
	one := func(name string, peer bool, ms float64, mb int64) *entry {
		e := &entry{Name: name, What: "what it is", Peer: peer, PeakRSS: mb * 1e6}
		e.Rounds = []round{{MedianMS: ms}, {MedianMS: ms * 1.1}}
		return e
	}
	ours, theirs := one("vitgen", false, 500, 300), one("torch", true, 1000, 900)
	lean := one("torch-lean", true, 2000, 600)
	ours.StepFLOPs, ours.UnprunedFLOPs = 110e9, 184e9
	theirs.StartRSS, theirs.ColdFirstStepMS = 500e6, 30e3
	r := &stepsResult{
		Date: "2026-01-02", Spec: specFile, Settings: testSettings, Seconds: 61, Peer: peerFacts{Parameters: 6457866, StepFLOPs: 183e9},
		Machine:  measure.Machine{CPU: "Some CPU", CPUs: 2, ISA: []string{"avx2", "fma"}, MemoryBytes: 16e9, OS: "linux/amd64", HugePages: "madvise", LoadBefore: 0.1},
		Versions: map[string]string{"vitgen": "abc", "torch": "2", "go": "go1"},
		Entries:  []*entry{ours, theirs, lean, {Name: "torch-compile", What: "compiled", Peer: true, Failed: "exit status 1\n\tno g++"}},
	}
	if err := summarize(r.Entries, 128); err != nil {
		t.Fatal(err)
	}
	want := `# Training step on the CPU, 2026-01-02

Machine: Some CPU, 2 CPUs (avx2 fma), 16 GB; linux/amd64; huge pages: madvise.
Load before the run 0.10, stolen by the hypervisor 0.0 %.

Versions: go go1; torch 2; vitgen abc.

One update of ` + "`examples/vit.yaml`" + `, fp32, batch 128, 2 threads, random data. Every contestant in turn, 2 rounds;
in each a fresh process with 1 warm-up and 3 timed steps, of which the median counts. 61 s in all.

|               | ms/step | min–max of rounds | samples/s | speed | peak MB | what       |
|---------------|--------:|------------------:|----------:|------:|--------:|------------|
| vitgen        |   525.0 |       500.0–550.0 |     243.8 | 2.00× |     300 | what it is |
| torch         |  1050.0 |     1000.0–1100.0 |     121.9 | 1.00× |     900 | what it is |
| torch-lean    |  2100.0 |     2000.0–2200.0 |      61.0 | 0.50× |     600 | what it is |
| torch-compile |  failed |                   |           |       |         | compiled   |

Speed is against torch, the fastest peer, round by round.

- **vitgen** is 2.00× as fast as torch (2.00–2.00). Its peak memory is 33 % of that peer's, and 50 % of torch-lean's, the leanest.
- torch: 30.0 s from an empty cache to the end of the first step, before the rounds.
- **torch-compile failed**: exit status 1 / no g++
- vitgen computes 110.0 GFLOP a step, 184.0 before pruning; PyTorch counts 183.0 in matrix products alone. 210 GFLOP/s.
- Of the peers' memory up to 500 MB is Python and PyTorch's libraries, before there is a model.
- Before timing, the peer's loss and gradients were compared with ` + "`golden/models.py`" + ` (6457866 parameters).
`
	if d := cmp.Diff(want, r.markdown()); d != "" {
		t.Error("report (-want +got):\n" + d)
	}
	r.Entries = []*entry{ours, theirs}
	if want := "33 % of that peer's, the leanest."; !strings.Contains(r.markdown(), want) {
		t.Errorf("the fastest peer is the leanest too, and the report has no %q", want)
	}
}

// Hashing tells names and contents apart.
func TestHash(t *testing.T) {
	sums := map[string]bool{}
	for _, files := range []map[string]string{{"a": "x", "b": "y"}, {"a": "y", "b": "x"}, {"a": "xy"}, {"a": "x", "b": "y", "c": ""}} {
		dir := t.TempDir()
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		var r compileResult
		sum, err := r.hash(dir)
		if err != nil {
			t.Fatal(err)
		}
		again, err := r.hash(dir)
		if err != nil || again != sum {
			t.Errorf("hash %s, then %s (%v)", sum, again, err)
		}
		if r.Files != len(files) || r.Bytes != 2 {
			t.Errorf("%v: counted %d files, %d bytes", files, r.Files, r.Bytes)
		}
		sums[sum] = true
	}
	if len(sums) != 4 {
		t.Errorf("%d different hashes of 4 folders", len(sums))
	}
}
