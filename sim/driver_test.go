//go:build linux

package sim

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// program is the test program of driver/testdata, linked with the driver.
type program struct {
	path, library   string
	kernels, checks string // kernel objects; checks is instrumented
}

var build = sync.OnceValues(func() (p program, err error) {
	if p.library, err = BuildDriver(""); err != nil {
		return p, err
	}
	o := Options{Include: []string{"../codegen/kernels/cuda"}}
	if p.kernels, err = BuildKernels("driver/testdata/kernels.cu", o); err != nil {
		return p, err
	}
	o.Checked = true
	if p.checks, err = BuildKernels("driver/testdata/kernels.cu", o); err != nil {
		return p, err
	}
	sources, err := filepath.Glob("driver/testdata/*.cc")
	if err != nil {
		return p, err
	}
	p.path = filepath.Join(temp, "program")
	args := append([]string{"-std=c++17", "-g", "-Wall", "-Wextra", "-Werror", "-o", p.path}, sources...)
	args = append(args, p.library, "-Wl,-rpath,"+filepath.Dir(p.library), "-lpthread")
	if out, err := exec.Command("g++", args...).CombinedOutput(); err != nil {
		return p, fmt.Errorf("g++: %w\n%s", err, out)
	}
	return p, nil
})

var temp string // for the whole run

func TestMain(m *testing.M) {
	var err error
	if temp, err = os.MkdirTemp("", "vitgen-sim"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(temp)
	os.Exit(code)
}

func buildProgram(t *testing.T) program {
	t.Helper()
	if _, err := exec.LookPath("g++"); err != nil {
		t.Skip("needs g++")
	}
	p, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// run runs one case of the program, which must succeed, and returns what it
// printed to standard output.
func (p program) run(t *testing.T, name string, env ...string) string {
	t.Helper()
	cmd := exec.Command(p.path, name)
	cmd.Env = append(os.Environ(), "VITGEN_CUDA_IMAGE="+p.kernels)
	cmd.Env = append(cmd.Env, env...)
	var messages strings.Builder
	cmd.Stderr = &messages
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s%s", name, env, err, out, messages.String())
	}
	return string(out)
}

// Kernel objects depend on what is compiled, not on where it lies; mistakes come
// back with their place.
func TestBuildKernels(t *testing.T) {
	p := buildProgram(t)
	text, err := os.ReadFile("driver/testdata/kernels.cu")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kernels.cu")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{Include: []string{"../codegen/kernels/cuda"}}
	write(string(text))
	if again, err := BuildKernels(file, o); err != nil || again != p.kernels {
		t.Errorf("the same file elsewhere: %s, %v, want %s", again, err, p.kernels)
	}
	write(strings.Replace(string(text), "7.0f", "no_such_thing", 1))
	if _, err := BuildKernels(file, o); err == nil || !strings.Contains(err.Error(), "kernels.cu:14:") {
		t.Errorf("a mistake: %v", err)
	}
	if _, err := BuildKernels(filepath.Join(t.TempDir(), "none.cu"), o); err == nil {
		t.Error("no file, no error")
	}
}

func TestDriver(t *testing.T) {
	p := buildProgram(t)
	settings := map[string][]string{
		"no_device":           {"VITGEN_SIM_DEVICES=0"},
		"init_error":          {"VITGEN_SIM_INIT=100"},
		"out_of_memory":       {"VITGEN_SIM_MEMORY=1M"},
		"host_race_unchecked": {"VITGEN_SIM_HOST_CHECK=0"},
		"old_chip":            {"VITGEN_SIM_DEVICE=v100"},
		"out_of_bounds":       {"VITGEN_CUDA_IMAGE=" + p.checks},
	}
	for _, name := range strings.Fields(p.run(t, "list")) {
		t.Run(name, func(t *testing.T) {
			for _, seed := range []string{"0", "1", "2", "3", "0xffffffffffffffff"} {
				p.run(t, name, append(settings[name], "VITGEN_SIM_SEED="+seed)...)
			}
		})
	}
}

func TestChips(t *testing.T) {
	p := buildProgram(t)
	for device, want := range map[string]string{
		"":        "NVIDIA H100 80GB HBM3 (simulated); sm_90; 132 SMs; 232448 opt-in; 233472 per SM; 49152; 84929347584",
		"h200":    "NVIDIA H200 (simulated); sm_90; 132 SMs; 232448 opt-in; 233472 per SM; 49152; 150119710720",
		"a100":    "NVIDIA A100-SXM4-80GB (simulated); sm_80; 108 SMs; 166912 opt-in; 167936 per SM; 49152; 84974239744",
		"rtx4090": "NVIDIA GeForce RTX 4090 (simulated); sm_89; 128 SMs; 101376 opt-in; 102400 per SM; 49152; 25393692672",
		"v100":    "Tesla V100-SXM2-16GB (simulated); sm_70; 80 SMs; 98304 opt-in; 98304 per SM; 49152; 16935682048",
	} {
		if got := strings.TrimSpace(p.run(t, "devices", "VITGEN_SIM_DEVICE="+device)); got != want {
			t.Errorf("%s:\n got %s\nwant %s", device, got, want)
		}
	}
	for _, device := range []string{"a100", "rtx4090"} {
		p.run(t, "shared_memory", "VITGEN_SIM_DEVICE="+device)
	}
	cmd := exec.Command(p.path, "devices")
	cmd.Env = append(os.Environ(), "VITGEN_SIM_DEVICE=gtx")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "VITGEN_SIM_DEVICE=gtx is unknown; there are h100, ") {
		t.Errorf("unknown device: %v\n%s", err, out)
	}
}

