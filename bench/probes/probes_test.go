package probes

import (
	"bytes"
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write expected.txt anew from what the simulator says")

const root = "../.."

// dump runs the probes on the simulator.
func dump(t *testing.T, program, seed string) string {
	t.Helper()
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "VITGEN_SIM_SEED="+seed)
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Run(); err != nil {
		t.Fatalf("seed %s: %v\n%s", seed, err, &messages)
	}
	return out.String()
}

func parse(t *testing.T, text string) []Probe {
	t.Helper()
	all, err := Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// expected.txt is what the simulator says today, whatever the schedule, and its
// checks find no fault in the probes.
func TestExpectedIsCurrent(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the probes for the simulator, which takes seconds; not in -short mode")
	}
	program := filepath.Join(t.TempDir(), "probes")
	if err := BuildSim(context.Background(), root, program, true); err != nil {
		t.Fatal(err)
	}
	got := dump(t, program, "1")
	if *update {
		if err := os.WriteFile("expected.txt", []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
		Expected = got
	}
	for _, seed := range []string{"0", "7", "0xffffffffffffffff"} {
		if dump(t, program, seed) != got {
			t.Errorf("seed %s: the probes depend on the schedule", seed)
		}
	}
	// Words of ulp4 probes come from the C library and may differ in a last bit.
	for _, v := range Compare(parse(t, Expected), parse(t, got)) {
		if !v.OK || v.Problem != "" {
			t.Errorf("%s: %s; if that is meant to be, go test ./bench/probes -update", v.Name, v.Problem)
		}
	}
}

// The products of expected.txt against sums written down here.
func TestExpectedProducts(t *testing.T) {
	hash := func(i uint32) uint32 {
		i = (i + 0x9e3779b9) * 0x85ebca6b
		i = (i ^ i>>15) * 0xc2b2ae35
		return i ^ i>>16
	}
	const m, n, k = 37, 28, 50
	for _, p := range parse(t, Expected) {
		kind, ok := strings.CutPrefix(p.Name, "probe_gemm_")
		if !ok {
			continue
		}
		kind, math, _ := strings.Cut(kind, "_")
		first := uint32(100000) // of the floats; bf16 follow from another
		if math == "bf16" {
			first = 200000
		}
		number := func(i int) int { return int(hash(first+uint32(i))>>8)%9 - 4 }
		a := func(i, l int) int { return number(i*k + l) }
		if kind == "tn" {
			a = func(i, l int) int { return number(l*m + i) }
		}
		b := func(l, j int) int { return number(4096 + l*n + j) }
		if kind == "nt" {
			b = func(l, j int) int { return number(4096 + j*k + l) }
		}
		var want []uint32
		for i := range m {
			for j := range n {
				sum := 0
				for l := range k {
					sum += a(i, l) * b(l, j)
				}
				want = append(want, uint32(int32(sum)))
			}
		}
		for i := range m {
			sum := 0
			for l := range k {
				sum += a(i, l)
			}
			want = append(want, uint32(int32(sum)))
		}
		if kind != "tn" {
			want = want[:m*n] // without the column sums
		}
		if !slices.Equal(want, p.Words) {
			t.Errorf("%s is not the product of its factors", p.Name)
		}
	}
}

func TestCompare(t *testing.T) {
	want := parse(t, "a exact 2 4\n1 2 3 4\nb ulp4 1 3\n3f800000 80000001 7fc00000\nc note 1 1\n1\nd exact 1 1\n5\n")
	got := parse(t, "a exact 2 4\n1 2 3 9\nb ulp4 1 3\n3f800004 2 ffc00001\nc note 1 1\n2\ne exact 1 1\n0\n")
	for i, w := range []Verdict{
		{Name: "a", Words: 4, Differ: 1, Problem: "1 of 4 words differ; the first is word 1 of thread 1 in launch order (00000009, expected 00000004)"},
		{Name: "b", OK: true, Words: 3, MaxULP: 4},
		{Name: "c", OK: true, Words: 1, Differ: 1, Problem: "1 of 1 words differ; the first is word 0 of thread 0 in launch order (00000002, expected 00000001)"},
		{Name: "d", Problem: "did not run"},
		{Name: "e", Problem: "is not among the expected ones"},
	} {
		if v := Compare(want, got)[i]; v != w {
			t.Errorf("verdict %+v\nwant    %+v", v, w)
		}
	}
	if d := distance(0x7fc00000, 0x3f800000); d <= 4 {
		t.Errorf("a NaN is %d steps from 1", d)
	}
	for _, broken := range []string{"a exact", "a exact 1 2\n1\n", "a exact 1 1\nxyz\n", "a exact 1 1\n1 2\n"} {
		if _, err := Parse(strings.NewReader(broken)); err == nil {
			t.Errorf("%q is taken for a dump", broken)
		}
	}
}
