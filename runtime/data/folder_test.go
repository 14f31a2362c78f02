package data

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vitgen/vitgen/runtime"
)

// pngFile is a picture of one color.
func pngFile(t testing.TB, w, h int, c color.Color) []byte {
	t.Helper()
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		img.Set(i%w, i/w, c)
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tree makes a folder of pictures: number n of a class is of the gray
// 100·class + n, where the class is its place in the list.
func tree(t testing.TB, dir string, classes map[string]int) {
	t.Helper()
	names := make([]string, 0, len(classes))
	for name := range classes {
		names = append(names, name)
	}
	slices.Sort(names)
	for k, name := range names {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range classes[name] {
			write(t, filepath.Join(dir, name, fmt.Sprintf("%03d.png", i)), pngFile(t, 5+i%3, 4, color.Gray{uint8(100*k + i)}))
		}
	}
}

// grays are the gray of each sample, which must fit its label.
func grays(t *testing.T, d Dataset) []int {
	t.Helper()
	image := make([]uint8, pixels(d))
	var all []int
	for i := range d.Len() {
		label := sample(t, d, i, image)
		if int(image[0])/100 != label {
			t.Errorf("sample %d of gray %d has label %d", i, image[0], label)
		}
		all = append(all, int(image[0]))
	}
	return all
}

func TestFolderSplit(t *testing.T) {
	dir := t.TempDir()
	tree(t, dir, map[string]int{"ant": 10, "bee": 7, "Cat": 2})
	write(t, filepath.Join(dir, ".git", "a.png"), []byte("hidden"))
	write(t, filepath.Join(dir, "ant", ".a.png"), []byte("hidden"))
	write(t, filepath.Join(dir, "ant", "notes.txt"), []byte("not a picture"))
	config := Config{Name: "image_folder", Dir: dir, Image: [3]int{1, 3, 3}, Classes: 3, ValPart: 0.3, Seed: 7}
	s, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"Cat", "ant", "bee"}; !slices.Equal(s.Train.Classes(), want) || !slices.Equal(s.Val.Classes(), want) {
		t.Errorf("classes %v", s.Train.Classes())
	}
	train, val := grays(t, s.Train), grays(t, s.Val)
	if len(train) != 13 || len(val) != 1+3+2 || !slices.IsSorted(train) || !slices.IsSorted(val) {
		t.Errorf("%v and %v", train, val)
	}
	all := append(slices.Clone(train), val...)
	slices.Sort(all)
	if len(slices.Compact(all)) != 19 {
		t.Errorf("a picture is in both parts, or in none: %v and %v", train, val)
	}
	again, err := Open(config)
	if err != nil || again.Hash != s.Hash || !slices.Equal(grays(t, again.Val), val) {
		t.Error("the split is not repeatable")
	}
	config.Seed++
	other, err := Open(config)
	if err != nil || slices.Equal(grays(t, other.Val), val) {
		t.Error("the seed has no effect on the split")
	}
	config.ValPart = 0
	if other, err = Open(config); err != nil || other.Val.Len() != 1+2+1 {
		t.Errorf("by default %d samples validate", other.Val.Len())
	}
	// Another size of a file is other data.
	write(t, filepath.Join(dir, "ant", "003.png"), pngFile(t, 50, 40, color.Gray{103}))
	if other, err = Open(config); err != nil || other.Hash == s.Hash {
		t.Error("the hash does not tell changed data")
	}
}

func TestFolderParts(t *testing.T) {
	for _, name := range valFolders {
		dir := t.TempDir()
		tree(t, filepath.Join(dir, "train"), map[string]int{"a": 3, "b": 2})
		tree(t, filepath.Join(dir, name), map[string]int{"a": 1, "b": 1})
		tree(t, filepath.Join(dir, "raw"), map[string]int{"x": 1})
		c := Config{Name: "image_folder", Dir: dir, Image: [3]int{1, 3, 3}, Classes: 2}
		s, err := Open(c)
		if err != nil {
			t.Fatal(err)
		}
		if s.Train.Len() != 5 || s.Val.Len() != 2 {
			t.Errorf("%s: %d and %d samples", name, s.Train.Len(), s.Val.Len())
		}
	}
	// A lone train holds the classes; beside others it is one.
	dir := t.TempDir()
	tree(t, filepath.Join(dir, "train"), map[string]int{"a": 3, "b": 2})
	c := Config{Name: "image_folder", Dir: dir, Image: [3]int{1, 3, 3}, Classes: 2}
	s, err := Open(c)
	if err != nil || !slices.Equal(s.Train.Classes(), []string{"a", "b"}) {
		t.Errorf("a lone train: %v", err)
	}
	tree(t, dir, map[string]int{"plane": 2})
	if s, err = Open(c); err != nil || !slices.Equal(s.Train.Classes(), []string{"plane", "train"}) || s.Train.Len() != 1+4 {
		t.Errorf("train as a class, with folders in it: %v", err)
	}
}