// What is not ordered comes in different orders, and in the same order with the
// same seed.
func TestSeeds(t *testing.T) {
	p := buildProgram(t)
	seen := map[string]bool{}
	for _, seed := range []string{"1", "2", "3", "4"} {
		first := p.run(t, "unordered", "VITGEN_SIM_SEED="+seed)
		if again := p.run(t, "unordered", "VITGEN_SIM_SEED="+seed); again != first {
			t.Errorf("seed %s: %s and %s", seed, first, again)
		}
		seen[first] = true
	}
	if len(seen) < 3 {
		t.Errorf("four seeds gave %d orders", len(seen))
	}
	if got := p.run(t, "unordered", "VITGEN_SIM_SEED=0"); got != strings.Repeat("2", 16)+"\n" {
		t.Errorf("seed 0: %s, want the order of submission", got)
	}
}

func TestStatistics(t *testing.T) {
	p := buildProgram(t)
	file := filepath.Join(t.TempDir(), "stats.json")
	p.run(t, "graph", "VITGEN_SIM_STATS="+file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	type graph struct{ Nodes, Kernels, Copies, Launches int }
	var got struct {
		Launches      int `json:"launches"`
		GraphLaunches int `json:"graph_launches"`
		KernelsRun    int `json:"kernels_run"`
		H2D           int `json:"h2d_copies"`
		H2DBytes      int `json:"h2d_bytes"`
		Allocations   int `json:"allocations"`
		Graphs        []graph
		Calls         map[string]int
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if got.Launches != 2 || got.GraphLaunches != 4 || got.KernelsRun != 8 || got.H2D != 4 || got.H2DBytes != 1600 ||
		got.Allocations != 2 || got.Calls["cuStreamSynchronize"] != 3 {
		t.Errorf("statistics: %+v", got)
	}
	if len(got.Graphs) != 1 || got.Graphs[0] != (graph{Nodes: 4, Kernels: 2, Copies: 2, Launches: 4}) {
		t.Errorf("graphs: %+v", got.Graphs)
	}
}

// mumaxCalls are what github.com/mumax/3/cuda/cu can call, by the names that
// cuda.h of CUDA 11 and 12 gives them; with cuCtxCreate of CUDA 13, too.
var mumaxCalls = strings.Fields(`
	cuCtxCreate_v2 cuCtxCreate_v4 cuCtxDestroy_v2 cuCtxDisablePeerAccess cuCtxEnablePeerAccess cuCtxGetApiVersion
	cuCtxGetCurrent cuCtxGetDevice cuCtxSetCurrent cuCtxSynchronize cuDeviceCanAccessPeer cuDeviceGet
	cuDeviceGetAttribute cuDeviceGetCount cuDeviceGetName cuDeviceTotalMem_v2 cuDriverGetVersion cuFuncGetAttribute
	cuInit cuLaunchKernel cuMemAlloc_v2 cuMemAllocHost_v2 cuMemFree_v2 cuMemFreeHost cuMemGetAddressRange_v2
	cuMemGetInfo_v2 cuMemHostRegister_v2 cuMemHostUnregister cuMemcpy cuMemcpyAsync cuMemcpyDtoD_v2
	cuMemcpyDtoDAsync_v2 cuMemcpyDtoH_v2 cuMemcpyDtoHAsync_v2 cuMemcpyHtoD_v2 cuMemcpyHtoDAsync_v2 cuMemcpyPeer
	cuMemcpyPeerAsync cuMemsetD32_v2 cuMemsetD32Async cuMemsetD8_v2 cuMemsetD8Async cuModuleGetFunction cuModuleLoad
	cuModuleLoadData cuPointerGetAttribute cuStreamCreate cuStreamDestroy_v2 cuStreamQuery cuStreamSynchronize`)

// The library exports what programs call, and nothing of the simulator.
func TestExports(t *testing.T) {
	library, err := BuildDriver("")
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(library)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF {
			names = append(names, s.Name)
		}
	}
	for _, want := range append(mumaxCalls, "vg_sim_last_fault", "vg_sim_stats") {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, name := range names {
		// Templates of the C++ library cannot be hidden.
		own := strings.Contains(name, "vg_driver") || strings.Contains(name, "6vg_sim")
		if own || !strings.HasPrefix(name, "cu") && !strings.HasPrefix(name, "vg_sim_") && !strings.HasPrefix(name, "_Z") {
			t.Errorf("%s is exported", name)
		}
	}
	if soname, err := f.DynString(elf.DT_SONAME); err != nil || !slices.Equal(soname, []string{DriverFile}) {
		t.Errorf("soname %v, %v", soname, err)
	}
}
