package golden

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// metadata reads everything in the header's string map but the check of
// tolerances against the entries.
func (r *reader) metadata(g *Golden) {
	meta := r.file.Metadata
	if v, ok := meta["vitgen.golden"]; !ok {
		r.fault("metadata \"vitgen.golden\" is missing: not a golden file")
		return
	} else if v != "1" {
		r.fault("metadata \"vitgen.golden\" is %q: this version reads \"1\"", v)
		return
	}
	for _, key := range sortedKeys(meta) {
		r.entry(g, key, meta[key])
	}
	if g.Formula != nil && g.Batch == 0 {
		r.fault("metadata \"formula\" needs \"batch\" beside it")
	}
	if g.Formula == nil && meta["batch"] != "" {
		r.fault("metadata \"batch\" is for goldens with \"formula\"; here the image says it")
	}
	if _, seeded := meta["vitgen.seed"]; g.Dropout != seeded {
		r.fault("metadata \"vitgen.dropout\" = \"on\" and \"vitgen.seed\" go together")
	}
}

func (r *reader) entry(g *Golden, key, text string) {
	var err error
	switch key {
	case "vitgen.golden":
	case "torch":
		g.Torch = text
	case "spec_sha256":
		g.SpecSHA256 = text
		if want := r.model.SpecSHA256; want != "" && text != want {
			err = fmt.Errorf("made for spec %s, this is spec %s: remake the golden, or use the spec it is for", text, want)
		}
	case "tolerance":
		g.Tolerances, err = tolerances(text)
	case "tolerance.tf32", "tolerance.bf16":
		if g.Coarse == nil {
			g.Coarse = map[string]map[string]float64{}
		}
		g.Coarse[strings.TrimPrefix(key, "tolerance.")], err = tolerances(text)
	case "formula":
		g.Formula = map[string]Formula{}
		err = object(text, func(name string, dec *json.Decoder) error {
			var v []float64
			if err := dec.Decode(&v); err != nil {
				return err
			}
			if len(v) != 2 || math.Abs(v[0])+math.Abs(v[1]) > math.MaxFloat32/2 {
				return fmt.Errorf("%v is not [scale, offset] within float32", v)
			}
			g.Formula[name] = Formula{v[0], v[1]}
			return nil
		})
	case "batch":
		if g.Batch, err = strconv.Atoi(text); err == nil && g.Batch < 1 {
			err = fmt.Errorf("%d is no batch size", g.Batch)
		}
	case "vitgen.dropout":
		if g.Dropout = text == "on"; !g.Dropout && text != "off" {
			err = fmt.Errorf("%q is neither \"on\" nor \"off\"", text)
		}
	case "vitgen.seed":
		g.Seed, err = strconv.ParseUint(text, 10, 64)
	default:
		// Other tools may leave notes of their own ("format": "pt").
		if strings.HasPrefix(key, "vitgen.") {
			err = fmt.Errorf("unknown key")
		}
	}
	if err != nil {
		r.fault("metadata %q: %v", key, err)
	}
}

// tolerances reads {name: relative norm}.
func tolerances(text string) (map[string]float64, error) {
	all := map[string]float64{}
	err := object(text, func(name string, dec *json.Decoder) error {
		var tol float64
		if err := dec.Decode(&tol); err != nil {
			return err
		}
		if !(tol > 0 && tol <= 1) {
			return fmt.Errorf("%v is no tolerance: must lie in (0, 1]", tol)
		}
		all[name] = tol
		return nil
	})
	return all, err
}

// object walks the members of a JSON object, refusing duplicates.
func object(text string, member func(name string, dec *json.Decoder) error) error {
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("not a JSON object")
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		name, ok := t.(string)
		if !ok || seen[name] {
			return fmt.Errorf("duplicate or misplaced %v", t)
		}
		seen[name] = true
		if err := member(name, dec); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("text after the JSON object")
	}
	return nil
}

// tolerances faults those that apply to nothing: a typing mistake in one would
// silently leave its tensor to the default.
func (r *reader) tolerances(g *Golden) {
	used, entries := map[string]bool{}, map[string]bool{}
	for i := range r.file.Tensors {
		entries[r.file.Tensors[i].Name] = true
		name := r.file.Tensors[i].Name
		used[name] = true
		for at, c := range name {
			if c == '.' {
				used[name[:at+1]] = true
			}
		}
	}
	for _, name := range sortedKeys(g.Tolerances) {
		if !used[name] {
			r.fault("metadata \"tolerance\": %q is neither an entry of the file nor a prefix of one that ends in a dot", name)
		}
	}
	for _, precision := range sortedKeys(g.Coarse) {
		for _, name := range sortedKeys(g.Coarse[precision]) {
			if !entries[name] {
				r.fault("metadata \"tolerance.%s\": %q is no entry of the file", precision, name)
			}
		}
	}
}
