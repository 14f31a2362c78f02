package main

import (
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitgen/vitgen/bench/measure"
	"github.com/vitgen/vitgen/bench/workload"
	"github.com/vitgen/vitgen/spec"
)

// parameters counts those of bench/peers' models.
func parameters(m *workload.Model) int {
	d, h, k := m.Dim, m.Hidden, m.Classes
	tokens := (m.Image[1] / m.Patch) * (m.Image[2] / m.Patch)
	n := m.Image[0]*m.Patch*m.Patch*d + d + d + (tokens+1)*d // patches, class token, positions
	block := 4*d + 2*d*h + h + d                             // norms, MLP
	if m.Family == "d2l" {
		block += 4 * d * d
	} else {
		block += 4*d*d + 4*d
	}
	return n + m.Blocks*block + 2*d + k*d + k
}

// Every derived spec is one, means the same lines, and has as many parameters as
// the peers' model of that size.
func TestSources(t *testing.T) {
	t.Chdir("../..")
	for _, list := range [][]source{sources, rehearsalSources} {
		for _, s := range list {
			src, err := os.ReadFile(s.file)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(s.golden); s.golden != "" && err != nil {
				t.Error(err)
			}
			for _, m := range s.models() {
				set := map[string]string{"name": m.pkg(), "train.precision": m.Precision}
				for k, v := range s.set {
					set[k] = v
				}
				made, err := workload.Derive(src, set)
				if err != nil {
					t.Fatalf("%s: %v", m.Name, err)
				}
				sp, err := spec.Parse(m.Name, made)
				if err != nil {
					t.Fatalf("%s: %v\n%s", m.Name, err, made)
				}
				if sp.Name != m.pkg() || sp.Train.Precision != m.Precision {
					t.Errorf("%s became %s in %s", m.Name, sp.Name, sp.Train.Precision)
				}
				before, _, _ := strings.Cut(string(src), "\ntrain:")
				after, _, _ := strings.Cut(string(made), "\ntrain:")
				if strings.Count(before, "\n") != strings.Count(after, "\n") {
					t.Errorf("%s: lines of the model moved", m.Name)
				}
				if s.model == nil {
					continue
				}
				w := s.workload(sp)
				n := 0
				for _, p := range sp.Params() {
					elems := 1
					for _, d := range p.Shape {
						elems *= d
					}
					n += elems
				}
				if n != parameters(&w.Model) {
					t.Errorf("%s has %d parameters, the peers' model %d", m.Name, n, parameters(&w.Model))
				}
				if w.Counts.Steps%w.Counts.Chunk != 0 {
					t.Errorf("%s: %d steps in chunks of %d", s.name, w.Counts.Steps, w.Counts.Chunk)
				}
			}
		}
	}
}

func TestPick(t *testing.T) {
	some, err := pick(sources, []string{"vit_tiny", "vit"})
	if err != nil || len(some) != 2 || some[0].name != "vit" {
		t.Errorf("%v, %v", some, err)
	}
	if _, err := pick(sources, []string{"vit_l"}); err == nil || !strings.Contains(err.Error(), "vit_b16") {
		t.Errorf("unknown name: error %v does not list the names", err)
	}
}

func TestReadWatch(t *testing.T) {
	sample := func(memory, clock, power, temperature string) gpuFacts {
		return gpuFacts{"memory.used": memory, "clocks.sm": clock, "power.draw": power, "temperature.gpu": temperature}
	}
	w := readWatch([]gpuFacts{
		sample("1000", "1200", "80.0", "40"), sample("5000", "1900", "400.5", "60"), sample("5000", "1800", "390.0", "61"), {"memory.used": "2000"},
	}, gpuFacts{"memory.used": "500"})
	if want := (watch{PeakBytes: 4500 << 20, ClockMHz: 1850, PowerWatts: 395.25, TempC: 60.5}); w == nil || *w != want {
		t.Errorf("watch %+v, want %+v", w, want)
	}
	if w := readWatch(nil, nil); w != nil {
		t.Errorf("no samples give %+v", w)
	}
}

