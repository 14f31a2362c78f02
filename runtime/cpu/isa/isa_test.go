package isa

import (
	"os"
	"runtime"
	"strings"
	"testing"
)

func TestNamed(t *testing.T) {
	for s := Plain; s <= AVX512; s++ {
		if got, err := Named(s.String()); err != nil || got != s {
			t.Errorf("Named(%v) = %v, %v", s, got, err)
		}
	}
	if _, err := Named("sve"); err == nil {
		t.Error("sve is known")
	}
}

func TestBest(t *testing.T) {
	for s := Plain; s <= AVX512; s++ {
		t.Setenv("VITGEN_ISA", s.String())
		if got := Best(); got != min(s, Machine()) {
			t.Errorf("asked for %v of a machine with %v: %v", s, Machine(), got)
		}
	}
	t.Setenv("VITGEN_ISA", "")
	if Best() != Machine() {
		t.Errorf("asked for nothing, Best is %v", Best())
	}
}

// What the kernel lists of the processor is what Machine says.
func TestMachine(t *testing.T) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || runtime.GOARCH != "amd64" {
		t.Skip("NOT TESTED: needs /proc/cpuinfo of an amd64 machine")
	}
	has := map[string]bool{}
	for _, f := range strings.Fields(string(info)) {
		has[f] = true
	}
	want := Plain
	if has["avx2"] && has["fma"] {
		want = AVX2
		if has["avx512f"] && has["avx512dq"] && has["avx512bw"] && has["avx512vl"] {
			want = AVX512
		}
	}
	if Machine() != want {
		t.Errorf("Machine is %v, /proc/cpuinfo says %v", Machine(), want)
	}
}
