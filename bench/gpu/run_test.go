package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitgen/vitgen/bench/workload"
)

// The programs of a machine with a GPU, of which the run sees what they print and
// how they end. nvidia-smi is asked and never told: any other flag is an error.
var fakes = map[string]string{
	"nvidia-smi": `
for a; do case "$a" in -i|0|-q|--format=*|--query-compute-apps=*) ;; --query-gpu=*) q=${a#--query-gpu=};; *) echo "flag $a" >&2; exit 9;; esac; done
case "$q" in
*,mig.mode.current,*) echo "mig.mode.current is no field" >&2; exit 2 ;;
memory.used,*) echo "3000, 1900, 600.0, 55" ;;
memory.used) echo 1000 ;;
name) echo "NVIDIA H200" ;; driver_version) echo 580.1 ;; compute_cap) echo 9.0 ;; mig.mode.current) exit 2 ;;
?*) echo "[N/A]" ;;
esac`,
	"nvcc": `
case "$*" in *--version*) echo "Cuda compilation tools, release 13.0, V13.0.48"; exit ;; esac
case "$*" in "-std=c++17 -allow-unsupported-compiler -arch=sm_90 -o "*) ;; *) echo "flags $*" >&2; exit 9 ;; esac
printf '#!/bin/sh\ncat %s/bench/probes/expected.txt\n' "$PWD" > "$5"; chmod +x "$5"`,
	"compute-sanitizer": `
[ "$1" = --version ] && { echo "2025.3.0.0 "; exit; }
[ "$1 $3 $5" = "--tool --error-exitcode --print-limit" ] || exit 9
tool=$2; shift 6
"$@" || exit
[ "$tool" = racecheck ] && case "$*" in *"tf32 verify"*) echo "ERROR SUMMARY: 1 hazard" >&2; exit 86 ;; esac
exit 0`,
	"ncu": `
[ "$1" = --version ] && { echo "Version 2025.3.1.0"; exit; }
[ "$1 $2" = "--clock-control none" ] || exit 9
case "$*" in *fp32*) echo "==ERROR== ERR_NVGPUCTRPERM"; exit 1 ;; esac
printf '"Kernel Name","gpu__time_duration.sum"\n"","us"\n"k01(int)","7"\n'`,
	"trainers": `
if [ "$1" = --list ]; then echo "$MODELS"; exit; fi
model=$1 command=$2; shift 2
precision=${model#*-} precision=${precision%-unpruned}
case "$command" in
info) echo '{"batch": 4, "accumulate": 2, "parameters": [{"name": "w", "shape": [2, 3]}], "cuda": {"step_launches": [{"kernel": "k01", "family": "gemm", "flops": 1000000000, "bytes": 10}]}}' ;;
bench)
	ms=2; case $model in *unpruned) ms=4 ;; esac
	steps=$(echo "$*" | sed 's/.*--steps \([0-9]*\).*/\1/')
	list=$(seq "$steps" | sed "s/.*/$ms/" | paste -sd,)
	echo "{\"batch\": 8, \"precision\": \"$precision\", \"step_ms_all\": [$list], \"device_bytes\": 5000000, \"step_flops\": 700, \"step_flops_unpruned\": 1005, \"kernels\": [{\"name\": \"k01\", \"ms\": 1, \"launches\": 1}]}" ;;
verify) case $model in *tf32) [ -z "$BROKEN" ] || { echo "$BROKEN" >&2; exit 1; } ;; esac ;;
train)
	out=$(echo "$*" | sed 's/.*--out \([^ ]*\).*/\1/')
	mkdir "$out" && echo '{"train_loss": 2.5}' > "$out/metrics.jsonl" && echo weights > "$out/last.safetensors" ;;
esac`,
	"python": `
script=$(basename "$1"); command=$2; shift 2
case "$script $command" in
"peer_jax.py bench") echo "jax: out of memory" >&2; exit 1 ;;
"peer_jax.py versions") echo '{"jax": "0.7", "platform": "gpu", "device": "H200"}' ;;
*versions) echo '{"torch": "2.11", "device": "H200"}' ;;
*check) echo '{"parameters": {"w": [2, 3]}, "step_flops": 1000}' ;;
*roofs) echo '{"fp32_flops": 5e13, "tf32_flops": 4e14, "bf16_flops": 8e14, "bytes_per_sec": 4e12, "size": 8192, "copy_bytes": 1}' ;;
*bench)
	precision=$(echo "$*" | sed 's/.*--precision \([a-z0-9]*\).*/\1/') steps=$(echo "$*" | sed 's/.*--steps \([0-9]*\).*/\1/')
	case "$*" in *"--mode compile "*) ms=6 ;; *) ms=8 ;; esac
	mkdir -p "${TORCHINDUCTOR_CACHE_DIR:-/tmp}"
	list=$(seq "$steps" | sed "s/.*/$ms/" | paste -sd,)
	echo "{\"batch\": 8, \"precision\": \"$precision\", \"step_ms_all\": [$list], \"first_step_ms\": 9000, \"peak_allocated_bytes\": 7000000}" ;;
esac`,
}

