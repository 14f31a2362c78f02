package runtime

import (
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime/cpu/isa"
)

func TestCPUCodeBest(t *testing.T) {
	machine := isa.Machine().String()
	for _, c := range []struct{ built, ask, want string }{
		{"plain avx2 avx512", "", machine},
		{"plain avx2 avx512", "plain", "plain"},
		{"avx512 plain avx2", "avx2", min(isa.AVX2, isa.Machine()).String()},
		{"plain", "avx512", "plain"},
		{"plain", "", "plain"},
		{"go", "plain", "go"},
		{machine, "", machine},
	} {
		t.Setenv("VITGEN_ISA", c.ask)
		var code CPUCode
		for _, name := range strings.Fields(c.built) {
			code = append(code, CPUKernels{ISA: name})
		}
		if got, err := code.Best(); err != nil || got.ISA != c.want {
			t.Errorf("%s, asked for %q: %q, %v; want %q", c.built, c.ask, got.ISA, err, c.want)
		}
	}
}

// Kernels that nothing here can run are refused, with the reason and what to do.
func TestCPUCodeLacks(t *testing.T) {
	t.Setenv("VITGEN_ISA", "plain")
	_, err := CPUCode{{ISA: "avx2"}, {ISA: "avx512"}}.Best()
	want := "this machine's processor does not have that"
	if isa.Machine() > isa.Plain {
		want = "VITGEN_ISA=plain does not allow that"
	}
	if err == nil || !strings.Contains(err.Error(), "kernels for avx2 and avx512 only, and "+want+": build it for all") {
		t.Errorf("%v", err)
	}
	t.Setenv("VITGEN_ISA", "")
	if isa.Machine() == isa.AVX512 {
		t.Skip("NOT TESTED: no instruction set that this machine lacks")
	}
	if _, err := (CPUCode{{ISA: "avx512"}}).Best(); err == nil || !strings.Contains(err.Error(), "this machine's processor does not have that") {
		t.Errorf("%v", err)
	}
}
