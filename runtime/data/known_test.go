package data

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// What fetch writes is what is looked for.
func TestKnownFilesAreFound(t *testing.T) {
	for _, set := range []string{"mnist", "fashion_mnist"} {
		dir := t.TempDir()
		for _, f := range KnownFiles(set) {
			write(t, filepath.Join(dir, filepath.FromSlash(f.Name)), nil)
		}
		// Of all the places, the opener then takes that of these four.
		_, err := Open(Config{Name: set, Dir: dir, Image: [3]int{1, 28, 28}, Classes: 10})
		if want := filepath.Join(dir, set, trainImages+".gz") + ": truncated"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, want one with %q", set, err, want)
		}
	}
	files := KnownFiles("cifar10")[0].Members
	if len(files) != len(cifarTrain)+1 {
		t.Fatalf("%d files of cifar10", len(files))
	}
	for i, name := range append(cifarTrain[:5:5], cifarTest) {
		if files[i].Name != path.Join(cifarFolder, name) || files[i].Size != 10_000*(1+cifarPixels) {
			t.Errorf("%+v is not %s", files[i], name)
		}
	}
	if KnownFiles("digits") != nil {
		t.Error("digits has files")
	}
}

// A file of the right form under the name of a published one is told apart.
func TestUnpublishedFiles(t *testing.T) {
	old := known
	defer func() { known = old }()
	sum := func(b []byte) string {
		s := sha256.Sum256(b)
		return hex.EncodeToString(s[:])
	}
	dir := t.TempDir()
	images, labels := idx(idxImages, []int{2, 1, 1}, []byte{1, 2}), idx(idxLabels, []int{2}, []byte{0, 1})
	for _, f := range []struct {
		name    string
		content []byte
	}{{trainImages, images}, {testImages, images}, {trainLabels, labels}, {testLabels + ".gz", zip(labels)}} {
		write(t, filepath.Join(dir, f.name), f.content)
	}
	var warnings []string
	c := Config{Name: "mnist", Dir: dir, Image: [3]int{1, 1, 1}, Classes: 10, Warn: func(text string) { warnings = append(warnings, text) }}
	open := func() {
		t.Helper()
		warnings = nil
		if _, err := Open(c); err != nil {
			t.Fatal(err)
		}
	}
	open()
	if len(warnings) != 4 || !strings.Contains(warnings[0], filepath.Join(dir, trainImages)+" is not what is published as "+trainImages+" of mnist") {
		t.Errorf("the warnings are %q", warnings)
	}
	known = map[string][]KnownFile{"mnist": {
		{Name: "mnist/" + trainImages + ".gz", Content: sum(images)}, {Name: "mnist/" + trainLabels + ".gz", Content: sum(labels)},
		{Name: "mnist/" + testImages + ".gz", Content: sum(labels)}, {Name: "mnist/" + testLabels + ".gz", Content: sum(labels)},
	}}
	open() // the labels' file is gzip; it is the content that counts
	if len(warnings) != 1 || !strings.Contains(warnings[0], testImages) {
		t.Errorf("the warnings are %q", warnings)
	}
}
