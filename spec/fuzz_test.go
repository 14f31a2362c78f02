package spec

import (
	"bytes"
	"path/filepath"
	"testing"

	"golang.org/x/tools/txtar"
)

// FuzzParse: no text makes Parse panic; errors lie inside of the file; what
// parses has a canonical form that parses to the same.
func FuzzParse(f *testing.F) {
	for _, file := range valid(f) {
		f.Add(read(f, file))
	}
	cases, err := filepath.Glob("testdata/errors/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range cases {
		f.Add(txtar.Parse(read(f, file)).Files[0].Data)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		s, err := Parse("fuzz.yaml", src)
		if err != nil {
			checkDiagnostics(t, src, err)
			if bytes.ContainsAny([]byte(err.Error()), "\x00\x1b\r") {
				t.Errorf("control characters in %q", err)
			}
			return
		}
		canon := s.Canonical()
		again, err := Parse("canonical", canon)
		if err != nil {
			t.Fatalf("the canonical form does not parse:\n%s\n%v", canon, err)
		}
		if again.Hash() != s.Hash() {
			t.Fatalf("the canonical form\n%s\nbecame\n%s", canon, again.Canonical())
		}
	})
}
