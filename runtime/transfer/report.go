package transfer

import (
	"fmt"
	"strings"
)

// How a parameter got its values.
type How string

const (
	Taken        How = "taken"        // as the file has them
	Interpolated How = "interpolated" // position embeddings of another grid
	Joined       How = "joined"       // query, key and value, one below the other
	Split        How = "split"        // part of a joint projection
	Reset        How = "reset"        // initial, as Options.ResetHead asks
	Missing      How = "missing"      // initial, for the file has none
)

// Param is what became of one parameter of the model.
type Param struct {
	Name string   `json:"name"`
	How  How      `json:"how"`
	From []string `json:"from,omitempty"` // tensors of the file, by their own names
	Note string   `json:"note,omitempty"` // what was done to them
}

// Unused is a tensor of the file that no parameter took.
type Unused struct {
	Name string `json:"name"` // its own name
	Why  string `json:"why"`
}

// Report says what became of every parameter, in the model's order, and of
// every tensor that was not used.
type Report struct {
	File   string   `json:"file"`
	SHA256 string   `json:"sha256"` // of the whole file, hex
	Params []Param  `json:"params"`
	Unused []Unused `json:"unused,omitempty"`
}

// Count is the number of parameters that got their values in a way.
func (r *Report) Count(how How) int {
	n := 0
	for i := range r.Params {
		if r.Params[i].How == how {
			n++
		}
	}
	return n
}

// String is a summary line, and a line for every tensor that was not simply
// taken by its own name.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d of %d parameters taken", r.File, r.Count(Taken), len(r.Params))
	for _, how := range []How{Interpolated, Joined, Split, Reset, Missing} {
		if n := r.Count(how); n > 0 {
			fmt.Fprintf(&b, ", %d %s", n, how)
		}
	}
	if n := len(r.Unused); n > 0 {
		fmt.Fprintf(&b, "; %d of the file's tensors unused", n)
	}
	b.WriteByte('\n')
	for _, p := range r.Params {
		from := strings.Join(p.From, ", ")
		if p.How == Taken && from == p.Name && p.Note == "" {
			continue
		}
		fmt.Fprintf(&b, "  %-12s %s", p.How, p.Name)
		if from != "" && from != p.Name {
			fmt.Fprintf(&b, " ← %s", from)
		}
		if p.Note != "" {
			fmt.Fprintf(&b, ": %s", p.Note)
		}
		b.WriteByte('\n')
	}
	for _, u := range r.Unused {
		fmt.Fprintf(&b, "  %-12s %s: %s\n", "unused", u.Name, u.Why)
	}
	return b.String()
}
