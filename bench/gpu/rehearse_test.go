package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// The whole of bench/gpu.sh on the simulated device: trainers are built and
// embedded, find their driver, replay goldens, train, and are timed beside
// whatever peers this machine's python3 has; and the report says so.
func TestRehearsal(t *testing.T) {
	if testing.Short() {
		t.Skip("builds trainers and kernels for the simulated device, which takes a minute; not in -short mode")
	}
	if runtime.GOOS != "linux" {
		t.Skip("the simulated device needs Linux")
	}
	dir := t.TempDir()
	cmd := exec.Command("bench/gpu.sh", "--rehearse", dir)
	cmd.Dir = "../.."
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "results", "*-gpu.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("reports: %v, %v\n%s", files, err, out)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var r results
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	checkRehearsal(t, &r)
	text, err := os.ReadFile(strings.TrimSuffix(files[0], ".json") + ".md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"**A rehearsal on a simulated device", "## vit_small, fp32, batch 8", "## vit_s16, bf16, batch 3", "k01_gemm_nt"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the report has no %q", want)
		}
	}
}

func checkRehearsal(t *testing.T, r *results) {
	status := map[string]string{}
	for _, c := range r.Checks {
		status[c.Step+" "+c.Name] = c.Status
		if c.Status == skipped {
			t.Logf("skipped: %s, %s: %s", c.Step, c.Name, c.Why)
		}
	}
	for _, name := range []string{
		"machine trainers", "probes layouts and rounding", "goldens vit_small-fp32", "goldens vit_small-tf32", "goldens vit_small-bf16",
		"goldens vit_small-bf16 trained twice", "goldens vit_small-fp32 against the CPU", "bench vit_small fp32", "bench vit_small bf16", "bench vit_s16 bf16",
	} {
		if status[name] != passed {
			t.Errorf("%s: %q", name, status[name])
		}
	}
	for _, g := range r.Groups {
		e := g.find(ours)
		if e == nil || len(e.Rounds) != g.Rounds || e.Input != "device" || !strings.Contains(e.Device, "simulated") {
			t.Errorf("%s %s: vitgen %+v", g.Workload, g.Precision, e)
		}
		if len(g.Kernels) == 0 || g.Kernels[0].Family == "" {
			t.Errorf("%s %s: kernels %+v", g.Workload, g.Precision, g.Kernels)
		}
	}
}
