//go:build cuda

package cuda

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/internal/fake"
	"github.com/vitgen/vitgen/sim"
)

// The tests run on the simulated driver. The dynamic loader looks at
// LD_LIBRARY_PATH when a program starts, so the test binary starts itself again.
//
// On a machine with a GPU those that need no simulation also run on it:
//
//	nvcc -std=c++17 -arch=sm_80 -ptx -I codegen/kernels/cuda -o fake.ptx runtime/cuda/testdata/fake.cu
//	VITGEN_TEST_SIM=- VITGEN_TEST_KERNELS=$PWD/fake.ptx go test -tags cuda ./runtime/cuda
const (
	simulated = "VITGEN_TEST_SIM"     // folder of the simulated driver; - for none
	kernels   = "VITGEN_TEST_KERNELS" // fake.cu as the device in use takes it
	childOf   = "VITGEN_TEST_CHILD"   // the test that a process runs, see inChild
)

func TestMain(m *testing.M) {
	if os.Getenv(simulated) == "" {
		env, err := simulate()
		if err != nil {
			fmt.Fprintln(os.Stderr, "no simulated driver:", err)
			env = []string{simulated + "=-"}
		}
		err = syscall.Exec(os.Args[0], os.Args, append(os.Environ(), env...))
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// simulate builds the simulated driver and kernels for it.
func simulate() (env []string, err error) {
	driver, err := sim.BuildDriver("")
	if err != nil {
		return nil, err
	}
	object, err := sim.BuildKernels(filepath.Join("testdata", "fake.cu"), sim.Options{
		Checked: true, Include: []string{filepath.Join("..", "..", "codegen", "kernels", "cuda")},
	})
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(driver)
	return []string{simulated + "=" + dir, kernels + "=" + object, "LD_LIBRARY_PATH=" + dir + ":" + os.Getenv("LD_LIBRARY_PATH")}, nil
}

// needDevice skips a test that has nothing to run on.
func needDevice(t *testing.T) {
	t.Helper()
	if os.Getenv(kernels) == "" {
		t.Skip("the simulated driver could not be built on this machine, see the first line of this package's output")
	}
	t.Setenv("VITGEN_CUDA_IMAGE", os.Getenv(kernels))
}

// needSimulation skips a test of what only the simulated driver can be made to do.
func needSimulation(t *testing.T) {
	t.Helper()
	needDevice(t)
	if os.Getenv(simulated) == "-" {
		t.Skip("it needs the simulated driver")
	}
}

// inChild runs the calling test again in a process of its own with more
// environment, and is true there. The driver reads its environment once.
func inChild(t *testing.T, env ...string) bool {
	t.Helper()
	if os.Getenv(childOf) == t.Name() {
		return true
	}
	child := exec.Command(os.Args[0], "-test.v", "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$")
	child.Env = append(append(os.Environ(), childOf+"="+t.Name()), env...)
	out, err := child.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("with %v: %v\n%s", env, err, out)
	}
	return false
}

// model is the classifier that fake.cu has kernels for.
func model(precision string, train runtime.Train) *runtime.Model {
	m := fake.New([3]int{1, 8, 8}, 10, fake.CUDABatch, train)
	m.Train.Precision = precision
	m.Data = runtime.Data{Name: "digits"}
	fake.AddCUDA(m, precision, nil)
	return m
}

func openOn(t *testing.T, m *runtime.Model, device string, seed uint64) *runtime.Session {
	t.Helper()
	s, err := runtime.NewSession(m, runtime.Options{Device: device, Seed: seed, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestNoDriver: a program starts without a driver, and says that there is none.
func TestNoDriver(t *testing.T) {
	if !inChild(t, "LD_LIBRARY_PATH=") {
		return
	}
	_, err := runtime.NewSession(model("fp32", runtime.Train{}), runtime.Options{Device: "cuda"})
	if err == nil {
		t.Skip("this machine has a driver")
	}
	for _, want := range []string{"no NVIDIA driver", "libcuda.so.1", "--device cpu"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	warned := ""
	s, err := runtime.NewSession(model("fp32", runtime.Train{}), runtime.Options{Device: "auto", Threads: 1, Warn: func(text string) { warned = text }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !strings.HasPrefix(s.Device(), "cpu") || !strings.Contains(warned, "no NVIDIA driver") {
		t.Errorf("auto takes %s and warns %q", s.Device(), warned)
	}
}

func TestOpenErrors(t *testing.T) {
	needSimulation(t)
	for _, c := range []struct {
		name   string
		env    []string
		device string
		want   []string
	}{
		{"no such device", []string{"VITGEN_SIM_DEVICES=2"}, "cuda:2", []string{"no device cuda:2", "cuda:0 is ", "cuda:1 is "}},
		{"no device", []string{"VITGEN_SIM_DEVICES=0"}, "cuda", []string{"finds no GPU"}},
		{"driver does not start", []string{"VITGEN_SIM_INIT=999"}, "cuda", []string{"does not start", "CUDA_ERROR_UNKNOWN"}},
		{"too old", []string{"VITGEN_SIM_DEVICE=v100", "VITGEN_CUDA_IMAGE="}, "cuda", []string{"Tesla V100", "too old", "sm_70", "kernels.sm_80.ptx", "sm_80 or newer"}},
		{"refused", []string{"VITGEN_CUDA_IMAGE="}, "cuda", []string{"CUDA 13.0", "kernels.sm_80.ptx", "refuses", "CUDA_ERROR_NO_BINARY_FOR_GPU", "PTX"}},
		{"out of memory", []string{"VITGEN_SIM_MEMORY=20M"}, "cuda", []string{"out of memory", "batch 32 needs", "activations", "gradients", "average", "a batch of ", "would fit"}},
		{"no kernel", nil, "cuda", []string{"have no k77_gone (vit.yaml:1:1)", "CUDA_ERROR_NOT_FOUND", "another model or version"}},
		{"too much shared memory", []string{"VITGEN_SIM_DEVICE=rtx4090"}, "cuda", []string{"kernel k00_linear (fake.yaml:3:5: linear) needs 150000 bytes", "there are 101376"}},
		{"too many threads", nil, "cuda", []string{"kernel k00_linear (fake.yaml:3:5: linear)", "blocks of 128 threads", "allows 64"}},
		{"no image file", []string{"VITGEN_CUDA_IMAGE=/no/such/file"}, "cuda", []string{"VITGEN_CUDA_IMAGE", "/no/such/file"}},
		{"no image", []string{"VITGEN_CUDA_IMAGE=testdata/fake.cu"}, "cuda", []string{"VITGEN_CUDA_IMAGE", "testdata/fake.cu", "CUDA_ERROR_INVALID_IMAGE"}},
		{"no memory", []string{"VITGEN_SIM_MEMORY=1M"}, "cuda", []string{"out of memory", "not even a batch of one"}},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			if !inChild(t, c.env...) {
				return
			}
			for _, e := range c.env {
				if name, value, _ := strings.Cut(e, "="); name == "VITGEN_CUDA_IMAGE" {
					t.Setenv(name, value)
				}
			}
			m := model("fp32", runtime.Train{EMA: runtime.EMA{Decay: 0.9}})
			switch first := &m.CUDA.Kernels[0]; c.name {
			case "out of memory", "no memory":
				m.CUDA.ArenaBytes = 30 << 20
			case "no kernel":
				first.Name, first.Pos = "k77_gone", "vit.yaml:1:1"
			case "too much shared memory":
				first.Shared = 150000
			case "too many threads":
				first.Block = 128
			}
			m.CUDA.Images = ptxOnly
			s, err := runtime.NewSession(m, runtime.Options{Device: c.device})
			if err == nil {
				s.Close()
				t.Fatal("no error")
			}
			t.Log(err)
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("no %q in\n%v", w, err)
				}
			}
		})
	}
}
