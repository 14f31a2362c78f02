package kernels

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// build compiles testdata/name (or, for an instruction set with a wrapper, the
// wrapper around it) and returns the program's path.
func build(t *testing.T, isa ISA, name string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	here, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(here, name)
	if isa.Target != "" {
		source = filepath.Join(dir, "wrapper.cc")
		write(t, source, isa.Wrapper(name))
	}
	program := filepath.Join(dir, "program")
	args := append([]string{}, CompileFlags...)
	args = append(args, "-Werror", "-I", here)
	args = append(args, flags...)
	args = append(args, source, "-o", program, "-lpthread")
	if out, err := exec.Command("g++", args...).CombinedOutput(); err != nil {
		t.Fatalf("g++ %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return program
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func output(t *testing.T, program string) []byte {
	t.Helper()
	out, err := exec.Command(program).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(program), err, out)
	}
	return out
}

// runnable says which instruction sets this machine has.
var runnable = sync.OnceValues(func() (map[string]bool, error) {
	dir, err := os.MkdirTemp("", "probe")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "probe")
	if out, err := exec.Command("g++", filepath.Join("testdata", "probe.cc"), "-o", program).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("g++: %w\n%s", err, out)
	}
	out, err := exec.Command(program).Output()
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for name := range strings.FieldsSeq(string(out)) {
		found[name] = true
	}
	return found, nil
})

// needs skips a test aloud on a machine that cannot run it.
func needs(t *testing.T, isa ISA) {
	t.Helper()
	found, err := runnable()
	if err != nil {
		t.Fatal(err)
	}
	if !found[isa.Name] {
		t.Skipf("NOT TESTED: this machine has no %s; its kernels went unchecked", isa.Name)
	}
}

var programs = []string{"simd_test.cc", "dropout_test.cc", "gemm_test.cc", "attention_test.cc", "heads_test.cc", "latent_test.cc", "row_test.cc", "flat_test.cc"}

// TestKernels runs every test program on every instruction set. The programs
// compare each kernel family with a double-precision reference, watch guards
// around outputs, workspace and scratch, and demand the same bits from 1, 2, 3
// and 7 workers.
func TestKernels(t *testing.T) {
	for _, isa := range ISAs {
		for _, name := range programs {
			t.Run(isa.Name+"/"+strings.TrimSuffix(name, "_test.cc"), func(t *testing.T) {
				t.Parallel()
				needs(t, isa)
				t.Logf("%s", output(t, build(t, isa, name)))
			})
		}
	}
}

// TestKernelsSanitized runs them once more under the address and undefined
// behaviour sanitizers, where a masked access has no intrinsic to hide behind.
func TestKernelsSanitized(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT TESTED: sanitizers are left out of a short run")
	}
	for _, name := range programs {
		t.Run(strings.TrimSuffix(name, "_test.cc"), func(t *testing.T) {
			t.Parallel()
			output(t, build(t, ISAs[0], name, "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"))
		})
	}
}

// TestHeader compiles the amalgamated header alone, for every instruction set
// this compiler knows, and holds the workspace formulas to the kernels'.
func TestHeader(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "vg_cpu.h"), CPUHeader())
	write(t, filepath.Join(dir, "vg_abi.h"), ABIHeader())
	if bytes.Contains(CPUHeader(), []byte(`#include "`)) {
		t.Error("the amalgamated header includes a local file")
	}
	for _, isa := range ISAs {
		if isa.Target != "" && runtime.GOARCH != "amd64" {
			continue
		}
		t.Run(isa.Name, func(t *testing.T) {
			t.Parallel()
			program := build(t, isa, "workspace.cc", "-I", dir, "-O1")
			needs(t, isa)
			checkWorkspace(t, output(t, program))
		})
	}
}

func checkWorkspace(t *testing.T, lines []byte) {
	seen := map[string]int{}
	for scanner := bufio.NewScanner(bytes.NewReader(lines)); scanner.Scan(); {
		var formula string
		var a, b, c, want, got int64
		if _, err := fmt.Sscan(scanner.Text(), &formula, &a, &b, &c, &want); err != nil {
			t.Fatalf("%q: %v", scanner.Text(), err)
		}
		seen[formula]++
		switch formula {
		case "gemm":
			got = GemmWorkspaceBytes(int(a), int(b), int(c))
		case "packed":
			got = PackedWeightBytes(int(a), int(b))
		case "weight_grad":
			got = WeightGradWorkspaceBytes(int(a), int(b), int(c))
		case "column_sum":
			got = ColumnSumWorkspaceBytes(int(a), int(b))
		case "layernorm_grad":
			got = LayerNormGradWorkspaceBytes(int(a), int(b))
		case "sum":
			got = SumWorkspaceBytes(a)
		case "limits":
			if a != MaxRowColumns || b != MaxAttentionTokens || c != MaxHeadDim {
				t.Errorf("limits in the headers are %d, %d, %d", a, b, c)
			}
		default:
			t.Fatalf("unknown formula in %q", scanner.Text())
		}
		if got < want {
			t.Errorf("%s: Go reserves %d bytes", scanner.Text(), got)
		}
	}
	if len(seen) != 7 || seen["gemm"] != 17*17*17 {
		t.Errorf("checked only %v", seen)
	}
}

// TestWorkspaceIsMonotone: a smaller batch runs in the workspace of the full one.
func TestWorkspaceIsMonotone(t *testing.T) {
	for m := 1; m < 3000; m++ {
		if GemmWorkspaceBytes(m, 300, 700) > GemmWorkspaceBytes(m+1, 300, 700) {
			t.Errorf("gemm: %d rows need more than %d", m, m+1)
		}
		if GemmWorkspaceBytes(300, 700, m) > GemmWorkspaceBytes(300, 700, m+1) {
			t.Errorf("gemm: depth %d needs more than %d", m, m+1)
		}
		if WeightGradWorkspaceBytes(300, 700, m) > WeightGradWorkspaceBytes(300, 700, m+1) {
			t.Errorf("weight gradient: depth %d needs more than %d", m, m+1)
		}
		if LayerNormGradWorkspaceBytes(m, 30) > LayerNormGradWorkspaceBytes(m+1, 30) {
			t.Errorf("layer norm: %d rows need more than %d", m, m+1)
		}
	}
}

// TestNoSharedSymbols compiles the library for two instruction sets and looks
// at what a linker could mix up: nothing may be exported, weak or taken from the
// C++ library.
func TestNoSharedSymbols(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("NOT TESTED: only amd64 links several instruction sets together")
	}
	for _, isa := range ISAs {
		out, err := exec.Command("nm", build(t, isa, "symbols.cc", "-c", "-O1")).Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			fields := strings.Fields(line)
			kind, name := fields[len(fields)-2], fields[len(fields)-1]
			switch {
			case strings.Contains("tTdDrRbB", kind) && (kind == strings.ToLower(kind) || name == "symbols_"+isa.Name):
			case kind == "U" && (name == "memset" || name == "memcpy" || name == "clock_gettime" || name == "sched_yield"):
			default:
				t.Errorf("%s: symbol %s", isa.Name, strings.TrimSpace(line))
			}
		}
	}
}