// TestFolderContent: endings say nothing of the content, links are followed,
// and the pictures are what a Preparer makes of them.
func TestFolderContent(t *testing.T) {
	dir := t.TempDir()
	c := Config{Name: "image_folder", Dir: dir, Image: [3]int{3, 6, 6}, Classes: 2}
	cases := pillowCases(t)
	for i, p := range cases {
		name := []string{"a.png", "a.JPG", "a.jpeg", "a.PnG"}[i%4]
		write(t, filepath.Join(dir, []string{"x", "y"}[i%2], fmt.Sprint(100+i), "deep", name), p.File)
	}
	outside := t.TempDir()
	write(t, filepath.Join(outside, "z.png"), cases[0].File)
	link(t, outside, filepath.Join(dir, "x", "linked"))
	link(t, filepath.Join(outside, "z.png"), filepath.Join(dir, "y", "linked.png"))
	var warnings []string
	c.Warn = func(text string) { warnings = append(warnings, text) }
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if s.Train.Len()+s.Val.Len() != len(cases)+2 {
		t.Errorf("%d and %d samples of %d", s.Train.Len(), s.Val.Len(), len(cases)+2)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "2 pictures are gray with 16 bits") {
		t.Errorf("warnings %q", warnings)
	}
	p, err := NewPreparer(c, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	z, got, want, image := p.normalize, make([]float32, 108), make([]float32, 108), make([]uint8, 108)
	d := s.Train.(*cached).Dataset.(*folder)
	for range 2 { // from the files, then from the cache
		for i := range d.Len() {
			label := sample(t, s.Train, i, image)
			if z.Apply(got, image); p.File(filepath.Join(dir, d.files[i]), want) != nil || !slices.Equal(got, want) {
				t.Errorf("%s is not what evaluation makes of it", d.files[i])
			}
			if d.classes[label] != d.files[i][:1] {
				t.Errorf("%s has class %s", d.files[i], d.classes[label])
			}
		}
	}
	c.Augment.ResizedCrop = runtime.ResizedCrop{Scale: [2]float64{0.5, 1}, Ratio: [2]float64{0.5, 2}}
	if s, err = Open(c); err != nil {
		t.Fatal(err)
	}
	if _, is := s.Train.(*folder); !is {
		t.Errorf("with resized crops, training images are kept: %T", s.Train)
	}
}

func link(t *testing.T, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Skipf("no symbolic links on this machine: %v", err)
	}
}

func TestFolderErrors(t *testing.T) {
	good := pngFile(t, 4, 4, color.Gray{7})
	for what, c := range map[string]struct {
		make func(dir string)
		want string
	}{
		"absent":         {func(dir string) { os.Remove(dir) }, "name its directory with --data-dir"},
		"nothing":        {func(string) {}, "has no folders of pictures"},
		"no folders":     {func(dir string) { write(t, filepath.Join(dir, "a.png"), good) }, "has pictures but no folders"},
		"an empty class": {func(dir string) { tree(t, dir, map[string]int{"a": 2, "b": 0}) }, filepath.FromSlash("/b has no pictures (.jpg, .jpeg, .png), and would be a class")},
		"others": {func(dir string) {
			tree(t, dir, map[string]int{"a": 2})
			write(t, filepath.Join(dir, "b", "x.webp"), good)
		}, "there are 1 .webp, which cannot be read"},
		"three classes": {func(dir string) { tree(t, dir, map[string]int{"a": 2, "b": 2, "c": 2}) }, "has the folders of 3 classes (a, b, c); the model has 2: set input.classes: 3"},
		"a single one":  {func(dir string) { tree(t, dir, map[string]int{"a": 2, "b": 1}) }, "class b has a single picture"},
		"val has another": {func(dir string) {
			parts(dir)(t, map[string]int{"a": 1, "b": 1}, map[string]int{"a": 1, "b": 1, "c": 1})
		}, "val has classes that "},
		"val lacks one": {func(dir string) { parts(dir)(t, map[string]int{"a": 1, "b": 1}, map[string]int{"a": 1}) }, "lacks classes of "},
		"all broken": {func(dir string) {
			tree(t, dir, map[string]int{"a": 2})
			write(t, filepath.Join(dir, "b", "1.png"), good[:20])
			write(t, filepath.Join(dir, "b", "2.png"), nil)
		}, filepath.FromSlash("/b has no picture that can be read")},
		"a link back": {func(dir string) {
			tree(t, dir, map[string]int{"a": 2, "b": 2})
			link(t, filepath.Join(dir, "a"), filepath.Join(dir, "a", "again"))
		}, "again is a link to a folder that it is in"},
		"too deep": {func(dir string) {
			tree(t, dir, map[string]int{"a": 2, "b": 2})
			write(t, filepath.Join(dir, "b", strings.Repeat("c/", maxDepth), "x.png"), good)
		}, "folders in each other"},
	} {
		dir := t.TempDir()
		c.make(dir)
		_, err := Open(Config{Name: "image_folder", Dir: dir, Image: [3]int{3, 4, 4}, Classes: 2})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: error %v, want one with %q", what, err, c.want)
		}
	}
	if _, err := Open(Config{Name: "image_folder", Image: [3]int{3, 4, 4}}); err == nil || !strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("without a directory: %v", err)
	}
	dir := t.TempDir()
	tree(t, dir, map[string]int{"a": 2, "b": 2})
	if _, err := Open(Config{Name: "image_folder", Dir: dir, Image: [3]int{2, 4, 4}, Classes: 2}); err == nil || !strings.Contains(err.Error(), "a model of 2 channels") {
		t.Errorf("a model of two channels: %v", err)
	}
}

