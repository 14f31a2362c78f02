package runtime_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/internal/fake"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

// TestClasses: names go through a weights file, and a session forgets them
// when it loads one without.
func TestClasses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.safetensors")
	s := open(t, fake.New(image, classes, 4, runtime.Train{}), runtime.Options{Threads: 1})
	names := []string{"cat", "größe \"x\"", "<dog>"} // one less than classes
	if err := s.Save(path); err != nil {
		t.Fatal(err)
	}
	if f, _ := safetensors.Read(path); f == nil || f.Metadata["vitgen.classes"] != "" {
		t.Errorf("a file of a session without names: %v", f)
	}
	named := path + "2"
	if err := s.SetClasses(names); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(named); err != nil {
		t.Fatal(err)
	}
	if err := s.Load(path); err != nil || s.Classes() != nil {
		t.Errorf("after loading a file without names: %q, %v", s.Classes(), err)
	}
	if err := s.Load(named); err != nil || !slices.Equal(s.Classes(), names) {
		t.Errorf("names came back as %q, %v", s.Classes(), err)
	}
	for class, want := range map[int]string{1: names[1], 3: "3", -1: "-1"} {
		if got := s.ClassName(class); got != want {
			t.Errorf("class %d is called %q", class, got)
		}
	}
	if err := s.SetClasses(make([]string, classes+1)); err == nil {
		t.Error("more names than classes were accepted")
	}
	if err := s.SetClasses([]string{"\xff"}); err == nil {
		t.Error("a name that is not UTF-8 was accepted")
	}

	// Foreign metadata is an error that names the file, and changes nothing.
	f, err := safetensors.Read(named)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{`{"cat": 0}`, `["a", 1]`, `["a"`, `["a","b","c","d","e"]`} {
		f.Metadata["vitgen.classes"] = bad
		if err := safetensors.Write(path, f); err != nil {
			t.Fatal(err)
		}
		err := s.Load(path)
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "vitgen.classes") {
			t.Errorf("%s: %v", bad, err)
		}
		if !slices.Equal(s.Classes(), names) {
			t.Errorf("%s left the names %q", bad, s.Classes())
		}
	}
}
