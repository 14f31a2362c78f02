package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitgen/vitgen/bench/measure"
)

func TestGoals(t *testing.T) {
	two := &measure.Spread{Median: 2, Min: 1.5, Max: 2.5}
	for _, c := range []struct {
		cell           cell
		met            bool
		figure, wanted string
	}{
		{want(two, times, 2, false), true, "2.00× (1.50–2.50)", "≥ 2.00×, **met**"},
		{want(two, times, 2.01, false), false, "2.00× (1.50–2.50)", "≥ 2.01×, **missed**"},
		{want(two, percent, 2, true), true, "200 % (150–250)", "≤ 200 %, **met**"},
		{want(two, share, 1.0/3, true), false, "2.00 (1.50–2.50)", "≤ 0.33, **missed**"},
		{want(two, times, 0, false), false, "2.00× (1.50–2.50)", ""},
		{want(nil, times, 2, false), false, "not measured", "≥ 2.00×"},
		{want(nil, times, 0, false), false, "", ""},
	} {
		figure, wanted := c.cell.columns()
		if c.cell.Met != c.met || figure != c.figure || wanted != c.wanted {
			t.Errorf("met %v, %q, %q; want %+v", c.cell.Met, figure, wanted, c)
		}
	}
}

// A contestant that was not asked for or failed leaves its cell empty.
func TestGoalsWithoutFigures(t *testing.T) {
	g := testGroup()
	g.Entries = []*entry{one(ours, false, 300, 10)}
	if err := g.summarize(); err != nil {
		t.Fatal(err)
	}
	for _, line := range []goal{g.speedGoal(), g.memoryGoal()} {
		if line.Peer != "" || line.Pruned.Figure != nil || line.Pruned.Met || line.Unpruned.Figure != nil {
			t.Errorf("%+v", line)
		}
	}
	c := compiling{Peers: []*coldPeer{{Name: "torch-compile", Failed: "no g++"}}}
	if c.share(); c.Share != nil || c.NativeShare != nil {
		t.Errorf("%+v", c)
	}
	for _, line := range c.goals() {
		if line.Peer != "" || line.Pruned.Figure != nil {
			t.Errorf("%+v", line)
		}
	}
}

// A part that failed is said, and does not take the others along.
func TestReportSaysFailures(t *testing.T) {
	r := testResult(t)
	r.Failed = []failure{{"vit_s16", "g++\n\tno memory"}}
	text := r.markdown()
	for _, want := range []string{"- **vit_s16 failed**: g++ / no memory\n\n## Training", "## GEMM alone"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report has no %q", want)
		}
	}
}

func TestCompileShare(t *testing.T) {
	c := compiling{
		Compile: timing{AllMS: []float64{40, 60}}, Native: timing{AllMS: []float64{9960, 11940}}, Build: timing{AllMS: []float64{19960, 17940}},
		Peers: []*coldPeer{{Name: "torch-compile", AllMS: []float64{40000, 30000}}},
	}
	c.share()
	if want := (measure.Spread{Median: 0.325, Min: 0.25, Max: 0.4}); c.NativeShare == nil || *c.NativeShare != want {
		t.Errorf("share of the native build %v, want %v", c.NativeShare, want)
	}
	if want := (measure.Spread{Median: 0.55, Min: 0.5, Max: 0.6}); c.Share == nil || *c.Share != want {
		t.Errorf("share %v, want %v", c.Share, want)
	}
	if lines := c.goals(); !lines[0].Pruned.Met || lines[1].Pruned.Met {
		t.Error("0.325 is at most a third, 0.55 is not")
	}
}

func testResult(t *testing.T) *result {
	g := testGroup()
	mine, unpruned, theirs, lean := one(ours, false, 300, 500, 550), one(oursUnpruned, false, 450, 750, 825), one("torch", true, 900, 1000, 1100), one("jax", true, 600, 2000)
	mine.StepFLOPs, mine.UnprunedFLOPs = 110e9, 184e9
	unpruned.StepFLOPs, unpruned.UnprunedFLOPs = 184e9, 184e9
	theirs.StartRSS, theirs.ColdFirstStepMS, lean.StartRSS, lean.Rested = 500e6, 30e3, 160e6, true
	g.PeerFLOPs = 183e9
	g.Entries = []*entry{mine, unpruned, theirs, lean, {Name: "torch-compile", What: "compiled", Peer: true, Failed: "exit status 1\n\tno g++"}}
	if err := g.summarize(); err != nil {
		t.Fatal(err)
	}
	c := &compiling{Spec: vit.file, ISA: "avx512", Peers: []*coldPeer{{Name: "torch-compile", AllMS: []float64{40e3}, MS: &measure.Spread{Median: 40e3, Min: 40e3, Max: 40e3}}, {Name: "jax", Failed: "oh"}}}
	c.Compile.add(measure.Usage{Wall: 40e6, PeakRSS: 14e6})
	c.Native.add(measure.Usage{Wall: 9960e6, PeakRSS: 386e6})
	c.Build.add(measure.Usage{Wall: 19960e6, PeakRSS: 386e6})
	c.Link.add(measure.Usage{Wall: 1e9, PeakRSS: 199e6})
	c.share()
	r := &result{
		Date: "2026-01-02", Settings: settings{Threads: 2}, Seconds: 61, Groups: []*group{g}, Compile: c,
		Machine:  measure.Machine{CPU: "Some CPU", CPUs: 2, ISA: []string{"avx2", "fma"}, MemoryBytes: 16e9, OS: "linux/amd64", HugePages: "madvise", LoadBefore: 0.1},
		Versions: map[string]string{"vitgen": "abc", "torch": "2", "go": "go1"},
		Products: []*products{{
			What: "`vit.yaml`", OfPeak: &measure.Spread{Median: 0.9, Min: 0.8, Max: 0.91}, PeakGF: 350, ISA: "avx512",
			Runs: []productsRun{{Products: []product{{"nt", 4736, 2048, 512, 2, 310, 0.886}}}},
		}},
	}
	r.Goals = r.goalLines()
	return r
}

