package data

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// cifarFile has a record for each label; the pixels tell the record and plane.
func cifarFile(labels ...byte) []byte {
	var b []byte
	for i, l := range labels {
		b = append(b, l)
		for c := range 3 {
			b = append(b, bytes.Repeat([]byte{byte(10*i + c)}, cifarSide*cifarSide)...)
		}
	}
	return b
}

// writeCIFAR makes a small CIFAR-10 in a folder.
func writeCIFAR(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, name := range cifarTrain {
		write(t, filepath.Join(dir, name), cifarFile(byte(i), 9))
	}
	write(t, filepath.Join(dir, cifarTest), cifarFile(3, 4, 5))
}

func write(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCIFAR(t *testing.T) {
	c := Config{Name: "cifar10", Image: [3]int{3, 32, 32}, Classes: 10}
	hash := ""
	for _, sub := range []string{"", cifarFolder, "cifar10", filepath.Join("cifar10", cifarFolder)} {
		c.Dir = t.TempDir()
		writeCIFAR(t, filepath.Join(c.Dir, sub))
		s, err := Open(c)
		if err != nil {
			t.Fatal(err)
		}
		if s.Train.Len() != 10 || s.Val.Len() != 3 || !slices.Equal(s.Train.Classes(), cifarClasses) {
			t.Errorf("%d and %d samples of %v", s.Train.Len(), s.Val.Len(), s.Train.Classes())
		}
		if hash != "" && s.Hash != hash {
			t.Error("the hash depends on the place")
		}
		hash = s.Hash
		image := make([]uint8, 3072)
		if label := sample(t, s.Train, 4, image); label != 2 || image[0] != 0 || image[1024] != 1 || image[3071] != 2 {
			t.Errorf("the fifth training sample has label %d", label)
		}
		if label := sample(t, s.Val, 2, image); label != 5 || image[0] != 20 || image[3071] != 22 {
			t.Errorf("the last validation sample has label %d", label)
		}
	}
	write(t, filepath.Join(c.Dir, "cifar10", cifarFolder, cifarNames), []byte("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n"))
	s, err := Open(c)
	if err != nil || s.Train.Classes()[9] != "j" {
		t.Errorf("names of the file: %v", err)
	}
	c.Image, c.Resize = [3]int{3, 48, 40}, [2]int{48, 40}
	if s, err = Open(c); err != nil || s.Train.Shape() != c.Image {
		t.Errorf("resized: %v", err)
	}
}

func TestCIFARErrors(t *testing.T) {
	good := cifarFile(1, 2)
	for what, b := range map[string]struct {
		name string
		file []byte
		want string
	}{
		"absent":    {"data_batch_3.bin", nil, "incomplete: data_batch_3.bin missing"},
		"truncated": {"data_batch_2.bin", good[:len(good)-1], "truncated: the file has 3072 of 3073 bytes of record 1"},
		"empty":     {cifarTest, []byte{}, "the file is empty"},
		"foreign":   {"data_batch_5.bin", bytes.Repeat([]byte("pickle"), 2000), "label 112 of record 0 is not in 0 … 9"},
		"names":     {cifarNames, []byte("a\nb\n"), "names 2 classes, not 10"},
	} {
		dir := t.TempDir()
		writeCIFAR(t, dir)
		if b.file == nil {
			if err := os.Remove(filepath.Join(dir, b.name)); err != nil {
				t.Fatal(err)
			}
		} else {
			write(t, filepath.Join(dir, b.name), b.file)
		}
		_, err := Open(Config{Name: "cifar10", Dir: dir, Image: [3]int{3, 32, 32}, Classes: 10})
		if err == nil || !strings.Contains(err.Error(), b.want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: error %v, want one with %q", what, err, b.want)
		}
	}
	for dir, want := range map[string]string{"": "name its directory with --data-dir", t.TempDir(): "put there the files data_batch_1.bin"} {
		if _, err := Open(Config{Name: "cifar10", Dir: dir}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func FuzzCIFAR(f *testing.F) {
	f.Add(cifarFile(1, 2))
	f.Add(cifarFile(9)[:100])
	f.Add([]byte{10})
	f.Fuzz(func(t *testing.T, file []byte) {
		d := newCIFAR(cifarClasses)
		err := d.parseCIFAR(bytes.NewReader(file))
		if whole := len(file) > 0 && len(file)%3073 == 0; err == nil && !whole {
			t.Errorf("a file of %d bytes is accepted", len(file))
		}
		if err != nil {
			return
		}
		image := make([]uint8, cifarPixels)
		for i := range d.Len() {
			if label := sample(t, d, i, image); label != int(file[3073*i]) || !bytes.Equal(image, file[3073*i+1:][:cifarPixels]) {
				t.Errorf("record %d is read wrongly", i)
			}
		}
	})
}