func parts(dir string) func(t *testing.T, train, val map[string]int) {
	return func(t *testing.T, train, val map[string]int) {
		tree(t, filepath.Join(dir, "train"), train)
		tree(t, filepath.Join(dir, "val"), val)
	}
}

// TestFolderBroken: a file whose header is broken is left out when the set is
// opened, with a counted warning, or is an error.
func TestFolderBroken(t *testing.T) {
	dir := t.TempDir()
	tree(t, dir, map[string]int{"a": 15, "b": 10})
	for i := range 6 {
		write(t, filepath.Join(dir, "a", fmt.Sprintf("%03d.png", i)), [][]byte{nil, []byte("text"), []byte("GIF89a"), bomb(1<<30, 1<<30), {0xff, 0xd8, 0xff}, []byte("\x89PNG\r\n\x1a\n")}[i])
		write(t, filepath.Join(dir, "b", fmt.Sprintf("%03d.png", i)), nil)
	}
	link(t, filepath.Join(dir, "nowhere"), filepath.Join(dir, "b", "x.png"))
	var warnings []string
	c := Config{Name: "image_folder", Dir: dir, Image: [3]int{1, 3, 3}, Classes: 2, Warn: func(text string) { warnings = append(warnings, text) }}
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if s.Skipped != 13 || s.Train.Len()+s.Val.Len() != 13 {
		t.Errorf("%d of 26 left out, %d and %d remain", s.Skipped, s.Train.Len(), s.Val.Len())
	}
	if len(warnings) != maxWarnings || !strings.Contains(warnings[0], filepath.Join(dir, "a", "00")) ||
		!strings.HasSuffix(warnings[0], "; left out (1 so far)") || !strings.HasSuffix(warnings[9], "more will be counted without a word") {
		t.Errorf("warnings %q", warnings)
	}
	c.Strict = true
	if _, err := Open(c); err == nil || !strings.Contains(err.Error(), "; without --strict it would be left out") || !strings.Contains(err.Error(), dir) {
		t.Errorf("strict: %v", err)
	}
}

// FuzzPicture: no content of a file makes more than an error.
func FuzzPicture(f *testing.F) {
	for _, c := range pillowCases(f) {
		f.Add(c.File, uint8(len(c.File)))
	}
	f.Add(bomb(1<<31-1, 1<<31-1), uint8(0))
	f.Add([]byte{}, uint8(1))
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, 9, 9)), nil); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes(), uint8(2))
	f.Fuzz(func(t *testing.T, file []byte, how uint8) {
		// Headers of large pictures would make each run slow.
		if p, err := openPicture(file); err == nil && p.height*p.width > 1<<20 {
			return
		}
		c := Config{Image: [3]int{1 + int(how&2), 1 + int(how>>2&7), 1 + int(how>>5)}, Fit: "crop"}
		if how&1 == 0 {
			c.Fit = "stretch"
		}
		fit, err := newFitter(c)
		if err != nil {
			t.Fatal(err)
		}
		dst := make([]uint8, c.Image[0]*c.Image[1]*c.Image[2])
		whole := fit.make(&scratch{file: file}, dst, nil)
		part := fit.make(&scratch{file: file}, dst, func(h, w int) box { return box{h / 2, w / 3, h - h/2, w - w/3} })
		if (whole == nil) != (part == nil) && !strings.Contains(fmt.Sprint(whole), "would be scaled") {
			t.Errorf("whole: %v, part: %v", whole, part)
		}
	})
}
