package checkpoint

import (
	"fmt"
	"slices"
	"strings"
)

// Receipt says what a run was made of: whoever has the same of everything gets
// the same numbers, bit for bit.
type Receipt struct {
	Model     string `json:"model"`
	SpecFile  string `json:"spec_file"`
	Spec      string `json:"spec"` // canonical YAML
	SpecHash  string `json:"spec_hash"`
	Generator string `json:"vitgen"`  // version
	Target    string `json:"target"`  // cpu, cuda
	Kernels   string `json:"kernels"` // hash of the target's
	Data      string `json:"data"`
	DataHash  string `json:"data_hash"`
	Samples   [2]int `json:"samples"` // training, validation
	Seed      uint64 `json:"seed"`
	Init      string `json:"init,omitempty"`      // weights that training started from; empty: initializers
	InitHash  string `json:"init_hash,omitempty"` // SHA-256 of that file
	Device    string `json:"device"`              // for people
	ISA       string `json:"isa,omitempty"`       // of the CPU
	Precision string `json:"precision"`
}

// Differences lists what makes a program (r is its receipt, as far as it is
// known yet) go on otherwise than the run that wrote the receipt was: each a
// sentence. Empty values are unknown and differ from nothing.
func (was *Receipt) Differences(r *Receipt) []string {
	var d []string
	differ := func(a, b string) bool { return a != "" && b != "" && a != b }
	if differ(was.Model, r.Model) {
		d = append(d, fmt.Sprintf("it is of model %s (%s), this program trains %s (%s)", was.Model, was.SpecFile, r.Model, r.SpecFile))
	}
	switch {
	case !differ(was.SpecHash, r.SpecHash):
		if was.Target == r.Target && differ(was.Kernels, r.Kernels) {
			d = append(d, fmt.Sprintf("the spec is the same, but its %s kernels are others: %s by vitgen %s, %s by vitgen %s",
				r.Target, short(was.Kernels), was.Generator, short(r.Kernels), r.Generator))
		}
	default:
		d = append(d, fmt.Sprintf("the spec was another (hash %s, now %s)%s", short(was.SpecHash), short(r.SpecHash), specDifference(was.Spec, r.Spec)))
	}
	if differ(was.Data, r.Data) {
		d = append(d, fmt.Sprintf("it was trained on %s, not %s", was.Data, r.Data))
	} else if differ(was.DataHash, r.DataHash) {
		d = append(d, fmt.Sprintf("the data set %s has changed: its hash was %s, now %s", r.Data, short(was.DataHash), short(r.DataHash)))
	} else if r.Samples != [2]int{} && was.Samples != r.Samples {
		d = append(d, fmt.Sprintf("the data set %s had %d training and %d validation samples, now %d and %d",
			r.Data, was.Samples[0], was.Samples[1], r.Samples[0], r.Samples[1]))
	}
	return d
}

// Computes says in what a run's arithmetic differs from this program's, as on
// another device; empty if results are bitwise the same.
func (was *Receipt) Computes(r *Receipt) string {
	same := was.Target == r.Target && was.ISA == r.ISA && was.Precision == r.Precision
	if same && (r.Target != "cuda" || was.Device == r.Device) {
		return ""
	}
	return fmt.Sprintf("it was computed on %s in %s, this is %s in %s", was.Device, was.Precision, r.Device, r.Precision)
}

func short(hash string) string { return hash[:min(len(hash), 12)] }

// specDifference shows the lines between what two texts begin and end with in
// common; "" if there is nothing to show.
func specDifference(before, now string) string {
	a, b := strings.Split(before, "\n"), strings.Split(now, "\n")
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	if before == "" || now == "" || len(a)+len(b) == 0 {
		return ""
	}
	const most = 4
	var out []string
	for _, side := range []struct {
		sign  string
		lines []string
	}{{"-", a}, {"+", b}} {
		for i, line := range side.lines {
			if i == most {
				out = append(out, fmt.Sprintf("%s … %d more lines", side.sign, len(side.lines)-most))
				break
			}
			out = append(out, side.sign+" "+strings.TrimRight(line, " "))
		}
	}
	return ":\n  " + strings.Join(slices.Clip(out), "\n  ")
}

// String lists the receipt, a line for each thing.
func (r *Receipt) String() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("model", "%s (%s)", r.Model, r.SpecFile)
	line("spec", "%s", r.SpecHash)
	line("vitgen", "%s", r.Generator)
	line("kernels", "%s %s", r.Target, r.Kernels)
	line("data", "%s, %d training and %d validation samples %s", r.Data, r.Samples[0], r.Samples[1], r.DataHash)
	line("seed", "%d", r.Seed)
	if r.Init != "" {
		line("init", "%s %s", r.Init, r.InitHash)
	}
	line("device", "%s, %s", r.Device, r.Precision)
	return b.String()
}
