package transfer

import (
	"bytes"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// FuzzMatch: whatever is in a file, and whatever the rules make of its names,
// the outcome is an error, or a value for every element of every parameter
// that is said to have one.
func FuzzMatch(f *testing.F) {
	m := vit([3]int{3, 8, 8}, 2, 5, true)
	add := func(file *safetensors.File, rule string, partial, reset bool, rows, columns int) {
		var b bytes.Buffer
		if err := safetensors.Encode(&b, file); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes(), rule, partial, reset, rows, columns)
	}
	add(fileOf(m), "", false, false, 0, 0)
	add(fileOf(vit([3]int{3, 8, 8}, 2, 7, false)), `^blocks\.(\d+)=blocks.$1`, false, true, 0, 0)
	add(fileOf(vit([3]int{3, 4, 12}, 2, 5, true)), "", true, true, 2, 6)
	wide := fileOf(vit([3]int{3, 4, 12}, 2, 5, true))
	wide.Metadata = map[string]string{runtime.ImageKey: "3,4,12", "vitgen.classes": "[]"}
	add(wide, "head.*=", true, false, 0, 0)
	f.Fuzz(func(t *testing.T, data []byte, rule string, partial, reset bool, rows, columns int) {
		file, err := safetensors.Parse(data)
		if err != nil {
			return
		}
		o := Options{Partial: partial, ResetHead: reset, Grid: [2]int{rows, columns}}
		if r, err := ParseRename(rule); err == nil {
			o.Rename = append(o.Rename, r, r)
		}
		if names, err := m.ClassesOf(file); err == nil && len(names) > m.Classes {
			t.Fatalf("%d names for %d classes", len(names), m.Classes)
		}
		values, report, err := match(m, file, o)
		if err != nil {
			return
		}
		if len(report.Params) != len(m.Params) || len(values) != len(m.Params)-report.Count(Reset)-report.Count(Missing) {
			t.Fatalf("%d values of %d parameters: %v", len(values), len(m.Params), report)
		}
		for i := range m.Params {
			if v, ok := values[m.Params[i].Name]; ok && len(v) != m.Params[i].Elems() {
				t.Fatalf("%s has %d values", m.Params[i].Name, len(v))
			}
		}
	})
}
