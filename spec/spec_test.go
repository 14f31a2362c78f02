package spec

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// valid are the specs of the repository, as paths from here.
func valid(t testing.TB) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"../examples/*.yaml", "../golden/specs/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) < 5 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		all = append(all, files...)
	}
	return all
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func parseFile(t testing.TB, file string) *Spec {
	t.Helper()
	s, err := Parse(file, read(t, file))
	if err != nil {
		t.Fatalf("\n%v", err)
	}
	return s
}

func TestValidSpecs(t *testing.T) {
	for _, file := range valid(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			s := parseFile(t, file)
			if want := filepath.Base(file); s.Name+".yaml" != want {
				t.Errorf("name: %s in %s", s.Name, want)
			}
			canon := s.Canonical()
			again, err := Parse("canonical", canon)
			if err != nil {
				t.Fatalf("the canonical form does not parse:\n%s\n%v", canon, err)
			}
			if got := again.Canonical(); !bytes.Equal(got, canon) {
				t.Errorf("the canonical form changes when parsed again:\n%s\nbecame\n%s", canon, got)
			}
			if again.Hash() != s.Hash() {
				t.Error("the canonical form has another hash")
			}
			line, _, _ := bytes.Cut(s.Source, []byte("\n"))
			hint, found := bytes.CutPrefix(line, []byte("# yaml-language-server: $schema="))
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), string(hint))); !found || err != nil {
				t.Errorf("the first line, %q, is no editor hint that leads to the schema", line)
			}
		})
	}
}
