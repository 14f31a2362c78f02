// Package probes compares what the probe kernels wrote on a device with what
// they write on the kernel simulator. The kernels are in probes.cu and the
// headers beside it, which say what each of them shows.
package probes

import (
	"bufio"
	_ "embed"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Expected is the simulator's dump.
//
//go:embed expected.txt
var Expected string

// Probe is what one kernel wrote.
type Probe struct {
	Name      string
	Compare   string // exact, ulp4 or note: see probes.cu
	PerThread int    // words of each thread
	Words     []uint32
}

// Parse reads a dump.
func Parse(r io.Reader) ([]Probe, error) {
	var all []Probe
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var p Probe
		var n int
		if _, err := fmt.Sscanf(lines.Text(), "%s %s %d %d", &p.Name, &p.Compare, &p.PerThread, &n); err != nil {
			return nil, fmt.Errorf("a dump of probes does not go on with %q", lines.Text())
		}
		for len(p.Words) < n {
			if !lines.Scan() {
				return nil, fmt.Errorf("%s: the dump ends after %d of %d words", p.Name, len(p.Words), n)
			}
			for f := range strings.FieldsSeq(lines.Text()) {
				word, err := strconv.ParseUint(f, 16, 32)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", p.Name, err)
				}
				p.Words = append(p.Words, uint32(word))
			}
		}
		if len(p.Words) != n || p.PerThread < 1 {
			return nil, fmt.Errorf("%s: %d words, %d a thread, where there should be %d", p.Name, len(p.Words), p.PerThread, n)
		}
		all = append(all, p)
	}
	return all, lines.Err()
}

// Verdict is the comparison of one probe.
type Verdict struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Words   int    `json:"words"`
	Differ  int    `json:"differ"`            // words that do not compare
	MaxULP  int    `json:"max_ulp,omitempty"` // of ulp4
	Problem string `json:"problem,omitempty"` // of a note too
}

// Compare judges a dump by the simulator's. Every probe of either has a verdict.
func Compare(want, got []Probe) []Verdict {
	found := map[string]Probe{}
	for _, p := range got {
		found[p.Name] = p
	}
	var all []Verdict
	for _, w := range want {
		g, ok := found[w.Name]
		delete(found, w.Name)
		if !ok {
			all = append(all, Verdict{Name: w.Name, Problem: "did not run"})
			continue
		}
		all = append(all, compare(w, g))
	}
	for _, p := range got {
		if _, left := found[p.Name]; left {
			all = append(all, Verdict{Name: p.Name, Problem: "is not among the expected ones"})
		}
	}
	return all
}

func compare(want, got Probe) Verdict {
	v := Verdict{Name: want.Name, Words: len(want.Words)}
	if len(got.Words) != len(want.Words) {
		v.Problem = fmt.Sprintf("wrote %d words, not %d", len(got.Words), len(want.Words))
		return v
	}
	first := -1
	for i, w := range want.Words {
		g := got.Words[i]
		if g == w {
			continue
		}
		if want.Compare == "ulp4" {
			ulp := distance(w, g)
			v.MaxULP = max(v.MaxULP, ulp)
			if ulp <= 4 {
				continue
			}
		}
		if v.Differ++; first < 0 {
			first = i
		}
	}
	if first >= 0 {
		v.Problem = fmt.Sprintf("%d of %d words differ; the first is word %d of thread %d in launch order (%08x, expected %08x)",
			v.Differ, len(want.Words), first%want.PerThread, first/want.PerThread, got.Words[first], want.Words[first])
	}
	v.OK = v.Differ == 0 || want.Compare == "note"
	return v
}

// distance is the number of steps from one float to the other; large if either
// is NaN and the other is not.
func distance(a, b uint32) int {
	nan := func(x uint32) bool { return x&0x7fffffff > 0x7f800000 }
	if nan(a) || nan(b) {
		if nan(a) && nan(b) {
			return 0
		}
		return math.MaxInt32
	}
	order := func(x uint32) int {
		if x>>31 != 0 {
			return -int(x & 0x7fffffff)
		}
		return int(x)
	}
	return max(order(a)-order(b), order(b)-order(a))
}