// fakeMachine puts them into PATH, and two models into a folder of binaries.
func fakeMachine(t *testing.T) (bin string) {
	t.Helper()
	t.Chdir("../..")
	bin = t.TempDir()
	for name, script := range fakes {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh"+script+"\n"), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	m := &manifest{Built: "today", Archs: []string{"sm_90"}, PTX: true, Versions: map[string]string{"vitgen": "abc"}}
	big := source{name: "big", file: "examples/vit.yaml", golden: "golden/vit.safetensors", model: &workload.Model{Family: "d2l"}}
	small := smallSource("vit_small")
	m.Models = slices.Concat(big.models(), small.models())
	m.Workloads = []workload.Workload{{Name: "big", Spec: big.file, Model: *big.model, Batch: 8, Counts: workload.Counts{Warmup: 1, Steps: 4, Chunk: 2}}}
	if err := m.write(bin); err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, m := range m.Models {
		list = append(list, m.Name)
	}
	slices.Sort(list)
	t.Setenv("MODELS", strings.Join(list, "\n"))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("CUDA_HOME", "")
	t.Setenv("CUDA_VISIBLE_DEVICES", "")
	return bin
}

// runFake runs with flags and returns the report's figures and text.
func runFake(t *testing.T, bin, out string, flags ...string) (*results, string, error) {
	t.Helper()
	args := append([]string{"run", "--bin", bin, "--out", out, "--python", "python", "--cache", filepath.Join(bin, "cache")}, flags...)
	runErr := run(context.Background(), args)
	files, err := filepath.Glob(filepath.Join(out, "*-gpu.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("reports %v, %v; %v", files, err, runErr)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	r := &results{}
	if err := json.Unmarshal(data, r); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(strings.TrimSuffix(files[0], ".json") + ".md")
	if err != nil {
		t.Fatal(err)
	}
	return r, string(text), runErr
}

// states lists the checks of a step as "name: status".
func (r *results) states(step string) (all []string) {
	for _, c := range r.Checks {
		if c.Step == step {
			all = append(all, c.Name+": "+c.Status)
		}
	}
	return all
}

func TestRunOnFakeMachine(t *testing.T) {
	bin := fakeMachine(t)
	out := filepath.Join(t.TempDir(), "results")
	r, text, err := runFake(t, bin, out, "--rounds", "2")
	if err == nil || !strings.Contains(err.Error(), "1 of ") {
		t.Errorf("error %v, want one failed check", err)
	}
	for step, want := range map[string][]string{
		"machine": {"GPU and driver: passed", "torch: passed", "jax: passed", "trainers: passed"},
		"probes":  {"layouts and rounding: passed"},
	} {
		if d := cmp.Diff(want, r.states(step)); d != "" {
			t.Errorf("%s (-want +got):\n%s", step, d)
		}
	}
	if n := len(r.states("goldens")); n != 6+3+1 { // goldens, trained twice, against the CPU
		t.Errorf("%d checks of goldens: %v", n, r.states("goldens"))
	}
	if n := len(r.states("sanitizer")); n != 4*3*2 {
		t.Errorf("%d checks of the sanitizer: %v", n, r.states("sanitizer"))
	}
	for _, c := range r.Checks {
		if c.Status == failed && (c.Name != "racecheck vit_small-tf32 verify" || !strings.Contains(c.Why, "1 hazard")) {
			t.Errorf("failed: %s %s: %s", c.Step, c.Name, c.Why)
		}
	}
	if d := cmp.Diff([]string{"big-fp32: skipped", "big-tf32: passed", "big-bf16: passed"}, r.states("ncu")); d != "" {
		t.Errorf("ncu (-want +got):\n%s", d)
	}
	if r.GPU["name"] != "NVIDIA H200" || r.GPU["mig.mode.current"] != "" || r.Versions["nvcc"] != "13.0.48" || r.Versions["ncu"] != "2025.3.1.0" {
		t.Errorf("facts %v, %v", r.GPU, r.Versions)
	}
	if len(r.Groups) != 3 {
		t.Fatalf("%d comparisons", len(r.Groups))
	}
	checkFakeGroup(t, r.Groups[2])
	for _, want := range []string{"## big, bf16, batch 8", "- torch-compile: 9.0 s from an empty cache", "**jax failed**", "## big-bf16 by Nsight Compute", "**failed**: sanitizer, racecheck"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report has no %q", want)
		}
	}
}

func checkFakeGroup(t *testing.T, g *group) {
	e := g.find(ours)
	if e == nil || g.Fastest != "torch-compile" || e.Speedup.Median != 3 || g.find(oursUnpruned).Speedup.Median != 1.5 {
		t.Fatalf("comparison %+v", g)
	}
	if e.SamplesPerSec != 4000 || len(e.Rounds) != 2 || e.GPU == nil || e.GPU.PeakBytes != 2000<<20 || e.GPU.ClockMHz != 1900 {
		t.Errorf("vitgen %+v, GPU %+v", e, e.GPU)
	}
	if k := g.Kernels[0]; k.RoofPercent != 0.125 || k.Bound != "arithmetic" {
		t.Errorf("kernel %+v", k)
	}
	for _, e := range g.Entries {
		line := strings.Join(e.Command, " ")
		if !strings.Contains(line, "--warmup 1 --steps 4") || strings.HasPrefix(e.Name, "torch-pruned") {
			t.Errorf("%s took part as %s", e.Name, line)
		}
		if e.Name == "jax" && !strings.Contains(e.Failed, "out of memory") {
			t.Errorf("jax: %q", e.Failed)
		}
	}
}

// A later run of the day adds its steps, and takes the place of what it does again.
func TestRunAdds(t *testing.T) {
	bin := fakeMachine(t)
	out := filepath.Join(t.TempDir(), "results")
	t.Setenv("BROKEN", "one tensor misses")
	if _, _, err := runFake(t, bin, out, "--steps", "goldens"); err == nil || !strings.Contains(err.Error(), "2 of ") {
		t.Errorf("error %v, want two failed checks", err)
	}
	t.Setenv("BROKEN", "")
	r, _, err := runFake(t, bin, out, "--add", "--steps", "bench", "--precisions", "bf16,tf32", "--quick", "--only", "vitgen,torch")
	if err == nil {
		t.Error("the earlier run's failure is forgotten")
	}
	if n := len(r.Groups[0].Entries); len(r.Groups) != 2 || n != 2 || r.Groups[0].Rounds != 1 || r.Groups[0].Counts.Steps != 4 {
		t.Errorf("%d comparisons, %d contestants", len(r.Groups), n)
	}
	r, _, err = runFake(t, bin, out, "--add", "--steps", "goldens,bench", "--precisions", "tf32", "--only", "torch-graph")
	if err != nil {
		t.Error(err)
	}
	if len(r.Groups) != 2 || r.Groups[1].Precision != "tf32" || r.Groups[1].Entries[0].Name != "torch-graph" {
		t.Errorf("comparisons %+v", r.Groups)
	}
	if n := len(r.states("goldens")); n != 3 {
		t.Errorf("checks of goldens: %v", r.states("goldens"))
	}
	// Nothing is started when time is up, and the report is written all the same.
	r, _, err = runFake(t, bin, out, "--budget", "1ns")
	if err != nil {
		t.Error(err)
	}
	if n := r.count(skipped); n < 10 || r.count(failed) > 0 {
		t.Errorf("%d skipped, %d failed", n, r.count(failed))
	}
}

func TestRunRefuses(t *testing.T) {
	bin := fakeMachine(t)
	for flags, want := range map[string]string{
		"--steps probe":        "there is no step",
		"--precisions fp16":    "there is no precision",
		"--models vit":         "there is no model to time",
		"--only tourch":        "there is no contestant",
		"--rounds 0":           "must be positive",
		"--bin " + t.TempDir(): "--build makes the binaries",
		"now":                  "takes no argument",
	} {
		args := append([]string{"run", "--bin", bin, "--out", t.TempDir()}, strings.Fields(flags)...)
		if err := run(context.Background(), args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", flags, err, want)
		}
	}
}

func TestAddRefusesOthers(t *testing.T) {
	r := &results{Built: "today", GPU: gpuFacts{"name": "B"}}
	file := filepath.Join(t.TempDir(), "x.json")
	for built, want := range map[string]string{"yesterday": "binaries built yesterday", "today": "those of an A"} {
		if err := os.WriteFile(file, fmt.Appendf(nil, `{"built": %q, "gpu": {"name": "A"}}`, built), 0o666); err != nil {
			t.Fatal(err)
		}
		err := r.addTo(file, nil)
		if err == nil {
			err = r.sameGPU()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}
