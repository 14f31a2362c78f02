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
	const lacks, forbidden = "this machine's processor does not have that", "VITGEN_ISA=plain does not allow that"
	t.Setenv("VITGEN_ISA", "plain")
	both := CPUCode{{ISA: "avx2"}, {ISA: "avx512"}}
	for _, machine := range []isa.Set{isa.Plain, isa.AVX2, isa.AVX512} {
		want := forbidden
		if machine == isa.Plain {
			want = lacks
		}
		if _, err := both.best(isa.Plain, machine); err == nil || !strings.Contains(err.Error(), "kernels for avx2 and avx512 only, and "+want+": build it for all") {
			t.Errorf("plain allowed on %v: %v", machine, err)
		}
	}
	if _, err := both.Best(); err == nil || !strings.Contains(err.Error(), "kernels for avx2 and avx512 only, and ") {
		t.Errorf("%v", err)
	}
	if _, err := (CPUCode{{ISA: "avx512"}}).best(isa.AVX2, isa.AVX2); err == nil || !strings.Contains(err.Error(), "kernels for avx512 only, and "+lacks) {
		t.Errorf("a machine without AVX-512: %v", err)
	}
}
