package main

import (
	"bytes"
	"image/png"
	"os"
	"path/filepath"
	"testing"
)

// The same seed draws the same pictures, another one others, and each is a
// readable PNG of the size it should have.
func TestWrite(t *testing.T) {
	a, b, c := t.TempDir(), t.TempDir(), t.TempDir()
	for dir, seed := range map[string]uint64{a: 1, b: 1, c: 2} {
		if err := write(dir, 3, seed); err != nil {
			t.Fatal(err)
		}
	}
	read := func(dir, name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for _, f := range figures {
		for _, name := range []string{"000.png", "001.png", "002.png"} {
			name = filepath.Join(f.class, name)
			data := read(a, name)
			if !bytes.Equal(data, read(b, name)) || bytes.Equal(data, read(c, name)) {
				t.Errorf("%s does not follow from the seed", name)
			}
			picture, err := png.Decode(bytes.NewReader(data))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if s := picture.Bounds().Size(); s.X < 40 || s.X > 80 || s.Y < 40 || s.Y > 80 {
				t.Errorf("%s is of %v", name, s)
			}
		}
	}
	if err := write(filepath.Join(a, "circle", "000.png"), 1, 1); err == nil {
		t.Error("a file was taken for a folder")
	}
}