func TestReport(t *testing.T) {
	want := strings.ReplaceAll(`# On the CPU, 2026-01-02

Machine: Some CPU, 2 CPUs (avx2 fma), 16 GB; linux/amd64; huge pages: madvise.
Load before the run 0.10, stolen by the hypervisor 0.0 %. 2 threads, fp32. 61 s in all.

Versions: go go1; torch 2; vitgen abc.

| work                                                                |                          best peer | without row pruning |                goal |              with |                goal |
|---------------------------------------------------------------------|-----------------------------------:|--------------------:|--------------------:|------------------:|--------------------:|
| training step, 'vit.yaml', batch 128                                |                   torch, 1050.0 ms |   1.33× (1.33–1.33) | ≥ 1.50×, **missed** | 2.00× (2.00–2.00) | ≥ 3.00×, **missed** |
| GEMM alone, 'vit.yaml'                                              |              FMA peak, 350 GFLOP/s |        90 % (80–91) |     ≥ 85 %, **met** |                   |                     |
| peak memory, training step, 'vit.yaml', batch 128                   |                        jax, 600 MB |        75 % (75–75) |  ≤ 60 %, **missed** |      50 % (50–50) |  ≤ 30 %, **missed** |
| 'vitgen compile' and C++ build, cold, for this machine, as the peer | torch-compile's first step, 40.0 s |                     |                     |  0.25 (0.25–0.25) |     ≤ 0.33, **met** |
| 'vitgen compile' and C++ build, cold, for all instruction sets      | torch-compile's first step, 40.0 s |                     |                     |  0.50 (0.50–0.50) |  ≤ 0.33, **missed** |

Figures are medians of the rounds, with their extremes. Speed is the fastest peer's time over vitgen's in the same
round; memory is vitgen's peak over the leanest peer's; compiling is its time over the peer's.

## Training step, 'vit.yaml', batch 128

One update of 'examples/vit.yaml', random data. Every contestant in turn, 2 rounds; in each a fresh process with 1 warm-up and
3 timed steps, of which the median counts.

|                 | ms/step | min–max of rounds | samples/s | speed | peak MB | what       |
|-----------------|--------:|------------------:|----------:|------:|--------:|------------|
| vitgen          |   525.0 |       500.0–550.0 |     243.8 | 2.00× |     300 | what it is |
| vitgen-unpruned |   787.5 |       750.0–825.0 |     162.5 | 1.33× |     450 | what it is |
| torch           |  1050.0 |     1000.0–1100.0 |     121.9 | 1.00× |     900 | what it is |
| jax             |  2000.0 |         one round |      64.0 | 0.50× |     600 | what it is |
| torch-compile   |  failed |                   |           |       |         | compiled   |

Speed is against torch, the fastest peer, round by round.

- **vitgen**: 2.00× as fast as torch (2.00–2.00), its peak memory 33 % of that peer's and 50 % of jax's, the leanest; 110 GFLOP a step, 184 before pruning (PyTorch counts 183 in matrix products alone), 210 GFLOP/s.
- **vitgen-unpruned**: 1.33× as fast as torch (1.33–1.33), its peak memory 50 % of that peer's and 75 % of jax's, the leanest; 184 GFLOP a step, 184 before pruning (PyTorch counts 183 in matrix products alone), 234 GFLOP/s.
- torch: 30.0 s from an empty cache to the end of the first step, before the rounds.
- **torch-compile failed**: exit status 1 / no g++
- The leanest peer is jax; 160 MB of its memory are Python and libraries, before there is a model.
- Before timing, the peers' loss and gradients were compared with 'golden/models.py', and names and shapes of 24
  parameters with the trainer's.

## GEMM alone, 'vit.yaml'

| kind |    M |    N |   K | launches | GFLOP/s | of peak |
|------|-----:|-----:|----:|---------:|--------:|--------:|
| nt   | 4736 | 2048 | 512 |        2 |     310 |    89 % |

The products of a training step, each alone, by 'bench/roofline', 1 runs; above the largest of the last. In the table of
goals all 1 shapes count: the time that their launches would take at the machine's FMA peak (350 GFLOP/s, avx512) over the
time they take.

## Compiling 'examples/vit.yaml'

|                                               | runs | median s |     min–max s | peak MB |
|-----------------------------------------------|-----:|---------:|--------------:|--------:|
| 'vitgen compile'                              |    1 |    0.040 |   0.040–0.040 |      14 |
| 'go build' for avx512, C++ not yet compiled   |    1 |    9.960 |   9.960–9.960 |     386 |
| 'go build' for all instruction sets, the same |    1 |   19.960 | 19.960–19.960 |     386 |
| 'go build' for all again                      |    1 |    1.000 |   1.000–1.000 |     199 |
| torch-compile, first step                     |    1 |   40.000 | 40.000–40.000 |         |

Of vitgen whole processes, and the memory of the largest one; of the peers the first training step alone, from empty
caches and without the start of Python. Peers compile for this machine, as does 'vitgen build --isa native';
without it a trainer has kernels for all instruction sets.

- **jax failed**: oh
`, "'", "`")
	if d := cmp.Diff(want, strings.ReplaceAll(testResult(t).markdown(), "'", "`")); d != "" {
		t.Error("report (-want +got):\n" + d)
	}
}
