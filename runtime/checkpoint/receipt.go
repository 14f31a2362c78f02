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

// Differences lists what makes a program (now is its receipt, as far as it is
// known yet) go on otherwise than the run that wrote the receipt was: each a
// sentence. Empty values are unknown and differ from nothing.
func (r *Receipt) Differences(now *Receipt) []string {
	var d []string
	differ := func(a, b string) bool { return a != "" && b != "" && a != b }
	if differ(r.Model, now.Model) {
		d = append(d, fmt.Sprintf("it is of model %s (%s), this program trains %s (%s)", r.Model, r.SpecFile, now.Model, now.SpecFile))
	}
	switch {
	case !differ(r.SpecHash, now.SpecHash):
		if r.Target == now.Target && differ(r.Kernels, now.Kernels) {
			d = append(d, fmt.Sprintf("the spec is the same, but its %s kernels are others: %s by vitgen %s, %s by vitgen %s",
				now.Target, short(r.Kernels), r.Generator, short(now.Kernels), now.Generator))
		}
	default:
		d = append(d, fmt.Sprintf("the spec was another (hash %s, now %s)%s", short(r.SpecHash), short(now.SpecHash), specDifference(r.Spec, now.Spec)))
	}
	if differ(r.Data, now.Data) {
		d = append(d, fmt.Sprintf("it was trained on %s, not %s", r.Data, now.Data))
	} else if differ(r.DataHash, now.DataHash) {
		d = append(d, fmt.Sprintf("the data set %s has changed: its hash was %s, now %s", now.Data, short(r.DataHash), short(now.DataHash)))
	} else if now.Samples != [2]int{} && r.Samples != now.Samples {
		d = append(d, fmt.Sprintf("the data set %s had %d training and %d validation samples, now %d and %d",
			now.Data, r.Samples[0], r.Samples[1], now.Samples[0], now.Samples[1]))
	}
	return d
}

// Computes says in what a run's arithmetic differs from this program's, as on
// another device; empty if results are bitwise the same.
func (r *Receipt) Computes(now *Receipt) string {
	same := r.Target == now.Target && r.ISA == now.ISA && r.Precision == now.Precision
	if same && (now.Target != "cuda" || r.Device == now.Device) {
		return ""
	}
	return fmt.Sprintf("it was computed on %s in %s, this is %s in %s", r.Device, r.Precision, now.Device, now.Precision)
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

// Rows are the receipt as names and values, for people.
func (r *Receipt) Rows() [][2]string {
	rows := [][2]string{
		{"model", fmt.Sprintf("%s (%s)", r.Model, r.SpecFile)},
		{"spec", r.SpecHash},
		{"vitgen", r.Generator},
		{"kernels", strings.TrimSpace(r.Target + " " + r.Kernels)},
		{"data", strings.TrimSpace(fmt.Sprintf("%s, %d training and %d validation samples %s", r.Data, r.Samples[0], r.Samples[1], r.DataHash))},
		{"seed", fmt.Sprint(r.Seed)},
	}
	if r.Init != "" {
		rows = append(rows, [2]string{"init", r.Init + " " + r.InitHash})
	}
	return append(rows, [2]string{"device", fmt.Sprintf("%s, %s", r.Device, r.Precision)})
}