func TestRoof(t *testing.T) {
	f := &roofs{FP32: 50e12, TF32: 400e12, BF16: 800e12, BytesPerSec: 4e12}
	for _, c := range []struct {
		family, precision, bound string
		percent                  float64
	}{
		{"gemm", "bf16", "arithmetic", 50}, // 0.4 TFLOP in 1 ms
		{"gemm", "fp32", "arithmetic", 800},
		{"row", "bf16", "memory", 800},
	} {
		k := &kernel{kernelTime: kernelTime{MS: 1}, Family: c.family, FLOPs: 400e9, Bytes: 1e9}
		if c.family == "row" {
			k.FLOPs, k.Bytes = 1e9, 32e9
		}
		k.under(f, c.precision)
		if k.Bound != c.bound || math.Abs(k.RoofPercent-c.percent) > 1e-9 {
			t.Errorf("%s in %s: bound by %s, %g %%", c.family, c.precision, k.Bound, k.RoofPercent)
		}
	}
}

func TestParseNCU(t *testing.T) {
	out := `==PROF== Connected
"ID","Kernel Name","gpu__time_duration.sum","launch__registers_per_thread"
"","","ns","register/thread"
"0","k00_patchify(const vg_state *, char *)","1,200","32"
"1","k01_gemm_nt(int)","9,000","128"
"2","k00_patchify(const vg_state *, char *)","99","32"
step 1
`
	p, err := parseNCU("vit-bf16", []byte(out))
	if err != nil {
		t.Fatal(err)
	}
	want := &profile{
		Model: "vit-bf16", Units: map[string]string{ncuTime: "ns", ncuRegisters: "register/thread"},
		Kernels: []profiledKernel{
			{"k01_gemm_nt", map[string]float64{ncuTime: 9000, ncuRegisters: 128}},
			{"k00_patchify", map[string]float64{ncuTime: 1200, ncuRegisters: 32}},
		},
	}
	if d := cmp.Diff(want, p); d != "" {
		t.Error("profile (-want +got):\n" + d)
	}
	if _, err := parseNCU("x", []byte("==ERROR== nothing\n")); err == nil {
		t.Error("no table is a profile")
	}
}

func TestReport(t *testing.T) {
	one := func(name string, peer bool, ms ...float64) *entry {
		e := &entry{Name: name, What: "what it is", Peer: peer}
		for _, x := range ms {
			e.Rounds = append(e.Rounds, round{measure.Spread{Median: x, Min: x, Max: x}})
		}
		return e
	}
	oursEntry, theirs, compiled := one(ours, false, 0.5, 0.6), one("torch", true, 2, 2.2), one("torch-compile", true, 1, 1.5)
	oursEntry.StepFLOPs, oursEntry.UnprunedFLOPs, oursEntry.GPU = 110e9, 184e9, &watch{2e9, 1900, 600, 55}
	theirs.AllocatedBytes, compiled.ColdFirstStepMS = 3e9, 30e3
	g := &group{
		Workload: "vit", Spec: "examples/vit.yaml", Precision: "bf16", Batch: 128, Counts: workload.Counts{Warmup: 50, Steps: 200, Chunk: 20}, Rounds: 2,
		Entries: []*entry{oursEntry, theirs, compiled, {Name: "jax", Peer: true, Absent: "jax sees no GPU"}, {Name: "torch-graph", What: "captured", Peer: true, Failed: "exit status 1\n\tout of memory"}},
		Kernels: []*kernel{{kernelTime: kernelTime{"k01_gemm_nt", "vit.yaml:20:5", "conv", 2, 0.1, 50}, FLOPs: 40e9, Bytes: 1e8, Bound: "arithmetic", RoofMS: 0.05, RoofPercent: 50}},
	}
	g.summarize()
	r := &results{
		Date: "2026-01-02", Machine: measure.Machine{CPU: "Some CPU", CPUs: 16, MemoryBytes: 64e9, OS: "linux/amd64", HugePages: "madvise"},
		GPU: gpuFacts{
			"name": "NVIDIA H200", "compute_cap": "9.0", "memory.total": "143771", "driver_version": "580.1", "clocks.max.sm": "1980",
			"clocks.max.mem": "3201", "power.limit": "700.00",
		},
		Versions: map[string]string{"torch": "2", "vitgen": "abc"}, Built: "2026-01-01 00:00:00", Archs: []string{"sm_80", "sm_90"}, Seconds: 61,
		Checks: []check{{Step: "goldens", Name: "vit-bf16", Status: passed}, {Step: "goldens", Name: "vit-fp32", Status: failed, Why: "a\n\tb"}, {Step: "ncu", Name: "Nsight Compute", Status: skipped, Why: "no ncu"}},
		Roofs:  &roofs{measured, 50e12, 400e12, 800e12, 4e12, 8192, 1 << 30}, Groups: []*group{g},
	}
	want := `# Training on the GPU, 2026-01-02

GPU: NVIDIA H200; compute capability 9.0, 143771 MiB, driver 580.1, at most 1980 MHz, memory at most 3201 MHz, 700.00 W.
Host: Some CPU, 16 CPUs (), 64 GB; linux/amd64; huge pages: madvise. Load before the run 0.00.

Versions: torch 2; vitgen abc. Trainers built 2026-01-01 00:00:00, kernels for sm_80 and sm_90.

On this device PyTorch's matrix product of 8192 × 8192 reaches 50.0 TFLOP/s in fp32, 400.0 in tf32 and 800.0 in bf16, a copy 4000 GB/s.
Rooflines below are of these.
61 s in all.

## Checks

|         | passed | failed | skipped |
|---------|-------:|-------:|--------:|
| goldens |      1 |      1 |       0 |
| ncu     |      0 |      0 |       1 |

- **failed**: goldens, vit-fp32: a / b
- **skipped**: ncu, Nsight Compute: no ncu

## vit, bf16, batch 128

One update of ` + "`examples/vit.yaml`" + `, random data on the device. Every contestant in turn, 2 rounds; in each a fresh
process with 50 warm-up and 200 timed steps, of which the median counts.

|               | ms/step | min–max of rounds | samples/s | speed | peak MB | what       |
|---------------|--------:|------------------:|----------:|------:|--------:|------------|
| vitgen        |   0.550 |       0.500–0.600 |    232727 | 2.25× |    2000 | what it is |
| torch         |   2.100 |       2.000–2.200 |     60952 | 0.59× |    3000 | what it is |
| torch-compile |   1.250 |       1.000–1.500 |    102400 | 1.00× |         | what it is |
| torch-graph   |  failed |                   |           |       |         | captured   |

Speed is against torch-compile, the fastest peer, round by round.

- **vitgen**: 110 GFLOP a step, 184 before pruning; 200 TFLOP/s. 2.25× as fast as torch-compile (2.00–2.50). Under load 1900 MHz, 600 W, 55 °C.
- torch-compile: 30.0 s from an empty cache to the end of the first step, before the rounds.
- **torch-graph failed**: exit status 1 / out of memory
- Without jax: jax sees no GPU.

| kernel      | launches |    µs |     % | TFLOP/s | GB/s | of roof |      bound | where              |
|-------------|---------:|------:|------:|--------:|-----:|--------:|-----------:|--------------------|
| k01_gemm_nt |        2 | 100.0 | 100.0 |   400.0 | 1000 |    50 % | arithmetic | vit.yaml:20:5 conv |

1 kernels, the 1 slowest above, each launched by itself: 0.100 ms together. By the roofline they would take 0.050 ms.

`
	if d := cmp.Diff(want, r.markdown()); d != "" {
		t.Error("report (-want +got):\n" + d)
	}
}
